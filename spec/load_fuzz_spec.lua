-- SPDX-License-Identifier: MIT
-- Damaged images of every format: luna.load gives an image, or nil, a message and a code, and
-- nothing raises; what is refused leaves memory as it was. LUNA_SEED repeats a run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local le32, le64 = image.le32, image.le64

local seed = tonumber(os.getenv "LUNA_SEED" or "") or 1 + os.time() % 1000000
local ROUNDS = helper.stressed and 20 or 400

-- A generator of our own: the same numbers on both engines.
local state = seed
local function random(n)
  state = state * 48271 % 2147483647
  return math.floor(state / 2147483647 * n)
end

local hlt = ("\xf4"):rep(64)
local options = { command = "a b", modules = { { bytes = "module", command = "c" } } }
local symbols = { { name = "main", value = 0x100000, size = 4 }, { name = "b", value = 7 } }

local function elf(bits, more)
  local all = { bits = bits, entry = 0x100000, symbols = symbols,
    segments = { { data = hlt, vaddr = 0x100000, memsz = 0x2000 } } }
  for name, value in pairs(more or {}) do all[name] = value end
  return image.elf(all)
end

local relocatable = image.elf { type = 3, entry = 0, symbols = symbols, segments = {
  { data = hlt, vaddr = 0 }, { data = le64(0) .. le64(8) .. le64(0x40), vaddr = 0x1000 },
  { data = le64(7) .. le64(0x1000) .. le64(8) .. le64(24) .. le64(0) .. le64(0),
    type = "dynamic" } } }

-- What is damaged: the images, the options, how many bytes from the begin have the fields.
local images = {
  elf32 = { elf(32), {}, 0x100 },
  elf64 = { elf(64), {}, 0x100 },
  pie = { relocatable, { address = 0x100000 }, 0x1200 },
  multiboot = { elf(32, { front = image.multiboot(3) }), options, 0x100 },
  multiboot_flat = { image.multiboot(0x10000, le32(0x100000) .. le32(0x100000) .. le32(0)
    .. le32(0x101000) .. le32(0x100020)) .. hlt, options, 0x20 },
  multiboot2 = { elf(32, { front = image.multiboot2(image.tag(1, le32(6)) .. image.tag(5,
    le32(1) .. le32(2) .. le32(32), true)) }), options, 0x100 },
  pvh = { elf(64, { segments = { { data = hlt, vaddr = 0x100000 },
    { data = image.note("Xen\0", 18, le32(0x100000)), type = "note" } } }), options, 0x1060 },
  linux = { image.linux(hlt .. ("\x90"):rep(0x300)), { command = "a", initrd = { bytes = "i" } },
    0x270 },
  linux_real = { image.linux(hlt), { command = "a", mode = "real" }, 0x270 },
  bios = { ("\0"):rep(0xfff0) .. "\xea" .. ("\0"):rep(15), {}, 0x10000 },
  disk = { ("\0"):rep(510) .. "\x55\xaa", {}, 512 },
}

-- Some bytes changed, most in the fields; or cut; or longer.
local function damage(bytes, fields)
  for _ = 1, 1 + random(4) do
    local kind = random(10)
    local at = random(kind < 8 and math.min(fields, #bytes) or #bytes)
    if kind == 9 then
      bytes = bytes:sub(1, at)
      if #bytes == 0 then return bytes end
    elseif kind < 5 then
      bytes = image.patch(bytes, at, string.char(random(256)))
    else
      local word = random(2) == 0 and le32(random(2 ^ 31)) or "\xff\xff\xff\xff"
      bytes = image.patch(bytes, at, word):sub(1, #bytes)
    end
  end
  return bytes
end

local names = {}
for name in pairs(images) do names[#names + 1] = name end
table.sort(names) -- what a kind draws depends on those before it

helper.kvm("damaged images", function()
  for _, name in ipairs(names) do
    local one = images[name]
    it("of the kind " .. name .. " are loaded or refused", function()
      local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "2M")
      assert(vm.default:map(ram, 0))
      local empty, loads, refusals = ram:read(0, 0x200000), 0, 0
      assert(luna.load(vm, { bytes = one[1] }, one[2]))
      for region, found in ipairs(vm.default:regions()) do
        if region > 1 then vm.default:unmap(found.gpa, found.size) end
      end
      ram:fill(0)
      for round = 1, ROUNDS do
        local bytes = damage(one[1], one[3])
        local ok, loaded, message, code = pcall(luna.load, vm, { bytes = bytes }, one[2])
        local where = ("LUNA_SEED=%d, %s, round %d: %s"):format(seed, name, round,
          tostring(ok and message or loaded))
        assert.is_true(ok, where)
        if loaded then
          loads = loads + 1
          for _, buffer in ipairs(loaded.buffers) do buffer:close() end
          for region, found in ipairs(vm.default:regions()) do
            if region > 1 then vm.default:unmap(found.gpa, found.size) end
          end
          ram:fill(0)
        else
          refusals = refusals + 1
          assert.matches("^luna%.load: bytes: .", message, where)
          assert.is_truthy(({ format = 1, unsupported = 1, not_found = 1, busy = 1 })[code], where)
          if round % 16 == 0 then assert.is_true(empty == ram:read(0, 0x200000), where) end
        end
      end
      assert.is_true(refusals > 0, "nothing was refused")
    end)
  end
end)
