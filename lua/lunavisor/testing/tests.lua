-- SPDX-License-Identifier: MIT
-- t.registers: a device's derived tests as tests of busted.

local checks = require "lunavisor.check"
local class = require "lunavisor.class"
local derive = require "lunavisor.testing.derive"
local device = require "lunavisor.device"
local shapes = require "lunavisor.testing.shape"
local whole = require "lunavisor.testing.whole"

local M = {}

local known = { except = true, memory = true, options = true }

-- A function(options) that makes an instance, and one instance or class for its table.
local function maker(what, own)
  if class.of(what) == "bus" then what = what.device end
  local kind = device.is(what)
  if kind == "device" then
    what = rawget(what, "class")
  elseif kind ~= "class" and type(what) ~= "function" then
    error(("t.registers: a class of devices, or a function(options) that makes one, expected, got "
      .. "%s"):format(class.describe(what)), 4)
  end
  local function make(options)
    for key, value in pairs(own or {}) do options[key] = value end
    return what(options)
  end
  if kind then return make, what end
  local one = make { log = false }
  if device.is(one) ~= "device" then
    error(("t.registers: the function gave %s, no device of the kit"):format(class.describe(one)),
      4)
  end
  return make, one
end

local function check_options(options)
  options = checks.beside_module(options)
  if options ~= nil and type(options) ~= "table" then
    error(("t.registers: a table of options expected, got %s"):format(class.describe(options)), 4)
  end
  for key in pairs(options or {}) do
    if not known[key] then
      error(("t.registers: unknown option '%s'%s"):format(tostring(key), class.hint(key, known)),
        4)
    end
  end
  return options or {}
end

-- Marks those that the options except, by a register's name or the whole name of a test.
local function mark(list, layout, except)
  local names = {}
  for _, register in ipairs(layout.registers) do names[register.name] = true end
  for _, test in ipairs(list) do names[test.name] = true end
  for name, reason in pairs(except or {}) do
    if not names[name] then
      error(("t.registers: except: there is no register or test '%s'%s"):format(tostring(name),
        class.hint(name, names)), 4)
    elseif type(reason) ~= "string" then
      error(("t.registers: except: a reason for '%s' expected, got %s"):format(name,
        class.describe(reason)), 4)
    end
  end
  for _, test in ipairs(list) do
    test.except = except and (except[test.name] or except[test.register or ""]) or nil
  end
end

local function list_of(what, options)
  options = check_options(options)
  local make, one = maker(what, options.options)
  local self = { make = make, shape = shapes.new(one), memory = options.memory }
  local list = {}
  for _, register in ipairs(self.shape.layout.registers) do
    derive.register(self, register, function(name, check)
      list[#list + 1] = { name = name, register = register.name, check = check }
    end)
  end
  whole.device(self, function(name, check) list[#list + 1] = { name = name, check = check } end)
  mark(list, self.shape.layout, options.except)
  return list, self.shape.layout.name
end

--- The tests that a device's table gives, as a list of { name =, register = (nil: of the device as
--- a whole), except = (the reason why it is left out, else nil), check = a function that returns
--- what is wrong as a text, nil where nothing is }. `what`: a class of devices, a bus, or a
--- function(options) that makes a device. options.except: reasons by the name of a register or test
--- that is left out; options.memory: as t.bus takes it; options.options: what devices are made
--- with.
function M.list(what, options)
  local list = list_of(what, options)
  return list -- not a tail call: the checks count on this frame
end

-- Calls a function of busted, which takes the line of its call for the place of the test, as if the
-- author's own line did.
local function at_line(fn, ...)
  local info = debug.getinfo(class.outside(), "Sl")
  local text = ("\n"):rep(info.currentline - 1) .. "local fn = ... fn(select(2, ...))"
  local chunk = (loadstring or load)(text, info.source)
  chunk(fn, ...)
end

--- The same as tests of busted, to be called in a describe block.
function M.registers(what, options)
  local busted = require "busted"
  local list, name = list_of(what, options)
  for _, test in ipairs(list) do
    if test.except then
      at_line(busted.pending, ("%s: %s (%s)"):format(name, test.name, test.except))
    else
      at_line(busted.it, ("%s: %s"):format(name, test.name), function()
        local wrong = test.check()
        if wrong then busted.fail(("%s: %s"):format(name, wrong), 0) end
      end)
    end
  end
end

return M
