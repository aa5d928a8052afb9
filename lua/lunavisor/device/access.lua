-- SPDX-License-Identifier: MIT
-- The guest's side of a region: an access goes to its register's function at once where it is as
-- wide as that, and is put together or taken apart where it is not; and what nobody owns.

local bits = require "lunavisor.device.bits"
local blocks = require "lunavisor.device.block"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- Who answers ----

-- The face of a byte now: of those with a `when`, the first that is true, else the one without.
local function find(d, list)
  local plain
  for i = 1, #list do
    local face = list[i]
    local when = face.register.when
    if not when then
      plain = plain or face
    elseif when(d) then
      return face
    end
  end
  return plain
end

-- ---- What nobody owns ----

local ones = {}
for size = 1, 8 do
  local list = {}
  for i = 1, size do list[i] = 255 end
  ones[size] = bits.value(list, size)
end

local function plural(size)
  return size == 1 and "1 byte" or size .. " bytes"
end

-- Counts it, and says it where it is the first.
local function note(d, region, access)
  local unknowns = rawget(d, "unknowns")
  local key = ("%s %s %x %d"):format(region.name, access.access, access.offset, access.size)
  local known = unknowns[key]
  if known then
    known.count = known.count + 1
    return
  end
  unknowns[key] = { region = region.name, offset = access.offset, size = access.size,
    access = access.access, count = 1 }
  d:log(("%s of %s at offset 0x%x, where no register is"):format(
    access.access == "r" and "read" or "write", plural(access.size), access.offset))
end

local function unknown(d, region, offset, size, value)
  local access = { offset = offset, size = size, access = value == nil and "r" or "w",
    value = value, region = region.name }
  note(d, region, access)
  local policy = region.unknown
  if type(policy) == "function" then
    local given = policy(d, access)
    return given == nil and ones[size] or given
  end
  if policy == "error" then
    error(("%s: the guest %s %s at offset 0x%x, where no register is"):format(d.name,
      value == nil and "reads" or "writes", plural(size), offset), 0)
  end
  return policy == "zeros" and ones[size] - ones[size] or ones[size]
end

-- ---- Pieces ----

-- The face at a byte, and how many bytes of it an access has from there up to `stop`; nil and how
-- many bytes up to `stop` are nobody's. `narrow` says whether the access is only part of it.
local function piece(d, faces, at, stop)
  local face = faces[at] and find(d, faces[at])
  if face then
    local width = face.register.width
    local count = math.min(face.at + width, stop) - at
    if count == width or face.register.narrow == "merge" then return face, count end
    return nil, count
  end
  local last = at + 1
  while last < stop and not (faces[last] and find(d, faces[last])) do last = last + 1 end
  return nil, last - at
end

local function read_slow(d, region, offset, size)
  local stream = blocks.at(d, region, "read", offset, size)
  if stream then return blocks.read(d, stream, size) end
  local list, done = {}, 0
  local big = region.endian == "big"
  while done < size do
    local at = offset + done
    local face, count = piece(d, region.read, at, offset + size)
    local own, skip
    if face then
      local width = face.register.width
      own, skip = bits.bytes(face.get(d), width), at - face.at
      if big then bits.swap(own, 1, width) end
    else
      local value = unknown(d, region, at, count, nil)
      if count == size then return value end
      own, skip = bits.bytes(value or ones[count], count), 0
    end
    for i = 1, count do list[done + i] = own[skip + i] end
    done = done + count
  end
  return bits.value(list, size)
end

-- The bytes of a value that a write of other bytes leaves alone.
local function untouched(d, register, slot)
  local width = register.width
  if register.fifo then return bits.bytes(0, width) end
  local old = u64.band(u64.exact(d[slot]), register.masks.rw or bits.zero)
  local value = u64.bor(old, register.masks.w0c or bits.zero)
  return bits.bytes(bits.plain(value, 8 * width), width)
end

local function write_piece(d, region, face, list, done, at, count)
  local register = face.register
  local width, skip = register.width, at - face.at
  local own = count < width and untouched(d, register, face.slot) or {}
  local big = region.endian == "big"
  if big then bits.swap(own, 1, width) end
  for i = 1, count do own[skip + i] = list[done + i] end
  if big then bits.swap(own, 1, width) end
  face.put(d, bits.value(own, width))
end

