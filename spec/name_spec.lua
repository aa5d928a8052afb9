-- SPDX-License-Identifier: MIT
-- Names that nothing has, and methods that are called without their object: both say so at the
-- caller's line, with what was meant. What looks into objects of all kinds still can.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

-- A vCPU that has stopped at a read of port 0x10, and one object of each class.
local function everything()
  local guest = helper.guest { source = "in al, 0x10\n hlt", vm = { irqchip = "split" } }
  local vm, cpu, ram = guest.vm, guest.cpu, guest.ram
  local all = { vm = vm, vcpu = cpu, buffer = ram, space = vm.default }
  all.exit = guest:stops "pio"
  all.trap = vm:pio(0x20, 1, { read = function() return 0 end })
  all.timer = vm:timer(1e6, function() end)
  all.breakpoint = cpu:breakpoint(0x2000)
  all.eventfd = vm:eventfd { port = 0x30, size = 1 }
  all["fault handler"] = vm.default:on_fault(0x100000, 0x1000, function() end)
  all.region, all.slot = vm.default:find(0), vm.default:slots()[1]
  all.walk = cpu:translate(0)
  all.probe = luna.probe()
  all.apic, all.segment, all.msrs = cpu.apic, cpu.cs, cpu.msr
  all.cpuid, all.answer, all.vector = cpu.cpuid, cpu.cpuid[0], cpu.xmm[0]
  all.regs = cpu:regs()
  all.u64, all.luna = luna.u64, luna
  local listing = luna.disasm("\xf4")
  if listing then all.listing, all.instruction = listing, listing[1] end
  vm.default:update(function(update) all.update = update end)
  return all
end

helper.kvm("a name that is not there", function()
  it("raises where it is read and where it is set, for every class", function()
    for name, object in pairs(everything()) do
      if name ~= "msrs" then
        raises("has no field 'nonsense_xyz'", function() return object.nonsense_xyz end)
      else
        raises("nonsense_xyz", function() return object.nonsense_xyz end)
      end
      if name ~= "vector" then raises("nonsense_xyz", function() object.nonsense_xyz = 1 end) end
    end
  end)

  it("comes with the nearest one that is", function()
    local all = everything()
    local vm, cpu, exit = all.vm, all.vcpu, all.exit
    raises("a vcpu has no field 'rxa'; did you mean 'rax'?", function() return cpu.rxa end)
    raises("a vcpu has no field 'rxa' that can be set; did you mean 'rax'?",
      function() cpu.rxa = 1 end)
    raises("a vcpu has no field 'step_over'; did you mean 'step'?",
      function() cpu:step_over() end)
    raises("luna has no field 'bufer'; did you mean 'buffer'?", function() luna.bufer "4K" end)
    raises("a vm has no field 'vcpus_all'; did you mean 'vcpus'?", function() vm:vcpus_all() end)
    raises("an exit has no field 'knid'; did you mean 'kind'?", function() return exit.knid end)
    raises("luna.u64 has no field 'tonumer'; did you mean 'tonumber'?",
      function() return luna.u64.tonumer end)
    raises("an apic has no field 'TPR'; did you mean 'tpr'?", function() return all.apic.TPR end)
    raises("cs has no field 'Base'; did you mean 'base'?", function() return cpu.cs.Base end)
    raises("a region has no field 'rigths'; did you mean 'rights'?",
      function() return all.region.rigths end)
    local _, message = pcall(function() return cpu.quux end)
    assert.equal("a vcpu has no field 'quux'", message:match ": (.*)$")
  end)

  it("is not one that an exit or region of another kind has", function()
    local all = everything()
    assert.is_nil(all.exit.gpa)
    assert.is_nil(all.exit.breakpoint)
    assert.is_nil(all.region.window)
    assert.is_nil(all.breakpoint.handler)
    assert.is_nil(all.trap.closed)
  end)
end)

