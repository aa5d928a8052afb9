-- SPDX-License-Identifier: MIT
-- An 82077AA floppy disk controller in its PC/AT mode, by Intel's datasheet (290166), whose
-- headings are in quotes. Regions main (0x3f0) and change (0x3f7). Options drive0 and drive1: what
-- floppy.lua takes, false where there is none; pace: seconds until a command is done, whatever it
-- is, so that no interrupt comes within the driver's write that leads to it. Commands for deleted
-- data and the scans are invalid ones here.

local command = require "lunavisor.device.models.i82077_command"
local device = require "lunavisor.device"
local floppy = require "lunavisor.device.models.floppy"
local transfer = require "lunavisor.device.models.i82077_transfer"
local word = require "lunavisor.device.word"

local bits, insert = word.bits, word.insert

-- ---- Phases ----

-- "Command Phase": takes a byte, and does the command with its last one.
local function take(d, byte)
  d.bytes = d.bytes .. string.char(byte)
  local about = command.of(d.bytes:byte())
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
    take(d, byte)
  elseif d.phase == "execution" and without_dma(d) then
    transfer.give(d, string.char(byte))
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
  for _, list in ipairs { d.attention, d.seeking } do
    for _, st0 in ipairs(list) do
      if st0 < command.POLLED then value = insert(value, st0 % 4, 1, 1) end
    end
  end
  if d.phase == "result" then return value + 0xd0 end
  if d.phase == "command" then return value + (d.bytes == "" and 0x80 or 0x90) end
  if d.phase == "ending" or not without_dma(d) then return value + 0x10 end
  return value + (d.transfer.way == "in" and 0xf0 or 0xb0)
end

-- ---- "Reset" ----

-- Nothing is under way any more.
local function stop(d)
  d.phase, d.bytes, d.result, d.transfer = "command", "", "", {}
  d.attention, d.seeking, d.finished, d.alert = {}, {}, false, false
  d:cancel "arrive"
  d:cancel "ended"
end

-- Of DOR and DSR: all but SPECIFY's values, and what LOCK keeps. The polling of the four drives
-- that follows ends with an interrupt.
local function software_reset(d)
  stop(d)
  d.CONFIG.seeks, d.CONFIG.no_polling = 0, 0
  if d.locked == 0 then d.CONFIG.value, d.PRETRK = 0x20, 0 end
  d.PERPENDICULAR = insert(d.PERPENDICULAR, 0, 2, 0)
  for i = 0, 3 do d.cylinders[i], d.seeking[i + 1] = 0, command.POLLED + i end
  transfer.later(d, "arrive", command.arrive)
end

local function write_dor(d, new, old)
  if bits(new, 2) == 0 then
    stop(d)
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
  options = { drive0 = false, drive1 = false, pace = 0.0002 },
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
    attention = {}, seeking = {}, alert = false, finished = false, gap = false,
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
  timers = { arrive = command.arrive, ended = transfer.ended },
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
