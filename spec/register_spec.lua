-- SPDX-License-Identifier: MIT
-- The registers of a vCPU: their way to the guest and back, and the values that are refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, hex = helper.contains, luna.hex

local GENERAL = {
  "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
  "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
}

local function cpu_of(mode)
  return helper.guest({ mode = mode, source = "hlt" }).cpu
end

helper.kvm("general registers", function()
  it("reach the guest and come back with all 64 bits", function()
    local guest = helper.guest { mode = "user", source = "not " .. table.concat(GENERAL, "\n not ")
      .. "\n out 0x10, al" }
    for i, name in ipairs(GENERAL) do
      guest.cpu[name] = luna.u64(0xfedcba00 + i, 0x76543200 + i)
    end
    for i, name in ipairs(GENERAL) do -- the ones that the guest has not seen yet
      assert.equal(hex(luna.u64(0xfedcba00 + i, 0x76543200 + i)), hex(guest.cpu[name]))
    end
    guest:stops "pio"
    for i, name in ipairs(GENERAL) do
      local expected = luna.u64.bnot(luna.u64(0xfedcba00 + i, 0x76543200 + i))
      assert.equal(hex(expected), hex(guest.cpu[name]), name)
    end
  end)

  it("are u64, whatever they were written as", function()
    local cpu = cpu_of()
    for value, text in pairs { [0] = "0x0", [5] = "0x5", [2 ^ 53] = "0x20000000000000",
      [-1] = "0xffffffffffffffff", [-2 ^ 53] = "0xffe0000000000000" } do
      cpu.rbx = value
      assert.equal(text, hex(cpu.rbx))
      assert.equal(type(luna.u64(0)), type(cpu.rbx))
    end
  end)

  it("keep what the guest did not change", function()
    local guest = helper.guest { source = "inc cx\n hlt" }
    guest.cpu.r13 = luna.u64 "0x8000000000000001"
    guest:stops "hlt"
    assert.equal("0x8000000000000001", hex(guest.cpu.r13))
    assert.equal("0x1", hex(guest.cpu.rcx))
  end)

  it("come to the guest together, whichever was written before an entry that was none", function()
    local guest = helper.guest { source = "hlt\n inc ax\n hlt\n mov ax, 7\n hlt" }
    local cpu, start = guest.cpu, tonumber(guest.cpu.rip)
    local values = { rip = start + 1, rax = 0x41 }
    guest:stops "hlt"
    for first, second in pairs { rip = "rax", rax = "rip" } do
      cpu[first] = values[first]
      cpu:interrupt()
      guest:stops "interrupted" -- what was written waits for the next entry
      cpu[second] = values[second]
      cpu:interrupt()
      guest:stops "interrupted"
      guest:stops "hlt"
      assert.equal("0x42", hex(cpu.rax))
      assert.equal(start + 3, tonumber(cpu.rip))
    end
    cpu.rip = start + 1
    guest:stops "hlt"
    assert.equal("0x43", hex(cpu.rax)) -- with RIP alone
  end)

  it("have flags", function()
    local guest = helper.guest { source = "pushf\n pop ax\n stc\n hlt", rsp = 0x3000 }
    assert.equal("0x2", hex(guest.cpu.rflags))
    guest.cpu.rflags = 0x2 + 0x400 + 0x40 -- DF and ZF
    guest:stops "hlt"
    assert.equal("0x442", hex(luna.u64.band(guest.cpu.rax, 0xffff)))
    assert.equal("0x443", hex(guest.cpu.rflags))
  end)

  it("written while a read is open count as written after the instruction", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rax, 0x1111111111111111
      in eax, 0x10
      hlt
      hlt]] }
    guest:stops "pio"
    guest.cpu.rbx, guest.cpu.rcx = 7, luna.u64 "0xffffffffffffffff"
    guest.cpu:answer(0x22222222)
    guest:stops "hlt"
    assert.equal("0x22222222", hex(guest.cpu.rax))
    assert.equal("0x7", hex(guest.cpu.rbx))
    assert.equal("0xffffffffffffffff", hex(guest.cpu.rcx))
  end)

  it("keep their old value while a read into them is open, and a write to them wins", function()
    local guest = helper.guest { source = "mov ax, 0x1234\n in al, 0x10\n hlt" }
    guest:stops "pio"
    assert.equal("0x1234", hex(luna.u64.band(guest.cpu.rax, 0xffff)))
    guest.cpu.rax = 0x99
    guest.cpu:answer(0x55)
    guest:stops "hlt"
    assert.equal("0x99", hex(guest.cpu.rax))
  end)

  for _, access in ipairs { "out 0x10, al", "in al, 0x10", "mov al, [0x200000]",
    "mov [0x200000], al" } do
    it(("let rip be moved by a handler of %q"):format(access), function()
      local guest = helper.guest { mode = "long", source = access .. [[

        hlt
        times 0x1100 - ($ - $$) nop
        mov bl, 3
        out 0x20, al]] }
      guest.cpu.rbx = 0
      local function handler(cpu, exit)
        if exit.port == 0x20 then return "stop" end
        cpu.rip = 0x2100
        return "skip"
      end
      guest.cpu:on("pio", handler)
      guest.cpu:on("fault", handler)
      assert.equal(0x20, guest:stops("pio").port)
      assert.equal("0x3", hex(guest.cpu.rbx))
    end)
  end
