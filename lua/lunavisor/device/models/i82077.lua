-- SPDX-License-Identifier: MIT
-- An 82077AA floppy disk controller in its PC/AT mode, by Intel's datasheet (290166), whose
-- headings are in quotes. Regions main (0x3f0) and change (0x3f7). Options drive0 and drive1: what
-- floppy.lua takes, false where there is none. Commands are done at once; those for deleted data
-- and the scans are invalid ones here.

local device = require "lunavisor.device"
local floppy = require "lunavisor.device.models.floppy"
local transfer = require "lunavisor.device.models.i82077_transfer"
local word = require "lunavisor.device.word"

local bits, insert, char = word.bits, word.insert, string.char

local SEEK_END, CHECK, POLLED = 0x20, 0x10, 0xc0 -- "Status Register 0"

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

-- Notes how a drive's seek has ended; it is busy until somebody asks.
local function attend(d, st0, number)
  for i = #d.attention, 1, -1 do
    if d.attention[i] % 4 == number then table.remove(d.attention, i) end
  end
  table.insert(d.attention, 1, st0 + number)
  d.alert = true
end

local function sense_interrupt(d)
  local st0 = table.remove(d.attention, 1)
  if not st0 then return "\128" end
  d.alert = d.attention[1] ~= nil and d.attention[1] < POLLED
  return char(st0, d.cylinders[st0 % 4])
end

-- ---- Control commands: each returns its result, nil where it has none ----

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

-- ---- Phases ----

-- Commands by their low five bits: how many bytes they have, which of the other bits can be set,
-- and whether they are told of on the INT pin when they are done.
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

local function command_of(byte)
  if byte == 0x8f or byte == 0xcf then return RELATIVE end
  local command = commands[byte % 32]
  if not command or word.band(byte - byte % 32, 0xff - command[2]) ~= 0 then return INVALID end
  return command
end

-- "Command Phase": takes a byte, and does the command with its last one.
local function command(d, byte)
  d.bytes = d.bytes .. char(byte)
  local about = command_of(d.bytes:byte())
  if #d.bytes < about[1] then return end
  local bytes = { d.bytes:byte(1, -1) }
  d.bytes, d.result = "", ""
  local result = about[3](d, bytes)
  if result then d.phase, d.result = "result", result end
end

-- "Non-DMA Mode": INT tells of each byte.
local function without_dma(d) return d.LOAD.no_dma == 1 end

local function between(d)
  transfer.settle(d)
  d.gap = true
  d:update()
  d.gap = false
end

local function write_fifo(d, byte)
  if d.DOR.enabled == 0 then return end
  if d.phase == "command" then
    command(d, byte)
  elseif d.phase == "execution" and without_dma(d) then
    transfer.give(d, char(byte))
    between(d)
  end
end

local function read_fifo(d, value)
  if d.phase == "result" then
    value, d.result, d.finished = d.result:byte(), d.result:sub(2), false
    if d.result == "" then d.phase = "command" end
  elseif d.phase == "execution" and without_dma(d) and d.transfer.way == "in" then
    value = transfer.take(d, 1):byte() or value
    between(d)
  end
  d.FIFO = value
  return value
end

-- "Main Status Register": drives are busy with a seek until it has been asked for.
local function main_status(d)
  if d.DOR.enabled == 0 then return 0 end
  local value = 0
  for _, st0 in ipairs(d.attention) do
    if st0 < POLLED then value = insert(value, st0 % 4, 1, 1) end
  end
  if d.phase == "result" then return value + 0xd0 end
  if d.phase == "command" then return value + (d.bytes == "" and 0x80 or 0x90) end
  if not without_dma(d) then return value + 0x10 end
  return value + (d.transfer.way == "in" and 0xf0 or 0xb0)
end

-- ---- "Reset" ----

-- Of DOR and DSR: all but SPECIFY's values, and what LOCK keeps. The polling of the four drives
-- that follows ends with an interrupt.
local function software_reset(d)
  d.phase, d.bytes, d.result, d.transfer, d.finished = "command", "", "", {}, false
  d.CONFIG.seeks, d.CONFIG.no_polling = 0, 0
  if d.locked == 0 then d.CONFIG.value, d.PRETRK = 0x20, 0 end
  d.PERPENDICULAR = insert(d.PERPENDICULAR, 0, 2, 0)
  for i = 0, 3 do d.cylinders[i], d.attention[i + 1] = 0, POLLED + i end
  for i = #d.attention, 5, -1 do d.attention[i] = nil end
  d.alert = true
end

local function write_dor(d, new, old)
  if bits(new, 2) == 0 then
    d.phase, d.bytes, d.attention, d.finished, d.alert = "command", "", {}, false, false
  elseif bits(old, 2) == 0 then
    software_reset(d)
  end
