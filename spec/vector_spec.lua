-- SPDX-License-Identifier: MIT
-- Wide registers: every kind against the guest and against each other, their views, and what they
-- refuse; debug, XCR0, x87 and SSE control registers.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local hex = luna.hex

local function cpu_of(mode)
  return helper.guest { mode = mode or "long", source = "hlt" }.cpu
end

-- Registers that not every processor has.
local function need(bank, index)
  local ok, message = pcall(function() return bank[index] end)
  if not ok then pending(message) end
end

helper.kvm("vector registers", function()
  it("are seen by the guest, and show what the guest has made of them", function()
    local guest = helper.guest { mode = "user", source = [[
      addpd xmm0, xmm1
      movdqa xmm15, xmm0
      hlt]] } -- in ring 3 hlt is a #GP
    guest.cpu.xmm[0] = { f64 = { 1.5, -2 } }
    guest.cpu.xmm[1] = { f64 = { 2, 0.25 } }
    guest:stops "exception"
    assert.same({ 3.5, -1.75 }, guest.cpu.xmm[15].f64)
    assert.same({ 3.5, -1.75 }, guest.cpu.xmm[0].f64)
    assert.same({ 2, 0.25 }, guest.cpu.xmm[1].f64)
  end)

  it("are each a register of its own, and parts of the wider ones", function()
    local cpu = cpu_of()
    need(cpu.ymm, 0)
    for i = 0, 15 do cpu.ymm[i] = { i, 0x100 + i, 0x200 + i, 0x300 + i } end
    for i = 0, 15 do
      assert.equal(("0x%016x%016x"):format(0x100 + i, i), tostring(cpu.xmm[i]))
      assert.equal(hex(0x300 + i), hex(cpu.ymm[i].u64[4]))
    end
    cpu.xmm[3] = ("\255"):rep(16)
    assert.equal("0x" .. ("%016x%016x"):format(0x303, 0x203) .. ("ff"):rep(16),
      tostring(cpu.ymm[3]))
    assert.equal(hex(2), hex(cpu.ymm[2].u64[1]))
  end)

  it("are 64 bytes with AVX-512, and there are 32, with masks", function()
    local cpu = cpu_of()
    need(cpu.zmm, 31)
    for i = 0, 31 do cpu.zmm[i] = { i, 1, 2, 3, 4, 5, 6, 0x700 + i } end
    for i = 0, 31 do
      local v = cpu.zmm[i].u64
      assert.equal(8, #v)
      for j, want in ipairs { i, 1, 2, 3, 4, 5, 6, 0x700 + i } do
        assert.equal(hex(want), hex(v[j]))
      end
      assert.equal(cpu.zmm[i]:bytes():sub(1, 32), cpu.ymm[i]:bytes())
      assert.equal(cpu.zmm[i]:bytes():sub(1, 16), cpu.xmm[i]:bytes())
    end
    for i = 0, 7 do cpu.k[i] = luna.u64(0xf0000000, i) end
    for i = 0, 7 do assert.equal(hex(luna.u64(0xf0000000, i)), hex(cpu.k[i])) end
  end)

  it("of AVX reach the guest once XCR0 has them", function()
    local guest = helper.guest { mode = "user", source = [[
      vaddps ymm2, ymm0, ymm1
      hlt]] }
    need(guest.cpu.ymm, 0)
    guest.cpu.cr4 = luna.u64.bor(guest.cpu.cr4, 2 ^ 18) -- OSXSAVE
    guest.cpu.xcr0 = 7
    guest.cpu.ymm[0] = { f32 = { 1, 2, 3, 4, 5, 6, 7, 8 } }
    guest.cpu.ymm[1] = { f32 = { 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 } }
    local exit = guest:stops "exception"
    if exit.name == "#UD" then pending "this host's KVM runs no AVX" end
    assert.same({ 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5 }, guest.cpu.ymm[2].f32)
  end)

  it("of AVX-512 reach the guest once XCR0 has them, and go with its state", function()
    local function make()
      local guest = helper.guest { mode = "user", source = [[
        vpaddq zmm20 {k1}, zmm17, zmm18
        kmovq rax, k1
        hlt]] }
      guest.cpu.cr4 = luna.u64.bor(guest.cpu.cr4, 2 ^ 18) -- OSXSAVE
      return guest, pcall(function() guest.cpu.xcr0 = 0xe7 end)
    end
    local guest, enabled, message = make()
    if not enabled then pending(message) end
    guest.cpu.k[1] = 0xf0
    guest.cpu.zmm[17] = { 1, 2, 3, 4, 5, 6, 7, 8 }
    guest.cpu.zmm[18] = { 10, 20, 30, 40, 50, 60, 70, 80 }
    guest.cpu.zmm[20] = { 9, 9, 9, 9, 9, 9, 9, 9 }
    local other = make()
    assert(other.cpu:set_state(assert(guest.cpu:state())))
    if other:stops "exception".name == "#UD" then pending "this host's KVM runs no AVX-512" end
    assert.equal(hex(0xf0), hex(other.cpu.rax))
    for i, want in ipairs { 9, 9, 9, 9, 55, 66, 77, 88 } do
      assert.equal(hex(want), hex(other.cpu.zmm[20].u64[i]))
    end
  end)

  it("of the x87 are extended numbers", function()
    local guest = helper.guest { mode = "user", source = "fldpi\n fld1\n fchs\n hlt" }
    guest:stops "exception"
    local cpu = guest.cpu
    assert.equal(-1, cpu.st[0]:number())
    assert.is_true(math.abs(cpu.st[1]:number() - math.pi) < 1e-15)
    assert.equal(10, #cpu.st[0]:bytes())
    assert.equal("0x3000", hex(luna.u64.band(cpu.fsw, 0x3800))) -- TOP is 6
    assert.equal("0xc0", hex(cpu.ftw))
    cpu.st[0] = ("\0"):rep(8) .. "\0\0"
    assert.equal(0, cpu.st[0]:number())
    cpu.st[0] = ("\0"):rep(7) .. "\128\255\127"
    assert.equal(math.huge, cpu.st[0]:number())
    cpu.st[0] = ("\0"):rep(7) .. "\192\255\127"
    assert.is_true(cpu.st[0]:number() ~= cpu.st[0]:number())
  end)

  it("move with the vCPU and stay over runs", function()
    local guest = helper.guest { source = "inc ax\n hlt" }
    local cpu, space = guest.cpu, helper.keep(guest.vm):space()
    assert(space:map(guest.ram, 0, guest.ram.size, "rwx"))
    cpu.xmm[7], cpu.mxcsr, cpu.dr1 = { 1, 2 }, 0x1fa0, 0x1234
    guest:stops "hlt"
    assert(cpu:set_space(space))
    cpu.rip = 0x1000
    guest:stops "hlt"
    assert.equal("0x00000000000000020000000000000001", tostring(cpu.xmm[7]))
    assert.equal("0x1fa0", hex(cpu.mxcsr))
    assert.equal("0x1234", hex(cpu.dr1))
    assert.equal("0x2", hex(cpu.rax))
  end)

  it("have views that are lists, and values that compare", function()
    local cpu = cpu_of()
    cpu.xmm[0] = { u16 = { 1, 2, 3 } }
    assert.same({ 1, 2, 3, 0, 0, 0, 0, 0 }, cpu.xmm[0].u16)
    assert.same({ 0x20001, 3, 0, 0 }, cpu.xmm[0].u32)
    assert.equal("\1\0\2\0\3" .. ("\0"):rep(11), cpu.xmm[0]:bytes())
    cpu.xmm[1] = cpu.xmm[0]
    assert.is_true(cpu.xmm[1] == cpu.xmm[0])
    cpu.xmm[1] = {}
    assert.is_false(cpu.xmm[1] == cpu.xmm[0])
    helper.raises("a vector has no field 'u128'", function() return cpu.xmm[0].u128 end)
    assert.equal(16, #cpu.xmm[0]:bytes())
  end)

  it("refuse indices and values that they cannot have", function()
    local cpu = cpu_of()
    helper.raises("there is no register xmm[32]: the index is 0 to 31",
      function() return cpu.xmm[32] end)
    helper.raises("there is no register st[8]: the index is 0 to 7", function() cpu.st[8] = "" end)
    helper.raises("there is no register k[-1]", function() return cpu.k[-1] end)
    helper.raises("there is no register xmm[one]", function() return cpu.xmm.one end)
    helper.raises("a register xmm has 16 bytes, the string has 3",
      function() cpu.xmm[0] = "abc" end)
    helper.raises("register xmm: it has 16 bytes, these are 24",
      function() cpu.xmm[0] = { 1, 2, 3 } end)
    helper.raises("register xmm: 256 is no u8", function() cpu.xmm[0] = { u8 = { 256 } } end)
    helper.raises("register xmm: 1.5 is no u64", function() cpu.xmm[0] = { 1.5 } end)
    helper.raises("the views are f32, f64, u8, u16, u32 and u64, not 'u128'",
      function() cpu.xmm[0] = { u128 = { 1 } } end)
    helper.raises("a list of u64 or a table", function() cpu.xmm[0] = true end)
    helper.raises("assign to the register itself", function() cpu.xmm[0].u64 = { 1 } end)
    assert.has_error(function() cpu.xmm = {} end)
    local xmm = cpu.xmm
    cpu:close()
    helper.raises("attempt to use a closed vcpu", function() return xmm[0] end)
  end)
end)

helper.kvm("the extended state as a whole", function()
  it("is what the registers are parts of", function()
    local cpu = cpu_of()
    cpu.xmm[0] = { u8 = { 1, 2, 3 } }
    local area = cpu.xsave
    assert.equal("\1\2\3\0", area:sub(161, 164))
    cpu.xmm[0] = {}
    cpu.xsave = area
    assert.equal("\1\2\3", cpu.xmm[0]:bytes():sub(1, 3))
    cpu.xsave = area:sub(1, 160) .. "\9" .. area:sub(162, 512) -- only x87 and SSE
    assert.equal("\9\2\3", cpu.xmm[0]:bytes():sub(1, 3))
    helper.raises("an XSAVE area of 100 bytes", function() cpu.xsave = area:sub(1, 100) end)
    helper.raises("cpu.xsave: a string expected", function() cpu.xsave = 1 end)
    helper.raises("KVM refuses it",
      function() cpu.xsave = area:sub(1, 24) .. ("\255"):rep(4) .. area:sub(29) end)
    assert.equal("\9\2\3", cpu.xmm[0]:bytes():sub(1, 3))
  end)
end)

helper.kvm("control registers of x87 and SSE, and debug registers", function()
  it("keep what they are given", function()
    local cpu = cpu_of()
    local values = { dr0 = 0x1000, dr1 = 0x2000, dr2 = 3, dr3 = luna.u64 "0xffff800000000000",
      dr6 = 0xffff0ff1, dr7 = 0x401, fcw = 0x27f, fsw = 0x3800, ftw = 0x81, fop = 0x7ff,
      fip = luna.u64 "0x123456789a", fdp = 0x77, mxcsr = 0x1f81 }
    for name, value in pairs(values) do cpu[name] = value end
    for name, value in pairs(values) do assert.equal(hex(value), hex(cpu[name]), name) end
    assert.equal("0x1f81", hex(cpu:regs().mxcsr))
    assert.matches("dr7 +0000000000000401", tostring(cpu:regs()))
  end)

  it("refuse what the processor would", function()
    local cpu = cpu_of()
    helper.raises("cannot set dr7 to 0x100000000: it holds at most 0xffffffff",
      function() cpu.dr7 = 2 ^ 32 end)
    helper.raises("cannot set fop to 0x800: it holds at most 0x7ff",
      function() cpu.fop = 0x800 end)
    helper.raises("cannot set mxcsr to 0x80001f80: bit 31 is reserved",
      function() cpu.mxcsr = 0x80001f80 end)
    helper.raises("cannot set xcr0 to 0x2: bit 0 (x87) must be set", function() cpu.xcr0 = 2 end)
    helper.raises("bit 2 (AVX) needs bit 1 (SSE)", function() cpu.xcr0 = 5 end)
    helper.raises("bits 5 to 7 (AVX-512) go together", function() cpu.xcr0 = 0x27 end)
    helper.raises("a bit is set that CPUID leaf 0xd does not offer",
      function() cpu.xcr0 = luna.u64 "0x4000000000000001" end)
    assert.equal("0x1", hex(cpu.xcr0))
    assert.equal("0x1f80", hex(cpu.mxcsr))
  end)

  it("are seen by the guest", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rax, dr2
      mov rbx, 0x4321
      mov dr3, rbx
      hlt]] }
    guest.cpu.dr2 = luna.u64 "0x123456789"
    guest:stops "hlt"
    assert.equal("0x123456789", hex(guest.cpu.rax))
    assert.equal("0x4321", hex(guest.cpu.dr3))
  end)
end)
