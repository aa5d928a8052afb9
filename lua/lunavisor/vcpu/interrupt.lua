-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: interrupts, its LAPIC, start-up and the time-stamp counter.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local open = class.opener(class.class "vcpu")

-- ---- LAPIC ----

-- Offsets in the register page: SDM Vol. 3, table 11-1.
local offsets = {
  id = 0x20, version = 0x30, tpr = 0x80, apr = 0x90, ppr = 0xa0, ldr = 0xd0, dfr = 0xe0,
  svr = 0xf0, esr = 0x280, lvt_cmci = 0x2f0, icr_low = 0x300, icr_high = 0x310,
  lvt_timer = 0x320, lvt_thermal = 0x330, lvt_pmc = 0x340, lvt_lint0 = 0x350, lvt_lint1 = 0x360,
  lvt_error = 0x370, initial_count = 0x380, current_count = 0x390, divide = 0x3e0,
}
local bit_registers = { isr = 0x100, tmr = 0x180, irr = 0x200 } -- 256 bits in eight words

local APIC = class.class "apic"
local mine = class.checker(APIC)
local apic_methods = {}

local function read_register(apic, offset)
  local cpu = apic.cpu
  if not cpu[1] then error("attempt to use a closed vcpu", 3) end
  local value, message = raw.read_apic(cpu, offset)
  if not value then error(message, 3) end
  return value
end

local function write_register(apic, name, offset, value)
  local cpu = apic.cpu
  if not cpu[1] then error("attempt to use a closed vcpu", 3) end
  value = check.whole("cpu.apic." .. name, value, 0, 2 ^ 32 - 1, 2)
  local ok, message = raw.write_apic(cpu, offset, value)
  if not ok then error(message, 3) end
end

-- Eight words of 32 bits, by index from 0: cpu.apic.irr[1] has vectors 32 to 63.
local Words = class.class "apic words"

local function word_offset(words, index)
  if type(index) ~= "number" or index < 0 or index > 7 or index % 1 ~= 0 then
    error(("cpu.apic.%s: a word from 0 to 7 expected, got %s"):format(words.name, tostring(index)),
      3)
  end
  return words.offset + 0x10 * index
end

function Words.__index(words, index)
  local offset = word_offset(words, index)
  return read_register(words.apic, offset)
end

function Words.__newindex(words, index, value)
  local offset = word_offset(words, index)
  write_register(words.apic, words.name, offset, value)
end

local registers = {}
for _, set in ipairs { offsets, bit_registers } do
  for name in pairs(set) do registers[name] = true end
end
class.announce(APIC, apic_methods, "", function() return registers end)

function APIC.__index(apic, name)
  if apic_methods[name] then return apic_methods[name] end
  local offset = offsets[name]
  if offset then
    local value = read_register(apic, offset)
    return value -- not a tail call: the reader counts on this frame
  end
  offset = bit_registers[name]
  if offset then return setmetatable({ apic = apic, name = name, offset = offset }, Words) end
  if not class.is_probe(name) then class.missing(APIC, name, nil, 2) end
end

function APIC.__newindex(apic, name, value)
  local offset = offsets[name]
  if not offset then class.missing(APIC, name, " that can be set", 2) end
  write_register(apic, name, offset, value)
end

