-- SPDX-License-Identifier: MIT
-- The time-stamp counter: its frequency, its offset, and the counters of a VM at one moment.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, u64 = luna.hex, luna.u64

-- Reads the counter into EAX and EDX.
local READ = "rdtsc\n out 0x30, al\n jmp 0x1000"

local function counter(cpu)
  local exit = cpu:run { timeout = 60 }
  assert(exit.kind == "pio", tostring(exit))
  cpu:answer()
  return u64.bor(u64.lshift(cpu.rdx, 32), u64.band(cpu.rax, 0xffffffff))
end

-- From `expected`, at most five seconds have passed.
local function close_to(expected, found, cpu)
  local ticks = found - u64(expected)
  assert.truthy(u64.lt(ticks, 5 * cpu.tsc_frequency),
    ("%s after %s"):format(hex(found), hex(expected)))
end

-- Whether this KVM keeps an offset.
local function need_offset(cpu)
  local ok, message = pcall(function() cpu.tsc_offset = u64 "0x100000" end)
  if not ok then
    helper.contains("this host's KVM keeps none (KVM_VCPU_TSC_OFFSET", message)
    helper.refused("unsupported", "cannot synchronize the TSCs", cpu.vm:sync_tsc(1))
    pending "this host's KVM keeps no TSC offset"
  end
end

helper.kvm("the TSC of a vCPU", function()
  it("has a frequency, which can be set where KVM scales", function()
    local cpu = helper.guest({ source = READ }).cpu
    local hertz = cpu.tsc_frequency
    assert.truthy(hertz > 1e8 and hertz < 1e10, hertz)
    cpu.tsc_frequency = hertz
    if (luna.probe().features.tsc_control or 0) == 0 then
      helper.raises("has no KVM_CAP_TSC_CONTROL", function() cpu.tsc_frequency = 1e9 end)
      assert.equal(hertz, cpu.tsc_frequency)
    else
      cpu.tsc_frequency = 1e9
      assert.equal(1e9, cpu.tsc_frequency)
    end
    helper.raises("cpu.tsc_frequency: a whole number", function() cpu.tsc_frequency = "1 GHz" end)
  end)

  it("has an offset that is kept or refused, also after one that changes nothing", function()
    local cpu = helper.guest({ source = READ }).cpu
    local ok, message = pcall(function() cpu.tsc_offset = cpu.tsc_offset end)
    if ok then
      ok, message = pcall(function() cpu.tsc_offset = u64 "0x100000" end)
    end
    if ok then
      assert.equal("0x100000", hex(cpu.tsc_offset))
    else
      helper.contains("this host's KVM keeps none", message)
    end
  end)

  it("has an offset, that the guest sees", function()
    local cpu = helper.guest({ source = READ }).cpu
    need_offset(cpu)
    local before = counter(cpu)
    local ahead = u64 "0x100000000000000"
    cpu.tsc_offset = cpu.tsc_offset + ahead
    close_to(before + ahead, counter(cpu), cpu)
    cpu.tsc_offset = cpu.tsc_offset - ahead
    close_to(before, counter(cpu), cpu)
    helper.raises("cpu.tsc_offset: an integer expected, got 1.5",
      function() cpu.tsc_offset = 1.5 end)
  end)

  it("keeps the offset in every space, wherever it was set", function()
    local guest = helper.guest { source = READ }
    local cpu, view = guest.cpu, assert(guest.vm:space())
    need_offset(cpu)
    assert(view:map(guest.ram, 0))
    cpu:set_space(view)
    cpu:set_space(0)
    local ahead = cpu.tsc_offset + u64 "0x200000000000000"
    cpu.tsc_offset = ahead
    cpu:set_space(view)
    assert.equal(hex(ahead), hex(cpu.tsc_offset))
    cpu.tsc_offset = ahead + 5
    cpu:set_space(0)
    assert.equal(hex(ahead + 5), hex(cpu.tsc_offset))
  end)

  it("shows a value at one moment in all vCPUs", function()
    local guest = helper.guest { source = READ }
    local first, second = guest.cpu, guest.vm:vcpu { rip = 0x1000 }
    need_offset(first)
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    second:set_space(view)
    first.tsc_offset = u64 "0x300000000000000"
    local value = u64 "0x7000000000000"
    assert.is_true(guest.vm:sync_tsc(value))
    assert.equal(hex(first.tsc_offset), hex(second.tsc_offset))
    close_to(value, counter(first), first)
    close_to(value, counter(second), second)
    second:set_space(0)
    assert.equal(hex(first.tsc_offset), hex(second.tsc_offset))
    assert.is_true(guest.vm:sync_tsc(0))
    close_to(0, counter(second), second)
    helper.raises("vm:sync_tsc: value: an integer expected",
      function() guest.vm:sync_tsc "now" end)
  end)

  it("can be synchronized where there is no vCPU", function()
    assert.is_true(helper.keep(luna.vm()):sync_tsc(1))
  end)
end)
