-- SPDX-License-Identifier: MIT
-- Mistakes in a device's table: each is refused with a sentence, at the author's line.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local sources = require "lunavisor.device.source"

-- What is said of a table; the line that it is said of has "<-- here" on it, where there is one.
local function refused(text, ...)
  local source = 'local device = ...\nreturn device "d" {\n' .. text .. "\n}\n"
  local path = helper.file(source)
  local chunk = assert(loadfile(path))
  local ok, message = pcall(chunk, device)
  if ok then error("nothing was wrong with it", 2) end
  local line = 0
  for one in source:gmatch "([^\n]*)\n" do
    line = line + 1
    if one:find("<-- here", 1, true) then
      helper.contains((path:match "[^/]*$" .. ":%d: device d: "):format(line), message)
    end
  end
  for _, part in ipairs { ... } do helper.contains(part, message) end
  return message
end

helper.block("a device's table", function()
  it("may not have registers that overlap, and both lines are told", function()
    local message = refused([[
      registers = {
        A = { at = 0, width = 4 },
        B = { at = 2, width = 4 }, -- <-- here
      }]], "B: B at 0x2..0x5 overlaps A at 0x0..0x3 for a read")
    helper.contains("(A is at line 4)", message)
  end)

  it("has regions with registers or with two functions", function()
    refused([[
      regions = { ram = { size = 8, read = print } } -- <-- here
    ]], "a region without registers has a size and two functions, read and write")
    refused([[
      regions = { ram = { read = print, write = print } } -- <-- here
    ]], "a region without registers has a size and two functions, read and write")
  end)

  it("has a region", function()
    refused([[
      regions = {} -- <-- here
    ]], "a region expected")
  end)

  it("has block functions, of registers that are one", function()
    refused([[
      registers = { A = { at = 0, count = 2, block = {} } } -- <-- here
    ]], "A: block: a table with read, write or both")
    refused([[
      registers = { A = { at = 0, block = { raed = print } } } -- <-- here
    ]], "A: block has no 'raed'; did you mean 'read'?")
    refused([[
      registers = { A = { at = 0, block = { read = 5 } } } -- <-- here
    ]], "A: read: a function expected, got number")
  end)

  it("may not keep what it has not", function()
    refused([[
      registers = {}, state = { a = 1 },
      keeps = "a b", -- <-- here
    ]], "there is no register, field or timer b")
  end)

  it("may not have a name twice", function()
    refused([[
      registers = {
        A = { at = 0, fields = { x = 0, y = 1 } },
        B = { at = 4 },
        A = { at = 8 }, -- a comment, { "a string" <-- here
      }]], "A: A stands twice in this table; line 4 is lost")
    refused([[
      registers = { A = { at = 0, write = function(d) local at = 1 if at then d.at = 2 end end,
        fields = {
          x = 0,
          x = 1,
        } } }]], "A.x: x stands twice")
  end)

  it("may not have misspelt words", function()
    refused([[
      registers = {
        A = { at = 0, acess = "ro" }, -- <-- here
      }]], "a register has no 'acess'; did you mean 'access'?")
    refused([[
      registers = {},
      timer = {}, -- <-- here
    ]], "a device has no 'timer'; did you mean 'timers'?")
    refused([[
      registers = {
        A = { at = 0, fields = {
          x = { 0, todoo = "" }, -- <-- here
        } } }]], "a field has no 'todoo'; did you mean 'todo'?")
    refused([[
      registers = {
        A = { at = 0, access = "w1" }, -- <-- here
      }]], "access: one of const, rc, ", "got w1; did you mean 'w1c'?")
  end)

  local cases = {
    ["bit 32 is beyond the 32 bits of the register"] = "A = { at = 0, fields = { x = 32 } }",
    ["bits: a number such as 7 or a range such as \"11:8\" expected, got \"8:11\""] =
      'A = { at = 0, fields = { x = "8:11" } }',
    ["field y (bits 3 to 4) overlaps x (bits 0 to 3)"] =
      'A = { at = 0, fields = { x = "3:0", y = "4:3" } }',
    ["a field cannot be called value"] = "A = { at = 0, fields = { value = 0 } }",
    ["the reset value 0x10 has 0x10 in reserved bits"] =
      "A = { at = 0, reset = 0x10, fields = { x = 0 } }",
    ["the reset value of x is 0x1 here and 0x0 in the register's"] =
      "A = { at = 0, reset = 2, fields = { x = { 0, reset = 1 }, y = 1 } }",
    ["reset 0x100 does not fit in 8 bits"] = "A = { at = 0, width = 1, reset = 0x100 }",
    ["width: 1, 2, 4 or 8 bytes expected, got 3"] = "A = { at = 0, width = 3 }",
    ["at: the offset of the register, or false, expected, got nil"] = "A = {}",
    ["stride 2 is less than the width 4"] = "A = { at = 0, count = 2, stride = 2 }",
    ["a FIFO has neither fields nor a count"] = "A = { at = 0, fifo = 2, count = 2 }",
    ["enum: a ="] = "A = { at = 0, fields = { x = { 0, enum = { a = 2 } } } }",
    ["enum: "] = "A = { at = 0, fields = { x = { 0, enum = { a = 1, b = 1 } } } }",
    ["follows: there is no register B"] =
      'A = { at = 0, fields = { x = { 0, follows = "B" } } }',
    ["follows: register A has no field yy"] =
      'A = { at = 0, fields = { x = { 0, follows = "A.yy" }, z = 1 } }',
    ["read: a function expected, got number"] = "A = { at = 0, read = 1 }",
    ["todo: where it is described"] = "A = { at = 0, todo = true }",
    ["narrow: 'merge' or 'refuse' expected"] = 'A = { at = 0, narrow = "no" }',
    ["a register cannot be called save: every device has that"] = "save = { at = 0 }",
  }
  for message, entry in pairs(cases) do
    it("is refused: " .. message, function()
      refused(("  registers = {\n%s, -- <-- here\n}"):format(entry), message)
    end)
  end

  it("has lines of registers that there are", function()
    local registers = "registers = { A = { at = 0, fields = { x = 0 } },"
      .. " F = { at = 4, fifo = 2 } },\n"
    refused(registers .. 'lines = {\nirq = { status = "B" }, -- <-- here\n}',
      "irq: status: there is no register B")
    refused(registers .. 'lines = { irq = { status = "A.y" } }', "register A has no field y")
    refused(registers .. 'lines = { irq = { status = "F" } }', "F is no single register")
    refused(registers .. "lines = { irq = 5 }", "a function, or true expected, got number")
    refused(registers .. 'lines = { irq = { stauts = "A", enable = "A" } }', "function, or true")
    refused(registers .. "lines = { A = true }",
      "lines.A: a register is called A too (A is at line 3)")
    refused(registers .. "inputs = 2", "need a function input(dev, number, level)")
    refused(registers .. "state = { A = 1 }", "a register is called A too")
    refused(registers .. "timers = { tick = 1 }", "a function expected, got number")
    refused(registers .. 'unknown = "none"', "unknown: 'ones', 'zeros', 'error' or a function")
  end)

  it("needs a name and registers", function()
    refused("registers = { { at = 0 } }", "a register cannot be called 1")
    helper.raises("device: a name of letters", function() device(5) end)
    helper.raises("device d: a table expected, got nil", function() device "d"() end)
    refused("width = 4", "registers: a table of registers by name expected, got nil")
  end)

  it("is refused at the call's line where its source is not there", function()
    local chunk = assert((loadstring or load)(
      "local device, spec = ...\nreturn device 'd' (spec)", "=made"))
    local ok, message = pcall(chunk, device, { registers = { A = { at = 0, width = 3 } } })
    assert.is_false(ok)
    helper.contains("made:2: device d: A: width: 1, 2, 4 or 8 bytes expected", message)
  end)

  it("is read, where it is one of this library's, only to blame its line", function()
    local spec = debug.getinfo(1, "S").source:match "^(.*/)" or "@"
    local own = sources.own
    finally(function() sources.own = own end)
    sources.own = "@" .. helper.file "":match "^.*/"
    refused([[
      registers = { A = { at = 0 },
        B = { at = 4, widht = 1 }, -- <-- here
      }]], "B: a register has no 'widht'; did you mean 'width'?")
    local path = helper.file 'return (...) "d" { registers = { A = { at = 0 }, A = { at = 1 } } }'
    assert.is_truthy(assert(loadfile(path))(device)) -- the specs below say so of all that ship
    sources.own = spec
    assert.is_false(pcall(assert(loadfile(path)), device))
  end)
end)

-- The modules of this library whose source makes a device.
local function makers()
  local list = {}
  local pipe = assert(io.popen "grep -lE 'device \"[a-z0-9_]+\"' -r lua/lunavisor")
  for path in pipe:lines() do
    if not path:find "/meta/" and not path:find "lunavisor/device/[a-z]+%.lua" then
      list[#list + 1] = path:match "^lua/(.*)%.lua$":gsub("/", ".")
    end
  end
  pipe:close()
  return list
end

describe("the tables of this library", function()
  for _, name in ipairs(makers()) do
    it("have no name twice: " .. name, function()
      local own, loaded = sources.own, package.loaded[name]
      finally(function() sources.own, package.loaded[name] = own, loaded end)
      sources.own, package.loaded[name] = nil, nil
      assert.is_truthy(require(name))
    end)
  end
end)
