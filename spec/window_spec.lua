-- SPDX-License-Identifier: MIT
-- Windows: what they show can be changed under the live slot.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, hex = helper.raises, luna.hex

local WINDOW, BANK = 0x200000, 0x2000

-- A buffer of 8 banks that begin with their number.
local function banks(options)
  options = options or { memfd = true }
  if not options.file then options.size = 8 * BANK end
  local rom = helper.keep(luna.buffer(options))
  if not options.read_only then
    for i = 0, 7 do
      rom:u8(i * BANK, 0x10 + i)
      rom:u8(i * BANK + 0x1000, 0x90 + i)
    end
  end
  return rom
end

local source = [[
  again:
  mov al, [0x200000]
  mov ah, [0x201000]
  out 0x10, al
  jmp again]]

local function with_window(mode, rights)
  local guest = helper.guest { mode = mode or "protected", source = source }
  local rom = banks()
  assert(guest.vm.default:map(rom, WINDOW, { size = BANK, rights = rights, window = true }))
  return guest, rom, guest.vm.default
end

local function sees(guest)
  guest:stops "pio"
  guest.cpu:answer()
  return hex(guest.cpu.rax)
end

helper.kvm("a window", function()
  for _, mode in ipairs { "protected", "user" } do
    it("shows another bank at once, with the same slot, in mode " .. mode, function()
      local guest, rom, space = with_window(mode)
      local slot = space:find(WINDOW).slot
      assert.equal("0x9010", sees(guest))
      for _, bank in ipairs { 3, 7, 0, 5, 5 } do
        assert.is_true(space:remap(WINDOW, rom, bank * BANK))
        assert.equal(hex(0x9010 + 0x101 * bank), sees(guest))
        local region = space:find(WINDOW)
        assert.same({ slot, bank * BANK, true, BANK },
          { region.slot, region.offset, region.window, region.size })
        assert.equal(rom, region.buffer)
      end
    end)
  end

  it("can be switched by the guest through a port", function()
    local guest = helper.guest { mode = "protected", source = [[
      mov edi, 0x3000
      xor ecx, ecx
      next:
      mov al, cl
      out 0x20, al
      mov al, [0x200000]
      stosb
      inc ecx
      cmp ecx, 8
      jb next
      hlt]] }
    local rom = banks()
    assert(guest.vm.default:map(rom, WINDOW, { size = BANK, window = true, rights = "r-x" }))
    guest.vm:pio(0x20, 1, { write = function(_, _, _, bank)
      guest.vm.default:remap(WINDOW, rom, bank * BANK)
    end })
    guest:stops "hlt"
    assert.equal("\x10\x11\x12\x13\x14\x15\x16\x17", guest.ram:read(0x3000, 8))
  end)

  it("shares its bytes with the buffer, both ways", function()
    local guest = helper.guest { mode = "protected", source = [[
      mov byte [0x200010], 0x77
      mov al, [0x200011]
      hlt]] }
    local rom = banks()
    assert(guest.vm.default:map(rom, WINDOW, { size = BANK, window = true }))
    guest.vm.default:remap(WINDOW, rom, 2 * BANK)
    rom:u8(2 * BANK + 0x11, 0x55)
    guest:stops "hlt"
    assert.same({ 0x77, "0x55" }, { rom:u8(2 * BANK + 0x10), hex(guest.cpu.rax) })
    assert.equal(0, rom:u8(0x10))
    assert.equal(0x77, guest.vm.default:u8(WINDOW + 0x10))
    guest.vm.default:write(WINDOW + 0x20, "xyz")
    assert.equal("xyz", rom:read(2 * BANK + 0x20, 3))
  end)

  it("shows another buffer, and lets the first one go", function()
    local guest, rom, space = with_window()
    local other = banks()
    other:u8(0, 0xaa)
    assert(space:remap(WINDOW, other))
    assert.equal("0x90aa", sees(guest))
    assert.equal(other, space:find(WINDOW).buffer)
    local before = luna.live().buffer
    rom:close()
    assert.equal(before - 1, luna.live().buffer)
    other:close()
    assert.equal(before - 1, luna.live().buffer) -- the window holds it
    assert.equal("0x90aa", sees(guest))
  end)

  it("shows a view from its own offset", function()
    local guest, rom, space = with_window()
    local view = helper.keep(rom:view(2 * BANK, 4 * BANK))
    assert(space:remap(WINDOW, view, BANK))
    assert.equal("0x9313", sees(guest))
    assert.equal(3 * BANK, space:find(WINDOW).offset)
    raises("the buffer has 0x8000", function() space:remap(WINDOW, view, 4 * BANK) end)
  end)

  it("can be over a file", function()
    local guest = helper.guest { mode = "protected", source = source }
    local text = {}
    for i = 0, 15 do text[i + 1] = string.char(0x40 + i) .. ("\0"):rep(0xfff) end
    local path = helper.file(table.concat(text))
    local file = helper.keep(luna.buffer { file = path })
    assert(guest.vm.default:map(file, WINDOW, { size = BANK, window = true }))
    assert.equal("0x4140", sees(guest))
    guest.vm.default:remap(WINDOW, file, 0x6000)
    assert.equal("0x4746", sees(guest))
  end)

  it("shows the file behind its offset", function()
    local guest = helper.guest { mode = "protected", source = source }
    local text = {}
    for i = 0, 15 do text[i + 1] = string.char(0x40 + i) .. ("\0"):rep(0xfff) end
    local path = helper.file(table.concat(text))
    local file = helper.keep(luna.buffer { file = path, offset = 0x4000 })
    assert(guest.vm.default:map(file, WINDOW, { size = BANK, window = true }))
    assert.equal("0x4544", sees(guest))
    guest.vm.default:remap(WINDOW, file, 0x1000)
    assert.equal("0x4645", sees(guest))
  end)

  it("can be strict", function()
    local guest, rom, space = with_window("protected", "rwx")
    assert(space:protect(WINDOW, BANK, "r--", { strict = true }))
    assert.equal("0x9010", sees(guest))
    assert(space:remap(WINDOW, rom, 4 * BANK))
    assert.equal("0x9414", sees(guest))
    assert.is_nil(space:find(WINDOW).slot)
  end)

  it("is a window of its own in each space", function()
    local guest, rom, space = with_window()
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    assert(view:map(rom, WINDOW, { size = BANK, window = true }))
    assert(view:remap(WINDOW, rom, 6 * BANK))
    assert.equal("0x9010", sees(guest))
    guest.cpu:set_space(view)
    assert.equal("0x9616", sees(guest))
    assert(space:remap(WINDOW, rom, 5 * BANK))
    guest.cpu:set_space(0)
    assert.equal("0x9515", sees(guest))
  end)
end)

