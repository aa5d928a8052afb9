-- SPDX-License-Identifier: MIT
-- What a program finds in the VMCS after an exit, from Lua, and how it goes on; the fields.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local refused, read, register = support.refused, support.read, support.register
local u64 = luna.u64

local IO, EPT, HLT = hv.VMX_REASON_IO, hv.VMX_REASON_EPT_VIOLATION, hv.VMX_REASON_HLT

-- Qualification, length and RIP.
local function exit_of(id)
  return { read(id, hv.VMCS_RO_EXIT_QUALIFIC), read(id, hv.VMCS_RO_VMEXIT_INSTR_LEN),
    register(id, hv.X86_RIP) }
end

helper.kvm("hv's port exits", function()
  it("stand at OUT, and pass by RIP", function()
    local id = support.guest "mov al, 7\n out 0x10, al\n mov dx, 0x3f8\n out dx, ax\n hlt"
    support.stops(id, IO)
    assert.same({ 0x100040, 2, 0x1002 }, exit_of(id))
    assert.equal(7, register(id, hv.X86_RAX))
    support.stops(id, IO)
    assert.equal(0x1002, register(id, hv.X86_RIP))
    support.pass(id)
    support.stops(id, IO)
    assert.same({ 0x3f80001, 1, 0x1007 }, exit_of(id))
    support.pass(id)
    support.stops(id, HLT)
  end)

  it("stand at IN, which the program does", function()
    local id = support.guest "mov eax, 0x11223344\n in al, 0x10\n in eax, 0x20\n hlt"
    support.stops(id, IO)
    assert.same({ 0x100048, 2, 0x1006 }, exit_of(id))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x11223355))
    support.pass(id)
    support.stops(id, IO)
    assert.same({ 0x20004b, 3, 0x1008 }, exit_of(id))
    assert.equal(0x11223355, register(id, hv.X86_RAX))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, u64 "0xdeadbeefcafebabe"))
    support.pass(id)
    support.stops(id, HLT)
    assert.equal(u64 "0xdeadbeefcafebabe", hv.vcpu_read_register(id, hv.X86_RAX))
  end)

  it("stand at string instructions, before the first element", function()
    local id, memory = support.guest([[
      mov cx, 3
      mov si, 0x2000
      mov di, 0x3000
      mov dx, 0x40
      rep outsb
      mov cx, 2
      rep insw
      hlt]])
    memory:write(0x2000, "abc")
    support.stops(id, IO)
    assert.same({ 0x400030, 2, 0x100c }, exit_of(id))
    assert.equal(0x18000, read(id, hv.VMCS_RO_VMX_INSTR_INFO)) -- 16 bits, DS
    assert.same({ 3, 0x2000 }, { register(id, hv.X86_RCX), register(id, hv.X86_RSI) })
    support.pass(id)
    support.stops(id, IO)
    assert.same({ 0x400039, 2, 0x1011 }, exit_of(id))
    assert.same({ 2, 0x3000 }, { register(id, hv.X86_RCX), register(id, hv.X86_RDI) })
    memory:write(0x3000, "wxyz")
    support.pass(id)
    support.stops(id, HLT)
    assert.equal("wxyz", memory:read(0x3000, 4))
  end)

  it("can be completed as KVM has decoded them", function()
    local id = support.guest "mov eax, 0x11223344\n in al, 0x10\n out 0x11, al\n hlt"
    support.stops(id, IO)
    assert.same({ address = 0x10, value = 0, size = 1, access = hv.MEMORY_READ, port = true,
      left = 1 }, hv.ext_vcpu_access(id))
    assert.is_true(hv.ext_vcpu_complete(id, 0x1ff))
    refused("error", "no access left", hv.ext_vcpu_complete(id, 0))
    support.stops(id, IO)
    assert.equal(0x112233ff, register(id, hv.X86_RAX))
    assert.equal(0xff, hv.ext_vcpu_access(id).value)
    assert.is_true(hv.ext_vcpu_complete(id, 0))
    assert(hv.vcpu_interrupt { id })
    support.stops(id, hv.VMX_REASON_IRQ)
    assert.equal(0x100a, register(id, hv.X86_RIP))
    support.stops(id, HLT)
    refused("error", "not for an access", hv.ext_vcpu_access(id))
  end)

  it("complete strings element by element", function()
    local id, memory = support.guest "mov cx, 3\n mov si, 0x2000\n mov dx, 0x40\n rep outsb\n hlt"
    memory:write(0x2000, "abc")
    local found = {}
    for i = 1, 3 do
      support.stops(id, IO)
      found[i] = string.char(hv.ext_vcpu_access(id).value)
      assert.is_true(hv.ext_vcpu_complete(id, 0))
    end
    assert.equal("abc", table.concat(found))
    support.stops(id, HLT)
    assert.equal(0, register(id, hv.X86_RCX))
  end)

  it("are the program's once it has written a register", function()
    local id = support.guest "in al, 0x10\n hlt"
    support.stops(id, IO)
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 5))
    refused("error", "no access left", hv.ext_vcpu_complete(id, 0))
  end)
