-- SPDX-License-Identifier: MIT
-- Accesses that are wider than the device at their first port: each part goes to its owner.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

-- Runs the source in 32-bit mode, with devices at ports that note the accesses in one list.
local function guest_of(source)
  local guest = helper.guest { mode = "protected", source = source .. "\n hlt" }
  guest.log = {}
  function guest.device(name, value)
    return {
      write = function(_, offset, size, written)
        guest.log[#guest.log + 1] = ("%s w %d %d %x"):format(name, offset, size, written)
      end,
      read = function(_, offset, size)
        guest.log[#guest.log + 1] = ("%s r %d %d"):format(name, offset, size)
        return value
      end,
    }
  end
  return guest
end

helper.kvm("an access to several devices", function()
  it("is written to each in order", function()
    local guest = guest_of "mov eax, 0x44332211\n out 0x10, eax"
    guest.vm:pio(0x10, 1, guest.device "a")
    guest.vm:pio(0x11, 3, guest.device "b")
    guest:stops "hlt"
    assert.same({ "a w 0 1 11", "b w 0 1 22", "b w 1 2 4433" }, guest.log)
  end)

  it("is read from each, and put together", function()
    local guest = guest_of "in eax, 0x10"
    guest.vm:pio(0x10, 2, guest.device("a", 0x2211))
    guest.vm:pio(0x12, 2, guest.device("b", 0x4433))
    guest:stops "hlt"
    assert.same({ "a r 0 2", "b r 0 2" }, guest.log)
    assert.equal(luna.u64(0x44332211), guest.cpu.rax)
  end)

  it("is whole where one device has it, or nobody else does", function()
    local guest = guest_of "mov eax, 0x44332211\n out 0x10, eax\n out 0x20, eax"
    guest.vm:pio(0x10, 4, guest.device "a")
    guest.vm:pio(0x20, 1, guest.device "b")
    guest:stops "hlt"
    assert.same({ "a w 0 4 44332211", "b w 0 4 44332211" }, guest.log)
  end)

  it("comes to handlers where nobody has a part", function()
    local guest = guest_of "in ax, 0x10"
    guest.vm:pio(0x11, 1, guest.device("b", 0x22))
    guest.cpu:on("pio", function(_, exit)
      guest.log[#guest.log + 1] = tostring(exit):match "%b()"
      return 0x11
    end)
    guest:stops "hlt"
    assert.same({ "(read of 1 byte at port 0x10)", "b r 0 1" }, guest.log)
    assert.equal(luna.u64(0x2211), guest.cpu.rax)
  end)

  it("is the same for strings, devices of blocks and memory", function()
    local guest = guest_of "mov esi, 0x2000\n mov ecx, 2\n mov dx, 0x10\n rep outsd"
    guest.ram:write(0x2000, "abcdefgh")
    local memory, text = helper.keep(assert(luna.buffer "4K")), ""
    guest.vm:pio(0x10, 1, { write_block = function(_, _, _, data) text = text .. data end })
    guest.vm:pio(0x11, 1, guest.device "b")
    guest.vm:pio(0x12, 2, { memory = memory })
    guest:stops "hlt"
    assert.equal("ae", text)
    assert.same({ "b w 0 1 62", "b w 0 1 66" }, guest.log)
    assert.equal("gh", memory:read(0, 2))
  end)

  it("is the same under vm:run and in steps", function()
    for _, how in ipairs { "vm", "step" } do
      local guest = guest_of "mov eax, 0x44332211\n out 0x10, eax"
      guest.vm:pio(0x10, 1, guest.device "a")
      guest.vm:pio(0x11, 3, guest.device "b")
      if how == "vm" then
        assert.equal("hlt", (guest.vm:run { timeout = 60 }).kind)
      else
        for _ = 1, 2 do assert.equal("debug", guest.cpu:step().kind) end
      end
      assert.same({ "a w 0 1 11", "b w 0 1 22", "b w 1 2 4433" }, guest.log)
    end
  end)

  it("is the same for addresses", function()
    local guest = guest_of "mov eax, 0x44332211\n mov [0xd0000000], eax\n mov eax, [0xd0000000]"
    guest.vm:mmio(0xd0000000, 2, guest.device("a", 0xbbaa))
    guest.vm:mmio(0xd0000002, 2, guest.device("b", 0xddcc))
    guest:stops "hlt"
    assert.same({ "a w 0 2 2211", "b w 0 2 4433", "a r 0 2", "b r 0 2" }, guest.log)
    assert.equal(luna.u64 "0xddccbbaa", guest.cpu.rax)
  end)
end)
