-- SPDX-License-Identifier: MIT
-- vCPUs: who owns them, the space they are bound to, registers, running, time.

local luna = require "lunavisor"
local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local constants = require "lunavisor.hv.constants"
local controls = require "lunavisor.hv.control"
local exits = require "lunavisor.hv.exit"
local ioapic = require "lunavisor.hv.ioapic"
local machine = require "lunavisor.hv.machine"

local fail, try, has = call.fail, call.try, call.has

local KNOWN_OPTIONS = constants.VCPU_ACCEL_RDPMC + constants.VCPU_TSC_RELATIVE
local PAGE = 4096
local ZERO = u64.exact(0)

-- The registers by number: X86_RIP is 0.
local registers = {
  [0] = "rip", "rflags", "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10",
  "r11", "r12", "r13", "r14", "r15", "cs.selector", "ss.selector", "ds.selector", "es.selector",
  "fs.selector", "gs.selector", "idtr.base", "idtr.limit", "gdtr.base", "gdtr.limit",
  "ldtr.selector", "ldtr.base", "ldtr.limit", "ldtr.access", "tr.selector", "tr.base", "tr.limit",
  "tr.access", "cr0", false, "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "dr6",
  "dr7", "cr8", "xcr0",
}

local function register(number)
  local name = registers[number]
  if name then return name end
  if name == false then return fail("unsupported", "a processor has no register %d", number) end
  return fail("bad_argument", "there is no register %d", number)
end

local function create(options)
  options = options or 0
  if not call.within(options, KNOWN_OPTIONS) then
    return fail("bad_argument", "cannot make a vCPU with the options 0x%x", options)
  end
  local own = machine.own()
  if own then
    return fail("busy", "this coroutine owns vCPU %d already, and can own one", own.id)
  end
  local cpu, message, code = try(machine.vm.vcpu, machine.vm, { mode = "reset" })
  if not cpu then return nil, message, code end
  cpu:account(true)
  cpu:on("eoi", ioapic.on_eoi)
  machine.vcpus[cpu.id] = {
    cpu = cpu, id = cpu.id, owner = machine.owner(), space = 0, options = options,
    exit = {}, interrupted = false, single_step = false, msrs = {}, apic_controls = 0,
    extint = false, apic_pages = {},
    event = ZERO, event_error = ZERO, event_length = ZERO,
    controls = controls.initial(), shadows = { cr0 = ZERO, cr4 = ZERO },
  }
  return cpu.id
end

local function set_space(v, asid)
  local entry = machine.spaces[asid]
  if not entry then return fail("bad_argument", "there is no space %d", asid) end
  local ok, message, code = try(v.cpu.set_space, v.cpu, asid)
  if not ok then return nil, message, code end
  machine.spaces[v.space].bound = machine.spaces[v.space].bound - 1
  entry.bound = entry.bound + 1
  v.space = asid
  return true
end

local function interrupt(ids)
  local list = {}
  for i, id in ipairs(ids) do
    local v, message, code = machine.find(id)
    if not v then return nil, message, code end
    list[i] = v
  end
  for _, v in ipairs(list) do
    v.interrupted = true
    v.cpu:interrupt()
  end
  return true
end

-- KVM has no call to forget the guest's page tables, but does so when a memory slot goes.
local function invalidate_tlb(v)
  local space = machine.spaces[v.space].space
  local page, message, code = try(luna.buffer, PAGE)
  if not page then return nil, message, code end
  local gpa, regions = 2 ^ assert(luna.capability "address_bits") - PAGE, space:regions()
  for i = #regions, 1, -1 do
    if gpa < regions[i].gpa + regions[i].size then gpa = regions[i].gpa - PAGE end
  end
  local ok
  ok, message, code = try(space.map, space, page, gpa, PAGE, "r-x")
  if ok then ok, message, code = try(space.unmap, space, gpa, PAGE) end
  page:close()
  return ok, message, code
end

-- The bytes of the XSAVE area that a program's size says.
local function check_fpstate(size)
  if size == 512 or size >= 576 then return true end
  return fail("bad_argument", "an XSAVE area has 512 bytes or 576 and more, not %d", size)
end

