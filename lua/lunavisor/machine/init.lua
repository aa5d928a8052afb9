-- SPDX-License-Identifier: MIT
-- luna.machine: a VM with memory, devices and vCPUs, by the name of its kind. Each kind is a file
-- beside this one: { options = { name = check }, parts = names of its devices, build = fn(board) }.

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local sorted = require "lunavisor.text.sorted"

local unpack = rawget(table, "unpack") or unpack

local M = {}

local KINDS = { pc = true, microvm = true, bare = true }
local Machine = class.define(class.class "machine", {}, "kind ram image cpus")

function Machine.__tostring(self)
  return ("machine %s (%d vCPU%s, %d bytes of memory)"):format(self.kind, self.cpus,
    self.cpus == 1 and "" or "s", self.ram.size)
end

-- For checks: how many calls above one that is made here the last call of the library is.
local function depth()
  return class.outside() - 2
end

local function fail(form, ...)
  error(form:format(...), class.outside())
end

local function any(_, value) return value end

local PAGE = 4096

-- What machines of all kinds can be made with. accel, clock and unknown are luna.vm's to check.
local COMMON = {
  accel = any, clock = any, unknown = any, cpuid = any, image = any,
  cpus = function(what, value)
    value = check.whole(what, value, 1, 64, depth())
    return value
  end,
  memory = function(what, value)
    value = check.size(what, value, depth())
    if value == 0 or value % PAGE ~= 0 then
      fail("%s: a multiple of 4096 bytes such as '128M' expected, got %.14g", what, value)
    end
    return value
  end,
  load = function(what, value)
    if type(value) ~= "table" then
      fail("%s: a table of options of luna.load expected, got %s", what, class.describe(value))
    end
    return value
  end,
}

local function kind_of(name)
  if type(name) ~= "string" then
    fail("luna.machine: the name of a kind expected, got %s", class.describe(name))
  elseif not KINDS[name] then
    fail("luna.machine: there is no kind %q%s", name, class.hint(name, KINDS))
  end
  return require("lunavisor.machine." .. name)
end

-- The devices that the options speak of, each of which must be a part of the kind.
local function devices_of(what, devices, parts)
  if type(devices) ~= "table" then
    fail("%s: devices: a table by name expected, got %s", what, class.describe(devices))
  end
  for name, value in pairs(devices) do
    if not parts[name] then
      local hint = class.hint(name, parts)
      fail("%s: devices: it has no part '%s'%s", what, tostring(name), hint ~= "" and hint
        or "; its parts are " .. table.concat(sorted(parts), ", "))
    elseif value ~= false and type(value) ~= "table" then
      fail("%s: devices: %s: a device of the kit, a table of options, or false expected, got %s",
        what, name, class.describe(value))
    end
  end
  return devices
end

local function options_of(what, kind, options)
  if options ~= nil and type(options) ~= "table" then
    fail("%s: a table of options expected, got %s", what, class.describe(options))
  end
  local parts, known, checked = {}, { devices = true }, {}
  for name in kind.parts:gmatch "%S+" do parts[name] = true end
  for _, set in ipairs { COMMON, kind.options } do
    for name in pairs(set) do known[name] = true end
  end
  for name, value in pairs(options or {}) do
    if not known[name] then
      fail("%s: unknown option '%s'%s", what, tostring(name), class.hint(name, known))
    elseif name ~= "devices" then
      checked[name] = (COMMON[name] or kind.options[name])(("%s: %s"):format(what, name), value)
    end
  end
  checked.devices = devices_of(what, options and options.devices or {}, parts)
  if kind.check then kind.check(what, checked) end
  return checked
end

--- Makes a machine: a VM with memory, devices and, where it is told what runs, vCPUs. `kind` is
--- "pc", "microvm" or "bare". Options of all kinds:
---   memory     a size; 128M where nil, 16M of "bare"
---   cpus       how many vCPUs it gets, 1 where nil
---   image      what luna.load is to put in: the vCPUs begin there; without it there are none yet
---   load       further options of luna.load
---   devices    by name: false leaves a part out, a table has options of its model, a device of the
---              kit (an instance or a class) takes its place
---   accel, clock, unknown   as luna.vm; unknown is "ones" where nil, "stop" of "bare"
---   cpuid      as vm:vcpu
--- The manual tells what the kinds have. Returns the VM; vm.machine has kind, ram (a buffer, which
--- stays open when the VM is closed), image (what luna.load returned) and cpus. nil, message, code
--- where the host refuses, or luna.load does; then nothing is left. What is wrong with an option
--- raises. The thread that calls owns the VM.
function M.new(name, options)
  local kind = kind_of(name)
  local what = "luna.machine " .. name
  options = options_of(what, kind, options)
  local board, message, code = require "lunavisor.machine.board".new(what, kind, options)
  if not board then return nil, message, code end
  local vm = board.vm
  vm.machine = setmetatable({ kind = name, ram = board.ram, cpus = board.cpus }, Machine)
  local ok, refused, why, how = pcall(kind.build, board)
  if not ok and type(refused) == "table" then ok, refused, why, how = true, nil, unpack(refused) end
  if not ok or refused == nil then board:close() end
  if not ok then error(refused, 0) end
  if refused == nil then return nil, why, how end
  vm.machine.image = board.image
  return vm
end

return M
