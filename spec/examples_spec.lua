-- SPDX-License-Identifier: MIT
-- Runs every example under this engine, and the C ones that are built, and checks what they print.

local helper = require "spec.support.helper"

-- By file: the whole output as a pattern, and the argument. "@check" is a file with the text
-- 123456789, whose CRC-32 is the check value of every table of CRCs.
local expected = {
  ["hello.lua"] = { "^hello from a 16%-bit guest\nhlt at rip 0x100f\n27 exits\nspace 0\n"
    .. "000000000000%-000000200000 rwx rwx buffer 1%+0x0 slot 0$" },
  ["echo.lua"] = { "^to the guest:   a guest reads a port, answers, and halts\n"
    .. "from the guest: A GUEST READS A PORT, ANSWERS, AND HALTS$" },
  ["mmio_counter.lua"] = { "^the guest counted to 30 in steps of 3 and summed up 165$" },
  ["native_speed.lua"] = { "^/%S+: 9 bytes, CRC%-32 cbf43926\n"
    .. "guest [%d.]+ ms, host in Lua [%d.]+ ms$", "@check" },
  ["embed.c"] = { "^hello from a guest run by C\n29 exits$" },
}

local function files()
  local list = {}
  for name in (helper.sh "ls examples"):gmatch "[^\n]+" do
    if name:match "%.lua$" or name:match "%.c$" then list[#list + 1] = name end
  end
  return list
end

describe("the examples", function()
  it("are all expected here", function()
    local missing = {}
    for _, name in ipairs(files()) do
      if not expected[name] then missing[#missing + 1] = name end
    end
    assert.same({}, missing)
    assert.truthy(#files() >= 5)
  end)
end)

helper.kvm("the example", function()
  for _, name in ipairs(files()) do
    local case = expected[name]
    if case then
      it(name .. " prints what it should", function()
        local command
        if name:match "%.c$" then
          local library = os.getenv "LUNAVISOR_LIBRARY"
          local build = library and library:match "^(.*)/" or "build"
          command = build .. "/examples/" .. name:gsub("%.c$", "")
          if helper.sh("test -x " .. command .. " || echo no") == "no" then
            pending(command .. " is not built")
          end
        else
          command = helper.command("examples/" .. name)
        end
        local argument = case[2] == "@check" and helper.file "123456789" or ""
        local output, status = helper.sh(command .. " " .. argument)
        assert.equal(0, status, output)
        assert.matches(case[1], output)
      end)
    end
  end
end)
