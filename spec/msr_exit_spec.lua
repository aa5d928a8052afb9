-- SPDX-License-Identifier: MIT
-- MSRs that belong to devices, MSRs that KVM does not know, and the #GP for what is refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, contains = helper.raises, helper.contains

local SYSENTER_CS = 0x174 -- an MSR that every KVM keeps
local UNKNOWN = 0x12345   -- one that no processor has

-- Where this host's KVM cannot make exits of MSRs.
local function needs_filter()
  local features = luna.probe().features
  if (features.x86_msr_filter or 0) == 0 or (features.x86_user_space_msr or 0) == 0 then
    pending "this KVM has no MSR filter"
  end
end

-- A guest in a VM with options; it begins at 0x1000.
local function guest(source, options, mode)
  needs_filter()
  local vm = helper.keep(luna.vm(options))
  local ram = helper.keep(luna.buffer "1M")
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  ram:write(0x1000, helper.code(source, mode == "long" and 64 or 16, 0x1000))
  local cpu = helper.keep(vm:vcpu { mode = mode, rip = 0x1000, rsp = 0x8000 })
  local self = { vm = vm, ram = ram, cpu = cpu }
  function self.stops(_, kind)
    local exit = assert(cpu:run { timeout = 60 })
    if exit.kind ~= kind then
      error(("exit %s expected, got %s"):format(kind, tostring(exit)), 2)
    end
    return exit
  end
  return self
end

local read = ("mov ecx, 0x%x\n rdmsr\n hlt"):format(SYSENTER_CS)
local write = ("mov ecx, 0x%x\n mov edx, 0x11223344\n mov eax, 0x55667788\n wrmsr\n hlt")
  :format(SYSENTER_CS)

