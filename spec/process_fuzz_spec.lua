-- SPDX-License-Identifier: MIT
-- Damaged programs, and system calls with random arguments: luna.process gives a process, or nil, a
-- message and a code; nothing that a program asks for raises an error. LUNA_SEED repeats a run.

local luna = require "lunavisor"
local chance = require "lunavisor.testing.chance"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local programs = require "spec.support.process"
local calls = require "lunavisor.process.call"
local numbers = require "lunavisor.process.number"

local seed = tonumber(os.getenv "LUNA_SEED" or "") or 1 + os.time() % 1000000
local ROUNDS = helper.stressed and 10 or 100
local CALLS = helper.stressed and 50 or 1500

local function silent() end

-- ---- Damaged programs ----

local function damage(random, bytes)
  for _ = 1, 1 + random(3) do
    local at = random(random(3) > 0 and math.min(0xb0, #bytes) or #bytes)
    if random(12) == 0 then
      bytes = bytes:sub(1, math.max(1, at))
    else
      local word = random(2) == 0 and image.le32(random(2 ^ 31)) or string.char(random(256))
      bytes = image.patch(bytes, at, word):sub(1, #bytes)
    end
  end
  return bytes
end

local codes = { format = true, unsupported = true, not_found = true, busy = true, limit = true }

helper.kvm("damaged programs", function()
  it("are run or refused", function()
    local random, good = chance.new(seed), image.elf { entry = 0x401000, segments = {
      { data = helper.code("mov eax, 60\n syscall", 64, 0x401000), vaddr = 0x401000, flags = 5 },
      { data = "data", vaddr = 0x402000, memsz = 0x3000, flags = 6 } },
      symbols = { { name = "main", value = 0x401000 } } }
    local made, refused = 0, 0
    for round = 1, ROUNDS do
      local where = ("LUNA_SEED=%d, round %d: "):format(seed, round)
      local ok, process, message, code = pcall(luna.process, { bytes = damage(random, good) },
        { memory = "2M", log = silent, stdout = silent, stderr = silent })
      assert.is_true(ok, where .. tostring(process))
      if process then
        made = made + 1
        local ending
        ok, ending = pcall(process.run, process, { timeout = 0.02 })
        assert.is_true(ok, where .. tostring(ending))
        assert.is_string(tostring(ending), where)
        assert.is_string(process:maps(), where)
        process:close()
      else
        refused = refused + 1
        assert.matches("^luna%.process: bytes: ", message, where)
        assert.is_true(codes[code], where .. code .. ": " .. message)
      end
    end
    assert.is_true(made > 0 and refused > 0)
  end)
end)

-- ---- Random calls ----

local REGISTERS = { "rdi", "rsi", "rdx", "r10", "r8", "r9" }
local VALUES = {
  "0", "1", "2", "3", "4", "8", "0x10", "0x20", "0x22", "0x32", "0xfff", "0x1000", "0x2001",
  "0x3000", "0x100022", "0x401000", "0x402000", "0x402ff8", "0x402fff", "0x403000", "0x404001",
  "0x7fffffff", "0x80000000", "0xffffffff", "0xffffff9c", "0x100000000", "0x5401", "0x1002",
  "0x555555554000", "0x7ffff7ffe000", "0x7fffffffd000", "0x7fffffffe000", "0x7ffffffff000",
  "0x800000000000", "0xfebf0000", "0x20000000000000", "0x1fffffffffffff", "0x8000000000000000",
  "0xffffffffffffffff", "0xfffffffffffff000", "0xffffffffffffff9c", "0x7fffffffffffffff",
}
for i, text in ipairs(VALUES) do
  VALUES[i] = luna.u64(text:find "^0x" and text or tonumber(text))
end

local NAMES = {}
for name in pairs(calls.answers) do NAMES[#NAMES + 1] = name end
table.sort(NAMES)

local function new_process()
  return helper.keep(luna.process({ bytes = programs.program("again: syscall\n jmp again\n"
    .. "times 0x1000 db 0\n db '/file', 0\n times 0x4000 db 0x40"), name = "random" }, {
    memory = "4M", log = silent, stdout = silent, stderr = silent, stdin = "input",
    files = { ["/file"] = "contents" }, terminal = true }))
end

-- What arguments point to: some of the same values.
local function scatter(random, process)
  for at = 0x402000, 0x403000, 8 * (1 + random(8)) do
    pcall(process.cpu.u64, process.cpu, at, VALUES[random(#VALUES) + 1])
  end
end

helper.kvm("system calls with random arguments", function()
  it("raise no errors", function()
    local random, process = chance.new(seed), new_process()
    local ends = 0
    for round = 1, CALLS do
      local name = NAMES[random(#NAMES) + 1]
      local cpu, shown = process.cpu, {}
      if round % 32 == 0 then scatter(random, process) end
      cpu.rip, cpu.rsp, cpu.rax = 0x401000, 0x404000, numbers.numbers[name]
      for i, register in ipairs(REGISTERS) do
        cpu[register] = VALUES[random(#VALUES) + 1]
        shown[i] = luna.hex(cpu[register])
      end
      local ok, ending = pcall(process.run, process, { max_exits = 1, timeout = 20 })
      local where = ("LUNA_SEED=%d, call %d: %s(%s): %s"):format(seed, round, name,
        table.concat(shown, ", "), tostring(ending))
      assert.is_true(ok, where)
      assert.is_truthy(process.ending or ending.kind == "stopped", where)
      if process.ending then
        ends = ends + 1
        process:close()
        process = new_process()
      end
    end
    assert.is_true(ends < CALLS / 2, ends)
  end)
end)
