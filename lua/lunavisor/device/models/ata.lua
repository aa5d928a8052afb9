-- SPDX-License-Identifier: MIT
-- An ATA channel with two drives, by T13/1410D (ATA/ATAPI-6), whose headings are in quotes. Regions
-- command (0x1f0) and control (0x3f6). Options master, slave: what disk.lua takes, in a table also
-- serial and model, and cdrom = true for a CD drive (atapi.lua), whose image can be false; false
-- where there is none. Option bus_master: a function(channel) that a drive calls when it has bytes
-- for a bus master or wants them, as piix3_ide.lua sets it. Commands are done at once.

local atapi = require "lunavisor.device.models.atapi"
local class = require "lunavisor.class"
local device = require "lunavisor.device"
local disk = require "lunavisor.device.models.disk"
local identify = require "lunavisor.device.models.ata_identify"
local transfer = require "lunavisor.device.models.ata_transfer"
local word = require "lunavisor.device.word"

local bits, floor = word.bits, math.floor
local abort, fail, finish = transfer.abort, transfer.fail, transfer.finish
local drive_of, set_of = transfer.drive_of, transfer.set_of

-- ---- Registers ----

-- "Signature and persistence": what the registers of drives show after a reset, those of a CD drive
-- until they are written.
local function sign(d)
  d.COUNT, d.LOW, d.MID, d.HIGH, d.DEVICE.value, d.PREVIOUS = 1, 1, 0, 0, 0, 0
  d.signed = true
end

local function is_signed(d)
  local drive = drive_of(d)
  return d.signed and drive and drive.cdrom
end

-- What a register had before, for commands of the "48-bit Address feature set".
local function remember(shift)
  return function(d, _, old)
    d.CONTROL.hob, d.signed = 0, false
    d.PREVIOUS = word.insert(d.PREVIOUS, 8 * shift, 8, old)
  end
end

local function recall(shift, signature)
  return function(d, value)
    if not d.drives[0] and not d.drives[1] then return 0x7f end -- DD7 is pulled down
    if signature and is_signed(d) then return signature end
    return d.CONTROL.hob == 1 and bits(d.PREVIOUS, 8 * shift, 8) or value
  end
end

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
  local shape = set_of(d).geometry or drive_of(d).native
  local cylinder = d.MID + d.HIGH * 256
  if d.LOW == 0 or d.LOW > shape.track or d.DEVICE.head >= shape.heads then return nil, count end
  return (cylinder * shape.heads + d.DEVICE.head) * shape.track + d.LOW - 1, count
end

-- ---- Commands ----

-- A command with an address: `way` is "in", "out", "verify" or "seek"; `how` is { multiple = of as
-- many sectors a block as SET MULTIPLE MODE has said, wide = of 48 bits, dma = by a bus master }.
local function sectors(way, how)
  how = how or {}
  return function(d, drive)
    local sector, count = range(d, how.wide)
    local multiple = set_of(d).multiple
    d.wide = how.wide or false
    if way == "seek" then count = 1 end
    if how.multiple and multiple == 0 or how.dma and not d.options.bus_master
      or way == "out" and drive.disk.read_only then
      return abort(d)
    end
    if not sector or sector >= drive.disk.sectors then
      return fail(d, transfer.NOT_FOUND, sector or 0)
    elseif sector + count > drive.disk.sectors then
      return fail(d, transfer.NOT_FOUND, drive.disk.sectors)
    elseif way == "verify" or way == "seek" then
      return finish(d)
    end
    transfer.begin(d, way, { sector = sector, due = count, mastered = how.dma,
      limit = 512 * (how.multiple and multiple or 1) })
  end
end

local function done(d) finish(d) end

local function set_multiple(d)
  local count = d.COUNT
  if count > 0 and identify.MOST % count ~= 0 then return abort(d) end
  set_of(d).multiple = count
  finish(d)
end

-- INITIALIZE DEVICE PARAMETERS, of ATA-5: another geometry for addresses by cylinder.
local function initialize(d, drive)
  if d.COUNT == 0 then return abort(d) end
  local heads = d.DEVICE.head + 1
  local cylinders = floor(math.min(drive.disk.sectors, 16514064) / (heads * d.COUNT))
  set_of(d).geometry = { heads = heads, track = d.COUNT, cylinders = math.min(65535, cylinders) }
  finish(d)