helper.kvm("windows side by side", function()
  -- In either order of maps, so that the host's addresses continue each other in one of them.
  for _, order in ipairs { { 0, 1, 2, 3 }, { 3, 2, 1, 0 } } do
    it(("stay windows of their own, mapped from %d on"):format(order[1]), function()
      local guest = helper.guest { mode = "protected", source = [[
        mov al, [0x200000]
        mov ah, [0x201000]
        shl eax, 16
        mov al, [0x202000]
        mov ah, [0x203000]
        hlt]] }
      local rom, space = helper.keep(luna.buffer { size = "16K", memfd = true }), guest.vm.default
      for page = 0, 3 do rom:u8(0x1000 * page, 0x20 + page) end
      for _, page in ipairs(order) do
        assert(space:map(rom, 0x1000 * page, WINDOW + 0x1000 * page, 0x1000, "rwx",
          { window = true }))
      end
      assert.equal("\x20", space:read(WINDOW, 1))
      assert.equal("\x23", space:read(WINDOW + 0x3000, 1))
      assert.is_true(space:remap(WINDOW + 0x2000, rom, 0))
      guest:stops "hlt"
      assert.equal("0x21202320", hex(guest.cpu.rax))
    end)
  end
end)

helper.kvm("a window in parts", function()
  it("is split by unmap; each part begins a window", function()
    local guest, rom, space = with_window()
    assert(space:unmap(WINDOW, 0x1000))
    raises("no window begins there", function() space:remap(WINDOW, rom, 0) end)
    assert(space:remap(WINDOW + 0x1000, rom, 3 * BANK))
    assert.equal("\x13", space:read(WINDOW + 0x1000, 1))
    assert.equal(WINDOW, guest:stops("fault").gpa)
    guest.cpu:answer(0)
    assert.equal("0x1300", sees(guest))
  end)

  it("is one again after protect and back", function()
    local guest, rom, space = with_window()
    assert(space:protect(WINDOW + 0x1000, 0x1000, "r-x"))
    assert.equal(0x1000, space:find(WINDOW).size)
    assert(space:protect(WINDOW + 0x1000, 0x1000, "rwx"))
    assert.equal(BANK, space:find(WINDOW).size)
    assert(space:remap(WINDOW, rom, BANK))
    assert.equal("0x9111", sees(guest))
  end)

  it("stays in parts that show what does not continue", function()
    local guest, rom, space = with_window()
    assert(space:protect(WINDOW + 0x1000, 0x1000, "r-x"))
    assert(space:remap(WINDOW + 0x1000, rom, 4 * BANK))
    assert(space:protect(WINDOW + 0x1000, 0x1000, "rwx"))
    assert.equal("0x1410", sees(guest))
    assert.equal(0x1000, space:find(WINDOW).size)
  end)

  it("is gone with unmap, with all that it held", function()
    local guest, rom, space = with_window()
    assert(space:unmap(WINDOW, BANK))
    rom:close()
    assert.equal(2, luna.live().buffer) -- ram and the system area
    assert.equal(WINDOW, guest:stops("fault").gpa)
  end)
end)

