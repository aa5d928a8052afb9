-- SPDX-License-Identifier: MIT
-- The pieces of Lua in the README run, on this engine, and print what it says. Those that begin
-- with the require are whole programs; the others get the objects that they are about.

local helper = require "spec.support.helper"

local WHOLE = 'local luna = require "lunavisor"\n'

local PRELUDE = WHOLE .. [[
local vm = assert(luna.vm())
local ram, disk = assert(luna.buffer "2M"), assert(luna.buffer { size = "4M", memfd = true })
local fd, p = disk:fd(), ram:pointer()
local space = vm.default
if not MAPS then assert(space:map(ram, 0)) end
ram:write(0x1000, "\xeb\xfe") -- jmp $
local cpu = assert(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
local device = { read = function() return 0 end, write = function() end }
local bell = assert(assert(luna.vm()):eventfd { port = 0x98, size = 1 })
]]

local file = assert(io.open("README.md", "rb"))
local readme = file:read "*a"
file:close()

-- In the order of the file: the text of a block, and a name made of its heading and its number.
local function read_blocks()
  local blocks, heading, text = {}, "beginning", nil
  for line in readme:gmatch "([^\n]*)\n" do
    if text and line == "```" then
      blocks[#blocks + 1] = { text = text, name = ("%d, %s"):format(#blocks + 1, heading) }
      text = nil
    elseif text then
      text = text .. line .. "\n"
    elseif line == "```lua" then
      text = ""
    else
      heading = line:match "^## (.*)" or heading
    end
  end
  return blocks
end

local blocks = read_blocks()

-- What a script prints; a file that it names is there.
local function run(script)
  local image = helper.file(("\0"):rep(65536))
  return (helper.child((script:gsub('"disk%.img"', function() return ("%q"):format(image) end))))
end

local function words(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""):gsub("%s+", " "))
end

-- Each "--> text" of a program is a line of its output, in this order.
local function check_output(program, output)
  local lines = {}
  for line in (output .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = words(line) end
  local at = 0
  for text in program:gmatch "%-%->([^\n]*)" do
    repeat at = at + 1 until at > #lines or lines[at] == words(text)
    if at > #lines then error(("no line %q in:\n%s"):format(words(text), output), 2) end
  end
end

describe("the README", function()
  it("has pieces of Lua that both engines can parse", function()
    assert.is_true(#blocks > 15)
    for _, block in ipairs(blocks) do assert((loadstring or load)(block.text), block.text) end
  end)

  it("has a line for each example", function()
    for name in helper.sh("ls examples"):gmatch "[%w_]+%.[%w]+" do
      helper.contains("\n| `" .. name .. "` |", readme)
    end
  end)

  it("names every kind of exit", function()
    local exits = require "lunavisor.exit.record"
    for _, kind in ipairs(exits.names) do
      -- cpu:run deals with foreign signals by itself
      if kind ~= "signal" then helper.contains("`" .. kind .. "`", readme) end
    end
    for kind in ("limit stopped parked"):gmatch "%a+" do
      helper.contains("`" .. kind .. "`", readme)
    end
  end)
end)

helper.kvm("the README's script", function()
  for _, block in ipairs(blocks) do
    it(block.name, function()
      if block.text:sub(1, #WHOLE) == WHOLE then
        check_output(block.text, run(block.text))
      else
        local maps = block.text:find("map(ram, 0x0", 1, true) ~= nil
        run("local MAPS = " .. tostring(maps) .. "\n" .. PRELUDE .. "do\n" .. block.text .. "end")
      end
    end)
  end

  it("at the beginning prints no more than that", function()
    assert.equal("A\nhlt\t0x1007", run(blocks[1].text))
  end)
end)
