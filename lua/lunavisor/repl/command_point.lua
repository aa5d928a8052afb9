-- SPDX-License-Identifier: MIT
-- Commands of a prompt that say where the guest is to stop: breakpoints, watched memory and
-- devices.

local class = require "lunavisor.class"
local dump = require "lunavisor.device.dump"
local evaluate = require "lunavisor.repl.evaluate"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local ACCESSES = { w = "w", rw = "rw", r = "rw" }

-- ---- The list ----

local Point = {}
Point.__index = Point

function Point.close(self)
  for _, part in ipairs(self) do part:close() end
end

local function add_point(self, text, parts)
  self.number = self.number + 1
  parts.number, parts.text = self.number, text
  self.points[#self.points + 1] = setmetatable(parts, Point)
  return ("%d: %s"):format(parts.number, text)
end

local function list(self)
  local lines = {}
  for i, point in ipairs(self.points) do
    local hits = 0
    for _, part in ipairs(point) do hits = hits + (part.hits or 0) end
    lines[i] = ("%d: %s%s"):format(point.number, point.text, point[1].hits
      and (" (%d hit%s)"):format(hits, hits == 1 and "" or "s") or "")
  end
  return #lines > 0 and table.concat(lines, "\n") or "none"
end

-- ---- Memory ----

-- A breakpoint on every vCPU.
local function set(self, address, options, fn)
  local parts = {}
  for _, cpu in ipairs(self:need_vm().vcpus) do
    local made, message = cpu:breakpoint(address, options, fn)
    if not made then
      Point.close(parts)
      error(message, 0)
    end
    parts[#parts + 1] = made
  end
  return parts
end

local function name_of(self, address)
  local name = symbols.text(self:need_vm().symbols, address)
  return u64.hex(address) .. (name and " <" .. name .. ">" or "")
end

local function break_at(self, rest)
  local place, condition = rest:match "^(.-)%s+if%s+(.*)$"
  local address, fn = self:numbers(place or rest), nil
  if condition then
    local problem
    fn, problem = evaluate.compile(condition, "=condition", self.env)
    if not fn then error(problem, 0) end
  end
  local parts = set(self, address, {}, fn and function() return fn() and "stop" or "continue" end)
  return add_point(self, ("break at %s%s"):format(name_of(self, address),
    condition and " if " .. condition or ""), parts)
end

local function watch_memory(self, rest)
  local head, access = rest:match "^(.-)%s+([rw]+)$"
  access = ACCESSES[access or "w"]
  local address, size = self:numbers(access and head or rest)
  size = size and u64.tonumber(size) or 4
  return add_point(self, ("watch %d bytes at %s, %s"):format(size, u64.hex(address),
    access == "w" and "written" or "read or written"),
    set(self, address, { access = access, size = size }))
end

-- ---- Devices ----

-- Where a register of a device lies: a set of regions by name, each with { first, last }.
local function register_of(device, name)
  local layout = dump.layout_of(device)
  local places, registers = nil, {}
  for _, region in ipairs(layout and layout.regions or {}) do
    for _, register in ipairs(region.registers) do
      if register.at then registers[register.name] = true end
      if register.at and register.name == name then
        places = { first = register.at, region = region.name,
          last = register.at + register.width * (register.count or 1) - 1 }
      end
    end
  end
  if places then return places end
  error(("the device has no register %s on its bus%s"):format(name, class.hint(name, registers)), 0)
end

local function is_at(place, access)
  local last = access.offset + access.size - 1
  return last >= place.first and access.offset <= place.last
end

local VERBS = { r = "read", w = "write" }

local function access_text(name, register, access)
  return ("%s%s: %s of %d byte%s%s"):format(name, register and "." .. register or
    (" at offset 0x%x"):format(access.offset), VERBS[access.access], access.size,
    access.size == 1 and "" or "s", access.value ~= nil and ", value " .. u64.hex(access.value)
      or "")
end

local function watch_device(self, vm, name, register)
  local place = register and register_of(vm.devices[name], register)
  local part = vm:watch(name, function(access)
    if not place or is_at(place, access) then
      vm:stop(access_text(name, register, access))
    end
  end)
  return add_point(self, "watch " .. name .. (register and "." .. register or ""), { part })
end

return function(add)
  add("b", "[ADDRESS [if LUA]]", "break there; alone: all that are set",
    function(self, rest)
      return rest == "" and list(self) or break_at(self, rest)
    end)

  add("d", "[NUMBER]", "delete that breakpoint or watch; alone: all", function(self, rest)
    local number = rest ~= "" and u64.tonumber(self:numbers(rest)) or nil
    for i = #self.points, 1, -1 do
      if not number or self.points[i].number == number then
        table.remove(self.points, i):close()
        if number then return "" end
      end
    end
    if number then error(("there is no breakpoint or watch %d"):format(number), 0) end
    return ""
  end)

  add("watch", "ADDRESS [SIZE] [w|rw]", "stop behind writes (accesses) of memory; or\n"
    .. (" "):rep(31) .. "watch DEVICE[.REGISTER], behind accesses of one",
    function(self, rest)
      local vm = self:need_vm()
      local device, register = rest:match "^([%a_][%w_]*)%.?([%w_]*)$"
      if device and vm.attached.entries[device] then
        return watch_device(self, vm, device, register ~= "" and register or nil)
      end
      return watch_memory(self, rest)
    end)
end
