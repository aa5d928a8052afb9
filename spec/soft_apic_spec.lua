-- SPDX-License-Identifier: MIT
-- Of the software CPU's LAPIC and MSRs, and of KVM's hypercalls, what a spec cannot ask of any KVM.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local soft = require "spec.support.soft"
local hex, u64 = luna.hex, luna.u64

local READ, WRITE = 0x1000, 0x1010
local BASE = 0x1b
local APIC, NMI = 0xfee00000, 0x400 -- of a message

-- A 64-bit guest with RDMSR and WRMSR at the places above.
local function msr_guest()
  local guest = soft.guest { mode = "long", vm = { irqchip = "split", unknown_msrs = "fault" },
    source = [[
    rdmsr
    out 0x30, al
    align 16
    wrmsr
    out 0x30, al]] }
  guest.vm:pio(0x30, 1, { write = function() guest.vm:stop() end })
  return guest
end

-- Which MSRs of the list make #GP, as text. A row may be { msr, low, high }.
local function refused(guest, at, rows)
  local list, cpu = {}, guest.cpu
  for _, row in ipairs(rows) do
    if type(row) == "number" then row = { row } end
    cpu.rip, cpu.rcx, cpu.rax, cpu.rdx = at, row[1], row[2] or 0, row[3] or 0
    local exit = guest:run()
    if exit.name == "#GP" then
      list[#list + 1] = ("%x"):format(row[1])
    elseif exit.kind ~= "stopped" then
      error(tostring(exit))
    end
  end
  return table.concat(list, " ")
end

local function range(first, last)
  local list = {}
  for number = first, last do list[#list + 1] = number end
  return list
end

soft.block("the software CPU's x2APIC", function()
  it("has those MSRs that SDM table 11-6 lists, and no others", function()
    local guest = msr_guest()
    assert.equal("", refused(guest, WRITE, { { BASE, 0xfee00d00 } }))
    assert.equal("800 801 804 805 806 807 809 80b 80c 80e 829 82a 82b 82c 82d 82e 82f 831 83a 83b "
      .. "83c 83d 83f 840", refused(guest, READ, range(0x800, 0x840)))
    assert.equal("80d 83f", refused(guest, WRITE, { 0x808, 0x80b, 0x80d, 0x838, { 0x83f, 0x100 } }))
  end)

  it("is not there where CPUID does not show it", function()
    local guest = msr_guest()
    guest.cpu.cpuid[1].ecx = 0
    assert.equal("1b", refused(guest, WRITE, { { BASE, 0xfee00d00 } }))
    assert.equal("", refused(guest, WRITE, { { BASE, 0xfee00900 } }))
  end)
end)

soft.block("the software CPU's LAPIC", function()
  it("goes on counting from one-shot to periodic, and not by deadline", function()
    local guest = soft.real [[
      mov dword [fs:0x3e0], 0xb
      mov dword [fs:0x320], 0x10040
      mov dword [fs:0x380], 0x70000000
      mov dword [fs:0x320], 0x30040
      mov eax, [fs:0x380]
      mov ebx, [fs:0x390]
      mov dword [fs:0x320], 0x50040
      mov ecx, [fs:0x380]
      out 0x30, al]]
    guest:stops "pio"
    local cpu = guest.cpu
    assert.same({ "0x70000000", "0x0" }, { hex(cpu.rax), hex(cpu.rcx) })
    assert.is_true(u64.tonumber(cpu.rbx) > 0x1000000)
  end)

  it("shows in CPUID whether it is on", function()
    local guest = soft.real [[
      mov ecx, 0x1b
      rdmsr
      and ah, 0xf7
      wrmsr
      mov eax, 1
      cpuid
      mov esi, edx
      mov ecx, 0x1b
      rdmsr
      or ah, 8
      wrmsr
      mov eax, 1
      cpuid
      out 0x30, al]]
    guest:stops "pio"
    local bit = 2 ^ 9
    assert.equal(0, math.floor(u64.tonumber(guest.cpu.rsi) / bit) % 2)
    assert.equal(1, math.floor(u64.tonumber(guest.cpu.rdx) / bit) % 2)
  end)
end)

soft.block("the software CPU's NMIs", function()
  it("are two where they come at once, as KVM has it", function()
    local guest = soft.real "mov cx, 9000\n count: loop count\n out 0x30, al"
    for _ = 1, 3 do guest.vm:msi(APIC, NMI) end
    guest:stops "pio"
    assert.same({ 2, 2 }, guest.taken)
  end)

  it("are one more where they come while one is handled", function()
    local guest = soft.real "mov cx, 9000\n count: loop count\n out 0x30, al"
    local taken = 0
    guest.ram:write(0x4040, "\xe6\x61" .. irq.EOI .. "\xcf") -- out 0x61, al; ...; iret
    guest.vm:pio(0x61, 1, { write = function()
      taken = taken + 1
      for _ = 1, taken == 1 and 3 or 0 do guest.vm:msi(APIC, NMI) end
    end })
    guest.vm:msi(APIC, NMI)
    guest:stops "pio"
    assert.equal(2, taken)
  end)
end)

soft.block("the software CPU's MSRs", function()
  it("have TSC_ADJUST, which moves with the TSC and moves it", function()
    local guest = soft.guest { source = [[
      rdtsc
      mov edi, edx
      mov ecx, 0x3b
      xor eax, eax
      mov edx, 0x1000
      wrmsr
      rdtsc
      mov esi, edx
      mov ecx, 0x10
      xor eax, eax
      mov edx, 0x2000
      wrmsr
      mov ecx, 0x3b
      rdmsr
      hlt]] }
    local before = guest.cpu.tsc_offset
    guest:stops "hlt"
    local moved = u64.tonumber(guest.cpu.rsi) - u64.tonumber(guest.cpu.rdi)
    assert.is_true(moved >= 0x1000 and moved < 0x1010)
    local by = u64(u64.tonumber(guest.cpu.rdx), u64.tonumber(guest.cpu.rax))
    assert.equal(hex(before + by), hex(guest.cpu.tsc_offset))
  end)

  it("are without SPEC_CTRL, as CPUID has it", function()
    assert.equal("48 49", refused(msr_guest(), READ, { 0x48, 0x49 }))
  end)
end)

soft.block("a hypercall of the software CPU", function()
  local CALL = "db 0x0f, 0x01, 0xc1\n" -- VMCALL

  it("sends an interrupt to the vCPUs of a bitmap", function()
    local guest = soft.real("mov eax, 10\n mov ebx, 3\n xor ecx, ecx\n xor edx, edx\n"
      .. "mov esi, 0x55\n" .. CALL .. "sti\n nop\n nop\n cli\n out 0x30, al")
    guest:stops "pio"
    assert.same({ 0x55 }, guest.taken)
    assert.equal("0x1", hex(guest.cpu.rax)) -- one of the two is there
  end)

  it("wakes a vCPU that halts with interrupts off", function()
    local guest = soft.real("mov eax, 5\n xor ebx, ebx\n xor ecx, ecx\n" .. CALL
      .. "mov ebp, eax\n cli\n hlt\n out 0x30, al")
    guest:stops "pio"
    assert.equal("0x0", hex(guest.cpu.rbp))
  end)

  for _, mode in ipairs { "real", "long" } do
    it("wakes the vCPU that ECX names, in mode " .. mode, function()
      local guest = soft.guest { mode = mode, vm = { irqchip = "split" },
        source = "mov eax, 5\n xor ebx, ebx\n mov ecx, 1\n" .. CALL .. "out 0x30, al" }
      guest.ram:write(0x6000, "\xfa\xf4\xe6\x31") -- cli; hlt; out 0x31, al
      local second = assert(guest.vm:vcpu { rip = 0x6000 })
      helper.within(function()
        assert.equal("timeout", second:run({ timeout = 0.02 }).kind)
        return second.mp_state == "halted"
      end)
      guest:stops "pio"
      assert.equal(0x31, second:run({ timeout = 60 }).port)
    end)
  end

  it("is -ENOSYS where there is none, and -EPERM for programs", function()
    local guest = soft.real("mov eax, 77\n" .. CALL .. "out 0x30, al")
    guest:stops "pio"
    assert.equal("0xfffffc18", hex(guest.cpu.rax))
    local user = soft.guest { mode = "user", source = "mov eax, 11\n" .. CALL .. "ud2" }
    user:stops "exception"
    assert.equal("0xffffffffffffffff", hex(user.cpu.rax))
  end)

  it("is named by CPUID", function()
    local guest = soft.real "hlt"
    local features = guest.cpu.cpuid[0x40000001].eax
    for _, bit in ipairs { 7, 11, 13 } do
      assert.equal(1, math.floor(features / 2 ^ bit) % 2)
    end
  end)
end)
