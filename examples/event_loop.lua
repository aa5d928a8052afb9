-- SPDX-License-Identifier: MIT
-- One event loop for everything: two running vCPUs, a UART that they write to, a timer of the VM
-- and one of luv. vm:fd() is readable when vm:poll() has something to do. Needs luv (lua-luv).

local found, uv = pcall(require, "luv")
if not found then
  print "this example needs luv (Debian: lua-luv)"
  os.exit(0)
end
local luna = require "lunavisor"

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

-- As much of a UART as a guest needs that only sends: data at 0, line status at 5.
local function uart(name)
  local line = {}
  return {
    read = function(_, offset) return offset == 5 and 0x20 or 0 end, -- ready to send
    write = function(_, offset, _, value)
      if offset ~= 0 then return end
      if value ~= 10 then
        line[#line + 1] = string.char(value)
      else
        print(name .. ": " .. table.concat(line))
        line = {}
      end
    end,
  }
end

local source = [[
    mov si, text
  next:
    lodsb
    test al, al
    jz done
    mov ah, al
    add dx, 5
  busy:
    in al, dx                  ; line status
    test al, 0x20
    jz busy
    sub dx, 5
    mov al, ah
    out dx, al
    jmp next
  done:
    hlt
  text: db "%s", 10, 0
]]

local running = 0
for i, text in ipairs { "hello from the first vCPU", "hello from the second one" } do
  local port, org = 0x300 + 0x10 * i, 0x1000 * i
  vm:pio(port, 8, uart("uart " .. i))
  ram:write(org, assert(luna.asm(source:format(text), { bits = 16, org = org })))
  local cpu = assert(vm:vcpu { rip = org })
  cpu.rdx = port
  running = running + 1
end

local poll = uv.new_poll(assert(vm:fd()))
local clock = uv.new_timer()
local ticks, beats = 0, 0

local function finish()
  poll:close()
  clock:close()
  print(("%s ticks of luv, %s beats of the VM"):format(ticks > 0 and "some" or "no",
    beats > 0 and "some" or "no"))
end

clock:start(1, 1, function() ticks = ticks + 1 end)
vm:timer(0.001, function() beats = beats + 1 end, { period = 0.001 })

poll:start("r", function()
  local exit, cpu = vm:poll()
  if not exit then
    assert(cpu == nil, cpu) -- a message: KVM refused
    return
  end
  print(("vCPU %d: %s"):format(cpu.id, exit.kind))
  running = running - 1
  if running == 0 then vm:timer(0.01, finish) end -- let both clocks tick
end)

assert(vm:start())
uv.run()
vm:close()
ram:close()
