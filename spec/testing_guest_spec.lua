-- SPDX-License-Identifier: MIT
-- Guests as fixtures, and the assertions of the testing kit: what they take, and what they say.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local t = require "lunavisor.testing"
local contains, raises, said = helper.contains, helper.raises, helper.said

local PRINT = [[
  mov si, text
  next: lodsb
  test al, al
  jz done
  out 0xe9, al
  jmp next
  done: hlt
  text: db ]]

local block = helper.kvm

block("t.guest", function()
  after_each(function() assert.nothing_left() end)

  it("runs assembly and closes itself", function()
    local guest = t.guest "mov eax, 5\n hlt"
    local exit = guest:run()
    assert.exit(exit, "hlt", { rip = 0x1007 })
    assert.exit(guest, "hlt")
    assert.registers { rax = 5 }
    assert.registers(guest, { rax = 5 })
    assert.registers(guest.cpu, { rax = luna.u64(5) })
    t.close()
    assert.equal(0, luna.live().vm)
  end)

  it("takes modes, memory, registers and machine code", function()
    local guest = t.guest("\x48\x01\xd8\xf4", { mode = "long", binary = true, org = 0x2000,
      memory = "64K", registers = { rax = luna.u64(1, 0), rbx = 2 } })
    guest:stops "hlt"
    assert.registers(guest, { rax = luna.u64(1, 2) })
    assert.equal(0x10000, guest.ram.size)
  end)

  it("says where a guest is that does not stop", function()
    local bus = t.bus(device "gate" {
      registers = { STATUS = { at = 0, width = 1, access = "ro" } },
    })
    local guest = t.guest([[
      xor bp, bp
      call wait_ready
      hlt
    wait_ready:
      push bp
      mov bp, sp
    again: in al, 0x64
      test al, 1
      jz again
      pop bp
      ret]], { timeout = 0.5, devices = { { bus, pio = 0x64 } } })
    local message = said(guest.run, guest)
    contains("the guest does not stop within 0.5 s", message)
    contains("it is at rip 0x100", message)
    contains("(again", message)
    contains("called from 0x1005", message)
    contains("pio (read of 1 byte at port 0x64, answered 0x0) of gate, ", message)
    contains(" times", message)
    assert.equal("timeout", guest:run({ timeout = 0.01 }).kind)
  end)

  it("waits for what is printed, at the write that completes it", function()
    local guest = t.guest(PRINT .. "'login: ok login: again', 0")
    guest:prints "login:"
    assert.equal("login:", guest.console.output)
    guest:prints("login:"):prints "again"
    assert.equal("hlt", guest:run().kind)
    local message = said(guest.prints, guest, "password:", { timeout = 0.01 })
    contains([[the guest has not printed "password:": ]], message)
    contains("login: ok login: again", message)
  end)

  it("is sent what it reads", function()
    local guest = t.guest [[
      next: in al, 0xe9
      test al, al
      jz next
      out 0xe9, al
      jmp next]]
    guest.console:send("abc\n"):expect "abc\n"
    guest.console:send "x"
    guest:prints "x"
    assert.equal("abc\nx", guest.console.output)
  end)

  it("has devices of the kit, of a bus, and by hand", function()
    local edu = device "edu" { registers = { ID = { at = 0, width = 1, reset = 0x42 } } }
    local bus = t.bus(edu)
    bus:after_read("ID", function() return 7 end)
    local guest = t.guest("in al, 0x10\n mov bl, al\n in al, 0x20\n mov cl, al\n in al, 0x30\n hlt",
      { devices = { { edu, pio = 0x10 }, { bus, pio = 0x20 },
        { { read = function() return 9 end }, pio = 0x30 } } })
    guest:stops "hlt"
    assert.registers { rbx = 0x42, rcx = 7, rax = 9 }
    assert.equal(0x42, guest.devices[1].ID)
  end)

  it("refuses options that it does not know", function()
    raises("t.guest: unknown option 'device'; did you mean 'devices'?", function()
      t.guest("hlt", { device = {} })
    end)
    raises("mode: one of long, protected", function() t.guest("hlt", { mode = "fast" }) end)
    raises("assembly source, a string, expected, got nil", function() t.guest() end)
    contains("nasm refuses the source", said(t.guest, "hlt hlt"))
  end)

  it("says what is wrong with an exit", function()
    local guest = t.guest "in al, 0x10\n hlt"
    contains("exit hlt expected, got pio (read of 1 byte at port 0x10)", said(guest.stops, guest,
      "hlt"))
  end)
end)