end

-- "SET FEATURES": modes, whose timing a guest cannot see.
local function set_features(d)
  local known = d.FEATURES == 0x03 and identify.has_mode(d.COUNT, d.options.bus_master)
  if not known then return abort(d) end
  set_of(d).mode = d.COUNT
  finish(d)
end

local function answer(make)
  return function(d, drive)
    transfer.begin(d, "in", { rest = make(drive, set_of(d), d.options.bus_master) })
  end
end

local function native_max(wide)
  return function(d, drive)
    local last = drive.disk.sectors - 1
    transfer.locate(d, wide and last or math.min(last, 2 ^ 28 - 1), wide)
    finish(d)
  end
end

local function power(d) -- "CHECK POWER MODE": active
  d.COUNT = 0xff
  finish(d)
end

-- "EXECUTE DEVICE DIAGNOSTIC": both drives have passed.
local function diagnose(d)
  sign(d)
  finish(d)
  d.ERROR = 1
end

local WIDE, MULTIPLE, DMA = { wide = true }, { multiple = true }, { dma = true }
local WIDE_MULTIPLE, WIDE_DMA = { wide = true, multiple = true }, { wide = true, dma = true }

local commands = {
  [0x00] = abort, [0x20] = sectors "in", [0x21] = sectors "in", [0x24] = sectors("in", WIDE),
  [0x25] = sectors("in", WIDE_DMA), [0x27] = native_max(true),
  [0x29] = sectors("in", WIDE_MULTIPLE), [0x30] = sectors "out", [0x31] = sectors "out",
  [0x34] = sectors("out", WIDE), [0x35] = sectors("out", WIDE_DMA),
  [0x39] = sectors("out", WIDE_MULTIPLE), [0x40] = sectors "verify", [0x41] = sectors "verify",
  [0x42] = sectors("verify", WIDE), [0x70] = sectors "seek", [0x91] = initialize,
  [0xc4] = sectors("in", MULTIPLE), [0xc5] = sectors("out", MULTIPLE), [0xc6] = set_multiple,
  [0xc8] = sectors("in", DMA), [0xc9] = sectors("in", DMA), [0xca] = sectors("out", DMA),
  [0xcb] = sectors("out", DMA), [0xe0] = done, [0xe1] = done, [0xe2] = done, [0xe3] = done,
  [0xe5] = power, [0xe7] = done, [0xea] = done, [0xec] = answer(identify.answer),
  [0xef] = set_features, [0xf8] = native_max(false),
}
for code = 0x10, 0x1f do commands[code] = done end

-- A CD drive shows by its signature that it takes none of the commands of disks.
local function refuse(d)
  d.COUNT, d.LOW, d.MID, d.HIGH = 1, 1, 0x14, 0xeb
  abort(d)
end

-- "DEVICE RESET", also while a command is under way; without an interrupt.
local function reset_packet(d)
  transfer.clear(d)
  sign(d)
  d.packet, d.pending, d.STATUS.value, d.ERROR = false, false, 0x50, 1
end

local packet_commands = {
  [0x00] = abort, [0xa0] = atapi.begin, [0xa1] = answer(identify.packet_answer), [0xe0] = done,
  [0xe1] = done, [0xe2] = done, [0xe3] = done, [0xe5] = power, [0xef] = set_features,
  [0x20] = refuse, [0xec] = refuse,
}

-- "Single device configurations": a drive that is not there takes no command but one for both.
local function execute(d, code)
  local drive = drive_of(d)
  if code == 0x08 and drive and drive.cdrom then return reset_packet(d) end
  if d.STATUS.busy == 1 then return end
  d.pending, d.CONTROL.hob = false, 0
  if code == 0x90 and (d.drives[0] or d.drives[1]) then return diagnose(d) end
  if not drive then return end
  d.signed, d.packet = false, false
  local list = drive.cdrom and packet_commands or commands
  local command = list[code] or abort
  command(d, drive)
end

-- What the state has of drives comes to them.
local function settle(d)
  for number, drive in pairs(d.drives) do
    if d.set[number].empty then drive.disk = nil else drive.disk = drive.medium end
    if drive.medium and drive.medium.over then drive.medium.over = d.changed[number] end
  end
end

-- ---- "Software reset protocol" ----

