-- SPDX-License-Identifier: MIT
-- How vCPUs begin and wait: MP states, INIT and SIPI from another vCPU's LAPIC, and by hand.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex, u64 = luna.hex, luna.u64

local SPLIT = { irqchip = "split" }
local has_split = (luna.probe().features or {}).split_irqchip == 1

-- INIT and, if a vector is given, SIPI to LAPIC 1 through ICR.
local function icr(vector)
  return "mov dword [fs:0x310], 0x1000000\n mov dword [fs:0x300], 0x4500\n"
    .. (vector and ("mov dword [fs:0x300], 0x46%02x\n"):format(vector) or "")
end

-- Runs both by turns until the second has an exit.
local function alternate(first, second)
  for _ = 1, 5000 do
    for _, cpu in ipairs { first, second } do
      local exit = assert(cpu:run { timeout = 0.005 })
      if cpu == second and exit.kind ~= "timeout" then return exit end
    end
  end
  error("the second vCPU does not start", 2)
end

helper.kvm("a vCPU with a LAPIC in KVM", function()
  if not has_split then
    it("waits", function() pending "this host's KVM has no split irqchip" end)
    return
  end

  it("begins at once, whatever its number, unless it is to wait", function()
    local vm = helper.keep(luna.vm(SPLIT))
    local function begins(of, options) return helper.keep(of:vcpu(options)).mp_state end
    assert.equal("runnable", begins(vm, { mode = "reset" }))
    assert.equal("runnable", begins(vm, { mode = "real" }))
    assert.equal("uninitialized", begins(vm, { mode = "reset" }))
    assert.equal("uninitialized", begins(vm, { mode = "real", wait = true }))
    local other = helper.keep(luna.vm(SPLIT))
    assert.equal("uninitialized", begins(other, { wait = true }))
    helper.raises("cannot make a vCPU that waits for INIT and SIPI: the VM was made without",
      function() helper.keep(luna.vm()):vcpu { wait = true } end)
    helper.raises("vm:vcpu: wait: true or false expected",
      function() other:vcpu { wait = 1 } end)
  end)

  it("runs though its number is above 0", function()
    local guest = irq.guest("out 0x30, al", { vm = SPLIT })
    local second = guest.vm:vcpu { rip = 0x1000 }
    assert.equal("pio", second:run({ timeout = 60 }).kind)
  end)

  it("has an MP state that can be set", function()
    local guest = irq.guest("out 0x30, al", { vm = SPLIT })
    local cpu = guest.cpu
    for _, state in ipairs { "halted", "uninitialized", "runnable" } do
      cpu.mp_state = state
      assert.equal(state, cpu.mp_state)
    end
    cpu.mp_state = "halted"
    guest:stops("timeout", { timeout = 0.01 })
    cpu.mp_state = "runnable"
    guest:stops "pio"
    helper.raises("cpu.mp_state: 'runnable', 'halted'", function() cpu.mp_state = "asleep" end)
  end)

  it("that waits ends with its timeout and with an interrupt of the run", function()
    local guest = irq.guest("out 0x30, al", { vm = SPLIT, wait = true })
    local cpu = guest.cpu
    guest:stops("timeout", { timeout = 0.05 })
    cpu:interrupt()
    guest:stops "interrupted"
    assert.equal("uninitialized", cpu.mp_state)
    guest:stops("timeout", { timeout = 0.001 })
  end)

  it("waits for SIPI after INIT, as long as that takes", function()
    local guest = irq.guest(icr() .. "out 0x31, al", { vm = SPLIT })
    local second = guest.vm:vcpu { wait = true }
    assert.equal("timeout", second:run({ timeout = 0.005 }).kind)
    guest:stops "pio"
    for _ = 1, 2000 do -- a run may be over before it begins, where the collector is always at work
      assert.equal("timeout", second:run({ timeout = 0.03 }).kind)
      if second.mp_state ~= "uninitialized" then break end
    end
    assert.equal("init_received", second.mp_state)
  end)

  it("is started by another with INIT and SIPI", function()
    local guest = irq.guest(icr(9) .. "again: jmp again", { vm = SPLIT })
    guest.ram:write(0x9000, helper.code("mov ax, cs\n out 0x30, ax", 16, 0))
    local second = guest.vm:vcpu { mode = "reset" }
    local exit = alternate(guest.cpu, second)
    assert.same({ "pio", 0x30, 0x900 }, { exit.kind, exit.port, exit.value })
    assert.same({ "runnable", "0x9000" }, { second.mp_state, hex(second.cs.base) })
  end)

  it("sees what SIPI has done to its registers before it runs", function()
    local guest = irq.guest(icr(9) .. "again: jmp again", { vm = SPLIT })
    local second = guest.vm:vcpu { wait = true, rip = 0x1234 }
    second:run { timeout = 0.001 }
    assert.equal("0x1234", hex(second.rip))
    for _ = 1, 2000 do
      guest:stops("timeout", { timeout = 0.01 })
      if second.mp_state == "runnable" then break end
    end
    assert.equal("runnable", second.mp_state)
    assert.same({ "0x0", "0x9000" }, { hex(second.rip), hex(second.cs.base) })
  end)

  for _, looks in ipairs { false, true } do
    it("begins anew, whatever was written while it waited"
        .. (looks and ", and shows that at once" or ""), function()
      local guest = irq.guest(icr(9) .. "out 0x31, al", { vm = SPLIT })
      guest.ram:write(0x9000, helper.code("mov ax, cs\n out 0x30, ax", 16, 0))
      local second = guest.vm:vcpu { wait = true }
      second.ds.base, second.cs.base, second.rip, second.rbx = 0x5000, 0, 0x1234, 7
      guest:stops "pio" -- INIT and SIPI are there
      if looks then
        assert.same({ "runnable", "0x9000", "0x0" },
          { second.mp_state, hex(second.cs.base), hex(second.ds.base) })
      end
      local exit = second:run { timeout = 60 }
      assert.same({ "pio", 0x30, 0x900 }, { exit.kind, exit.port, exit.value })
      assert.same({ "0x9000", "0x0", "0x0" },
        { hex(second.cs.base), hex(second.ds.base), hex(second.rbx) })
    end)
  end

  it("moves to another space while it waits", function()
    local guest = irq.guest(icr(9) .. "out 0x31, al", { vm = SPLIT })
    local second = guest.vm:vcpu { wait = true }
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.ram:write(0x9000, helper.code("out 0x30, al", 16, 0))
    second:set_space(view)
    assert.equal("uninitialized", second.mp_state)
    second:set_space(0)
    guest:stops "pio"
    second:set_space(view) -- INIT and SIPI are there, not yet acted on
    assert.same({ "runnable", "0x9000" }, { second.mp_state, hex(second.cs.base) })
    assert.equal("pio", second:run({ timeout = 60 }).kind)
  end)
end)

