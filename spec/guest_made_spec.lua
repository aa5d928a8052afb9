-- SPDX-License-Identifier: MIT
-- Whatever a guest makes of its vCPU, the library can touch, save, restore and move it, and the
-- guest goes on as one that nobody touched: random loads of descriptors, control registers and MSRs
-- in every mode. LUNA_SEED repeats a failure.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local SECONDS = 1 -- for each mode
local OPERATIONS = 10
local CODE, GDT, POINTERS, STACK = 0x1000, 0x3000, 0x3800, 0x8000
local OTHER = 0x1800 -- where far jumps lead, to code of the same kind

-- ---- Random numbers, the same on both engines ----

local state

local function random(count) -- from 0 to count - 1
  state = (state * 16807) % 2147483647
  return state % count
end

local function pick(list) return list[random(#list) + 1] end

local function random32() return random(65536) * 65536 + random(65536) end

-- ---- Machine code ----

local function little(value, size)
  local bytes = {}
  for i = 1, size do
    bytes[i] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(bytes)
end

-- Loads EAX, ECX or EDX.
local function load(bits, reg, value)
  return (bits == 16 and "\x66" or "") .. string.char(0xb8 + reg) .. little(value, 4)
end

local CONTROL = {
  [0] = { 0x11, 0x31, 0x10, 0x80000011, 0x80010031, 0x60000010, 0x80000001, 0x1, 0x50033 },
  [2] = { 0, 0x1234 },
  [3] = { 0, 0x9000, 0x9018, 0x123000 },
  [4] = { 0, 0x20, 0x620, 0x10, 0x2000, 0x20a0, 0x4, 0x100000, 0x40000, 0x668 },
}
local MSRS = {
  { 0xc0000080, { 0, 1, 0x100, 0x101, 0x500, 0x901, 0xd01, 0x1000 } },
  { 0xc0000081 }, { 0xc0000082 }, { 0xc0000084 }, { 0xc0000100 }, { 0xc0000101 },
  { 0xc0000102 }, { 0xc0000103 }, { 0x174 }, { 0x175 }, { 0x176 }, { 0x277 }, { 0x2ff },
  { 0x200 }, { 0x201 }, { 0x250 }, { 0x1a0 }, { 0x1d9, { 0, 1, 2 } }, { 0x3b }, { 0x48, { 0, 1 } },
  { 0x1b, { 0xfee00900, 0xfee00100, 0xfee00d00, 0xfec00900 } }, { 0x4b564d01, { 0, 0x5001 } },
  { 0x4b564d00, { 0, 0x5100 } }, { 0x4b564d03, { 0, 0x5201 } }, { 0xd90 }, { 0xda0 },
}

local function write_control(bits)
  local reg = pick { 0, 0, 2, 3, 4, 4 }
  return load(bits, 0, random(8) == 0 and random32() or pick(CONTROL[reg]))
    .. "\x0f\x22" .. string.char(0xc0 + 8 * reg)
end

local function write_debug(bits)
  local reg = pick { 0, 1, 2, 3, 6, 7 }
  return load(bits, 0, pick { 0, 0x400, 0xffff0ff0, 0x2000, 0x600, 0x700, random32() })
    .. "\x0f\x23" .. string.char(0xc0 + 8 * reg)
end

local function write_msr(bits)
  local msr = pick(MSRS)
  local high = pick { 0, 0, 0, 0xffffffff, random32() }
  local low = msr[2] and pick(msr[2]) or pick { 0, 0xffff8000, 0x06060606, random32() }
  return load(bits, 1, msr[1]) .. load(bits, 2, msr[2] and 0 or high) .. load(bits, 0, low)
    .. "\x0f\x30"
end

local function selector() return 8 * random(16) + pick { 0, 0, 0, 3, 4 } end

local function load_segment(bits)
  return load(bits, 0, pick { selector(), selector(), random(65536), 0 })
    .. "\x8e" .. string.char(0xc0 + 8 * pick { 0, 2, 3, 4, 5 })
end

local function load_table(bits)
  local address = POINTERS + 16 * random(4)
  local mod = bits == 16 and "\x06" or bits == 32 and "\x05" or "\x04\x25"
  local op = pick { 0x10, 0x10, 0x18 } -- LGDT, LIDT
  return "\x0f\x01" .. string.char(mod:byte() + op) .. mod:sub(2)
    .. little(address, bits == 16 and 2 or 4)
end

-- LLDT, LTR; both load from the GDT.
local function load_system(bits)
  return load(bits, 0, selector()) .. "\x0f\x00" .. pick { "\xd0", "\xd8" }
end

local function jump_far(bits)
  if bits == 64 then
    return "\x68" .. little(selector(), 4) .. "\x68" .. little(OTHER, 4) .. "\x48\xcb"
  end
  return "\xea" .. little(OTHER, bits / 8) .. little(selector(), 2)
end

local function set_flags(bits)
  local flags = pick { 2, 0x202, 0x3202, 0x102, 0x40002, 0x4002, 0x200002, random32() }
  return (bits == 16 and "\x66" or "") .. "\x68" .. little(flags, 4)
    .. (bits == 16 and "\x66" or "") .. "\x9d"
end

local function other()
  return pick { "\xfb", "\xfa", "\xf4", "\xdb\xe3", "\x8e\xd0", "\x0f\x06", "\x0f\x08",
    "\x0f\x01\xd1", "\xcf", "\xcc", "\x0f\x01\xf8" }
end

local OPERATION = { write_control, write_control, write_debug, write_msr, write_msr, load_segment,
  load_segment, load_table, load_system, jump_far, jump_far, set_flags, other }

-- Every operation is followed by an exit.
local function program(bits)
  local parts = {}
  for i = 1, OPERATIONS do parts[i] = pick(OPERATION)(bits) .. "\xe6\x10" end
  return table.concat(parts) .. "\xf4"
end

-- Descriptors that a processor would mostly take.
local function descriptor()
  local kind = pick { 0x9b, 0x93, 0x9a, 0x92, 0xfb, 0xf3, 0x9f, 0x97, 0x82, 0x89, 0x81, 0x8b, 0x90,
    random(256) }
  local base = pick { 0, 0, 0, 0x100, 0x2000, random32() }
  local limit = pick { 0xfffff, 0xfffff, 0xffff, random(0x100000) }
  local low = limit % 65536 + base % 65536 * 65536
  local high = math.floor(base / 65536) % 256 + kind * 256 + math.floor(limit / 65536) * 65536
    + random(16) * 0x100000 + math.floor(base / 0x1000000) * 0x1000000
  return low, high
end

local function fill(ram, bits)
  for vector = 0, 255 do ram:u32(4 * vector, 0x1f00) end
  ram:write(0x1f00, "\xe6\x11\xf4")
  ram:write(CODE, program(bits))
  ram:write(OTHER, program(pick { bits, 16, 32, 64 }))
  for i = 1, 15 do
    local low, high = descriptor()
    ram:u32(GDT + 8 * i, low)
    ram:u32(GDT + 8 * i + 4, high)
  end
  for i = 0, 3 do
    ram:u16(POINTERS + 16 * i, pick { 0x7f, 0x7f, 0xffff, random(65536) })
    ram:u32(POINTERS + 16 * i + 2, pick { GDT, GDT, GDT, random32() })
    ram:u32(POINTERS + 16 * i + 6, pick { 0, 0, 0xffff8000 })
  end
end

-- ---- Guests ----

local MODES = { real = 16, protected = 32, long = 64, user = 64 }

-- What a script does with a vCPU that stands at an exit. Nothing that the guest would notice.
local TOUCH = {
  function(cpu) cpu.cr3 = cpu.cr3 end,
  function(cpu) cpu.ds.base = cpu.ds.base end,
  function(cpu) cpu.dr7 = cpu.dr7 end,
  function(cpu) cpu.fcw = cpu.fcw end,
  function(cpu) assert(cpu:set_state(assert(cpu:state()))) end,
  function(cpu, view) assert(cpu:set_space(cpu.space == view and 0 or view)) end,
}

local split = ((luna.probe().features or {}).split_irqchip or 0) > 0
local CHIPS = split and { "none", "split" } or { "none" }

-- Where the guest came to, exit by exit; one that loops is left there.
local function follow(seed, mode, patience, touches)
  state = seed
  local vm, ram = luna.vm { irqchip = pick(CHIPS) }, luna.buffer "64K"
  vm.default:map(ram, 0)
  local view = vm:space()
  view:map(ram, 0)
  fill(ram, MODES[mode])
  local cpu = assert(vm:vcpu { mode = mode, rip = CODE, rsp = STACK })
  local seen, loops = {}, false
  for i = 1, 3 * OPERATIONS do
    local ok, exit, message = pcall(cpu.run, cpu, { timeout = patience })
    if not (ok and exit) then
      seen[i] = ok and message or tostring(exit)
      break
    end
    loops = exit.kind == "timeout"
    if loops then break end
    seen[i] = exit.kind .. " at " .. luna.hex(exit.rip)
    if exit.kind ~= "pio" or exit.access ~= "w" then break end
    cpu:answer()
    if touches then
      local touch = random(#TOUCH) + 1
      local done, why = pcall(TOUCH[touch], cpu, view)
      if not done then
        seen[i] = seen[i] .. "; touch " .. touch .. ": " .. tostring(why)
        break
      end
    end
  end
  vm:close()
  ram:close()
  return table.concat(seen, "\n"), loops
end

helper.kvm("a state that a guest made", function()
  for _, mode in ipairs { "real", "protected", "long", "user" } do
    it("is touched, restored and moved, from mode " .. mode, function()
      local first = tonumber(os.getenv "LUNA_SEED" or "") or math.floor(luna.clock() * 1000)
      local stop, count = luna.clock() + SECONDS, 0
      while luna.clock() < stop or count < 5 do
        local seed = (first + count) % 2147483646 + 1
        local alone, loops = follow(seed, mode, 0.2)
        local touched = follow(seed, mode, loops and 0.2 or 5, true)
        if loops then touched = touched:sub(1, #alone) end
        if alone ~= touched then
          error(("LUNA_SEED=%d:\n%s\n--- touched:\n%s"):format(seed - 1, alone, touched), 0)
        end
        count = count + 1
      end
    end)
  end
end)
