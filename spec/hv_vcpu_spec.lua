-- SPDX-License-Identifier: MIT
-- The framework's vCPUs from Lua: owners, registers, MSRs, time, runs that end without an exit.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local refused, read, register = support.refused, support.read, support.register
local u64 = luna.u64

-- Runs fn in a coroutine of its own, and gives what it returns.
local function elsewhere(fn)
  local results = { coroutine.resume(coroutine.create(fn)) }
  assert(results[1], results[2])
  return (table.unpack or unpack)(results, 2, 4)
end

helper.kvm("hv's vCPUs", function()
  it("belong to the coroutine that made them, which has one", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    refused("busy", "owns vCPU 0 already", hv.vcpu_create())
    refused("bad_argument", "the options 0x4", hv.vcpu_create(4))
    refused("denied", "belongs to another coroutine",
      elsewhere(function() return hv.vcpu_read_register(id, hv.X86_RIP) end))
    refused("denied", "another coroutine", elsewhere(function() return hv.vcpu_run(id) end))
    refused("denied", "another coroutine", elsewhere(function() return hv.vcpu_destroy(id) end))
    refused("bad_argument", "there is no vCPU 5", hv.vcpu_run(5))
    assert.is_true(hv.vcpu_destroy(id))
    refused("bad_argument", "there is no vCPU 0", hv.vcpu_destroy(id))
  end)

  it("go with their coroutine", function()
    support.vm()
    local other = coroutine.create(function()
      coroutine.yield(assert(hv.vcpu_create()))
    end)
    local _, id = coroutine.resume(other)
    refused("busy", "has vCPU 0", hv.vm_destroy())
    assert.equal(1, hv.vcpu_create())
    coroutine.resume(other)
    refused("bad_argument", "there is no vCPU 0", hv.vcpu_run(id))
    assert.is_true(hv.vcpu_destroy(1))
    assert.is_true(hv.vm_destroy())
  end)

  it("of several coroutines take turns", function()
    local id = support.guest "hlt\n hlt"
    local function owner()
      local mine = assert(hv.vcpu_create())
      assert(hv.vcpu_write_register(mine, hv.X86_RAX, mine))
      setmetatable({}, { __gc = function() hv.capability(hv.CAP_VCPUMAX) end })
      collectgarbage() -- a call within
      repeat
        coroutine.yield(mine, register(mine, hv.X86_RAX), (select(3, hv.vcpu_run(id))))
      until false
    end
    local first, second = coroutine.wrap(owner), coroutine.wrap(owner)
    for _ = 1, 2 do
      assert.same({ 1, 1, "denied" }, { first() })
      assert.same({ 2, 2, "denied" }, { second() })
      support.stops(id, hv.VMX_REASON_HLT)
    end
    assert.is_false(pcall(coroutine.wrap(function()
      hv.vcpu_run(setmetatable({}, { __index = error })) -- raises, as somebody else
    end)))
    support.stops(id, hv.VMX_REASON_HLT)
  end)

  it("go with a coroutine that an error has ended anywhere", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    for count = 1, 400 do
      coroutine.resume(coroutine.create(function()
        local self = coroutine.running() -- LuaJIT's hooks are for all
        debug.sethook(function()
          debug.sethook()
          if coroutine.running() == self then error("anywhere", 0) end
        end, "", count)
        local mine = hv.vcpu_create()
        hv.vcpu_read_register(mine, hv.X86_RIP)
        hv.vcpu_destroy(mine)
      end))
      debug.sethook()
      assert.equal(0xfff0, register(id, hv.X86_RIP)) -- this one is itself
    end
    for _ = 1, 2 do collectgarbage() end
    assert.is_true(hv.vcpu_destroy(id))
    assert.is_true(hv.vm_destroy())
  end)

  it("begin as after RESET, in the default space", function()
    support.vm()
    local id = assert(hv.vcpu_create(hv.VCPU_DEFAULT))
    assert.same({ 0xfff0, 2, 0xf000, 0xffff0000 }, {
      register(id, hv.X86_RIP), register(id, hv.X86_RFLAGS), register(id, hv.X86_CS),
      read(id, hv.VMCS_GUEST_CS_BASE),
    })
    assert.equal(0, hv.vcpu_exit_info(id))
    assert.equal(0, hv.vcpu_vmx_status(id))
    assert.equal(0, read(id, hv.VMCS_RO_EXIT_REASON))
  end)

  it("keep the registers that are written", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local skipped = {
      X86_CR0 = true, X86_CR1 = true, X86_CR4 = true, X86_RFLAGS = true, X86_TPR = true,
      X86_XCR0 = true, X86_DR4 = true, X86_DR5 = true, X86_DR6 = true, X86_DR7 = true,
      X86_REGISTERS_MAX = true, X86_TSS_AR = true, X86_LDT_AR = true,
    }
    for name, number in pairs(hv) do
      if name:match "^X86_" and not skipped[name] then
        assert.is_true(hv.vcpu_write_register(id, number, number + 1))
      end
    end
    for name, number in pairs(hv) do
      if name:match "^X86_" and not skipped[name] then
        assert.equal(number + 1, register(id, number), name)
      end
    end
    assert(hv.vcpu_write_register(id, hv.X86_R9, u64 "0xfedcba9876543210"))
    assert.equal(u64 "0xfedcba9876543210", hv.vcpu_read_register(id, hv.X86_R9))
    assert(hv.vcpu_write_register(id, hv.X86_TPR, 0x50))
    assert.equal(0x50, register(id, hv.X86_TPR))
    assert.equal(register(id, hv.X86_DR6), register(id, hv.X86_DR4))
    assert.equal(register(id, hv.X86_DR7), register(id, hv.X86_DR5))
    assert.equal(1, register(id, hv.X86_XCR0) % 2)
  end)

  it("refuse registers and values that there are not", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    refused("unsupported", "has no register 37", hv.vcpu_read_register(id, hv.X86_CR1))
    refused("unsupported", "has no register 37", hv.vcpu_write_register(id, hv.X86_CR1, 0))
    refused("bad_argument", "no register 51", hv.vcpu_read_register(id, hv.X86_REGISTERS_MAX))
    refused("bad_argument", "CR8 << 4", hv.vcpu_write_register(id, hv.X86_TPR, 0x51))
    refused("bad_argument", "", hv.vcpu_write_register(id, hv.X86_CS, 0x10000))
  end)

  it("have x87, SSE and AVX state", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local whole = assert(hv.vcpu_read_fpstate(id))
    local short = assert(hv.vcpu_read_fpstate(id, 512))
    assert.equal(whole:sub(1, 512), short)
    assert.equal(whole .. "\0\0\0", hv.vcpu_read_fpstate(id, #whole + 3))
    local xmm0 = ("0123456789abcdef")
    local changed = whole:sub(1, 160) .. xmm0 .. whole:sub(177, 512) .. "\3" .. whole:sub(514)
    assert.is_true(hv.vcpu_write_fpstate(id, changed))
    assert.equal(xmm0, hv.vcpu_read_fpstate(id, 576):sub(161, 176))
    for _, size in ipairs { 0, 511, 575 } do
      refused("bad_argument", "an XSAVE area of", hv.vcpu_read_fpstate(id, size))
      refused("bad_argument", "an XSAVE area of", hv.vcpu_write_fpstate(id, ("x"):rep(size)))
    end
  end)

  it("move between spaces with their registers", function()
    local id, memory = support.guest "mov al, [0x2000]\n out 0x10, al\n jmp 0x1000"
    local asid, other = assert(hv.vm_space_create()), support.memory(0x1000)
    local copy = support.memory(0x1000)
    copy:write(0, memory:read(0x1000, 0x1000))
    other:u8(0, 0x99)
    assert(hv.vm_map_space(asid, copy, 0x1000, 0x1000, support.RWX))
    assert(hv.vm_map_space(asid, other, 0x2000, 0x1000, support.RWX))
    support.stops(id, hv.VMX_REASON_IO)
    assert.equal(0, register(id, hv.X86_RAX) % 256)
    support.pass(id)
    assert.is_true(hv.vcpu_set_space(id, asid))
    support.stops(id, hv.VMX_REASON_IO)
    assert.equal(0x99, register(id, hv.X86_RAX) % 256)
    assert.equal(0x8000, register(id, hv.X86_RSP))
    assert.is_true(hv.vcpu_set_space(id, 0))
  end)

  it("forget page tables on demand", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local top = 2 ^ luna.capability "address_bits" - 4096
    assert(hv.vm_map(support.memory(4096), top, 4096, support.RWX))
    assert.is_true((hv.vcpu_invalidate_tlb(id)))
    assert.same({ true, false }, { support.mapped(0, top), support.mapped(0, top - 4096) })
  end)
end)

helper.kvm("hv's MSRs", function()
  local SYSENTER_CS = 0x174
  local SOURCE = "mov ecx, 0x174\n rdmsr\n add eax, 1\n wrmsr\n hlt"

  it("are read and written", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    assert.is_true(hv.vcpu_write_msr(id, SYSENTER_CS, 0x77))
    assert.equal(u64(0x77), hv.vcpu_read_msr(id, SYSENTER_CS))
    assert.equal(0x77, read(id, hv.VMCS_GUEST_IA32_SYSENTER_CS))
    refused("bad_argument", "", hv.vcpu_read_msr(id, 0x12345))
    refused("bad_argument", "", hv.vcpu_write_msr(id, 0x12345, 0))
    refused("bad_argument", "", hv.vcpu_write_msr(id, 0xc0000080, u64.bnot(0)))
  end)

  it("exit, and are the program's to do", function()
    local id = support.guest(SOURCE)
    support.stops(id, hv.VMX_REASON_RDMSR)
    assert.same({ 0x1006, 2, 0x174 }, {
      register(id, hv.X86_RIP), read(id, hv.VMCS_RO_VMEXIT_INSTR_LEN), register(id, hv.X86_RCX),
    })
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x41))
    assert(hv.vcpu_write_register(id, hv.X86_RDX, 0x5))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_WRMSR)
    assert.same({ 0x42, 5 }, { register(id, hv.X86_RAX), register(id, hv.X86_RDX) })
    support.pass(id)
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(u64(0), hv.vcpu_read_msr(id, SYSENTER_CS))
  end)

  it("exit again where RIP is left", function()
    local id = support.guest(SOURCE)
    support.stops(id, hv.VMX_REASON_RDMSR)
    support.stops(id, hv.VMX_REASON_RDMSR)
    assert.equal(0x1006, register(id, hv.X86_RIP))
  end)

  it("do not exit where they are native", function()
    local id = support.guest(SOURCE)
    assert(hv.vcpu_write_msr(id, SYSENTER_CS, 0x10))
    assert.is_true(hv.vcpu_enable_native_msr(id, SYSENTER_CS, true))
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(u64(0x11), hv.vcpu_read_msr(id, SYSENTER_CS))
    assert.is_true(hv.vcpu_enable_native_msr(id, SYSENTER_CS, false))
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
    support.stops(id, hv.VMX_REASON_RDMSR)
  end)

  it("can be managed: what the guest may do", function()
    local id = support.guest(SOURCE)
    refused("bad_argument", "not enabled", hv.vcpu_set_msr_access(id, SYSENTER_CS, hv.MSR_READ))
    assert.is_true(hv.vcpu_enable_managed_msr(id, SYSENTER_CS, true))
    refused("bad_argument", "access 0x4", hv.vcpu_set_msr_access(id, SYSENTER_CS, 4))
    assert.is_true(hv.vcpu_set_msr_access(id, SYSENTER_CS, hv.MSR_READ))
    support.stops(id, hv.VMX_REASON_WRMSR)
    refused("unsupported", "", hv.vcpu_enable_native_msr(id, 0x12345, true))
    refused("unsupported", "", hv.vcpu_enable_managed_msr(id, 0x12345, true))
  end)

  it("exit where KVM does not know them", function()
    local id = support.guest "mov ecx, 0x12345\n rdmsr\n wrmsr\n hlt"
    support.stops(id, hv.VMX_REASON_RDMSR)
    assert.equal(0x1006, register(id, hv.X86_RIP))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 7))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_WRMSR)
    assert.equal(7, register(id, hv.X86_RAX))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_HLT)
  end)

  it("tell what they have", function()
    assert(hv.vmx_get_msr_info(hv.VMX_VALID_MSR_IA32_DEBUGCTL))
    refused("bad_argument", "no information 9", hv.vmx_get_msr_info(9))
  end)