local function write_slow(d, region, offset, size, value)
  local stream = blocks.at(d, region, "write", offset, size)
  if stream then return blocks.write(d, stream, size, value) end
  local list, done = bits.bytes(value, size), 0
  while done < size do
    local at = offset + done
    local face, count = piece(d, region.write, at, offset + size)
    if face then
      write_piece(d, region, face, list, done, at, count)
    else
      local own = {}
      for i = 1, count do own[i] = list[done + i] end
      unknown(d, region, at, count, bits.value(own, count))
    end
    done = done + count
  end
end

-- ---- At once ----

-- Whether all bytes of a face have the same registers at the same place: the list of their faces.
local function together(faces, face)
  local list = faces[face.at]
  for _, other in ipairs(list) do
    if other.at ~= face.at or other.register.width ~= face.register.width then return nil end
  end
  for byte = face.at + 1, face.at + face.register.width - 1 do
    if #faces[byte] ~= #list then return nil end
  end
  return list
end

local function choose(list, key, otherwise)
  local chosen = otherwise
  for i = #list, 1, -1 do
    if not list[i].register.when then chosen = list[i][key] end
  end
  for i = #list, 1, -1 do
    local when, fn, rest = list[i].register.when, list[i][key], chosen
    if when then
      chosen = function(d, v)
        if when(d) then return fn(d, v) end
        return rest(d, v)
      end
    end
  end
  return chosen
end

-- Functions by offset for the accesses of a width that one register answers whole, made when the
-- first access comes.
local function functions(region, faces, key, nobody, width)
  return setmetatable({}, { __index = function(by, at)
    if region.endian ~= "little" and width ~= 1 then return nil end
    for _, face in ipairs(faces[at] or {}) do
      if face.at == at and face.register.width == width then
        local whole = together(faces, face)
        local fn = whole and choose(whole, key, nobody(at, width)) or nil
        by[at] = fn
        return fn
      end
    end
  end })
end

-- Such functions by width.
local function entries(region, faces, key, nobody)
  local by = {}
  for _, register in ipairs(region.registers) do
    local width = register.width
    if register.at and not by[width] then
      by[width] = functions(region, faces, key, nobody, width)
    end
  end
  return by
end

local TEXT = [[
local by, slow, region = ...
%sreturn function(d, offset, size%s)
  %s
  return slow(d, region, offset, size%s)
end]]

-- The region's read or write: a table of functions for its only width, or one for each.
local function entry(name, region, by, slow, more)
  local only, width = nil, next(by)
  if width and next(by, width) == nil then only = width end
  local text = TEXT:format(
    only and ("local only = by[%d]\n"):format(only) or "", more,
    only and ("if size == %d then local f = only[offset] if f then return f(d%s) end end")
      :format(only, more)
    or ("local f = by[size] f = f and f[offset] if f then return f(d%s) end"):format(more), more)
  local chunk = assert((loadstring or load)(text, "=" .. name))
  return chunk(by, slow, region)
end

-- A region without registers: memory, or a window to another space.
local function whole(layout, region)
  local own = region.whole
  region.read_access = function(d, offset, size)
    local value = own.read(d, offset, size)
    if layout.update then layout.update(d) end
    return value
  end
  region.write_access = function(d, offset, size, value)
    own.write(d, offset, size, value)
    if layout.update then layout.update(d) end
  end
end

local slots = {
  slot = function(face) return face.register.slot + (face.index or 0) end,
  get = function(face) return face.register.read_at(face.slot, face.index) end,
  put = function(face) return face.register.write_at(face.slot, face.index) end,
}

-- What a face gets when it is asked for: its slot, and the functions of its register.
local Face = {}
function Face.__index(face, key)
  local make = slots[key]
  local made = make and make(face)
  if make then rawset(face, key, made) end
  return made
end

--- Makes region.read_access(d, offset, size) and write_access(d, offset, size, value) of the
--- functions of its registers.
function M.region(layout, region)
  if region.whole then return whole(layout, region) end
  for _, direction in ipairs { "read", "write" } do
    for _, list in pairs(region[direction]) do
      for _, face in ipairs(list) do setmetatable(face, Face) end
    end
  end
  local name = #layout.regions > 1 and layout.name .. "." .. region.name or layout.name
  region.read_access = entry(name .. " read", region, entries(region, region.read, "get",
    function(at, width) return function(d) return unknown(d, region, at, width, nil) end end),
    read_slow, "")
  region.write_access = entry(name .. " write", region, entries(region, region.write, "put",
    function(at, width) return function(d, v) unknown(d, region, at, width, v) end end),
    write_slow, ", v")
  blocks.region(region)
end

return M
