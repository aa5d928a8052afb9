-- SPDX-License-Identifier: MIT
-- Misuse of every method and field at random: what the library raises blames the caller's line, and
-- wrong arguments do no more than that. LUNA_SEED (1) gives another run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local unpack = table.unpack or unpack

local seed = tonumber(os.getenv "LUNA_SEED" or "") or 1
local state = seed % 2147483646 + 1

-- Park and Miller's: both engines draw the same.
local function random(most)
  state = state * 16807 % 2147483647
  return state % most + 1
end

local here = debug.getinfo(1, "S").short_src

local function show(list)
  local parts = {}
  for i = 1, list.n do
    local ok, text = pcall(tostring, list[i])
    parts[i] = type(list[i]) == "string" and ("%q"):format(list[i]) or ok and text or "?"
  end
  return (table.concat(parts, ", "):gsub("%s+", " "))
end

-- Calls fn; the text of an error that blames no line of this file, or nil. Lua's own of memory has
-- no line.
local function wrong(fn, list)
  local ok, message = pcall(function() local _ = fn(unpack(list, 1, list.n)) end)
  if ok or message == "not enough memory"
    or type(message) == "string" and message:find(here .. ":", 1, true) == 1 then return nil end
  return type(message) == "table" and tostring(message[1]) or tostring(message)
end

-- An error that has no line, for functions that are not to raise.
local function quiet(fn)
  return function(...)
    local ok, message = pcall(fn, ...)
    if not ok then error({ message }, 0) end
  end
end

-- The methods of an object, by name: its class has them in a table, or behind a function that has
-- that as an upvalue.
local function methods_of(object)
  local index = getmetatable(object).__index
  if type(index) == "table" then return index end
  for i = 1, 60 do
    local name, value = debug.getupvalue(index, i)
    if not name then return {} end
    local named = name == "methods" or name:match "_methods$"
    if named and type(value) == "table" then return value end
  end
end

local function names_of(set, kind)
  local names = {}
  for name, value in pairs(set) do
    if type(value) == kind and name:sub(1, 2) ~= "__" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local fields = {
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
  for _, name in ipairs(names_of(parts, "table")) do
    all[#all + 1] = { name = prefix .. name, object = parts[name] }
  end
end

-- A guest of nothing but HLT, and closed objects.
local function objects()
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

local function value(all)
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

local function arguments(all)
  local list = { n = random(5) - 1 }
  for i = 1, list.n do list[i] = value(all) end
  return list
end

helper.kvm("misuse", function()
  local found

  local function try(what, fn, list)
    local message = wrong(fn, list)
    if message then
      found[what] = ("%s(%s), LUNA_SEED=%d: %s"):format(what, show(list), seed, message)
    end
  end

  local function get(object, key) local _ = object[key] end

  local function set(object, key, new) object[key] = new end

  local text = quiet(tostring)

  local function round(all, before)
    for _, one in ipairs(all) do
      local name, object = one.name, one.object
      local methods = methods_of(object)
      for _, method in ipairs(names_of(methods, "function")) do
        for _ = 1, method == "close" and 0 or 2 do
          local list = arguments(all)
          table.insert(list, 1, object)
          list.n = list.n + 1
          before()
          try(name .. ":" .. method, methods[method], list)
        end
      end
      for _ = 1, 4 do
        local key = fields[random(#fields)]
        try(("%s[%s]"):format(name, tostring(key)), get, { object, key, n = 2 })
        if getmetatable(object).__newindex and rawget(object, key) == nil then
          try(("%s[%s] = x"):format(name, tostring(key)), set, { object, key, value(all), n = 3 })
        end
      end
      try("tostring of " .. name, text, { object, n = 1 })
    end
  end

  before_each(function() found = {} end)

  local function chance(name, body)
    it(name, function()
      if helper.stressed then pending "a round takes minutes with the collector always at work" end
      body()
    end)
  end

  local function check()
    local texts = {}
    for _, message in pairs(found) do texts[#texts + 1] = message end
    table.sort(texts)
    assert.equal("", table.concat(texts, "\n"))
  end

  chance("of methods and fields raises at the caller's line", function()
    for _ = 1, 40 do
      round(objects(), function() end)
      helper.clean()
    end
    check()
  end)

  chance("of the library's functions does too", function()
    for _ = 1, 40 do
      local all = objects()
      for _, name in ipairs { "vm", "buffer", "disasm", "hex", "capability", "u64" } do
        try("luna." .. name, luna[name], arguments(all))
      end
      helper.clean()
    end
    check()
  end)

  chance("of a vCPU that is started does too", function()
    for _ = 1, 20 do
      local all, cpu = objects()
      for _, one in ipairs(all) do
        if one.name == "cpu" then cpu = one.object end
      end
      round(all, function()
        if not cpu.started then cpu:start() end
      end)
      helper.clean()
    end
    check()
  end)
end)
