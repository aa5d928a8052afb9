; SPDX-License-Identifier: MIT
; A driver of edu.lua, which is at 0xd0000 and has interrupt 0x20: a factorial, and a text that goes
; to the device's buffer and back. At 0x600 are the events that were seen, at 0x604 the factorial,
; at 0x608 a count of interrupts, at 0x700 the text.
  bits 16
  ID equ 0x00
  LIVE equ 0x04
  FACT equ 0x08
  STATUS equ 0x20
  ISR equ 0x24
  IER equ 0x28
  ADDRESS equ 0x80
  OFFSET equ 0x88
  COUNT equ 0x8c
  CMD equ 0x90
  DONE equ 1
  DMA equ 0x100

  mov word [4 * 0x20], handler
  mov word [4 * 0x20 + 2], 0
  mov dword [0x600], 0
  mov dword [0x608], 0
  mov ax, 0xd000
  mov es, ax

  mov eax, [es:ID]
  cmp eax, 0x010000ed
  jne failed
  mov eax, 0x12345678
  mov [es:LIVE], eax
  not eax
  cmp eax, [es:LIVE]
  jne failed

  mov dword [es:IER], DONE | DMA
  mov dword [es:STATUS], 0x80   ; an interrupt when it is computed
  mov dword [es:FACT], 10
  mov ecx, DONE
  call await
  mov eax, [es:FACT]
  mov [0x604], eax

  mov dword [es:COUNT], length
  mov dword [es:OFFSET], 0
  mov eax, text
  mov dl, 5                     ; start, interrupt
  call transfer
  mov eax, 0x700
  mov dl, 7                     ; and outward
  call transfer
  mov si, done
say:
  lodsb
  test al, al
  jz end
  out 0xe9, al
  jmp say
failed:
  mov si, wrong
  jmp say
end:
  cli
  hlt

; Lets the device copy from or to memory at eax, as dl says, and waits for it.
transfer:
  mov [es:ADDRESS], eax
  mov dword [es:ADDRESS + 4], 0
  movzx edx, dl
  mov [es:CMD], edx
  mov ecx, DMA

; Halts until the event in ecx has come.
await:
  cli
  test [0x600], ecx
  jnz .come
  sti
  hlt
  jmp await
.come:
  xor [0x600], ecx
  sti
  ret

handler:
  push eax
  mov eax, [es:ISR]
  mov [es:ISR], eax             ; acknowledges what was read
  or [0x600], eax
  inc dword [0x608]
  pop eax
  iret

text: db "through the device"
length equ $ - text
done: db "done", 10, 0
wrong: db "no such device", 10, 0
