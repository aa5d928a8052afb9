-- SPDX-License-Identifier: MIT
-- QEMU's firmware configuration device (docs/specs/fw_cfg.rst): items by number and files by name,
-- through a selector and a data port (main, 0x510) or by DMA (dma, 0x514). Options files: contents
-- by name; items: contents by number.

local device = require "lunavisor.device"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"

local bits, floor = word.bits, math.floor
local SIGNATURE, ID, DIRECTORY, FIRST = 0x0000, 0x0001, 0x0019, 0x0020

local function big(value, size)
  local list = {}
  for i = size, 1, -1 do list[#list + 1] = floor(value / 256 ^ (i - 1)) % 256 end
  return string.char((rawget(table, "unpack") or unpack)(list))
end

-- "Directory structure": entries of 64 bytes, by name.
local function directory(d)
  local names = sorted(d.keys)
  local parts = { big(#names, 4) }
  for _, name in ipairs(names) do
    local key = d.keys[name]
    parts[#parts + 1] = big(#d.contents[key], 4) .. big(key, 2) .. "\0\0" .. name
      .. ("\0"):rep(56 - #name)
  end
  return table.concat(parts)
end

local function check_text(what, data)
  if type(data) ~= "string" then
    error(("%s: contents: a string expected, got %s"):format(what, type(data)), 3)
  end
end

--- fw:item(number, data): what an item has.
local function item(d, number, data)
  check_text("fw:item", data)
  d.contents[number] = data
end

--- fw:file(name, data, writable): a file of up to 55 characters' name, new or with new contents;
--- without data: its contents, nil where there is none.
local function file(d, name, data, writable)
  if data == nil then return d.contents[d.keys[name]] end
  check_text("fw:file", data)
  if type(name) ~= "string" or #name < 1 or #name > 55 then
    error(("fw:file: a name of 1 to 55 characters expected, got %q"):format(tostring(name)), 2)
  end
  if not d.keys[name] then
    d.keys[name] = FIRST + d.files
    d.files = d.files + 1
  end
  d.contents[d.keys[name]], d.writable[d.keys[name]] = data, writable or nil
  d.contents[DIRECTORY] = directory(d)
end

-- "Selector Register": bit 14 is no part of the number; bit 15 is, of items of an architecture.
local function select_item(d, key)
  d.key, d.offset = word.insert(key, 14, 1, 0), 0
end

-- The next bytes of the item; behind its end are zeros ("Data Register").
local function next_bytes(d, count)
  local data = (d.contents[d.key] or ""):sub(d.offset + 1, d.offset + count)
  d.offset = d.offset + count
  return data .. ("\0"):rep(count - #data)
end

local function store(d, data)
  local key = d.key
  local old = d.contents[key]
  if not d.writable[key] or d.offset + #data > #old then return nil end
  d.contents[key] = old:sub(1, d.offset) .. data .. old:sub(d.offset + #data + 1)
  d.offset = d.offset + #data
  return true
end

-- What a DMA's control asks for; nil where it cannot be.
local function transfer(d, control, length, gpa)
  if bits(control, 3) == 1 then select_item(d, bits(control, 16, 16)) end
  if bits(control, 1) == 1 then
    while length > 0 do -- a guest may ask for 4 GB of zeros
      local count = math.min(length, 65536)
      if not d.dma:write(gpa, next_bytes(d, count)) then return nil end
      gpa, length = gpa + count, length - count
    end
  elseif bits(control, 4) == 1 then
    if length > #(d.contents[d.key] or "") then return nil end
    local data = d.dma:read(gpa, length)
    return data and store(d, data)
  elseif bits(control, 2) == 1 then
    d.offset = math.min(d.offset + length, 2 ^ 32)
  end
  return true
end

-- "Guest-side DMA Interface": the descriptor is control, length, address; control is 0 afterwards,
-- or its error bit.
local function run(d)
  local at = u64(d.DMA_HIGH, d.DMA_LOW)
  d.DMA_HIGH = 0
  local control, length = d.dma:u32_be(at), d.dma:u32_be(at + 4)
  local gpa = d.dma:u64_be(at + 8)
  local done = control and length and gpa and transfer(d, control, length, gpa)
  local ok, problem = d.dma:u32_be(at, done and 0 or 1)
  if not ok then d:log(problem) end
end

return device "fw_cfg" {
  options = { files = {}, items = {} }, holds = "contents keys writable files",
  regions = {
    main = { size = 2, width = 1, unknown = "zeros", registers = {
      SELECTOR = { at = 0, width = 2, access = "wo", narrow = "refuse", write = select_item },
      DATA = { at = 1, access = "ro", precious = true,
        read = function(d) return next_bytes(d, 1):byte() end },
    } },
    dma = { size = 8, width = 4, endian = "big", registers = {
      DMA_HIGH = { at = 0, read = function() return 0x51454d55 end }, -- "QEMU CFG"
      DMA_LOW = { at = 4, read = function() return 0x20434647 end, write = run },
    } },
  },
  state = { key = 0, offset = 0 },
  init = function(d, options)
    d.contents, d.keys, d.writable, d.files = {}, {}, {}, 0
    item(d, SIGNATURE, "QEMU")
    item(d, ID, "\3\0\0\0")
    item(d, DIRECTORY, big(0, 4))
    for number, data in pairs(options.items) do item(d, number, data) end
    for _, name in ipairs(sorted(options.files)) do file(d, name, options.files[name]) end
  end,
  methods = { item = item, file = file },
}
