-- SPDX-License-Identifier: MIT
-- Signals and deadlines while a guest runs: Ctrl-C reaches the script, and the library's own signal
-- leaves no trace in the process.

local helper = require "spec.support.helper"
local luna = require "lunavisor"

local SPIN = [[
  local luna = require "lunavisor"
  local vm, ram = assert(luna.vm()), assert(luna.buffer("64K"))
  vm.default:map(ram, 0)
  ram:write(0x1000, luna.asm("out 0x10, al\n jmp $", { bits = 16 }))
  local cpu = assert(vm:vcpu { rip = 0x1000 })
  vm:pio(0x10, 1, { write = function()
    io.stdout:write "running\n"
    io.stdout:flush()
  end })
  local ok, message = pcall(cpu.run, cpu)
  print(ok, message:match "interrupted!")
  print(cpu:run({ timeout = 0.05 }).kind)
]]

helper.kvm("Ctrl-C", function()
  it("raises out of cpu:run, and the vCPU can run on", function()
    local output = helper.interrupt(SPIN, 0.1)
    assert.equal("running\nfalse\tinterrupted!\ntimeout", output)
  end)
end)

helper.kvm("a deadline", function()
  it("that is not reached interrupts nothing afterwards", function()
    local guest = helper.guest { source = "hlt" }
    helper.within(function() return guest.cpu:run({ timeout = 0.1 }).kind == "hlt" end)
    local begin = luna.clock()
    -- A read of a pipe would end early if the timer still fired.
    local pipe = assert(io.popen "sleep 0.3; echo whole")
    assert.equal("whole", pipe:read "*l")
    pipe:close()
    assert.is_true(luna.clock() - begin > 0.25)
  end)

  it("ends a run within reasonable time, again and again", function()
    local guest = helper.guest { source = "jmp $" }
    for _ = 1, 20 do
      local begin = luna.clock()
      assert.equal("timeout", guest.cpu:run({ timeout = 0.005 }).kind)
      local took = luna.clock() - begin
      assert.is_true(took >= 0.005 and took < 30, took)
    end
  end)

  it("of 0 ends a run before the guest is entered", function()
    local guest = helper.guest { source = "inc ax\n jmp $" }
    assert.equal("timeout", guest.cpu:run({ timeout = 0 }).kind)
    assert.equal(luna.u64(0), luna.u64.band(guest.cpu.rax, 0xffff))
  end)
end)
