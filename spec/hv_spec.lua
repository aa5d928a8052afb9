-- SPDX-License-Identifier: MIT
-- lunavisor.hv: the Hypervisor framework's calls from Lua.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local u64 = luna.u64

local RWX = hv.MEMORY_READ + hv.MEMORY_WRITE + hv.MEMORY_EXEC
local RX = hv.MEMORY_READ + hv.MEMORY_EXEC
local CODE = 0x1000

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function refused(code, value, message, found)
  assert.is_nil(value)
  assert.equal("string", type(message))
  assert.equal(("0x%x"):format(code), ("0x%x"):format(found))
end

describe("the names of lunavisor.hv", function()
  it("are all of the framework's functions", function()
    local missing, count = {}, 0
    for name in read("core/hvf/README.md"):gmatch "\n| `hv_([%w_]+)` |" do
      count = count + 1
      if type(hv[name]) ~= "function" then missing[#missing + 1] = name end
    end
    assert.same({}, missing)
    assert.truthy(count > 80)
  end)

  it("are annotated", function()
    local meta, missing = read "lua/lunavisor/meta/hv.lua", {}
    for _, part in ipairs { "", "_vcpu", "_msr", "_vmcs", "_intr" } do
      for name in read("lua/lunavisor/hv" .. part .. ".lua"):gmatch "\n *function hv%.([%w_]+)%(" do
        if not meta:find("\nfunction hv." .. name .. "(", 1, true) then
          missing[#missing + 1] = name
        end
      end
    end
    assert.same({}, missing)
  end)

  it("have the numbers of the C headers", function()
    local declared = {}
    for path in helper.sh("ls core/include/Hypervisor/*.h"):gmatch "[^\n]+" do
      for word in read(path):gmatch "%f[%w_][A-Z][%w_]+" do declared[word] = true end
    end
    local lines = { "#include <Hypervisor/Hypervisor.h>", "#include <stdio.h>",
      "#define SHOW(name, value) printf(name \" %llu\\n\", (unsigned long long)(value) & \\",
      "  (sizeof(value) == 4 ? 0xffffffffull : ~0ull))", "int main(void) {" }
    local constants = require "lunavisor.hv_constants"
    for name in pairs(constants) do
      local c = declared["HV_" .. name] and "HV_" .. name or name
      lines[#lines + 1] = ('SHOW("%s", %s);'):format(name, c)
    end
    local source = helper.file(table.concat(lines, "\n") .. "\nreturn 0; }\n")
    local program = os.tmpname()
    local output = helper.sh(("gcc -w -Icore/include -x c -o %s %s && %s; rm -f %s"):format(program,
      source, program, program))
    local count = 0
    for name, number in output:gmatch "(%S+) (%d+)" do
      assert.equal(tonumber(number), constants[name], name)
      constants[name], count = nil, count + 1
    end
    assert.is_nil(next(constants))
    assert.truthy(count > 300)
    package.loaded["lunavisor.hv_constants"] = nil -- this one is used up
  end)
end)

local memory -- of the test, to be closed

-- A VM with memory from 0, and a vCPU in real mode at the code.
local function begin(code, options)
  assert(hv.vm_create(options))
  local ram = assert(hv.vm_allocate(0x10000))
  memory[#memory + 1] = ram
  ram:write(CODE, code)
  assert(hv.vm_map(ram, 0, 0x10000, RWX))
  local id = assert(hv.vcpu_create())
  assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_CS, 0))
  assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_CS_BASE, 0))
  assert(hv.vcpu_write_register(id, hv.X86_RIP, CODE))
  assert(hv.vcpu_write_register(id, hv.X86_RSP, 0x8000))
  return id, ram
end

local function field(id, number)
  local value, message = hv.vmx_vcpu_read_vmcs(id, number)
  return u64.tonumber(assert(value, message))
end

local function register(id, number)
  return u64.tonumber(assert(hv.vcpu_read_register(id, number)))
end

