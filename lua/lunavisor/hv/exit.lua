-- SPDX-License-Identifier: MIT
-- An exit as the framework has it: the instruction has not begun, and the program does its work and
-- moves RIP. KVM has done part of it and wants to do the rest. As long as the program only looks,
-- the access stays open, so that ext_vcpu_complete can answer it; then KVM's work is taken back.

local luna = require "lunavisor"
local u64 = require "lunavisor.text.u64"
local atpic = require "lunavisor.hv.atpic"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local events = require "lunavisor.hv.event"
local machine = require "lunavisor.hv.machine"
local place_of_apic = require "lunavisor.hv.place"
local ports = require "lunavisor.hv.port"

local fail, try = call.fail, call.try

local LONGEST = 15    -- of any instruction
local MOST_PARTS = 8192 -- exits that one instruction can make
local VALID_LINEAR = 0x180
local DIRECTION_FLAG = 0x400
local ZERO = u64.exact(0)

local M = {}

-- ---- Registers of the library ----

local general = {
  "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
  "r14", "r15", "rflags",
}

-- "cs.base" as the group and its field.
local function read_field(cpu, name)
  local group, field = name:match "^(%w+)%.(%w+)$"
  if group then return cpu[group][field] end
  return cpu[name]
end

local function write_field(cpu, name, value)
  local group, field = name:match "^(%w+)%.(%w+)$"
  if group then cpu[group][field] = value else cpu[name] = value end
  return true
end

-- ---- Taking KVM's part of an instruction back ----

-- Lets KVM finish the instruction of the exit that was answered, without running the guest further:
-- a further exit that it made, or nil.
local function finish(cpu)
  local exit, message = cpu:finish()
  if not exit then error(message, 0) end
  return exit ~= true and exit or nil
end

-- Lets KVM finish the open instruction, whatever it does with zeroes.
local function run_out(cpu)
  for _ = 1, MOST_PARTS do
    while pcall(cpu.answer, cpu, 0) do end -- the elements that it brings at once
    if not finish(cpu) then return end
  end
end

-- `by` elements on or back in a string, in the bits that the address size leaves.
local function stepped(value, by, bits)
  local mask = u64.rshift(u64.bnot(0), 64 - bits)
  local moved = u64.band(value + u64.exact(by), mask)
  return bits == 16 and u64.bor(u64.band(value, u64.bnot(mask)), moved) or moved
end

-- KVM has counted the element of OUTS that it exits for.
local function uncount(port, values)
  local down = u64.band(values.rflags, DIRECTION_FLAG) ~= ZERO
  values.rsi = stepped(values.rsi, down and port.size or -port.size, port.bits)
  if port.repeats then values.rcx = stepped(values.rcx, 1, port.bits) end
end

-- Where the instruction is, now that KVM has finished it and RIP is `last`.
local function place_after(v, before, last)
  local x, cpu = v.exit, v.cpu
  if x.placed then return end
  x.placed = true
  x.port = x.kind == "pio" and ports.before(cpu, x.exit, last) or nil
  if x.port then
    x.start, x.length = last - u64.exact(x.port.length), x.port.length
    return
  end
  local write = x.exit.access == "w"
  x.start = write and last or before
  local length = last - x.start
  if u64.lt(LONGEST, length) or not write and length == ZERO then -- it repeats itself, or jumps
    x.length = ports.string_length(cpu, before)
  else
    x.length = u64.tonumber(length)
  end
end

-- From now on the registers are those before the instruction, and KVM knows nothing of it.
local function take_back(v)
  local x, cpu, values = v.exit, v.cpu, {}
  for _, name in ipairs(general) do values[name] = cpu[name] end
  local before = cpu.rip
  x.open = false
  run_out(cpu)
  place_after(v, before, cpu.rip)
  if x.port and x.port.string and x.port.access == "w" then uncount(x.port, values) end
  for _, name in ipairs(general) do cpu[name] = values[name] end
  cpu.rip = x.start
end

-- ---- Where the instruction is ----

-- Of a port exit; taken back where that is the only way to know.
local function place(v)
  local x = v.exit
  if x.kind ~= "pio" or x.placed or not x.open then return end
  local rip = v.cpu.rip
  local port, behind = ports.find(v.cpu, x.exit, rip)
  if not port then return take_back(v) end
  x.port, x.length, x.placed, x.behind = port, port.length, true, behind
  x.start = behind and rip - u64.exact(port.length) or rip
end

-- ---- Registers as the program sees them ----

local counts = { rcx = true, rsi = true, rdi = true } -- the elements of a string

local function read(v, name)
  local x = v.exit
  if x.open and x.kind == "pio" then
    if name == "rip" or counts[name] then place(v) end
    if x.open and name == "rip" then return x.start end
    if x.open and counts[name] and x.port.string then take_back(v) end
  end
  return read_field(v.cpu, name)
end

-- Whether the write says that OUT is done, which KVM is about to do.
local function passes(x, name, value)
  return x.open and name == "rip" and x.behind and not x.port.string
    and value == x.start + u64.exact(x.length)
