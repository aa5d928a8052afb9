-- SPDX-License-Identifier: MIT
-- The state of a vCPU's local APIC as Apple's structure has it, from and to the register page that
-- KVM has (SDM Vol. 3, table 11-1).

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"

local try = call.try
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


--- The string with `part` at `offset`.
local function patch(bytes, offset, part)
  return bytes:sub(1, offset) .. part .. bytes:sub(offset + #part + 1)
end

M.patch = patch
local word, pack = M.word, M.pack

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
  lvt = { 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x2f0 }, -- from the timer to CMCI
  isr = {}, tmr = {}, irr = {},
}
for i = 0, 7 do
  registers.isr[i + 1] = 0x100 + 16 * i
  registers.tmr[i + 1] = 0x180 + 16 * i
  registers.irr[i + 1] = 0x200 + 16 * i
end

local boot_states = { uninitialized = 0, init_received = 1, sipi_received = 1 } -- BS_*
local mp_states = { [0] = "uninitialized", "init_received", "runnable" }

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
      apic_gpa = u64.tonumber(u64.band(cpu.msr[APIC_BASE], u64.bnot(0xfff))),
      apic_controls = v.apic_controls,
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
  local id = number("local APIC", "apic_id", state.apic_id, 256)
  page = patch(page, 0x20, pack(id * 0x1000000, 4))
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
    local mp_state, deadline = mp_states[state.boot_state], u64.exact(state.tsc_deadline)
    if not mp_state or not deadline or gpa % 4096 ~= 0 then
      error("no local APIC has that boot_state, tsc_deadline or apic_gpa", 0)
    end
    cpu.msr[APIC_BASE] = u64.band(cpu.msr[APIC_BASE], 0xfff) + u64.exact(gpa)
    assert(cpu.apic:set(page))
    if deadline ~= u64.exact(0) then cpu.msr[TSC_DEADLINE] = deadline end
    if (boot_states[cpu.mp_state] or 2) ~= state.boot_state then cpu.mp_state = mp_state end
    return true
  end)
end

return M
