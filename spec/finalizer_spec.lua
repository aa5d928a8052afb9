-- SPDX-License-Identifier: MIT Objects that are closed by a finalizer, through a copy, or at the
-- end of the program, while or before they are used: an error or a result, never freed memory. The
-- address sanitizer sees more here.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local function machine()
  local vm, ram = luna.vm { irqchip = "split" }, luna.buffer "64K"
  ram:fill(0xf4)
  vm.default:map(ram, 0)
  return vm, ram, vm:vcpu { rip = 0x1000 }
end

-- A copy as deep copies make one.
local function copy_of(object)
  local copy = setmetatable({}, getmetatable(object))
  for key, value in pairs(object) do rawset(copy, key, value) end
  return copy
end

helper.kvm("an object that a finalizer closes while it is used", function()
  it("gives an error or a result, whatever is called", function()
    if helper.stressed then pending "the collector is not always at work here by itself" end
    local file = assert(io.open "spec/support/finalizers.lua")
    local script = file:read "*a"
    file:close()
    assert.matches("^%d+ calls, [1-9]%d* objects closed$", helper.child(script))
  end)
end)

helper.kvm("calls of a finalizer", function()
  it("leave what the call gives alone that they come into", function()
    assert.equal("same", helper.child [[
      local luna = require "lunavisor"
      local function machine(count)
        local vm, ram = luna.vm(), luna.buffer "64K"
        ram:fill(0xf4)
        vm.default:map(ram, 0)
        local cpu = vm:vcpu { rip = 0x1000 }
        for i = 1, count do
          cpu.rip = 0x1000 + i
          cpu:run()
        end
        return vm, ram, cpu
      end
      local vm, ram, cpu = machine(5)
      local other, other_ram, other_cpu = machine(64)
      local function look(machine, buffer, vcpu, space)
        local list = {}
        for _, exit in ipairs(vcpu:last_exits()) do list[#list + 1] = tostring(exit.rip) end
        list[#list + 1] = vcpu.exec_time
        list[#list + 1] = tostring(vcpu:instruction())
        list[#list + 1] = select(2, pcall(machine.default.map, machine.default, buffer, 0,
          { size = space }))
        list[#list + 1] = select(2, pcall(vcpu.u8, vcpu, space * 64))
        list[#list + 1] = tostring(vcpu.rip) .. vcpu:state():sub(1, 400)
        return table.concat(list, "\n")
      end
      local first = look(vm, ram, cpu, 0x1000)
      assert(first == look(vm, ram, cpu, 0x1000))
      assert(first ~= look(other, other_ram, other_cpu, 0x2000))
      collectgarbage("setpause", 0)
      collectgarbage("setstepmul", 1000)
      local at_collection
      function at_collection()
        local function fn()
          look(other, other_ram, other_cpu, 0x2000)
          at_collection()
        end
        if newproxy then getmetatable(newproxy(true)).__gc = fn
        else setmetatable({}, { __gc = fn }) end
      end
      at_collection()
      for _ = 1, 60 do
        local now = look(vm, ram, cpu, 0x1000)
        if now ~= first then return print(first, "\n", now) end
      end
      print "same"
    ]])
  end)
end)

helper.kvm("a copy of an object", function()
  it("has its memory and is closed with it", function()
    local vm, ram, cpu = machine()
    helper.keep(vm)
    for _, object in ipairs { ram, cpu, vm } do
      copy_of(object):close()
      helper.contains(" (closed)", tostring(object))
      object:close()
      object:close()
    end
    raises("attempt to use a closed buffer", function() local _ = ram:u8(0) end)
    assert.same({ vm = 0, space = 0, buffer = 0, vcpu = 0 }, luna.live())
  end)

  it("that is closed leaves an object that every call refuses at the caller's line", function()
    local vm, ram, cpu = machine()
    for _, object in ipairs { ram, cpu, vm } do copy_of(object):close() end
    raises("attempt to use a closed buffer", function() local _ = ram:u8(0) end)
    raises("attempt to use a closed buffer", function() local _ = ram:u64(0, 5) end)
    raises("attempt to use a closed buffer", function() local _ = ram:read(0, 5) end)
    raises("attempt to use a closed buffer", function() ram:write(0, "x") end)
    raises("attempt to use a closed buffer", function() ram:view(0) end)
    raises("attempt to use a closed vm", function() vm:space() end)
    raises("attempt to use a closed vm", function() vm:vcpu() end)
    raises("attempt to use a closed vm", function() local _ = vm.default:regions() end)
    raises("attempt to use a closed vm", function() vm:pio(0, 1, { read = print }) end)
    raises("attempt to use a closed vcpu", function() local _ = cpu.rax end)
    raises("attempt to use a closed vcpu", function() cpu.rax = 1 end)
    raises("attempt to use a closed vcpu", function() cpu:run() end)
    raises("attempt to use a closed vcpu", function() local _ = cpu:regs() end)
    raises("attempt to use a closed vcpu", function() local _ = cpu.xmm[0] end)
    raises("attempt to use a closed vcpu", function() local _ = cpu.msr.efer end)
    raises("attempt to use a closed vcpu", function() local _ = cpu.started end)
    raises("attempt to use a closed vcpu", function() local _ = cpu:state() end)
  end)
end)

helper.kvm("at the end of the program", function()
  it("finalizers come in any order", function()
    local output = helper.child [[
      local luna = require "lunavisor"
      local function at_end(fn)
        if newproxy then
          local proxy = newproxy(true)
          getmetatable(proxy).__gc = fn
          return proxy
        end
        return setmetatable({}, { __gc = fn })
      end
      function use()
        for _, object in ipairs { vm, cpu, ram, vm.default } do tostring(object) end
        pcall(ram.u8, ram, 0)
        pcall(cpu.run, cpu, { timeout = 1 })
        pcall(vm.space, vm)
        pcall(vm.default.regions, vm.default)
        pcall(function() local _ = cpu.rax end)
        for _, object in ipairs { ram, cpu, vm } do object:close() end
        print "used"
      end
      before = at_end(use)
      vm, ram = luna.vm(), luna.buffer "4K"
      cpu = vm:vcpu {}
      after = at_end(use)
    ]]
    assert.equal("used\nused", output)
  end)
end)
