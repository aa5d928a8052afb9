-- SPDX-License-Identifier: MIT
-- Making a VM with memory and a vCPU, running it to its first exit and closing it, against the same
-- calls in C; and what a thousand of them leave behind.

local rounds = require "rounds"
local luna = require "lunavisor"

local MEMORY, OUT = 2 ^ 21, "b0 01  e6 10" -- mov al, 1; out 0x10, al
local LIVES, ROUNDS = 2, 150

local function live()
  local vm, cpu, ram = rounds.guest(OUT, MEMORY)
  vm:pio(rounds.PORT, 1, { write = function() cpu:stop() end })
  assert(cpu:run { timeout = 60 })
  vm:close()
  ram:close()
end

local function lives()
  local begin = rounds.clock()
  for _ = 1, LIVES do live() end
  return rounds.clock() - begin
end

local function ratio()
  rounds.raw("guest", MEMORY, OUT)
  local function theirs() return rounds.raw("life", LIVES) end
  return rounds.ratio(lives, theirs, ROUNDS)
end

local function process_id()
  local file = assert(io.open "/proc/self/stat")
  local id = file:read "*n"
  file:close()
  return id
end

local function open_files()
  local pipe = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(process_id())))
  local count = pipe:read "*n"
  pipe:close()
  return count
end

-- KiB of this process's memory that is in RAM.
local function resident()
  collectgarbage()
  collectgarbage()
  local file = assert(io.open "/proc/self/smaps_rollup")
  local size = file:read("*a"):match "Rss:%s*(%d+)"
  file:close()
  return tonumber(size)
end

local function objects()
  local sum = 0
  for _, count in pairs(luna.live()) do sum = sum + count end
  return sum
end

-- How much what `count` counts has grown after a thousand.
local function growth(count)
  for _ = 1, 100 do live() end
  local before = count()
  for _ = 1, 1000 do live() end
  return count() - before
end

local function leak(name, unit, limit, count)
  return { name = name, unit = unit, limit = limit,
    measure = function() return { growth(count) } end }
end

return {
  { name = "lifecycle", unit = "x", limit = { luajit = 1.28, lua54 = 1.35 },
    measure = function() return rounds.samples(ratio) end },
  leak("leak_memory", "KiB", 1024, resident),
  leak("leak_files", "fd", 0, open_files),
  leak("leak_objects", "objects", 0, objects),
}