helper.kvm("a method that is called with a dot", function()
  it("says that it wants a colon", function()
    local all = everything()
    local vm, cpu, ram, space = all.vm, all.vcpu, all.buffer, all.space
    raises("cpu:run: a vcpu expected, got table; call it with a colon: cpu:run(...)",
      function() cpu.run { timeout = 1 } end)
    raises("vm:vcpu: a vm expected, got table; call it with a colon: vm:vcpu(...)",
      function() vm.vcpu { mode = "real" } end)
    raises("buffer:u8: a buffer expected, got number; call it with a colon: buffer:u8(...)",
      function() ram.u8(0) end)
    raises("buffer:write: a buffer expected, got number", function() ram.write(0, "x") end)
    raises("space:map: a space expected, got a buffer; call it with a colon: space:map(...)",
      function() space.map(ram, 0) end)
    raises("cpu:close: a vcpu expected, got nil", function() cpu.close() end)
  end)

  it("is refused by every method of every class", function()
    local all = everything()
    for name, object in pairs(all) do
      local index = getmetatable(object) and getmetatable(object).__index
      local methods = type(index) == "table" and index or {}
      for method, fn in pairs(methods) do
        for _, wrong in ipairs { 5, "x", {}, name ~= "vm" and all.vm or all.buffer, false } do
          raises(("%s: a"):format(method), function() fn(wrong, 0) end)
        end
      end
    end
    for _, method in ipairs { "run", "step", "trace", "breakpoint", "answer", "retry", "refuse",
      "finish", "interrupt", "stop", "set_space", "inject", "regs", "state", "set_state", "check",
      "irq", "nmi", "smi", "extint", "window", "sipi", "start", "join", "pause", "resume",
      "unpark", "account", "translate", "read", "write", "u8", "u16", "u32", "u64", "instruction",
      "backtrace", "on", "close" } do
      raises(("cpu:%s: a vcpu expected, got a vm; call it with a colon: cpu:%s(...)")
        :format(method, method), function() all.vcpu[method](all.vm) end)
    end
  end)

  it("is refused for what only stands for the object", function()
    local vm = helper.keep(luna.vm())
    local wrapper = setmetatable({}, { __index = vm })
    raises("vm:close: a vm expected, got table", function() wrapper:close() end)
    raises("vm:space: a vm expected, got table", function() wrapper:space() end)
    assert(vm:space())
    local ram = setmetatable({}, { __index = helper.keep(luna.buffer "4K") })
    raises("buffer:u8: a buffer expected, got table", function() ram:u8(0) end)
    raises("buffer:write: a buffer expected, got table", function() ram:write(0, "x") end)
  end)
end)

