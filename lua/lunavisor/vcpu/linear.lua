-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: guest-linear addresses and disassembly.

local raw = require "lunavisor.binding.backend"
local check = require "lunavisor.check"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"
local disasm = require "lunavisor.text.disasm"
local mode = require "lunavisor.vcpu.mode"
local open = class.opener(class.class "vcpu")

local pagings = { [0] = "none", "32-bit", "PAE", "4-level", "5-level" } -- luna_paging

-- An exact linear address. `depth` as in check.lua.
local function linear(what, value, depth)
  return u64.exact(value) or check.exact(what .. ": gva", value, (depth or 1) + 1)
end

local function size_text(size)
  local units = { { 2 ^ 30, "G" }, { 2 ^ 20, "M" }, { 2 ^ 10, "K" } }
  for _, unit in ipairs(units) do
    if size >= unit[1] then return ("%d%s"):format(size / unit[1], unit[2]) end
  end
end

local Walk = class.define(class.class "walk", {},
  "gva present paging entries gpa size rights user missing reserved")
local Entry = class.define(class.class("entry of a walk", "entry"), {}, "gpa value")

--- "gva 0x8000 -> gpa 0x9000, rwx user, 4K page, 4-level paging"
function Walk.__tostring(self)
  if self.paging == "none" and self.present then
    return ("gva %s -> gpa 0x%x, no paging"):format(u64.hex(self.gva), self.gpa)
  elseif self.present then
    return ("gva %s -> gpa 0x%x, %s%s, %s page, %s paging"):format(u64.hex(self.gva), self.gpa,
      self.rights, self.user and " user" or "", size_text(self.size), self.paging)
  end
  local last = self.entries[#self.entries]
  if not last then
    return ("gva %s leads nowhere: it is %s, %s paging"):format(u64.hex(self.gva),
      self.paging:match "level" and "not canonical" or "above 4 GiB",
      self.paging == "none" and "no" or self.paging)
  end
  return ("gva %s leads nowhere: the level %d entry %s at gpa 0x%x %s, %s"):format(
    u64.hex(self.gva), self.missing, u64.hex(last.value), last.gpa,
    self.reserved and "has a reserved bit set" or "is not present", self.paging .. " paging")
end

-- The rest of `bytes` of code as an instruction at rip; nil, message, code.
local function instruction_at(self, rip)
  local bytes, bits, code = raw.code(self, rip)
  if not bytes then return nil, bits, code end
  return disasm.one(bytes, 0, rip, bits)
end

-- ---- Backtraces ----

local MOST_FRAMES = 64

-- A function that reads from the stack, the width of what it reads, and the mask of offsets.
local function stack_of(self)
  local bits = mode.bits(self)
  local width = bits / 8
  local mask = u64.rshift(u64.bnot(0), 64 - bits)
  local base = bits == 64 and u64(0) or self.ss.base
  local limit = u64.rshift(u64.bnot(0), bits == 64 and 0 or 32)
  return function(offset)
    local gva = u64.band(base + u64.band(offset, mask), limit)
    local value = raw.linear_get(self, gva, width)
    return value and u64(value)
  end, width, mask
end

-- Frame pointer and return address that the frame at rbp has saved; nil at the end of the chain.
local function caller_of(read, width, rbp)
  if rbp == u64(0) then return nil end
  local saved, back = read(rbp), read(rbp + u64(width))
  if not saved or not back or back == u64(0) then return nil end
  return saved, back
end

local Frame = class.define(class.class "frame", {}, "rip rbp instruction symbol line")

function Frame.__tostring(self)
  return ("rip %s  rbp %s%s%s"):format(u64.hex(self.rip), u64.hex(self.rbp),
    self.symbol and "  " .. self.symbol or "",
    self.line and "  " .. tostring(self.line) or "")
    .. (self.instruction and "  " .. self.instruction or "")
end

local Backtrace = class.define(class.class "backtrace", {})

--- One line a frame, the innermost first.
function Backtrace.__tostring(self)
  local lines = {}
  for i, frame in ipairs(self) do lines[i] = ("#%d  %s"):format(i - 1, tostring(frame)) end
  return table.concat(lines, "\n")
end

-- `called`: rip is behind the call, whose line is wanted.
local function frame_at(self, rip, rbp, called)
  local found = instruction_at(self, rip)
  return setmetatable({ rip = rip, rbp = rbp, instruction = found and found.text,
    symbol = self.vm:symbol(rip),
    line = self.vm:source_line(called and rip - u64(1) or rip) or nil }, Frame)
end

-- ---- Disassembly ----

-- The instruction at an offset in the code segment; where there is none, its first byte as data.
local function line_at(self, rip)
  local bytes, bits, code = raw.code(self, rip)
  if not bytes then return nil, bits, code end
  local found, message, why = disasm.one(bytes, 0, rip, bits)
  if not found and why ~= "not_found" then return nil, message, why end
  return found or disasm.data(bytes, 0, rip)
end

-- ---- Methods ----

return function(methods)
  --- Where a linear address leads by the guest's own tables, as CR0, CR3, CR4, EFER and the vCPU's
  --- CPUID (width of a physical address, 1-GiB pages) say now: a table with gva, present, paging
  --- ("none", "32-bit", "PAE", "4-level", "5-level"), entries (a list of { gpa =, value = }, from
  --- the root on); where present, gpa, size (of the page; 4 GiB without paging), rights ("r-x":
  --- what the entries give, SMEP, SMAP and CR0.WP not applied), user (user mode has them too); else
  --- missing, the level of the entry at which the walk ended (1 for a page table's), and reserved,
  --- whether that has a reserved bit set. tostring gives a sentence. An address that is not
  --- canonical, or above 4 GiB outside of long mode, is not present either, with no entry and no
  --- `missing`. nil, message, "not_found" where a table lies in unmapped memory.
  function methods.translate(self, gva)
    open(self)
    gva = linear("cpu:translate", gva)
    local paging, missing, reserved, rights, user, gpa, size, values, gpas =
      raw.translate(self, gva)
    if not paging then
      if reserved == "not_found" then return nil, missing, reserved end
      return check.result(nil, missing, reserved)
    end
    local entries = {}
    for i, value in ipairs(values) do
      entries[i] = setmetatable({ gpa = u64.tonumber(gpas[i]), value = value }, Entry)
    end
    local walk = { gva = gva, present = size > 0, paging = pagings[paging], entries = entries }
    if walk.present then
      walk.gpa, walk.size, walk.rights, walk.user = gpa, size, check.rights_text(rights), user
    else
      walk.missing, walk.reserved = missing > 0 and missing or nil, reserved
    end
    return setmetatable(walk, Walk)
  end

  --- `size` bytes from a linear address, across pages, whatever rights the guest has. Segment bases
  --- are not applied: code in real mode is at cpu.cs.base + cpu.rip. An address that leads nowhere
  --- raises, with its number.
  function methods.read(self, gva, size)
    open(self)
    gva = linear("cpu:read", gva)
    size = check.size("cpu:read: size", size)
    return check.result(raw.linear_read(self, gva, size))
  end

  --- Writes the bytes of a string at a linear address; all of it must lead to memory, or nothing is
  --- written.
  function methods.write(self, gva, data)
    open(self)
    gva = linear("cpu:write", gva)
    if type(data) ~= "string" then
      error(("cpu:write: a string expected, got %s"):format(type(data)), 2)
    end
    return check.result(raw.linear_write(self, gva, data))
  end

  -- Reads an unsigned little-endian integer, or writes one.
  local function access(self, size, gva, value)
    local what = "cpu:u" .. 8 * size
    open(self, 2)
    gva = linear(what, gva, 2)
    if value == nil then return raw.linear_get(self, gva, size) end
    local exact = u64.exact(value)
    if exact == nil or (size < 8 and u64.rshift(exact, 8 * size) ~= u64.exact(0)) then
      error(("%s: value %s does not fit in %d bits"):format(what, tostring(value), 8 * size), 3)
    end
    return raw.linear_set(self, gva, size, exact)
  end

  --- cpu:uN(gva) reads an unsigned integer at a linear address, cpu:uN(gva, value) writes one.
  function methods.u8(self, gva, value) return check.result(access(self, 1, gva, value)) end
  function methods.u16(self, gva, value) return check.result(access(self, 2, gva, value)) end
  function methods.u32(self, gva, value) return check.result(access(self, 4, gva, value)) end
  function methods.u64(self, gva, value) return check.result(access(self, 8, gva, value)) end

  --- The instruction at rip, as luna.disasm gives one; its address is rip. nil, message, code where
  --- it cannot be read ("not_found"), is no instruction ("not_found"), or where the library was
  --- built without Zydis ("unsupported").
  function methods.instruction(self)
    open(self)
    local found, message, code = instruction_at(self, self.rip)
    if not found then return nil, message, code end
    return disasm.name(found, self.vm.symbols)
  end

  --- The next `count` instructions (8 where nil) from `rip` on, an offset in the code segment (the
  --- vCPU's own where nil): a list as luna.disasm gives it, with the names that vm.symbols has for
  --- each address (symbol) and for where it jumps (target), and the source line of each (line); the
  --- one at the vCPU's rip is marked.
  --- tostring gives lines. It ends where nothing can be read; nil, message, code where that is at
  --- once, or where the Zydis library is not installed ("unsupported").
  function methods.disasm(self, count, rip)
    open(self)
    count = check.whole("cpu:disasm: count", count or 8, 1, 2 ^ 16)
    local here = self.rip
    local at = check.exact("cpu:disasm: rip", rip == nil and here or rip)
    local list = {}
    while #list < count do
      local found, message, code = line_at(self, at)
      if not found and (#list == 0 or code ~= "not_found") then return nil, message, code end
      if not found then break end
      found.marked = at == here or nil
      list[#list + 1] = disasm.name(found, self.vm.symbols)
      at = at + u64(found.size)
    end
    return disasm.listing(list)
  end

  --- The frames of the call chain by frame pointers (RBP, EBP or BP, as the code has 64, 32 or 16
  --- bits): a list of { rip =, rbp =, instruction = text or nil, symbol = name or nil, line =
  --- source line or nil (from the second on, of the call) }, the innermost first, at most `max` (64
  --- where nil). It ends where a frame pointer is 0, leads nowhere or does not grow, or where the
  --- return address is 0. tostring gives lines. Only code that begins with push rbp; mov rbp, rsp
  --- and calls nearby is seen.
  function methods.backtrace(self, max)
    open(self)
    max = check.whole("cpu:backtrace: max", max or MOST_FRAMES, 1, 2 ^ 20)
    local trace = { frame_at(self, self.rip, self.rbp) }
    local read, width, mask = stack_of(self)
    local rbp = u64.band(self.rbp, mask)
    while #trace < max do
      local saved, back = caller_of(read, width, rbp)
      if not saved then break end
      trace[#trace + 1] = frame_at(self, back, saved, true)
      if not u64.lt(rbp, saved) then break end
      rbp = saved
    end
    return setmetatable(trace, Backtrace)
  end
end