end

local function write(v, name, value)
  local x, cpu = v.exit, v.cpu
  if passes(x, name, value) then
    x.open = false
    cpu:answer()
    return true
  elseif x.open and (x.kind == "pio" or x.exit.access == "r") then
    take_back(v)
  elseif x.open and name == "rip" then -- a write to memory has been dealt with
    x.open = false
    if x.exit.access == "w" then run_out(cpu) end
  end
  return write_field(cpu, name, value)
end

--- The library's register of that name, "rax" or "cs.base"; nil, message, code.
function M.get(v, name) return try(read, v, name) end

--- Writes it.
function M.set(v, name, value) return try(write, v, name, value) end

-- ---- What the exit fields say ----

local rights_bits = { r = 1, w = 2, x = 4 }

local function bits_of(rights)
  local bits = 0
  for right in rights:gmatch "[rwx]" do bits = bits + rights_bits[right] end
  return bits
end

-- The linear address of the access, where it can be known.
local function linear_address(v)
  local paging = u64.rshift(v.cpu.cr0, 31)
  if u64.band(paging, 1) == ZERO then return u64.exact(v.exit.exit.gpa) end
  if v.exit.exit.access ~= "x" then return nil end
  local _, linear = ports.place(v.cpu, v.cpu.rip)
  return linear
end

local function port_qualification(x)
  local e, port = x.exit, x.port or {}
  return e.size - 1 + (e.access == "r" and 8 or 0) + (port.string and 0x10 or 0)
    + (port.repeats and 0x20 or 0) + (port.immediate and 0x40 or 0) + e.port * 0x10000
end

local function fault_qualification(v)
  local e = v.exit.exit
  local region = e.space:find(e.gpa)
  return rights_bits[e.access] + (region and bits_of(region.enforced) * 8 or 0)
    + (linear_address(v) and VALID_LINEAR or 0)
end

local function instruction_information(x)
  local port = x.port
  if not port or not port.string then return 0 end
  return (port.bits - port.bits % 32) / 32 * 0x80 + port.segment * 0x8000
end

local fields = {
  [constants.VMCS_RO_EXIT_REASON] = function(v) return v.exit.reason end,
  [constants.VMCS_RO_EXIT_QUALIFIC] = function(v)
    place(v)
    local x = v.exit
    if x.kind == "pio" then return port_qualification(x) end
    return x.apic_access or x.fault and fault_qualification(v) or 0
  end,
  [constants.VMCS_RO_VMEXIT_INSTR_LEN] = function(v)
    local x = v.exit
    place(v)
    if x.fault and x.open and x.exit.access == "r" then take_back(v) end
    return x.length
  end,
  [constants.VMCS_RO_VMX_INSTR_INFO] = function(v)
    place(v)
    return instruction_information(v.exit)
  end,
  [constants.VMCS_RO_GUEST_LIN_ADDR] = function(v) return v.exit.fault and linear_address(v) end,
  [constants.VMCS_RO_INSTR_ERROR] = function(v) return v.exit.entry_error end,
  [constants.VMCS_GUEST_PHYSICAL_ADDRESS] = function(v) return v.exit.fault and v.exit.exit.gpa end,
}

--- A field of the exit, u64; 0 for one that no exit here has.
function M.field(v, number)
  local fn = v.exit.reason and fields[number]
  if not fn then return ZERO end
  local value, message, code = try(function() return fn(v) or 0 end)
  if value == nil then return nil, message, code end
  return u64.exact(value)
end

-- ---- Exits ----

local reasons = {
  hlt = constants.VMX_REASON_HLT, pio = constants.VMX_REASON_IO,
  fault = constants.VMX_REASON_EPT_VIOLATION, shutdown = constants.VMX_REASON_TRIPLE_FAULT,
  debug = constants.VMX_REASON_MTF, timeout = constants.VMX_REASON_VMX_TIMER_EXPIRED,
  interrupted = constants.VMX_REASON_IRQ,
  fail_entry = constants.VMX_REASON_ENTRY_FAILURE + constants.VMX_REASON_VMENTRY_GUEST,
  eoi = constants.VMX_REASON_VIRTUALIZED_EOI,
  irq_window_open = constants.VMX_REASON_IRQ_WND, -- of those without a kind
}

--- The registers at RDMSR ("r") or WRMSR; a device of msr.lua stops a run with them.
function M.snapshot(cpu, access)
  local saved = { access = access, rip = cpu.rip }
  for _, name in ipairs(general) do saved[name] = cpu[name] end
  return saved
end

-- The vCPU stands at that instruction again.
local function put_back(v, x, saved)
  for _, name in ipairs(general) do v.cpu[name] = saved[name] end
  v.cpu.rip = saved.rip
  x.kind, x.length = "msr", 2
  x.reason = saved.access == "r" and constants.VMX_REASON_RDMSR or constants.VMX_REASON_WRMSR
end