helper.kvm("cpu:sipi", function()
  local function check(options)
    local guest = helper.guest { source = "out 0x30, ax", org = 0x9000, vm = options }
    local cpu = guest.vm:vcpu { mode = "long" }
    cpu.rax, cpu.rbx, cpu.r15 = 1, 2, 3
    assert.is_true(cpu:sipi(9))
    assert.equal("runnable", cpu.mp_state)
    local exit = cpu:run { timeout = 60 }
    assert.same({ "pio", 0 }, { exit.kind, exit.value })
    for _, register in ipairs { "rbx", "r15", "cr3", "cr4", "efer" } do
      assert.equal("0x0", hex(cpu[register]), register)
    end
    assert.same({ "0x900", "0x9000", "0x60000010" },
      { hex(cpu.cs.selector), hex(cpu.cs.base), hex(u64.band(cpu.cr0, 0xffffffff)) })
    helper.raises("cannot start vCPU 1: it has an open exit", function() cpu:sipi(9) end)
    helper.raises("cpu:sipi: vector: a whole number from 0 to 0xff", function() cpu:sipi(256) end)
  end

  it("starts a vCPU by hand, in real mode at its vector", function() check() end)

  it("does so with a LAPIC in KVM too", function()
    if not has_split then pending "this host's KVM has no split irqchip" end
    check(SPLIT)
  end)

  it("goes without MP states where there is no LAPIC in KVM", function()
    local guest = helper.guest { source = "hlt" }
    assert.equal("runnable", guest.cpu.mp_state)
    guest.cpu.mp_state = "runnable"
    helper.raises("cannot set the MP state: the VM was made without an interrupt controller",
      function() guest.cpu.mp_state = "halted" end)
  end)
end)