helper.kvm("vm:msr", function()
  it("gives a device the guest's reads and writes", function()
    local g = guest(([[
      mov ecx, 0x%x
      rdmsr
      mov [0x2000], eax
      mov [0x2004], edx
      inc ecx
      wrmsr
      hlt]]):format(SYSENTER_CS))
    local recorder = helper.recorder { luna.u64 "0xdeadbeefcafebabe" }
    local trap = g.vm:msr(SYSENTER_CS, 3, recorder)
    assert.equal("trap 1 (msr 0x174..0x176)", tostring(trap))
    g:stops "hlt"
    assert.same({ "r 0 8", "w 1 8 0xdeadbeefcafebabe" }, recorder.log)
    assert.equal(luna.u64 "0xdeadbeefcafebabe", g.ram:u64(0x2000))
  end)

  it("takes a single register without a length", function()
    local g = guest(read)
    g.vm:msr(SYSENTER_CS, { read = function(_, offset, size) return offset + size end })
    g:stops "hlt"
    assert.equal(luna.u64(8), g.cpu.rax)
    assert.equal(luna.u64(0), g.cpu.rdx)
  end)

  it("takes the name of a register", function()
    local g = guest(read)
    local trap = assert(g.vm:msr("IA32_SYSENTER_CS", { read = function() return 0x1234 end }))
    helper.contains("msr 0x174..0x174", tostring(trap))
    g:stops "hlt"
    assert.equal(luna.u64(0x1234), g.cpu.rax)
    raises("vm:msr: ", function() g.vm:msr("no such register", { read = print }) end)
  end)

  it("leaves the neighbours to KVM, and gives the register back when it is closed", function()
    local g = guest(([[
      mov ecx, 0x%x
      mov eax, 0x77
      xor edx, edx
      wrmsr
      inc ecx
      wrmsr
      xor eax, eax
      rdmsr
      hlt
      dec ecx
      rdmsr
      hlt]]):format(SYSENTER_CS))
    local recorder = helper.recorder()
    local trap = g.vm:msr(SYSENTER_CS, recorder)
    g:stops "hlt"
    assert.same({ "w 0 8 0x77" }, recorder.log)
    assert.equal(luna.u64(0x77), g.cpu.rax)
    assert.is_true(trap:close())
    assert.is_true(trap:close())
    g:stops "hlt"
    assert.equal(luna.u64(0), g.cpu.rax) -- nobody ever wrote KVM's own
    assert.equal(1, #recorder.log)
  end)

  it("is a #GP for what a device refuses, or has no function for", function()
    for _, case in ipairs {
      { write, { write = function() return "refuse" end } },
      { write, { read = function() return 0 end } },
      { read, { read = function() return "refuse" end } },
      { read, { write = function() end } },
    } do
      local g = guest(case[1], nil, "long")
      g.vm:msr(SYSENTER_CS, case[2])
      local exit = g:stops "exception"
      assert.equal("#GP", exit.name)
      local at = helper.code(case[1], 64, 0x1000):find("\15[\48\50]") -- rdmsr, wrmsr
      assert.equal(luna.u64(0x1000 + at - 1), exit.rip)
    end
  end)

  it("keeps an access open whose device raises", function()
    local g = guest(read)
    local device = { read = function() error "broken" end }
    g.vm:msr(SYSENTER_CS, device)
    local ok, message = pcall(g.cpu.run, g.cpu, { timeout = 60 })
    assert.is_false(ok)
    contains("broken", message)
    device.read = function() return -1 end
    g:stops "hlt"
    assert.equal(luna.u64(0xffffffff), g.cpu.rdx)
    device.read = function() return "no" end
    g.cpu.rip = 0x1000
    ok, message = pcall(g.cpu.run, g.cpu, { timeout = 60 })
    assert.is_false(ok)
    contains("the device answered a read of 8 bytes at offset 0x0 with no", message)
  end)

  it("holds in every space, also in those made later", function()
    local g = guest(read .. "\n" .. read:gsub("mov ecx, %w+", "nop"))
    local count = 0
    local first = g.vm:space()
    g.vm:msr(SYSENTER_CS, { read = function() count = count + 1 return count end })
    local later = g.vm:space()
    for i, space in ipairs { first, later } do
      assert(space:map(g.ram, 0, { rights = "rwx" }))
      assert(g.cpu:set_space(space))
      g.cpu.rip = 0x1000
      g:stops "hlt"
      assert.equal(luna.u64(i), g.cpu.rax)
    end
  end)

  it("does not stand in the way of a vCPU's state when that moves", function()
    local g = guest(write .. "\n mov ecx, 0x174\n rdmsr\n hlt")
    g:stops "hlt"
    local trap = g.vm:msr(SYSENTER_CS, helper.recorder())
    local space = g.vm:space()
    assert(space:map(g.ram, 0, { rights = "rwx" }))
    assert(g.cpu:set_space(space))
    trap:close()
    g:stops "hlt"
    assert.equal(luna.u64(0x55667788), g.cpu.rax)
  end)

  it("answers from memory, 8 bytes a register", function()
    local g = guest(([[
      mov ecx, 0x%x
      rdmsr
      inc ecx
      wrmsr
      hlt]]):format(SYSENTER_CS))
    local page = helper.keep(luna.buffer "4K")
    page:u64(0x18, luna.u64 "0x1122334455667788")
    g.vm:msr(SYSENTER_CS, 2, { memory = page, offset = 0x18 })
    g:stops "hlt"
    assert.equal(1, g.cpu.exits)
    assert.equal(luna.u64 "0x1122334455667788", page:u64(0x20))
  end)

  it("gives a device the x2APIC's registers in a VM without LAPICs in KVM", function()
    local g = guest([[
      mov ecx, 0x802
      rdmsr
      mov ebx, eax
      mov ecx, 0x830
      mov eax, 0x51
      mov edx, 7
      wrmsr
      inc ecx
      rdmsr
      hlt ]], { unknown_msrs = "exit" })
    local recorder = helper.recorder { luna.u64(9) }
    assert(g.vm:msr(0x800, 0x31, recorder))
    local exit = g:stops "msr"
    assert.same({ 0x831, "r" }, { exit.msr, exit.access })
    g.cpu:refuse()
    assert.same({ "r 2 8", "w 30 8 0x700000051" }, recorder.log)
    assert.equal(luna.u64(9), g.cpu.rbx)
  end)

  it("refuses the x2APIC's registers elsewhere, and what KVM's filter has no room for", function()
    needs_filter()
    local vm = helper.keep(luna.vm())
    local device = { read = function() return 0 end }
    helper.refused("unsupported", "KVM does not filter the x2APIC's", vm:msr(0x800, device))
    helper.refused("unsupported", "cannot trap MSRs 0x0..0x8ff", vm:msr(0, 0x900, device))
    for i = 0, 15 do assert(vm:msr(0x100000 + i * 0x3000, device)) end
    helper.refused("limit", "KVM's filter has 16 ranges of 0x3000 MSRs", vm:msr(0x130000, device))
    assert(vm:msr(0x100001, 0x2fff, device))
    raises("is trapped already", function() vm:msr(0x100000, device) end)
    raises("vm:msr: index: a whole number", function() vm:msr(0.5, device) end)
    raises("vm:msr: length: a whole number", function() vm:msr(0x10, "1", device) end)
    raises("cannot trap 0 registers at MSR 0x10", function() vm:msr(0x10, 0, device) end)
    raises("vm:msr: a device expected", function() vm:msr(0x10, 1, print) end)
  end)
end)

helper.kvm("an MSR that KVM does not know", function()
  local source = ("mov ecx, 0x%x\n rdmsr\n wrmsr\n hlt"):format(UNKNOWN)

  it("is a #GP", function()
    assert.equal("#GP", guest(source, nil, "long"):stops "exception".name)
    assert.equal("#GP", guest(source, { unknown_msrs = "fault" }, "long"):stops "exception".name)
  end)

  it("is an exit where that is asked for", function()
    local g = guest(source, { unknown_msrs = "exit" })
    local exit = g:stops "msr"
    assert.same({ UNKNOWN, "r", 8 }, { exit.msr, exit.access, exit.size })
    assert.equal("msr (read of MSR 0x12345) at rip 0x1006", tostring(exit))
    assert.equal("msr", g:stops("msr").kind) -- given again
    raises("the guest reads: a value expected", function() g.cpu:answer() end)
    g.cpu:answer(luna.u64 "0x8000000000000001")
    exit = g:stops "msr"
    assert.same({ "w", luna.u64 "0x8000000000000001" }, { exit.access, exit.value })
    contains("write of MSR 0x12345, value 0x8000000000000001", tostring(exit))
    g.cpu:answer()
    g:stops "hlt"
    raises("no open msr exit to refuse", function() g.cpu:refuse() end)
  end)

  it("is no #GP any more once RIP was moved behind the refusal", function()
    local vm = helper.keep(luna.vm { unknown_msrs = "exit" })
    local ram = helper.keep(luna.buffer "64K")
    vm.default:map(ram, 0)
    ram:u16(13 * 4, 0x1800)
    ram:write(0x1800, "\xf4")                         -- hlt
    ram:write(0x1000, "\x66\xb9\x45\x23\x01\x00\x0f\x32") -- mov ecx, 0x12345; rdmsr
    ram:write(0x2000, "\x90\xf4")                     -- nop; hlt
    local cpu = vm:vcpu { rip = 0x1000, rsp = 0x8000 }
    assert.equal("msr", cpu:run({ timeout = 60 }).kind)
    cpu:refuse()
    cpu.rip = 0x2000
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    assert.equal("0x2002", luna.hex(cpu.rip))
  end)

  it("can be refused", function()
    local g = guest(source, { unknown_msrs = "exit" }, "long")
    g:stops "msr"
    assert.is_true(g.cpu:refuse())
    assert.equal("#GP", g:stops("exception").name)
  end)

  it("goes to a handler, which may answer, skip, refuse or inject", function()
    local g = guest(source, { unknown_msrs = "exit" }, "long")
    local answers, seen = {}, {}
    g.cpu:on("msr", function(_, exit)
      seen[#seen + 1] = exit.access
      return table.remove(answers, 1)
    end)
    answers = { 5, "continue" }
    g:stops "hlt"
    assert.equal(luna.u64(5), g.cpu.rax)
    answers, g.cpu.rip = { "skip", "skip" }, 0x1000
    g:stops "hlt"
    assert.equal(luna.u64(0xffffffff), g.cpu.rdx)
    answers, g.cpu.rip = { 0, "refuse" }, 0x1000
    local exit = g:stops "exception"
    assert.same({ "#GP", luna.u64(0x1007) }, { exit.name, exit.rip })
    answers, g.cpu.rip = { 0, { inject = "#UD" } }, 0x1000
    exit = g:stops "exception"
    assert.same({ "#UD", luna.u64(0x1007) }, { exit.name, exit.rip })
    assert.equal("rwrwrwrw", table.concat(seen))
  end)

  it("cannot be retried, and nothing else can be refused", function()
    local g = guest(source, { unknown_msrs = "exit" })
    g.cpu:on("msr", function() return "retry" end)
    local ok, message = pcall(g.cpu.run, g.cpu, { timeout = 60 })
    assert.is_false(ok)
    contains('with "retry": that is for a fault exit', message)
    g = guest "in al, dx\n hlt"
    g.cpu:on("pio", function() return "refuse" end)
    ok, message = pcall(g.cpu.run, g.cpu, { timeout = 60 })
    assert.is_false(ok)
    contains('with "refuse": that is for an msr exit', message)
  end)

  it("is told to luna.vm by name", function()
    raises("luna.vm: unknown_msrs: 'exit' or 'fault' expected, got true",
      function() luna.vm { unknown_msrs = true } end)
  end)
end)
