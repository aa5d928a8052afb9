-- SPDX-License-Identifier: MIT
-- String I/O (rep ins, rep outs) as blocks: devices that take or give all the elements of a port
-- access that KVM has brought at once.

local raw = require "lunavisor.binding.backend"
local u64 = require "lunavisor.text.u64"

local M = {}

local WRITE = 2 -- luna_access
local char, byte, concat = string.char, string.byte, table.concat

local function plural(count)
  return count == 1 and "" or "s"
end

local function ask(device, offset, size, count)
  local bytes = device.read_block(device, offset, size, count)
  local length = size * count
  if type(bytes) ~= "string" then
    error(("the device answered a block of %d element%s of %d byte%s at offset 0x%x with %s: a "
      .. "string of %d bytes expected"):format(count, plural(count), size, plural(size), offset,
      type(bytes) == "number" and u64.hex(bytes) or type(bytes), length), 0)
  elseif #bytes ~= length then
    error(("the device answered a block of %d element%s of %d byte%s at offset 0x%x with a string "
      .. "of %d bytes: %d expected"):format(count, plural(count), size, plural(size), offset,
      #bytes, length), 0)
  end
  return bytes
end

local block_count, block_read, block_answer = raw.block_count, raw.block_read, raw.block_answer

--- Lets the device do the open port access as a block, if it has the function for that and either
--- there is more than one element or it has no function for one; whether it did. An error leaves
--- all of it open.
function M.serve(cpu, device, offset, size, access)
  local write = access == WRITE
  if not device[write and "write_block" or "read_block"] then return false end
  local count = block_count(cpu)
  if count == 0 or count == 1 and device[write and "write" or "read"] then return false end
  local bytes
  if write then
    device.write_block(device, offset, size, block_read(cpu))
  else
    bytes = ask(device, offset, size, count)
  end
  if not cpu[1] then return true end -- the device has closed it
  local ok, message = block_answer(cpu, bytes)
  if not ok then error(message, 0) end
  return true
end

--- Functions that do a single access with block functions that a device got after it was added.
M.single = {
  read = function(device, offset, size)
    local bytes, value = ask(device, offset, size, 1), 0
    for i = size, 1, -1 do value = value * 256 + byte(bytes, i) end
    return value
  end,
  write = function(device, offset, size, value)
    local bytes = {}
    for i = 1, size do
      bytes[i] = char(value % 256)
      value = (value - value % 256) / 256
    end
    device.write_block(device, offset, size, concat(bytes))
  end,
}

return M