end)

helper.kvm("hv.vcpu_run", function()
  it("ends at a moment, at once if it has passed", function()
    local id = support.guest "jmp 0x1000"
    assert.is_true(hv.vcpu_run_until(id, support.seconds(0.02)))
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, read(id, hv.VMCS_RO_EXIT_REASON))
    assert.is_true(hv.vcpu_run_until(id, 0))
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, read(id, hv.VMCS_RO_EXIT_REASON))
    assert.equal(0x1000, register(id, hv.X86_RIP))
    assert(hv.vcpu_interrupt { id })
    assert.is_true(hv.vcpu_run_until(id, u64 "0xfffffffffffffffe")) -- never
    assert.equal(hv.VMX_REASON_IRQ, read(id, hv.VMCS_RO_EXIT_REASON))
  end)

  it("ends by an interrupt that came before it, once", function()
    local id = support.guest "hlt"
    refused("bad_argument", "there is no vCPU 9", hv.vcpu_interrupt { id, 9 })
    refused("bad_argument", "vcpus[1]: 0xffffffffffffffff", hv.vcpu_interrupt { -1 })
    helper.raises("hv.vcpu_interrupt: vcpus[2]: a whole number expected, got string",
      function() hv.vcpu_interrupt { id, "x" } end)
    support.stops(id, hv.VMX_REASON_HLT)
    support.pass(id)
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
    elsewhere(function() assert.is_true(hv.vcpu_interrupt { id, id }) end)
    assert.is_true(hv.vcpu_run_until(id, hv.DEADLINE_FOREVER))
    assert.equal(hv.VMX_REASON_IRQ, read(id, hv.VMCS_RO_EXIT_REASON))
    assert.is_true(hv.vcpu_run_until(id, hv.DEADLINE_FOREVER))
    assert.equal(hv.VMX_REASON_HLT, read(id, hv.VMCS_RO_EXIT_REASON))
  end)

  it("ends when the host has an interrupt, unlike hv.vcpu_run_until", function()
    local id = support.guest "jmp 0x1000"
    assert.is_true(hv.vcpu_run(id))
    assert.equal(hv.VMX_REASON_IRQ, read(id, hv.VMCS_RO_EXIT_REASON))
    assert.equal(0x1000, register(id, hv.X86_RIP))
  end)

  it("keeps an interrupt over an instruction that is taken back", function()
    local id = support.guest "in al, 0x10\n hlt"
    support.stops(id, hv.VMX_REASON_IO)
    assert(hv.vcpu_interrupt { id })
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x55))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_IRQ)
    assert.same({ 0x55, 0x1002 }, { register(id, hv.X86_RAX), register(id, hv.X86_RIP) })
    support.stops(id, hv.VMX_REASON_HLT)
  end)

  it("takes time", function()
    local id = support.guest "jmp 0x1000"
    assert.equal(u64(0), hv.vcpu_get_exec_time(id))
    helper.within(function()
      assert(hv.vcpu_run_until(id, support.seconds(0.05)))
      return u64.lt(1e6, assert(hv.vcpu_get_exec_time(id)))
    end)
    assert.equal(u64(0), hv.vcpu_get_idle_time(id))
  end)

  it("has a counter that can be set apart from the host's", function()
    local before = assert(hv.tsc_clock())
    support.vm()
    local id = assert(hv.vcpu_create(hv.VCPU_TSC_RELATIVE))
    assert.is_true(u64.lt(before, assert(hv.tsc_clock())))
    local ok, message, code = hv.vcpu_set_tsc_relative(id, -before)
    if ok then
      assert.is_true(u64.lt(assert(hv.vcpu_read_msr(id, 0x10)), before))
    else
      refused("unsupported", "time-stamp counter", ok, message, code)
    end
    assert(hv.vcpu_destroy(id))
    assert(hv.vcpu_create())
    refused("unsupported", "VCPU_TSC_RELATIVE",
      hv.vcpu_set_tsc_relative(0, 0))
  end)
end)
