-- SPDX-License-Identifier: MIT
-- How the bytes of a command go between an ATA drive and its host: through the data register, or by
-- a bus master. By T13/1410D (ATA/ATAPI-6), whose headings are in quotes. A channel has of a
-- transfer: `rest`, bytes that are there, and behind them `due` sectors from `sector` on; `data`,
-- the block in the data register, of which `at` bytes are gone; `limit`, the bytes of a block;
-- `way`, "in" or "out", "" for none; `mastered`: by a bus master; `packet`: of the command PACKET.

local word = require "lunavisor.device.word"

local bits, floor = word.bits, math.floor

local M = { ABORTED = 0x04, NOT_FOUND = 0x10, UNCORRECTABLE = 0x40 } -- "Error register"

-- What the kit keeps of a channel's transfer.
M.state = { data = "", at = 0, rest = "", sector = 0, due = 0, limit = 512, way = "",
  mastered = false, packet = false, wide = false, pending = false }

function M.drive_of(d) return d.drives[d.DEVICE.dev] end

--- What a drive has been told, and a state has.
function M.set_of(d) return d.set[d.DEVICE.dev] end

-- ---- Ends ----

--- No transfer.
function M.clear(d)
  d.data, d.at, d.rest, d.due, d.way, d.mastered = "", 0, "", 0, "", false
end

--- The command has ended, with bits of "Error register" where it has failed.
function M.finish(d, problem)
  M.clear(d)
  d.STATUS.value = 0x50
  d.ERROR = problem or 0
  if problem then d.STATUS.err = 1 end
  if d.packet then d.COUNT = 3 end -- "Interrupt Reason": of a command, to the host
  d.packet, d.pending = false, true
end

function M.abort(d) M.finish(d, M.ABORTED) end

--- Puts the address of a sector into the registers, that of an error or of the last one.
function M.locate(d, sector, wide)
  if not wide and d.DEVICE.lba == 0 then return end
  d.LOW, d.MID, d.HIGH = sector % 256, bits(sector, 8, 8), bits(sector, 16, 8)
  if wide then
    d.PREVIOUS = word.insert(d.PREVIOUS, 8, 24, bits(sector, 24, 24))
  else
    d.DEVICE.head = bits(sector, 24, 4)
  end
end

function M.fail(d, problem, sector)
  M.locate(d, sector, d.wide)
  M.finish(d, problem)
end

--- A packet has failed: sense key, additional sense code and qualifier, which REQUEST SENSE tells.
function M.check(d, key, code, qualifier)
  M.set_of(d).sense = key * 65536 + code * 256 + (qualifier or 0)
  M.finish(d, key * 16 + M.ABORTED)
end

-- A file of the host that cannot be read or written.
local function broken(d, message)
  d:log(message)
  if d.packet then return M.check(d, 3, 0x11) end -- medium error: unrecovered read error
  M.fail(d, M.UNCORRECTABLE, d.sector)
end

-- ---- To the host ----

-- Has up to `count` bytes at hand in `rest`; false where they cannot be read.
local function gather(d, count)
  if d.due == 0 then return true end -- also in a drive without a medium
  local disk, data, message = M.drive_of(d).disk, nil, "the medium was taken out"
  local missing = math.min(d.due, math.ceil((count - #d.rest) / (disk and disk.sector or 1)))
  if missing <= 0 then return true end
  if disk then data, message = disk:read(d.sector, missing) end
  if not data then
    broken(d, message)
    return false
  end
  d.rest, d.sector, d.due = d.rest .. data, floor(d.sector + missing), floor(d.due - missing)
  return true
end

local function is_over(d) return d.due == 0 and d.rest == "" end

-- Puts the next block into the data register.
local function fetch(d)
  if not gather(d, d.limit) then return end
  d.data, d.at, d.rest = d.rest:sub(1, d.limit), 0, d.rest:sub(d.limit + 1)
  if d.packet then -- "Byte Count", "Interrupt Reason": data, to the host
    d.MID, d.HIGH, d.COUNT = #d.data % 256, floor(#d.data / 256), 2
  end
  d.STATUS.value, d.pending = 0x58, true
end

--- Bytes that the host reads; ones where the drive has none.
function M.take(d, count)
  local parts, wanted = {}, count
  while wanted > 0 and d.STATUS.drq == 1 and d.way == "in" do
    local part = d.data:sub(d.at + 1, d.at + wanted)
    parts[#parts + 1] = part
    d.at, wanted = d.at + #part, wanted - #part
    if d.at == #d.data then
      if not is_over(d) then
        fetch(d)
      else -- the last block of a command that is no PACKET ends without another interrupt
        local packet = d.packet
        M.finish(d)
        d.pending = packet
      end
    end
  end
  return table.concat(parts) .. ("\255"):rep(wanted)
end

-- ---- From the host ----

-- Takes sectors that are whole; whether the drive has taken them.
local function store(d, data)
  local disk = M.drive_of(d).disk
  local count = floor(#data / disk.sector)
  local ok, message = true, nil
  if count > 0 then ok, message = disk:write(d.sector, data:sub(1, count * disk.sector)) end
  if not ok then
    broken(d, message)
    d.STATUS.fault = 1
    return false
  end
  d.sector, d.due = floor(d.sector + count), floor(d.due - count)
  d.data = data:sub(count * disk.sector + 1)
  return true
end

--- Bytes that the host writes: `packet(d, bytes)` gets those of a command, "PACKET".
function M.give(d, bytes, packet)
  local at = 1
  while at <= #bytes and d.STATUS.drq == 1 and d.way == "out" do
    local size = d.packet and 12 or math.min(d.due * 512, d.limit)
    local room = size - #d.data
    d.data = d.data .. bytes:sub(at, at + room - 1)
    at = at + room
    if #d.data == size then
      if d.packet then
        packet(d, d.data)
      elseif store(d, d.data) then
        if d.due == 0 then M.finish(d) else d.pending = true end
      end
    end
  end
end

-- ---- By a bus master: "DMA command protocol" ----

--- What the drive asks a bus master for: "in", "out"; nil where nothing.
function M.request(d)
  if d.mastered and d.way ~= "" and M.drive_of(d) then return d.way end
  return nil
end

--- Up to `count` bytes of a transfer in, which master_took takes.
function M.master_sees(d, count)
  return M.request(d) == "in" and gather(d, count) and d.rest:sub(1, count) or ""
end

--- Goes on behind so many bytes; a command that has no more of them ends.
function M.master_took(d, count)
  d.rest = d.rest:sub(count + 1)
  if M.request(d) and is_over(d) then M.finish(d) end
end

--- How many bytes a transfer out still takes.
function M.master_wants(d)
  return M.request(d) == "out" and d.due * M.drive_of(d).disk.sector - #d.data or 0
end

--- Bytes of a transfer out, no more than it takes.
function M.master_give(d, bytes)
  if store(d, d.data .. bytes) and d.due == 0 then M.finish(d) end
end

-- ---- Beginnings ----

--- Begins a transfer: `way`, and how: { sector =, due =, rest =, limit =, mastered = }.
function M.begin(d, way, how)
  d.data, d.at, d.rest, d.way = "", 0, how.rest or "", way
  d.sector, d.due, d.limit, d.mastered = how.sector or 0, how.due or 0, how.limit or 512,
    how.mastered or false
  if d.mastered then
    d.STATUS.value = 0xd0 -- busy until the bus master has done it
    if d.options.bus_master then d.options.bus_master(d) end
  elseif way == "in" then
    fetch(d)
  else
    d.STATUS.value = 0x58 -- the first block without an interrupt
  end
end

return M
