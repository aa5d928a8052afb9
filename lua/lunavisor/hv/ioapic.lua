-- SPDX-License-Identifier: MIT
-- The IOAPIC of a VM with VM_ACCEL_APIC (82093AA, with 32 pins). KVM has the local APICs only: what
-- a pin sends is a message to them, and where a level interrupt ends, KVM tells by the routes of
-- the VM.

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local c = require "lunavisor.hv.constants"
local machine = require "lunavisor.hv.machine"

local fail, try = call.fail, call.try
local band, bor, lshift, rshift = u64.band, u64.bor, u64.lshift, u64.rshift
local ZERO = u64.exact(0)

local PINS, ROUTES = 32, 24 -- KVM tells the end of as many
local PAGE_GPA, WINDOW = 0xfec00000, 0x10
local ID, VERSION, ARBITRATION, TABLE = 0, 1, 2, 0x10
local MESSAGES = 0xfee00000

-- Of a redirection entry (82093AA, 3.2.4).
local STATUS, REMOTE, LEVEL, MASKED = 0x1000, 0x4000, 0x8000, 0x10000
local WRITABLE = u64(0xff000000, 0x1afff)
local ROUTED = u64(0xff000000, 0x8fff)

local M = {}

function machine.make_ioapic()
  local chip = { rtbl = {}, irr = ZERO, ioa_id = 0, ioregsel = 0, sent = {}, routed = "" }
  for pin = 0, PINS - 1 do chip.rtbl[pin] = u64.exact(MASKED) end
  return chip
end

local function has(entry, bit)
  return band(entry, bit) ~= ZERO
end

-- ---- Messages and routes ----

-- SDM Vol. 3, 11.11: destination, its mode; vector, delivery mode, trigger.
local function address_of(entry)
  return MESSAGES + u64.tonumber(rshift(entry, 56)) * 0x1000 + (has(entry, 0x800) and 4 or 0)
end

local function data_of(entry)
  return u64.tonumber(band(entry, 0x87ff)) + 0x4000
end

--- Sends a message; that no local APIC takes it is no error.
function M.message(address, data)
  local taken, message, code = try(machine.vm.msi, machine.vm, address, data)
  if taken == nil then return nil, message, code end
  return true
end

