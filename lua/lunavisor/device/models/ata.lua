-- SPDX-License-Identifier: MIT
-- An ATA channel with two drives, in PIO, by T13/1410D (ATA/ATAPI-6), whose headings are in quotes.
-- Regions command (0x1f0) and control (0x3f6). Options master, slave: what disk.lua takes, in a
-- table also serial and model; false where there is none. Commands are done at once.

local class = require "lunavisor.class"
local device = require "lunavisor.device"
local disk = require "lunavisor.device.models.disk"
local identify = require "lunavisor.device.models.ata_identify"
local word = require "lunavisor.device.word"

local bits, floor = word.bits, math.floor
local SECTOR = 512
local ABORTED, NOT_FOUND, UNCORRECTABLE = 0x04, 0x10, 0x40 -- bits of "Error register"

-- ---- Registers ----

local function drive_of(d) return d.drives[d.DEVICE.dev] end

-- "Signature and persistence": what the registers of drives show after a reset.
local function sign(d)
  d.COUNT, d.LOW, d.MID, d.HIGH, d.DEVICE.value, d.PREVIOUS = 1, 1, 0, 0, 0, 0
end

-- What a register had before, for commands of the "48-bit Address feature set".
local function remember(shift)
  return function(d, _, old)
    d.CONTROL.hob = 0
    d.PREVIOUS = word.insert(d.PREVIOUS, 8 * shift, 8, old)
  end
end

local function recall(shift)
  return function(d, value)
    if not d.drives[0] and not d.drives[1] then return 0x7f end -- DD7 is pulled down
    return d.CONTROL.hob == 1 and bits(d.PREVIOUS, 8 * shift, 8) or value
  end
end

-- ---- Ends of commands ----

local function finish(d, problem)
  d.data, d.at, d.due, d.writing = "", 0, 0, false
  d.STATUS.value = 0x50
  d.ERROR = problem or 0
  if problem then d.STATUS.err = 1 end
  d.pending = true
end

local function abort(d) finish(d, ABORTED) end

-- ---- Addresses ----

-- The first sector and how many, of a command of 48 bits (`wide`) or 28, or by cylinder and head.
local function range(d, wide)
  local low = d.LOW + d.MID * 256 + d.HIGH * 65536
  if wide then
    local count = d.COUNT + bits(d.PREVIOUS, 0, 8) * 256
    return floor(low + floor(d.PREVIOUS / 256) * 2 ^ 24), count == 0 and 65536 or count
  end
  local count = d.COUNT == 0 and 256 or d.COUNT
  if d.DEVICE.lba == 1 then return floor(low + d.DEVICE.head * 2 ^ 24), count end
  local shape = drive_of(d).current
  local cylinder = d.MID + d.HIGH * 256
  if d.LOW == 0 or d.LOW > shape.track or d.DEVICE.head >= shape.heads then return nil, count end
  return (cylinder * shape.heads + d.DEVICE.head) * shape.track + d.LOW - 1, count
end

-- Puts the address of a sector into the registers, that of an error or of the last one.
local function locate(d, sector, wide)
  if not wide and d.DEVICE.lba == 0 then return end
  d.LOW, d.MID, d.HIGH = sector % 256, bits(sector, 8, 8), bits(sector, 16, 8)
  if wide then
    d.PREVIOUS = word.insert(d.PREVIOUS, 8, 24, bits(sector, 24, 24))
  else
    d.DEVICE.head = bits(sector, 24, 4)
  end
end

local function fail(d, problem, sector)
  locate(d, sector, d.wide)
  finish(d, problem)
end

-- ---- "PIO data-in command protocol", "PIO data-out command protocol" ----

-- Puts the next block into the drive's buffer.
local function fetch(d)
  local count = math.min(d.due, d.block)
  local data, message = drive_of(d).disk:read(d.sector, count)
  if not data then
    d:log(message)
    return fail(d, UNCORRECTABLE, d.sector)
  end
  d.data, d.at, d.sector, d.due = data, 0, d.sector + count, d.due - count
  d.STATUS.value, d.pending = 0x58, true
end

