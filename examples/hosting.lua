-- SPDX-License-Identifier: MIT
-- Two VMs in one event loop, each with its serial console on a TCP port of 127.0.0.1. With
-- `hosting.lua serve` it says which ports, for `nc 127.0.0.1 PORT`, until both guests have got a q;
-- without, it is its own client. Needs luv (lua-luv).

local found, uv = pcall(require, "luv")
if not found then
  print "this example needs luv (Debian: lua-luv)"
  os.exit(0)
end
local luna = require "lunavisor"
local channel = require "lunavisor.device.models.channel"

-- A boot sector that sleeps until its serial port interrupts, gives characters back, and ends at q.
local SOURCE = [[
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov word [4 * 0x0c], received
    mov word [4 * 0x0c + 2], 0
    mov al, 0x11               ; the 8259: interrupts from 8 on, all but number 4 masked
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xef
    out 0x21, al
    mov dx, 0x3fc              ; the UART: its line to the 8259, when there is a character
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 1
    out dx, al
    mov dx, 0x3f8
    mov si, text
  next:
    lodsb
    test al, al
    jz sleep
    out dx, al
    jmp next
  sleep:
    sti
    hlt
    jmp sleep
  received:
    in al, dx
    out dx, al
    cmp al, 'q'
    je done
    mov al, 0x20
    out 0x20, al
    iret
  done:
    xor eax, eax
    out 0xf4, eax
    hlt
  text: db "%s> ", 0
    times 510 - ($ - $$) db 0
    dw 0xaa55
]]

local hosted = {}

-- A VM on the loop: what it has to do is done when its descriptor is readable.
local function host(name)
  local port = assert(channel.tcp())
  local sector = assert(luna.asm(SOURCE:format(name), { bits = 16, org = 0x7c00 }))
  local vm = assert(luna.machine("microvm", { memory = "1M", serial = port,
    image = { bytes = sector }, load = { format = "disk" }, devices = { console = false } }))
  local entry = { name = name, port = port, vm = vm, poll = uv.new_poll(assert(vm:fd())) }
  entry.poll:start("r", function()
    local exit, problem = vm:poll()
    if not exit then
      assert(problem == nil, problem)
      return
    end
    entry.exit = exit
    entry.poll:close()
    port:close()
    vm:close()
  end)
  assert(vm:start())
  hosted[#hosted + 1] = entry
  return entry
end

-- Sends a line to a console and a q behind its echo; keeps what came.
local function visit(entry)
  local client, heard, sent = uv.new_tcp(), "", nil
  client:connect("127.0.0.1", entry.port.port, function(problem)
    assert(not problem, problem)
    client:read_start(function(broken, text)
      if broken or not text then
        entry.heard = heard
        client:close()
        return
      end
      heard = heard .. text
      if not sent and heard:find("> ", 1, true) then
        sent = "hello " .. entry.name
        client:write(sent)
      elseif sent and heard:sub(-#sent) == sent then
        client:write "q"
      end
    end)
  end)
end

for _, name in ipairs { "one", "two" } do
  local entry = host(name)
  if arg[1] == "serve" then
    print(("%s: port %d"):format(name, entry.port.port))
  else
    visit(entry)
  end
end
io.stdout:flush()
uv.run()
for _, entry in ipairs(hosted) do
  if entry.heard then print(("%s said: %s"):format(entry.name, entry.heard)) end
  print(("%s has ended: %s"):format(entry.name, entry.exit.kind))
end
