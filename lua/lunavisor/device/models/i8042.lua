-- SPDX-License-Identifier: MIT
-- The keyboard and mouse controller of a PC with its keyboard and mouse (ps2.lua), by IBM's PS/2
-- Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller". Regions data
-- (0x60) and control (0x64). Options config: the command byte at power-on, that of a BIOS where
-- nil; pace: seconds from one key of dev:type to the next. Input a20: what the gate is now, for it
-- has other ways too.

local class = require "lunavisor.class"
local device = require "lunavisor.device"
local keys = require "lunavisor.device.models.keys"
local ps2 = require "lunavisor.device.models.ps2"
local word = require "lunavisor.device.word"

local BREAK, MOUSE = 0xf0, 0x100 -- MOUSE marks replies that come as if from there

-- ---- From keyboard and mouse to the processor ----

local feed

-- The keyboard's next byte as the processor gets it: translation makes F0 and a code one byte.
local function scan(d)
  local byte = ps2.take(d.keyboard)
  if not byte or d.CONFIG.translate == 0 then return byte end
  local up = byte == BREAK
  if up then byte = ps2.take(d.keyboard) end
  return byte and word.bor(keys.translate(byte), up and 0x80 or 0)
end

-- Puts the next byte into the output buffer, if that is empty: our own answers first.
local function pump(d)
  if d.STATUS.output == 1 then return end
  feed(d)
  ps2.stream(d.mouse)
  local byte = table.remove(d.replies, 1)
  byte = byte or d.CONFIG.no_keyboard == 0 and scan(d) or nil
  if not byte and d.CONFIG.no_mouse == 0 then
    byte = ps2.take(d.mouse)
    byte = byte and byte + MOUSE
  end
  if not byte then return end
  d.OUTPUT, d.STATUS.output, d.STATUS.mouse = byte % 256, 1, byte >= MOUSE and 1 or 0
end