helper.kvm("a window is refused", function()
  it("over memory without a descriptor", function()
    local guest = helper.guest { mode = "protected", source = "hlt" }
    local path = helper.file(("x"):rep(0x2000))
    for _, options in ipairs { { size = BANK }, { file = path, private = true } } do
      local extra = helper.keep(luna.buffer(options))
      helper.refused("unsupported",
        "only memfd and shared file buffers can be mapped a second time",
        guest.vm.default:map(extra, WINDOW, { window = true }))
      assert.is_nil(guest.vm.default:find(WINDOW))
    end
  end)

  it("another buffer without one, and stays what it was", function()
    local guest, rom, space = with_window()
    local extra = helper.keep(luna.buffer "64K")
    helper.refused("unsupported", "only memfd and shared file buffers",
      space:remap(WINDOW, extra, 0))
    assert.equal(rom, space:find(WINDOW).buffer)
    assert.equal("0x9010", sees(guest))
  end)

  it("a read-only buffer that it may write", function()
    local _, _, space = with_window()
    local path = helper.file(("x"):rep(0x2000))
    local file = helper.keep(luna.buffer { file = path, read_only = true })
    raises("cannot show read-only buffer", function() space:remap(WINDOW, file) end)
    assert(space:protect(WINDOW, BANK, "r-x"))
    assert(space:remap(WINDOW, file))
    assert.equal("xx", space:read(WINDOW, 2))
    raises("its buffer is read-only", function() space:protect(WINDOW, BANK, "rwx") end)
  end)

  it("what is no window, no buffer or does not fit", function()
    local guest, rom, space = with_window()
    raises("cannot remap gpa 0x0 of space 0: no window begins there",
      function() space:remap(0, rom, 0) end)
    raises("no window begins there", function() space:remap(WINDOW + 0x1000, rom, 0) end)
    raises("no window begins there", function() space:remap(0x10000000, rom, 0) end)
    raises("from offset 0xf000: the buffer has 0x10000",
      function() space:remap(WINDOW, rom, 0xf000) end)
    raises("not a multiple of", function() space:remap(WINDOW, rom, 0x10) end)
    raises("space:remap: buffer: a buffer expected, got nil", function() space:remap(WINDOW) end)
    raises("space:remap: offset", function() space:remap(WINDOW, rom, -1) end)
    raises("space:remap: gpa: a whole number", function() space:remap("x", rom, 0) end)
    local small = helper.keep(luna.buffer { size = "4K", memfd = true })
    raises("the buffer has 0x1000", function() space:remap(WINDOW, small) end)
    rom:close()
    raises("attempt to use a closed buffer", function() space:remap(WINDOW, rom, 0) end)
    assert.equal("0x9010", sees(guest))
  end)
end)
