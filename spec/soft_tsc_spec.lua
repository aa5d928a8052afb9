-- SPDX-License-Identifier: MIT
-- The time-stamp counter of the software CPU at another frequency than that of the host: what RDTSC
-- gives, kvmclock's page, and the LAPIC's timer by TSC deadline.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"
local u64 = luna.u64

local READ = "rdtsc\n out 0x30, al\n jmp 0x1000"

local function counter(cpu)
  local exit = cpu:run { timeout = 60 }
  assert(exit.kind == "pio", tostring(exit))
  cpu:answer()
  return u64.bor(u64.lshift(cpu.rdx, 32), u64.band(cpu.rax, 0xffffffff))
end

local function ticks_of(cpu, from)
  return u64.tonumber(counter(cpu) - from)
end

soft.block("a scaled TSC of the software CPU", function()
  it("is as much slower or faster as was asked", function()
    local guest = soft.guest { source = READ }
    local plain, scaled = guest.cpu, helper.keep(guest.vm:vcpu { mode = "real", rip = 0x1000 })
    for _, hertz in ipairs { 1e7, 1e9, 2e10 } do
      scaled.tsc_frequency = hertz
      assert.equal(hertz, scaled.tsc_frequency)
      local mine, theirs = counter(scaled), counter(plain)
      local began = os.clock()
      while os.clock() - began < 0.05 do end
      local ratio = ticks_of(scaled, mine) / ticks_of(plain, theirs)
      local expected = hertz / plain.tsc_frequency
      assert.truthy(ratio > 0.5 * expected and ratio < 2 * expected, ratio / expected)
    end
  end)

  it("refuses what is out of reach, and keeps what it had", function()
    local cpu = soft.guest({ source = READ }).cpu
    local hertz = cpu.tsc_frequency
    helper.raises("cannot set the TSC frequency of vCPU 0 to 4000000000 kHz",
      function() cpu.tsc_frequency = 4e12 end)
    assert.equal(hertz, cpu.tsc_frequency)
  end)

  it("is what kvmclock's page counts by", function()
    for _, hertz in ipairs { 1e8, 1e9, 5e9 } do
      local guest = soft.guest { source = [[
        mov ecx, 0x4b564d01
        mov eax, 0x2001
        xor edx, edx
        wrmsr
        hlt]] }
      guest.cpu.tsc_frequency = hertz
      guest:stops "hlt"
      local factor, shift = guest.ram:u32(0x2018), guest.ram:u8(0x201c)
      local tick = factor * 2 ^ shift / 2 ^ 32
      assert.truthy(math.abs(tick * hertz / 1e9 - 1) < 1e-6, tick)
    end
  end)

  it("is what the LAPIC's deadline is a value of", function()
    local guest = soft.real [[
      mov dword [fs:0x320], 0x40040
      rdtsc
      add eax, 0x80000
      adc edx, 0
      mov esi, eax
      mov edi, edx
      mov ecx, 0x6e0
      wrmsr
      sti
      hlt
      rdtsc
      sub eax, esi
      sbb edx, edi
      out 0x30, al]]
    guest.cpu.tsc_frequency = 1e8 -- 5 ms
    guest:stops "pio"
    assert.same({ 0x40 }, guest.taken)
    assert.equal("0x0", luna.hex(guest.cpu.rdx)) -- not before
  end)
end)