-- The end of the level interrupts that routes lead to is an exit.
local function update_routes()
  local chip, list, seen = machine.ioapic, {}, {}
  local function collect(entry)
    local key = u64.key(band(entry, ROUTED))
    if not seen[key] and #list < ROUTES then
      seen[key] = true
      list[#list + 1] = { line = #list, address = address_of(entry), data = data_of(entry) }
      seen[#seen + 1] = key
    end
  end
  for pin = 0, PINS - 1 do
    local entry = chip.rtbl[pin]
    if has(entry, LEVEL) and not has(entry, MASKED) then collect(entry) end
  end
  for _, entry in ipairs(chip.sent) do collect(entry) end
  local text = table.concat(seen, " ")
  if text == chip.routed then return true end
  local ok, message, code = try(machine.vm.route, machine.vm, list)
  if ok then chip.routed = text end
  return ok, message, code
end

-- ---- Pins ----

-- Sends the pin's interrupt, unless it is masked or one that has not ended is under way.
local function service(pin)
  local chip = machine.ioapic
  local entry = chip.rtbl[pin]
  if has(entry, MASKED) or has(entry, LEVEL) and has(entry, REMOTE) then return true end
  if has(entry, LEVEL) then chip.rtbl[pin] = bor(entry, REMOTE) end
  return M.message(address_of(entry), data_of(entry))
end

local function set_pin(pin, level)
  local chip, bit = machine.ioapic, lshift(1, pin)
  local was = has(chip.irr, bit)
  chip.irr = level and bor(chip.irr, bit) or band(chip.irr, u64.bnot(bit))
  if level and not was then return service(pin) end
  return true
end

--- A function that sets a pin's level to each of those, one after the other.
function M.set(...)
  local levels = { ... }
  return function(pin)
    if pin >= PINS then
      return fail("bad_argument", "the IOAPIC has no pin %d: they are 0 to %d", pin, PINS - 1)
    end
    for _, level in ipairs(levels) do
      local ok, message, code = set_pin(pin, level)
      if not ok then return nil, message, code end
    end
    return true
  end
end

--- A level interrupt has ended.
function M.eoi(vector)
  local chip = machine.ioapic
  for pin = 0, PINS - 1 do
    local entry = chip.rtbl[pin]
    if has(entry, REMOTE) and u64.tonumber(band(entry, 0xff)) == vector then
      chip.rtbl[pin] = band(entry, u64.bnot(REMOTE))
      if has(chip.irr, lshift(1, pin)) then service(pin) end
    end
  end
end

--- The handler of EOI exits, which go to the program if it has said so.
function M.on_eoi(cpu, exit)
  M.eoi(exit.vector)
  local controls = machine.vcpus[cpu.id].apic_controls
  return not call.has(controls, c.APIC_CTRL_IOAPIC_EOI) and "continue" or nil
end

--- Sends what an entry of another IOAPIC says.
function M.send(entry)
  local chip = machine.ioapic
  if has(entry, LEVEL) then
    chip.sent[#chip.sent + 1] = entry
    local ok, message, code = update_routes()
    if not ok then return nil, message, code end
  end
  return M.message(address_of(entry), data_of(entry))
end

-- ---- Registers ----

-- The pin and the half that a register of the table is.
local function place_of(number)
  local index = number - TABLE
  if index < 0 or index >= 2 * PINS then return nil end
  return (index - index % 2) / 2, index % 2
end

local function read_register(chip, number)
  if number == ID or number == ARBITRATION then return chip.ioa_id end
  if number == VERSION then return 0x11 + (PINS - 1) * 0x10000 end
  local pin, half = place_of(number)
  if not pin then return 0 end
  return u64.tonumber(band(rshift(chip.rtbl[pin], 32 * half), 0xffffffff))
end

-- An edge interrupt has no end to wait for; a level interrupt that waits is sent when the entry
-- allows it.
local function write_entry(chip, pin, half, data)
  local old = chip.rtbl[pin]
  local value = bor(band(old, lshift(0xffffffff, 32 - 32 * half)), lshift(data, 32 * half))
  local entry = bor(band(value, WRITABLE), band(old, STATUS + REMOTE))
  if not has(entry, LEVEL) then entry = band(entry, u64.bnot(REMOTE)) end
  chip.rtbl[pin] = entry
  local ok, message, code = update_routes()
  if ok and has(entry, LEVEL) and has(chip.irr, lshift(1, pin)) then return service(pin) end
  return ok, message, code
end

-- The offset in the page.
local function offset_of(gpa)
  if gpa >= PAGE_GPA and gpa < PAGE_GPA + 4096 then return gpa - PAGE_GPA end
  return fail("bad_argument", "the IOAPIC is not at gpa 0x%x", gpa)
end

function M.read(gpa)
  local offset, message, code = offset_of(gpa)
  if not offset then return nil, message, code end
  local chip = machine.ioapic
  if offset == 0 then return chip.ioregsel end
  return offset == WINDOW and read_register(chip, chip.ioregsel) or 0
end

function M.write(gpa, data)
  local offset, message, code = offset_of(gpa)
  if not offset then return nil, message, code end
  if data > 0xffffffff then
    return fail("bad_argument", "a register has 32 bits, not 0x%x", data)
  end
  local chip = machine.ioapic
  if offset == 0 then chip.ioregsel = data % 0x100 end
  if offset ~= WINDOW then return true end
  local pin, half = place_of(chip.ioregsel)
  if pin then return write_entry(chip, pin, half, data) end
  if chip.ioregsel == ID then chip.ioa_id = call.band(data, 0x0f000000) end
  return true
end

-- ---- The whole state ----

--- rtbl, a list of 32 entries (u64), irr (the levels of the pins), ioa_id, ioregsel.
function M.get_state()
  local chip, list = machine.ioapic, {}
  for pin = 0, PINS - 1 do list[pin + 1] = chip.rtbl[pin] end
  return { rtbl = list, irr = u64.tonumber(chip.irr), ioa_id = chip.ioa_id,
    ioregsel = chip.ioregsel }
end

--- Puts a state back. Nothing is sent.
function M.put_state(state)
  local before, made = machine.ioapic, machine.make_ioapic()
  local irr, id, select = u64.exact(state.irr), u64.exact(state.ioa_id), u64.exact(state.ioregsel)
  local whole = irr and id and select and type(state.rtbl) == "table"
  for pin = 0, PINS - 1 do
    local entry = whole and u64.exact(state.rtbl[pin + 1])
    whole = entry ~= nil and entry ~= false
    made.rtbl[pin] = whole and band(entry, bor(WRITABLE, STATUS + REMOTE))
  end
  if not whole then
    return fail("bad_argument", "a state of the IOAPIC has irr, ioa_id, ioregsel and %d entries in "
      .. "rtbl", PINS)
  end
  made.irr, made.ioa_id = band(irr, 0xffffffff), call.band(id, 0x0f000000)
  made.ioregsel, made.sent, made.routed = call.band(select, 0xff), before.sent, before.routed
  machine.ioapic = made
  local ok, message, code = update_routes()
  if not ok then machine.ioapic = before end
  return ok, message, code
end

return M
