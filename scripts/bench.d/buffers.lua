-- SPDX-License-Identifier: MIT
-- Buffers from Lua: strings of 64 KiB and single integers. A write of 64 KiB is compared with
-- memcpy in C, which it is but for the call, whose cost a write of 16 bytes shows. A read makes a
-- string, so that it is compared with the engine's own way of making one from as many bytes; and
-- without a limit, since the engine's allocator and collector are in it, with malloc and memcpy in
-- C.

local rounds = require "rounds"
local luna = require "lunavisor"

local SIZE, COPIES, ROUNDS = 0x10000, 100, 60
local LITTLE, CALLS = 16, 5000
local TURNS = 5 -- of u32: each round reads the whole buffer so many times

-- How fast `ours` is against `theirs`: 1 is as fast, less is slower.
local function speed(ours, theirs)
  return 1 / rounds.ratio(ours, theirs, ROUNDS)
end

local function in_c(verb)
  return function() return rounds.raw(verb, COPIES) end
end

local function write_speed()
  local buffer, data = assert(luna.buffer(SIZE)), ("Z"):rep(SIZE)
  local sample = speed(rounds.timed(function()
    for _ = 1, COPIES do buffer:write(0, data) end
  end), in_c "copy")
  buffer:close()
  return sample
end

-- Nanoseconds of a write, without the loop around it.
local function write_cost()
  local buffer, data, sum = assert(luna.buffer(SIZE)), ("Z"):rep(LITTLE), 0
  local sample = rounds.difference(rounds.timed(function()
    for i = 1, CALLS do
      sum = sum + i
      buffer:write(0, data)
    end
  end), rounds.timed(function()
    for i = 1, CALLS do sum = sum + i end
  end), ROUNDS, CALLS)
  buffer:close()
  return sample
end

-- Two functions that make strings, by the library and by the engine, and where they keep them.
local function string_makers_54(buffer)
  local data, kept = ("Z"):rep(SIZE + 1), {}
  return function()
    for i = 1, COPIES do kept[i % 4] = buffer:read(0, SIZE) end
  end, function()
    for i = 1, COPIES do kept[i % 4] = data:sub(1, SIZE) end
  end, kept
end

-- Each string is another one: LuaJIT would find an equal one that is alive instead of copying.
local function string_makers_jit(buffer)
  local ffi, kept = require "ffi", {}
  local place = ffi.cast("uint32_t *", buffer:pointer())
  return function()
    for i = 1, COPIES do
      place[0] = place[0] + 1
      kept[i % 4] = buffer:read(0, SIZE)
    end
  end, function()
    for i = 1, COPIES do
      place[0] = place[0] + 1
      kept[i % 4] = ffi.string(place, SIZE)
    end
  end, kept
end

local string_makers = rawget(_G, "jit") and string_makers_jit or string_makers_54

local function read_speed(against_c)
  local buffer = assert(luna.buffer(SIZE))
  buffer:fill(0x5a)
  local ours, theirs = string_makers(buffer)
  local sample = speed(rounds.timed(ours), against_c and in_c "string" or rounds.timed(theirs))
  buffer:close()
  return sample
end

local function sum_offsets()
  local sum = 0
  for _ = 1, TURNS do
    for offset = 0, SIZE - 4, 4 do sum = sum + offset end
  end
  return sum
end

local function sum_buffer(buffer)
  local sum = 0
  for _ = 1, TURNS do
    for offset = 0, SIZE - 4, 4 do sum = sum + buffer:u32(offset) end
  end
  return sum
end

-- Nanoseconds of a read, without the loop around it.
local function read_cost()
  local buffer = assert(luna.buffer(SIZE))
  local sample = rounds.difference(rounds.timed(function() sum_buffer(buffer) end),
    rounds.timed(sum_offsets), ROUNDS, TURNS * SIZE / 4)
  buffer:close()
  return sample
end

local function figure(name, unit, sample, argument)
  return { name = name, unit = unit,
    measure = function() return rounds.samples(sample, argument) end }
end

local figures = {
  figure("buffer_write_64k", "x", write_speed),
  figure("buffer_write", "ns", write_cost),
  figure("buffer_read_64k", "x", read_speed),
  figure("buffer_read_64k_c", "x", read_speed, true),
  figure("u32_read", "ns", read_cost),
}
figures[1].least, figures[3].least = 0.7, 0.6
figures[2].limit = { luajit = 60, lua54 = 300 }
figures[5].limit = { luajit = 5, lua54 = 75 }
return figures
