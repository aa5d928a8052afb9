-- SPDX-License-Identifier: MIT
-- The table of the Hypervisor framework's functions in core/hvf/README.md: it has each function of
-- the headers, the library and Lua's lunavisor.hv have them and nothing else, and what is said of
-- each has a form that can be relied on.

local hv = require "lunavisor.hv"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local sorted = require "lunavisor.text.sorted"
local support = require "spec.support.hv"

-- What Apple's framework has on x86, up to macOS 12, and the one function of ARM's that its
-- documentation lists with them.
local apple = [[
  hv_capability hv_vm_create hv_vm_destroy hv_vm_space_create hv_vm_space_destroy hv_vm_map
  hv_vm_unmap hv_vm_protect hv_vm_map_space hv_vm_unmap_space hv_vm_protect_space hv_vm_allocate
  hv_vm_deallocate hv_vm_sync_tsc hv_vm_add_pio_notifier hv_vm_remove_pio_notifier hv_vcpu_create
  hv_vcpu_destroy hv_vcpu_set_space hv_vcpu_read_register hv_vcpu_write_register
  hv_vcpu_read_fpstate hv_vcpu_write_fpstate hv_vcpu_enable_native_msr hv_vcpu_enable_managed_msr
  hv_vcpu_set_msr_access hv_vcpu_read_msr hv_vcpu_write_msr hv_vcpu_flush hv_vcpu_invalidate_tlb
  hv_vcpu_run hv_vcpu_run_until hv_vcpu_interrupt hv_vcpu_get_exec_time hv_vcpu_get_idle_time
  hv_tsc_clock hv_vcpu_set_tsc_relative hv_vcpu_vmx_status hv_vm_lapic_set_intr hv_vm_lapic_msi
  hv_vm_ioapic_assert_irq hv_vm_ioapic_deassert_irq hv_vm_ioapic_pulse_irq hv_vm_ioapic_read
  hv_vm_ioapic_write hv_vm_ioapic_get_state hv_vm_ioapic_put_state hv_vm_send_ioapic_intr
  hv_vm_atpic_assert_irq hv_vm_atpic_deassert_irq hv_vm_atpic_port_read hv_vm_atpic_port_write
  hv_vm_atpic_get_state hv_vm_atpic_put_state hv_vm_set_apic_bus_freq hv_vcpu_inject_extint
  hv_vcpu_apic_read hv_vcpu_apic_write hv_vcpu_apic_get_state hv_vcpu_apic_put_state
  hv_vcpu_exit_info hv_vcpu_exit_init_ap hv_vcpu_exit_startup_ap hv_vcpu_exit_ioapic_eoi
  hv_vcpu_exit_apic_access_read hv_vcpu_exit_inject_excp hv_vcpu_apic_lsc_enter_r32
  hv_vcpu_apic_lsc_enter_imm32 hv_vcpu_apic_lsc_invalidate hv_vcpu_apic_ctrl
  hv_vcpu_apic_trigger_lvt hv_vmx_vcpu_read_vmcs hv_vmx_vcpu_write_vmcs
  hv_vmx_vcpu_get_cap_write_vmcs hv_vmx_vcpu_set_shadow_access hv_vmx_read_capability
  hv_vmx_get_msr_info hv_vmx_vcpu_set_apic_address hv_vmx_vcpu_set_apic_address_space
  hv_vmx_vcpu_read_shadow_vmcs hv_vmx_vcpu_write_shadow_vmcs hv_sme_config_get_max_svl_bytes]]

-- The functions that the headers declare, without comments' mentions of others.
local function declared()
  local names = {}
  for path in helper.sh("ls core/include/Hypervisor/*.h"):gmatch "[^\n]+" do
    local text = files.read(path):gsub("/%*.-%*/", "")
    for name in text:gmatch "HV_API%s[^;(]-(hv_[%w_]+)%(" do names[name] = true end
  end
  return names
end

-- What Lua has not, and why.
local only_in_c = {
  hv_ext_error_message = "a call that fails returns the sentence",
  hv_ext_thread_adopt = "a coroutine is a thread",
  hv_ext_vm_map_buffer = "vm_map and vm_map_space take buffers",
}

local readme = files.read "core/hvf/README.md"

local function rows()
  local states, repeated = {}, {}
  for name, state in readme:gmatch "\n| `(hv_[%w_]+)` | ([^|]+) |" do
    if states[name] then repeated[#repeated + 1] = name end
    states[name] = state
  end
  return states, repeated
end

describe("the table of the Hypervisor framework's functions", function()
  it("has each function of the headers once", function()
    local states, repeated = rows()
    local ours = readme:match "\nOf our own[^\n]+"
    for name in ours:gmatch "`(hv_ext_[%w_]+)`" do states[name] = "ours" end
    assert.same(sorted(declared()), sorted(states))
    assert.same({}, repeated)
    assert.truthy(#sorted(states) > 30)
  end)

  it("has every function of Apple's", function()
    local states, missing, count = rows(), {}, 0
    for name in apple:gmatch "%S+" do
      count = count + 1
      if not states[name] then missing[#missing + 1] = name end
      states[name] = nil
    end
    assert.same({}, missing)
    assert.same({}, sorted(states)) -- and no other
    assert.equal(82, count)
  end)

  it("says of each what can be expected", function()
    local unclear = {}
    for name, state in pairs(rows()) do
      if not (state:match "^exact$" or state:match "^exact[,;:] ." or state:match "^differs: ."
        or state:match "^`HV_UNSUPPORTED`: .") then
        unclear[#unclear + 1] = name .. ": " .. state
      end
    end
    assert.same({}, unclear)
  end)

  it("refers only to functions that are there", function()
    local states = rows()
    for _, state in pairs(states) do
      for other in state:gmatch "as `(hv_[%w_]+)`" do assert.truthy(states[other], other) end
    end
  end)

  it("is of what the library exports", function()
    local library = (os.getenv "LUNAVISOR_LIBRARY" or "build/x"):match "^(.*)/" ..
      "/libHypervisor.so"
    local exported = {}
    for name in helper.sh("nm -D --defined-only " .. library):gmatch " T ([%w_]+)" do
      exported[name] = true
    end
    assert.same(sorted(declared()), sorted(exported))
  end)
end)

describe("lunavisor.hv", function()
  it("has each function of the headers, and no other", function()
    local expected, found = declared(), {}
    for name in pairs(only_in_c) do
      assert.truthy(expected[name], name)
      expected[name] = nil
    end
    for name, value in pairs(hv) do
      if type(value) == "function" then found["hv_" .. name] = true end
    end
    assert.same(sorted(expected), sorted(found))
  end)
end)

helper.kvm("lunavisor.hv", function()
  it("lacks what the library lacks", function()
    support.vm()
    local id, count = assert(hv.vcpu_create()), 0
    for name, state in pairs(rows()) do
      if state:match "^`HV_UNSUPPORTED`" or state:match "always `HV_UNSUPPORTED`" then
        count = count + 1
        local ok, _, code = hv[name:gsub("^hv_", "")](id, 0, 0)
        assert.same({ name, nil, "unsupported" }, { name, ok, code })
      end
    end
    assert.equal(2, count)
  end)
end)
