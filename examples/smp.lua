-- SPDX-License-Identifier: MIT
-- Two vCPUs start as on a board: the second waits until the first sends it INIT and SIPI through
-- its LAPIC, which is in KVM. Each runs on a thread of its own; both write to one UART in Lua.

local luna = require "lunavisor"

if luna.probe().features.split_irqchip == 0 then
  print "this host's KVM has no LAPICs without an IOAPIC (KVM_CAP_SPLIT_IRQCHIP)"
  os.exit(0)
end

local vm = assert(luna.vm { irqchip = "split" })
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

ram:write(0x1000, assert(luna.asm([[
    APIC equ 0xfee00000
    READY equ 0x8000
    mov dword [APIC + 0xf0], 0x1ff      ; SVR: switches the LAPIC on
    mov esi, starting
    call print
    mov dword [APIC + 0x310], 1 << 24   ; ICR: to the LAPIC with the number 1
    mov dword [APIC + 0x300], 0x4500    ; INIT
    mov dword [APIC + 0x300], 0x4609    ; SIPI: begin at 0x9000
  wait_for_it:
    pause
    cmp byte [READY], 1
    jne wait_for_it
    mov esi, both
    call print
    out 0x64, al                        ; the machine goes off
  print:
    mov dx, 0x3f8
  next:
    lodsb
    test al, al
    jz end
    out dx, al
    jmp next
  end:
    ret
  starting: db "first:  starting the other one", 10, 0
  both: db "first:  both are up", 10, 0
]], { bits = 32, org = 0x1000 })))

ram:write(0x9000, assert(luna.asm([[
    mov ax, cs         ; SIPI has put 0x900 there
    mov ds, ax
    mov si, text
    mov dx, 0x3f8
  next:
    lodsb
    test al, al
    jz end
    out dx, al
    jmp next
  end:
    xor ax, ax
    mov ds, ax
    mov byte [0x8000], 1
  idle:
    hlt                ; within KVM: an interrupt would end it
    jmp idle
  text: db "second: started in real mode", 10, 0
]], { bits = 16, org = 0 })))

vm:pio(0x3f8, 1, { write = function(_, _, _, value) io.write(string.char(value)) end })
vm:pio(0x64, 1, { write = function() vm:stop "off" end })

assert(vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x7000 })
local second = assert(vm:vcpu { wait = true })
print("second: " .. second.mp_state)

local exit = assert(vm:run { timeout = 10 })
print(exit.kind .. ": " .. tostring(exit.value))
vm:close()
