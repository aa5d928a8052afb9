-- SPDX-License-Identifier: MIT
-- KVM's clock for guests (kvmclock): it goes on when a vCPU changes its space or gets a state.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local u64 = luna.u64

local PAGE = 0x5000 -- struct pvclock_vcpu_time_info

-- A guest that leaves again and again, with the page of its clock. nil where KVM has none.
local function clock_guest()
  local guest = helper.guest { source = "again: out 0x10, al\n jmp again" }
  if not pcall(function() guest.cpu.msr[0x4b564d01] = u64(PAGE + 1) end) then
    pending "this host's KVM has no kvmclock"
  end
  return guest
end

-- In seconds, as the guest computes it at an exit.
local function clock(guest)
  guest:stops "pio"
  guest.cpu:answer()
  local ram = guest.ram
  local shift = ram:u8(PAGE + 0x1c)
  if shift > 127 then shift = shift - 256 end
  local ticks = u64.tonumber(guest.cpu.msr.tsc - ram:u64(PAGE + 8))
  local since = ticks * 2 ^ shift * ram:u32(PAGE + 0x18) / 2 ^ 32
  return (since + u64.tonumber(ram:u64(PAGE + 0x10))) / 1e9
end

local function wait(seconds)
  local moment = luna.clock() + seconds
  repeat until luna.clock() >= moment
end

helper.kvm("KVM's clock", function()
  it("goes on in a space that was made later", function()
    local guest = clock_guest()
    local created = clock(guest)
    wait(0.2)
    local before = clock(guest)
    assert.is_true(before - created > 0.15, "it does not run")
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    assert(guest.cpu:set_space(view))
    local after = clock(guest)
    assert.is_true(after >= before and after < before + 5, ("%f, then %f"):format(before, after))
    assert(guest.cpu:set_space(0))
    assert.is_true(clock(guest) >= after)
  end)

  it("goes on where a state is restored in a younger VM, in each of its spaces", function()
    local guest = clock_guest()
    wait(0.2)
    local before = clock(guest)
    local state = guest.cpu:state()
    local younger = clock_guest()
    local view = assert(younger.vm:space())
    assert(view:map(younger.ram, 0))
    assert.is_true(younger.cpu:set_state(state))
    local after = clock(younger)
    assert.is_true(after >= before and after < before + 5, ("%f, then %f"):format(before, after))
    assert(younger.cpu:set_space(view))
    assert.is_true(clock(younger) >= after)
  end)

  it("does not go back where an older state is restored", function()
    local guest = clock_guest()
    clock(guest)
    local state = guest.cpu:state()
    wait(0.1)
    local before = clock(guest)
    assert.is_true(guest.cpu:set_state(state))
    assert.is_true(clock(guest) >= before)
  end)
end)
