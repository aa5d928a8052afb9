-- SPDX-License-Identifier: MIT
-- How the sectors of a command go between a disk and the host of an 82077AA, by Intel's datasheet
-- (290166), whose headings are in quotes. `d.transfer` has what the command said: way ("in", "out",
-- "format"), drive, side, c, h, r of the ID that is next, last (EOT), multi (MT), and `data`, bytes
-- of the sector under the head; done: the ID behind the last one was reached.

local M = {}

local SECTOR, CODE = 512, 2 -- bytes of a sector, and how N says so

-- "Status Register 0": how it ended. "Status Register 1" and 2.
local ABNORMAL = 0x40
local EN, DE, ND, NW, MA = 0x80, 0x20, 0x04, 0x02, 0x01
local DD, WC, BC = 0x20, 0x10, 0x02
M.ABNORMAL, M.ND, M.NW, M.MA, M.DE = ABNORMAL, ND, NW, MA, DE

-- ---- Ends ----

--- Lets a timer of that name call fn(d), or calls it where commands take no time.
function M.later(d, name, fn)
  if d.options.pace > 0 then d:after(d.options.pace, name) else fn(d) end
end

--- The timer of the end of an execution phase.
function M.ended(d) d.phase, d.finished = "result", true end

--- The result phase of a command that has had an execution phase, with bits of the three status
--- registers: st1 where it has failed.
function M.finish(d, st1, st2)
  local x = d.transfer
  local st0 = (st1 and ABNORMAL or 0) + (x.sought and 0x20 or 0) + 4 * x.side + x.drive
  d.phase = "ending"
  d.result = string.char(st0, st1 or 0, st2 or 0, x.c, x.h, x.r, x.n)
  M.later(d, "ended", M.ended)
end

-- A file of the host that cannot be read or written.
local function broken(d, message)
  d:log(message)
  M.finish(d, DE, DD)
end

-- ---- Where the head is ----

--- The disk in a drive; nil where there is none.
function M.medium_of(d, number)
  local drive = d.drives[number]
  return drive and not d.empty[number] and drive.medium or nil
end

--- The same if its data can be told under the head, at this data rate and encoding.
function M.readable(d, x)
  local medium = M.medium_of(d, x.drive)
  if not medium or not x.mfm or medium.rate ~= d.RATE.rate then return nil end
  if d.heads[x.drive] >= medium.cylinders or x.side >= medium.heads then return nil end
  return medium
end

--- The disk, where the sector of the transfer is under the head; the command ends where it is not.
function M.locate(d)
  local x = d.transfer
  local medium = M.readable(d, x)
  if not medium then return M.finish(d, MA) end
  local cylinder = d.heads[x.drive]
  if x.c ~= cylinder then return M.finish(d, ND, x.c == 255 and WC + BC or WC) end
  if x.h ~= x.side or x.n ~= CODE or x.r < 1 or x.r > medium.track then return M.finish(d, ND) end
  if x.way ~= "in" and medium.disk.read_only then return M.finish(d, NW) end
  return medium, cylinder
end

--- Goes on to the next ID, as "Result Phase Table" has it; with MT the other side follows.
function M.advance(x)
  if x.r ~= x.last then
    x.r = (x.r + 1) % 256
    return
  end
  x.r = 1
  if x.multi and x.side == 0 then
    x.side, x.h = 1, 1
    return
  end
  x.c, x.done = (x.c + 1) % 256, true
  if x.multi then x.h = 0 end
end

-- ---- Sectors ----

-- Has the next sector in x.data; false where the command has ended instead.
local function fetch(d, x)
  if x.done then return M.finish(d, EN) end
  local medium, cylinder = M.locate(d)
  if not medium then return false end
  local data, message = medium:read(cylinder, x.side, x.r)
  if not data then return broken(d, message) end
  x.data = data
  return true
end

-- Writes x.data; false where the command has ended instead.
local function store(d, x)
  local medium, cylinder = M.locate(d)
  if not medium then return false end
  local ok, message = medium:write(cylinder, x.side, x.r, x.data)
  if not ok then return broken(d, message) end
  x.data = ""
  M.advance(x)
  return true
end

-- "Format a Track": an ID of four bytes from the host, which an image can only have at its place.
local function format(d, x)
  x.c, x.h, x.r, x.n = x.data:byte(1, 4)
  x.data = ""
  local medium, cylinder = M.locate(d)
  if not medium then return false end
  local ok, message = medium:write(cylinder, x.side, x.r, string.char(x.filler):rep(SECTOR))
  if not ok then return broken(d, message) end
  x.due = x.due - 1
  if x.due > 0 then return true end
  M.finish(d)
  return false
end

-- Whether there is a transfer that goes this way.
local function is(d, to_host)
  return d.phase == "execution" and (d.transfer.way == "in") == to_host
end

--- Up to `count` bytes of the disk for the host; "" where there are none any more.
function M.take(d, count)
  local parts = {}
  while count > 0 and is(d, true) do
    local x = d.transfer
    if x.data == "" and not fetch(d, x) then break end
    local part = x.data:sub(1, count)
    x.data, count = x.data:sub(#part + 1), count - #part
    parts[#parts + 1] = part
    if x.data == "" then M.advance(x) end
  end
  return table.concat(parts)
end

--- Bytes of the host for the disk; false where it takes none.
function M.give(d, bytes)
  if not is(d, false) then return false end
  local at = 1
  while at <= #bytes and is(d, false) do
    local x = d.transfer
    if x.done then
      M.finish(d, EN)
      break
    end
    local size = x.way == "format" and 4 or SECTOR
    local part = bytes:sub(at, at + size - #x.data - 1)
    x.data, at = x.data .. part, at + #part
    if #x.data == size and not (x.way == "format" and format or store)(d, x) then break end
  end
end

--- The host says that this was the last byte: the sector is read to its end, or written with zeros
--- behind what came.
function M.terminal(d)
  local x = d.transfer
  if d.phase ~= "execution" then return end
  if x.way == "in" and x.data ~= "" then
    M.advance(x)
  elseif x.way == "out" and x.data ~= "" then
    x.data = x.data .. ("\0"):rep(SECTOR - #x.data)
    if not store(d, x) then return end
  end
  M.finish(d)
end

--- Without DMA there is nobody to say so: the command ends behind its last sector.
function M.settle(d)
  local x = d.transfer
  if d.phase == "execution" and x.done and x.data == "" then M.finish(d, EN) end
end

return M
