-- SPDX-License-Identifier: MIT
-- Writes that KVM collects: the device gets all of them, in order, before the next exit.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, contains = helper.raises, helper.contains

local coalesced = { coalesced = true }

-- Where this host's KVM cannot collect writes to ports.
local function needs_pio()
  if (luna.probe().features.coalesced_pio or 0) == 0 then
    pending "this KVM has no KVM_CAP_COALESCED_PIO"
  end
end

local function notes(log, name)
  return { write = function(_, offset, size, value)
    log[#log + 1] = ("%s %x %d %s"):format(name, offset, size, luna.hex(value))
  end }
end

-- Writes 1 to 5 to port 0x90, of which 3 goes to 0x91, then reads port 0x60.
local source = [[
  mov dx, 0x90
  mov al, 1
  out dx, al
  inc al
  out dx, al
  inc al
  inc dx
  out dx, al
  dec dx
  inc al
  out dx, al
  inc al
  out dx, al
  in al, 0x60
  hlt]]

helper.kvm("a coalesced trap", function()
  it("gets the writes in order, before the exit that ends them", function()
    needs_pio()
    local guest, log = helper.guest { source = source }, {}
    assert(guest.vm:pio(0x90, 2, notes(log, "w"), coalesced))
    guest.vm:pio(0x60, 1, { read = function()
      log[#log + 1] = "r"
      return 0x5a
    end })
    guest:stops "hlt"
    assert.same({ "w 0 1 0x1", "w 0 1 0x2", "w 1 1 0x3", "w 0 1 0x4", "w 0 1 0x5", "r" }, log)
    assert.equal(luna.u64(0x5a), luna.u64.band(guest.cpu.rax, 0xff))
  end)

  it("gets writes to memory, in one order with ports", function()
    needs_pio()
    local guest, log = helper.guest { mode = "long", source = [[
      mov dword [0x70000010], 0x11223344
      out 0x90, al
      mov rbx, 0x1122334455667788
      mov [0x70000018], rbx
      hlt]] }, {}
    local mmio = assert(guest.vm:mmio(0x70000000, 0x1000, notes(log, "m")))
    assert.is_true(guest.vm:coalesce(mmio))
    assert.is_true(guest.vm:coalesce(mmio)) -- twice is fine
    assert.is_true(guest.vm:coalesce(guest.vm:pio(0x90, 1, notes(log, "p"))))
    guest:stops "hlt"
    assert.same({ "m 10 4 0x11223344", "p 0 1 0x0", "m 18 8 0x1122334455667788" }, log)
  end)

  it("leaves the guest once for many writes", function()
    needs_pio()
    local many = [[
      mov cx, 1000
    next:
      out 0x90, al
      loop next
      hlt]]
    local guest = helper.guest { source = many }
    local positions, count = {}, 0
    guest.vm:pio(0x90, 1, { write = function()
      count = count + 1
      positions[luna.hex(guest.cpu.rcx)] = true -- as it was when the guest left
    end }, coalesced)
    guest:stops "hlt"
    local exits = 0
    for _ in pairs(positions) do exits = exits + 1 end
    assert.equal(1000, count)
    assert.truthy(exits < 20, exits)
  end)

  it("keeps a write whose device raises, and all behind it", function()
    needs_pio()
    local guest, log = helper.guest { source = source }, {}
    local device = notes(log, "w")
    local write, broken = device.write, true
    function device.write(self, offset, size, value)
      if value == 2 and broken then error "broken" end
      write(self, offset, size, value)
    end
    guest.vm:pio(0x90, 2, device, coalesced)
    contains("broken", helper.fails(guest))
    contains("broken", helper.fails(guest))
    assert.same({ "w 0 1 0x1" }, log)
    broken = false
    guest:stops "pio" -- the read of port 0x60
    assert.same({ "w 0 1 0x1", "w 0 1 0x2", "w 1 1 0x3", "w 0 1 0x4", "w 0 1 0x5" }, log)
    guest.cpu:answer(7)
    guest:stops "hlt"
    assert.equal(5, #log)
  end)

  it("comes before a timeout and an interrupt", function()
    needs_pio()
    local guest, log = helper.guest { source = "out 0x90, al\n spin: jmp spin" }, {}
    guest.vm:pio(0x90, 1, notes(log, "w"), coalesced)
    guest:settles(function() return #log > 0 end)
    assert.same({ "w 0 1 0x0" }, log)
    guest.cpu.rip = 0x1000
    guest.cpu:interrupt()
    guest:stops "interrupted"
    guest:settles(function() return #log > 1 end)
    assert.equal(2, #log)
  end)

  it("may stop the run, or move the vCPU, from inside the device", function()
    needs_pio()
    local guest, log = helper.guest { source = source }, {}
    local space = guest.vm:space()
    assert(space:map(guest.ram, 0, { rights = "rwx" }))
    local device = notes(log, "w")
    local write = device.write
    function device.write(self, offset, size, value)
      write(self, offset, size, value)
      if value == 2 then guest.cpu:stop "enough" end
      if value == 4 then guest.cpu:set_space(space) end
    end
    guest.vm:pio(0x90, 2, device, coalesced)
    local exit = assert(guest:run())
    assert.same({ "stopped", "enough", 2 }, { exit.kind, exit.value, #log })
    exit = guest:stops "pio"
    assert.same({ 0x60, 0, 5 }, { exit.port, exit.space.id, #log })
    guest.cpu:answer(1)
    assert.equal(space.id, guest:stops("hlt").space.id)
  end)

  it("holds in every space, also in those made later", function()
    needs_pio()
    local guest, log = helper.guest { source = "out 0x90, al\n hlt" }, {}
    local first = guest.vm:space()
    guest.vm:pio(0x90, 1, notes(log, "w"), coalesced)
    for i, space in ipairs { first, guest.vm:space() } do
      assert(space:map(guest.ram, 0, { rights = "rwx" }))
      assert(guest.cpu:set_space(space))
      guest.cpu.rip = 0x1000
      guest:stops "hlt"
      assert.equal(i, #log)
    end
  end)

  it("is an ordinary port again when it is closed", function()
    needs_pio()
    local guest, log = helper.guest { source = "out 0x90, al\n out 0x90, al\n hlt" }, {}
    local trap
    trap = guest.vm:pio(0x90, 1, { write = function()
      log[#log + 1] = "w"
      trap:close()
    end }, coalesced)
    assert.equal(0x90, guest:stops("pio").port) -- collected before, and nobody's now
    guest.cpu:answer()
    guest:stops "hlt"
    assert.same({ "w" }, log)
    guest.cpu.rip = 0x1000
    guest:stops "pio"
  end)

  it("does not swallow the guest's exceptions", function()
    needs_pio()
    local guest, log = helper.guest { mode = "long", source = "out 0x90, al\n ud2" }, {}
    guest.vm:pio(0, 0x10000, notes(log, "w"), coalesced)
    assert.equal("#UD", guest:stops("exception").name)
    assert.same({ "w 90 1 0x0" }, log)
  end)

  it("refuses what is no trap of the VM", function()
    local vm, other = helper.keep(luna.vm()), helper.keep(luna.vm())
    local device = { write = function() end, read = function() return 0 end }
    local trap = vm:pio(0x90, 1, device)
    raises("vm:coalesce: trap: a trap expected, got number", function() vm:coalesce(1) end)
    raises("the trap belongs to another VM", function() other:coalesce(trap) end)
    trap:close()
    raises("attempt to use a closed trap", function() vm:coalesce(trap) end)
    raises("vm:pio: coalesced: true or false expected",
      function() vm:pio(0x90, 1, device, { coalesced = 1 }) end)
    raises("vm:mmio: unknown option 'coalesce'",
      function() vm:mmio(0x90, 1, device, { coalesce = true }) end)
    raises("KVM takes less than 4 GiB",
      function() vm:mmio(0, "4G", device, coalesced) end)
    assert(vm:mmio(0, "4G", device)) -- the refused trap is gone
    local msr = vm:msr(0x174, device)
    if msr then raises("it is for MSRs", function() vm:coalesce(msr) end) end
  end)
end)