-- Runs for ten seconds at most; the reason.
local function run(id)
  assert(hv.vcpu_run_until(id, math.floor((luna.clock() + 10) * 1e9)))
  return field(id, hv.VMCS_RO_EXIT_REASON)
end

local function skip(id)
  local rip = hv.vcpu_read_register(id, hv.X86_RIP)
  local length = hv.vmx_vcpu_read_vmcs(id, hv.VMCS_RO_VMEXIT_INSTR_LEN)
  assert(hv.vcpu_write_register(id, hv.X86_RIP, rip + length))
end

-- A test that leaves nothing, whatever it comes to.
local function it_cleanly(name, body)
  it(name, function()
    memory = {}
    local ok, message = pcall(body)
    for id = 0, 3 do hv.vcpu_destroy(id) end
    hv.vm_destroy()
    for _, buffer in ipairs(memory) do buffer:close() end
    if not ok then error(message, 0) end
  end)
end

helper.kvm("lunavisor.hv", function()

  -- ---- VM, spaces, memory ----

  it_cleanly("has one VM", function()
    refused(hv.NO_DEVICE, hv.vm_destroy())
    refused(hv.NO_DEVICE, hv.vm_space_create())
    refused(hv.NO_DEVICE, hv.vcpu_create())
    refused(hv.NO_DEVICE, hv.vm_unmap(0, 0x1000))
    refused(hv.NO_DEVICE, hv.vcpu_run(0))
    refused(hv.BAD_ARGUMENT, hv.vm_create(0x20))
    assert.is_true(hv.vm_create())
    refused(hv.BUSY, hv.vm_create())
    assert.equal("vm", getmetatable(hv.vm()).__name)
    assert.is_true(hv.vm_destroy())
    assert.is_nil(hv.vm())
    assert.truthy(u64.lt(1, assert(hv.capability(hv.CAP_ADDRSPACEMAX))))
    refused(hv.BAD_ARGUMENT, hv.capability(9))
  end)

  it_cleanly("gives numbers of spaces out again, and keeps those in use", function()
    assert(hv.vm_create())
    local id = assert(hv.vcpu_create())
    assert.equal(1, hv.vm_space_create())
    assert.equal(2, hv.vm_space_create())
    assert.is_true(hv.vm_space_destroy(1))
    assert.equal(1, hv.vm_space_create())
    assert.is_true(hv.vcpu_set_space(id, 1))
    refused(hv.BUSY, hv.vm_space_destroy(1))
    assert.is_true(hv.vcpu_set_space(id, 0))
    assert.is_true(hv.vm_space_destroy(1))
    refused(hv.BAD_ARGUMENT, hv.vcpu_set_space(id, 1))
    refused(hv.BAD_ARGUMENT, hv.vm_space_destroy(0))
    assert.is_true(hv.vcpu_set_space(id, 2))
    assert.is_true(hv.vcpu_destroy(id))
    refused(hv.BUSY, hv.vm_space_destroy(2)) -- as macOS 10.15 has it
  end)

  it_cleanly("maps, protects and unmaps", function()
    local id, ram = begin "\xf4"
    refused(hv.BUSY, hv.vm_map_space(0, ram, 0, 0x1000, RWX))
    refused(hv.BAD_ARGUMENT, hv.vm_map(ram, 0x20001, 0x1000, RWX))
    refused(hv.BAD_ARGUMENT, hv.vm_map(ram, 0x20000, 0x20000, RWX))
    refused(hv.BAD_ARGUMENT, hv.vm_map_space(7, ram, 0x20000, 0x1000, RWX))
    refused(hv.UNSUPPORTED, hv.vm_map(ram, 0x20000, 0x1000, hv.MEMORY_EXEC))
    refused(hv.UNSUPPORTED, hv.vm_map(ram, 0x20000, 0x1000, hv.MEMORY_READ + hv.MEMORY_UEXEC))
    refused(hv.BAD_ARGUMENT, hv.vm_map(ram, 0x20000, 0x1000, 0x200))
    refused(hv.BAD_ARGUMENT, hv.vm_protect(0x20000, 0x1000, RX))
    assert.is_true(hv.vm_protect(0x2000, 0x1000, RX))
    assert.is_true(hv.vm_unmap(0x3000, 0x1000))
    assert.is_true(hv.vm_unmap(0x2000, 0x20000)) -- with holes
    assert.is_true(hv.vm_map(ram, 0x20000, 0x1000, RX, 0xf000))
    assert.equal(hv.VMX_REASON_HLT, run(id))
    local where = helper.raises("hv.vm_map_space: buffer: a buffer expected, got nil",
      function() hv.vm_map_space(0, nil, 0, 0, 0) end)
    assert.is_nil(where)
  end)

  it_cleanly("allocates buffers", function()
    local buffer = assert(hv.vm_allocate(0x2000))
    assert.equal(0x2000, buffer.size)
    assert.is_true(hv.vm_deallocate(buffer))
    refused(hv.BAD_ARGUMENT, hv.vm_allocate(100))
    refused(hv.BAD_ARGUMENT, hv.vm_allocate(0))
  end)

  -- ---- vCPUs ----

  it_cleanly("reads and writes registers", function()
    local id = begin "\xf4"
    for reg = hv.X86_RIP, hv.X86_REGISTERS_MAX - 1 do
      local value = reg == hv.X86_TPR and 0x30 or reg == hv.X86_XCR0 and 3
        or reg >= hv.X86_DR0 and 0xffff0ff0 or 0x1000 + reg
      if reg == hv.X86_DR5 or reg == hv.X86_DR7 then value = 0x401 end
      if reg == hv.X86_CR1 then
        refused(hv.UNSUPPORTED, hv.vcpu_read_register(id, reg))
      else
        assert.is_true(hv.vcpu_write_register(id, reg, value))
        assert.equal(value, register(id, reg), "register " .. reg)
      end
    end
    refused(hv.BAD_ARGUMENT, hv.vcpu_read_register(id, hv.X86_REGISTERS_MAX))
    refused(hv.BAD_ARGUMENT, hv.vcpu_write_register(id, hv.X86_TPR, 0x31))
    refused(hv.BAD_ARGUMENT, hv.vcpu_write_register(id, hv.X86_CS, 0x10000))
    refused(hv.BAD_ARGUMENT, hv.vcpu_read_register(id + 1, hv.X86_RAX))
    assert.equal(id, hv.vcpu(id).id)
    helper.raises("an integer expected", function() hv.vcpu_write_register(id, 0, "x") end)
  end)

  it_cleanly("runs up to a deadline, and is interrupted", function()
    local id = begin "\xeb\xfe"
    assert(hv.vcpu_run_until(id, 0))
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, field(id, hv.VMCS_RO_EXIT_REASON))
    assert.equal(CODE, register(id, hv.X86_RIP))
    assert.is_true(hv.vcpu_interrupt { id })
    assert.is_true(hv.vcpu_run_until(id, hv.DEADLINE_FOREVER))
    assert.equal(hv.VMX_REASON_IRQ, field(id, hv.VMCS_RO_EXIT_REASON))
    refused(hv.BAD_ARGUMENT, hv.vcpu_interrupt { id, id + 1 })
    assert(hv.vcpu_run_until(id, math.floor((luna.clock() + 0.01) * 1e9))) -- nobody was
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, field(id, hv.VMCS_RO_EXIT_REASON))
    assert.truthy(u64.lt(1000000, hv.vcpu_get_exec_time(id)))
    assert.equal("0x0", u64.hex(hv.vcpu_get_idle_time(id)))
  end)

  it_cleanly("answers ports by registers", function()
    -- in al, 0x60; out 0x10, al; in eax, 0x61; hlt; hlt
    local id = begin "\xe4\x60\xe6\x10\x66\xe5\x61\xf4\xf4"
    assert.equal(hv.VMX_REASON_IO, run(id))
    assert.equal(0x600008, field(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x42))
    skip(id)
    assert.equal(hv.VMX_REASON_IO, run(id))
    assert.equal(0x100000, field(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal(0x42, hv.ext_vcpu_access(id).value)
    skip(id)
    assert.equal(hv.VMX_REASON_IO, run(id))
    local access = hv.ext_vcpu_access(id)
    assert.same({ 0x61, 4, hv.MEMORY_READ, true },
      { access.address, access.size, access.access, access.port })
    assert.is_true(hv.ext_vcpu_complete(id, 0x12345678))
    refused(hv.ERROR, hv.ext_vcpu_complete(id, 0))
    assert.equal(hv.VMX_REASON_HLT, run(id))
    assert.equal(0x12345678, register(id, hv.X86_RAX))
    refused(hv.ERROR, hv.ext_vcpu_access(id))
    skip(id)
    assert.equal(hv.VMX_REASON_HLT, run(id))
    assert.equal(CODE + 9, register(id, hv.X86_RIP))
  end)

  it_cleanly("retries violations, or does them by registers", function()
    -- mov eax, [0x800]; mov [0x800], eax; hlt, with DS at nothing
    local id, ram = begin "\x66\xa1\x00\x08\x66\xa3\x04\x08\xf4"
    assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_DS_BASE, 0x20000))
    assert.equal(hv.VMX_REASON_EPT_VIOLATION, run(id))
    assert.equal(1, field(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal(0x20800, field(id, hv.VMCS_GUEST_PHYSICAL_ADDRESS))
    assert.equal(hv.VMX_REASON_EPT_VIOLATION, run(id)) -- nothing has changed
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x77))
    skip(id)
    assert.equal(hv.VMX_REASON_EPT_VIOLATION, run(id))
    assert.equal(2, field(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal(0x77, hv.ext_vcpu_access(id).value)
    assert(hv.vm_map(ram, 0x20000, 0x1000, RWX, 0x4000))
    assert.equal(hv.VMX_REASON_HLT, run(id))
    assert.equal(0x77, ram:u32(0x4804))
  end)

  it_cleanly("lets MSRs exit, but those that a vCPU may access", function()
    local id = begin "\x66\xb9\x82\x00\x00\xc0\x0f\x32\x0f\x30\xf4"
    assert.equal(hv.VMX_REASON_RDMSR, run(id))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x1111))
    assert(hv.vcpu_write_register(id, hv.X86_RDX, 0x22))
    skip(id)
    assert.equal(hv.VMX_REASON_WRMSR, run(id))
    assert.equal(0x1111, register(id, hv.X86_RAX))
    assert.equal(0x22, register(id, hv.X86_RDX))
    skip(id)
    assert.equal(hv.VMX_REASON_HLT, run(id))
    assert(hv.vcpu_enable_native_msr(id, 0xc0000082, true))
    assert(hv.vcpu_write_msr(id, 0xc0000082, 0x4321))
    assert(hv.vcpu_write_register(id, hv.X86_RIP, CODE))
    assert.equal(hv.VMX_REASON_HLT, run(id))
    assert.equal(0x4321, register(id, hv.X86_RAX))
    assert(hv.vcpu_set_msr_access(id, 0xc0000082, hv.MSR_READ))
    assert(hv.vcpu_write_register(id, hv.X86_RIP, CODE))
    assert.equal(hv.VMX_REASON_WRMSR, run(id))
    refused(hv.BAD_ARGUMENT, hv.vcpu_set_msr_access(id, 0x10, hv.MSR_READ))
    refused(hv.UNSUPPORTED, hv.vcpu_enable_managed_msr(id, 0xdeadbeef, true))
    refused(hv.BAD_ARGUMENT, hv.vcpu_read_msr(id, 0xdeadbeef))
    assert.equal("0x4321", u64.hex(hv.vcpu_read_msr(id, 0xc0000082)))
  end)

  it_cleanly("injects exceptions, interrupts and NMIs", function()
    for _, event in ipairs { hv.IRQ_INFO_HARD_EXC + 6, hv.IRQ_INFO_EXT_IRQ + 8,
      hv.IRQ_INFO_NMI + 2 } do
      local id, ram = begin "\x90\xf4"
      local vector = event % 0x100
      ram:u16(vector * 4, 0x2000)
      ram:u16(vector * 4 + 2, 0)
      ram:write(0x2000, "\xf4")
      assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_IDTR_BASE, 0))
      assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_IDTR_LIMIT, 0x3ff))
      assert(hv.vcpu_write_register(id, hv.X86_RFLAGS, 0x202))
      assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_VMENTRY_IRQ_INFO, hv.IRQ_INFO_VALID + event))
      assert.equal(hv.VMX_REASON_HLT, run(id))
      assert.equal(0x2001, register(id, hv.X86_RIP), "event " .. event)
      assert.equal(0, field(id, hv.VMCS_CTRL_VMENTRY_IRQ_INFO))
      refused(hv.UNSUPPORTED, hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_VMENTRY_IRQ_INFO,
        hv.IRQ_INFO_VALID + hv.IRQ_INFO_SOFT_IRQ))
      assert(hv.vcpu_destroy(id))
      assert(hv.vm_destroy())
    end
  end)

  it_cleanly("keeps controls within their capability", function()
    local id = begin "\xf4"
    for name, capability in pairs { CTRL_PIN_BASED = hv.VMX_CAP_PINBASED,
      CTRL_CPU_BASED = hv.VMX_CAP_PROCBASED, CTRL_CPU_BASED2 = hv.VMX_CAP_PROCBASED2,
      CTRL_VMENTRY_CONTROLS = hv.VMX_CAP_ENTRY, CTRL_VMEXIT_CONTROLS = hv.VMX_CAP_EXIT } do
      local number, bits = hv["VMCS_" .. name], assert(hv.vmx_read_capability(capability))
      local must, may = u64.band(bits, 0xffffffff), u64.rshift(bits, 32)
      assert.equal(must, u64.band(must, may), name)
      assert.equal(must, hv.vmx_vcpu_read_vmcs(id, number))
      assert.is_true(hv.vmx_vcpu_write_vmcs(id, number, may))
      assert.equal(may, hv.vmx_vcpu_read_vmcs(id, number))
      assert.is_true(hv.vmx_vcpu_write_vmcs(id, number, must))
      refused(hv.BAD_ARGUMENT, hv.vmx_vcpu_write_vmcs(id, number, 0))
      refused(hv.BAD_ARGUMENT, hv.vmx_vcpu_write_vmcs(id, number, u64 "0xffffffff"))
    end
    refused(hv.UNSUPPORTED, hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_EXC_BITMAP, 1))
    refused(hv.DENIED, hv.vmx_vcpu_write_vmcs(id, hv.VMCS_RO_EXIT_REASON, 0))
    refused(hv.UNSUPPORTED, hv.vmx_vcpu_read_vmcs(id, hv.VMCS_HOST_RIP))
    refused(hv.BAD_ARGUMENT, hv.vmx_vcpu_read_vmcs(id, 0x7000))
    refused(hv.UNSUPPORTED, hv.vmx_read_capability(hv.VMX_CAP_VMCS_ENUM))
    refused(hv.BAD_ARGUMENT, hv.vmx_read_capability(17))
    assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_CR0, 0x80000000))
    assert.equal(0x80000021, run(id))
    assert.equal(0, hv.vcpu_vmx_status(id))
    assert.is_true(hv.vcpu_invalidate_tlb(id))
    refused(hv.UNSUPPORTED, hv.vcpu_flush(id))
    refused(hv.UNSUPPORTED, hv.vm_ioapic_assert_irq(1))
    local state = assert(hv.vcpu_read_fpstate(id))
    assert.is_true(hv.vcpu_write_fpstate(id, state))
  end)

  -- ---- Interrupts ----

  it_cleanly("sends interrupts to local APICs in KVM", function()
    local id, ram = begin("\xfb\xf4\xeb\xfd", hv.VM_ACCEL_APIC) -- sti; hlt; again
    assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_IDTR_BASE, 0))
    assert(hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_IDTR_LIMIT, 0x3ff))
    assert.is_true(hv.vcpu_apic_write(id, 0xf0, 0x1ff))
    assert.equal(0x1ff, hv.vcpu_apic_read(id, 0xf0))
    for vector = 0x40, 0x44 do -- mov al, vector; out 0x80, al; iret
      local at = 0x2000 + 8 * vector
      ram:u16(vector * 4, at)
      ram:u16(vector * 4 + 2, 0)
      ram:write(at, string.char(0xb0, vector, 0xe6, 0x80, 0xcf))
    end
    assert(hv.vcpu_apic_write(id, 0x320, 0x44))
    for vector, sends in pairs {
      [0x40] = function() return hv.vm_lapic_set_intr(id, 0x40, hv.APIC_EDGE_TRIGGER) end,
      [0x41] = function() return hv.vm_lapic_msi(0xfee00000, 0x41) end,
      [0x42] = function() return hv.vm_send_ioapic_intr(0x42) end,
      [0x44] = function() return hv.vcpu_apic_trigger_lvt(id, hv.APIC_LVT_FLAVOR_TIMER) end,
    } do
      assert.is_true(sends())
      assert.equal(hv.VMX_REASON_IO, run(id))
      assert.equal(vector, register(id, hv.X86_RAX) % 256)
      assert.equal(hv.VM_EXITINFO_VMX, hv.vcpu_exit_info(id))
      local page = assert(hv.vcpu_apic_get_state(id)) -- out of service, for the next
      assert.is_true(hv.vcpu_apic_put_state(id, page:sub(1, 0x100) .. ("\0"):rep(0x80)
        .. page:sub(0x181)))
    end
    refused(hv.UNSUPPORTED, hv.vm_lapic_set_intr(id, 0x40, hv.APIC_EDGE_TRIGGER_AEOI))
    refused(hv.BAD_ARGUMENT, hv.vm_lapic_set_intr(id, 8))
    refused(hv.BAD_ARGUMENT, hv.vm_lapic_msi(0x1000, 0x41))
    refused(hv.BUSY, hv.vm_set_apic_bus_freq(1e8))
    refused(hv.BAD_ARGUMENT, hv.vcpu_apic_read(id, 0x400))
    refused(hv.UNSUPPORTED, hv.vcpu_apic_write(id, 0x300, 0))
    refused(hv.UNSUPPORTED, hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_NO_TIMER))
    refused(hv.ERROR, hv.vcpu_exit_ioapic_eoi(id))
    assert.is_true(hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_IOAPIC_EOI))
  end)

  it_cleanly("has no local APICs in KVM unless they are asked for", function()
    local id = begin "\xf4"
    refused(hv.UNSUPPORTED, hv.vcpu_apic_read(id, 0xf0))
    refused(hv.UNSUPPORTED, hv.vm_lapic_msi(0xfee00000, 0x41))
    assert.equal(0, hv.vcpu_exit_info(id))
  end)

  it_cleanly("notifies of port writes", function()
    local id = begin "\xb0\x01\xe6\x10\xe6\x11\xf4"
    local event = assert(hv.vm():eventfd { port = 0x99, size = 1 }) -- for its descriptor
    assert.is_true(hv.vm_add_pio_notifier(0x10, 1, 1, event.fd))
    refused(hv.BUSY, hv.vm_add_pio_notifier(0x10, 1, 2, event.fd))
    refused(hv.BAD_ARGUMENT, hv.vm_add_pio_notifier(0x11, 3, 1, event.fd))
    refused(hv.UNSUPPORTED, hv.vm_add_pio_notifier(0x11, 1, 1, event.fd, hv.ION_EXIT_FULL))
    assert.equal(hv.VMX_REASON_IO, run(id))
    assert.equal(0x110000, field(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal("0x1", u64.hex(event:read()))
    refused(hv.BAD_ARGUMENT, hv.vm_remove_pio_notifier(0x10, 1, 2, event.fd))
    assert.is_true(hv.vm_remove_pio_notifier(0x10, 1, 1, event.fd))
    refused(hv.BAD_ARGUMENT, hv.vm_remove_pio_notifier(0x10, 1, 1, event.fd))
  end)
end)
