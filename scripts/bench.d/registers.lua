-- SPDX-License-Identifier: MIT
-- What an exit costs whose handler reads and writes a register, against the exit alone in C.

local rounds = require "rounds"

local OUT = "ba 10 00  ee  eb fd" -- mov dx, 0x10; next: out dx, al; jmp next

local function write(device)
  local cpu = device.cpu
  cpu.rcx = cpu.rcx + 1
  device.left = device.left - 1
  if device.left == 0 then cpu:stop() end
end

-- The C program with KVM_GET_REGS and KVM_SET_REGS, against itself without.
local function by_ioctl()
  local bare = rounds.raw_guest(OUT, "run")
  return rounds.ratio(function() return rounds.raw("regs", rounds.EXITS) end, bare, rounds.ROUNDS)
end

return {
  { name = "register", unit = "x", limit = { luajit = 1.20, lua54 = 1.42 },
    measure = function() return rounds.exits { code = OUT, device = { write = write } } end },
  { name = "register_c", unit = "x", engine = "luajit",
    measure = function() return rounds.samples(by_ioctl) end },
}
