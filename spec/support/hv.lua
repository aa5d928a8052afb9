-- SPDX-License-Identifier: MIT
-- The framework's VM in specs: it is destroyed after each test, whatever is left in it.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"

local M = {}

M.RWX = hv.MEMORY_READ + hv.MEMORY_WRITE + hv.MEMORY_EXEC

local function exists()
  local _, _, code = hv.vm_space_destroy(hv.VM_SPACE_DEFAULT)
  return code ~= "no_device"
end

--- Makes the VM.
function M.vm(flags)
  assert(hv.vm_create(flags))
  helper.keep { close = function()
    for id = 0, 7 do hv.vcpu_destroy(id) end
    for _ = 1, 2 do collectgarbage() end -- coroutines, and their vCPUs with them
    if exists() then assert(hv.vm_destroy()) end
  end }
end

--- A buffer of hv.vm_allocate.
function M.memory(size)
  return helper.keep(hv.vm_allocate(size))
end

--- A VM with `size` bytes of memory at 0 and a vCPU that begins with the assembled source at 0x1000
--- in real mode, with flat segments. Its number and the memory.
function M.guest(source, options)
  options = options or {}
  if not exists() then M.vm(options.vm) end
  local memory = M.memory(0x10000)
  assert(hv.vm_map(memory, 0, memory.size, M.RWX))
  memory:write(0x1000, helper.code(source .. "\n", 16, 0x1000))
  local id = assert(hv.vcpu_create(options.vcpu))
  for _, segment in ipairs { "CS", "SS", "DS", "ES", "FS", "GS" } do
    M.write(id, hv["VMCS_GUEST_" .. segment], 0)
    M.write(id, hv["VMCS_GUEST_" .. segment .. "_BASE"], 0)
  end
  assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
  assert(hv.vcpu_write_register(id, hv.X86_RSP, 0x8000))
  return id, memory
end

--- Whether the page at `gpa` of a space is mapped.
function M.mapped(asid, gpa)
  local page = M.memory(4096)
  if not hv.vm_map_space(asid, page, gpa, page.size, hv.MEMORY_READ) then return true end
  assert(hv.vm_unmap_space(asid, gpa, page.size))
  return false
end

--- A field of the VMCS as a number; and writes one.
function M.read(id, field)
  return luna.u64.tonumber(assert(hv.vmx_vcpu_read_vmcs(id, field)))
end

function M.write(id, field, value)
  assert(hv.vmx_vcpu_write_vmcs(id, field, value))
end

--- A register as a number.
function M.register(id, number)
  return luna.u64.tonumber(assert(hv.vcpu_read_register(id, number)))
end

--- A moment for hv.vcpu_run_until.
function M.seconds(count)
  return luna.u64(math.floor((luna.clock() + count) * 1e9))
end

--- Runs up to an exit with that reason.
function M.stops(id, reason)
  assert(hv.vcpu_run_until(id, M.seconds(60)))
  local found = M.read(id, hv.VMCS_RO_EXIT_REASON)
  if found ~= reason then
    error(("exit reason %d expected, got %d at rip 0x%x"):format(reason, found,
      M.register(id, hv.X86_RIP)), 2)
  end
end

--- Goes on behind the instruction of the exit.
function M.pass(id)
  local length = M.read(id, hv.VMCS_RO_VMEXIT_INSTR_LEN)
  assert(hv.vcpu_write_register(id, hv.X86_RIP, M.register(id, hv.X86_RIP) + length))
end

-- ---- Interrupts ----

--- A guest with VM_ACCEL_APIC and handlers for all vectors that write the vector to port 0x60 and,
--- if `ends`, end the interrupt. It takes interrupts and then halts; its local APIC is on.
function M.interruptible(ends, source)
  local id, memory = M.guest(source or "sti\n again: hlt\n jmp again", { vm = hv.VM_ACCEL_APIC })
  for vector = 0, 255 do
    local org = 0x4000 + vector * 32
    memory:u16(vector * 4, org)
    memory:u16(vector * 4 + 2, 0)
    -- push ax; mov al, vector; out 0x60, al; mov dword [fs:0xb0], 0; pop ax; iret
    memory:write(org, "\x50\xb0" .. string.char(vector) .. "\xe6\x60"
      .. (ends and "\x66\x64\xc7\x06\xb0\x00\x00\x00\x00\x00" or "") .. "\x58\xcf")
  end
  M.write(id, hv.VMCS_GUEST_FS_BASE, luna.u64 "0xfee00000")
  M.write(id, hv.VMCS_GUEST_FS_LIMIT, 0xfffff)
  assert(hv.vcpu_apic_write(id, 0xf0, 0x1ff))
  return id, memory
end

--- Runs to the next handler's OUT, and gives its vector.
function M.vector(id)
  M.stops(id, hv.VMX_REASON_IO)
  local found = M.register(id, hv.X86_RAX) % 256
  M.pass(id)
  return found
end

--- Checks that the guest takes none for some milliseconds.
function M.quiet(id)
  assert(hv.vcpu_run_until(id, M.seconds(0.02)))
  if M.read(id, hv.VMCS_RO_EXIT_REASON) ~= hv.VMX_REASON_VMX_TIMER_EXPIRED then
    error("an interrupt came, or another exit", 2)
  end
end

--- Checks that a call is refused with the code and a sentence that has the text.
function M.refused(code, text, ...)
  helper.refused(code, text, ...)
  assert(hv.errors[code])
end

return M
