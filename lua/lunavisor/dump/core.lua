-- SPDX-License-Identifier: MIT
-- A VM as an ELF core file: vCPUs as threads, memory as segments (System V ABI, chapter 5).

local pack = require "lunavisor.text.pack"
local linear = require "lunavisor.dump.linear"
local notes = require "lunavisor.dump.note"
local mode = require "lunavisor.vcpu.mode"

local M = {}

local le16, le32, le64 = pack.le16, pack.le32, pack.le64

local PAGE, CHUNK = 4096, 2 ^ 16
local MOST = 0xfff0 -- segments that the header can count
local PT_LOAD, PT_NOTE, ET_CORE = 1, 4, 4
local MACHINES = { [64] = 62, [32] = 3 } -- EM_X86_64, EM_386

-- ---- Segments ----

local function flags_of(rights)
  return (rights:find "r" and 4 or 0) + (rights:find "w" and 2 or 0) + (rights:find "x" and 1 or 0)
end

-- The regions of a space: { gpa, size, flags }.
local function regions_of(space)
  local list = {}
  for i, region in ipairs(space:regions()) do
    list[i] = { gpa = region.gpa, size = region.size, flags = flags_of(region.rights) }
  end
  return list
end

-- Says where in the file each region lies, from `offset` on; where the last one ends.
local function place(regions, offset)
  for _, region in ipairs(regions) do
    region.at, offset = offset, offset + region.size
  end
  return offset
end

-- The parts of the regions that a linear range leads to.
local function cut(list, seen, regions, range)
  local first, last = range.frame * PAGE, (range.frame + range.count) * PAGE
  for _, region in ipairs(regions) do
    local from, to = math.max(first, region.gpa), math.min(last, region.gpa + region.size)
    if from < to then
      local page = range.page + (from - first) / PAGE
      list[#list + 1] = { page = page, region = region, gpa = from, size = to - from }
      if page * PAGE == from then seen[("%.0f %.0f"):format(from, to - from)] = true end
    end
  end
end

-- Memory at its linear addresses, which debuggers find first, then at its own.
local function segments_of(regions, ranges)
  local list, seen = {}, {}
  for _, range in ipairs(ranges) do cut(list, seen, regions, range) end
  for _, region in ipairs(regions) do
    if not seen[("%.0f %.0f"):format(region.gpa, region.size)] then
      list[#list + 1] = { page = region.gpa / PAGE, region = region, gpa = region.gpa,
        size = region.size }
    end
  end
  return list
end

-- ---- Headers ----

-- An address by its page: it need not be an exact number.
local function address(page, bits)
  local low, high = page % 2 ^ 20 * PAGE, math.floor(page / 2 ^ 20)
  return le32(low) .. (bits == 64 and le32(high) or "")
end

local function head(bits, count)
  local word = bits == 64 and le64 or le32
  return "\127ELF" .. (bits == 64 and "\2" or "\1") .. "\1\1" .. ("\0"):rep(9)
    .. le16(ET_CORE) .. le16(MACHINES[bits]) .. le32(1)
    .. word(0) .. word(bits == 64 and 64 or 52) .. word(0) .. le32(0)
    .. le16(bits == 64 and 64 or 52) .. le16(bits == 64 and 56 or 32) .. le16(count)
    .. le16(bits == 64 and 64 or 40) .. le16(0) .. le16(0)
end

local function program(bits, kind, flags, offset, virtual, physical, size, memory)
  if bits == 64 then
    return le32(kind) .. le32(flags) .. le64(offset) .. virtual .. physical .. le64(size)
      .. le64(memory) .. le64(kind == PT_LOAD and PAGE or 4)
  end
  return le32(kind) .. le32(offset) .. virtual .. physical .. le32(size) .. le32(memory)
    .. le32(flags) .. le32(kind == PT_LOAD and PAGE or 4)
end

-- The whole file up to where memory begins.
local function headers(bits, list, text, regions)
  local size = (bits == 64 and 64 or 52) + (#list + 1) * (bits == 64 and 56 or 32)
  local data = math.ceil((size + #text) / PAGE) * PAGE
  local last = place(regions, data)
  local none = address(0, bits)
  local parts = { head(bits, #list + 1),
    program(bits, PT_NOTE, 0, size, none, none, #text, 0) }
  for _, one in ipairs(list) do
    parts[#parts + 1] = program(bits, PT_LOAD, one.region.flags,
      one.region.at + one.gpa - one.region.gpa, address(one.page, bits),
      address(one.gpa / PAGE, bits), one.size, one.size)
  end
  parts[#parts + 1] = text
  return table.concat(parts), last
end

-- 64 where the code of the first vCPU is, or where memory or addresses need it.
local function bits_of(cpu, list)
  if mode.bits(cpu) == 64 then return 64 end
  for _, one in ipairs(list) do
    if one.page * PAGE + one.size > 2 ^ 32 or one.gpa + one.size > 2 ^ 32 then return 64 end
  end
  return 32
end

-- ---- Writing ----

local ZEROS = ("\0"):rep(CHUNK)

-- Zeros are holes in the file.
local function write_region(file, space, region)
  for from = 0, region.size - 1, CHUNK do
    local size = math.min(CHUNK, region.size - from)
    local bytes = space:read(region.gpa + from, size)
    if bytes ~= (size == CHUNK and ZEROS or ZEROS:sub(1, size)) then
      assert(file:seek("set", region.at + from))
      assert(file:write(bytes))
    end
  end
end

local function write(file, space, text, regions, last)
  assert(file:write(text))
  for _, region in ipairs(regions) do write_region(file, space, region) end
  assert(file:seek("set", last - 1))
  assert(file:write(space:read(regions[#regions].gpa + regions[#regions].size - 1, 1)))
end

--- Writes the file: true, or nil, message, code. `cpu`: the first of the VM; `tables`: whether its
--- linear addresses count.
function M.write(cpu, space, path, tables)
  local regions, ranges = regions_of(space), {}
  if #regions == 0 then
    return nil, ("cannot write %s: nothing is mapped in space %d"):format(path, space.id),
      "not_found"
  end
  if tables and mode.pages(cpu) and cpu.space == space then ranges = linear.ranges(cpu) end
  local list = ranges and segments_of(regions, ranges)
  if not list or #list > MOST then
    return nil, ("cannot write %s: the page tables of vCPU %d make more than %d segments; linear = "
      .. "false leaves them out"):format(path, cpu.id, MOST), "limit"
  end
  local bits = bits_of(cpu, list)
  local text, last = headers(bits, list, notes.all(cpu.vm, bits), regions)
  local part = path .. ".part"
  local file, message = io.open(part, "wb")
  if not file then return nil, "cannot write the core: " .. message, "system" end
  local ok, why = pcall(write, file, space, text, regions, last)
  local closed, problem = file:close()
  if ok and closed then closed, problem = os.rename(part, path) end
  if ok and closed then return true end
  os.remove(part)
  return nil, ("cannot write the core %s: %s"):format(path, tostring(not ok and why or problem)),
    "system"
end

return M