local function reset(d)
  sign(d)
  transfer.clear(d)
  d.packet, d.pending = false, false
  d.STATUS.value, d.ERROR = 0x50, 1
  for i = 0, 1 do d.set[i].multiple, d.set[i].geometry = 0, false end
  settle(d)
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
  if drive_of(d) then return is_signed(d) and value == 0x50 and 0 or value end
  return (d.drives[0] or d.drives[1]) and 0 or 0x7f
end

-- ---- Drives ----

-- What the option `name` has of a drive, and what is left for its disk.
local function described(d, name, number)
  local spec = d.options[name]
  if type(spec) ~= "table" or class.of(spec) == "buffer" then spec = { image = spec } end
  local cdrom = spec.cdrom == true
  local own, rest = { serial = "LV" .. number, model = cdrom and "LUNAVISOR CD" or "LUNAVISOR DISK",
    cdrom = false }, {}
  for key, value in pairs(spec) do
    if own[key] ~= nil then own[key] = value else rest[key] = value end
  end
  for key, most in pairs { serial = 20, model = 40 } do
    if type(own[key]) ~= "string" or #own[key] > most then
      error(("ata: %s: %s: up to %d characters expected"):format(name, key, most), 6)
    end
  end
  own.cdrom, own.number, own.name = cdrom, number, name
  return own, rest
end

local function medium(drive, spec, level)
  if drive.cdrom and spec.image == false then return nil end
  local made = disk.new("ata: " .. drive.name, spec, level + 1, drive.cdrom and 2048 or nil)
  return made -- not a tail call: the checks count on this frame
end

local function add_drive(d, name, number)
  if not d.options[name] then return end
  local drive, rest = described(d, name, number)
  drive.medium = medium(drive, rest, 5)
  drive.disk, drive.native = drive.medium, not drive.cdrom
    and identify.geometry(drive.medium.sectors) or nil
  d.drives[number] = drive
end

-- The CD drive that is meant, as a number or option.
local function cd_drive(d, what, which)
  for number, drive in pairs(d.drives) do
    if drive.cdrom and (which == number or which == drive.name) then return drive end
  end
  error(("ata:%s: %s is no CD drive of %s"):format(what, tostring(which), d.name), 3)
end

--- ata:insert(which, image): a CD comes into the drive "master" or "slave".
local function insert(d, which, image)
  local drive = cd_drive(d, "insert", which)
  if type(image) ~= "table" or class.of(image) == "buffer" then image = { image = image } end
  drive.medium = medium(drive, image, 2)
  atapi.change(d, drive, drive.medium)
end

--- ata:eject(which): the drive is empty from now on, also where the guest has locked it.
local function eject(d, which)
  local drive = cd_drive(d, "eject", which)
  drive.medium = nil
  atapi.change(d, drive, nil)
end

local function set_new()
  return { multiple = 0, geometry = false, mode = 0, sense = 0, attention = 0, event = 0,
    locked = false, empty = false }
end

local state = { changed = { [0] = {}, {} }, set = { [0] = set_new(), set_new() }, signed = true }
for name, value in pairs(transfer.state) do state[name] = value end

return device "ata" {
  width = 1, holds = "drives", keeps = "changed",
  options = { master = false, slave = false, bus_master = false },
  regions = {
    command = { registers = {
      DATA = { at = 0, precious = true, read = function(d) return transfer.take(d, 1):byte() end,
        write = function(d, byte) atapi.give(d, string.char(byte)) end,
        block = { read = transfer.take, write = atapi.give } },
      ERROR = { at = 1, access = "ro", reset = 1 }, FEATURES = { at = 1, access = "wo" },
      COUNT = { at = 2, reset = 1, read = recall(0), write = remember(0) },
      LOW = { at = 3, reset = 1, read = recall(1), write = remember(1) },
      MID = { at = 4, read = recall(2, 0x14), write = remember(2) },
      HIGH = { at = 5, read = recall(3, 0xeb), write = remember(3) },
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
  state = state,
  lines = { irq = function(d)
    return d.pending and d.CONTROL.no_irq == 0 and drive_of(d) ~= nil
  end },
  init = function(d)
    d.drives = {}
    add_drive(d, "master", 0)
    add_drive(d, "slave", 1)
  end,
  reset = reset, loaded = settle,
  methods = { insert = insert, eject = eject },
}
