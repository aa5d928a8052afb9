-- SPDX-License-Identifier: MIT
-- Devices of memory: reads and writes go to a buffer without an exit.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local function page()
  return helper.keep(luna.buffer "4K")
end

helper.kvm("a device of memory", function()
  it("answers ports from a buffer", function()
    local guest = helper.guest { source = [[
      mov dx, 0x3f9
      in al, dx
      inc al
      inc dx
      out dx, al
      mov dx, 0x3f8
      mov eax, 0x11223344
      out dx, eax
      in ax, dx
      hlt]] }
    local memory = page()
    memory:u8(0x21, 0x41)
    local trap = assert(guest.vm:pio(0x3f8, 8, { memory = memory, offset = 0x20 }))
    assert.equal("trap 1 (pio 0x3f8..0x3ff)", tostring(trap))
    guest:stops "hlt"
    assert.equal(1, guest.cpu.exits)
    assert.equal(0x11223344, memory:u32(0x20))
    assert.equal(luna.u64(0x3344), luna.u64.band(guest.cpu.rax, 0xffff))
  end)

  it("answers addresses, of every size", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rax, 0x1122334455667788
      mov [0x70000008], rax
      mov byte [0x70000010], 0x99
      mov rbx, [0x70000009]
      mov cx, [0x7000000f]
      hlt]] }
    local memory = page()
    guest.vm:mmio(0x70000000, "4K", { memory = memory })
    guest:stops "hlt"
    assert.equal(1, guest.cpu.exits)
    assert.equal(luna.u64 "0x9911223344556677", guest.cpu.rbx)
    assert.equal(luna.u64(0x9911), luna.u64.band(guest.cpu.rcx, 0xffff))
    assert.equal(luna.u64 "0x1122334455667788", memory:u64(8))
  end)

  it("takes string I/O whole", function()
    local guest = helper.guest { source = [[
      mov dx, 0x80
      mov si, text
      mov cx, 5
      rep outsb
      mov di, 0x2000
      mov cx, 3
      rep insb
      hlt
    text: db "hello"]] }
    local memory = page()
    guest.vm:pio(0x80, 1, { memory = memory })
    guest:stops "hlt"
    assert.equal(1, guest.cpu.exits)
    assert.equal("o", memory:read(0, 1))
    assert.equal("ooo", guest.ram:read(0x2000, 3))
  end)

  it("holds in every space and follows the vCPU", function()
    local guest = helper.guest { source = "in al, 0x80\n inc al\n out 0x80, al\n hlt" }
    local memory, space = page(), guest.vm:space()
    assert(space:map(guest.ram, 0, { rights = "rwx" }))
    guest.vm:pio(0x80, 1, { memory = memory })
    guest:stops "hlt"
    assert(guest.cpu:set_space(space))
    guest.cpu.rip = 0x1000
    guest:stops "hlt"
    assert.equal(2, memory:u8(0))
  end)

  it("lets what it cannot answer leave", function()
    local guest = helper.guest { source = [[
      mov eax, 0x11223344
      mov dx, 0x82
      out dx, eax
      out 0x90, al
      in al, 0x90
      hlt]] }
    local memory = page()
    guest.vm:pio(0x80, 4, { memory = memory })
    guest.vm:pio(0x90, 1, { memory = helper.keep(luna.buffer {
      file = helper.file(("\7"):rep(4096)), read_only = true,
    }) })
    local exit = guest:stops "pio"
    assert.same({ 0x82, 4, "w" }, { exit.port, exit.size, exit.access })
    assert.equal(0, memory:u32(0))
    guest.cpu:answer()
    exit = guest:stops "pio"
    assert.same({ 0x90, "w" }, { exit.port, exit.access })
    guest.cpu:answer()
    guest:stops "hlt"
    assert.equal(luna.u64(7), luna.u64.band(guest.cpu.rax, 0xff))
  end)

  it("goes behind memory, and only what is left of it answers", function()
    local guest = helper.guest { mode = "long", source = [[
      mov byte [0x70000000], 1
      mov byte [0x70001000], 2
      hlt]] }
    local memory, other = helper.keep(luna.buffer "8K"), page()
    guest.vm:mmio(0x70000000, "8K", { memory = memory })
    assert(guest.vm.default:map(other, 0x70001000, { rights = "rwx" }))
    guest:stops "hlt"
    assert.same({ 1, 0, 2 }, { memory:u8(0), memory:u8(0x1000), other:u8(0) })
  end)

  it("marks what the guest wrote", function()
    local guest = helper.guest { source = "out 0x80, al\n hlt" }
    local memory = helper.keep(luna.buffer "8K")
    assert(guest.vm.default:map(memory, 0x200000, { rights = "r--" }))
    guest.vm:pio(0x80, 1, { memory = memory, offset = 0x1800 })
    local function dirty()
      local pages = {}
      for gpa in guest.vm.default:dirty(0x200000, 0x2000) do pages[#pages + 1] = gpa end
      return pages
    end
    dirty()
    guest:stops "hlt"
    assert.same({ 0x201000 }, dirty())
  end)

  it("keeps the buffer until it is closed", function()
    local guest = helper.guest { source = "out 0x80, al\n hlt" }
    local memory = luna.buffer "4K"
    local trap = guest.vm:pio(0x80, 1, { memory = memory })
    local before = luna.live().buffer
    memory:close()
    assert.equal(before, luna.live().buffer)
    guest:stops "hlt"
    trap:close()
    assert.equal(before - 1, luna.live().buffer)
    guest.cpu.rip = 0x1000
    guest:stops "pio"
  end)

  it("refuses what makes no sense", function()
    local vm, memory = helper.keep(luna.vm()), page()
    raises("cannot answer 0x2 bytes from offset 0xfff of a buffer of 0x1000 bytes",
      function() vm:pio(0, 2, { memory = memory, offset = 0xfff }) end)
    raises("the device has memory and functions: one or the other expected",
      function() vm:pio(0, 1, { memory = memory, read = function() return 0 end }) end)
    raises("vm:pio: device.memory: a buffer expected, got string",
      function() vm:pio(0, 1, { memory = "4K" }) end)
    raises("vm:mmio: device.offset: a whole number from 0",
      function() vm:mmio(0, 1, { memory = memory, offset = -1 }) end)
    memory:close()
    raises("attempt to use a closed buffer", function() vm:pio(0, 1, { memory = memory }) end)
  end)
end)
