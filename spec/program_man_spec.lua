-- SPDX-License-Identifier: MIT
-- luna man: the manual page has every command and option of the help, and roff takes it.

local helper = require "spec.support.helper"
local recorder = require "lunavisor.program.recorder"
local contains = helper.contains

local function luna(words, before)
  return helper.sh(("export LUNA_LUA=%s; %s scripts/luna %s"):format(helper.engine, before or "",
    words))
end

-- What a page says, without its form.
local function plain(text)
  return (text:gsub("\\f[BIR]", ""):gsub("\\%-", "-"):gsub("\\e", "\\"))
end

-- The commands in the help of one, and those in these.
local function commands_of(name, list)
  local help = luna(name .. " --help")
  for inner in (help:match "\nCommands:(\n.-\n)\n" or ""):gmatch "\n   (%l+) " do
    list[#list + 1] = (name == "" and "" or name .. " ") .. inner
    commands_of(list[#list], list)
  end
  return list
end

describe("luna man", function()
  it("has every command with its options and examples", function()
    local page, commands = plain((luna "man")), commands_of("", {})
    assert.is_true(#commands >= 13, table.concat(commands, ", "))
    for _, name in ipairs(commands) do
      local part = page:match('\n%.SS "luna ' .. name .. '"\n(.-)\n%.S[SH] ')
      assert.truthy(part, name)
      local help = luna(name .. " --help")
      for line in help:gmatch "[^\n]+" do assert.is_true(#line <= 80, name .. ": " .. line) end
      for option in help:gmatch "%f[%-]%-%-%l[%l-]+" do
        if option ~= "--help" then contains(option, part) end
      end
      for example in (help:match "\nExamples:\n(.-)\n\n" or ""):gmatch "[^\n]+" do
        contains("\n" .. example:gsub("^  ", "") .. "\n", part)
      end
    end
    contains("\n.SH EXIT STATUS\nThe guest's, or 124: its time was up;", page)
    contains("-m SIZE, --memory SIZE\nA size, such as 64M or 2G. (default: 128M)", page)
    contains("--accel kvm|soft|auto\n", page)
  end)

  it("is taken by roff without a word", function()
    local found = false
    for _, command in ipairs { "groff -man -Tutf8 -ww - 2>&1 >/dev/null",
      "mandoc -Tlint -Wwarning" } do
      if select(2, helper.sh("command -v " .. command:match "%S+")) == 0 then
        found = true
        assert.equal("", (luna("man | " .. helper.program(command))))
      end
    end
    if not found then pending "neither groff nor mandoc is installed" end
  end)

  it("has the date that SOURCE_DATE_EPOCH says", function()
    assert.matches('^%.TH LUNA 1 "2001%-09%-09" ',
      (luna("man", "export SOURCE_DATE_EPOCH=1000000000;")))
  end)

  it("keeps signs of roff in texts from meaning anything", function()
    local page = require "lunavisor.program.man".page { about = "Does.", epilog = "Examples:\n"
      .. "  .so x\n\n'br \\n text\n\nStatus: .so", commands = { { name = "x", subcommand = {
        about = ".so \\fB", describe = function(command)
          command:option("--a-b", "'so"):argname ".x"
          command:flag("--secret"):hidden(true)
        end } } } }
    for line in page:gmatch "[^\n]+" do
      assert.is_nil(line:find "^[.']so", line)
      assert.is_nil(line:find "^'", line)
    end
    contains("\\&.so \\efB", page)
    contains("\\en text", page)
    assert.is_nil(page:find("secret", 1, true))
  end)

  it("is of what subcommands tell argparse", function()
    local node = recorder.record("x", { about = "Does.", describe = function(command)
      command:argument("file", "A file."):args "*":convert(tonumber)
      command:option("-s --size", "How much.", "1"):argname "N":choices { "1", "2" }
      command:flag("--quick", "Soon.")
      command:command("y", "Another."):epilog "Ends."
      command:command_target "z":usage "Usage: x"
    end })
    assert.same({ name = "file", about = "A file.", said = { args = "*", convert = tonumber } },
      setmetatable(node.arguments[1], nil))
    assert.same({ "-s --size", false, "N", "1" }, { node.options[1].name, node.options[1].flag,
      node.options[1].said.argname, node.options[1].said.default })
    assert.is_true(node.options[2].flag)
    assert.same({ "y", "Ends.", "Usage: x" }, { node.commands[1].name, node.commands[1].epilog_text,
      node.usage_text })
  end)

  it("has a help that fits 80 columns", function()
    local text, status = luna "man --help"
    assert.equal(0, status)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    if select(2, helper.sh "command -v man") ~= 0 then pending "man is not installed" end
    local page = luna("man | " .. helper.program "MANWIDTH=80 man -l - | cat")
    contains("luna boot [OPTION...] ", page)
  end)
end)
