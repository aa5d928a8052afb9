-- SPDX-License-Identifier: MIT
-- Rounds of the library and of the C program (raw.c) in turns on one CPU, so that what slows the
-- machine down slows both. A session is a fresh guest on either side and gives one sample, the
-- median of its rounds.

local luna = require "lunavisor"

local M = {}

M.CODE, M.DEVICE, M.PORT = 0x1000, 0x8000, 0x10 -- as in raw.c
M.SESSIONS, M.ROUNDS, M.EXITS = 3, 120, 200
local MEMORY = 0x8000

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

--- A guest in real mode: vm, cpu and buffer.
function M.guest(hex, size)
  local vm, ram = assert(luna.vm()), assert(luna.buffer(size))
  assert(vm:map_space(0, ram, 0, size, "rwx"))
  ram:write(M.CODE, M.bytes(hex))
  return vm, assert(vm:vcpu { mode = "real", rip = M.CODE }), ram
end

--- The median of ours() / theirs(), which give seconds, over so many pairs.
function M.ratio(ours, theirs, pairs_of_rounds)
  local ratios = {}
  for i = 1, pairs_of_rounds do
    local a, b
    if i % 2 == 0 then
      a, b = ours(), theirs()
    else
      b, a = theirs(), ours()
    end
    ratios[i] = a / b
  end
  return M.median(ratios)
end

--- Runs the vCPU of a device for so many exits; the seconds that it took.
function M.run(device, count)
  device.left = count
  local begin = luna.clock()
  local exit = assert(device.cpu:run { timeout = 60 })
  local time = luna.clock() - begin
  assert(exit.kind == "stopped", tostring(exit))
  return time
end

--- A new guest for the C program; gives a function that runs it for a round with `verb`.
function M.raw_guest(code, verb)
  M.raw("guest", MEMORY, code)
  return function() return M.raw(verb, M.EXITS) end
end

local function session(options)
  local vm, cpu, ram = M.guest(options.code, MEMORY)
  local device = { cpu = cpu, read = options.read, write = options.write }
  vm:pio(M.PORT, 1, device)
  vm:mmio(M.DEVICE, 0x1000, device)
  local function ours() return M.run(device, M.EXITS) end
  local theirs = M.raw_guest(options.code, "run")
  M.ratio(ours, theirs, 3) -- warms up
  local sample = M.ratio(ours, theirs, M.ROUNDS)
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

--- So many samples.
function M.samples(sample, ...)
  local samples = {}
  for i = 1, M.SESSIONS do samples[i] = sample(...) end
  return samples
end

--- Samples of what exits cost, as a ratio to the C program's. options: code, the guest; read and
--- write, the handlers, which count device.left down and stop device.cpu at 0.
function M.exits(options)
  return M.samples(session, options)
end

return M
