-- SPDX-License-Identifier: MIT
-- A guest that steps itself by RFLAGS.TF does the same under breakpoints, steps and watchpoints of
-- the script as alone.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, u64 = luna.hex, luna.u64

local PATIENCE = { timeout = 60 }
local HANDLER = 0x1100

-- DI counts the #DBs; the handler notes where each was (from 0x3000 on) and gathers DR6.BS.
local TRAP = [[
  push bp
  mov bp, sp
  mov ax, [bp + 2]
  mov [0x3000 + edi * 2], ax
  mov eax, dr6
  and ax, 0x4000
  or [0x2ffe], ax
  inc di
  pop bp
  iret]]

-- Sets TF by POPF and clears it again, and saves the flags before, meanwhile and afterwards.
local SOURCE = [[
  pushf
  push word 0x102
  popf
  nop
  pushf
  mov byte [0x2000], 1
  nop
  nop
  push word 2
  popf
  nop
  pushf
  hlt]]

local function make()
  local guest = helper.guest { source = SOURCE }
  guest.ram:u32(4, HANDLER)
  guest.ram:write(HANDLER, helper.code(TRAP, 16, HANDLER))
  return guest
end

-- What the guest has seen when it halts.
local function seen(guest)
  local ram, places = guest.ram, {}
  for i = 1, u64.tonumber(guest.cpu.rdi) do places[i] = hex(ram:u16(0x2ffe + 2 * i)) end
  return {
    places = table.concat(places, " "), dr6 = ram:u16(0x2ffe), flags = hex(guest.cpu.rflags),
    saved = hex(ram:u16(0x7ffe)) .. " " .. hex(ram:u16(0x7ffc)) .. " " .. hex(ram:u16(0x7ffa)),
  }
end

local function alone()
  local guest = make()
  guest:stops "hlt"
  local found = seen(guest)
  if guest.cpu.rdi ~= u64(7) or found.dr6 ~= 0x4000 then
    pending("this host's KVM does not let a guest step itself: " .. found.places)
  end
  return found
end

helper.kvm("a guest's own trap flag", function()
  it("stays under single steps", function()
    local expected, guest = alone(), make()
    local count = 0
    repeat
      local exit = assert(guest.cpu:step(1, PATIENCE))
      count = count + 1
    until exit.kind == "hlt" or count == 200
    assert.same(expected, seen(guest))
  end)

  it("is shown while the script steps", function()
    local guest = make()
    assert(guest.cpu:step(2, PATIENCE))
    assert.equal(u64(0), u64.band(guest.cpu.rflags, 0x100))
    assert(guest.cpu:step(1, PATIENCE))
    assert.equal(u64(0x100), u64.band(guest.cpu.rflags, 0x100))
  end)

  it("stays under breakpoints at each instruction", function()
    local expected = alone()
    for offset = 0, 0x14 do
      local guest = make()
      local hits = 0
      guest.cpu:breakpoint(0x1000 + offset, function()
        hits = hits + 1
        return "continue"
      end)
      guest:stops "hlt"
      assert.same(expected, seen(guest), ("breakpoint at 0x%x"):format(0x1000 + offset))
      assert.is_true(hits <= 2)
    end
  end)

  it("stays under runs up to an address", function()
    local expected, guest = alone(), make()
    for _, rip in ipairs { 0x1004, 0x1006, 0x100d } do
      assert.equal("debug", guest:run({ until_rip = rip }).kind)
      assert.equal(hex(rip), hex(guest.cpu.rip))
    end
    guest:stops "hlt"
    assert.same(expected, seen(guest))
  end)

  it("stays where an access is answered by a device", function()
    local expected, guest = alone(), make()
    local written
    assert(guest.vm.default:unmap(0x2000, 0x1000))
    guest.vm:mmio(0x2000, 0x1000, { write = function(_, offset, _, value)
      if offset == 0 then written = value end
    end, read = function() return 0 end })
    repeat local exit = assert(guest.cpu:step(1, PATIENCE)) until exit.kind == "hlt"
    assert.equal(1, written)
    assert.equal(expected.places, seen(guest).places)
  end)
end)
