-- SPDX-License-Identifier: MIT
-- luna device new: a first device of one's own, its spec, and a guest that drives it.

local files = require "lunavisor.program.file"
local say = require "lunavisor.program.say"

local M = { about = "Write a first device, its spec and a guest for it." }

local EPILOG = [[
Examples:
  luna device new shout
  luna device new devices/shout.lua

It writes shout.lua, shout_spec.lua and shout.asm, and nothing that is there
already. luna test runs the spec; luna boot shout.asm --device shout.lua has the
guest meet the device.]]

local DEVICE = [[
-- A device: letters that are written to IN come out of OUT as capitals.
local device = require "lunavisor.device"

return { device "@name" {
  width = 1,
  registers = {
    IN = { at = 0, access = "wo", write = function(dev, value)
      dev.OUT = string.char(value):upper():byte()
    end },
    OUT = { at = 1, access = "ro" },
  },
}, pio = 0x300 }
]]

local SPEC = [[
local t, @variable = require "lunavisor.testing", require("@name")[1]
describe("@name", function()
  t.registers(@variable)
  it("makes a capital of a letter", function()
    local bus = t.bus(@variable)
    bus:write8("IN", ("a"):byte())
    assert.reads(bus, "OUT", ("A"):byte())
  end)
end)
]]

local GUEST = [[
; A guest for @name.lua: what it says goes through the device, and then to the serial port.
  mov esi, text
next:
  lodsb
  test al, al
  jz done
  mov dx, 0x300     ; IN
  out dx, al
  inc dx            ; OUT
  in al, dx
  mov dx, 0x3f8     ; the serial port
  out dx, al
  jmp next
done:
  out 0xf4, al      ; the end, with status 0
text: db "hello from a guest", 10, 0
]]

function M.describe(command)
  command:argument("name", "Its name, or the file that it is to be in.")
  command:epilog(EPILOG)
end

-- Whether a spec that requires the name could come to something else.
local function is_module(name)
  if package.loaded[name] then return true end
  for _, path in ipairs { package.path, package.cpath } do
    local found = package.searchpath(name, path)
    if found and found:sub(1, 2) ~= "./" then return true end
  end
  return false
end

-- The path without ".lua", and the name at its end, which is a module for what is beside it. nil,
-- message.
local function parts_of(text)
  local stem = text:gsub("%.lua$", "")
  local name = stem:match "[^/]*$"
  if not name:find "^[%a_][%w_-]*$" then
    return nil, ("a name of letters, digits, '_' and '-', and no digit or '-' first, expected, "
      .. "got %q"):format(name)
  end
  if is_module(name) then
    return nil, ("Lua has a module %s already: another name expected"):format(name)
  end
  return stem, name
end

-- What the spec calls it: its name where that is no word of Lua and none that the spec has.
local function variable_of(name)
  local variable = name:gsub("%-", "_")
  if variable == "t" or variable == "bus" then return "dev" end
  return (loadstring or load)("local " .. variable) and variable or "dev"
end

--- Status 0 when the files are written, 126 where one of them cannot be.
function M.run(options)
  local stem, name = parts_of(options.name)
  if not stem then return say.cannot("device new: %s", name) end
  local values = { name = name, variable = variable_of(name) }
  local list = {}
  for i, file in ipairs { { ".lua", DEVICE }, { "_spec.lua", SPEC }, { ".asm", GUEST } } do
    list[i] = { path = stem .. file[1], text = (file[2]:gsub("@(%l+)", values)) }
  end
  local ok, message = files.create(list)
  if not ok then return say.cannot("device new: %s", message) end
  for _, file in ipairs(list) do print(file.path) end
  return 0
end

return M
