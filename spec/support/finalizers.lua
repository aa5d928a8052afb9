-- SPDX-License-Identifier: MIT
-- A program whose finalizers close objects while a call that allocates works on them, with the
-- collector always at work. Prints how many calls it made and how many objects were closed so.

local luna = require "lunavisor"

collectgarbage("setpause", 0)
collectgarbage("setstepmul", 1000)

-- Calls fn when the collector next runs finalizers.
local function at_collection(fn)
  if newproxy then
    getmetatable(newproxy(true)).__gc = fn
  else
    setmetatable({}, { __gc = fn })
  end
end

local function machine()
  local vm, ram = luna.vm { irqchip = "split" }, luna.buffer "64K"
  ram:fill(0xf4)
  vm.default:map(ram, 0)
  return vm, ram, vm:vcpu { rip = 0x1000 }
end

-- What allocates while it works on a VM, a buffer and a vCPU.
local calls = {
  run = function(_, _, cpu)
    cpu.rip = 0x1000
    return cpu:run { timeout = 0.002 }
  end,
  step = function(_, _, cpu) return cpu:step() end,
  vm_run = function(vm) return vm:run { timeout = 0.005 } end,
  registers = function(_, _, cpu) return cpu.rax, cpu.cs.base, cpu:regs(), cpu.msr.efer end,
  set = function(_, _, cpu) cpu.rax, cpu.msr.lstar, cpu.msr.star = 5, 6, luna.u64(7) end,
  state = function(_, _, cpu) return cpu:set_state(cpu:state()), cpu.xsave, cpu.xmm[0] end,
  cpuid = function(vm, _, cpu)
    vm:vcpu({ cpuid = cpu.cpuid:list() }):close()
  end,
  memory = function(vm, ram, cpu)
    vm.default:write(0x2000, vm.default:read(0x1000, 0x1000))
    cpu:write(0x2000, cpu:read(0x1000, 0x100))
    return ram:read(0, 0x8000), ram:u64(8), ram:u32(8, 5), cpu:u64(0x2000), vm.default:u64(0x2000)
  end,
  buffers = function(_, ram)
    local view = ram:view(0x1000, 0x1000)
    view:u64(0, luna.u64 "0xffffffffffffffff")
    ram:copy(0, view)
    ram:compare(0, view, 0, 0x1000)
    ram:find("\1\2\3")
    view:close()
  end,
  map = function(vm, ram)
    vm.default:regions()
    vm.default:update(function(update)
      for i = 1, 20 do update:map(ram, 0x100000 + 0x1000 * i, { size = 0x1000 }) end
      for i = 1, 20 do update:unmap(0x100000 + 0x1000 * i, 0x1000) end
    end)
  end,
  interrupts = function(vm, _, cpu)
    vm:route { { line = 1, address = 0xfee00000, data = 0x30 } }
    vm:msi(0xfee00000, 0x30)
    return cpu.apic:get(), cpu.apic.tpr, cpu.blocking
  end,
  look = function(vm, _, cpu)
    return tostring(cpu:translate(0)), cpu:instruction(), cpu:backtrace(3), tostring(vm), vm.accel
  end,
  past = function(_, _, cpu)
    return cpu:last_exits(), cpu:last_exceptions(), cpu.exec_time, cpu.idle_time
  end,
}

local count, closed = 0, 0

-- Closes the object at the collection after `left` others.
local function close_at(object, left)
  local function watch()
    left = left - 1
    if left >= 0 then return at_collection(watch) end
    closed = closed + 1
    object:close()
  end
  at_collection(watch)
end

local function round(call, which, left)
  local objects = { machine() }
  close_at(objects[which], left)
  for _ = 1, 2 do
    count = count + 1
    local ok, message = pcall(call, objects[1], objects[2], objects[3])
    if not ok and not tostring(message):find("closed", 1, true)
      and not tostring(message):find("nothing is mapped", 1, true) then
      error(message, 0)
    end
  end
  for i = 3, 1, -1 do objects[i]:close() end
end

for name, call in pairs(calls) do
  for left = 0, name == "vm_run" and 3 or 20 do
    for which = 1, 3 do round(call, which, left) end
  end
end
print(("%d calls, %d objects closed"):format(count, closed))
