-- SPDX-License-Identifier: MIT
-- Apple's Hypervisor framework's own calls: one vCPU in two address spaces, which show it different
-- memory at one guest-physical address. Constants and functions are Apple's without HV_ and hv_.

local hv = require "lunavisor.hv"
local luna = require "lunavisor"

local CODE, SHARED = 0x1000, 0x8000
local RX = hv.MEMORY_READ + hv.MEMORY_EXEC
local RW = hv.MEMORY_READ + hv.MEMORY_WRITE

assert(hv.vm_create(hv.VM_DEFAULT))

-- The code is the same memory in both spaces; the page at SHARED is not.
local code = assert(hv.vm_allocate(0x1000))
code:write(0, assert(luna.asm([[
  again:
    mov si, 0x8000
  next:
    lodsb
    out 0x10, al
    test al, al
    jnz next
    inc word [0x8100]
    hlt
    jmp again
]], { bits = 16, org = CODE })))

local function page(text)
  local memory = assert(hv.vm_allocate(0x1000))
  memory:write(0, text .. "\0")
  return memory
end

local space = assert(hv.vm_space_create())
local pages = { [hv.VM_SPACE_DEFAULT] = page "the default space", [space] = page "another one" }
for asid, memory in pairs(pages) do
  assert(hv.vm_map_space(asid, code, CODE, code.size, RX))
  assert(hv.vm_map_space(asid, memory, SHARED, memory.size, RW))
end
assert(hv.vm_protect_space(space, SHARED, 0x1000, hv.MEMORY_READ))

-- A vCPU in real mode, with segments at 0.
local cpu = assert(hv.vcpu_create(hv.VCPU_DEFAULT))
for _, name in ipairs { "CS", "SS", "DS", "ES" } do
  assert(hv.vmx_vcpu_write_vmcs(cpu, hv["VMCS_GUEST_" .. name], 0))
  assert(hv.vmx_vcpu_write_vmcs(cpu, hv["VMCS_GUEST_" .. name .. "_BASE"], 0))
end
assert(hv.vcpu_write_register(cpu, hv.X86_RIP, CODE))

local function read(field)
  return luna.u64.tonumber(assert(hv.vmx_vcpu_read_vmcs(cpu, field)))
end

-- Past the instruction that exited.
local function advance()
  local rip = read(hv.VMCS_GUEST_RIP) + read(hv.VMCS_RO_VMEXIT_INSTR_LEN)
  assert(hv.vcpu_write_register(cpu, hv.X86_RIP, rip))
end

local text
local handlers = {
  [hv.VMX_REASON_IO] = function()
    local al = luna.u64.tonumber(hv.vcpu_read_register(cpu, hv.X86_RAX)) % 0x100
    if al ~= 0 then text[#text + 1] = string.char(al) end
    advance()
  end,
  [hv.VMX_REASON_EPT_VIOLATION] = function()
    print(("  EPT violation at 0x%x, qualification 0x%x"):format(
      read(hv.VMCS_GUEST_PHYSICAL_ADDRESS), read(hv.VMCS_RO_EXIT_QUALIFIC)))
    advance() -- the write is dropped
  end,
  [hv.VMX_REASON_HLT] = function()
    advance()
    return true
  end,
}

local function round(asid)
  text = {}
  assert(hv.vcpu_set_space(cpu, asid))
  repeat
    assert(hv.vcpu_run_until(cpu, hv.DEADLINE_FOREVER))
    local handler = handlers[read(hv.VMCS_RO_EXIT_REASON)]
      or error(("exit reason %d"):format(read(hv.VMCS_RO_EXIT_REASON)))
  until handler()
  print(("space %d: %q, counter %d"):format(asid, table.concat(text), pages[asid]:u16(0x100)))
end

round(hv.VM_SPACE_DEFAULT)
round(space)
round(hv.VM_SPACE_DEFAULT)

assert(hv.vcpu_set_space(cpu, space))
local _, message, reason = hv.vm_space_destroy(space)
print(reason .. ": " .. message)
assert(hv.vcpu_set_space(cpu, hv.VM_SPACE_DEFAULT))
assert(hv.vcpu_destroy(cpu))
assert(hv.vm_space_destroy(space))
assert(hv.vm_destroy())