-- Takes a block that is whole.
local function store(d)
  local count = #d.data / SECTOR
  local ok, message = drive_of(d).disk:write(d.sector, d.data)
  if not ok then
    d:log(message)
    fail(d, UNCORRECTABLE, d.sector)
    d.STATUS.fault = 1
    return
  end
  d.sector, d.due, d.data = floor(d.sector + count), floor(d.due - count), ""
  if d.due == 0 then return finish(d) end
  d.pending = true
end

-- Bytes for the host; ones where a drive has none.
local function take(d, count)
  local parts, wanted = {}, count
  while wanted > 0 and d.STATUS.drq == 1 and not d.writing do
    local part = d.data:sub(d.at + 1, d.at + wanted)
    parts[#parts + 1] = part
    d.at, wanted = d.at + #part, wanted - #part
    if d.at == #d.data then
      if d.due > 0 then
        fetch(d)
      else -- the last block ends without another interrupt
        finish(d)
        d.pending = false
      end
    end
  end
  return table.concat(parts) .. ("\255"):rep(wanted)
end

local function give(d, bytes)
  local at = 1
  while at <= #bytes and d.STATUS.drq == 1 and d.writing do
    local room = math.min(d.due, d.block) * SECTOR - #d.data
    d.data = d.data .. bytes:sub(at, at + room - 1)
    at = at + room
    if #d.data == math.min(d.due, d.block) * SECTOR then store(d) end
  end
end

-- ---- Commands ----

-- Begins a transfer: of one sector a block, or of as many as SET MULTIPLE MODE has said.
local function transfer(way, multiple, wide)
  return function(d, drive)
    local sector, count = range(d, wide)
    d.wide = wide or false
    if way == "seek" then count = 1 end
    if multiple and drive.multiple == 0 then return abort(d) end
    if way == "write" and drive.disk.read_only then return abort(d) end
    if not sector or sector >= drive.disk.sectors then
      return fail(d, NOT_FOUND, sector or 0)
    elseif sector + count > drive.disk.sectors then
      return fail(d, NOT_FOUND, drive.disk.sectors)
    elseif way == "verify" or way == "seek" then
      return finish(d)
    end
    d.sector, d.due, d.block = sector, count, multiple and drive.multiple or 1
    d.data, d.writing = "", way == "write"
    if not d.writing then return fetch(d) end
    d.STATUS.value = 0x58 -- the first block without an interrupt
  end
end

local function done(d) finish(d) end

local function set_multiple(d, drive)
  local count = d.COUNT
  if count > 0 and identify.MOST % count ~= 0 then return abort(d) end
  drive.multiple = count
  finish(d)
end

-- INITIALIZE DEVICE PARAMETERS, of ATA-5: another geometry for addresses by cylinder.
local function initialize(d, drive)
  if d.COUNT == 0 then return abort(d) end
  local heads = d.DEVICE.head + 1
  local cylinders = floor(math.min(drive.disk.sectors, 16514064) / (heads * d.COUNT))
  drive.current = { heads = heads, track = d.COUNT, cylinders = math.min(65535, cylinders) }
  finish(d)
end

local function answer(d, drive)
  d.data, d.at, d.due, d.block, d.writing = identify.answer(drive), 0, 0, 1, false
  d.STATUS.value, d.pending = 0x58, true
end

local function native_max(wide)
  return function(d, drive)
    local last = drive.disk.sectors - 1
    locate(d, wide and last or math.min(last, 2 ^ 28 - 1), wide)
    finish(d)
  end
end

-- "EXECUTE DEVICE DIAGNOSTIC": both drives have passed.
local function diagnose(d)
  sign(d)
  finish(d)
  d.ERROR = 1
end

local commands = {
  [0x00] = abort, [0x20] = transfer("read"), [0x21] = transfer("read"),
  [0x24] = transfer("read", false, true), [0x27] = native_max(true),
  [0x29] = transfer("read", true, true), [0x30] = transfer("write"), [0x31] = transfer("write"),
  [0x34] = transfer("write", false, true), [0x39] = transfer("write", true, true),
  [0x40] = transfer("verify"), [0x41] = transfer("verify"),
  [0x42] = transfer("verify", false, true), [0x70] = transfer("seek"), [0x91] = initialize,
  [0xc4] = transfer("read", true), [0xc5] = transfer("write", true), [0xc6] = set_multiple,
  [0xe0] = done, [0xe1] = done, [0xe2] = done, [0xe3] = done, [0xe7] = done, [0xea] = done,
  [0xe5] = function(d) -- active
    d.COUNT = 0xff
    finish(d)
  end,
  [0xec] = answer, [0xf8] = native_max(false),
  [0xef] = function(d) -- "SET FEATURES": PIO modes, whose timing a guest cannot see
    if d.FEATURES == 0x03 and d.COUNT <= 0x0c then return finish(d) end
    abort(d)
  end,
}
for code = 0x10, 0x1f do commands[code] = done end

-- "Single device configurations": a drive that is not there takes no command but one for both.
local function execute(d, code)
  local drive = drive_of(d)
  if d.STATUS.busy == 1 then return end
  d.pending, d.CONTROL.hob = false, 0
  if code == 0x90 and (d.drives[0] or d.drives[1]) then return diagnose(d) end
  if not drive then return end
  (commands[code] or abort)(d, drive)
end

-- ---- "Software reset protocol" ----

local function reset(d)
  sign(d)
  d.data, d.at, d.due, d.writing, d.pending = "", 0, 0, false, false
  d.STATUS.value, d.ERROR = 0x50, 1
  for _, drive in pairs(d.drives) do drive.multiple, drive.current = 0, drive.native end
end

local function control(d, new, old)
  local up, before = bits(new, 2), bits(old, 2)
  if up == 1 then
    reset(d)
    d.STATUS.value = 0xd0
  elseif before == 1 then
    reset(d)
  end
end

local function status(d, value)
  if drive_of(d) then return value end
  return (d.drives[0] or d.drives[1]) and 0 or 0x7f
end

local function drive_named(d, name, number)
  local spec = d.options[name]
  if not spec then return end
  if type(spec) ~= "table" or class.of(spec) == "buffer" then spec = { image = spec } end
  local own = { serial = "LV" .. number, model = "LUNAVISOR DISK" }
  local rest = {}
  for key, value in pairs(spec) do
    if own[key] then own[key] = value else rest[key] = value end
  end
  for key, most in pairs { serial = 20, model = 40 } do
    if type(own[key]) ~= "string" or #own[key] > most then
      error(("ata: %s: %s: up to %d characters expected"):format(name, key, most), 5)
    end
  end
  own.disk = disk.new("ata: " .. name, rest, 5)
  own.native = identify.geometry(own.disk.sectors)
  own.current, own.multiple, own.number = own.native, 0, number
  d.drives[number] = own
end

return device "ata" {
  width = 1, holds = "drives", options = { master = false, slave = false },
  regions = {
    command = { registers = {
      DATA = { at = 0, precious = true, read = function(d) return take(d, 1):byte() end,
        write = function(d, byte) give(d, string.char(byte)) end,
        block = { read = take, write = give } },
      ERROR = { at = 1, access = "ro", reset = 1 }, FEATURES = { at = 1, access = "wo" },
      COUNT = { at = 2, reset = 1, read = recall(0), write = remember(0) },
      LOW = { at = 3, reset = 1, read = recall(1), write = remember(1) },
      MID = { at = 4, read = recall(2), write = remember(2) },
      HIGH = { at = 5, read = recall(3), write = remember(3) },
      DEVICE = { at = 6, rest = "rw", fields = { head = "3:0", dev = 4, lba = 6 } },
      STATUS = { at = 7, access = "ro", precious = true, read = function(d, value)
        d.pending = false
        return status(d, value)
      end, reset = 0x50, rest = "ro", fields = { err = 0, drq = 3, seek = 4, fault = 5, ready = 6,
        busy = 7 } },
      COMMAND = { at = 7, access = "wo", write = execute },
      PREVIOUS = { at = false, width = 4 },
    } },
    control = { registers = {
      ALTERNATE = { at = 0, access = "ro",
        read = function(d) return status(d, d.STATUS.value) end },
      CONTROL = { at = 0, access = "wo", fields = { no_irq = 1, reset = 2, hob = 7 },
        write = control },
    } },
  },
  state = { data = "", at = 0, sector = 0, due = 0, block = 1, writing = false, wide = false,
    pending = false },
  lines = { irq = function(d)
    return d.pending and d.CONTROL.no_irq == 0 and drive_of(d) ~= nil
  end },
  init = function(d)
    d.drives = {}
    drive_named(d, "master", 0)
    drive_named(d, "slave", 1)
  end,
  reset = reset,
}
