-- SPDX-License-Identifier: MIT Objects that are closed by a finalizer, through a copy, or at the
-- end of the program, while or before they are used: an error or a result, never freed memory. The
-- address sanitizer sees more here.

local luna = require "lunavisor"
local compiled = require "spec.support.compiled"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"
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

-- Runs spec/support/finalizers.lua, on the software CPU, whose VMs are made in no time, and with
-- freed memory that is not what it was. LUNA_FINALIZERS=n tries n places of each call; 1e9 is all.
local function anywhere(env)
  local module = assert(os.getenv "LUNAVISOR_LIBRARY"):match "^(.*)/" .. "/spec/alloc.so"
  local file = io.open(module)
  if not file then pending "spec/alloc.so is not built" end
  file:close()
  local most = os.getenv "LUNA_FINALIZERS"
  env.LUNA_ANYWHERE_ELF = compiled.asm(compiled.directory(), 32, 0x6000)
  env.LUNA_ACCEL, env.MALLOC_PERTURB_, env.LUNA_FINALIZERS_MOST = "soft", "165", most or "5"
  local output, status = helper.sh(("%s '%s'"):format(helper.command("spec/support/finalizers.lua",
    { env = env }), module), most and 36000 or 300)
  assert.equal("", (output:gsub("a finalizer came [1-9]%d* times$", "")))
  assert.equal(0, status)
end

soft.block("a finalizer that closes objects or makes the same call, anywhere in", function()
  if helper.stressed then return pending "the collector rests here until a place is reached" end
  for _, names in ipairs { "a-e", "f-k", "l-r", "s-z" } do
    it("calls " .. names .. ", leaves an error or the result", function()
      anywhere { LUNA_FINALIZERS_ONLY = "^[" .. names .. "]" }
    end)
  end

  if helper.jit then
    it("compiled code, leaves an error or the result", function()
      if not os.getenv "LUNA_FINALIZERS" then
        return pending "a cycle of the collector at each look takes long; LUNA_FINALIZERS=5 does it"
      end
      anywhere { LUNA_FINALIZERS_ONLY = "^r", LUNA_FINALIZERS_JIT = "1" }
    end)
  end
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
