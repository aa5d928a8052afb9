-- SPDX-License-Identifier: MIT
-- The commands of an 82077AA, by Intel's datasheet (290166), whose headings are in quotes: each is
-- a function(d, bytes) that returns its result, nil where it has none, or one that comes later.

local transfer = require "lunavisor.device.models.i82077_transfer"
local word = require "lunavisor.device.word"

local M = { POLLED = 0xc0 } -- "Status Register 0": a change by polling

local bits, insert, char = word.bits, word.insert, string.char

local SEEK_END, CHECK = 0x20, 0x10 -- of the same

-- ---- The drives ----

-- Moves a head by so many steps, by which a drive learns that there is a disk ("Digital Input
-- Register": DSKCHG).
local function move(d, number, steps)
  local drive = d.drives[number]
  if not drive or steps == 0 then return end
  d.heads[number] = math.max(0, math.min(drive.last, d.heads[number] + steps))
  if transfer.medium_of(d, number) then d.changed[number] = false end
end

local function seek(d, number, cylinder)
  move(d, number, cylinder - d.cylinders[number])
  d.cylinders[number] = cylinder
end

-- ---- Interrupts: "Sense Interrupt Status" ----

local function forget(list, number)
  for i = #list, 1, -1 do
    if list[i] % 4 == number then table.remove(list, i) end
  end
end

--- The timer of seeks and of a reset: what is under way has ended.
function M.arrive(d)
  for i = #d.seeking, 1, -1 do table.insert(d.attention, 1, table.remove(d.seeking, i)) end
  d.alert = true
end

-- Lets a drive's seek end so in a while; it is busy until somebody asks.
local function attend(d, st0, number)
  forget(d.attention, number)
  forget(d.seeking, number)
  table.insert(d.seeking, 1, st0 + number)
  transfer.later(d, "arrive", M.arrive)
end

local function sense_interrupt(d)
  local st0 = table.remove(d.attention, 1)
  if not st0 then return "\128" end
  d.alert = d.attention[1] ~= nil and d.attention[1] < M.POLLED
  return char(st0, d.cylinders[st0 % 4])
end

-- ---- Control commands ----

local function specify(d, b)
  d.STEP, d.LOAD.value = b[2], b[3]
end

-- "Sense Drive Status": write protected, at track 0.
local function sense_drive(d, b)
  local number = b[2] % 4
  local medium = transfer.medium_of(d, number)
  return char(0x28 + b[2] % 8 + (medium and medium.disk.read_only and 0x40 or 0)
    + (d.drives[number] and d.heads[number] == 0 and 0x10 or 0))
end

-- "Recalibrate": no more than 79 steps to track 0, where there is a drive that says so.
local function recalibrate(d, b)
  local number = b[2] % 4
  move(d, number, -math.min(79, d.heads[number]))
  d.cylinders[number] = 0
  local there = d.drives[number] and d.heads[number] == 0
  attend(d, SEEK_END + (there and 0 or CHECK + transfer.ABNORMAL), number)
end

local function seek_to(d, b)
  seek(d, b[2] % 4, b[3])
  attend(d, SEEK_END, b[2] % 4)
end

local function seek_by(d, b)
  local number, steps = b[2] % 4, bits(b[1], 6) == 1 and b[3] or -b[3]
  move(d, number, steps)
  d.cylinders[number] = (d.cylinders[number] + steps) % 256
  attend(d, SEEK_END, number)
end

local function dump(d)
  return char(d.cylinders[0], d.cylinders[1], d.cylinders[2], d.cylinders[3],
    d.STEP, d.LOAD.value, d.last, d.locked * 128 + d.PERPENDICULAR % 64,
    d.CONFIG.value, d.PRETRK)
end

local function configure(d, b) d.CONFIG.value, d.PRETRK = b[3], b[4] end

-- "Perpendicular Mode": which drives are so changes where OW says it.
local function perpendicular(d, b)
  local new = b[2] % 64
  d.PERPENDICULAR = bits(b[2], 7) == 1 and new or insert(d.PERPENDICULAR, 0, 2, new % 4)
end

local function lock(d, b)
  d.locked = bits(b[1], 7)
  return char(d.locked * 16)
end

-- ---- Data transfer commands ----

-- What a command says of its sectors: "Read Data".
local function described(d, b, way)
  local x = { way = way, drive = b[2] % 4, side = bits(b[2], 2), mfm = bits(b[1], 6) == 1,
    multi = bits(b[1], 7) == 1, c = b[3], h = b[4], r = b[5], n = b[6], last = b[7], data = "",
    done = false, sought = false }
  d.last = b[7]
  if d.CONFIG.seeks == 1 then -- "Implied Seek"
    seek(d, x.drive, x.c)
    x.sought = true
  end
  d.transfer = x
  return x
end

local function sectors(way)
  return function(d, b)
    described(d, b, way)
    d.phase = "execution"
    transfer.locate(d)
  end
end

-- "Read Track": the sectors as they come behind the index.
local function read_track(d, b)
  local x = described(d, b, "in")
  x.r, x.multi, d.phase = 1, false, "execution"
  transfer.locate(d)
end

-- "Verify": so many sectors where EC is set, else up to EOT.
local function verify(d, b)
  local x = described(d, b, "in")
  local count = bits(b[2], 7) == 1 and b[9] or math.huge
  d.phase = "execution"
  while count > 0 and not x.done and transfer.locate(d) do
    transfer.advance(x)
    count = count - 1
  end
  if d.phase == "execution" then transfer.finish(d) end
end

-- "Read ID": the first that comes.
local function read_id(d, b)
  local x = { way = "in", drive = b[2] % 4, side = bits(b[2], 2), mfm = bits(b[1], 6) == 1, c = 0,
    h = 0, r = 0, n = 0, sought = false }
  d.transfer = x
  if not transfer.readable(d, x) then return transfer.finish(d, transfer.MA) end
  x.c, x.h, x.r, x.n = d.heads[x.drive], x.side, 1, 2
  transfer.finish(d)
end

local function format(d, b)
  local x = { way = "format", drive = b[2] % 4, side = bits(b[2], 2), mfm = bits(b[1], 6) == 1,
    n = b[3], due = b[4], filler = b[6], c = 0, h = 0, r = 0, data = "", sought = false }
  d.transfer, d.last = x, b[4]
  local medium = transfer.readable(d, x)
  if not medium then return transfer.finish(d, transfer.MA) end
  if medium.disk.read_only then return transfer.finish(d, transfer.NW) end
  if x.due == 0 then return transfer.finish(d) end
  d.phase = "execution"
end

-- ---- All of them ----

-- Commands by their low five bits: how many bytes they have, and which of the other bits can be
-- set.
local commands = {
  [0x02] = { 9, 0x40, read_track }, [0x03] = { 3, 0, specify }, [0x04] = { 2, 0, sense_drive },
  [0x05] = { 9, 0xc0, sectors "out" }, [0x06] = { 9, 0xe0, sectors "in" },
  [0x07] = { 2, 0, recalibrate }, [0x08] = { 1, 0, sense_interrupt }, [0x0a] = { 2, 0x40, read_id },
  [0x0d] = { 6, 0x40, format }, [0x0e] = { 1, 0, dump }, [0x0f] = { 3, 0, seek_to },
  [0x10] = { 1, 0, function() return "\144" end }, -- "Version": enhanced
  [0x12] = { 2, 0, perpendicular }, [0x13] = { 4, 0, configure }, [0x14] = { 1, 0x80, lock },
  [0x16] = { 9, 0xe0, verify },
}
local RELATIVE = { 3, 0, seek_by }
local INVALID = { 1, 0xff, function() return "\128" end }

--- The command of a first byte: { how many bytes it has, _, function }.
function M.of(byte)
  if byte == 0x8f or byte == 0xcf then return RELATIVE end
  local command = commands[byte % 32]
  if not command or word.band(byte - byte % 32, 0xff - command[2]) ~= 0 then return INVALID end
  return command
end

return M