end)

helper.kvm("cpu:regs", function()
  it("has every general and control register", function()
    local cpu = cpu_of "long"
    local regs = cpu:regs()
    local names = { "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base", "dr0",
      "dr1", "dr2", "dr3", "dr6", "dr7", "xcr0", "fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr" }
    for _, name in ipairs(GENERAL) do names[#names + 1] = name end
    for _, name in ipairs(names) do
      assert.equal(hex(cpu[name]), hex(regs[name]))
    end
    local count = 0
    for _ in pairs(regs) do count = count + 1 end
    assert.equal(#names, count)
  end)

  it("is a copy, and text with all digits", function()
    local cpu = cpu_of "long"
    cpu.rax = luna.u64 "0x123456789"
    local regs = cpu:regs()
    cpu.rax = 0
    assert.equal("0x123456789", hex(regs.rax))
    contains("rax       0000000123456789   rcx       0000000000000000", tostring(regs))
    assert.matches("rip%s+0000000000001000", tostring(regs))
    assert.falsy(tostring(regs):find "%s$")
  end)
end)

helper.kvm("segment registers", function()
  it("have fields that can be read and written", function()
    local guest = helper.guest { source = "mov al, [0x10]\n es mov ah, [0x10]\n hlt" }
    guest.ram:u8(0x20010, 0x11)
    guest.ram:u8(0x30010, 0x22)
    guest.cpu.ds.base, guest.cpu.es.base = 0x20000, 0x30000
    guest.cpu.es.selector = 0x3000
    assert.equal("0x20000", hex(guest.cpu.ds.base))
    guest:stops "hlt"
    assert.equal("0x2211", hex(guest.cpu.rax))
    assert.equal("0x3000", hex(guest.cpu.es.selector))
    assert.equal("es (selector 0x3000, base 0x30000, limit 0xffff, access 0x93)",
      tostring(guest.cpu.es))
  end)

  it("show what the guest loads", function()
    local guest = helper.guest { source = "mov ax, 0x1234\n mov fs, ax\n hlt" }
    local fs = guest.cpu.fs
    assert.equal("0x0", hex(fs.base))
    guest:stops "hlt"
    assert.equal("0x12340", hex(fs.base))
    assert.equal("0x1234", hex(fs.selector))
  end)

  it("of long mode have its access rights", function()
    local cpu = cpu_of "long"
    assert.equal("0xa09b", hex(cpu.cs.access)) -- G and L, present, code, accessed
    assert.equal("0xffffffff", hex(cpu.ds.limit))
    assert.equal("0x8b", hex(cpu.tr.access))
    assert.equal("0xffff", hex(cpu.ldtr.limit))
  end)

  it("include the table registers, with base and limit", function()
    local guest = helper.guest { mode = "protected", source = "lgdt [0x2000]\n hlt" }
    guest.ram:u16(0x2000, 0x57)
    guest.ram:u32(0x2002, 0x3000)
    assert.equal(hex(guest.cpu.system), hex(guest.cpu.gdtr.base))
    assert.equal("0x7ff", hex(guest.cpu.idtr.limit))
    guest:stops "hlt"
    assert.equal("gdtr (base 0x3000, limit 0x57)", tostring(guest.cpu.gdtr))
    helper.raises("gdtr has no field 'selector'", function() return guest.cpu.gdtr.selector end)
  end)
end)

helper.kvm("control registers", function()
  it("have what the mode needs", function()
    local cpu = cpu_of "long"
    assert.equal("0x80010033", hex(cpu.cr0)) -- PG, WP, NE, ET, MP, PE
    assert.equal("0x20", hex(luna.u64.band(cpu.cr4, 0x20))) -- PAE
    assert.equal("0x500", hex(luna.u64.band(cpu.efer, 0x500))) -- LMA, LME
    assert.equal("0x0", hex(luna.u64.band(cpu.cr3, 0xfff)))
    assert.truthy(luna.u64.lt(cpu.system, cpu.cr3))
  end)

  it("are seen and changed by the guest", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rcx, cr2
      mov eax, 0x77000
      mov cr2, rax
      mov rdx, cr3
      hlt]] }
    guest.cpu.cr2 = luna.u64 "0x123456789abc"
    guest:stops "hlt"
    assert.equal("0x123456789abc", hex(guest.cpu.rcx))
    assert.equal("0x77000", hex(guest.cpu.cr2))
    assert.equal(hex(guest.cpu.cr3), hex(guest.cpu.rdx))
  end)

  it("that KVM refuses make the run fail, until they are mended", function()
    local guest = helper.guest { source = "inc cx\n hlt" }
    local good = guest.cpu.cr0
    guest.cpu.cr0 = luna.u64 "0x80000010" -- PG without PE
    for _ = 1, 2 do
      local ok, exit, message, code = pcall(guest.run, guest)
      if ok and exit then pending("this host's KVM runs it: " .. tostring(exit)) end
      assert.is_true(ok, exit) -- what the guest's state is, is no mistake at this line
      contains("KVM refuses its system registers (cr0=0x80000010 ", message)
      assert.equal("string", type(code))
    end
    assert.equal("0x80000010", hex(guest.cpu.cr0))
    guest.cpu.cr0 = good
    guest:stops "hlt"
    assert.equal("0x1", hex(guest.cpu.rcx))
  end)
