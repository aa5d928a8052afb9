-- SPDX-License-Identifier: MIT
-- A 24C02: 256 bytes behind an I2C bus (i2c.lua), by Atmel's datasheet of the AT24C02 (0180), whose
-- headings are in quotes. Options address: its pins A2 to A0; data: what it has at first, ones
-- behind that. dev:data() is what it has now; write_protect is an input.

local device = require "lunavisor.device"
local i2c = require "lunavisor.device.models.i2c"

local unpack = rawget(table, "unpack") or unpack

local PAGE, SIZE, WRITE_TIME = 8, 256, 5e-3

-- "Byte Write", "Page Write": the first byte is the address; the others wait for the end, and go
-- round within a page.
local function write(d, byte)
  if not d.addressed then
    d.at, d.addressed = byte, true
    return true
  end
  if d.inputs.write_protect.level then return false end
  d.page[#d.page + 1] = { d.at, byte }
  d.at = d.at - d.at % PAGE + (d.at + 1) % PAGE
  return true
end

-- "Current Address Read", "Sequential Read".
local function read(d)
  local byte = d.cells[d.at + 1]
  d.at = (d.at + 1) % SIZE
  return byte
end

-- The write begins at the STOP, and until it is done the chip does not answer ("Acknowledge
-- Polling"); a START in its place forgets it.
local function finish(d, stopped)
  if #d.page == 0 or not stopped then
    d.page = {}
    return
  end
  for _, one in ipairs(d.page) do d.cells[one[1] + 1] = one[2] end
  d.page, d.busy = {}, true
  d:after(WRITE_TIME, "done")
end

local function start(d)
  d.addressed = false
  return not d.busy
end

return device "eeprom24c02" (i2c.device({ address = function(d) return 0x50 + d.options.address end,
  start = start, read = read, write = write, finish = finish }, {
  options = { address = 0, data = "" }, registers = {}, keeps = "at cells",
  state = { cells = {}, at = 0, addressed = false, page = {}, busy = false },
  inputs = { write_protect = function() end },
  timers = { done = function(d) d.busy = false end },
  init = function(d, options)
    local address, data = options.address, options.data
    if type(address) ~= "number" or address % 1 ~= 0 or address < 0 or address > 7 then
      error(("eeprom24c02: address: from 0 to 7 expected, got %s"):format(tostring(address)), 4)
    elseif type(data) ~= "string" or #data > SIZE then
      error("eeprom24c02: data: a string of up to 256 bytes expected", 4)
    end
    for i = 1, SIZE do d.cells[i] = data:byte(i) or 255 end
  end,
  methods = { data = function(d) return string.char(unpack(d.cells)) end },
}))
