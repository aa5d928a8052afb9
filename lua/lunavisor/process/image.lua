-- SPDX-License-Identifier: MIT
-- A program as Linux begins it: the segments of a static ELF file, the stack with its arguments,
-- its environment and the auxiliary vector.

local elf = require "lunavisor.load.elf"
local memories = require "lunavisor.process.memory"
local pack = require "lunavisor.text.pack"
local reader = require "lunavisor.load.reader"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local floor, max = math.floor, math.max

local M = {}

local PAGE, END = memories.PAGE, memories.END
local PT_INTERP, PT_PHDR = 3, 6
local ET_DYN = 3
local BASE = 0x555555554000                          -- of a position-independent one
local STACK_TOP, STACK = (END - 1) * PAGE, 8 * 2 ^ 20 -- its end, its size
local LEAST = 0x10000
local ARGUMENTS_MOST = 2 ^ 20

-- ---- Segments ----

local function check_kind(image, file)
  if file.bits ~= 64 then
    image:wrong("EI_CLASS", 4, 1, "0x2: a 64-bit program for a process", "unsupported")
  end
  local header = elf.header(file, PT_INTERP)
  if header then
    image:wrong("p_type of program header " .. header.index, header.at, PT_INTERP,
      "no PT_INTERP (linked with -static)", "unsupported")
  end
end

-- ELF's flags of a segment (x 1, w 2, r 4) as PROT_* (r 1, w 2, x 4).
local function rights_of(flags)
  return (flags % 8 >= 4 and 1 or 0) + (flags % 4 >= 2 and 2 or 0) + (flags % 2 == 1 and 4 or 0)
end

local function join(one, other)
  local joined = 0
  for _, bit in ipairs { 1, 2, 4 } do
    if one % (2 * bit) >= bit or other % (2 * bit) >= bit then joined = joined + bit end
  end
  return joined
end

-- Where a segment goes: checked to be in a process's addresses and apart from what is there.
local function range_of(memory, file, header)
  local image = file.image
  local from = u64.lt(header.vaddr, END * PAGE) and u64.tonumber(header.vaddr) + file.shift
  if not from or from < LEAST or from + header.memsz > STACK_TOP - STACK then
    image:wrong(("p_vaddr of program header %d"):format(header.index),
      header.at + file.layout.ph.vaddr, header.vaddr,
      ("0x%x bytes from 0x%x to 0x%x"):format(header.memsz, LEAST, STACK_TOP - STACK))
  end
  local first, last = floor(from / PAGE), floor((from + header.memsz + PAGE - 1) / PAGE)
  if not memory:is_own(first, last) then
    image:refuse("busy", "segment %d, 0x%x to 0x%x, lies over the system area of the vCPU, at "
      .. "0x%x: a program that is linked for other addresses expected", header.index, from,
      from + header.memsz, memory.system * PAGE)
  end
  return from, first, last
end

-- The areas of a segment. A page may be of two, when it has the rights of both.
local function put_areas(memory, first, last, rights)
  local here = memory.areas:find(first)
  if here then
    memory.areas:protect(first, first + 1, join(here.rights, rights))
    first = first + 1
  end
  if first < last then memory:put(first, last, rights, "program") end
end

local function load_segments(memory, file)
  local image, behind, ranges = file.image, 0, {}
  for i, header in ipairs(file.loads) do
    local from, first, last = range_of(memory, file, header)
    if from < behind then
      image:refuse("format", "segment %d, at 0x%x, does not lie behind the one before, which ends "
        .. "at 0x%x: segments in order of address expected", header.index, from, behind)
    end
    behind = from + header.memsz
    ranges[i] = { from, first, last }
  end
  for i, header in ipairs(file.loads) do
    put_areas(memory, ranges[i][2], ranges[i][3], rights_of(header.flags))
  end
  for i, header in ipairs(file.loads) do
    local bytes = header.filesz > 0 and image:part(header.offset, header.filesz, "a segment") or ""
    if not memory:load(ranges[i][1], bytes) then
      image:refuse("not_found", "its segments need more than the memory of the process: a greater "
        .. "option memory expected")
    end
  end
  return behind
end

-- ---- The stack ----

local AT = {
  PHDR = 3, PHENT = 4, PHNUM = 5, PAGESZ = 6, BASE = 7, FLAGS = 8, ENTRY = 9, UID = 11, EUID = 12,
  GID = 13, EGID = 14, PLATFORM = 15, HWCAP = 16, CLKTCK = 17, SECURE = 23, RANDOM = 25,
  EXECFN = 31,
}
local ORDER = {
  "HWCAP", "PAGESZ", "CLKTCK", "PHDR", "PHENT", "PHNUM", "BASE", "FLAGS", "ENTRY", "UID", "EUID",
  "GID", "EGID", "SECURE", "RANDOM", "EXECFN", "PLATFORM",
}