end)

helper.kvm("what is refused of registers", function()
  it("are values that no integer has", function()
    local cpu = cpu_of()
    helper.raises("register rax: an integer expected, got 1.5", function() cpu.rax = 1.5 end)
    helper.raises("register rax: an integer expected, got 0x10", function() cpu.rax = "0x10" end)
    helper.raises("register r9: an integer expected, got nil", function() cpu.r9 = nil end)
    helper.raises("register rip: an integer expected, got 1e+300", function() cpu.rip = 1e300 end)
    helper.raises("register rip: an integer expected, got inf", function() cpu.rip = math.huge end)
    helper.raises("register cs.base: an integer expected, got true",
      function() cpu.cs.base = true end)
    assert.equal("0x1000", hex(cpu.rip))
  end)

  it("are values too wide for the register", function()
    local cpu = cpu_of()
    helper.raises("cannot set cr8 to 0x10: it holds at most 0xf", function() cpu.cr8 = 16 end)
    helper.raises("cannot set gdtr.limit to 0x10000: it holds at most 0xffff",
      function() cpu.gdtr.limit = 0x10000 end)
    helper.raises("cannot set cs.selector to 0x10000: it holds at most 0xffff",
      function() cpu.cs.selector = 0x10000 end)
    helper.raises("cannot set ds.limit to 0x100000000: it holds at most 0xffffffff",
      function() cpu.ds.limit = 2 ^ 32 end)
    helper.raises("cannot set ss.access to 0xffffffffffffffff: it holds at most 0x1ffff",
      function() cpu.ss.access = -1 end)
    assert.equal("0x0", hex(cpu.cs.selector))
    assert.equal("0xffff", hex(cpu.ds.limit))
  end)

  it("are names that no register has", function()
    local cpu = cpu_of()
    helper.raises("a vcpu has no field 'eax' that can be set; did you mean 'rax'?",
      function() cpu.eax = 1 end)
    helper.raises("a vcpu has no field '5' that can be set", function() cpu[5] = 1 end)
    helper.raises("cs has no field 'length'", function() cpu.cs.length = 1 end)
    helper.raises("gdtr has no field 'selector'", function() cpu.gdtr.selector = 1 end)
    helper.raises("a vcpu has no field 'eax'; did you mean 'rax'?", function() return cpu.eax end)
    helper.raises("cs has no field 'length'", function() return cpu.cs.length end)
  end)

  it("are whole segments and things that are not registers", function()
    local cpu = cpu_of()
    assert.has_error(function() cpu.cs = 1 end)
    assert.has_error(function() cpu.exits = 1 end)
    assert.has_error(function() cpu.run = 1 end)
    assert.equal("cs (selector 0x0, base 0x0, limit 0xffff, access 0x9b)", tostring(cpu.cs))
  end)
end)

helper.kvm("registers that a vCPU begins with", function()
  it("are given by name, segments as tables of fields", function()
    local vm = helper.keep(luna.vm())
    local cpu = helper.keep(vm:vcpu { rip = 0x1234, rsp = 0x8000, registers = {
      rax = 5, ds = { selector = 0x10, base = 0x100 }, r15 = luna.u64 "0x123456789abcdef0" } })
    assert.equal("0x5", hex(cpu.rax))
    assert.equal("ds (selector 0x10, base 0x100, limit 0xffff, access 0x93)", tostring(cpu.ds))
    assert.equal("0x123456789abcdef0", hex(cpu.r15))
    assert.equal("0x1234", hex(cpu.rip))
    assert.equal("0x8000", hex(cpu.rsp))
  end)

  it("leave no vCPU where one of them is refused", function()
    local vm = helper.keep(luna.vm())
    helper.raises("register rax: an integer expected, got x", function()
      vm:vcpu { registers = { rax = "x" } }
    end)
    assert.equal(0, #vm.vcpus)
  end)
end)