helper.kvm("names and numbers that C would cut or read otherwise", function()
  it("are refused alike on both engines", function()
    local all = everything()
    local cpu, ram, vm = all.vcpu, all.buffer, all.vm
    raises("cpu.msr: an MSR's name expected, got one with a zero byte",
      function() return cpu.msr["lstar\0x"] end)
    raises("luna.capability: a name expected, got one with a zero byte",
      function() luna.capability "vcpus_max\0x" end)
    raises("luna.buffer: file: a path expected, got one with a zero byte",
      function() luna.buffer { file = "/dev/zero\0x", size = "4K" } end)
    raises("vm:msr: index: an MSR's name expected", function() vm:msr("lstar\0", all.trap) end)
    for _, value in ipairs { 2 ^ 53 + 2, 2 ^ 62, "5", " 5 ", "1e1", 0.5 } do
      raises("is not an exact 64-bit integer", function() ram:u64(0, value) end)
    end
    for _, value in ipairs { "5", 0.5, -1, 2 ^ 32, {} } do
      raises("does not fit in 32 bits", function() ram:u32(0, value) end)
      raises("bad offset (a whole number expected, got 5)", function() ram:u32("5") end)
    end
    ram:u32(0, luna.u64(7))
    ram:u64(8, 2 ^ 53)
    assert.equal(7, ram:u32(0))
    assert.equal("0x20000000000000", luna.hex(ram:u64(8)))
  end)

  it("are u64 as well as ordinary numbers", function()
    local all = everything()
    local u64, vm, ram, cpu = luna.u64, all.vm, all.buffer, all.vcpu
    ram:u32(u64(0x100), u64 "0xcafe")
    assert.equal(0xcafe, ram:u32(0x100))
    assert.equal(0xcafe, vm.default:u32(u64(0x100)))
    assert.equal("\xfe\xca", ram:read(u64(0x100), u64(2)))
    ram:u64(u64(8), u64(5))
    assert.equal("0x5", luna.hex(ram:u64(u64(8))))
    vm:pio(u64(0x90), u64(1), { read = function() return 0 end }):close()
    vm:mmio(u64 "0x100000000", u64(0x1000), { read = function() return 0 end }):close()
    assert(vm.default:map(ram, u64(0x400000), u64(0x1000), "rwx"))
    assert.equal(0x400000, vm.default:find(u64(0x400000)).gpa)
    assert.equal(0x1000, luna.buffer(u64(0x1000)).size)
    assert.equal(cpu.cpuid[0].ebx, cpu.cpuid[u64(0)].ebx)
    assert.equal(luna.hex(cpu.msr[0xc0000080]), luna.hex(cpu.msr[u64(0xc0000080)]))
    raises("got", function() vm.default:read(u64 "0xffffffffffffffff", 1) end)
    raises("offset", function() ram:u32(u64 "0xffffffffffffffff") end)
    local sized = helper.keep(luna.buffer "64k")
    assert.equal(0x10000, sized.size)
  end)

  it("are looked at behind metatables in a CPUID table", function()
    local cpu = everything().vcpu
    local function behind(values) return setmetatable({}, { __index = values }) end
    raises("cpuid: eax: a whole number from 0 to 0xffffffff expected",
      function() cpu.cpuid[0x40000010] = behind { eax = 2 ^ 40 + 5 } end)
    raises("cpuid: ebx: a whole number",
      function() cpu.cpuid = { behind { leaf = 0, ebx = 0.5 } } end)
  end)

  it("do not make a device of a buffer", function()
    local all = everything()
    raises("vm:pio: a device expected (a table with read and/or write, or memory), got a buffer; "
      .. "write { memory = buffer } for one", function() all.vm:pio(0x60, 1, all.buffer) end)
    raises("got a vm", function() all.vm:mmio(0x600000, 1, all.vm) end)
  end)

  it("do not depend on the locale", function()
    local directory = helper.sh "mktemp -d"
    helper.keep { close = function() helper.sh("rm -rf " .. directory) end }
    local said, status = helper.sh(("localedef -i tr_TR -f UTF-8 %s/tr_TR.UTF-8"):format(directory))
    if status ~= 0 then pending("there is no Turkish locale: " .. said) end
    assert.equal("true", helper.child([[
      local luna = require "lunavisor"
      assert(os.setlocale "tr_TR.UTF-8")
      local cpu = luna.vm():vcpu()
      print(cpu.msr.misc_enable == cpu.msr.MISC_ENABLE)
    ]], { env = { LOCPATH = directory } }))
  end)
end)

helper.kvm("what looks into objects", function()
  it("can iterate over, print and compare them", function()
    local all = everything()
    for name, object in pairs(all) do
      assert.is_true(next(object) ~= nil or getmetatable(object) ~= nil)
      if name ~= "msrs" then
        assert.is_string(tostring(object))
        local count = 0
        for _ in ipairs(name ~= "cpuid" and name ~= "vector" and object or {}) do
          count = count + 1
        end
        assert.is_true(count <= 2)
        assert.is_nil(object.__nothing)
      end
      assert.equal(object, object)
      assert.same(object, object)
      assert.is_true(#require("luassert"):format({ object, n = 1 })[1] > 0)
    end
  end)

  it("can compare exits and regions with tables", function()
    local all = everything()
    assert.same(all.vm.default:find(0), all.region)
    local plain = {}
    for key, value in pairs(all.exit) do plain[key] = value end
    assert.same(plain, all.exit)
    plain.size = 4
    assert.are_not.same(plain, all.exit)
    plain.size, plain.breakpoint = all.exit.size, true
    assert.are_not.same(plain, all.exit)
  end)
end)
