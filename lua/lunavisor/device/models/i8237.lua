-- SPDX-License-Identifier: MIT
-- The two 8237A DMA controllers of a PC/AT with the page registers beside them, by Intel's
-- datasheet (231466), whose headings are in quotes. Channels 0 to 3 move bytes and come through
-- channel 4, which has to be in cascade mode; 5 to 7 move words. What asks for a channel drives its
-- input; dma:serve(n, device) says with whom data goes. Transfers are done at once.

local device = require "lunavisor.device"
local trace = require "lunavisor.exit.trace"
local word = require "lunavisor.device.word"

local bits, insert, floor = word.bits, word.insert, math.floor

-- Where the page registers of the channels are, from port 0x80 on; 4 has that of the refresh.
local PAGES = { [0] = 7, 3, 1, 2, 15, 11, 9, 10 }
local TO_MEMORY, FROM_MEMORY = 1, 2    -- "Mode Register": transfers; 0 verifies
local DEMAND, BLOCK, CASCADE = 0, 2, 3 -- and modes

-- Who is at the other end of a channel to which nothing is connected: the bus floats.
local NOBODY = {
  take = function(_, count) return ("\255"):rep(count) end,
  give = function() end,
  terminal = function() end,
}

local function chip_of(n) return n < 4 and 0 or 1 end
local function unit_of(n) return n < 4 and 1 or 2 end

-- "Command Register" of a channel's chip.
local function command_of(d, n) return n < 4 and d.COMMAND or d.COMMAND2 end

-- Where in memory a channel is: the page does not count on, so an address wraps at 64 KiB, that of
-- words at 128 KiB.
local function gpa_of(d, n)
  local page = d.PAGE[PAGES[n]]
  if n < 4 then return page * 65536 + d.ADDRESS[n] end
  return (page - page % 2) * 65536 + d.ADDRESS[n] * 2
end

local function step(d, n, units)
  local down = d.MODE[n].down == 1
  d.ADDRESS[n] = (d.ADDRESS[n] + (down and -units or units)) % 65536
end

-- ---- Transfers: "Transfer Types" ----

local function fetch(d, gpa, count)
  local data, message = d.dma:read(gpa, count)
  if not data then d:log(message) end
  return data or ("\255"):rep(count)
end

local function store(d, gpa, data)
  local ok, message = d.dma:write(gpa, data)
  if not ok then d:log(message) end
end

-- "Autoinitialize": at a terminal count a channel begins again, or is masked.
local function terminate(d, n)
  local chip, own = d.chips[chip_of(n)], n % 4
  chip.status, chip.request = insert(chip.status, own, 1, 1), insert(chip.request, own, 1, 0)
  if d.MODE[n].auto == 1 then
    d.ADDRESS[n], d.COUNT[n] = d.BASE_ADDRESS[n], d.BASE_COUNT[n]
  else
    chip.mask = insert(chip.mask, own, 1, 1)
  end
end

-- Goes on behind so many units; whether that was the terminal count.
local function count_down(d, n, units)
  local left = d.COUNT[n] - units
  d.COUNT[n] = left % 65536
  if left >= 0 then return false end
  terminate(d, n)
  return true
end

