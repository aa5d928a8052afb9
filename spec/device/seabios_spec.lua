-- SPDX-License-Identifier: MIT
-- Debian's SeaBIOS as a judge of the shipped devices: it finds them and uses them. On the software
-- CPU, the floppy disks also on KVM, in a process of its own.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local seabios = require "spec.support.seabios"

local script = [[
  local seabios = require "spec.support.seabios"
  local pc = seabios.new()
  %s
]]

local function run(text, accel)
  accel = accel or "soft"
  local found = luna.probe().accelerators[accel]
  if not found.available then pending(found.message) end
  local file = io.open(seabios.FIRMWARE, "rb")
  if not file then pending(seabios.FIRMWARE .. " is of the package seabios, not installed") end
  file:close()
  local output = helper.child(script:format(text), { env = { LUNA_ACCEL = accel } })
  if output:find "without Zydis" then pending "this build has no software CPU" end
  return output
end

describe("SeaBIOS", function()
  it("finds the devices of a PC, and takes the interrupts of those that are in Lua", function()
    local output = run [[
      local done, exit = seabios.run(pc, function()
        return pc.console:text():find "No bootable device"
      end, 180)
      print(pc.console:text())
      if not done then print(exit) end
      local ticks = pc.ram:u32(0x46c)
      local before = pc.clock.now
      seabios.run(pc, function() return pc.clock.now > before + 2 end, 180)
      print("ticks in two seconds:", pc.ram:u32(0x46c) - ticks)
    ]]
    local at = 1
    for _, line in ipairs { "SeaBIOS (version 1.", "Running on QEMU (i440fx)", "Found QEMU fw_cfg",
      "QEMU fw_cfg DMA interface supported", "addr 0x0000000000100000 len 0x0000000000f00000 [RAM]",
      "Found 4 PCI devices", "Found 1 serial ports", "No bootable device." } do
      local _, last = output:find(line, at, true)
      assert.truthy(last, ("%q is not in:\n%s"):format(line, output))
      at = last
    end
    local ticks = tonumber(output:match "ticks in two seconds:%s*(%d+)")
    assert.is_true(ticks >= 35 and ticks <= 38, output)
  end)

  it("boots from a disk, shows text and graphics, and takes what is typed", function()
    local output = run([[
      local luna = require "lunavisor"
      local disk = luna.buffer "1M"
      disk:write(0, luna.asm([=[
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov ax, 0x0201          ; read: one sector, the second
        mov cx, 2
        mov dx, 0x80
        mov bx, 0x7e00
        int 0x13
        mov si, 0x7e00
        next:
        lodsb
        test al, al
        jz typed
        call say
        jmp next
        typed:
        mov ah, 0
        int 0x16                ; a key
        call say
        cmp al, 13
        jne typed
        mov ax, 0x0301          ; write what was read to the third
        mov cx, 3
        mov bx, 0x7e00
        int 0x13
        mov ah, 0
        int 0x16
        mov ax, 0x13            ; 320 by 200
        int 0x10
        mov ax, 0xa000
        mov es, ax
        mov byte [es:5], 4
        mov ah, 0
        int 0x16
        mov ax, 0x4f02          ; VBE, 640 by 480, 16 bits, linear
        mov bx, 0x4111
        int 0x10
        mov ah, 0
        int 0x16
        say:
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        ret
      ]=], { bits = 16, org = 0x7c00 }))
      disk:write(510, "\x55\xaa")
      disk:write(512, "Hello from the second sector\r\n\0")
      pc = seabios.new(disk)
      local vga = pc.vga
      local function wait(what, fn)
        local ok, exit = seabios.run(pc, fn, 180)
        print(what, ok, ok and "" or exit)
      end
      local function shows(text)
        return function() return table.concat(vga:text(), "\n"):find(text, 1, true) end
      end
      wait("sector", shows "second sector")
      pc.keyboard:type "dir A:\n"
      wait("typed", function() return shows "dir A:" () and vga:cursor() == 0 end)
      print(table.concat(vga:text(), "\n"))
      print("cursor", vga:cursor())
      pc.keyboard:type "x"
      wait("mode 13h", function() return vga.linear:u8(5) == 4 end)
      print("written", disk:string(1024, 10))
      local path = os.tmpname()
      print("screenshot", vga:screenshot(path))
      os.remove(path)
      pc.keyboard:type "x"
      wait("VBE", function() return vga.VBE[4] % 2 == 1 end)
      print(vga.VBE[1], vga.VBE[2], vga.VBE[3], #vga:text())
    ]]):gsub("[ \t]+", " ")
    for _, line in ipairs { "sector true", "typed true", "SeaBIOS (version 1.", "\nHello from the "
      .. "second sector\ndir A:", "cursor 0 3", "mode 13h true", "written Hello from",
      "screenshot true", "VBE true", "640 480 16 0" } do
      assert.truthy(output:find(line, 1, true), ("%q is not in:\n%s"):format(line, output))
    end
  end)

  it("closes and opens address line 20 for who asks", function()
    local output = run [[
      local luna = require "lunavisor"
      local disk = luna.buffer "1440K"
      disk:write(0, luna.asm([=[
        %macro gate 1
          mov ax, 0x2400 + %1     ; 0: close, 1: open, 2: what is it
          int 0x15
          add al, '0'
          out 0xe9, al
          mov al, [es:0x510]
          out 0xe9, al
        %endmacro
        xor ax, ax
        mov ds, ax
        dec ax
        mov es, ax
        mov byte [0x500], 'l'
        mov byte [es:0x510], 'h'
        gate 2
        gate 0
        gate 2
        gate 1
        gate 2
        mov dx, 0xf4
        out dx, al
      ]=], { bits = 16, org = 0x7c00 }))
      disk:write(510, "\x55\xaa")
      pc = seabios.new(nil, nil, disk)
      seabios.run(pc, function() return false end, 180)
      print(pc.serial:text())
    ]]
    assert.equal("1h0l0l1h1h", output:match "%S+") -- what a call gives, and the byte then
  end)

  it("reads by PIO, and places the bus master by which a guest reads", function()
    local output = run([[
      local luna = require "lunavisor"
      local disk = luna.buffer "1M"
      disk:write(0, luna.asm([=[
        xor ax, ax
        mov ds, ax
        mov eax, 0x80000904     ; function 9 on bus 0: its command
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        in ax, dx
        or ax, 5                ; ports, bus master
        out dx, ax
        mov eax, 0x80000920     ; BAR 4
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        in ax, dx
        and ax, 0xfffc
        mov bp, ax
        mov dword [0x6000], 0x8000
        mov dword [0x6004], 0x80000200
        lea dx, [bp + 4]        ; the table
        mov eax, 0x6000
        out dx, eax
        lea dx, [bp + 2]
        mov al, 6
        out dx, al
        mov dx, 0x1f2           ; one sector, the second
        mov al, 1
        out dx, al
        inc dx
        out dx, al
        inc dx
        mov al, 0
        out dx, al
        inc dx
        out dx, al
        inc dx
        mov al, 0xe0
        out dx, al
        inc dx
        mov al, 0xc8            ; READ DMA
        out dx, al
        mov dx, bp
        mov al, 9
        out dx, al
        lea dx, [bp + 2]
        again: in al, dx
        test al, 4
        jz again
        mov si, 0x8000
        next: lodsb
        out 0xe9, al
        test al, al
        jnz next
        mov eax, 0x42
        out 0xf4, eax
      ]=], { bits = 16, org = 0x7c00 }))
      disk:write(510, "\x55\xaa")
      disk:write(512, "by DMA\0")
      local before
      pc = seabios.new(disk)
      local master = 0
      pc.vm:watch("piix3_ide", function(access)
        if access.kind == "pio" then
          master = master + 1
          before = before or pc.cpu.rip
        end
      end)
      local done, exit = seabios.run(pc, function() return false end, 180)
      print("said", pc.serial:text(), exit)
      print(("first at %x, of %d"):format(luna.u64.tonumber(before or 0), master))
    ]]):gsub("[ \t]+", " ")
    helper.contains("said by DMA", output)
    -- Every access is the boot sector's.
    local at, count = output:match "first at (%x+), of (%d+)"
    assert.is_true(tonumber(at, 16) >= 0x7c00 and tonumber(at, 16) < 0x7e00, output)
    assert.is_true(tonumber(count) >= 4, output)
  end)

  local FLOPPY = [[
    local luna = require "lunavisor"
    local disk = luna.buffer "1440K"
    disk:write(0, luna.asm([=[
      xor ax, ax
      mov ds, ax
      mov es, ax
      mov ss, ax
      mov sp, 0x7c00
      mov ax, 0x0212          ; read: the 18 sectors of side 1 of cylinder 40
      mov cx, 0x2801
      mov dh, 1
      mov bx, 0x8000
      int 0x13
      jc bad
      mov ax, 0x0301          ; write the last of them to cylinder 79
      mov cx, 0x4f12
      mov bx, 0x8000 + 17 * 512
      int 0x13
      jc bad
      mov si, bx
      next:
      lodsb
      test al, al
      jz done
      out 0xe9, al
      jmp next
      bad:
      mov al, ah
      out 0xe9, al
      done:
      mov eax, 0x42
      out 0xf4, eax
    ]=], { bits = 16, org = 0x7c00 }))
    disk:write(510, "\x55\xaa")
    disk:write((40 * 36 + 35) * 512, "the last sector of the track\0")
    pc = seabios.new(nil, nil, disk)
    local _, exit = seabios.run(pc, function() return false end, 180)
    print(pc.console:text())
    print(exit.kind, exit.value, pc.serial:text(), disk:string((79 * 36 + 35) * 512, 40))
  ]]

  for _, accel in ipairs { "soft", "kvm" } do
    it("boots from a floppy disk and reads and writes tracks of it, on " .. accel, function()
      local output = run(FLOPPY, accel)
      for _, line in ipairs { "Booting from Floppy...",
        "stopped\t66\tthe last sector of the track\tthe last sector of the track" } do
        assert.truthy(output:find(line, 1, true), ("%q is not in:\n%s"):format(line, output))
      end
    end)
  end

  -- What it says of the machine and of the disk: without addresses, without names, and without what
  -- is of QEMU's tables and option ROMs alone. Sorted: its threads take turns by the time.
  local function said(text)
    local list = {}
    for line in text:gmatch "[^\r\n]+" do
      for _, pattern in ipairs { "^SeaBIOS %(version .*", "^Running on QEMU.*", "^Found QEMU.*",
        "^QEMU fw_cfg DMA.*", "^Found %d+ .*", "^ATA controller .*irq.*", "^PCHS.*",
        "PCHS=%S+ translation=%S+ LCHS=%S+ s=%d+", "^Booting from .*", "^All threads complete.*",
        "Hard%-Disk %(.*", "^Scan for option roms", "^the boot sector runs" } do
        local part = line:match(pattern)
        if part then list[#list + 1] = part:gsub("%(irq.*", ""):gsub("1f0/3f4/%x+", "1f0") end
      end
    end
    table.sort(list)
    return list
  end

  it("says of a disk and its devices what it says under QEMU", function()
    if helper.sh "command -v qemu-system-x86_64" == "" then
      pending "qemu-system-x86_64 is not installed"
    end
    local image, text = os.tmpname(), os.tmpname()
    local file = assert(io.open(image, "wb"))
    file:write((helper.code([=[
      mov si, text
      mov dx, 0x402
      next: lodsb
      out dx, al
      test al, al
      jnz next
      mov eax, 0x42
      out 0xf4, eax
      hlt
      text: db "the boot sector runs", 10, 0
      times 510 - ($ - $$) db 0
      dw 0xaa55 ]=], 16, 0x7c00)))
    file:seek("set", 8 * 2 ^ 20 - 512)
    file:write(("\0"):rep(512))
    file:close()
    helper.sh(("timeout 60 qemu-system-x86_64 -accel tcg -m 16 -nodefaults -vga std -display none "
      .. "-debugcon file:%s -global isa-debugcon.iobase=0x402 -serial null -device "
      .. "isa-debug-exit,iobase=0xf4,iosize=4 -drive file=%s,format=raw,if=ide -bios %s")
      :format(text, image, seabios.FIRMWARE))
    local theirs = said(helper.sh("cat " .. text))
    local ours = said(run(([[
      local luna = require "lunavisor"
      local disk = assert(luna.buffer { file = %q, private = true })
      pc = seabios.new(disk)
      seabios.run(pc, function() return false end, 180)
      print(pc.console:text())
    ]]):format(image)))
    os.remove(image)
    os.remove(text)
    assert.is_true(#theirs > 12, "#" .. #theirs)
    assert.same(theirs, ours)
  end)

  it("boots from a CD", function()
    local output = run [[
      local luna = require "lunavisor"
      local cd = luna.buffer "64K"
      cd:write(16 * 2048, "\1CD001\1")
      cd:write(17 * 2048, "\0CD001\1EL TORITO SPECIFICATION")
      cd:u32(17 * 2048 + 0x47, 18)                  -- the boot catalog
      cd:write(18 * 2048, "\1\0\0\0")
      cd:u16(18 * 2048 + 28, 0x55aa)                -- its checksum
      cd:u16(18 * 2048 + 30, 0xaa55)
      cd:write(18 * 2048 + 32, "\x88\0\0\0\0\0\4\0\19\0\0\0")
      cd:write(19 * 2048, luna.asm([=[
        mov si, packet
        mov ah, 0x42            ; extended read, of the drive in dl
        int 0x13
        jc bad
        mov si, 0x8001
        mov cx, 5
        next:
        lodsb
        out 0xe9, al
        loop next
        bad:
        mov eax, 0x42
        out 0xf4, eax
        packet: db 16, 0
        dw 1, 0x8000, 0
        dq 16
      ]=], { bits = 16, org = 0x7c00 }))
      pc = seabios.new(nil, { image = cd })
      local done, exit = seabios.run(pc, function() return pc.serial:text() == "CD001" end, 180)
      print(pc.console:text())
      print("CD said", pc.serial:text(), exit)
    ]]
    for _, line in ipairs { "DVD/CD [ata1-0: LUNAVISOR CD ATAPI-6 DVD/CD]",
      "Booting from DVD/CD...", "CD said\tCD001\tstopped" } do
      assert.truthy(output:find(line, 1, true), ("%q is not in:\n%s"):format(line, output))
    end
  end)
end)
