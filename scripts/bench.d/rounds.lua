-- SPDX-License-Identifier: MIT
-- Rounds of the library and of the C program (raw.c) in turns on one CPU, so that what slows the
-- machine down slows both; their time is what their process has of the CPU, and of a few rounds the
-- least counts, which nothing disturbed. A session is a fresh guest on either side and gives one
-- sample, the median of such.

local luna = require "lunavisor"

local M = {}

M.CODE, M.DEVICE, M.PORT = 0x1000, 0x8000, 0x10 -- as in raw.c
M.SESSIONS, M.ROUNDS, M.EXITS = 3, 120, 200
local MEMORY = 0x8000
local GROUP = 10 -- of rounds whose least time counts

--- Seconds that this process has had of the processors.
M.clock = os.clock

function M.median(list)
  local sorted = {}
  for i, value in ipairs(list) do sorted[i] = value end
  table.sort(sorted)
  local middle = math.floor((#sorted + 1) / 2)
  return (sorted[middle] + sorted[#sorted + 1 - middle]) / 2
end

--- Lets the C program do something; the seconds that it took.
function M.raw(verb, number, rest)
  io.write(("%s %d %s\n"):format(verb, number, rest or ""))
  io.flush()
  return assert(tonumber(io.read "*l"), "the C program has died") / 1e9
end

--- Bytes from "ba 10 00 ...".
function M.bytes(hex)
  return (hex:gsub("%s*(%x%x)", function(byte) return string.char(tonumber(byte, 16)) end))
end

--- A guest in real mode, on the accelerator that is meant by nil, "kvm" or "soft": vm, cpu and
--- buffer.
function M.guest(hex, size, accel)
  local vm, ram = assert(luna.vm { accel = accel }), assert(luna.buffer(size))
  assert(vm:map_space(0, ram, 0, size, "rwx"))
  ram:write(M.CODE, M.bytes(hex))
  return vm, assert(vm:vcpu { mode = "real", rip = M.CODE }), ram
end

--- A guest that writes to a port without end: vm, cpu, buffer, and a function that lets it do so
--- `exits` times by object:run, of the vm or the cpu.
function M.writer(accel)
  local vm, cpu, ram = M.guest("ba 10 00  ee  eb fd", MEMORY, accel) -- next: out dx, al; jmp next
  local left
  vm:pio(M.PORT, 1, { write = function()
    left = left - 1
    if left == 0 then cpu:stop() end
  end })
  return vm, cpu, ram, function(object, exits)
    left = exits
    local exit = assert(object:run { timeout = 60 })
    assert(exit.kind == "stopped", tostring(exit))
  end
end

-- The least time of each part in a group of rounds, in which they take turns at being first.
local function least_times(parts)
  local least = {}
  for i = 1, GROUP * #parts do
    local which = (i + math.floor(i / #parts)) % #parts + 1
    least[which] = math.min(least[which] or math.huge, parts[which]())
  end
  return least
end

-- The median over groups of rounds of what `result` makes of the least times of the parts.
local function over_groups(rounds, parts, result)
  least_times(parts) -- warms up
  local results = {}
  for i = 1, math.ceil(rounds / GROUP) do results[i] = result(least_times(parts)) end
  return M.median(results)
end

--- The ratio of ours() to theirs(), which give seconds.
function M.ratio(ours, theirs, rounds)
  return over_groups(rounds, { ours, theirs }, function(least) return least[1] / least[2] end)
end

--- The same without what `base` takes of both.
function M.own_ratio(ours, theirs, base, rounds)
  return over_groups(rounds, { ours, theirs, base }, function(least)
    return (least[1] - least[3]) / (least[2] - least[3])
  end)
end

local YARD_STEPS, YARD_STEP_NS = 2000, 25 -- of the machine that the limits are from (common.h)

local function yard()
  return M.raw("yard", YARD_STEPS)
end

--- By how many nanoseconds more() takes longer than less(), each of which does its work so often:
--- where the machine is slower at the moment than that of the limits, by the yard, work that is
--- slowed down as they are (common.h).
function M.difference(more, less, rounds, times)
  return over_groups(rounds, { more, less, yard }, function(least)
    local slowness = math.max(least[3] * 1e9 / (YARD_STEPS * YARD_STEP_NS), 1)
    return (least[1] - least[2]) * 1e9 / slowness / times
  end)
end

--- Seconds that a function takes, as a function.
function M.timed(work, clock)
  clock = clock or M.clock
  return function()
    local begin = clock()
    work()
    return clock() - begin
  end
end

--- Runs the vCPU of a device for so many exits; the seconds that it took.
function M.run(device, count)
  device.left = count
  local begin = M.clock()
  local exit = assert(device.cpu:run { timeout = 60 })
  local time = M.clock() - begin
  assert(exit.kind == "stopped", tostring(exit))
  return time
end

--- A new guest for the C program; gives a function that runs it for a round with `verb`.
function M.raw_guest(code, verb, exits)
  M.raw("guest", MEMORY, code)
  return function() return M.raw(verb, exits or M.EXITS) end
end

local function session(options)
  local vm, cpu, ram = M.guest(options.code, MEMORY)
  local device, exits = { cpu = cpu }, options.exits or M.EXITS
  for name, handler in pairs(options.device) do device[name] = handler end
  vm:pio(M.PORT, 1, device)
  if device.read then vm:mmio(M.DEVICE, 0x1000, device) end
  local function ours() return M.run(device, exits) end
  local sample = M.ratio(ours, M.raw_guest(options.code, options.verb or "run", exits), M.ROUNDS)
  vm:close()
  ram:close()
  return sample
end

--- The samples that another program of bench.d prints, a line each.
function M.collect(command)
  local pipe, samples = assert(io.popen(M.build .. "/bench/" .. command)), {}
  for line in pipe:lines() do samples[#samples + 1] = assert(tonumber(line), line) end
  pipe:close()
  assert(#samples > 0, command .. " has failed")
  return samples
end

--- Whether there is a program of that name.
function M.is_installed(program)
  local pipe = assert(io.popen("command -v " .. program))
  local found = pipe:read "*l"
  pipe:close()
  return found ~= nil
end

--- So many samples.
function M.samples(sample, ...)
  local samples = {}
  for i = 1, M.SESSIONS do samples[i] = sample(...) end
  return samples
end

--- Samples of what exits cost, as a ratio to the C program's. options: code, the guest; device,
--- the handlers, which count device.left down and stop device.cpu at 0; exits, how many a round
--- has, and verb, what the C program does with them ("run").
function M.exits(options)
  return M.samples(session, options)
end

return M
