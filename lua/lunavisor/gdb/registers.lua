-- SPDX-License-Identifier: MIT
-- The registers that gdb sees of a vCPU, in the order of its target description, each as bytes.

local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"
local mode = require "lunavisor.vcpu.mode"

local M = {}

local function encode(value, size)
  return pack.encode("u64", { value }):sub(1, size)
end

local function decode(bytes)
  return pack.decode("u64", (bytes .. ("\0"):rep(8)):sub(1, 8))[1]
end

-- ---- What a register is ----

-- One whose value is what get gives: a u64. Without set it cannot be written.
local function word(name, size, kind, get, set)
  return {
    name = name, bits = size * 8, type = kind,
    get = function(cpu) return encode(get(cpu), size) end,
    set = set and function(cpu, bytes) set(cpu, decode(bytes)) end,
  }
end

local function plain(name, size, kind, own)
  return word(name, size, kind, function(cpu) return cpu[own or name] end,
    function(cpu, value) cpu[own or name] = value end)
end

local function of_group(name, size, group, field)
  return word(name, size, "int", function(cpu) return cpu[group][field] end,
    function(cpu, value) cpu[group][field] = value end)
end

-- In real mode a selector brings its base along, as the processor's own loads do.
local function selector(name)
  return word(name, 4, "int32", function(cpu) return cpu[name].selector end, function(cpu, value)
    cpu[name].selector = value
    if not mode.bit(cpu.cr0, 0) then cpu[name].base = u64.lshift(value, 4) end
  end)
end

-- Breakpoints, memory and code are at linear addresses, and so is what gdb takes for the place.
local function place(name, size)
  return word(name, size, "code_ptr", function(cpu) return mode.linear(cpu, cpu.rip) end,
    function(cpu, value) cpu.rip = mode.offset(cpu, value) end)
end

local function wide(name, bank, index, size, kind)
  return {
    name = name, bits = size * 8, type = kind,
    get = function(cpu) return cpu[bank][index]:bytes() end,
    set = function(cpu, bytes) cpu[bank][index] = bytes end,
  }
end

-- gdb has two bits a register, the processor one: 3 is empty.
local function tags(cpu)
  local full = 0
  for i = 0, 7 do
    if not mode.bit(cpu.ftw, i) then full = full + 3 * 4 ^ i end
  end
  return u64(full)
end

local function set_tags(cpu, full)
  local abridged = 0
  for i = 0, 7 do
    if u64.band(u64.rshift(full, 2 * i), 3) ~= u64(3) then abridged = abridged + 2 ^ i end
  end
  cpu.ftw = abridged
end

-- ---- The description ----

local function general(list, names, size)
  for name in names:gmatch "%S+" do
    local own = size == 4 and name:gsub("^e", "r") or name
    local kind = own:find "[sb]p$" and "data_ptr" or size == 8 and "int64" or "int32"
    list[#list + 1] = plain(name, size, kind, own)
  end
end

local function core(list, long)
  if long then
    general(list, "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15", 8)
    list[#list + 1] = place("rip", 8)
  else
    general(list, "eax ecx edx ebx esp ebp esi edi", 4)
    list[#list + 1] = place("eip", 4)
  end
  list[#list + 1] = plain("eflags", 4, "i386_eflags", "rflags")
  for name in ("cs ss ds es fs gs"):gmatch "%S+" do list[#list + 1] = selector(name) end
  for i = 0, 7 do list[#list + 1] = wide("st" .. i, "st", i, 10, "i387_ext") end
  local zero = function() return u64(0) end
  for _, one in ipairs { plain("fctrl", 4, "int", "fcw"), plain("fstat", 4, "int", "fsw"),
    word("ftag", 4, "int", tags, set_tags), word("fiseg", 4, "int", zero),
    plain("fioff", 4, "int", "fip"), word("foseg", 4, "int", zero), plain("fooff", 4, "int", "fdp"),
    plain("fop", 4, "int") } do
    one.group = "float"
    list[#list + 1] = one
  end
end

local function sse(list, long)
  for i = 0, long and 15 or 7 do list[#list + 1] = wide("xmm" .. i, "xmm", i, 16, "vec128") end
  list[#list + 1] = plain("mxcsr", 4, "int")
  list[#list].group = "vector"
end

local function system(list)
  for name in ("cr0 cr2 cr3 cr4 cr8 efer apic_base dr0 dr1 dr2 dr3 dr6 dr7"):gmatch "%S+" do
    list[#list + 1] = plain(name, 8, "int64")
  end
  for name in ("cs ss ds es tr ldtr gdtr idtr"):gmatch "%S+" do
    list[#list + 1] = of_group(name .. "_base", 8, name, "base")
    list[#list + 1] = of_group(name .. "_limit", 4, name, "limit")
  end
  for name in ("tr ldtr"):gmatch "%S+" do
    list[#list + 1] = of_group(name .. "_selector", 4, name, "selector")
  end
end

--- The registers for code of 64, 32 or 16 bits: a list of features { name =, ... registers }, and
--- all registers in their order.
function M.of(bits)
  local long, features, all = bits == 64, {}, {}
  local function feature(name, fill)
    local list = {}
    fill(list, long)
    list.name, features[#features + 1] = name, list
    for _, one in ipairs(list) do all[#all + 1] = one end
  end
  feature("org.gnu.gdb.i386.core", core)
  feature("org.gnu.gdb.i386.sse", sse)
  if long then
    feature("org.gnu.gdb.i386.segments", function(list)
      list[1] = of_group("fs_base", 8, "fs", "base")
      list[2] = of_group("gs_base", 8, "gs", "base")
    end)
  end
  feature("org.lunavisor.system", system)
  return features, all
end

return M
