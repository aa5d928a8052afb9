-- SPDX-License-Identifier: MIT
-- What the calls of anywhere_calls.lua work on: a VM with a split irqchip, its memory and vCPU with
-- code for them, and another VM with a vCPU that never runs.

local luna = require "lunavisor"

--- options.fill: a byte that the memory has where nothing else is; options.runs: how often the vCPU
--- has run already. Returns .vm, .ram, .cpu, .other, .spare, .tidy().
return function(options)
  local vm = luna.vm { irqchip = "split", unknown_msrs = "exit" }
  local ram = luna.buffer { size = "64K", memfd = true }
  vm.default:map(ram, 0)
  ram:fill(options and options.fill or 0)
  ram:write(0x1000, "\xe6\x10\xe6\x10\xeb\xfa") -- again: out 0x10, al (twice); jmp again
  ram:write(0x2800, "\xe4\x20\x90\xe6\x10\xeb\xfe") -- in al, 0x20; nop; out 0x10, al; jmp $
  -- mov ecx, 0x12345; rdmsr; #GP leads to the OUT
  ram:write(0x2a00, "\x66\xb9\x45\x23\x01\x00\x0f\x32")
  ram:u32(13 * 4, 0x1000)
  local cpu = vm:vcpu { rip = 0x1000, rsp = 0x8000 }
  local other = luna.vm { irqchip = "split" }
  vm:pio(0x10, 1, { write = function()
    if cpu.rip ~= nil then cpu:stop(1) end
  end })
  local world = { vm = vm, ram = ram, cpu = cpu, other = other }
  world.spare = other:vcpu() -- never runs: what is queued for it stays
  for _ = 1, options and options.runs or 0 do cpu:run { timeout = 5 } end

  --- Takes back what an error may have left: mapped memory whose unmapping it has prevented.
  function world.tidy()
    luna.debug(false)
    for _, region in ipairs(vm.default:regions()) do
      if region.gpa >= 0x200000 then vm.default:unmap(region.gpa, region.size) end
    end
    if cpu.started then cpu:join() end
    cpu:set_space(0)
    for i = #vm.vcpus, 2, -1 do vm.vcpus[i]:close() end
    for _, list in ipairs { vm.traps, vm.timers, vm.held } do
      for key, value in pairs(list) do
        local object = value == true and key or type(key) == "table" and key or value
        if not (list == vm.traps and object.first == 0x10) then object:close() end
      end
    end
    while vm.default.faults[1] do vm.default.faults[1]:close() end
    for id, space in pairs(vm.spaces) do
      if id > 0 then assert(space:close()) end
    end
  end

  return world
end