local function reply(d, ...)
  for _, byte in ipairs { ... } do d.replies[#d.replies + 1] = byte end
end

-- Presses the key of the next character, once the keyboard is on and has sent the one before.
function feed(d)
  local k = d.keyboard
  if #d.text == 0 or #k.queue > 0 or not k.scanning or d:left "typist" then return end
  for _, stroke in ipairs(keys.strokes(d.text:sub(1, 1))) do
    ps2.stroke("i8042:type", k, stroke[1], stroke[2])
  end
  d.text = d.text:sub(2)
  if d.options.pace > 0 then d:after(d.options.pace, "typist") end
end

-- ---- Commands: "Controller Commands" ----

local function a20(d, open)
  d.port = word.insert(d.port, 1, 1, open and 1 or 0)
  d.a20:set(open)
end

local function a20_and_reset(d, value)
  a20(d, word.bits(value, 1) == 1)
  if value % 2 == 0 then d.reset_out:pulse() end
  d.port = word.insert(value, 0, 1, 1)
end

-- Bits 4 and 5 of the output port are the interrupts.
local function output_port(d)
  local full, mouse = d.STATUS.output, d.STATUS.mouse
  return word.insert(d.port, 4, 2, full * (1 - mouse) + 2 * full * mouse)
end

local function ram(d, index) return index == 0 and d.CONFIG.value or d.RAM[index] end

-- Those that a byte at the data port follows.
local arguments = {
  [0xd1] = a20_and_reset,
  [0xd2] = function(d, byte) reply(d, byte) end,
  [0xd3] = function(d, byte) reply(d, byte + MOUSE) end,
  [0xd4] = function(d, byte)
    d.CONFIG.no_mouse = 0
    ps2.to_mouse(d.mouse, byte)
  end,
}
for index = 0, 31 do
  arguments[0x60 + index] = function(d, byte)
    if index > 0 then d.RAM[index] = byte else d.CONFIG.value = word.band(byte, 0x7f) end
    d.STATUS.system = d.CONFIG.system
  end
end

local function argument(d, f) d.command = f.value end

local commands = {
  ["001aaaaa"] = function(d, f) reply(d, ram(d, f.a)) end,
  ["011aaaaa"] = argument,
  ["10100111"] = function(d) d.CONFIG.no_mouse = 1 end,
  ["10101000"] = function(d) d.CONFIG.no_mouse = 0 end,
  ["10101001"] = function(d) reply(d, 0x00) end, -- the mouse's wires are well
  ["10101010"] = function(d) -- the self-test leaves the keyboard off
    d.CONFIG.no_keyboard, d.CONFIG.no_mouse, d.CONFIG.system, d.STATUS.system = 1, 1, 1, 1
    reply(d, 0x55)
  end,
  ["10101011"] = function(d) reply(d, 0x00) end, -- the keyboard's too
  ["10101101"] = function(d) d.CONFIG.no_keyboard = 1 end,
  ["10101110"] = function(d) d.CONFIG.no_keyboard = 0 end,
  ["11000000"] = function(d) reply(d, 0x80) end, -- the input port: the keyboard is not locked
  ["11010000"] = function(d) reply(d, output_port(d)) end,
  ["11010001"] = argument, ["11010010"] = argument, ["11010011"] = argument,
  ["11010100"] = argument,
  ["110111a1"] = function(d, f) a20(d, f.a == 1) end, -- chipsets' own way
  ["11100000"] = function(d) reply(d, 0x00) end,
  ["1111ppp0"] = function(d) d.reset_out:pulse() end, -- bits of the port that are low for 6 us
  ["1111ppp1"] = function() end,
}
for pattern, fn in pairs(commands) do
  commands[pattern] = function(d, f)
    d.STATUS.command, d.command = 1, 0
    fn(d, f)
    pump(d)
  end
end

-- A byte for the command before it, or for the keyboard, which that turns on.
local function input(d, byte)
  local fn = arguments[d.command]
  d.STATUS.command, d.command = 0, 0
  if fn then
    fn(d, byte)
  else
    d.CONFIG.no_keyboard = 0
    ps2.to_keyboard(d.keyboard, byte)
  end
  pump(d)
end

-- ---- The host's side ----

local function check_text(text)
  if type(text) ~= "string" then
    error(("i8042:type: a string expected, got %s"):format(class.describe(text)), 3)
  end
  local character = keys.missing(text)
  if character then
    error(("i8042:type: no key of a US keyboard makes %q"):format(character), 3)
  end
end

--- Types a text on a US keyboard; it waits until the guest has taken what is before it.
local function type_text(d, text)
  check_text(text)
  d.text = d.text .. text
  pump(d)
  d:update()
end

local function stroke(what, up)
  return function(d, name)
    local taken = ps2.stroke(what, d.keyboard, name, up)
    pump(d)
    d:update()
    return taken
  end
end

local MOVED = { dx = "number", dy = "number", dz = "number", left = "boolean", right = "boolean",
  middle = "boolean" }

--- Moves the mouse and its wheel and sets its buttons; what is nil stays.
local function move(d, moved)
  for key, value in pairs(moved) do
    if MOVED[key] ~= type(value) then
      error(("i8042:move: %s%s"):format(MOVED[key] and ("%s: a %s expected, got %s"):format(key,
        MOVED[key], class.describe(value)) or ("unknown key '%s'"):format(tostring(key)),
        MOVED[key] and "" or class.hint(key, MOVED)), 2)
    end
  end
  ps2.move(d.mouse, moved)
  pump(d)
  d:update()
end

-- The line falls between two bytes: an 8259A takes edges.
local function taken(d)
  d.STATUS.output, d.STATUS.mouse = 0, 0
  d:update()
  pump(d)
end

local function full(d, mouse) return d.STATUS.output == 1 and d.STATUS.mouse == mouse end

return device "i8042" {
  width = 1, options = { config = 0x47, pace = 0.02 },
  regions = {
    data = { registers = {
      OUTPUT = { at = 0, access = "ro", precious = true, read = taken },
      INPUT = { at = 0, access = "wo", write = input },
      CONFIG = { at = false, reset = 0x47, fields = { keyboard_irq = 0, mouse_irq = 1, system = 2,
        no_keyboard = 4, no_mouse = 5, translate = 6 }, rest = "rw" },
      RAM = { at = false, count = 32 },
    } },
    control = { registers = {
      STATUS = { at = 0, access = "ro", fields = { output = 0, input = 1, command = 3,
        system = { 2, reset = 1 }, unlocked = { 4, reset = 1 }, mouse = 5, timeout = 6,
        parity = 7 } },
      COMMAND = { at = 0, access = "wo", match = commands },
    } },
  },
  state = { keyboard = ps2.keyboard(), mouse = ps2.mouse(), replies = {}, command = 0,
    port = 0xcf, text = "" },
  lines = {
    irq1 = function(d) return full(d, 0) and d.CONFIG.keyboard_irq == 1 end,
    irq12 = function(d) return full(d, 1) and d.CONFIG.mouse_irq == 1 end,
    a20 = true, reset_out = true,
  },
  inputs = { a20 = a20 },
  timers = { typist = pump },
  reset = function(d)
    d.CONFIG.value = d.options.config
    d.STATUS.system = d.CONFIG.system
    d.a20:set(true)
  end,
  methods = { type = type_text, press = stroke("i8042:press", false),
    release = stroke("i8042:release", true), move = move },
}
