-- SPDX-License-Identifier: MIT
-- A VGA in colour, by IBM's PS/2 Hardware Interface Technical Reference, "Video Subsystem", and the
-- VBE extension of Bochs (QEMU's docs/specs/standard-vga.rst). Regions io (0x3c0), window
-- (0xa0000), vbe (0x1ce), lfb, the linear framebuffer, and for a PCI host config and rom: BAR 0 is
-- the lfb. Option rom: the VGA BIOS, as a string. At power-on it is in text mode, as one leaves it.

local memory = require "lunavisor.device.models.vga_memory"
local pci = require "lunavisor.device.models.pci"
local picture = require("lunavisor.deferred") "lunavisor.device.models.vga_picture"
local values = require "lunavisor.device.bits"
local word = require "lunavisor.device.word"

local bits, band, floor = word.bits, word.band, math.floor
local LFB, ROM = 0x1000000, 0x10000 -- bytes of linear memory, and of the BIOS

-- ---- Registers behind an index ----

-- Bits that there are, and those of mode 3, of 80 columns and 25 rows with 16 colours.
local MASKS = {
  SEQUENCER = { [0] = 0x03, 0x3d, 0x0f, 0x3f, 0x0e },
  GRAPHICS = { [0] = 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff },
  ATTRIBUTES = { [16] = 0xef, 0xff, 0x3f, 0x0f, 0x0f },
  CRTC = {},
}
local MODE = {
  SEQUENCER = "\3\0\3\0\2", GRAPHICS = "\0\0\0\0\0\16\14\15\255",
  ATTRIBUTES = "\0\1\2\3\4\5\20\7\56\57\58\59\60\61\62\63\12\0\15\8\0",
  CRTC = "\95\79\80\130\85\129\191\31\0\79\13\14\0\0\0\0\156\142\143\40\31\150\185\163"
    .. "\255",
}

-- What the processor gets at directly has changed.
local function settle(d)
  d:expose("window", memory.settle(d))
  d:expose("lfb", memory.frame(d))
end

local function loaded(d)
  memory.loaded(d)
  settle(d)
end

local function get(d, name, index)
  return index < #MODE[name] and d[name][index] or 0
end

local function put(d, name, index, value)
  if index >= #MODE[name] then return end
  if name == "CRTC" and index < 8 and d.CRTC[0x11] >= 0x80 then -- "Protect Registers 0-7"
    if index ~= 7 then return end
    value = word.insert(d.CRTC[7], 4, 1, bits(value, 4))
  end
  local mask = MASKS[name][index] or name == "ATTRIBUTES" and 0x3f or 0xff
  d[name][index] = band(value, mask)
  settle(d)
end

local function array(name) return { at = false, count = #MODE[name], reset = MODE[name] } end

local function data_port(at, name, index)
  return { at = at, precious = true,
    read = function(d) return get(d, name, d[index].index) end,
    write = function(d, value) put(d, name, d[index].index, value) end }
end

-- "Attribute Controller Registers": index and data in turn at one place.
local function attribute(d, value)
  if d.flip then put(d, "ATTRIBUTES", d.attribute % 32, value) else d.attribute = value % 64 end
  d.flip = not d.flip
end

-- ---- The DAC: "Video Digital-to-Analog Converter" ----

-- EGA's 64 colours: two bits of each of red, green and blue.
local function colours()
  local list = {}
  for i = 0, 63 do
    for bit = 2, 0, -1 do list[#list + 1] = bits(i, bit) * 0x2a + bits(i, bit + 3) * 0x15 end
  end
  for i = #list + 1, 768 do list[i] = 0 end
  return list
end

local function next_colour(d)
  d.dac_part = d.dac_part + 1
  if d.dac_part < 3 then return end
  d.dac_part, d.dac_index = 0, (d.dac_index + 1) % 256
end

local function read_colour(d)
  local value = d.palette[d.dac_index * 3 + d.dac_part + 1]
  next_colour(d)
  return value
end

local function write_colour(d, value)
  local limit = bits(d.VBE[4], 5) == 1 and 256 or 64
  d.palette[d.dac_index * 3 + d.dac_part + 1] = value % limit
  next_colour(d)
end

local function begin_colour(state)
  return function(d, index)
    d.dac_index, d.dac_part, d.dac_state = index, 0, state
  end
end

-- ---- VBE ----

local ID, WIDTH, HEIGHT, DEPTH, ENABLE, BANK = 0, 1, 2, 3, 4, 5
local VIRTUAL_WIDTH, VIRTUAL_HEIGHT, X, Y, MEMORY = 6, 7, 8, 9, 10
local MOST = { [WIDTH] = 2560, [HEIGHT] = 1600, [DEPTH] = 32 }
local DEPTHS = { [4] = true, [8] = true, [15] = true, [16] = true, [24] = true, [32] = true }

local function set_width(d, width)
  local v = d.VBE
  width = math.max(width, v[WIDTH])
  local pitch = math.max(1, width * picture.bytes(v[DEPTH]))
  v[VIRTUAL_WIDTH], v[VIRTUAL_HEIGHT] = width, math.min(65535, floor(LFB / pitch))
end

-- Turns a mode on, and clears its memory unless bit 7 is set.
local function enable(d, value)
  local v = d.VBE
  local was = v[ENABLE] % 2
  memory.flush(d)
  v[ENABLE] = value
  if value % 2 == 1 and was == 0 then
    set_width(d, v[WIDTH])
    v[BANK], v[X], v[Y] = 0, 0, 0
    if bits(value, 7) == 0 then
      d.linear:fill(0, 0, math.min(LFB, v[WIDTH] * v[HEIGHT] * picture.bytes(v[DEPTH])))
    end
  end
end

local function write_vbe(d, index, value)
  local v, on = d.VBE, d.VBE[ENABLE] % 2 == 1
  if index == ENABLE then
    enable(d, value)
  elseif index == VIRTUAL_WIDTH then
    set_width(d, value)
  elseif index == ID and value >= 0xb0c0 and value <= 0xb0c5
    or index == BANK and value < LFB / 0x10000 or index == X or index == Y
    or (index == WIDTH or index == HEIGHT) and not on and value <= MOST[index]
    or index == DEPTH and not on and DEPTHS[value] then
    v[index] = value
  end
  settle(d)
end

local function read_vbe(d, index)
  if MOST[index] and bits(d.VBE[ENABLE], 1) == 1 then return MOST[index] end -- capabilities
  return index <= MEMORY and d.VBE[index] or 0
end

-- Index and data are words at addresses one after the other.
local vbe = { size = 3,
  read = function(d, offset, size)
    if size ~= 2 or offset > 1 then return size < 8 and 256 ^ size - 1 or nil end
    return offset == 0 and d.vbe_index or read_vbe(d, d.vbe_index)
  end,
  write = function(d, offset, size, value)
    if size ~= 2 or offset > 1 then return end
    if offset == 0 then d.vbe_index = value else write_vbe(d, d.vbe_index, value) end
  end }

-- ---- Memory ----

-- A region whose bytes two functions read and write.
local function bytes(size, read, write)
  return { size = size,
    read = function(d, offset, count)
      local list = {}
      for i = 1, count do list[i] = read(d, offset + i - 1) end
      return values.value(list, count)
    end,
    write = function(d, offset, count, value)
      for i, byte in ipairs(values.bytes(value, count)) do write(d, offset + i - 1, byte) end
    end }
end

-- Where a BIOS looks for its part of this device; nothing is there without one.
local function read_rom(d, at) return (d.options.rom or ""):byte(at + 1) or 255 end

local function open(_, options)
  if options.rom and (type(options.rom) ~= "string" or #options.rom > ROM) then
    error(("vga: rom: a string of up to %d bytes expected, got %s"):format(ROM,
      type(options.rom) == "string" and "one of " .. #options.rom or type(options.rom)), 4)
  end
end

return pci.device "vga" {
  width = 1, buffers = { linear = LFB, shadow = 0x8000 }, options = { rom = false },
  pci = { vendor = 0x1234, device = 0x1111, class = 0x030000, revision = 2,
    subsystem_vendor = 0x1af4, subsystem = 0x1100, rom = { region = "rom", size = ROM },
    bars = { [0] = { region = "lfb", size = LFB, prefetchable = true } } },
  regions = {
    io = { size = 0x20, registers = {
      ATTRIBUTE = { at = 0x00, access = "wo", write = attribute },
      ATTRIBUTE_INDEX = { at = 0x00, access = "ro", read = function(d) return d.attribute end },
      ATTRIBUTE_DATA = { at = 0x01, access = "ro",
        read = function(d) return get(d, "ATTRIBUTES", d.attribute % 32) end },
      MISC_SET = { at = 0x02, access = "wo", write = function(d, value) d.MISC = value end },
      STATUS_0 = { at = 0x02, access = "ro", reset = 0x10 },
      SEQUENCER_INDEX = { at = 0x04, fields = { index = "2:0" } },
      SEQUENCER_DATA = data_port(0x05, "SEQUENCER", "SEQUENCER_INDEX"),
      PEL_MASK = { at = 0x06, reset = 0xff },
      DAC_READ = { at = 0x07, access = "wo", write = begin_colour(3) },
      DAC_STATE = { at = 0x07, access = "ro", read = function(d) return d.dac_state end },
      DAC_WRITE = { at = 0x08, read = function(d) return d.dac_index end,
        write = begin_colour(0) },
      DAC_DATA = { at = 0x09, precious = true, read = read_colour, write = write_colour },
      FEATURE = { at = 0x0a, access = "ro" },
      MISC = { at = 0x0c, access = "ro", reset = 0x67 },
      GRAPHICS_INDEX = { at = 0x0e, fields = { index = "3:0" } },
      GRAPHICS_DATA = data_port(0x0f, "GRAPHICS", "GRAPHICS_INDEX"),
      CRTC_INDEX = { at = 0x14, fields = { index = "5:0" } },
      CRTC_DATA = data_port(0x15, "CRTC", "CRTC_INDEX"),
      STATUS_1 = { at = 0x1a, access = "ro", precious = true, read = function(d)
        d.flip, d.retrace = false, not d.retrace -- another time each read: who waits goes on
        return d.retrace and 0x09 or 0
      end },
      FEATURE_SET = { at = 0x1a, access = "wo" },
      SEQUENCER = array "SEQUENCER", GRAPHICS = array "GRAPHICS",
      ATTRIBUTES = array "ATTRIBUTES", CRTC = array "CRTC",
      VBE = { at = false, width = 2, count = 11,
        reset = { 0xb0c5, 0, 0, 8, 0, 0, 0, 0, 0, 0, LFB / 0x10000 } },
    } },
    window = bytes(0x20000, memory.read, memory.write), vbe = vbe,
    lfb = bytes(LFB, memory.read_frame, memory.write_frame),
    rom = bytes(ROM, read_rom, function() end),
  },
  state = { attribute = 0x20, flip = false, retrace = false, latch = 0,
    dac_index = 0, dac_part = 0, dac_state = 0, vbe_index = 0, palette = colours() },
  init = open, reset = settle, loaded = loaded, saving = memory.flush,
  methods = {
    --- The text on the screen, a string a row; no row where it shows graphics.
    text = function(d) return picture.text(d) end,
    --- Column and row of the cursor, from 0; nil where there is none on the screen.
    cursor = function(d) return picture.cursor(d) end,
    --- Writes the screen as a PNG file: true; nil and a message where it cannot be written.
    screenshot = function(d, path) return picture.screenshot(d, path) end,
  },
}
