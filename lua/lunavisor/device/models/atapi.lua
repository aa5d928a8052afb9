-- SPDX-License-Identifier: MIT
-- The packets of a CD drive on an ATA channel: commands of MMC-3 (T10/1363-D) and SPC-2 (T10/1236-
-- D), whose names are in capitals, as T13/1410D's "PACKET command protocol" carries them. One
-- session with one data track, or no medium.

local transfer = require "lunavisor.device.models.ata_transfer"
local word = require "lunavisor.device.word"

local bits, char, floor = word.bits, string.char, math.floor
local check, finish = transfer.check, transfer.finish

local M = {}

local SECTOR = 2048
local CD_ROM = 8          -- of "Profile List": a CD that is read
local NO_MEDIUM, CHANGED = 0x3a, 0x28

-- ---- Numbers in packets: the highest byte first ----

local function word16(value) return char(floor(value / 256) % 256, value % 256) end
local function word32(value) return word16(floor(value / 65536)) .. word16(value % 65536) end

local function get16(packet, at)
  return packet:byte(at + 1) * 256 + packet:byte(at + 2)
end

local function get32(packet, at)
  return get16(packet, at) * 65536 + get16(packet, at + 2)
end

-- ---- Answers ----

-- Data to the host, which must have said how many bytes a block has: "Byte Count".
local function give(d, how)
  how.limit, how.mastered = d.limit, d.FEATURES % 2 == 1
  if how.limit == 0 and not how.mastered then return transfer.abort(d) end
  transfer.begin(d, "in", how)
end

-- An answer of which the host wants `most` bytes.
local function answer(d, bytes, most)
  bytes = bytes:sub(1, most)
  if bytes == "" then return finish(d) end
  give(d, { rest = bytes })
end

local function invalid(d) check(d, 5, 0x24) end -- invalid field in CDB

local function has_medium(d, drive)
  if drive.disk then return true end
  check(d, 2, NO_MEDIUM)
  return false
end

-- ---- Commands ----

local function request_sense(d, _, packet)
  local set = transfer.set_of(d)
  local sense = set.sense
  set.sense = 0
  answer(d, char(0x70, 0, bits(sense, 16, 4), 0, 0, 0, 0, 10, 0, 0, 0, 0, bits(sense, 8, 8),
    bits(sense, 0, 8), 0, 0, 0, 0), packet:byte(5))
end

local function inquiry(d, drive, packet)
  if packet:byte(2) % 2 == 1 then return invalid(d) end -- no vital product data
  answer(d, char(5, 0x80, 0, 0x21, 31, 0, 0, 0) .. ("%-8s%-16s%-4s"):format("LUNA",
    drive.model:sub(1, 16), "1.0"), packet:byte(5))
end

local function read_capacity(d, drive)
  if not has_medium(d, drive) then return end
  answer(d, word32(drive.disk.sectors - 1) .. word32(SECTOR), 8)
end

local function read(count_at, size)
  return function(d, drive, packet)
    local first = get32(packet, 2)
    local count = (size == 4 and get32 or get16)(packet, count_at)
    if not has_medium(d, drive) then return end
    if first + count > drive.disk.sectors then return check(d, 5, 0x21) end -- beyond the end
    if count == 0 then return finish(d) end
    give(d, { sector = first, due = count })
  end
end

-- The address of a sector as READ TOC gives it: minutes, seconds and frames from the lead-in on.
local function address(sector, msf)
  if not msf then return word32(sector) end
  local frames = sector + 150
  return char(0, floor(frames / 4500) % 256, floor(frames / 75) % 60, frames % 75)
end

