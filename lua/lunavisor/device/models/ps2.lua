-- SPDX-License-Identifier: MIT
-- A keyboard and a mouse at the far end of a PS/2 controller: bytes in, bytes out, as plain tables
-- that a state can have. By IBM's PS/2 Hardware Interface Technical Reference, "Keyboards" and
-- "Mouse"; the wheel is Microsoft's extension of the mouse.

local keys = require "lunavisor.device.models.keys"

local M = {}

local ACK, RESEND, PASSED = 0xfa, 0xfe, 0xaa
local ROOM = 16 -- bytes that a keyboard keeps, and an overrun

local function send(port, ...)
  for _, byte in ipairs { ... } do port.queue[#port.queue + 1] = byte end
end

--- The next byte for the controller; nil where there is none.
function M.take(port)
  local byte = table.remove(port.queue, 1)
  if byte then port.last = byte end
  return byte
end

local function clear(port)
  for i = #port.queue, 1, -1 do port.queue[i] = nil end
end

-- A byte from the system: a command, or what the one before it has asked for.
local function receive(port, byte, commands, arguments)
  local argument = arguments[port.command]
  port.command = 0
  if argument then return argument(port, byte) end
  if byte == RESEND then return send(port, port.last) end
  clear(port)
  local command = commands[byte]
  if not command then return send(port, RESEND) end
  if arguments[byte] then port.command = byte end
  command(port)
end

local function acknowledge(port) send(port, ACK) end

-- ---- The keyboard ----

--- A keyboard after power-on, its self-test told already.
function M.keyboard()
  return { queue = {}, command = 0, last = PASSED, set = 2, scanning = true, leds = 0, rate = 0x2b }
end

local function keyboard_defaults(k) k.set, k.rate, k.scanning = 2, 0x2b, true end

local keyboard = {
  [0xed] = acknowledge, [0xf0] = acknowledge, [0xf3] = acknowledge, -- an argument follows
  [0xee] = function(k) send(k, 0xee) end,
  [0xf2] = function(k) send(k, ACK, 0xab, 0x83) end,
  [0xf4] = function(k)
    k.scanning = true
    send(k, ACK)
  end,
  [0xf5] = function(k)
    keyboard_defaults(k)
    k.scanning = false
    send(k, ACK)
  end,
  [0xf6] = function(k)
    keyboard_defaults(k)
    send(k, ACK)
  end,
  [0xff] = function(k)
    keyboard_defaults(k)
    k.leds = 0
    send(k, ACK, PASSED)
  end,
}
for byte = 0xf7, 0xfa do keyboard[byte] = acknowledge end -- of set 3: no effect in the others

local keyboard_arguments = {
  [0xed] = function(k, byte)
    k.leds = byte % 8
    send(k, ACK)
  end,
  [0xf0] = function(k, byte) -- set 3 is refused
    if byte > 2 then return send(k, RESEND) end
    send(k, ACK)
    if byte == 0 then send(k, k.set) else k.set = byte end
  end,
  [0xf3] = function(k, byte)
    k.rate = byte % 0x80
    send(k, ACK)
  end,
}

function M.to_keyboard(k, byte) receive(k, byte, keyboard, keyboard_arguments) end

--- A key goes down or up. false where it is lost: the keyboard is off, or its buffer full, which
--- its overrun code says (0x00, in set 1 0xff).
function M.stroke(what, k, name, up)
  local list = keys.bytes(what, name, up, k.set, 3)
  if not k.scanning then return false end
  if #k.queue + #list > ROOM then
    local code = k.set == 1 and 0xff or 0
    if k.queue[#k.queue] ~= code then send(k, code) end
    return false
  end
  for _, byte in ipairs(list) do send(k, byte) end
  return true
end

-- ---- The mouse ----

local BUTTONS = { left = 1, right = 2, middle = 4 }

local function mouse_defaults(m)
  m.rate, m.resolution, m.double, m.remote, m.reporting, m.wrap = 100, 2, false, false, false, false
  m.dx, m.dy, m.dz, m.changed = 0, 0, 0, false
end

--- A mouse after power-on, its self-test told already.
function M.mouse()
  local m = { queue = {}, command = 0, last = 0, id = 0, buttons = 0, rates = 0 }
  mouse_defaults(m)
  return m
end

-- As much of a movement as a packet has room for; the rest is kept.
local function part(m, key, limit)
  local value = math.max(-limit, math.min(limit - 1, m[key]))
  m[key] = m[key] - value
  return value
end

-- "Data Report": buttons and signs, movement to the right and up, and the wheel.
local function report(m)
  local dx, dy = part(m, "dx", 256), part(m, "dy", 256)
  send(m, m.buttons + 8 + (dx < 0 and 16 or 0) + (dy < 0 and 32 or 0), dx % 256, dy % 256)
  if m.id == 3 then send(m, part(m, "dz", 8) % 256) else m.dz = 0 end
  m.changed = false
end

local function setter(key, value)
  return function(m)
    m[key] = value
    send(m, ACK)
  end
end

local mouse = {
  [0xe6] = setter("double", false), [0xe7] = setter("double", true),
  [0xe8] = acknowledge, [0xf3] = acknowledge, -- an argument follows
  [0xe9] = function(m) -- "Status Request": buttons are the other way about here
    local b = m.buttons
    send(m, ACK, (m.remote and 64 or 0) + (m.reporting and 32 or 0) + (m.double and 16 or 0)
      + b % 2 * 4 + (b >= 4 and 2 or 0) + (b % 4 >= 2 and 1 or 0), m.resolution, m.rate)
  end,
  [0xea] = setter("remote", false), [0xf0] = setter("remote", true),
  [0xeb] = function(m)
    send(m, ACK)
    report(m)
  end,
  [0xec] = acknowledge, [0xee] = setter("wrap", true),
  [0xf2] = function(m) send(m, ACK, m.id) end,
  [0xf4] = setter("reporting", true), [0xf5] = setter("reporting", false),
  [0xf6] = function(m)
    mouse_defaults(m)
    send(m, ACK)
  end,
  [0xff] = function(m)
    mouse_defaults(m)
    m.id, m.rates = 0, 0
    send(m, ACK, PASSED, m.id)
  end,
}

local mouse_arguments = {
  [0xe8] = function(m, byte)
    m.resolution = byte % 4
    send(m, ACK)
  end,
  [0xf3] = function(m, byte) -- 200, 100, 80 one after the other turn the wheel on
    m.rate, m.rates = byte, m.rates % 65536 * 256 + byte
    if m.rates == 200 * 65536 + 100 * 256 + 80 then m.id = 3 end
    send(m, ACK)
  end,
}

--- In wrap mode a mouse echoes all but two commands.
function M.to_mouse(m, byte)
  if m.wrap and byte ~= 0xec and byte ~= 0xff then return send(m, byte) end
  m.wrap = false
  receive(m, byte, mouse, mouse_arguments)
end

--- Makes a packet of what has moved, in stream mode and once the one before is taken.
function M.stream(m)
  local moved = m.changed or m.dx ~= 0 or m.dy ~= 0 or m.id == 3 and m.dz ~= 0
  if moved and m.reporting and not m.remote and not m.wrap and #m.queue == 0 then report(m) end
end

--- The mouse moves, dx to the right, dy down, dz by the wheel towards one, and has these buttons
--- down: true or false by name, those that are nil stay.
function M.move(m, moved)
  local buttons = 0
  for name, bit in pairs(BUTTONS) do
    local down = moved[name]
    if down == nil then down = math.floor(m.buttons / bit) % 2 == 1 end
    if down then buttons = buttons + bit end
  end
  m.dx, m.dy, m.dz = m.dx + (moved.dx or 0), m.dy - (moved.dy or 0), m.dz + (moved.dz or 0)
  m.changed = m.changed or buttons ~= m.buttons
  m.buttons = buttons
  M.stream(m)
end

return M
