-- SPDX-License-Identifier: MIT
-- A 16550A UART; sections are of National's PC16550D datasheet (1995). Option output (stream.lua)
-- takes what is written, at once; uart:feed(text), or a channel, gives what is received.

local device = require "lunavisor.device"
local stream = require "lunavisor.device.models.stream"
local word = require "lunavisor.device.word"

-- The interrupt of the highest priority, as IIR says it (8.6, table IV).
local function cause(d)
  local ier = d.IER
  if ier.line == 1 and d.LSR.value % 32 > 1 then return 6 end
  if ier.data == 1 and (d.RBR.triggered or d.late) then return d.RBR.triggered and 4 or 12 end
  if ier.thre == 1 and d.emptied then return 2 end
  return ier.modem == 1 and d.MSR.value % 16 > 0 and 0 or 1
end

-- What goes by the character that is next: its errors (8.4), a time-out of four characters (8.5).
local function front(d)
  local mark, lcr = d.marks[1] or 0, d.LCR
  if mark > 0 then d.LSR, d.marks[1] = word.bor(d.LSR.value, mark), 0 end
  d.LSR.ready, d.LSR.fault, d.late = d.RBR.empty and 0 or 1, 0, false
  for i = 1, #d.marks do if d.marks[i] > 0 then d.LSR.fault = d.FCR.enable end end
  if d.FCR.enable == 0 or d.RBR.empty then return d:cancel "late" end
  local bits = 7 + lcr.length + lcr.parity + lcr.stop
  d:after(4 * bits * 16 * math.max(1, d.DLM * 256 + d.DLL) / d.options.frequency, "late")
end

local function clear(d)
  d.RBR:clear()
  d.marks = {}
  front(d)
end

--- A character from the line now, with errors (0x1c, bits of LSR), which loopback cuts (8.7).
local function receive(d, byte, errors, loop)
  if d.MCR.loop ~= (loop or 0) then return end
  local full = d.RBR.count == (d.FCR.enable == 1 and 16 or 1)
  if full and d.FCR.enable == 0 then clear(d) end -- the new one takes its place (8.4, bit 1)
  if full then d.LSR.overrun = 1 end
  if d.RBR:push(byte) then d.marks[d.RBR.count] = errors or 0 end
  front(d)
  d:update()
end

--- Characters from the line that wait until there is room for them.
local function feed(d, text)
  d.waiting = d.waiting .. (text or "")
  while d.MCR.loop == 0 and #d.waiting > 0 and d.RBR.count < (d.FCR.enable == 1 and 16 or 1) do
    receive(d, d.waiting:byte())
    d.waiting = d.waiting:sub(2)
  end
end

-- The modem's lines, or our own in loopback (8.7), and what has changed (8.8), of RI its end alone.
local function modem(d)
  local mcr, msr = d.MCR, d.MSR
  for name, own in pairs { cts = "rts", dsr = "dtr", ri = "out1", dcd = "out2" } do
    d.lines[own] = mcr.loop == 0 and mcr[own] == 1
    local level = mcr.loop == 1 and mcr[own] or mcr.loop == 0 and d.inputs[name].level and 1 or 0
    if level ~= msr[name] and (name ~= "ri" or level == 0) then msr["delta_" .. name] = 1 end
    msr[name] = level
  end
  feed(d)
end

return device "uart16550" {
  width = 1, size = 8, holds = "writer",
  options = { output = false, frequency = 1843200, carrier = true, gated = false },
  registers = {
    RBR = { at = 0, access = "ro", fifo = 16, precious = true, read = function(d)
      table.remove(d.marks, 1)
      front(d)
      feed(d)
    end },
    THR = { at = 0, access = "wo", write = function(d, byte)
      d.emptied = true
      if d.MCR.loop == 1 then receive(d, byte, 0, 1) else d.writer(string.char(byte)) end
    end },
    DLL = { at = 0, reset = 1, when = function(d) return d.LCR.dlab == 1 end },
    DLM = { at = 1, when = function(d) return d.LCR.dlab == 1 end },
    IER = { at = 1, fields = { data = 0, line = 2, modem = 3, thre = { 1, -- interrupts at once
      write = function(d, new, old) if new > old then d.emptied = true end end } } },
    IIR = { at = 2, access = "ro", reset = 1, precious = true, read = function(d)
      local id = cause(d)
      if id == 2 then d.emptied = false end
      return id + 0xc0 * d.FCR.enable
    end },
    FCR = { at = 2, access = "wo", fields = { enable = 0, clear = "2:1", trigger = "7:6",
      dma = { 3, todo = "8.5, RXRDY and TXRDY" } }, write = function(d, new, old, raw)
        local on = raw % 2
        d.FCR = on * (new - new % 8 + 1) -- 8.5: without bit 0 the others are not taken
        if on ~= old % 2 or on == 1 and word.bits(raw, 1) == 1 then clear(d) end
        d.RBR.trigger = ({ [0] = 1, 4, 8, 14 })[d.FCR.trigger]
        feed(d)
      end },
    LCR = { at = 3, fields = { length = "1:0", stop = 2, parity = 3, mode = "5:4", dlab = 7,
      brk = { 6, write = function(d, new, old) if new > old then receive(d, 0, 16, 1) end end } } },
    MCR = { at = 4, fields = { dtr = 0, rts = 1, out1 = 2, out2 = 3, loop = 4 }, write = modem },
    LSR = { at = 5, reset = 0x60, access = "ro", fields = { ready = 0, overrun = { 1, "rc" },
      parity = { 2, "rc" }, framing = { 3, "rc" }, brk = { 4, "rc" }, idle = "6:5", fault = 7 } },
    MSR = { at = 6, access = "ro", fields = { delta_cts = { 0, "rc" }, delta_dsr = { 1, "rc" },
      delta_ri = { 2, "rc" }, delta_dcd = { 3, "rc" }, cts = 4, dsr = 5, ri = 6, dcd = 7 } },
    SCR = { at = 7 },
  },
  state = { late = false, emptied = false, marks = {}, waiting = "" },
  inputs = { cts = modem, dsr = modem, ri = modem, dcd = modem },
  lines = { dtr = true, rts = true, out1 = true, out2 = true, -- a PC's OUT2 is the interrupt's gate
    irq = function(d) return cause(d) ~= 1 and (not d.options.gated or d.lines.out2) end },
  timers = { late = function(d) d.late = true end }, attached = stream.serve,
  init = function(d, options)
    d.writer = stream.connect(d, "uart16550", feed, function() return 4096 - #d.waiting end)
    for _, name in ipairs { "cts", "dsr", "dcd" } do d.inputs[name]:set(options.carrier) end
  end,
  reset = function(d)
    modem(d)
    d.MSR = word.insert(d.MSR.value, 0, 4, 0)
  end,
  methods = { feed = feed, receive = receive },
}
