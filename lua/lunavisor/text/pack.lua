-- SPDX-License-Identifier: MIT
-- Bytes as lists of numbers and back, little endian, the same on both engines.

local u64 = require "lunavisor.text.u64"

local M = {}

--- Bytes of an element of each view.
M.sizes = { u8 = 1, u16 = 2, u32 = 4, u64 = 8, f32 = 4, f64 = 8 }

local whole = { u8 = 2 ^ 8, u16 = 2 ^ 16, u32 = 2 ^ 32 } -- and what is beyond

local encode -- view, list of good values, count: bytes

if rawget(_G, "jit") then
  local ffi = require "ffi"
  local arrays = {
    u8 = ffi.typeof "uint8_t[?]", u16 = ffi.typeof "uint16_t[?]", u32 = ffi.typeof "uint32_t[?]",
    u64 = ffi.typeof "uint64_t[?]", f32 = ffi.typeof "float[?]", f64 = ffi.typeof "double[?]",
  }

  --- The whole elements that `bytes` has, as a list.
  function M.decode(view, bytes)
    local count = math.floor(#bytes / M.sizes[view])
    local array, list = arrays[view](count), {}
    ffi.copy(array, bytes, count * M.sizes[view])
    for i = 1, count do list[i] = array[i - 1] end
    return list
  end

  function encode(view, list)
    local array = arrays[view](#list)
    for i, value in ipairs(list) do array[i - 1] = value end
    return ffi.string(array, #list * M.sizes[view])
  end
else
  local formats = { u8 = "<I1", u16 = "<I2", u32 = "<I4", u64 = "<i8", f32 = "<f", f64 = "<d" }

  function M.decode(view, bytes)
    local size, list = M.sizes[view], {}
    for i = 1, math.floor(#bytes / size) do
      list[i] = string.unpack(formats[view], bytes, (i - 1) * size + 1)
    end
    return list
  end

  function encode(view, list)
    local parts = {}
    for i, value in ipairs(list) do parts[i] = string.pack(formats[view], value) end
    return table.concat(parts)
  end
end

-- ---- Fields of structures ----

local function le(value, size)
  local bytes = {}
  for i = 1, size do
    local byte = value % 0x100
    bytes[i], value = string.char(byte), (value - byte) / 0x100
  end
  return table.concat(bytes)
end

--- Little-endian fields of numbers below 2^53.
function M.le8(value) return le(value, 1) end

function M.le16(value) return le(value, 2) end

function M.le32(value) return le(value, 4) end

function M.le64(value) return le(value, 8) end

-- ---- Lists ----

-- The value as the element holds it, or nil.
local function fit(view, value)
  if view == "u64" then return u64.exact(value) end
  if type(value) ~= "number" then return nil end
  local limit = whole[view]
  if not limit then return value end
  if value < 0 or value >= limit or value % 1 ~= 0 then return nil end
  return math.floor(value)
end

--- The bytes of a list; nil and the first value that is none of the view's.
function M.encode(view, list)
  local good = {}
  for i, value in ipairs(list) do
    good[i] = fit(view, value)
    if good[i] == nil then return nil, value end
  end
  return encode(view, good)
end

return M
