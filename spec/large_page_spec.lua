-- SPDX-License-Identifier: MIT
-- INVLPG of an address in a large page forgets the whole page (SDM Vol. 3, 4.10.4.1).

local luna = require "lunavisor"
local helper = require "spec.support.helper"

helper.kvm("INVLPG in a large page", function()
  it("forgets the page's other parts too", function()
    local guest = helper.guest { mode = "long", size = "8M", source = [[
      mov rax, [0x201000]
      mov rcx, [0x200000]
      mov qword [0x12008], 0x600083
      invlpg [0x200000]
      mov rbx, [0x201000]
      hlt ]] }
    local ram = guest.ram
    ram:u64(0x10000, 0x11003)
    ram:u64(0x11000, 0x12003)
    ram:u64(0x12000, 0x83) -- 2 MiB at 0
    ram:u64(0x12008, 0x400083) -- and at 0x200000, elsewhere in memory
    ram:u64(0x401000, 2)
    ram:u64(0x601000, 3)
    guest.cpu.cr3 = 0x10000
    guest:stops "hlt"
    assert.same({ "0x2", "0x3" }, { luna.hex(guest.cpu.rax), luna.hex(guest.cpu.rbx) })
  end)
end)