end

local function write_dsr(d, value)
  d.RATE.rate = value % 4
  if value >= 0x80 then
    d.DSR.reset = 0
    if d.DOR.enabled == 1 then software_reset(d) end
  end
end

-- Only a drive that is there pulls the line of DSKCHG.
local function changed(d)
  local number = d.DOR.drive
  return d.drives[number] and d.changed[number] and 1 or 0
end

-- ---- The host's side ----

-- What the state has of disks comes to them.
local function settle(d)
  for number, drive in pairs(d.drives) do
    local disk = drive.medium and drive.medium.disk
    if disk and disk.over then disk.over = d.written[number] end
  end
end

-- The number of the drive that is meant, by its number or option.
local function drive_of(d, what, which)
  local number = which == "drive0" and 0 or which == "drive1" and 1 or which
  if not d.drives[number] then
    error(("floppy:%s: %s is no drive of %s"):format(what, tostring(which), d.name), 3)
  end
  return number
end

local function replace(d, number, image)
  floppy.change(("i82077: drive%d"):format(number), d.drives[number], image, 3)
  d.changed[number], d.empty[number], d.written[number] = true, image == false, {}
  settle(d)
end

--- floppy:insert(which, image): a disk comes into drive 0 or 1, in place of what was there.
local function insert_disk(d, which, image)
  local number = drive_of(d, "insert", which)
  replace(d, number, image)
end

--- floppy:eject(which): the drive is empty from now on.
local function eject(d, which)
  local number = drive_of(d, "eject", which)
  replace(d, number, false)
end

-- A transfer by the DMA controller: lines follow it.
local function moving(fn)
  return function(d, value)
    local result = fn(d, value)
    d:update()
    return result
  end
end

local function asks(d) return d.DOR.enabled == 1 and d.DOR.dma == 1 end

return device "i82077" {
  width = 1, unknown = "ones", holds = "drives", keeps = "heads changed empty written",
  options = { drive0 = false, drive1 = false },
  regions = {
    main = { registers = {
      DOR = { at = 2, write = write_dor, fields = { drive = "1:0", enabled = 2, dma = 3,
        motors = "7:4" } },
      TDR = { at = 3, fields = { tape = "1:0" } },
      MSR = { at = 4, access = "ro", read = main_status },
      DSR = { at = 4, access = "wo", reset = 2, write = write_dsr, fields = { rate = "1:0",
        precompensation = "4:2", power_down = 6, reset = 7 } },
      FIFO = { at = 5, precious = true, read = read_fifo, write = write_fifo },
      RATE = { at = false, reset = 2, fields = { rate = { "1:0",
        enum = { k500 = 0, k300 = 1, k250 = 2, m1 = 3 } } } },
      STEP = { at = false }, LOAD = { at = false, fields = { no_dma = 0, time = "7:1" } },
      CONFIG = { at = false, reset = 0x20, fields = { threshold = "3:0", no_polling = 4,
        no_fifo = 5, seeks = 6 }, rest = "rw" },
      PRETRK = { at = false }, PERPENDICULAR = { at = false },
    } },
    change = { registers = {
      DIR = { at = 0, access = "ro", reset = 0x7f, rest = "ro",
        fields = { changed = { 7, "ro", read = changed } } },
      CCR = { at = 0, access = "wo", fields = { rate = "1:0" },
        write = function(d, value) d.RATE.rate = value % 4 end },
    } },
  },
  state = { phase = "command", bytes = "", result = "", transfer = {}, last = 0, locked = 0,
    attention = {}, alert = false, finished = false, gap = false,
    cylinders = { [0] = 0, 0, 0, 0 }, heads = { [0] = 0, 0, 0, 0 },
    changed = { [0] = true, true }, empty = { [0] = false, false },
    written = { [0] = {}, {} } },
  lines = {
    irq = function(d)
      local wants = d.phase == "execution" and without_dma(d)
      return asks(d) and not d.gap and (d.finished or d.alert or wants)
    end,
    drq = function(d) return asks(d) and d.phase == "execution" and not without_dma(d) end,
  },
  init = function(d, options)
    d.drives = {}
    for number = 0, 1 do
      local spec = options["drive" .. number]
      if spec then d.drives[number] = floppy.drive("i82077: drive" .. number, spec, 4) end
    end
    settle(d)
  end,
  loaded = settle,
  methods = {
    insert = insert_disk, eject = eject,
    --- How CMOS memory calls a drive: 1 to 5, 0 where there is none.
    drive_type = function(d, number) return d.drives[number] and d.drives[number].type or 0 end,
    take = moving(transfer.take), give = moving(transfer.give),
    terminal = moving(transfer.terminal),
  },
}
