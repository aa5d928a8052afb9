-- SPDX-License-Identifier: MIT
-- The client memtest: Debian's memtest86+ over 8 MiB, in memtest_vm.lua, to a screen that shows its
-- first pass at work, and through that pass, in which it waits for 160 seconds. The screen is VGA's
-- text memory, which QEMU would have to be asked for.

local process = require "process"

local M = { about = "Debian's memtest86+, through its first pass (LUNA_CLIENTS)" }

local CHECKS = { "Memtest86%+ v6", "Memory  : +%d+MB", "Errors: +0" }
local WORKING, PASSED = "Pass +[1-9]%d?%%", "Pass: +[1-9]"
local PASS_SECONDS = 900

function M.missing()
  return process.missing { { "boot/memtest86+x64.bin", "memtest86+" } }
end

function M.tests()
  return {
    { name = "memtest-64", image = "boot/memtest86+x64.bin", mode = "long", until_text = WORKING },
    { name = "memtest-32", image = "boot/memtest86+ia32.bin", mode = "protected",
      until_text = WORKING },
    { name = "memtest-pass", image = "boot/memtest86+x64.bin", mode = "long", until_text = PASSED,
      seconds = PASS_SECONDS, long = true },
  }
end

function M.ours(test, options)
  local most = math.max(options.seconds, test.seconds or 0)
  local text, status, seconds, used = process.run(("%s %s %s %s %s %s %d"):format(
    arg[-1] or "luajit", process.quote(options.directory .. "/memtest_vm.lua"),
    process.quote(process.find(test.image)), options.accel, test.mode,
    process.quote(test.until_text), most - 2), most)
  local result = process.judge({ test.until_text, CHECKS[1], CHECKS[2], CHECKS[3] }, text, status,
    seconds)
  result.used = used
  return result
end

function M.other() return nil end

return M
