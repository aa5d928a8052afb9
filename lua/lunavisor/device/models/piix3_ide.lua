-- SPDX-License-Identifier: MIT
-- The IDE function of a PIIX3 (Intel's datasheet 290550): the bus master of two ATA channels, by
-- the Programming Interface for Bus Master IDE Controller, whose headings are in quotes.
-- Options primary, secondary: devices `ata`, which stay where they are. Region master is BAR 4.

local device = require "lunavisor.device"
local pci = require "lunavisor.device.models.pci"
local transfer = require "lunavisor.device.models.ata_transfer"

local NAMES = { [0] = "primary", "secondary" }

-- "Physical Region Descriptor Table": address and bytes of an entry, and whether it is the last.
local function entry_at(d, at)
  local gpa, size = d.dma:u32(at), d.dma:u32(at + 4)
  if not gpa or not size then return nil end
  local count = size % 65536
  return gpa - gpa % 2, count - count % 2 == 0 and 65536 or count - count % 2, size >= 2 ^ 31
end

-- Moves the bytes of an entry; whether memory was there.
local function move(d, channel, way, gpa, count)
  if way == "in" then
    local data = transfer.master_sees(channel, count)
    local ok = d.dma:write(gpa, data)
    if ok then transfer.master_took(channel, #data) end
    return ok
  end
  local data = d.dma:read(gpa, math.min(count, transfer.master_wants(channel)))
  if data then transfer.master_give(channel, data) end
  return data
end

-- An error on the bus ends the transfer; the drive waits until it is reset.
local function stop(d, n, failed)
  d.STATUS[n].active = 0
  if failed then d.STATUS[n].error = 1 end
end

-- Goes on where the engine is started, the host has memory, and the drive asks: entry by entry. Its
-- end before that of the table leaves the engine active; the other way round it is not, and there
-- is no interrupt ("Bus Master IDE Status Register").
local function run(d, n)
  local channel = d.options[NAMES[n]]
  while channel and d.COMMAND[n].start == 1 and d.STATUS[n].active == 1
    and d.PCI_COMMAND.master == 1 do
    local way = transfer.request(channel)
    if not way then return end
    local gpa, count, last = entry_at(d, d.entry[n])
    if not gpa or (way == "in") ~= (d.COMMAND[n].to_memory == 1) then return stop(d, n, true) end
    local moved = move(d, channel, way, gpa, count)
    d.entry[n] = d.entry[n] + 8
    if last or not moved then stop(d, n, not moved) end
    channel:update()
  end
end

-- "Start/Stop Bus Master": from the beginning of the table on.
local function command(d, new, old, _, n)
  local start = new % 2
  if start == 0 then
    d.STATUS[n].active = 0
  elseif old % 2 == 0 then
    d.entry[n], d.STATUS[n].active = d.TABLE[n].value, 1
    run(d, n)
  end
end

local function connect(d)
  for n, name in pairs(NAMES) do
    local channel = d.options[name]
    if channel then
      if device.is(channel) ~= "device" or rawget(channel, "class").name ~= "ata" then
        error(("piix3_ide: %s: a device ata expected"):format(name), 4)
      end
      channel.options.bus_master = function() run(d, n) end
      channel.irq:connect(function(level)
        if level then d.STATUS[n].irq = 1 end
      end)
    end
  end
end

return pci.device "piix3_ide" {
  pci = { vendor = 0x8086, device = 0x7010, class = 0x010180,
    bars = { [4] = { region = "master", size = 16, kind = "io" } },
    registers = { TIMING = { at = 0x40, width = 2, count = 2 },
      SLAVE_TIMING = { at = 0x44, width = 1 } } },
  regions = { master = { size = 16, registers = {
    COMMAND = { at = 0, width = 1, count = 2, stride = 8, write = command,
      fields = { start = 0, to_memory = 3 } },
    STATUS = { at = 2, width = 1, count = 2, stride = 8,
      fields = { active = { 0, "ro" }, error = { 1, "w1c" }, irq = { 2, "w1c" },
        capable = "6:5" } },
    TABLE = { at = 4, width = 4, count = 2, stride = 8, fields = { base = "31:2" } },
  } } },
  options = { primary = false, secondary = false }, state = { entry = { [0] = 0, 0 } },
  init = connect,
}
