-- SPDX-License-Identifier: MIT
-- The client ovmf: Debian's UEFI firmware, to the prompt of its shell on the serial port, in
-- ovmf_vm.lua. Nothing ends QEMU at the prompt but us: what it prints is watched.

local process = require "process"

local M = { about = "Debian's OVMF, to the prompt of its shell (LUNA_CLIENTS)" }

local IMAGE = "usr/share/ovmf/OVMF.fd"
local CHECKS = { "UEFI Interactive Shell v2", "Press .-ESC", "Shell> " }

function M.missing()
  return process.missing { { IMAGE, "ovmf" } }
end

function M.tests()
  return { { name = "ovmf-shell" } }
end

local function run(command, options)
  local text, status, seconds, used = process.run(command, options.seconds)
  local result = process.judge(CHECKS, text, status, seconds)
  result.used = used
  return result
end

function M.ours(_, options)
  return run(("%s %s %s %s"):format(arg[-1] or "luajit",
    process.quote(options.directory .. "/ovmf_vm.lua"), process.quote(process.find(IMAGE)),
    options.accel), options)
end

function M.other(_, options)
  if not process.has_qemu() then return nil end
  return run("bash -c " .. process.quote("coproc qemu { exec qemu-system-x86_64 -accel tcg -m 128 "
    .. "-nodefaults -vga none -display none -serial stdio -bios "
    .. process.quote(process.find(IMAGE)) .. "; }\nwhile IFS= read -r -d '>' part <&${qemu[0]}; do "
    .. "printf '%s>' \"$part\"; [[ $part == *Shell ]] && break; done\nprintf ' '\n"
    .. "kill $qemu_PID; wait 2>/dev/null"), options)
end

return M
