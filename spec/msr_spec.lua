-- SPDX-License-Identifier: MIT
-- Model-specific registers by number and name, against the guest, the registers that they are
-- another name of, and moves.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local hex, u64 = luna.hex, luna.u64

helper.kvm("MSRs", function()
  it("are read and written by number and by name", function()
    local cpu = helper.guest { mode = "long", source = "hlt" }.cpu
    cpu.msr[0xc0000082] = u64 "0xffffffff81000000"
    for _, name in ipairs { "lstar", "LSTAR", "IA32_LSTAR", "ia32_lstar", "MSR_LSTAR" } do
      assert.equal("0xffffffff81000000", hex(cpu.msr[name]))
    end
    cpu.msr.sysenter_cs = 0x10
    assert.equal("0x10", hex(cpu.msr[0x174]))
    cpu.msr["IA32_KERNEL_GS_BASE"] = 0x1234
    assert.equal("0x1234", hex(cpu.msr.kernel_gs_base))
  end)

  it("are seen by the guest, whose writes are seen", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ecx, 0xc0000082
      rdmsr
      mov esi, eax
      mov edi, edx
      mov ecx, 0xc0000083
      mov eax, 0x5678
      mov edx, 0
      wrmsr
      hlt]] }
    guest.cpu.msr.lstar = u64(0x1234, 0x9abcdef0)
    assert.equal("0x0", hex(guest.cpu.msr.cstar))
    guest:stops "hlt"
    assert.equal("0x9abcdef0", hex(guest.cpu.rsi))
    assert.equal("0x1234", hex(guest.cpu.rdi))
    assert.equal("0x5678", hex(guest.cpu.msr.cstar))
  end)

  it("that are registers too have one value", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rdx, [fs:0]
      mov rsi, rdx
      mov rbx, [gs:0]
      mov ecx, 0xc0000080
      rdmsr
      hlt]] }
    local cpu = guest.cpu
    guest.ram:u64(0x3000, 0x33)
    guest.ram:u64(0x4000, 0x44)
    cpu.fs.base = 0x1111
    assert.equal("0x1111", hex(cpu.msr.fs_base)) -- the write waits, and is seen
    cpu.msr.fs_base = 0x3000
    cpu.gs.base = 0x4444
    cpu.msr.gs_base = 0x4000
    cpu.msr.efer = u64.bor(cpu.efer, 1)
    assert.equal("0x3000", hex(cpu.fs.base))
    assert.equal("0x4000", hex(cpu.gs.base))
    assert.equal(hex(cpu.efer), hex(cpu.msr.efer))
    assert.equal(hex(cpu.apic_base), hex(cpu.msr.apic_base))
    guest:stops "hlt"
    assert.equal("0x33", hex(cpu.rsi))
    assert.equal("0x44", hex(cpu.rbx))
    assert.equal(hex(cpu.efer), hex(cpu.msr[0xc0000080]))
    assert.equal("0x1", hex(u64.band(cpu.efer, 1)))
  end)

  it("go with the vCPU to other spaces", function()
    local guest = helper.guest { source = "hlt" }
    local cpu, space = guest.cpu, guest.vm:space()
    assert(space:map(guest.ram, 0, guest.ram.size, "rwx"))
    cpu.msr.star = 0x7777
    assert(cpu:set_space(space))
    assert.equal("0x7777", hex(cpu.msr.star))
    cpu.msr.star = 0x8888
    assert(cpu:set_space(0))
    assert.equal("0x8888", hex(cpu.msr.star))
  end)

  it("have a time-stamp counter that can be set, in every space", function()
    local guest = helper.guest { source = "hlt" }
    local cpu, space = guest.cpu, guest.vm:space()
    assert(space:map(guest.ram, 0, guest.ram.size, "rwx"))
    assert(cpu:set_space(space))
    assert(cpu:set_space(0))
    local base = u64 "0x100000000000000"
    if not pcall(function() cpu.msr.tsc = base end) then
      pending "this host's KVM does not set the counter"
    end
    local function check()
      local passed = cpu.msr.time_stamp_counter - base
      assert.is_true(u64.lt(passed, u64 "0x1000000000"), hex(passed)) -- some seconds at most
    end
    check()
    assert(cpu:set_space(space))
    check()
  end)

  it("that KVM does not know, and values that it refuses, are errors that name it", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    helper.raises("vCPU 0 has no MSR 0xdead: this host's KVM does not know it",
      function() return cpu.msr[0xdead] end)
    helper.raises("vCPU 0 has no MSR 0xdead", function() cpu.msr[0xdead] = 1 end)
    helper.raises("there is no MSR 'lester'", function() return cpu.msr.lester end)
    helper.raises("an MSR's number (0 to 0xffffffff) or name expected, got 1.5",
      function() return cpu.msr[1.5] end)
    helper.raises("MSR IA32_LSTAR: an integer expected, got lot",
      function() cpu.msr.lstar = "lot" end)
    helper.raises("cannot write 0x8000000000000000 to MSR 0xc0000082 (IA32_LSTAR) of vCPU 0: KVM "
      .. "refuses the value; it is 0x0",
      function() cpu.msr.lstar = u64 "0x8000000000000000" end)
    helper.raises("cannot write 0x8000000000000000 to MSR 0xc0000100 (IA32_FS_BASE): it is not "
      .. "canonical", function() cpu.msr.fs_base = u64 "0x8000000000000000" end)
    helper.raises("cannot write 0x2 to MSR 0xc0000080 (IA32_EFER): efer bit 1 is reserved",
      function() cpu.msr.efer = 2 end)
    assert.equal("0x0", hex(cpu.msr.lstar))
    assert.equal("0x0", hex(cpu.efer))
  end)

  it("are not for closed vCPUs", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    local msr = cpu.msr
    cpu:close()
    helper.raises("attempt to use a closed vcpu", function() return msr.star end)
  end)
end)