APIC.__tostring = check.text("apic", function(apic)
  local parts = {}
  for name in pairs(offsets) do parts[#parts + 1] = name end
  table.sort(parts, function(a, b) return offsets[a] < offsets[b] end)
  for i, name in ipairs(parts) do parts[i] = ("%s 0x%x"):format(name, apic[name]) end
  return "apic (" .. table.concat(parts, ", ") .. ")"
end)

local function usable(apic)
  mine(apic, 2)
  if not apic.cpu[1] then error("attempt to use a closed vcpu", 3) end
end

--- The whole register page as a string of 1024 bytes.
function apic_methods.get(self)
  usable(self)
  return check.result(raw.get_apic(self.cpu))
end

--- Puts a register page back.
function apic_methods.set(self, page)
  usable(self)
  if type(page) ~= "string" or #page ~= 1024 then
    error(("cpu.apic:set: a string of 1024 bytes expected, got %s"):format(
      type(page) == "string" and "one of " .. #page or type(page)), 2)
  end
  return check.result(raw.set_apic(self.cpu, page))
end

--- Fires the timer's entry of the local vector table, as if the timer had run out; false if the
--- entry is masked.
function apic_methods.fire_timer(self)
  usable(self)
  return check.result(raw.fire_timer(self.cpu))
end

-- ---- MP state ----

local mp_names = {
  [0] = "runnable", "uninitialized", "init_received", "halted", "sipi_received",
}
local mp_numbers = {}
for number, name in pairs(mp_names) do mp_numbers[name] = number end

-- ---- What keeps events from the guest ----

local blocking_bits = { sti = 1, mov_ss = 2, nmi = 8 } -- of the VMCS (SDM Vol. 3, 25.4.2)

local Blocking = class.define(class.class("set of flags", "flags"), {}, "sti mov_ss nmi")

local function blocking_of(number)
  local flags = {}
  for name, bit in pairs(blocking_bits) do flags[name] = number % (2 * bit) >= bit end
  return setmetatable(flags, Blocking)
end

return function(methods, readers, writers)
  --- Interrupts the guest with a vector up to 255. Without a controller in KVM it waits until the
  --- guest accepts one, of several the highest first; with one it goes to the vCPU's LAPIC, which
  --- takes vectors from 16 on. false if it waited already (without a controller), or the LAPIC is
  --- disabled.
  function methods.irq(self, vector)
    open(self)
    vector = check.whole("cpu:irq: vector", vector, 0, 255)
    return check.result(raw.interrupt_vector(self, vector))
  end

  --- A non-maskable interrupt, when the vCPU is entered next.
  function methods.nmi(self)
    open(self)
    return check.result(raw.nmi(self))
  end

  --- A system management interrupt. nil, message, code where this host's KVM has none.
  function methods.smi(self)
    open(self)
    return check.result(raw.smi(self))
  end

  --- Hands KVM a vector, 0 to 255, of a PIC that is the script's (irqchip = "split"): the guest
  --- takes it when it accepts interrupts and LINT0 of its LAPIC is open for them. nil, message,
  --- "busy" while one waits.
  function methods.extint(self, vector)
    open(self)
    vector = check.whole("cpu:extint: vector", vector, 0, 255)
    return check.result(raw.extint(self, vector))
  end

  --- Lets runs end (true), until false, as soon as the guest accepts an interrupt, for a controller
  --- that is the script's: exit.kind "other", exit.reason_name "irq_window_open"; at once if it
  --- accepts one now.
  function methods.window(self, on)
    open(self)
    if type(on) ~= "boolean" then
      error(("cpu:window: true or false expected, got %s"):format(type(on)), 2)
    end
    return check.result(raw.window(self, on and 1 or 0))
  end

  --- Starts the vCPU as INIT and SIPI do: real mode at vector << 12, general registers 0.
  function methods.sipi(self, vector)
    open(self)
    vector = check.whole("cpu:sipi: vector", vector, 0, 255)
    return check.result(raw.sipi(self, vector))
  end

  --- The highest vector that waits without a controller in KVM, or nil.
  function readers.irq_waiting(self)
    local vector = raw.interrupt_waiting(self)
    return vector >= 0 and vector or nil
  end

  --- What keeps events from the guest: a table of flags, to look at or to be set as a whole. sti,
  --- mov_ss: interrupts, for one instruction after STI or a load of SS; nmi: NMIs, until IRET.
  function readers.blocking(self)
    local number, message = raw.get_blocking(self)
    if not number then error(message, 2) end
    return blocking_of(number)
  end

  function writers.blocking(self, flags)
    if flags == nil then error("cpu.blocking: a table of flags expected, got nil", 2) end
    flags = check.options("cpu.blocking", flags, blocking_bits)
    local number = 0
    for name, bit in pairs(blocking_bits) do
      number = number + (check.flag("cpu.blocking: " .. name, flags[name]) and bit or 0)
    end
    local ok, message = raw.set_blocking(self, number)
    if not ok then error(message, 2) end
  end

  --- The LAPIC: registers as fields (cpu.apic.tpr, cpu.apic.irr[0]), get, set, fire_timer.
  function readers.apic(self)
    return setmetatable({ cpu = self }, APIC)
  end

  function readers.mp_state(self)
    local state, message = raw.get_mp_state(self)
    if not state then error(message, 2) end
    return mp_names[state]
  end

  function writers.mp_state(self, name)
    local state = mp_numbers[name]
    if not state then
      error(("cpu.mp_state: 'runnable', 'halted', 'uninitialized', 'init_received' or "
        .. "'sipi_received' expected, got %s"):format(tostring(name)), 2)
    end
    local ok, message = raw.set_mp_state(self, state)
    if not ok then error(message, 2) end
  end

  --- In Hz. Setting it raises where this host's KVM cannot scale the counter.
  function readers.tsc_frequency(self)
    local kilohertz, message = raw.get_tsc_frequency(self)
    if not kilohertz then error(message, 2) end
    return kilohertz * 1000
  end

  function writers.tsc_frequency(self, hertz)
    hertz = check.whole("cpu.tsc_frequency", hertz, 1000, 4e12)
    local ok, message = raw.set_tsc_frequency(self, math.floor(hertz / 1000))
    if not ok then error(message, 2) end
  end

  --- The distance of the guest's counter to the host's: u64, modulo 2^64.
  function readers.tsc_offset(self)
    local offset, message = raw.get_tsc_offset(self)
    if offset == nil then error(message, 2) end
    return offset
  end

  function writers.tsc_offset(self, value)
    local ok, message = raw.set_tsc_offset(self, check.exact("cpu.tsc_offset", value))
    if not ok then error(message, 2) end
  end
end