block("an assertion about a guest", function()
  after_each(function() assert.nothing_left() end)

  it("compares what it prints by lines", function()
    local guest = t.guest(PRINT .. "'one', 10, 'two', 10, 0")
    assert.outputs(guest, "one\ntwo\n")
    contains([[line 2 is "two", not "too"]], said(assert.outputs, guest, "one\ntoo\n"))
    assert.is_not.outputs(guest, "one")
    contains("the guest has printed", said(assert.is_not.outputs, guest, "one\ntwo\n"))
  end)

  it("wants it to halt in time", function()
    assert.halts_within(t.guest "hlt", 5)
    contains("does not halt within 0.01 s: timeout at", said(assert.halts_within, t.guest "jmp $",
      0.01))
  end)

  it("wants a fault", function()
    t.guest("mov ebx, 0xd0000000\n mov [rbx], al", { mode = "long" })
    assert.faults_at(0xd0000000, "w")
    local guest = t.guest("mov ebx, 0xd0000000\n mov al, [rbx]", { mode = "long" })
    contains("a fault at 0xd0000000 expected, got fault (read", said(assert.faults_at, guest,
      0xd0000000, "w"))
  end)

  it("names the registers that differ, and no others", function()
    local guest = t.guest "mov eax, 6\n hlt"
    guest:stops "hlt"
    local message = said(assert.registers, guest, { rax = 5, rbx = 0 })
    contains("rax is 0x6, not 0x5", message)
    assert.is_nil(message:find("rbx", 1, true))
  end)

  it("names the fields of an exit that differ", function()
    local exit = t.guest("hlt"):run()
    contains("exit.rip is 0x1001, not 0x5\nof hlt at", said(assert.exit, exit, "hlt", { rip = 5 }))
    contains("exit pio expected, got hlt", said(assert.exit, exit, "pio"))
  end)

  it("looks at memory and the screen", function()
    local guest = t.guest [[
      mov ax, 0xb800
      mov es, ax
      mov word [es:0], 0x0748
      mov word [es:2], 0x0769
      mov word [es:164], 0x0721
      hlt]]
    guest:stops "hlt"
    assert.screen(guest, "Hi")
    assert.equal("Hi\n  !", guest.screen:text())
    contains([[does not show "Ho", but:]], said(assert.screen, guest, "Ho"))
    assert.memory(guest, 0xb8000, "H\7i\7")
    local message = said(assert.memory, guest, 0xb7ff0, ("\0"):rep(16) .. "H\7j\7")
    contains("memory differs:\n  0xb8000: 48 07 69 07\n      not  48 07 6a 07",
      (message:gsub(" +not", "      not ")))
    assert.is_nil(message:find("0xb7ff0", 1, true))
  end)
end)

describe("an assertion about a bus", function()
  local pager = device "pager" {
    registers = { ISR = { at = 0, access = "w1c" }, IER = { at = 4 }, GO = { at = 8,
      write = function(dev, value) dev.dma:write(value, "page") end } },
    lines = { irq = { status = "ISR", enable = "IER" } },
  }
  local bus
  before_each(function() bus = t.bus(pager) end)

  it("compares what a register reads", function()
    assert.reads(bus, "IER", 0)
    assert.reads(bus, 4, 0, 2)
    contains("IER reads 0x0, not 0x1", said(assert.reads, bus, "IER", 1))
    contains("offset 0x4 reads 0x0, not 0x1", said(assert.reads, bus, 4, 1, 4))
    contains("IER reads 0x0", said(assert.is_not.reads, bus, "IER", 0))
    contains("a bus expected, got table", said(assert.reads, {}, "IER", 0))
  end)

  it("looks at lines and their edges", function()
    assert.lowers(bus, "irq")
    bus:write32("IER", 1)
    bus.device.ISR = 1
    assert.raises(bus, "irq")
    contains("line irq is up", said(assert.lowers, bus, "irq"))
    bus:write32("ISR", 1)
    contains("line irq is down", said(assert.raises, bus, "irq"))
    assert.edges(bus, "irq", "up", "down")
    assert.edges(bus, "irq")
    bus.device.ISR = 1
    contains("had the edges up, not down", said(assert.edges, bus:line "irq", "down"))
    local line = device.line "own"
    contains("nobody watches line own", said(assert.edges, line))
    t.watch(line):pulse()
    assert.edges(line, "up", "down")
  end)

  it("looks for DMA, and shows what there was", function()
    bus:write32("GO", 0x2000)
    assert.dma(bus, { to = 0x2000, bytes = "page" })
    assert.dma(bus, { to = 0x2000, bytes = 4 })
    assert.memory(bus, 0x2000, "page")
    contains("no DMA from gpa 0x2000; there was:\n  write of 4 bytes at gpa 0x2000",
      said(assert.dma, bus, { from = 0x2000 }))
    contains("0x2000: 70 61 67 65", said(assert.dma, bus, { to = 0x2000, bytes = "pass" }))
    bus:write32("GO", 2 ^ 31)
    assert.dma(bus, { to = 2 ^ 31, failed = true })
  end)
end)
