-- SPDX-License-Identifier: MIT
-- The local APIC's MSRs against SDM Vol. 3, 11.12, whose sections are cited: without a VM, and
-- under guests whose KVM has no LAPIC and hands unknown MSRs over.

local buses = require "lunavisor.device.models.apic_bus"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local lapic = require "lunavisor.device.models.lapic"
local luna = require "lunavisor"
local random = require "spec.support.device"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"
local x2apic = require "lunavisor.device.models.x2apic"

local BASE = 0x1b
local OFF, X1, X2 = 0xfee00000, 0xfee00800, 0xfee00c00

local apic, clock

local function rd(msr)
  local value = apic:read_msr(msr)
  return value and u64.tonumber(value)
end
local function wr(msr, value) return apic:write_msr(msr, value) end

local function fresh(options)
  clock = device.clock()
  local all = { clock = clock, log = false, frequency = 1e6 }
  for key, value in pairs(options or {}) do all[key] = value end
  return lapic(all)
end

-- One in x2APIC mode that is switched on.
local function on(options)
  local made = fresh(options)
  assert.is_true(made:write_msr(BASE, X2))
  assert.is_true(made:write_msr(0x80f, 0x1ff))
  return made
end

describe("IA32_APIC_BASE (11.12.1, 11.12.5)", function()
  before_each(function() apic = fresh() end)

  it("is at power-up that of a LAPIC that is on, and says who begins", function()
    assert.equal(X1, rd(BASE))
    apic = fresh { boot = true }
    assert.equal(X1 + 0x100, rd(BASE))
  end)

  it("goes from off to xAPIC to x2APIC and off, and no other way", function()
    local values = { off = OFF, x1 = X1, x2 = X2 }
    local ways = { off = {}, x1 = { X1 }, x2 = { X1, X2 } }
    local allowed = { off = "off x1", x1 = "off x1 x2", x2 = "off x2" }
    for from, list in pairs(ways) do
      for to, value in pairs(values) do
        apic = fresh()
        wr(BASE, OFF)
        for _, step in ipairs(list) do assert.is_true(wr(BASE, step)) end
        local may = allowed[from]:find(to, 1, true) ~= nil
        assert.equal(may, wr(BASE, value), from .. " to " .. to)
        assert.equal(may and value or values[from], rd(BASE))
      end
    end
  end)

  it("refuses EXTD without EN or without that mode, reserved bits, and addresses beyond", function()
    apic = fresh { physical = 36 }
    for _, value in ipairs { 0xfee00400, X1 + 1, X1 + 0x200, u64("0x10fee00800"),
      u64("0x80000000fee00800") } do
      assert.is_false(wr(BASE, value))
    end
    assert.equal(X1, rd(BASE))
    apic = fresh { x2apic = false }
    assert.is_false(wr(BASE, X2))
    assert.equal(X1, rd(BASE))
  end)

  it("moves its page (11.4.5), which whoever has it there is told", function()
    local places = {}
    local options = { physical = 36, moved = function(d) places[#places + 1] = x2apic.place(d) end }
    apic = fresh(options)
    places = {}
    assert.is_true(wr(BASE, 0xfed00800))
    assert.is_true(wr(BASE, u64("0xfffff5800")))
    assert.equal(0xfffff5800, rd(BASE))
    apic:deliver { vector = 0, mode = 5 } -- INIT leaves it
    assert.is_true(wr(BASE, u64("0xfffff5000")))
    assert.equal(0xfffff5000, rd(BASE))
    assert.same({ 0xfed00000, 0xfffff5000, 0xfee00000, 0xfffff5000 }, places)
    local saved = apic:save()
    apic = fresh(options)
    assert.is_true(apic:load(saved))
    assert.same({ 0xfffff5000, 0xfffff5000 }, { rd(BASE), places[#places] })
    apic:reset()
    assert.same({ X1, 0xfee00000 }, { rd(BASE), places[#places] })
  end)

  it("resets the LAPIC when it is switched off (11.4.3), and INIT keeps the mode", function()
    wr(BASE, X2)
    wr(0x80f, 0x1ff)
    wr(0x808, 0x30)
    apic:deliver { vector = 0, mode = 5 }
    assert.equal(X2, rd(BASE))
    assert.same({ 0xff, 0 }, { rd(0x80f), rd(0x808) })
    wr(0x80f, 0x1ff)
    wr(BASE, OFF)
    assert.is_nil(rd(0x80f))
    wr(BASE, X1)
    assert.equal(0xff, apic:read(0xf0, 4))
  end)
end)

describe("the MSRs of x2APIC mode (table 11-6)", function()
  before_each(function() apic = on { id = 0x12345 } end)

  it("are not there in xAPIC mode", function()
    apic = fresh()
    for _, msr in ipairs { 0x802, 0x808, 0x830, 0x83f } do
      assert.is_nil(rd(msr))
      assert.is_false(wr(msr, 0))
    end
  end)

  it("can be read and written as the table says, and no others are there", function()
    local both, read, write = {}, {}, {}
    for _, msr in ipairs { 0x808, 0x80f, 0x828, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837,
      0x838, 0x83e } do both[msr] = true end
    for _, msr in ipairs { 0x802, 0x803, 0x80a, 0x80d, 0x839 } do read[msr] = true end
    for msr = 0x810, 0x827 do read[msr] = true end
    write[0x80b], write[0x83f] = true, true
    for msr = 0x800, 0x8ff do
      local text = ("0x%x"):format(msr)
      assert.equal(both[msr] or read[msr] or false, rd(msr) ~= nil, text)
      local value = msr == 0x830 and 0x40051 or msr == 0x83f and 0x51 or 0
      assert.equal(both[msr] or write[msr] or false, wr(msr, value), text)
    end
    assert.is_nil(rd(0x7ff))
    assert.is_false(wr(0x900, 0))
  end)

  it("have numbers of 32 bits, and the logical one comes of it (11.12.10.2)", function()
    assert.same({ 0x12345, 0x12340000 + 2 ^ 5 }, { rd(0x802), rd(0x80d) })
    assert.equal(0x00050014, rd(0x803))
    assert.equal(0x45, fresh { id = 0x12345 }.ID.id)
  end)

  it("refuse bits that are reserved (11.12.1.3)", function()
    for msr, value in pairs { [0x808] = 0x100, [0x80f] = 0x1000, [0x80b] = 1, [0x828] = 1,
      [0x830] = 0x2051, [0x832] = 0x80000, [0x835] = 0x20000, [0x83e] = 4, [0x83f] = 0x100 } do
      assert.is_false(wr(msr, value), ("0x%x"):format(msr))
      if msr ~= 0x830 then assert.is_false(wr(msr, u64(1, 0)), ("0x%x"):format(msr)) end
    end
    for _, value in ipairs { 0x10051, 0x100051, 0x80000051 } do
      assert.is_false(wr(0x830, value))
    end
    assert.is_true(wr(0x830, 0x1051)) -- delivery status is no bit any more
  end)

  it("hold an interrupt from IRR to ISR and its end", function()
    assert.is_true(wr(0x83f, 0x51))
    assert.equal(0x20000, rd(0x822))
    assert.is_true(wr(0x808, 0x50))
    assert.is_false(apic.lines.intr)
    wr(0x808, 0)
    assert.equal(0x51, apic:acknowledge())
    assert.same({ 0x20000, 0, 0x50 }, { rd(0x812), rd(0x822), rd(0x80a) })
    assert.is_true(wr(0x80b, 0))
    assert.same({ 0, 0 }, { rd(0x812), rd(0x80a) })
  end)

  it("have the timer", function()
    wr(0x83e, 0xb)
    wr(0x832, 0x40)
    wr(0x838, 1000)
    clock:advance(0.0004)
    assert.equal(600, rd(0x839))
    clock:advance(0.0007)
    assert.equal(0x40, apic:acknowledge())
  end)

  it("note a vector below 16 that is sent as an error (11.12.11)", function()
    assert.is_true(wr(0x83f, 5))
    assert.is_false(apic.lines.intr)
    assert.is_true(wr(0x828, 0))
    assert.equal(0x20, rd(0x828))
  end)

  it("have an ICR of 64 bits, written at once (11.12.9)", function()
    local sent = {}
    apic = on { id = 3, send = function(message) sent[#sent + 1] = message end }
    wr(0x830, u64(0xabcdef01, 0x00000851))
    assert.equal(1, #sent)
    local message = sent[1]
    assert.same({ 0xabcdef01, true, true, 0x51 },
      { message.dest, message.wide, message.logical, message.vector })
    assert.equal(u64(0xabcdef01, 0x851), apic:read_msr(0x830))
  end)

  it("are in its state", function()
    wr(0x83f, 0x51)
    wr(0x830, u64(7, 0x851))
    local other = fresh { id = 0x12345 }
    assert(other:load(apic:save()))
    apic = other
    assert.same({ X2, 0x20000 }, { rd(BASE), rd(0x822) })
    assert.equal(u64(7, 0x851), apic:read_msr(0x830))
  end)
end)

random.describe("lapic in x2APIC mode", function(log)
  return on { log = log, signal = function() end }
end, function(made, next)
  local msr = next(4) == 0 and BASE or 0x800 + next(0x41)
  if next(2) == 0 then made:read_msr(msr) end
  made:write_msr(msr, next(2) == 0 and next(256) or u64(next(2 ^ 31), next(2 ^ 31)))
end)

describe("a bus of LAPICs in both modes (11.12.10)", function()
  local bus, list

  -- Numbers 1 and 2 with eight bits, 0x21, 0x22 and 0x101 in x2APIC mode.
  before_each(function()
    bus, list = buses.new(), {}
    for i, id in ipairs { 1, 2, 0x21, 0x22, 0x101 } do
      local one = bus:lapic { id = id, log = false, clock = device.clock() }
      if id > 2 then one:write_msr(BASE, X2) end
      if id > 2 then one:write_msr(0x80f, 0x1ff) else one:write(0xf0, 4, 0x1ff) end
      if id <= 2 then one:write(0xd0, 4, id * 2 ^ 24) end
      list[i] = one
    end
  end)

  local function who()
    local text = {}
    for _, one in ipairs(list) do
      if one.lines.intr then
        assert.equal(0x51, one:acknowledge())
        text[#text + 1] = ("%x"):format(one.options.id)
        if one.BASE.extended == 1 then one:write_msr(0x80b, 0) else one:write(0xb0, 4, 0) end
      end
    end
    return table.concat(text, " ")
  end

  local function wide(high, low)
    list[3]:write_msr(0x830, u64(high, low))
    return who()
  end

  local function narrow(dest, low)
    list[1]:write(0x310, 4, dest * 2 ^ 24)
    list[1]:write(0x300, 4, low)
    return who()
  end

  it("has physical destinations of 32 bits, and of eight", function()
    assert.equal("101", wide(0x101, 0x51))
    assert.equal("2", wide(2, 0x51))
    assert.equal("", wide(255, 0x51))
    assert.equal("1 2 21 22 101", wide(0xffffffff, 0x51))
    assert.equal("22", narrow(0x22, 0x51))
    assert.equal("1 2 21 22 101", narrow(255, 0x51))
  end)

  it("has logical ones by cluster and bit (11.12.10.1)", function()
    assert.equal("21 22", wide(0x00020006, 0x851))
    assert.equal("21", wide(0x00020002, 0x851))
    assert.equal("101", wide(0x00100002, 0x851))
    assert.equal("", wide(0x00100004, 0x851))
    assert.equal("1 2 21 22 101", wide(0xffffffff, 0x851))
    assert.equal("1 2", narrow(3, 0x851))
  end)

  it("has shorthands", function()
    assert.equal("21", wide(0, 0x40051))
    assert.equal("1 2 22 101", wide(0, 0xc0051))
    assert.equal("1 2 21 22 101", narrow(0, 0x80051))
  end)

  it("has messages of devices, whose destination has eight bits (11.11)", function()
    bus:message(0xfee21000, 0x51)
    assert.equal("21", who())
    bus:message(0xfeeff000, 0x51)
    assert.equal("1 2 21 22 101", who())
  end)
end)

helper.kvm("x2APIC in Lua, under guests", function()
  local function guest(source, options)
    local features = luna.probe().features
    if (features.x86_msr_filter or 0) == 0 then pending "this KVM has no MSR filter" end
    local made = helper.guest { mode = "long", source = source,
      vm = options or { unknown_msrs = "exit" } }
    made.bus = buses.new()
    made.lapic = assert(made.bus:vcpu(made.cpu, { log = false, frequency = 1e6 }))
    return made
  end

  local function number(value) return u64.tonumber(value) end
  local ENTER = [[
    mov ecx, 0x1b
    rdmsr
    or eax, 0x400
    wrmsr
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
]]

  local MOVE = [[
    mov ecx, 0x1b
    rdmsr
    and eax, 0xfff
    or eax, 0xfed00000
    wrmsr
    mov esi, 0xfed00000
    mov r8d, [rsi + 0x30]
]]

  it("is entered by IA32_APIC_BASE, and its page is gone then", function()
    local g = guest("mov esi, 0xfee00000\n mov r8d, [rsi + 0x30]\n" .. ENTER .. [[
      mov r9d, [rsi + 0x30]
      mov dword [rsi + 0x80], 0x20
      mov ecx, 0x803
      rdmsr
      mov r10d, eax
      mov ecx, 0x808
      rdmsr
      mov r11d, eax
      hlt ]])
    g:stops "hlt"
    local seen = {}
    for i, name in ipairs { "r8", "r9", "r10", "r11" } do seen[i] = number(g.cpu[name]) end
    assert.same({ 0x50014, 0xffffffff, 0x50014, 0 }, seen)
    assert.equal(1, word.bits(g.cpu.cpuid[1].ecx, 21))
  end)

  it("is not entered where the VM's unknown MSRs are #GP, but the page can be moved", function()
    local g = guest(ENTER .. "hlt", {})
    assert.equal("#GP", g:stops "exception".name)
    assert.equal(number(g.cpu.rcx), BASE)
    g = guest(MOVE .. "hlt", {})
    g:stops "hlt"
    assert.equal(0x50014, number(g.cpu.r8))
  end)

  it("is where IA32_APIC_BASE says, and nowhere else, each vCPU's own", function()
    local g = guest(MOVE .. [[
      mov dword [rsi + 0xf0], 0x1ff
      mov r9d, [rsi + 0xf0]
      mov rsi, 0xfee00000
      mov r10d, [rsi + 0x30]
      hlt ]])
    local fault = g:stops "fault"
    assert.equal(0xfee00030, fault.gpa)
    assert.same({ 0x50014, 0x1ff }, { number(g.cpu.r8), number(g.cpu.r9) })
    assert.equal(0x1ff, g.lapic.SVR.value)
    local other = helper.keep(g.vm:vcpu { mode = "long", rip = tonumber(g.cpu.rip) })
    other.rip, other.rsi, other.cr3 = g.cpu.rip, g.cpu.rsi, g.cpu.cr3
    assert(g.bus:vcpu(other, { log = false }))
    assert.equal("hlt", assert(other:run { timeout = 60 }).kind)
    assert.equal(0x50014, number(other.r10))
    g.lapic:reset()
    assert.is_nil(next(g.bus.pages, next(g.bus.pages))) -- one page, for both
    assert.equal(0xfee00000, (next(g.bus.pages)))
  end)

  it("says where it cannot be got at", function()
    local g, said = guest(MOVE .. "hlt"), {}
    g.lapic.logger = function(text) said[#said + 1] = text end
    local ram = helper.keep(luna.buffer(4096))
    g.vm.default:map(ram, 0xfed00000)
    g:stops "hlt"
    assert.equal(0, number(g.cpu.r8))
    helper.contains("lapic0: the guest cannot get at its page at gpa 0xfed00000: memory is mapped "
      .. "at 0xfed00000..0xfed00fff (rwx)", said[1])
    g.lapic:reset()
    g.vm.default:unmap(0xfed00000, 4096)
    g.vm:mmio(0xfed00000, 0x40, { read = function() return 5 end })
    g.cpu.rip = 0x1000
    g:stops "hlt"
    assert.equal(5, number(g.cpu.r8))
    helper.contains("0xfed00000: cannot trap gpa 0xfed00000..0xfed00fff: 0xfed00000..0xfed0003f is "
      .. "trapped already", said[2])
  end)

  it("is a #GP in xAPIC mode, and for what is not allowed", function()
    for _, source in ipairs { "mov ecx, 0x802\n rdmsr", ENTER .. "mov ecx, 0x80e\n rdmsr",
      ENTER .. "mov ecx, 0x802\n wrmsr", ENTER .. "mov ecx, 0x1b\n mov eax, 0xfee00800\n wrmsr" } do
      assert.equal("#GP", guest(source .. "\n hlt"):stops "exception".name)
    end
  end)

  it("raises interrupts by SELF IPI, which CR8 holds back", function()
    local g = guest(ENTER .. [[
      mov ecx, 0x83f
      mov eax, 0x51
      wrmsr
      mov eax, 6
      mov cr8, rax
      mov ecx, 0x808
      rdmsr
      mov ebx, eax
      sti
      nop
      nop
      out 0x10, al
      xor eax, eax
      mov cr8, rax
      nop
      nop
      hlt ]])
    g:stops "pio"
    assert.equal(0x60, number(g.cpu.rbx))
    assert.equal(0x20000, g.lapic.IRR[2])
    g.cpu:answer()
    assert.equal("interrupt 0x51", g:stops("exception").name)
    assert.equal(0x20000, g.lapic.ISR[2])
  end)

  it("carries IPIs between two vCPUs, and starts one by INIT and SIPI", function()
    local enter = "cli\n xor ax, ax\n mov ds, ax\n" .. ENTER
    local g = helper.guest { vm = { unknown_msrs = "exit" }, source = enter .. [[
      mov ecx, 0x830
      mov edx, 1
      mov eax, 0x4500
      wrmsr
      mov eax, 0x4609
      wrmsr
      again: cmp byte [0x520], 1
      jne again
      mov eax, 0x51
      wrmsr
      until: cmp word [0x510], 1
      jne until
      out 0x10, al ]] }
    local bus = buses.new()
    assert(bus:vcpu(g.cpu, { log = false }))
    g.ram:u16(4 * 0x51, 0x2100)
    g.ram:write(0x2100, helper.code("inc word [0x510]\n mov ecx, 0x80b\n xor eax, eax\n "
      .. "xor edx, edx\n wrmsr\n iret", 16, 0x2100))
    g.ram:write(0x9000, helper.code(enter .. "mov byte [0x520], 1\n sti\n next: hlt\n jmp next", 16,
      0))
    g.vm:pio(0x10, 1, { write = function(_, _, _, value) g.vm:stop(value) end })
    local other = helper.keep(g.vm:vcpu { mode = "real", rip = 0x9000, rsp = 0x7000 })
    local second = assert(bus:vcpu(other, { log = false, wait = true }))
    local exit = assert(g.vm:run { timeout = 20 })
    assert.equal("stopped", exit.kind, tostring(exit))
    assert.equal(1, g.ram:u16(0x510))
    assert.equal(X2, u64.tonumber(second:read_msr(BASE)))
  end)

  it("is not there, and CPUID says so, where unknown MSRs are no exits", function()
    local g = guest("mov ecx, 0x1b\n rdmsr\n mov ebx, eax\n mov ecx, 0x802\n rdmsr\n hlt", {})
    assert.equal(0, word.bits(g.cpu.cpuid[1].ecx, 21))
    assert.equal("#GP", g:stops "exception".name)
    assert.equal(0xfee00900, number(g.cpu.rbx))
  end)
end)
