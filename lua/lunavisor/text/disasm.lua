-- SPDX-License-Identifier: MIT
-- Machine code as text, as luna.asm reads it.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local M = {}

local known = { address = true, bits = true, count = true }
local UNKNOWN = "not_found"

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return (" %02x"):format(byte:byte()) end):sub(2))
end

M.hex = hex

local Instruction = class.define(class.class "instruction", {},
  "address size bytes text symbol line target marked")

-- What is called at the address to which an instruction goes, behind its text.
local function target_text(self)
  return self.target and (" <%s>"):format(self.target) or ""
end

--- "0x1000: 66 b8 01 00 00 00  mov eax, 1", or with names and source lines
--- "0x1000 main+0x4, kernel.c:12: ... call 0x2000 <put>"
function Instruction.__tostring(self)
  local place = symbols.joined(self.symbol, self.line)
  return ("%s%s: %s  %s%s"):format(u64.hex(self.address), place and " " .. place or "",
    hex(self.bytes), self.text, target_text(self))
end

local Listing = class.define(class.class("list of instructions", "listing"), {})

--- One line an instruction, the texts below each other. Where one is marked, its line begins with
--- "=>", and the others are indented; a symbol has a line of its own in front of its instruction,
--- and so has a source line.
function Listing.__tostring(self)
  local lines, widest, marked = {}, 0, false
  for _, instruction in ipairs(self) do
    widest = math.max(widest, instruction.size)
    marked = marked or instruction.marked
  end
  local form = ("%%s%%s: %%-%ds  %%s%%s"):format(math.max(1, widest * 3 - 1))
  local source
  for i, one in ipairs(self) do
    local name = (i == 1 or one.symbol and not one.symbol:find "%+0x%x+$") and one.symbol or nil
    local changed = one.line and tostring(one.line) ~= source and one.line or nil
    local head = symbols.joined(name, changed)
    if head then lines[#lines + 1] = head .. ":" end
    source = one.line and tostring(one.line)
    lines[#lines + 1] = form:format(marked and (one.marked and "=> " or "   ") or "",
      u64.hex(one.address), hex(one.bytes), one.text, target_text(one))
  end
  return table.concat(lines, "\n")
end

--- A list of instructions, which prints as lines.
function M.listing(list)
  return setmetatable(list, Listing)
end

-- Instructions that go to an address that is in them.
local function target_of(text)
  local name, digits = text:match "^(%l+) (0x%x+)$"
  if name and (name:sub(1, 1) == "j" or name == "call" or name:sub(1, 4) == "loop") then
    return u64(digits)
  end
end

--- Gives an instruction the names of its address and of where it goes, and its source line, out of
--- a set of symbols.
function M.name(instruction, set)
  local target = target_of(instruction.text)
  instruction.symbol = set:name(instruction.address)
  instruction.line = set:line(instruction.address) or nil
  instruction.target = target and set:name(target)
  return instruction
end

--- The instruction that begins `skip` bytes into `bytes`; nil, message, code where there is none.
function M.one(bytes, skip, address, bits)
  local size, text, code = raw.disassemble(bytes, skip, address, bits)
  if not size then return nil, text, code end
  return setmetatable({ address = u64(address), size = size,
    bytes = bytes:sub(skip + 1, skip + size), text = text }, Instruction)
end

--- The byte there, which begins no instruction, as data.
local function byte_of_data(bytes, skip, address)
  return setmetatable({ address = u64(address), size = 1, bytes = bytes:sub(skip + 1, skip + 1),
    text = ("db 0x%02x"):format(bytes:byte(skip + 1)) }, Instruction)
end

M.data = byte_of_data

--- luna.disasm(bytes, options): the instructions in a string of machine code, as a list of tables
--- with address (u64), size, bytes and text. tostring of the list or of one gives lines.
--- options.address: where the bytes lie, 0 by default; options.bits: 16, 32 or 64, 16 by default as
--- for luna.asm; options.count: at most so many. A byte that begins no instruction is one of its
--- own, "db 0x..". nil, message, "unsupported" where the library was built without Zydis.
function M.list(bytes, options)
  if type(bytes) ~= "string" then
    error(("luna.disasm: a string of bytes expected, got %s"):format(type(bytes)), 2)
  end
  options = check.options("luna.disasm", options, known)
  local bits = options.bits or 16
  if bits ~= 16 and bits ~= 32 and bits ~= 64 then
    error(("luna.disasm: bits: 16, 32 or 64 expected, got %s"):format(tostring(bits)), 2)
  end
  local address = check.exact("luna.disasm: address",
    options.address == nil and 0 or options.address)
  local count = check.whole("luna.disasm: count", options.count or #bytes, 0)
  local list, skip = {}, 0
  while skip < #bytes and #list < count do
    local at = address + u64(skip)
    local found, message, code = M.one(bytes, skip, at, bits)
    if not found and code ~= UNKNOWN then return nil, message, code end
    found = found or byte_of_data(bytes, skip, at)
    list[#list + 1] = found
    skip = skip + found.size
  end
  return setmetatable(list, Listing)
end

--- What the vCPU has at an offset in its code segment, as a text for messages: the instruction, its
--- bytes where it cannot be disassembled, or why they cannot be read. `bytes` and `bits` are those
--- of raw.code, or nil and a message.
function M.text(bytes, bits, rip)
  if not bytes then return bits end
  local found, _, code = M.one(bytes, 0, rip, bits)
  if found then return found.text end
  return code == UNKNOWN and "no instruction, bytes " .. hex(bytes) or "bytes " .. hex(bytes)
end

return M