local function read_fpstate(v, size)
  local data = v.cpu.xsave
  size = size or #data
  local ok, message, code = check_fpstate(size)
  if not ok then return nil, message, code end
  return data:sub(1, size) .. ("\0"):rep(size - #data)
end

-- XSTATE_BV says which parts of the area are meant (SDM Vol. 1, 13.4.2): behind a shorter one, the
-- vCPU keeps what it has.
local function write_fpstate(v, bytes)
  local ok, message, code = check_fpstate(#bytes)
  if not ok then return nil, message, code end
  local data = v.cpu.xsave
  return try(function()
    v.cpu.xsave = bytes:sub(1, #data) .. data:sub(#bytes + 1)
    return true
  end)
end

-- Of a vCPU that is there, or of one made for it: its counter less its distance to the host's.
local function tsc_clock()
  local _, v = next(machine.vcpus)
  if v then return v.cpu.msr.tsc - v.cpu.tsc_offset end
  local vm = assert(luna.vm())
  local ok, value = pcall(function()
    local cpu = vm:vcpu()
    return cpu.msr.tsc - cpu.tsc_offset
  end)
  vm:close()
  if not ok then error(value, 0) end
  return value
end

return function(hv)
  local function define(...) call.define(hv, ...) end

  --- Makes a vCPU in the default space, in the state after RESET, that belongs to the running
  --- coroutine, and goes when that ends; its number, the lowest that is free. "busy" if the
  --- coroutine has one. flags: VCPU_*.
  define("vcpu_create", { "vm", "flags?" }, create)

  define("vcpu_destroy", { "vcpu" }, function(v)
    machine.release(v)
    return true
  end)

  --- Binds the vCPU to a space: the same registers, another map.
  define("vcpu_set_space", { "vcpu", "asid" }, set_space)

  --- A register by number (X86_*). "unsupported" for CR1.
  define("vcpu_read_register", { "vcpu", "register" }, function(v, number)
    local name, message, code = register(number)
    if not name then return nil, message, code end
    local value
    value, message, code = exits.get(v, name)
    if value and number == constants.X86_TPR then value = u64.lshift(value, 4) end
    return value, message, code
  end)

  define("vcpu_write_register", { "vcpu", "register", "value" }, function(v, number, value)
    local name, message, code = register(number)
    if not name then return nil, message, code end
    if number == constants.X86_TPR then
      if u64.band(value, 15) ~= ZERO then
        return fail("bad_argument", "the task priority has no bits 0 to 3: it is CR8 << 4")
      end
      value = u64.rshift(value, 4)
    end
    return exits.set(v, name, value)
  end)

  --- The x87, SSE and AVX state as a string of `size` bytes (all where nil), in the standard form
  --- of XSAVE; and a string that becomes it.
  define("vcpu_read_fpstate", { "vcpu", "size?" }, read_fpstate)
  define("vcpu_write_fpstate", { "vcpu", "bytes" }, write_fpstate)

  --- Obsolete in macOS 11.
  define("vcpu_flush", { "id" }, function()
    return fail("unsupported", "hv_vcpu_flush is obsolete and does nothing")
  end)

  --- Drops what the vCPU remembers of the guest's page tables.
  define("vcpu_invalidate_tlb", { "vcpu" }, invalidate_tlb)

  --- Runs the vCPU until something has to be looked at: the exit is in the VMCS.
  define("vcpu_run", { "vcpu" }, function(v) return exits.run(v, constants.DEADLINE_FOREVER) end)

  --- The same up to a moment in nanoseconds of luna.clock's time line, DEADLINE_FOREVER for none.
  define("vcpu_run_until", { "vcpu", "deadline" }, exits.run)

  --- Makes the run that is under way on each of the listed vCPUs, or else its next one, end with
  --- VMX_REASON_IRQ.
  define("vcpu_interrupt", { "vm", "vcpus" }, interrupt)

  --- Nanoseconds that the vCPU has executed, and that it was halted inside KVM.
  define("vcpu_get_exec_time", { "vcpu" }, function(v)
    return u64(v.cpu.exec_time) - u64(v.cpu.idle_time)
  end)
  define("vcpu_get_idle_time", { "vcpu" }, function(v) return u64(v.cpu.idle_time) end)

  --- The host's time-stamp counter. Needs no VM.
  define("tsc_clock", {}, function() return call.try_host(tsc_clock) end)

  --- Makes the guest's counter tsc_clock() + `offset_tsc`, for a vCPU made with VCPU_TSC_RELATIVE.
  define("vcpu_set_tsc_relative", { "vcpu", "offset_tsc" }, function(v, offset)
    if not has(v.options, constants.VCPU_TSC_RELATIVE) then
      return fail("unsupported", "vCPU %d was not made with VCPU_TSC_RELATIVE", v.id)
    end
    return call.try_host(function() v.cpu.tsc_offset = offset return true end)
  end)

  --- How the last VM entry failed, if it did: RFLAGS after VMLAUNCH.
  define("vcpu_vmx_status", { "vcpu" }, function(v)
    local failed = v.exit.entry_error and u64.exact(v.exit.entry_error) ~= ZERO
    return failed and 0x40 or 0
  end)

  --- The access of a port or EPT violation exit: a table with address, value, size (0 of a fetch),
  --- access (MEMORY_READ, _WRITE, _EXEC), port (true of I/O ports), left (elements of a string).
  define("ext_vcpu_access", { "vcpu" }, exits.access)

  --- Finishes that access, a read with `value`, before a register is written or
  --- VMCS_RO_VMEXIT_INSTR_LEN read; RIP has not to be moved.
  define("ext_vcpu_complete", { "vcpu", "value" }, exits.complete)
end
