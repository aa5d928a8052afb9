-- SPDX-License-Identifier: MIT
-- All that a vCPU's page tables lead to (SDM volume 3, chapter 5): ranges of pages, each with where
-- it begins in linear and in guest-physical memory, by number of page. A page's number is exact,
-- where its address need not be.

local u64 = require "lunavisor.text.u64"
local mode = require "lunavisor.vcpu.mode"

local M = {}

local floor, byte = math.floor, string.byte

local TABLES = 2 ^ 14 -- that are read at most: tables may lead to each other in circles
local RANGES = 2 ^ 16
local MANY = {} -- the error of more

-- The number of the frame and the low byte of an entry of 8 or 4 bytes.
local function wide(bytes, at)
  local a, b, c, d, e, f, g = byte(bytes, at, at + 6)
  return floor(b / 16) + c * 2 ^ 4 + d * 2 ^ 12 + e * 2 ^ 20 + f * 2 ^ 28 + g % 16 * 2 ^ 36, a
end

local function narrow(bytes, at)
  local a, b, c, d = byte(bytes, at, at + 3)
  return floor(b / 16) + c * 2 ^ 4 + d * 2 ^ 12, a
end

-- What a vCPU's paging is like: levels, entries of the root, of the others, how one is read, and
-- the level below which no page ends the walk.
local function shape_of(cpu)
  local pae = mode.bit(cpu.cr4, 5)
  if mode.bit(cpu.efer, 10) then
    return { levels = mode.bit(cpu.cr4, 12) and 5 or 4, root = 512, entries = 512, entry = wide,
      size = 8, large = 3, signed = true }
  elseif pae then
    return { levels = 3, root = 4, entries = 512, entry = wide, size = 8, large = 2 }
  end
  return { levels = 2, root = 1024, entries = 1024, entry = narrow, size = 4,
    large = mode.bit(cpu.cr4, 4) and 2 or 1, wide_large = true }
end

local function add(ranges, page, frame, count)
  local last = ranges[#ranges]
  if last and page == last.page + last.count and frame == last.frame + last.count then
    last.count = last.count + count
  else
    if #ranges >= RANGES then error(MANY) end
    ranges[#ranges + 1] = { page = page, frame = frame, count = count }
  end
end

-- The frame of a large page: 32-bit paging has bits 39:32 of the address in bits 20:13 of its
-- entry.
local function large_frame(shape, frame, span)
  local first = floor(frame / span) * span
  if shape.wide_large then first = first + floor(frame % span / 2) % 256 * 2 ^ 20 end
  return first
end

local function walk(scene, level, frame, page)
  local shape = scene.shape
  scene.tables = scene.tables + 1
  if scene.tables > TABLES then error(MANY) end
  local root = level == shape.levels
  local offset = root and scene.offset or 0
  local count = root and shape.root or shape.entries
  local bytes = scene.space:try_read(frame * 4096 + offset, count * shape.size)
  if not bytes then return end
  local span = shape.entries ^ (level - 1)
  for i = 0, count - 1 do
    local below, low = shape.entry(bytes, i * shape.size + 1)
    if low % 2 == 1 then
      local at = page + i * span
      if root and shape.signed and i >= count / 2 then at = at + 2 ^ 52 - 2 * span * count / 2 end
      if level == 1 then
        add(scene.ranges, at, below, 1)
      elseif low >= 128 and level <= shape.large then
        add(scene.ranges, at, large_frame(shape, below, span), span)
      else
        walk(scene, level - 1, below, at)
      end
    end
  end
end

--- The ranges { page =, frame =, count = }, in the order of the tables; nil where the tables are
--- too many, or lead to each other without an end.
function M.ranges(cpu)
  local shape = shape_of(cpu)
  local root = u64.tonumber(u64.band(cpu.cr3, u64 "0xffffffffff000"))
  local scene = { shape = shape, space = cpu.space, tables = 0, ranges = {},
    offset = shape.root == 4 and u64.tonumber(u64.band(cpu.cr3, 0xfe0)) or 0 }
  local ok, message = pcall(walk, scene, shape.levels, root / 4096, 0)
  if ok then return scene.ranges end
  if message ~= MANY then error(message, 0) end
end

return M