local function read_toc(d, drive, packet)
  if not has_medium(d, drive) then return end
  local format, msf = packet:byte(3) % 16, bits(packet:byte(2), 1) == 1
  if format == 0 then format = bits(packet:byte(10), 6, 2) end -- where SFF-8020i has it
  local track, from = "\0\x14\1\0" .. address(0, msf), packet:byte(7)
  local list
  if format == 0 and (from <= 1 or from == 0xaa) then
    list = (from <= 1 and track or "") .. "\0\x14\xaa\0" .. address(drive.disk.sectors, msf)
  elseif format == 1 then
    list = track
  else
    return invalid(d)
  end
  answer(d, word16(#list + 2) .. "\1\1" .. list, get16(packet, 7))
end

-- Pages of MODE SENSE(10): errors, and "CD/DVD Capabilities and Mechanical Status".
local PAGES = {
  [0x01] = "\1\6\0\5\0\0\0\0",
  [0x2a] = "\x2a\18\0\0\0\0\x29\0" .. word16(706) .. word16(2) .. word16(512) .. word16(706)
    .. "\0\0\0\0",
}

local function mode_sense(d, drive, packet)
  local number = packet:byte(3) % 64
  local list
  if bits(packet:byte(3), 6, 2) == 3 then return check(d, 5, 0x39) end -- no page is saved
  if number == 0x3f then
    list = PAGES[0x01] .. PAGES[0x2a]
  elseif PAGES[number] then
    list = PAGES[number]
  else
    return invalid(d)
  end
  local medium = drive.disk and 1 or 0x70
  answer(d, word16(#list + 6) .. char(medium, 0, 0, 0, 0, 0) .. list, get16(packet, 7))
end

-- GET CONFIGURATION: "Profile List", with the profile of what is in the drive.
local function get_configuration(d, drive, packet)
  local current = drive.disk and CD_ROM or 0
  local list = char(0, 0, 3, 4) .. word16(CD_ROM) .. char(drive.disk and 1 or 0, 0)
  if get16(packet, 2) > 0 then list = "" end
  answer(d, word32(#list + 4) .. "\0\0" .. word16(current) .. list, get16(packet, 7))
end

-- GET EVENT STATUS NOTIFICATION: of the class "Media", whatever is asked for; polled only.
local function get_events(d, drive, packet)
  if packet:byte(2) % 2 == 0 then return invalid(d) end
  if bits(packet:byte(5), 4) == 0 then return answer(d, "\0\2\x80\x10", get16(packet, 7)) end
  local set = transfer.set_of(d)
  local event = set.event
  set.event = 0
  answer(d, "\0\6\4\x10" .. char(event, drive.disk and 2 or 0, 0, 0), get16(packet, 7))
end

-- START STOP UNIT: ejects and loads; what was ejected is not loaded again.
local function start_stop(d, drive, packet)
  if bits(packet:byte(5), 0, 2) == 2 then
    if transfer.set_of(d).locked then return check(d, 5, 0x53, 2) end -- medium removal prevented
    M.change(d, drive, nil)
  end
  finish(d)
end

local function prevent(d, _, packet)
  transfer.set_of(d).locked = packet:byte(5) % 2 == 1
  finish(d)
end

local commands = {
  [0x00] = function(d, drive) if has_medium(d, drive) then finish(d) end end, -- TEST UNIT READY
  [0x03] = request_sense, [0x12] = inquiry, [0x1b] = start_stop, [0x1e] = prevent,
  [0x25] = read_capacity, [0x28] = read(7, 2), [0x43] = read_toc, [0x46] = get_configuration,
  [0x4a] = get_events, [0x5a] = mode_sense, [0xa8] = read(6, 4),
}

-- What is answered although the medium has changed: SPC-2, "Unit attention condition".
local ANYWAY = { [0x03] = true, [0x12] = true, [0x46] = true, [0x4a] = true }

--- Another medium, a disk, comes into a drive; nil: none.
function M.change(d, drive, disk)
  local set = d.set[drive.number]
  drive.disk, set.empty = disk, disk == nil
  set.attention, set.event = disk and CHANGED * 256 or 0, disk and 2 or 3
end

-- The 12 bytes of a packet have come.
local function packet(d, bytes)
  local drive, set, code = transfer.drive_of(d), transfer.set_of(d), bytes:byte(1)
  transfer.clear(d)
  if set.attention ~= 0 and not ANYWAY[code] then
    local attention = set.attention
    set.attention = 0
    return check(d, 6, floor(attention / 256), attention % 256)
  end
  if code ~= 0x03 then set.sense = 0 end
  if not commands[code] then return check(d, 5, 0x20) end -- invalid command operation code
  commands[code](d, drive, bytes)
end

--- Bytes that the host writes.
function M.give(d, bytes) transfer.give(d, bytes, packet) end

--- The command PACKET: 12 bytes are to come.
function M.begin(d)
  local features, limit = d.FEATURES % 4, d.MID + d.HIGH * 256
  if features == 1 and not d.options.bus_master or features >= 2 then return transfer.abort(d) end
  if limit == 65535 then limit = 65534 end
  transfer.begin(d, "out", { limit = limit - (limit > 1 and limit % 2 or 0) })
  d.packet, d.COUNT = true, 1 -- "Interrupt Reason": a command, from the host
end

return M
