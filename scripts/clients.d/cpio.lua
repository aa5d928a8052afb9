-- SPDX-License-Identifier: MIT
-- An archive of the cpio format newc, which Linux takes as its first file system
-- (Documentation/driver-api/early-userspace/buffer-format.rst).

local DIRECTORY, FILE, DEVICE = 0x41ed, 0x81ed, 0x2180

local function padded(text)
  return text .. ("\0"):rep(-#text % 4)
end

local function entry(number, name, mode, data, major, minor)
  local fields = { number, mode, 0, 0, 1, 0, #data, 0, 0, major or 0, minor or 0, #name + 1, 0 }
  for i, field in ipairs(fields) do fields[i] = ("%08x"):format(field) end
  return padded("070701" .. table.concat(fields) .. name .. "\0") .. padded(data)
end

--- An archive of a list of { name, data } for files, { name } for directories, and { name, major =,
--- minor = } for character devices.
return function(list)
  local parts = {}
  for i, one in ipairs(list) do
    local mode = one.major and DEVICE or one[2] and FILE or DIRECTORY
    parts[i] = entry(i, one[1], mode, one[2] or "", one.major, one.minor)
  end
  return table.concat(parts) .. entry(0, "TRAILER!!!", 0, "")
end