-- What an exit changes before the program looks.
local begins = {
  hlt = function(v, x) -- KVM has passed the instruction
    v.cpu.rip = x.exit.rip - u64.exact(1)
    x.length = 1
  end,
  pio = function(_, x) x.open = true end,
  fault = function(v, x)
    x.open, x.fault = true, true
    x.apic_access = place_of_apic.qualification(v, x.exit)
    if not x.apic_access then return end
    x.reason = constants.VMX_REASON_APIC_ACCESS
    v.info = place_of_apic.information(v, x.apic_access)
  end,
  interrupted = function(v) v.interrupted = false end,
  eoi = function(v, x)
    v.info = { code = constants.VM_EXITINFO_IOAPIC_EOI, vector = x.exit.vector }
  end,
  fail_entry = function(_, x)
    local entered = u64.band(x.exit.value, constants.VMX_REASON_ENTRY_FAILURE) ~= ZERO
    x.entry_error = entered and 0 or x.exit.value
  end,
  stopped = function(v, x) put_back(v, x, x.exit.value) end, -- by a device of msr.lua
  msr = function(v, x) -- that KVM does not know
    local saved = M.snapshot(v.cpu, x.exit.access)
    run_out(v.cpu)
    put_back(v, x, saved)
  end,
}

local function present(v, exit)
  local cause = exit.kind == "other" and exit.reason_name or exit.kind
  local x = { kind = exit.kind, exit = exit, reason = reasons[cause], length = 0,
    entry_error = 0 }
  v.exit, v.info = x, { code = constants.VM_EXITINFO_VMX }
  local begin = begins[exit.kind]
  if begin then begin(v, x) end
  if x.reason then return true end
  return fail(exit.kind == "host_fault" and "fault" or "error", "vCPU %d stopped: %s", v.id,
    tostring(exit))
end

-- ---- Going on ----

-- An access to memory is done again, where memory allows it by now; else it stays open and is the
-- next exit. A port instruction is executed again.
local function leave(v)
  local x = v.exit
  if x.open and x.fault then
    pcall(v.cpu.retry, v.cpu)
  elseif x.open then
    take_back(v)
  end
  return true
end

local FOREVER = u64(2 ^ 30, 0) -- beyond it is no moment, nor is DEADLINE_FOREVER

-- Seconds on luna.clock's time line; nil for none.
local function seconds(deadline)
  if u64.lt(FOREVER, deadline) then return nil end
  return u64.tonumber(u64.div(deadline, 1000)) / 1e6
end

local function enter(v, deadline)
  local cpu, moment = v.cpu, seconds(deadline)
  machine.running = v
  if v.single_step then
    return cpu:step { timeout = moment and math.max(0, moment - luna.clock()) }
  end
  return cpu:run { deadline = moment }
end

local early = { timeout = true, interrupted = true }

-- An exit that may come before the guest was entered: KVM still has to finish what was answered. If
-- that makes a further exit, it goes first, and the request to stop stays.
local function settled(v, exit)
  local further = early[exit.kind] and finish(v.cpu)
  if further and exit.kind == "interrupted" then
    v.interrupted = true
    v.cpu:interrupt()
  end
  return further or exit
end

-- Up to an exit for the program: others have got the vCPU out to look at the PICs.
local function enter_for_program(v, deadline)
  local exit, message, code
  repeat
    local ok
    ok, message, code = atpic.offer(v)
    if not ok then return nil, message, code end
    exit, message, code = enter(v, deadline)
  until not exit or exit.kind ~= "interrupted" or v.interrupted
  if not exit then return nil, message, code end
  return settled(v, exit)
end

--- Runs the vCPU up to a moment in nanoseconds (u64).
function M.run(v, deadline)
  local ok, message, code = try(leave, v)
  if ok then ok, message, code = events.inject(v) end
  if not ok then return nil, message, code end
  local exit
  exit, message, code = try(enter_for_program, v, deadline)
  if exit then return try(present, v, exit) end
  local refused = not v.cpu:check()
  if code ~= "error" or not refused then return nil, message, code end
  v.exit = { kind = "fail_entry", reason = reasons.fail_entry, length = 0, entry_error = 0 }
  return true
end

-- ---- Accesses that KVM has decoded ----

--- The access of a port or memory exit.
function M.access(v)
  local x = v.exit
  if not x.fault and x.kind ~= "pio" then
    return fail("error", "the last exit of vCPU %d was not for an access", v.id)
  end
  local e = x.exit
  return { address = e.port or e.gpa, value = e.value or 0, size = e.access == "x" and 0 or e.size,
    access = rights_bits[e.access], port = e.port ~= nil, left = e.count or 1 }
end

--- Answers it.
function M.complete(v, value)
  local x = v.exit
  if not x.open then
    return fail("error", "vCPU %d has no access left to complete: the program has taken it over, "
      .. "or there was none", v.id)
  elseif x.exit.access == "x" then
    return fail("unsupported", "a fetch cannot be completed: map memory there and run again")
  end
  local size = x.exit.size
  local ok, message, code = try(v.cpu.answer, v.cpu,
    u64.band(value, u64.rshift(u64.bnot(0), 64 - 8 * size)))
  if ok then x.open = false end
  return ok, message, code
end

return M
