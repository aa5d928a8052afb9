-- SPDX-License-Identifier: MIT
-- INIT and SIPI from the guest between vCPUs on threads of their own.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex = luna.hex

local features = luna.probe().features or {}

local function icr(id)
  return ("mov dword [fs:0x310], 0x%x000000\n mov dword [fs:0x300], 0x4500\n"
    .. "mov dword [fs:0x300], 0x4609\n"):format(id)
end

-- A VM of whose `count` vCPUs the first starts the others at 0x9000; each writes its CS to a port
-- and loops. vm.seen is the list of those.
local function machine(chip, count)
  local vm, ram = helper.keep(luna.vm { irqchip = chip }), helper.keep(luna.buffer "64K")
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  local source, cpus, seen = "", {}, {}
  for id = 1, count - 1 do source = source .. icr(id) end
  ram:write(0x1000, helper.code(source .. "mov ax, cs\n out 0x30, ax\n jmp $", 16, 0x1000))
  ram:write(0x9000, helper.code("mov ax, cs\n out 0x30, ax\n jmp $", 16, 0))
  for i = 1, count do
    cpus[i] = helper.keep(vm:vcpu { rip = 0x1000, rsp = 0x8000, wait = i > 1 })
  end
  irq.enable_apic(cpus[1])
  vm:pio(0x30, 2, { write = function(_, _, _, value)
    seen[#seen + 1] = value
    if #seen == count then vm:stop() end
  end })
  return vm, cpus, seen
end

-- Seconds of processor time that this process has used.
local clock = os.clock

for _, chip in ipairs { "split", "kernel" } do
  helper.kvm("with irqchip " .. chip, function()
    if features[chip == "split" and "split_irqchip" or "irqchip"] ~= 1 then
      it("vCPUs start others", function() pending "this host's KVM has no such irqchip" end)
      return
    end

    for _, count in ipairs { 2, 4 } do
      it(("the first of %d vCPUs starts the others"):format(count), function()
        local vm, cpus, seen = machine(chip, count)
        local exit = assert(vm:run { timeout = 60 })
        assert.equal("stopped", exit.kind)
        table.sort(seen)
        local expected = { 0 }
        for i = 2, count do expected[i] = 0x900 end
        assert.same(expected, seen)
        assert.equal("timeout", vm:run({ timeout = 0.02 }).kind)
        for i = 2, count do
          assert.same({ "runnable", "0x9000" }, { cpus[i].mp_state, hex(cpus[i].cs.base) })
        end
        assert.equal(count, #seen)
      end)
    end

    it("those that wait take no time, can be paused, stopped and closed", function()
      local _, cpus = machine(chip, 4)
      for i = 2, 4 do assert(cpus[i]:start()) end
      local before, begin = clock(), luna.clock()
      os.execute "sleep 0.2"
      assert.is_true(clock() - before < (luna.clock() - begin) / 2)
      for _ = 1, 10 do
        assert(cpus[2]:pause())
        assert.equal("uninitialized", cpus[2].mp_state)
        assert(cpus[2]:resume())
      end
      cpus[2]:join()
      cpus[3]:close()
      assert.equal("uninitialized", cpus[2].mp_state)
    end)

    it("one that waits is interrupted", function()
      local vm, cpus = machine(chip, 2)
      assert(cpus[2]:start())
      cpus[2]:interrupt()
      local exit, cpu
      repeat exit, cpu = vm:poll() until exit
      assert.same({ "interrupted", cpus[2] }, { exit.kind, cpu })
      assert.equal("uninitialized", cpu.mp_state)
      helper.contains("interrupted at rip", tostring(exit))
    end)
  end)
end