-- Moves what can be moved at once: up to where the address wraps, and a unit where it goes down.
-- How many units there were.
local function move(d, n, peripheral)
  local unit, mode = unit_of(n), d.MODE[n]
  local room = mode.down == 1 and 1 or 65536 - d.ADDRESS[n]
  local count = math.min(d.COUNT[n] + 1, room) * unit
  if mode.transfer == FROM_MEMORY then
    if peripheral:give(fetch(d, gpa_of(d, n), count)) == false then return 0 end
    return count / unit
  end
  local data = peripheral:take(count)
  if mode.transfer == TO_MEMORY and data ~= "" then store(d, gpa_of(d, n), data) end
  return floor(#data / unit)
end

-- "Memory-to-Memory": from channel 0 to channel 1, through the temporary register.
local function copy(d)
  repeat
    local byte = fetch(d, gpa_of(d, 0), 1)
    store(d, gpa_of(d, 1), byte)
    d.chips[0].temporary = byte:byte()
    if d.COMMAND.hold == 0 then step(d, 0, 1) end
    step(d, 1, 1)
  until count_down(d, 1, 1)
  d.chips[0].request = insert(d.chips[0].request, 0, 1, 0)
end

-- ---- Requests ----

-- "Request Register": one of the software cannot be masked, and is one of block mode.
local function software_request(d, n)
  return bits(d.chips[chip_of(n)].request, n % 4) == 1 and d.MODE[n].mode == BLOCK
end

-- Whether a channel is to be served.
local function is_due(d, n)
  if command_of(d, n).disabled == 1 or d.MODE[n].mode == CASCADE then return false end
  if n == 0 and d.COMMAND.copies == 1 and bits(d.chips[0].request, 0) == 1 then return true end
  local asked = d.inputs[n].level and bits(d.chips[chip_of(n)].mask, n % 4) == 0
  return asked or software_request(d, n)
end

-- The first chip asks by channel 4 of the second: "Cascade Mode".
local function is_cascaded(d)
  return d.MODE[4].mode == CASCADE and bits(d.chips[1].mask, 0) == 0 and d.COMMAND2.disabled == 0
end

-- Serves a channel until its terminal count, or until it has nothing more for now.
local function serve(d, n)
  if n == 0 and d.COMMAND.copies == 1 then return copy(d) end
  local peripheral = d.peripherals[n] or NOBODY
  while is_due(d, n) do
    local units = move(d, n, peripheral)
    if units == 0 then return end
    step(d, n, units)
    if count_down(d, n, units) then return peripheral:terminal() end
  end
end

-- Serves who asks, in the order of "Priority".
local function serve_all(d)
  repeat
    d.again = false
    for chip = is_cascaded(d) and 0 or 1, 1 do
      for i = 1, 4 do
        local rotating = (chip == 0 and d.COMMAND or d.COMMAND2).rotating == 1
        local n = 4 * chip + (rotating and (d.chips[chip].lowest + i) % 4 or i - 1)
        if n ~= 4 and is_due(d, n) then
          serve(d, n)
          d.chips[chip].lowest = n % 4
        end
      end
    end
  until not d.again
end

-- The same; what begins to ask meanwhile comes behind that. A device of a user's may raise.
local function run(d)
  d.again = true
  if d.running then return end
  d.running = true
  local ok, problem = xpcall(serve_all, trace.back, d)
  d.running = false
  if not ok then error(problem, 0) end
end

-- ---- Registers: "Software Commands" ----

-- The byte of a register of 16 bits that is at hand; the flip-flop goes on.
local function half(d, chip)
  local high = d.chips[chip].high
  d.chips[chip].high = not high
  return high and 8 or 0
end

local function master_clear(d, chip)
  local c = d.chips[chip]
  c.high, c.status, c.request, c.temporary, c.mask = false, 0, 0, 0, 15
  local command = chip == 0 and d.COMMAND or d.COMMAND2
  command.value = 0
end

-- "Status Register": terminal counts, which reading clears, and who asks.
local function status(d, chip)
  local c, asking = d.chips[chip], 0
  for i = 0, 3 do
    local n = 4 * chip + i
    local level = d.inputs[n].level or bits(c.request, i) == 1
    if level and d.MODE[n].mode ~= CASCADE then asking = insert(asking, 4 + i, 1, 1) end
  end
  local value = c.status + asking
  c.status = 0
  return value
end

-- The registers of a chip, whose names end in `suffix`, with an address each `apart` ports.
local function registers(chip, suffix, apart)
  local function pair(now, base)
    return { count = 4, stride = 2 * apart, precious = true,
      read = function(d, _, i) return bits(d[now][4 * chip + i], half(d, chip), 8) end,
      write = function(d, value, _, _, i)
        local n, shift = 4 * chip + i, half(d, chip)
        d[base][n] = insert(d[base][n], shift, 8, value)
        d[now][n] = insert(d[now][n], shift, 8, value)
      end }
  end
  local function set_bit(name)
    return function(d, value)
      d.chips[chip][name] = insert(d.chips[chip][name], value % 4, 1, bits(value, 2))
      run(d)
    end
  end
  local list = {
    ADDRESS_PORT = pair("ADDRESS", "BASE_ADDRESS"), COUNT_PORT = pair("COUNT", "BASE_COUNT"),
    STATUS = { at = 8, access = "ro", precious = true,
      read = function(d) return status(d, chip) end },
    COMMAND = { at = 8, access = "wo", write = run, fields = { copies = 0, hold = 1, disabled = 2,
      compressed = 3, rotating = 4, extended = 5, dack_high = 7,
      dreq_low = { 6, todo = "Command Register: DREQ sense active low" } } },
    REQUEST = { at = 9, access = "wo", write = set_bit "request" },
    MASK_BIT = { at = 10, access = "wo", write = set_bit "mask" },
    MODE_PORT = { at = 11, access = "wo", write = function(d, value)
      d.MODE[4 * chip + value % 4].value = value
      run(d)
    end },
    CLEAR_HIGH = { at = 12, access = "wo", write = function(d) d.chips[chip].high = false end },
    TEMPORARY = { at = 13, access = "ro",
      read = function(d) return d.chips[chip].temporary end },
    MASTER_CLEAR = { at = 13, access = "wo", write = function(d) master_clear(d, chip) end },
    CLEAR_MASK = { at = 14, access = "wo", write = function(d)
      d.chips[chip].mask = 0
      run(d)
    end },
    MASK = { at = 15, access = "wo", write = function(d, value)
      d.chips[chip].mask = value % 16
      run(d)
    end },
  }
  list.ADDRESS_PORT.at, list.COUNT_PORT.at = 0, 1
  local named = {}
  for name, register in pairs(list) do
    register.at = register.at * apart
    named[name .. suffix] = register
  end
  return named
end

local first = registers(0, "", 1)
for _, name in ipairs { "ADDRESS", "COUNT", "BASE_ADDRESS", "BASE_COUNT" } do
  first[name] = { at = false, width = 2, count = 8 }
end
first.MODE = { at = false, count = 8, rest = "rw",
  fields = { transfer = "3:2", auto = 4, down = 5, mode = { "7:6",
    enum = { demand = DEMAND, single = 1, block = BLOCK, cascade = CASCADE } } } }

local function chip() -- "Master Clear": as after a reset
  return { high = false, status = 0, request = 0, temporary = 0, mask = 15, lowest = 3 }
end

--- dma:serve(n, device): data of channel n goes to and comes from a device, or a table, with
--- take(self, count): up to so many bytes for memory, "" where there are none now; give(self,
--- bytes): bytes from memory, false where it takes none; terminal(self): the terminal count.
local function connect(d, n, peripheral)
  if type(n) ~= "number" or not PAGES[n] or n == 4 then
    error(("dma:serve: a channel from 0 to 3 or 5 to 7 expected, got %s"):format(tostring(n)), 2)
  end
  for _, name in ipairs { "take", "give", "terminal" } do
    if type(peripheral) ~= "table" or type(peripheral[name]) ~= "function" then
      error(("dma:serve: a device with the method %s expected"):format(name), 2)
    end
  end
  d.peripherals[n] = peripheral
end

return device "i8237" {
  width = 1, holds = "peripherals", unknown = "ones",
  regions = {
    main = { registers = first },
    second = { registers = registers(1, "2", 2) },
    pages = { registers = { PAGE = { at = 0, count = 16 } } },
  },
  state = { chips = { [0] = chip(), chip() }, running = false, again = false },
  inputs = 8, input = run,
  init = function(d) d.peripherals = {} end,
  methods = { serve = connect },
}
