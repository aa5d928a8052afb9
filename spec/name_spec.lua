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
