-- SPDX-License-Identifier: MIT
-- The software CPU: what the programs soft.c and emulator.c measure, and an exit that Lua answers.
-- Times are by the yard (common.h). Rows against QEMU's translator are there where it is installed.

local rounds = require "rounds"
local luna = require "lunavisor"

local EMULATOR = "qemu-system-x86_64"
local figures = {}

local function add(name, unit, bounds, measure)
  figures[#figures + 1] = { name = "soft_" .. name, unit = unit, engine = "luajit",
    limit = bounds.limit, least = bounds.least, measure = measure }
end

local function collect(command)
  return function() return rounds.collect("soft " .. command) end
end

-- Millions of instructions a second.
for _, bits in ipairs { 64, 32, 16 } do
  add("alu_" .. bits, "M/s", {}, collect("alu " .. bits))
  add("memory_" .. bits, "M/s", {}, collect("memory " .. bits))
end
add("out", "ns", { limit = 60 }, collect "out")
add("vector", "ns", { limit = 5 }, collect "vector")
add("live", "ns", { limit = 150 }, collect "live")     -- an OUT with vector state in registers
add("store", "ns", { limit = 100 }, collect "store")   -- to a page that has code
add("change", "ns", { limit = 1000 }, collect "change") -- of code
add("first_exit", "ns", { limit = 60000 }, collect "life")
add("two_threads", "x", { least = 1.9 }, function() -- what two CPUs do to what one does
  return rounds.collect("threads free " .. rounds.build .. "/bench/soft two")
end)

if rounds.is_installed(EMULATOR) then
  local least = { -- of its speed; the goals are 0.35 and 0.6
    alu = { [64] = 0.35, [32] = 0.35, [16] = 0.35 },
    memory = { [64] = 0.6, [32] = 0.6, [16] = 0.6 },
  }
  for _, kind in ipairs { "alu", "memory" } do
    for _, bits in ipairs { 64, 32, 16 } do
      local what = kind .. " " .. bits
      add(("%s_%d_emulator"):format(kind, bits), "x", { least = least[kind][bits] },
        function() return rounds.collect("emulator " .. what) end)
    end
  end
  add("user_emulator", "x", { limit = 3 }, function() -- of its time
    return rounds.collect "emulator user"
  end)
elseif jit then
  io.stderr:write("bench: soft_*_emulator are skipped: ", EMULATOR, " is not installed\n")
end

local OUT = "ba 10 00  ee  eb fd" -- mov dx, 0x10; next: out dx, al; jmp next

local function write(device, _, _, value)
  device.value = value
  device.left = device.left - 1
  if device.left == 0 then device.cpu:stop() end
end

local function exit_in_lua()
  local vm, ram = assert(luna.vm { accel = "soft" }), assert(luna.buffer(0x8000))
  assert(vm:map_space(0, ram, 0, 0x8000, "rwx"))
  ram:write(rounds.CODE, rounds.bytes(OUT))
  local device = { cpu = assert(vm:vcpu { mode = "real", rip = rounds.CODE }), write = write }
  vm:pio(rounds.PORT, 1, device)
  local sample = rounds.difference(function() return rounds.run(device, rounds.EXITS) end,
    function() return 0 end, rounds.ROUNDS, rounds.EXITS)
  vm:close()
  ram:close()
  return sample
end

figures[#figures + 1] = { name = "soft_out_lua", unit = "ns",
  limit = { luajit = 200, lua54 = 400 },
  measure = function() return rounds.samples(exit_in_lua) end }
return figures
