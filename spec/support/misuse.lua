-- SPDX-License-Identifier: MIT
-- Random misuse: objects of every class, open and closed, arguments that fit nothing, and whether
-- an error blames the caller. What is drawn depends on the seed alone.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local misuse = {}

local unpack = table.unpack or unpack

local state

--- Begins again with a seed.
function misuse.begin(seed)
  misuse.seed, state = seed, seed % 2147483646 + 1
end

misuse.begin(tonumber(os.getenv "LUNA_SEED" or "") or 1)

--- From 1 to `most`. Park and Miller's: both engines draw the same.
function misuse.random(most)
  state = state * 16807 % 2147483647
  return state % most + 1
end

local random = misuse.random

local here = debug.getinfo(1, "S").short_src

function misuse.show(list)
  local parts = {}
  for i = 1, list.n do
    local ok, text = pcall(tostring, list[i])
    parts[i] = type(list[i]) == "string" and ("%q"):format(list[i]) or ok and text or "?"
  end
  return (table.concat(parts, ", "):gsub("%s+", " "))
end

--- Calls fn; the text of an error that blames no line of this file, or nil. Lua's own of memory has
--- no line.
function misuse.wrong(fn, list)
  local ok, message = pcall(function() local _ = fn(unpack(list, 1, list.n)) end)
  if ok or message == "not enough memory"
    or type(message) == "string" and message:find(here .. ":", 1, true) == 1 then return nil end
  return type(message) == "table" and tostring(message[1]) or tostring(message)
end

--- For misuse.wrong: reads and writes a field in this file.
function misuse.get(object, key) local _ = object[key] end

function misuse.set(object, key, new) object[key] = new end

--- An error that has no line, for functions that are not to raise.
function misuse.quiet(fn)
  return function(...)
    local ok, message = pcall(fn, ...)
    if not ok then error({ message }, 0) end
  end
end

--- The methods of an object, by name: its class has them in a table, or behind a function that has
--- that as an upvalue.
function misuse.methods_of(object)
  local index = (getmetatable(object) or {}).__index
  if type(index) ~= "function" then return index or {} end
  for i = 1, 60 do
    local name, value = debug.getupvalue(index, i)
    if not name then return {} end
    local named = name == "methods" or name:match "_methods$"
    if named and type(value) == "table" then return value end
  end
end

function misuse.names_of(set, kind)
  local names = {}
  for name, value in pairs(set) do
    local makes_files = name == "record" -- of whatever name is drawn
    if type(value) == kind and name:sub(1, 2) ~= "__" and not makes_files then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

misuse.fields = {
  "rax", "cr0", "cr3", "cs", "gdt", "dr7", "xcr0", "mxcsr", "space", "system", "exits", "started",
  "parked", "msr", "cpuid", "xmm", "st", "k", "xsave", "apic", "mp_state", "irq_waiting",
  "tsc_frequency", "tsc_offset", "exec_time", "idle_time", "nonsense", "efer", "base", 0, 1, 7,
  "tpr", "irr", 0x10, 0xc0000080, "lstar", 0.5, 2 ^ 40, true,
}

-- What a script can get hold of in a VM, by name.
local function collect(all, prefix, vm, ram)
  local cpu = helper.keep(vm:vcpu { rip = 0x1000, rsp = 0x8000 })
  local parts = {
    vm = vm, cpu = cpu, buffer = ram, space = vm.default,
    trap = vm:pio(0x10, 1, { read = function() return 0 end }),
    timer = vm:timer(1e6, function() end), breakpoint = cpu:breakpoint(0x2000),
    eventfd = vm:eventfd { port = 0x20, size = 1 }, answer = cpu.cpuid[0],
  }
  for _, name in ipairs { "cpuid", "apic", "msr", "xmm", "k", "cs" } do parts[name] = cpu[name] end
  for _, name in ipairs(misuse.names_of(parts, "table")) do
    all[#all + 1] = { name = prefix .. name, object = parts[name] }
  end
end

--- A guest of nothing but HLT, and closed objects.
function misuse.objects()
  local all = {}
  local vm = helper.keep(luna.vm { irqchip = random(3) == 1 and "split" or "none" })
  local ram = helper.keep(luna.buffer "64K")
  ram:fill(0xf4)
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  collect(all, "", vm, ram)
  local other, rest = luna.vm(), luna.buffer "4K"
  collect(all, "closed ", other, rest)
  other:close()
  rest:close()
  return all
end

local plain = {
  nil, false, true, 0, 1, -1, 0.5, 2 ^ 53, 2 ^ 60, -2 ^ 63, 0 / 0, math.huge, "", "x", "rwx", "64K",
  "\0\1", ("a"):rep(512), ("a"):rep(1024), luna.u64(5), luna.u64 "0xffffffffffffffff", 16, 0x20,
  4096, "debug", "hlt", "r", "w",
}
local COUNT = 28

-- What raises by itself when it is indexed or called.
local views = { cpuid = true, apic = true, msr = true, xmm = true, k = true, cs = true }

function misuse.value(all)
  local kind = random(10)
  if kind <= 5 then return plain[random(COUNT)] end
  if kind == 6 then
    local one = all[random(#all)]
    return not views[one.name:match "%w+$"] and one.object or nil
  end
  if kind == 7 then return function() end end
  local list = { {}, { 1, 2 }, { size = "x" }, { [{}] = 1 }, { read = 1 }, { timeout = "x" },
    { read = function() return 0 end }, { memory = 5 }, { software = 1 }, { timeout = 0.001 },
    { max_exits = 1 }, { until_rip = 5 }, { until_gpa = 0x1001 }, { fpu = 1 }, { irqchip = 5 },
    { port = 1 }, { eax = 1 }, { f64 = { 1 } }, { line = 1 }, { { line = 1 } }, { 1, size = 5 },
    coroutine.create(print), io.stdout }
  return list[random(#list)]
end

local files = { core = true, record = true } -- methods that write one

--- For the method, or for any: where that would make a file of the name, the name is another.
function misuse.arguments(all, method)
  local list = { n = random(5) - 1 }
  for i = 1, list.n do
    local value = misuse.value(all)
    if files[method] and type(value) == "string" and value:find "^%w+$" and #value < 255 then
      value = helper.file ""
    end
    list[i] = value
  end
  return list
end

return misuse
