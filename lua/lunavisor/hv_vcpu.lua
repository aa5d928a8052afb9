-- SPDX-License-Identifier: MIT
-- The Hypervisor framework's calls for vCPUs: function(hv, shared).

local raw = require "lunavisor.backend"
local check = require "lunavisor.check"
local u64 = require "lunavisor.u64"

-- The registers by the framework's number; CR1 is missing, as it is from the processor.
local names = {
  [0] = "rip", "rflags", "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10",
  "r11", "r12", "r13", "r14", "r15", "cs.selector", "ss.selector", "ds.selector", "es.selector",
  "fs.selector", "gs.selector", "idtr.base", "idtr.limit", "gdtr.base", "gdtr.limit",
  "ldtr.selector", "ldtr.base", "ldtr.limit", "ldtr.access", "tr.selector", "tr.base", "tr.limit",
  "tr.access", "cr0", false, "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "dr6",
  "dr7", "cr8", "xcr0",
}

local ids = {} -- of the core, by name
do
  local id = 0
  while raw.register_name(id) do
    ids[raw.register_name(id)] = id
    id = id + 1
  end
end

return function(hv, shared)
  local state, fail, result = shared.state, shared.fail, shared.result
  local vcpu_of = shared.vcpu

  --- An exact u64, or an error at the caller's caller.
  function shared.u64(what, value)
    local exact = u64.exact(value)
    if exact == nil then
      error(("%s: an integer expected, got %s (write large ones as u64 \"0x...\")")
        :format(what, tostring(value)), 3)
    end
    return exact
  end

  -- ---- Making and moving ----

  local vcpu_options = hv.VCPU_ACCEL_RDPMC + hv.VCPU_TSC_RELATIVE

  --- Makes a vCPU in the default space, in the state after RESET; its number.
  function hv.vcpu_create(options)
    options = check.whole("hv.vcpu_create: options", options or 0, 0)
    local vm, message, code = shared.vm()
    if not vm then return nil, message, code end
    if not shared.within(options, vcpu_options) then
      return fail(hv.BAD_ARGUMENT, "unknown options 0x%x", options)
    end
    local cpu
    cpu, message, code = vm:vcpu { mode = "reset" }
    if not cpu then return result(nil, message, code) end
    raw.account(cpu, true)
    state.vcpus[cpu.id] = {
      cpu = cpu, options = options, space = 0,
      exit = nil,                -- the last one
      taken = false,             -- the script does the access of that itself
      rax = nil, rdx = nil,      -- what it wrote there, for a read
      msrs = {},                 -- by number: what the guest may do
      event = 0, error_code = 0, -- for the next entry
      controls = {},             -- by field of the VMCS
    }
    return cpu.id
  end

  --- Destroys it. A space that it was bound to stays busy.
  function hv.vcpu_destroy(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    vcpu.cpu:close()
    state.vcpus[id] = nil
    return true
  end

  local function count(asid, change)
    if asid ~= 0 then state.bound[asid] = (state.bound[asid] or 0) + change end
  end

  --- Binds it to a space.
  function hv.vcpu_set_space(id, asid)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local space
    space, message, code = shared.space(asid)
    if not space then return nil, message, code end
    local done
    done, message, code = raw.set_space(vcpu.cpu, asid, 0)
    if not done then return result(nil, message, code) end
    count(vcpu.space, -1)
    count(asid, 1)
    vcpu.space = asid
    return true
  end

  -- ---- Registers ----

  -- Whether the last exit waits for an answer, of the kinds that a script answers by registers.
  local function waits(vcpu)
    local exit = vcpu.exit
    return exit ~= nil and not vcpu.completed
      and (exit.kind == "pio" or exit.kind == "msr" or exit.kind == "fault")
  end

  --- The core's register of that name.
  function shared.get(vcpu, name)
    return result(raw.get(vcpu.cpu, ids[name]))
  end

  --- The same, written. RIP as it is shown says only that the access has been dealt with: KVM does
  --- the rest of the instruction.
  function shared.set(vcpu, name, value)
    if waits(vcpu) then
      if name == "rax" or name == "rdx" then vcpu[name] = value end
      if name == "rip" then
        vcpu.taken = vcpu.exit.kind ~= "fault" or vcpu.exit.access ~= "x"
        if vcpu.taken and value == raw.get(vcpu.cpu, ids.rip) then return true end
      end
    end
    return result(raw.set(vcpu.cpu, ids[name], value))
  end

  local function find(id, reg)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if reg == hv.X86_CR1 then return fail(hv.UNSUPPORTED, "a processor has no CR1") end
    local name = names[reg]
    if not name then return fail(hv.BAD_ARGUMENT, "there is no register %s", tostring(reg)) end
    return vcpu, name
  end

  --- A register (HV_X86_*): u64. TPR is CR8 * 16.
  function hv.vcpu_read_register(id, reg)
    local vcpu, name, code = find(id, reg)
    if not vcpu then return nil, name, code end
    local value
    value, name, code = shared.get(vcpu, name)
    if value == nil then return nil, name, code end
    return reg == hv.X86_TPR and value * u64(16) or value
  end

  function hv.vcpu_write_register(id, reg, value)
    value = shared.u64("hv.vcpu_write_register: value", value)
    local vcpu, name, code = find(id, reg)
    if not vcpu then return nil, name, code end
    if reg == hv.X86_TPR then
      if u64.band(value, 15) ~= u64.exact(0) then
        return fail(hv.BAD_ARGUMENT, "the task priority has no bits 0 to 3: it is CR8 * 16")
      end
      value = u64.rshift(value, 4)
    end
    return shared.set(vcpu, name, value)
  end

  --- The x87, SSE and AVX state as a string, in the form of XSAVE.
  function hv.vcpu_read_fpstate(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.get_xsave(vcpu.cpu))
  end

  function hv.vcpu_write_fpstate(id, bytes)
    if type(bytes) ~= "string" then
      error(("hv.vcpu_write_fpstate: a string expected, got %s"):format(type(bytes)), 2)
    end
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return result(raw.set_xsave(vcpu.cpu, bytes))
  end

  -- ---- Running ----

  local zero = u64.exact(0)

  -- What a read gets: the low bytes of RAX, of RDMSR those of EDX and EAX.
  local function answer_of(vcpu)
    local exit = vcpu.exit
    if exit.access ~= "r" then return nil end
    local rax = vcpu.rax or vcpu.cpu.rax
    if exit.kind == "msr" then
      return u64.bor(u64.lshift(vcpu.rdx or vcpu.cpu.rdx, 32), u64.band(rax, 0xffffffff))
    elseif exit.kind == "fault" then
      return exit.size == 8 and zero or 0
    end
    return u64.tonumber(u64.band(rax, 2 ^ (8 * exit.size) - 1))
  end

  -- Lets KVM go on. An access to memory that nobody took over is done again; where no memory allows
  -- it yet, it is the next exit.
  local function leave(vcpu)
    if waits(vcpu) and vcpu.exit.kind == "fault" and not vcpu.taken then
      raw.retry(vcpu.cpu)
    elseif waits(vcpu) then
      raw.answer(vcpu.cpu, answer_of(vcpu))
    end
  end

  local function remember(vcpu, exit)
    vcpu.exit, vcpu.taken, vcpu.completed, vcpu.rax, vcpu.rdx = exit, false, false, nil, nil
  end

  -- An MSR that the guest may access: done here. True unless it is the script's.
  local function serve_msr(vcpu, exit)
    local allowed = vcpu.msrs[exit.msr]
    local bit = exit.access == "r" and hv.MSR_READ or hv.MSR_WRITE
    if not allowed or not shared.has(allowed, bit) then return false end
    local value = true
    if exit.access == "r" then
      value = raw.get_msr(vcpu.cpu, exit.msr)
    else
      value = raw.set_msr(vcpu.cpu, exit.msr, exit.value) and value or nil
    end
    if value == nil then
      raw.refuse(vcpu.cpu)
    else
      raw.answer(vcpu.cpu, exit.access == "r" and value or nil)
    end
    return true
  end

  local failures = { internal = true, instruction = true, other = true, system_event = true }

  local function run(vcpu, options)
    leave(vcpu)
    local done, message, code = shared.inject(vcpu)
    if not done then return nil, message, code end
    local exit
    repeat
      exit, message, code = vcpu.cpu:run(options)
      if not exit then
        if not message:find("refuses its system registers", 1, true) then
          return result(nil, message, code)
        end
        exit = { kind = "fail_entry", value = u64(0x80000000 + hv.VMX_REASON_VMENTRY_GUEST) }
      end
    until exit.kind ~= "msr" or not serve_msr(vcpu, exit)
    remember(vcpu, exit)
    if exit.kind == "host_fault" then return fail(hv.FAULT, "%s", tostring(exit)) end
    if failures[exit.kind] then return fail(hv.ERROR, "%s", tostring(exit)) end
    return true
  end

  --- Runs the vCPU until an exit; the VMCS has it.
  function hv.vcpu_run(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return run(vcpu)
  end

  --- The same up to a moment in nanoseconds of the monotonic clock (luna.clock() * 1e9), or
  --- hv.DEADLINE_FOREVER.
  function hv.vcpu_run_until(id, deadline)
    deadline = shared.u64("hv.vcpu_run_until: deadline", deadline)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if deadline == hv.DEADLINE_FOREVER then return run(vcpu) end
    return run(vcpu, { deadline = u64.tonumber(deadline) / 1e9 })
  end

  hv.DEADLINE_FOREVER = u64.bnot(0)

  --- Interrupts each of a list of vCPUs; none if one does not exist.
  function hv.vcpu_interrupt(list)
    if type(list) ~= "table" then
      error(("hv.vcpu_interrupt: a list of vCPUs expected, got %s"):format(type(list)), 2)
    end
    local found = {}
    for i, id in ipairs(list) do
      local vcpu, message, code = vcpu_of(id)
      if not vcpu then return nil, message, code end
      found[i] = vcpu
    end
    local vm, message, code = shared.vm()
    if not vm then return nil, message, code end
    for _, vcpu in ipairs(found) do raw.interrupt(vcpu.cpu) end
    return true
  end

  -- ---- Accesses that KVM has decoded ----

  local accesses = { r = hv.MEMORY_READ, w = hv.MEMORY_WRITE, x = hv.MEMORY_EXEC }

  --- What the last exit wants, a port or an EPT violation: { address, size, access, value, port }.
  function hv.ext_vcpu_access(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local exit = vcpu.exit
    if not exit or (exit.kind ~= "pio" and exit.kind ~= "fault") then
      return fail(hv.ERROR, "the last exit of vCPU %d was not for an access", id)
    end
    return { address = exit.port or exit.gpa, size = exit.size, access = accesses[exit.access],
      value = exit.value, port = exit.port ~= nil }
  end

  --- Finishes it: a read gets the value.
  function hv.ext_vcpu_complete(id, value)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if not waits(vcpu) or vcpu.taken then
      return fail(hv.ERROR, "vCPU %d has no access left to complete", id)
    end
    local exit = vcpu.exit
    if exit.access ~= "r" then value = nil end
    if exit.access == "r" and exit.size == 8 then
      value = shared.u64("hv.ext_vcpu_complete: value", value)
    end
    local _
    _, message, code = raw.answer(vcpu.cpu, value)
    if message then return result(nil, message, code) end
    vcpu.completed = true
    return true
  end

  -- ---- Time ----

  --- Nanoseconds that it has executed, and those that it was halted inside KVM.
  function hv.vcpu_get_exec_time(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return vcpu.cpu.exec_time - vcpu.cpu.idle_time
  end

  function hv.vcpu_get_idle_time(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    return vcpu.cpu.idle_time
  end

  --- Makes the guest's time-stamp counter the host's plus the offset.
  function hv.vcpu_set_tsc_relative(id, offset)
    offset = shared.u64("hv.vcpu_set_tsc_relative: offset", offset)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    if not shared.has(vcpu.options, hv.VCPU_TSC_RELATIVE) then
      return fail(hv.UNSUPPORTED, "vCPU %d was not made with HV_VCPU_TSC_RELATIVE", id)
    end
    return result(raw.set_tsc_offset(vcpu.cpu, offset))
  end

  --- The host's counter, as KVM lets it be read: by a vCPU whose offset is known.
  function hv.tsc_clock()
    return fail(hv.UNSUPPORTED, "Lua has no RDTSC: luna.clock() is a clock of the host's")
  end

  -- ---- The rest ----

  function hv.vcpu_flush()
    return fail(hv.UNSUPPORTED, "hv.vcpu_flush is obsolete and does nothing")
  end

  --- Makes KVM forget the guest's page tables: it does so when a memory slot goes.
  function hv.vcpu_invalidate_tlb(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local bits = raw.capability "address_bits"
    local gpa = 2 ^ u64.tonumber(bits) - 4096
    local page = require("lunavisor.buffer").new(4096)
    while raw.next_region(vcpu.cpu.vm, vcpu.space, gpa) do
      gpa = raw.next_region(vcpu.cpu.vm, vcpu.space, gpa) - 4096
    end
    local done
    done, message, code = raw.map(vcpu.cpu.vm, vcpu.space, page, 0, gpa, 4096, 5)
    if done then done, message, code = raw.unmap(vcpu.cpu.vm, vcpu.space, gpa, 4096) end
    page:close()
    return result(done, message, code)
  end

  --- How the last entry failed, if it did before the guest's state was looked at: 0x40, or 0.
  function hv.vcpu_vmx_status(id)
    local vcpu, message, code = vcpu_of(id)
    if not vcpu then return nil, message, code end
    local exit = vcpu.exit
    local failed = exit and exit.kind == "fail_entry" and exit.value
    return failed and u64.lt(exit.value, 2 ^ 31) and 0x40 or 0
  end
end
