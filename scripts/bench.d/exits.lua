-- SPDX-License-Identifier: MIT
-- What a port or memory access costs that a Lua function answers, against the same in C.

local rounds = require "rounds"

local OUT = "ba 10 00  ee  eb fd" -- mov dx, 0x10; next: out dx, al; jmp next

local function read(device)
  device.left = device.left - 1
  if device.left == 0 then device.cpu:stop() end
  return 1
end

local function write(device, _, _, value)
  device.value = value
  device.left = device.left - 1
  if device.left == 0 then device.cpu:stop() end
end

-- Of the time of an exit as it is on this KVM, whose way back leaves the caches to others: what the
-- library does is limited by cost.lua.
local limit = { luajit = 1.10, lua54 = 1.20 }

local function figure(name, code)
  return { name = name, unit = "x", limit = limit, measure = function()
    return rounds.exits { code = code, device = { read = read, write = write } }
  end }
end

-- Microseconds of an exit of the C program, to know what the ratios are ratios to.
local function exit_in_c()
  return rounds.difference(rounds.raw_guest(OUT, "run"), function() return 0 end, rounds.ROUNDS,
    rounds.EXITS) / 1000
end

return {
  { name = "pio_out_c", unit = "us", engine = "luajit",
    measure = function() return rounds.samples(exit_in_c) end },
  figure("pio_out", OUT),
  figure("mmio_write", "bb 00 80  89 07  eb fc"), -- mov bx, 0x8000; next: mov [bx], ax; jmp next
  figure("mmio_read", "bb 00 80  8b 07  eb fc"),  -- mov bx, 0x8000; next: mov ax, [bx]; jmp next
}
