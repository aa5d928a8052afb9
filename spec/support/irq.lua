-- SPDX-License-Identifier: MIT
-- Real-mode guests whose interrupt table leads every vector to a handler that writes the vector to
-- port 0x60, where it is noted.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local irq = {}

local HANDLERS, SIZE = 0x4000, 32

--- Machine code of a handler: mov dword [fs:0xb0], 0 with FS at the LAPIC is its EOI.
irq.EOI = "\x66\x64\xc7\x06\xb0\x00\x00\x00\x00\x00"

-- push ax; mov al, vector; out 0x60, al; pop ax; iret
local function write_handlers(ram, finish)
  for vector = 0, 255 do
    local org = HANDLERS + vector * SIZE
    ram:u16(vector * 4, org)
    ram:u16(vector * 4 + 2, 0)
    ram:write(org, "\x50\xb0" .. string.char(vector) .. "\xe6\x60" .. finish .. "\x58\xcf")
  end
end

--- Puts the LAPIC into the reach of FS and switches it on (SVR bit 8).
function irq.enable_apic(cpu)
  cpu.fs.base, cpu.fs.limit = luna.u64 "0xfee00000", 0xfffff
  cpu.apic.svr = 0x1ff
end

--- A guest (helper.guest) with .taken, the list of the vectors that it takes. options.vm: the
--- options of luna.vm; with a LAPIC that is switched on, and handlers end with an EOI.
function irq.guest(source, options)
  options = options or {}
  options.source = source
  local guest = helper.guest(options)
  write_handlers(guest.ram, options.vm and irq.EOI or "")
  guest.taken = {}
  guest.vm:pio(0x60, 1, {
    write = function(_, _, _, vector) guest.taken[#guest.taken + 1] = vector end,
  })
  if options.vm then irq.enable_apic(guest.cpu) end
  return guest
end

return irq
