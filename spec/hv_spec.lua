-- SPDX-License-Identifier: MIT
-- The framework's calls from Lua: constants, the VM, spaces, arguments, ports that signal.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local raises, refused = helper.raises, support.refused
local u64 = luna.u64

-- ---- Constants ----

describe("hv's constants", function()
  it("are numbers, or u64 where a number is not exact", function()
    assert.same({ 1, 2, 4, 0, 50, 30, 48, 0x4402 }, {
      hv.MEMORY_READ, hv.MEMORY_WRITE, hv.MEMORY_EXEC, hv.X86_RIP, hv.X86_XCR0, hv.VMX_REASON_IO,
      hv.VMX_REASON_EPT_VIOLATION, hv.VMCS_RO_EXIT_REASON,
    })
    assert.equal("0xffffffffffffffff", luna.hex(hv.DEADLINE_FOREVER))
    assert.equal(0xfae94003, hv.errors.bad_argument)
  end)
end)

-- ---- The VM ----

-- A value for each kind of argument, to call a function with.
local samples = { buffer = true, bytes = ("\0"):rep(512), state = {}, vcpus = {}, enable = true,
  is_primary = true, is_load = true }

helper.kvm("hv without a VM", function()
  it("says no_device, whatever is called", function()
    local buffer = helper.keep(luna.buffer "4K")
    local without = {
      capability = true, vm_create = true, vm_allocate = true, vm_deallocate = true,
      tsc_clock = true, vcpu_flush = true, sme_config_get_max_svl_bytes = true,
      vmx_read_capability = true, vmx_get_msr_info = true,
    }
    samples.buffer = buffer
    local count = 0
    for name, arguments in pairs(require("lunavisor.hv.call").calls) do
      if not without[name] then
        local given = {}
        for i, argument in ipairs(arguments) do
          given[i] = samples[argument] == nil and 0 or samples[argument]
        end
        local unpack = table.unpack or unpack
        refused("no_device", "call hv.vm_create first", hv[name](unpack(given, 1, #arguments)))
        count = count + 1
      end
    end
    assert.is_true(count > 60)
  end)

  it("knows the limits of the host", function()
    assert.equal(luna.capability "vcpus_max", hv.capability(hv.CAP_VCPUMAX))
    assert.equal(luna.capability "spaces_max", hv.capability(hv.CAP_ADDRSPACEMAX))
    refused("bad_argument", "no capability 2", hv.capability(2))
  end)

  it("raises for arguments of a wrong type, at the caller's line", function()
    raises("hv.vm_map_space: buffer: a buffer expected, got number",
      function() hv.vm_map_space(0, 1, 0, 4096, 1) end)
    raises("hv.vm_map_space: gpa: a whole number expected, got string",
      function() hv.vm_map_space(0, helper.keep(luna.buffer "4K"), "0", 4096, 1) end)
    raises("hv.vcpu_write_register: value: an integer expected, got nil",
      function() hv.vcpu_write_register(0, 0) end)
    raises("hv.vcpu_enable_native_msr: enable: true or false expected, got number",
      function() hv.vcpu_enable_native_msr(0, 0x174, 1) end)
    raises("hv.vm_create: flags: a whole number expected, got number",
      function() hv.vm_create(1.5) end)
  end)

  it("refuses the calls of other processors", function()
    refused("unsupported", "ARM processors", hv.sme_config_get_max_svl_bytes())
    refused("unsupported", "obsolete", hv.vcpu_flush(0))
  end)
end)

helper.kvm("hv's VM", function()
  it("is one for the process", function()
    support.vm()
    refused("busy", "has a VM already", hv.vm_create())
    assert.is_true(hv.vm_destroy())
    refused("no_device", "there is no VM", hv.vm_destroy())
    assert.is_true(hv.vm_create(hv.VM_DEFAULT))
  end)

  it("takes the options that it knows", function()
    refused("bad_argument", "some are unknown", hv.vm_create(2 ^ 11))
    refused("bad_argument", "some are unknown", hv.vm_create(2 ^ 5))
    refused("bad_argument", "too large, or negative", hv.vm_create(-1))
    support.vm(hv.VM_SPECIFY_MITIGATIONS + hv.VM_MITIGATION_A_ENABLE + hv.VM_MITIGATION_E_ENABLE)
  end)

  it("is not destroyed under a vCPU", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    refused("busy", "has vCPU 0", hv.vm_destroy())
    assert.is_true(hv.vcpu_destroy(id))
    assert.is_true(hv.vm_destroy())
  end)

  it("takes a u64 for a plain number", function()
    support.vm()
    assert.is_true(hv.vm_map(support.memory(4096), u64(0x4000), u64(4096), 7))
  end)

  it("sets all time-stamp counters", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local ok, message, code = hv.vm_sync_tsc(u64 "0x123400000000")
    if not ok then
      refused("unsupported", "counter", ok, message, code)
      return pending(message)
    end
    local now = assert(hv.vcpu_read_msr(id, 0x10))
    assert.equal(0x1234, u64.tonumber(u64.rshift(now, 32)))
  end)

  it("takes no counter for set that is the host's, however near", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    local wanted = assert(hv.tsc_clock()) - u64(1e11)
    if hv.vm_sync_tsc(wanted) then
      assert.is_true(u64.lt(assert(hv.vcpu_read_msr(id, 0x10)) - wanted, u64(5e10)))
    end
  end)
end)

helper.kvm("hv's spaces", function()
  it("reuse numbers, and are busy while a vCPU is bound", function()
    support.vm()
    local first, second = assert(hv.vm_space_create()), assert(hv.vm_space_create())
    assert.same({ 1, 2 }, { first, second })
    assert.is_true(hv.vm_space_destroy(first))
    assert.equal(first, hv.vm_space_create())
    local id = assert(hv.vcpu_create())
    assert.is_true(hv.vcpu_set_space(id, second))
    refused("busy", "vCPUs are bound to it", hv.vm_space_destroy(second))
    assert.is_true(hv.vcpu_set_space(id, hv.VM_SPACE_DEFAULT))
    assert.is_true(hv.vm_space_destroy(second))
    assert.is_true(hv.vcpu_destroy(id))
    assert.equal(id, hv.vcpu_create())
  end)

  it("stay busy where a vCPU was destroyed bound, as on macOS 10.15", function()
    support.vm()
    local asid = assert(hv.vm_space_create())
    local id = assert(hv.vcpu_create())
    assert.is_true(hv.vcpu_set_space(id, asid))
    assert.is_true(hv.vcpu_destroy(id))
    refused("busy", "or were when they were destroyed", hv.vm_space_destroy(asid))
    assert.is_true(hv.vm_destroy())
  end)

  it("refuse numbers that are none", function()
    support.vm()
    refused("bad_argument", "no space 0 that can be destroyed", hv.vm_space_destroy(0))
    refused("bad_argument", "no space 7", hv.vm_space_destroy(7))
    local id = assert(hv.vcpu_create())
    refused("bad_argument", "no space 7", hv.vcpu_set_space(id, 7))
  end)
end)

helper.kvm("hv's pio notifiers", function()
  local OUT = "mov al, 7\n out 0x40, al\n mov al, 9\n out 0x40, al\n hlt"

  it("count the writes instead of exiting", function()
    local id = support.guest(OUT)
    local event = assert(hv.vm_add_pio_notifier(0x40, 1, 0, nil, hv.ION_ANY_VALUE))
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(2, event:read())
    assert.is_true(hv.vm_remove_pio_notifier(0x40, 1, 0, event, hv.ION_ANY_VALUE))
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
    support.stops(id, hv.VMX_REASON_IO)
  end)

  it("leave other values and sizes alone", function()
    local id = support.guest(OUT)
    assert(hv.vm_add_pio_notifier(0x40, 1, 7, nil, hv.ION_NONE))
    support.stops(id, hv.VMX_REASON_IO)
    assert.equal(9, support.register(id, hv.X86_RAX) % 256)
  end)

  it("can be several on a port", function()
    local id = support.guest(OUT)
    local any = assert(hv.vm_add_pio_notifier(0x40, 1, 0, nil, hv.ION_ANY_VALUE))
    local exact = assert(hv.vm_add_pio_notifier(0x40, 0, 9, nil, hv.ION_ANY_SIZE))
    support.stops(id, hv.VMX_REASON_HLT)
    assert.same({ 2, 1 }, { any:read(), exact:read() })
    assert.is_true(hv.vm_remove_pio_notifier(0x40, 1, 0, any, hv.ION_ANY_VALUE))
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
    support.stops(id, hv.VMX_REASON_IO) -- 7
    support.pass(id)
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(1, exact:read())
  end)

  it("want the same arguments to go", function()
    support.vm()
    local event = assert(hv.vm_add_pio_notifier(0x40, 2, 5, nil, 0))
    refused("busy", "port 0x40 has that notifier already",
      hv.vm_add_pio_notifier(0x40, 2, 5, event, 0))
    for _, said in ipairs {
      { 0x41, 2, 5, event, 0 }, { 0x40, 1, 5, event, 0 }, { 0x40, 2, 6, event, 0 },
      { 0x40, 2, 5, 0, 0 }, { 0x40, 2, 5, event, hv.ION_ANY_VALUE },
    } do
      local unpack = table.unpack or unpack
      refused("bad_argument", "has no such notifier", hv.vm_remove_pio_notifier(unpack(said)))
    end
    assert.is_true(hv.vm_remove_pio_notifier(0x40, 2, 5, event.fd, 0))
  end)

  it("refuse what there is not", function()
    support.vm()
    refused("bad_argument", "has flags 0x1", hv.vm_add_pio_notifier(1, 1, 0, nil, 1))
    refused("bad_argument", "has 3 bytes", hv.vm_add_pio_notifier(1, 3, 0, nil, 0))
    refused("bad_argument", "16 bits, not 0x10000", hv.vm_add_pio_notifier(0x10000, 1, 0, nil, 0))
    refused("bad_argument", "", hv.vm_add_pio_notifier(1, 1, 0, 0, 0)) -- no eventfd
  end)
end)