end)

helper.kvm("hv's EPT violations", function()
  local FAR = "mov ax, 0x2000\n mov ds, ax\n "

  it("of a read stand at the instruction, which is done again with memory", function()
    local id = support.guest(FAR .. "mov cx, [0x10]\n hlt")
    local memory = support.memory(0x1000)
    memory:u16(0x10, 0xbeef)
    support.stops(id, EPT)
    assert.same({ 0x20010, 0x20010 },
      { read(id, hv.VMCS_GUEST_PHYSICAL_ADDRESS), read(id, hv.VMCS_RO_GUEST_LIN_ADDR) })
    assert.equal(0x181, read(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal(0x1005, register(id, hv.X86_RIP))
    assert(hv.vm_map(memory, 0x20000, 0x1000, support.RWX))
    support.stops(id, HLT)
    assert.equal(0xbeef, register(id, hv.X86_RCX))
  end)

  it("of a read can be done by the program", function()
    local id = support.guest(FAR .. "mov cx, [0x10]\n hlt")
    support.stops(id, EPT)
    assert.same({ 0x181, 4, 0x1005 }, exit_of(id))
    assert(hv.vcpu_write_register(id, hv.X86_RCX, 0x77))
    support.pass(id)
    support.stops(id, HLT)
    assert.equal(0x77, register(id, hv.X86_RCX))
  end)

  it("stay until something is done", function()
    local id = support.guest(FAR .. "mov cx, [0x10]\n hlt")
    support.stops(id, EPT)
    support.stops(id, EPT)
    assert.same({ 0x181, 4, 0x1005 }, exit_of(id))
    support.stops(id, EPT)
    assert.is_true(hv.ext_vcpu_complete(id, 0x1234))
    support.stops(id, HLT)
    assert.equal(0x1234, register(id, hv.X86_RCX))
  end)

  it("of a write stand at it, and it is done with memory or dropped", function()
    local id = support.guest(FAR .. "mov cx, 0x55aa\n mov [0x10], cx\n mov [0x12], cx\n hlt")
    support.stops(id, EPT)
    assert.same({ 0x182, 4, 0x1008 }, exit_of(id))
    assert.equal(0x55aa, hv.ext_vcpu_access(id).value)
    support.pass(id)
    support.stops(id, EPT)
    assert.equal(0x20012, read(id, hv.VMCS_GUEST_PHYSICAL_ADDRESS))
    local memory = support.memory(0x1000)
    assert(hv.vm_map(memory, 0x20000, 0x1000, support.RWX))
    support.stops(id, HLT)
    assert.same({ 0, 0x55aa }, { memory:u16(0x10), memory:u16(0x12) })
  end)

  it("of read-only memory tell the rights", function()
    local id, memory = support.guest "mov byte [0x9000], 5\n hlt"
    assert(hv.vm_protect(0x9000, 0x1000, hv.MEMORY_READ + hv.MEMORY_EXEC))
    support.stops(id, EPT)
    assert.equal(0x182 + 0x28, read(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert(hv.vm_protect(0x9000, 0x1000, support.RWX))
    support.stops(id, HLT)
    assert.equal(5, memory:u8(0x9000))
  end)

  it("of a fetch stand at the missing code", function()
    local id = support.guest "jmp 0x2000:0x10"
    support.stops(id, EPT)
    assert.equal(4, read(id, hv.VMCS_RO_EXIT_QUALIFIC) % 8)
    assert.equal(0x20010, read(id, hv.VMCS_GUEST_PHYSICAL_ADDRESS))
    assert.same({ 0x10, 0x2000 }, { register(id, hv.X86_RIP), register(id, hv.X86_CS) })
    refused("unsupported", "cannot answer the fetch", hv.ext_vcpu_complete(id, 0))
    assert.same({ 0, hv.MEMORY_EXEC }, { hv.ext_vcpu_access(id).size,
      hv.ext_vcpu_access(id).access })
    local memory = support.memory(0x1000)
    memory:u8(0x10, 0xf4)
    assert(hv.vm_map(memory, 0x20000, 0x1000, support.RWX))
    support.stops(id, HLT)
  end)
end)

helper.kvm("hv's other exits", function()
  it("are HLT, at the instruction", function()
    local id = support.guest "hlt\n hlt"
    support.stops(id, HLT)
    assert.same({ 0, 1, 0x1000 }, exit_of(id))
    assert.equal(hv.VM_EXITINFO_VMX, hv.vcpu_exit_info(id))
    support.pass(id)
    support.stops(id, HLT)
    assert.equal(0x1001, register(id, hv.X86_RIP))
  end)

  it("are triple faults", function()
    local id = support.guest "ud2"
    support.write(id, hv.VMCS_GUEST_CR0, 0x11) -- protected mode
    support.write(id, hv.VMCS_GUEST_CS_AR, 0x9b)
    support.write(id, hv.VMCS_GUEST_IDTR_LIMIT, 0)
    support.stops(id, hv.VMX_REASON_TRIPLE_FAULT)
  end)

  it("are failed entries", function()
    local id = support.guest "hlt"
    support.write(id, hv.VMCS_GUEST_CR0, 0x80000010) -- paging without protection
    assert.is_true(hv.vcpu_run_until(id, hv.DEADLINE_FOREVER))
    local reason = read(id, hv.VMCS_RO_EXIT_REASON)
    assert.equal(hv.VMX_REASON_VMENTRY_GUEST, reason % 0x10000)
    assert.is_true(reason >= hv.VMX_REASON_ENTRY_FAILURE)
  end)

  it("are single steps with CPU_BASED_MTF", function()
    local id = support.guest "nop\n nop\n hlt"
    local controls = read(id, hv.VMCS_CTRL_CPU_BASED)
    support.write(id, hv.VMCS_CTRL_CPU_BASED, controls + hv.CPU_BASED_MTF)
    support.stops(id, hv.VMX_REASON_MTF)
    assert.equal(0x1001, register(id, hv.X86_RIP))
    support.stops(id, hv.VMX_REASON_MTF)
    assert.equal(0x1002, register(id, hv.X86_RIP))
    support.write(id, hv.VMCS_CTRL_CPU_BASED, controls)
    support.stops(id, HLT)
  end)

  it("follow events that the program injects", function()
    local id, memory = support.guest "sti\n nop\n hlt"
    memory:write(0x3000, "\xe6\x60\xf4") -- out 0x60, al; hlt
    for _, vector in ipairs { 0x0d, 0x41, 2 } do memory:u16(vector * 4, 0x3000) end
    local VALID, INFO = hv.IRQ_INFO_VALID, hv.VMCS_CTRL_VMENTRY_IRQ_INFO
    for _, info in ipairs { hv.IRQ_INFO_HARD_EXC + 0x0d, hv.IRQ_INFO_NMI + 2,
      hv.IRQ_INFO_EXT_IRQ + 0x41 } do
      assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
      assert(hv.vcpu_write_register(id, hv.X86_RFLAGS, 0x202))
      support.write(id, INFO, VALID + info)
      support.stops(id, IO)
      assert.equal(0x3000, register(id, hv.X86_RIP))
      assert.equal(0, read(id, INFO))
      assert(hv.vcpu_write_register(id, hv.X86_RSP, 0x8000))
    end
    local function refuses(code, text, value)
      refused(code, text, hv.vmx_vcpu_write_vmcs(id, INFO, value))
    end
    refuses("bad_argument", "has vector 2", VALID + hv.IRQ_INFO_NMI + 3)
    refuses("bad_argument", "is no exception", VALID + hv.IRQ_INFO_HARD_EXC + 32)
    refuses("bad_argument", "no interruption information", 2 ^ 20)
    if luna.capability "controls" == 0 then
      refuses("unsupported", "of type 4; the software CPU (LUNA_ACCEL=soft)",
        VALID + hv.IRQ_INFO_SOFT_IRQ + 3)
    end
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, INFO, 0x41)) -- not valid: nothing
    assert.equal(0, read(id, INFO))
  end)
end)

helper.kvm("hv's VMCS", function()
  it("has the guest's state", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    for name, value in pairs {
      CS = 0x1230, DS_BASE = 0x12300, SS_LIMIT = 0x7777, GDTR_BASE = 0x5000, IDTR_LIMIT = 0x3ff,
      RSP = 0x7000, RIP = 0x1111, CR3 = 0x4000, IA32_SYSENTER_CS = 8, SYSENTER_EIP = 0x1234,
      TR = 0x18, LDTR_BASE = 0x6000,
    } do
      support.write(id, hv["VMCS_GUEST_" .. name], value)
      assert.equal(value, read(id, hv["VMCS_GUEST_" .. name]), name)
    end
    assert.equal(0x1111, register(id, hv.X86_RIP))
    assert.equal(0, read(id, hv.VMCS_GUEST_ACTIVITY_STATE))
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_ACTIVITY_STATE, 0))
    refused("unsupported", "activity state 0x1",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_ACTIVITY_STATE, 1))
    support.write(id, hv.VMCS_CTRL_CR0_SHADOW, 0x31)
    assert.equal(0x31, read(id, hv.VMCS_CTRL_CR0_SHADOW))
  end)

  it("ignores the bits of a value above the width of its field", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_CS, 0x50028))
    assert.equal(0x28, read(id, hv.VMCS_GUEST_CS))
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_CS_LIMIT, 2 ^ 32 + 0x1fff))
    assert.equal(0x1fff, read(id, hv.VMCS_GUEST_CS_LIMIT))
  end)

  it("refuses what is no field, what is read-only, and what KVM has not", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local function refuses(code, text, field, value)
      refused(code, text, hv.vmx_vcpu_write_vmcs(id, field, value))
    end
    refused("bad_argument", "no field 0x4999", hv.vmx_vcpu_read_vmcs(id, 0x4999))
    refused("unsupported", "nothing like", hv.vmx_vcpu_read_vmcs(id, hv.VMCS_HOST_CR0))
    refuses("bad_argument", "no field", 0x7000, 0)
    refuses("unsupported", "of a bitmap", hv.VMCS_CTRL_IO_BITMAP_A, 0)
    refuses("unsupported", "set_shadow_access fields", hv.VMCS_CTRL_VMREAD_BITMAP_ADDR, 0)
    refuses("denied", "read-only", hv.VMCS_RO_EXIT_REASON, 0)
    refuses("denied", "read-only", hv.VMCS_GUEST_PHYSICAL_ADDRESS, 0)
    if luna.capability "controls" == 0 then
      refuses("unsupported", "exceptions 0x2 of", hv.VMCS_CTRL_EXC_BITMAP, 2)
    end
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_EXC_BITMAP, 0))
    assert.is_true(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_LINK_POINTER, u64.bnot(0)))
  end)

  it("takes controls within the capability", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    for cap, field in pairs {
      [hv.VMX_CAP_PINBASED] = hv.VMCS_CTRL_PIN_BASED,
      [hv.VMX_CAP_TRUE_PROCBASED] = hv.VMCS_CTRL_CPU_BASED,
      [hv.VMX_CAP_PROCBASED2] = hv.VMCS_CTRL_CPU_BASED2,
      [hv.VMX_CAP_ENTRY] = hv.VMCS_CTRL_VMENTRY_CONTROLS,
      [hv.VMX_CAP_TRUE_EXIT] = hv.VMCS_CTRL_VMEXIT_CONTROLS,
    } do
      local value = assert(hv.vmx_read_capability(cap))
      local must, may = u64.band(value, 0xffffffff), u64.rshift(value, 32)
      assert.same({ must, may }, { hv.vmx_vcpu_get_cap_write_vmcs(id, field) })
      assert.equal(must, hv.vmx_vcpu_read_vmcs(id, field))
      assert.is_true(hv.vmx_vcpu_write_vmcs(id, field, must))
      refused("bad_argument", "outside the capability",
        hv.vmx_vcpu_write_vmcs(id, field, u64.bxor(may, 0xffffffff)))
      refused("bad_argument", "outside the capability", hv.vmx_vcpu_write_vmcs(id, field, 0))
    end
    refused("unsupported", "read-only",
      hv.vmx_vcpu_get_cap_write_vmcs(id, hv.VMCS_RO_EXIT_REASON))
    assert.same({ u64(0), u64(0xffff) }, { hv.vmx_vcpu_get_cap_write_vmcs(id, hv.VMCS_GUEST_CS) })
    assert.equal(u64(0x2000), hv.vmx_read_capability(hv.VMX_CAP_CR4_FIXED0))
    refused("bad_argument", "no capability 99", hv.vmx_read_capability(99))
    assert.equal(hv.VMX_BASIC_TRUE_CTLS,
      u64.band(hv.vmx_read_capability(hv.VMX_CAP_BASIC), hv.VMX_BASIC_TRUE_CTLS))
  end)
end)