-- Where the program headers are in memory.
local function headers_at(file)
  local image = file.image
  local header = elf.header(file, PT_PHDR)
  if header and u64.lt(header.vaddr, END * PAGE) then
    return u64.tonumber(header.vaddr) + file.shift
  end
  local offset = image:u64(file.layout.phoff, "e_phoff")
  for _, one in ipairs(file.loads) do
    if offset >= one.offset and offset < one.offset + one.filesz then
      return u64.tonumber(one.vaddr) + file.shift + offset - one.offset
    end
  end
  return 0
end

-- Bytes that go below each other, from the end of the stack on.
local function pile_of(top)
  local pile = { at = top, parts = {} }
  function pile.push(bytes)
    pile.at = pile.at - #bytes
    table.insert(pile.parts, 1, bytes)
    return pile.at
  end
  return pile
end

local function push_all(pile, list)
  local addresses = {}
  for i = #list, 1, -1 do addresses[i] = pile.push(list[i] .. "\0") end
  return addresses
end

-- The words at the top of the stack: argc, argv, envp, the auxiliary vector.
local function vector_of(arguments, environment, values)
  local list = { #arguments }
  for _, set in ipairs { arguments, environment } do
    for _, address in ipairs(set) do list[#list + 1] = address end
    list[#list + 1] = 0
  end
  for _, name in ipairs(ORDER) do
    list[#list + 1], list[#list + 2] = AT[name], values[name]
  end
  list[#list + 1], list[#list + 2] = 0, 0
  return list
end

-- Fills the stack; where it begins.
local function put_stack(memory, file, start)
  local pile, values = pile_of(STACK_TOP), {}
  pile.push(("\0"):rep(8))
  values.EXECFN = pile.push(start.name .. "\0")
  local environment = push_all(pile, start.environment)
  local arguments = push_all(pile, start.arguments)
  values.PLATFORM, values.RANDOM = pile.push "x86_64\0", pile.push(start.random)
  values.HWCAP, values.PAGESZ, values.CLKTCK = start.features, PAGE, 100
  values.PHDR, values.PHENT = headers_at(file), file.layout.ph.size
  values.PHNUM, values.ENTRY = #file.headers, u64.tonumber(file.entry) + file.shift
  for _, name in ipairs { "BASE", "FLAGS", "UID", "EUID", "GID", "EGID", "SECURE" } do
    values[name] = 0
  end
  local list = vector_of(arguments, environment, values)
  pile.push(("\0"):rep((pile.at - 8 * #list) % 16))
  pile.push((pack.encode("u64", list)))
  if STACK_TOP - pile.at > ARGUMENTS_MOST then
    file.image:refuse("limit", "its arguments and its environment take 0x%x bytes: at most 0x%x "
      .. "expected", STACK_TOP - pile.at, ARGUMENTS_MOST)
  end
  memory:put((STACK_TOP - STACK) / PAGE, STACK_TOP / PAGE, 3, "[stack]")
  if not memory:load(pile.at, table.concat(pile.parts)) then
    file.image:refuse("not_found", "its stack needs more than the memory of the process: a greater "
      .. "option memory expected")
  end
  return pile.at
end

--- Puts a program (reader.open) into memory. `start`: name, arguments, environment (lists of
--- strings), random (16 bytes), features (EDX of CPUID leaf 1). Returns rip, rsp and the symbols;
--- refuses as luna.load does.
function M.load(memory, image, start)
  local file = elf.parse(image)
  check_kind(image, file)
  file.shift = 0
  if file.kind == ET_DYN then
    local lowest = END * PAGE
    for _, header in ipairs(file.loads) do
      if u64.lt(header.vaddr, lowest) then lowest = u64.tonumber(header.vaddr) end
    end
    file.shift = BASE - (lowest - lowest % PAGE)
  end
  local behind = load_segments(memory, file)
  if not u64.lt(file.entry, END * PAGE) then
    image:wrong("e_entry", file.layout.entry, file.entry, "an address of a process")
  end
  memory:begin_heap(floor((max(behind, LEAST) + PAGE - 1) / PAGE) * PAGE)
  local rsp = put_stack(memory, file, start)
  elf.lines(file)
  -- Damaged ones are none: Linux does not look at them.
  return u64.tonumber(file.entry) + file.shift, rsp, symbols.later(function()
    return reader.attempt(elf.symbols, file)
  end)
end

--- The limit of the stack, for prlimit64.
M.STACK = STACK

return M
