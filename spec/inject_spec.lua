-- SPDX-License-Identifier: MIT
-- Injected exceptions: they go along when their vCPU moves.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, u64 = luna.hex, luna.u64
local with_view = require("spec.support.spaces").with_view

helper.kvm("an injected exception", function()
  it("goes along when the vCPU moves", function()
    local guest = with_view { mode = "user", source = "nop\n out 0x10, al" }
    guest.cpu:inject("#GP", 0x58)
    guest.cpu:set_space(guest.view)
    local exit = guest:stops "exception"
    assert.same({ "#GP", 0x58, "0x1000", 1 },
      { exit.name, exit.error_code, hex(exit.rip), guest.cpu.space.id })
    guest:stops "pio"
  end)

  it("goes along there and back, with its address", function()
    local guest = with_view { mode = "long", source = "nop\n hlt" }
    guest.cpu:inject("#PF", 2, u64 "0x7000123456")
    guest.cpu:set_space(guest.view)
    guest.cpu:set_space(0)
    local exit = guest:stops "exception"
    assert.same({ "#PF", 2, "0x7000123456" }, { exit.name, exit.error_code, hex(exit.address) })
    guest:stops "hlt"
  end)

  it("takes an open read back and arrives in the new space", function()
    local guest = with_view { mode = "user", source = "mov rax, [0x200000]\n out 0x10, al" }
    guest.cpu.rax = 0x1234
    guest.cpu:on("fault", function(cpu)
      cpu:set_space(guest.view)
      return { inject = "#PF", error_code = 4, address = 0x200000 }
    end)
    local exit = guest:stops "exception"
    assert.same({ "#PF", 4, "0x200000", "0x1000", "0x1234", 1 }, { exit.name, exit.error_code,
      hex(exit.address), hex(exit.rip), hex(guest.cpu.rax), guest.cpu.space.id })
  end)
end)
