-- SPDX-License-Identifier: MIT
-- The states of the interrupt controllers as Apple's structures have them, from and to the forms
-- that KVM has (<asm/kvm.h>: kvm_lapic_state, kvm_ioapic_state, kvm_pic_state).

local u64 = require "lunavisor.u64"
local call = require "lunavisor.hv.call"
local machine = require "lunavisor.hv.machine"

local fail, try, has = call.fail, call.try, call.has
local floor = math.floor

local M = {}

--- The 32-bit word at `offset` of a string.
function M.word(bytes, offset)
  local a, b, c, d = bytes:byte(offset + 1, offset + 4)
  return a + b * 0x100 + c * 0x10000 + d * 0x1000000
end

--- `size` bytes of a number, little endian.
function M.pack(value, size)
  local bytes = {}
  for i = 1, size do
    bytes[i] = string.char(value % 0x100)
    value = floor(value / 0x100)
  end
  return table.concat(bytes)
end

local word, pack = M.word, M.pack

local function patch(bytes, offset, part)
  return bytes:sub(1, offset) .. part .. bytes:sub(offset + #part + 1)
end

-- A whole number of the state below `limit`, or an error, which is "bad_argument".
local function number(state, name, value, limit)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 0 or value >= limit then
    error(("%s of the %s: a whole number below 0x%x expected"):format(name, state, limit), 0)
  end
  return floor(value)
end

-- ---- Local APIC ----

local APIC_BASE, TSC_DEADLINE = 0x1b, 0x6e0

-- Registers by Apple's name: a number, or a list of registers.
local registers = {
  ver = 0x30, tpr = 0x80, apr = 0x90, ldr = 0xd0, dfr = 0xe0, svr = 0xf0, esr = 0x280,
  icr_timer = 0x380, ccr_timer = 0x390, dcr_timer = 0x3e0,
  icr = { 0x300, 0x310 },
  lvt = { 0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370 }, -- from CMCI to error
  isr = {}, tmr = {}, irr = {},
}
for i = 0, 7 do
  registers.isr[i + 1] = 0x100 + 16 * i
  registers.tmr[i + 1] = 0x180 + 16 * i
  registers.irr[i + 1] = 0x200 + 16 * i
end

local boot_states = { uninitialized = 0, init_received = 0, sipi_received = 1 }
local mp_states = { [0] = "init_received", "sipi_received", "runnable" }

--- The number of the vCPU's local APIC.
function M.apic_id(cpu)
  return floor(cpu.apic.id / 0x1000000)
end

local function words(page, offsets)
  local list = {}
  for i, offset in ipairs(offsets) do list[i] = word(page, offset) end
  return list
end

-- An MSR that not every KVM has.
local function msr(cpu, index)
  local ok, value = pcall(function() return cpu.msr[index] end)
  return ok and value or u64.exact(0)
end

--- apic_gpa, apic_controls, tsc_deadline, apic_id, the registers, boot_state. KVM has no aeoi and
--- esr_pending.
function M.apic_get(v)
  return try(function()
    local cpu = v.cpu
    local page = assert(cpu.apic:get())
    local state = {
      apic_gpa = u64.tonumber(u64.band(cpu.msr[APIC_BASE], u64.bnot(0xfff))), apic_controls = 0,
      tsc_deadline = msr(cpu, TSC_DEADLINE), apic_id = floor(word(page, 0x20) / 0x1000000),
      boot_state = boot_states[cpu.mp_state] or 2, esr_pending = 0,
      aeoi = { 0, 0, 0, 0, 0, 0, 0, 0 },
    }
    for name, offset in pairs(registers) do
      state[name] = type(offset) == "table" and words(page, offset) or word(page, offset)
    end
    return state
  end)
end

local function page_of(page, state)
  local limit = 2 ^ 32
  page = patch(page, 0x20, pack(number("local APIC", "apic_id", state.apic_id, 256) * 0x1000000, 4))
  for name, offset in pairs(registers) do
    local values, offsets = state[name], offset
    if type(offset) == "number" then values, offsets = { values }, { offset } end
    for i, at in ipairs(offsets) do
      local value = number("local APIC", name, type(values) == "table" and values[i], limit)
      page = patch(page, at, pack(value, 4))
    end
  end
  return page
end

--- Puts a state of apic_get back.
function M.apic_put(v, state)
  return try(function()
    local cpu = v.cpu
    local page = page_of(assert(cpu.apic:get()), state)
    local gpa = number("local APIC", "apic_gpa", state.apic_gpa, 2 ^ 52)
    local mp_state = mp_states[state.boot_state]
    if not mp_state or gpa % 4096 ~= 0 then error("no local APIC has that boot_state or gpa", 0) end
    cpu.msr[APIC_BASE] = u64.band(cpu.msr[APIC_BASE], 0xfff) + u64.exact(gpa)
    assert(cpu.apic:set(page))
    if state.tsc_deadline ~= u64.exact(0) then cpu.msr[TSC_DEADLINE] = state.tsc_deadline end
    if cpu.mp_state ~= "halted" or mp_state ~= "runnable" then cpu.mp_state = mp_state end
    return true
  end)
end

-- ---- IOAPIC ----

local PINS, TABLE = 24, 24 -- entries of the redirection table, and where it begins
local WINDOW = 0x10

local function get_chip(name)
  return try(machine.vm.chip, machine.vm, name)
end

local function put_chip(name, bytes)
  return try(machine.vm.chip, machine.vm, name, bytes)
end

--- rtbl has 24 entries; Apple has 32.
function M.ioapic_get()
  local chip, message, code = get_chip "ioapic"
  if not chip then return nil, message, code end
  local state = { rtbl = {}, ioregsel = word(chip, 8), ioa_id = word(chip, 12),
    irr = word(chip, 16) }
  for pin = 1, PINS do
    local at = TABLE + 8 * (pin - 1)
    state.rtbl[pin] = u64(word(chip, at + 4), word(chip, at))
  end
  return state
end

local function entry_bytes(entry)
  local exact = u64.exact(entry)
  if exact == nil then error("rtbl of the IOAPIC: 24 integers expected", 0) end
  return pack(u64.tonumber(u64.band(exact, 0xffffffff)), 4)
    .. pack(u64.tonumber(u64.rshift(exact, 32)), 4)
end

function M.ioapic_put(state)
  local chip, message, code = get_chip "ioapic"
  if not chip then return nil, message, code end
  local bytes
  bytes, message, code = try(function()
    local changed = chip
    for i, name in ipairs { "ioregsel", "ioa_id", "irr" } do
      changed = patch(changed, 4 + 4 * i, pack(number("IOAPIC", name, state[name], 2 ^ 32), 4))
    end
    for pin = 1, PINS do
      local entry = type(state.rtbl) == "table" and state.rtbl[pin]
      changed = patch(changed, TABLE + 8 * (pin - 1), entry_bytes(entry))
    end
    return changed
  end)
  if not bytes then return nil, message, code end
  return put_chip("ioapic", bytes)
end

local VERSION = 0x170011 -- 24 pins

-- Offset in KVM's form of the register that is selected; nil for none.
local function selected(select)
  if select == 0 or select == 2 then return 12 end
  local at = TABLE + 4 * (select - 0x10)
  if select >= 0x10 and at < TABLE + 8 * PINS then return at end
end

-- 0 for the select register, 0x10 for the window.
local function register_at(gpa)
  local offset = gpa % 0x100
  if gpa - offset == 0xfec00000 and (offset == 0 or offset == WINDOW) then return offset end
  return fail("bad_argument", "the IOAPIC has no register at gpa 0x%x", gpa)
end

function M.ioapic_read(gpa)
  local register, message, code = register_at(gpa)
  local chip
  if register then chip, message, code = get_chip "ioapic" end
  if not chip then return nil, message, code end
  local select = word(chip, 8)
  if register == 0 then return select end
  if select == 1 then return VERSION end
  local at = selected(select)
  if not at then return 0 end
  return at == 12 and word(chip, 12) % 16 * 0x1000000 or word(chip, at)
end

function M.ioapic_write(gpa, data)
  local register, message, code = register_at(gpa)
  local chip
  if register then chip, message, code = get_chip "ioapic" end
  if not chip then return nil, message, code end
  if data > 0xffffffff then
    return fail("bad_argument", "a register has 32 bits, not 0x%x", data)
  end
  if register == 0 then return put_chip("ioapic", patch(chip, 8, pack(data % 0x100, 4))) end
  local select = word(chip, 8)
  local at = selected(select)
  if not at or select == 2 then return true end -- read-only
  if select == 0 then data = floor(data / 0x1000000) % 16 end
  return put_chip("ioapic", patch(chip, at, pack(data, 4)))
end

-- ---- PICs ----

local IRR, IMR, ISR, PRIORITY = 1, 2, 3, 4
local INIT = 9

-- By Apple's name: the byte in KVM's form, and whether it is true or false.
local pic_bytes = {
  request = { IRR }, mask = { IMR }, service = { ISR }, irq_base = { 5 }, rd_cmd_reg = { 6 },
  poll = { 7, true }, smm = { 8, true }, icw_num = { INIT }, aeoi = { 10, true },
  rotate = { 11, true }, sfn = { 12, true }, elc = { 14 }, last_request = { 0 },
}

local function pic_name(primary)
  return primary and "pic_primary" or "pic_secondary"
end

function M.pic_get(primary)
  local chip, message, code = get_chip(pic_name(primary))
  if not chip then return nil, message, code end
  local state = { ready = chip:byte(INIT + 1) == 0, lowprio = (chip:byte(PRIORITY + 1) + 7) % 8 }
  for name, said in pairs(pic_bytes) do
    local byte = chip:byte(said[1] + 1)
    if said[2] then state[name] = byte ~= 0 else state[name] = byte end
  end
  local waits = false
  for bit = 0, 7 do
    waits = waits or has(state.request, 2 ^ bit) and not has(state.mask, 2 ^ bit)
  end
  state.intr_raised = waits
  return state
end

function M.pic_put(state, primary)
  local chip, message, code = get_chip(pic_name(primary))
  if not chip then return nil, message, code end
  local bytes
  bytes, message, code = try(function()
    local changed = patch(chip, PRIORITY,
      pack((number("PIC", "lowprio", state.lowprio, 8) + 1) % 8, 1))
    for name, said in pairs(pic_bytes) do
      local value = state[name]
      if said[2] then value = value and 1 or 0 end
      changed = patch(changed, said[1], pack(number("PIC", name, value, 256), 1))
    end
    return changed
  end)
  if not bytes then return nil, message, code end
  return put_chip(pic_name(primary), bytes)
end

return M
