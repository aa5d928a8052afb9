-- SPDX-License-Identifier: MIT
-- Written pages: by the guest and by the host, in ranges, in several spaces, over edits of the map,
-- and the same by bitmap and by ring.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local BASE = 0x400000

-- The pages as text, counted from BASE: "0 2 3".
local function dirty(space, gpa, size)
  local list = {}
  for page in space:dirty(gpa or BASE, size or 2 ^ 22) do
    list[#list + 1] = ("%d"):format((page - BASE) / 0x1000)
  end
  return table.concat(list, " ")
end

-- Writes a byte to each address of a list at 0x3000 that ends with 0.
local source = [[
  again:
  mov esi, 0x3000
  next:
  mov ebx, [rsi]
  test ebx, ebx
  jz done
  mov byte [rbx], 0x5a
  add esi, 4
  jmp next
  done:
  out 0x10, al
  jmp again]]

local kinds = {
  bitmap = { dirty = "bitmap" },
  ring = { dirty = "ring", dirty_ring = 256 },
}

-- A guest with 64 pages of `data` at BASE in `space`.
local function writer(kind, mode, pages)
  local vm = helper.keep(luna.vm(kinds[kind]))
  local ram, data = helper.keep(luna.buffer "64K"), helper.keep(luna.buffer((pages or 64) * 0x1000))
  local text = source
  if mode == "protected" then text = text:gsub("r([sb][ix])", "e%1") end
  ram:write(0x1000, helper.code(text, mode == "protected" and 32 or 64, 0x1000))
  local space = vm.default
  assert(space:map(ram, 0))
  assert(space:map(data, BASE))
  local cpu = helper.keep(vm:vcpu { mode = mode or "user", rip = 0x1000, rsp = 0x8000 })
  local guest = { vm = vm, ram = ram, data = data, space = space, cpu = cpu }
  function guest.writes(list)
    for i, page in ipairs(list) do
      ram:u32(0x3000 + 4 * (i - 1), BASE + 0x1000 * page + 0x123)
    end
    ram:u32(0x3000 + 4 * #list, 0)
    local exit = assert(cpu:run { timeout = 60 })
    assert.equal("pio", exit.kind, tostring(exit))
    cpu:answer()
  end
  return guest
end

for kind in pairs(kinds) do
  helper.kvm("by " .. kind .. ", space:dirty", function()
    for _, mode in ipairs { "protected", "user" } do
      it("gives what the guest wrote since the last call, in mode " .. mode, function()
        local guest = writer(kind, mode)
        guest.writes { 7 }
        assert.equal("", dirty(guest.space)) -- begins to follow
        guest.writes { 5, 3, 4, 63, 0, 5 }
        assert.equal("0 3 4 5 63", dirty(guest.space))
        assert.equal("", dirty(guest.space))
        guest.writes { 4 }
        assert.equal("4", dirty(guest.space))
        guest.writes {}
        assert.equal("", dirty(guest.space))
        guest.writes { 4, 9 }
        guest.writes { 10 }
        assert.equal("4 9 10", dirty(guest.space))
        assert.equal(0x5a, guest.data:u8(0xa123))
      end)
    end

    it("gives what the host wrote", function()
      local guest = writer(kind)
      local space, data = guest.space, guest.data
      dirty(space)
      data:u8(0x0fff, 1)
      data:u16(0x2fff, 1) -- two pages
      data:u32(0x5000, 1)
      data:u64(0x6ffc, 1)
      assert.equal("0 2 3 5 6 7", dirty(space))
      data:write(0x8ff0, ("x"):rep(0x1020))
      data:fill(1, 0xc000, 0x1001)
      assert.equal("8 9 10 12 13", dirty(space))
      local other = helper.keep(luna.buffer "8K")
      data:copy(0x10800, other, 0, 0x1000)
      space:write(BASE + 0x13fff, "ab")
      space:u32(BASE + 0x16ffe, 5)
      assert.equal("16 17 19 20 22 23", dirty(space))
      local view = helper.keep(data:view(0x1e800, 0x1000))
      view:u8(0x7ff, 1)
      assert.equal("30", dirty(space))
      view:write(0x7ff, "ab")
      view:fill(0, 0xfff, 1)
      assert.equal("30 31", dirty(space))
      data:mark(0x20fff, 2)
      view:mark(0, 1)
      assert.equal("30 32 33", dirty(space))
      data:write(0, "")
      data:fill(0, 0, 0)
      for _ in pairs { data:read(0), data:u32(0), space:read(BASE, 0x1000), data:find "x" } do
        assert(data:compare(0, data) == nil)
      end
      assert.equal("", dirty(space))
      data:fill(0)
      assert.equal(64, select(2, dirty(space):gsub("%d+", "")))
    end)

    it("gives what the core wrote for the guest", function()
      local guest = writer(kind, "protected")
      dirty(guest.space)
      assert(guest.space:protect(BASE + 0x1000, 0x1000, "rw-", { strict = true }))
      guest.writes { 0, 1 }
      assert.equal("0 1", dirty(guest.space))
    end)

    it("takes only the pages of its range", function()
      local guest = writer(kind)
      dirty(guest.space)
      guest.writes { 0, 1, 2, 3, 62 }
      assert.equal("1 2", dirty(guest.space, BASE + 0x1000, 0x2000))
      assert.equal("", dirty(guest.space, BASE + 0x1000, 0x2000))
      assert.equal("3", dirty(guest.space, BASE + 0x3000, 0x1000))
      guest.writes { 2 }
      assert.equal("0 2 62", dirty(guest.space))
    end)

    it("gives what a loop did not come to to the next one", function()
      local guest = writer(kind)
      dirty(guest.space)
      guest.writes { 0, 1, 2, 62 }
      guest.data:u8(0x7000, 1)
      for page in guest.space:dirty(BASE, 2 ^ 22) do
        if page == BASE + 0x1000 then break end
      end
      assert.is_false(pcall(function()
        for _ in guest.space:dirty(BASE, 2 ^ 22) do error "the disk is full" end
      end))
      guest.writes { 9 }
      assert.equal("7 9 62", dirty(guest.space))
      assert.equal("", dirty(guest.space))
    end)

    it("leaves out what the host wrote, if asked to", function()
      local guest = writer(kind, "protected")
      local function written(options)
        local list = {}
        for page in guest.space:dirty(options) do list[#list + 1] = (page - BASE) / 0x1000 end
        return table.concat(list, " ")
      end
      local by_guest = { gpa = BASE, size = 2 ^ 22, host = false }
      written(by_guest)
      assert(guest.space:protect(BASE + 0x3000, 0x1000, "rw-", { strict = true }))
      for _ = 1, 3 do -- a loop that restores does not come back to its own writes
        guest.writes { 1, 2, 3 }
        local pages = {}
        for page in guest.space:dirty(by_guest) do
          guest.space:write(page, ("\0"):rep(0x1000))
          pages[#pages + 1] = (page - BASE) / 0x1000
        end
        assert.same({ 1, 2, 3 }, pages)
        assert.equal("", written(by_guest))
      end
      guest.data:u8(0x8000, 1)
      assert.equal("", written(by_guest))
      assert.equal("1 2 3 8", dirty(guest.space))
      assert.equal("", written { gpa = BASE, size = 2 ^ 22 })
    end)

    it("goes over the whole space and over holes", function()
      local guest = writer(kind)
      for _ in guest.space:dirty() do error "the first call finds nothing" end
      assert(guest.space:unmap(BASE + 0x4000, 0x1000))
      guest.writes { 3, 5 }
      guest.ram:u8(0x9000, 1)
      local seen = {}
      for page in guest.space:dirty() do seen[page] = true end
      assert.same({ true, true, true, true },
        { seen[BASE + 0x3000], seen[BASE + 0x5000], seen[0x9000], seen[0x3000] })
      assert.is_nil(seen[0x4000])
      assert.is_nil(seen[BASE + 0x4000])
    end)

    it("is each space's own", function()
      local guest = writer(kind)
      local view = assert(guest.vm:space())
      assert(view:map(guest.ram, 0))
      assert(view:map(guest.data, BASE, { offset = 0x1000 }))
      dirty(guest.space)
      dirty(view)
      guest.data:u8(0x5000, 1)
      assert.equal("5", dirty(guest.space))
      guest.data:u8(0x6000, 1)
      assert.equal("4 5", dirty(view))
      assert.equal("6", dirty(guest.space))
      guest.writes { 9 }
      assert.equal("9", dirty(guest.space))
      guest.cpu:set_space(view)
      guest.writes { 20 }
      assert.equal("20", dirty(view))
      assert.equal("", dirty(guest.space))
      assert.equal(0x5a, guest.data:u8(0x15123))
    end)

    it("loses nothing over edits of the map", function()
      local guest = writer(kind)
      dirty(guest.space)
      guest.writes { 1, 10, 11, 12, 40 }
      guest.data:u8(0x14000, 1)
      assert(guest.space:protect(BASE + 0xa000, 0x2000, "r-x"))
      assert(guest.space:protect(BASE + 0xb000, 0x1000, "---"))
      assert(guest.space:unmap(BASE + 0x28000, 0x1000))
      assert.equal("1 10 11 12 20", dirty(guest.space))
      guest.writes { 2, 63 }
      assert(guest.space:protect(BASE + 0xa000, 0x2000, "rwx")) -- one region again
      guest.writes { 10 }
      assert(guest.space:map(guest.data, 0x28000, BASE + 0x28000, 0x1000, "rwx"))
      assert.equal(1, select(2, tostring(guest.space):gsub("buffer " .. guest.data.id, "")))
      guest.writes { 40 }
      assert.equal("2 10 40 63", dirty(guest.space))
    end)

    it("loses nothing over an update", function()
      local guest = writer(kind)
      dirty(guest.space)
      guest.writes { 0, 3, 5 }
      guest.data:u8(0x9000, 1)
      assert(guest.space:update(function(update)
        update:protect(BASE, 0x4000, "r-x")
        update:protect(BASE + 0x3000, 0x1000, "rwx")
        update:unmap(BASE + 0x6000, 0x1000)
      end))
      assert.equal("0 3 5 9", dirty(guest.space))
    end)

    it("begins anew for what is mapped later", function()
      local guest = writer(kind)
      dirty(guest.space)
      local late = helper.keep(luna.buffer "16K")
      late:u8(0, 1)
      assert(guest.space:map(late, BASE + 0x40000))
      assert.equal("", dirty(guest.space))
      late:u8(0x1000, 1)
      guest.writes { 66 }
      assert.equal("65 66", dirty(guest.space))
    end)

    it("follows windows", function()
      local guest = writer(kind)
      local rom = helper.keep(luna.buffer { size = "64K", memfd = true })
      assert(guest.space:map(rom, BASE + 0x100000, { size = 0x2000, window = true }))
      dirty(guest.space)
      guest.writes { 256 }
      rom:u8(0x1000, 1)
      rom:u8(0x5000, 1)
      assert.equal("256 257", dirty(guest.space))
      guest.writes { 257 }
      assert(guest.space:remap(BASE + 0x100000, rom, 0x4000))
      rom:u8(0x4000, 1)
      rom:u8(0x1000, 1)
      assert.equal("256 257", dirty(guest.space))
      guest.writes { 257 }
      assert.equal("257", dirty(guest.space))
      assert.equal(0x5a, rom:u8(0x5123))
    end)

    it("has room for more pages than a ring", function()
      local guest = writer(kind, "user", 1024)
      dirty(guest.space)
      local list, expected = {}, {}
      for i = 0, 899 do
        list[i + 1] = i * 7 % 1024
        expected[list[i + 1]] = true
      end
      guest.writes(list)
      local count = 0
      for page in guest.space:dirty(BASE, 2 ^ 22) do
        assert.is_true(expected[(page - BASE) / 0x1000])
        count = count + 1
      end
      assert.equal(900, count)
      assert.equal("", dirty(guest.space))
    end)
  end)
end

helper.kvm("bitmap and ring", function()
  it("give the same for the same program, and what was written", function()
    local random = 12345
    local function roll(n)
      random = (random * 1103515245 + 12345) % 2 ^ 31
      return math.floor(random / 65536) % n
    end
    local guests = { writer("bitmap", "user", 1024), writer("ring", "user", 1024) }
    for _, guest in ipairs(guests) do dirty(guest.space) end
    local written = {}
    for round = 1, 40 do
      local list = {}
      for i = 1, roll(4) == 0 and 600 or roll(30) do
        list[i] = roll(1024)
        written[list[i]] = true
      end
      local host, from, size = roll(1024), roll(1000), 1 + roll(24)
      written[host] = true
      for _, guest in ipairs(guests) do
        guest.writes(list)
        guest.data:u8(0x1000 * host + 5, 1)
        guest.space:protect(BASE + 0x1000 * from, 0x1000 * size, "r-x")
        if round % 3 == 0 then guest.space:protect(BASE, "4M", "rwx") end
      end
      for _, guest in ipairs(guests) do guest.space:protect(BASE, "4M", "rwx") end
      if round % 4 == 0 then
        local expected = {}
        for page = 0, 1023 do
          if written[page] then expected[#expected + 1] = ("%d"):format(page) end
        end
        expected, written = table.concat(expected, " "), {}
        assert.equal(expected, dirty(guests[1].space), "bitmap, round " .. round)
        assert.equal(expected, dirty(guests[2].space), "ring, round " .. round)
      end
    end
  end)
end)

helper.kvm("the arguments of", function()
  it("luna.vm's dirty options are checked", function()
    raises("luna.vm: dirty: 'bitmap' or 'ring' expected, got log",
      function() luna.vm { dirty = "log" } end)
    raises("dirty rings of 3 entries: a power of two is needed",
      function() luna.vm { dirty = "ring", dirty_ring = 3 } end)
    raises("luna.vm: dirty_ring: a whole number from 1", function()
      luna.vm { dirty = "ring", dirty_ring = 0 }
    end)
    helper.refused("unsupported", "dirty rings of 1073741824 entries: this host's KVM allows",
      luna.vm { dirty = "ring", dirty_ring = 2 ^ 30 })
    assert.equal(0, luna.live().vm)
  end)

  it("space:dirty may be a size with a unit", function()
    local guest = writer "bitmap"
    assert.equal("", dirty(guest.space, BASE, "64K"))
    guest.data:fill(1, 0xf000, 0x2000)
    assert.equal("15", dirty(guest.space, BASE, "64K"))
  end)

  it("space:dirty are checked", function()
    local space = helper.keep(luna.vm()).default
    raises("not a multiple of the page size", function() space:dirty(0x10, 0x1000) end)
    raises("the size must be a multiple of", function() space:dirty(0, 0x10) end)
    raises("space:dirty: gpa: a whole number", function() space:dirty(-1, 0x1000) end)
    raises("space:dirty: gpa: a whole number", function() space:dirty("x", 0x1000) end)
    raises("unknown option 'length'", function() space:dirty { length = 1 } end)
    raises("space:dirty: host: true or false", function() space:dirty { host = 1 } end)
    raises("space:dirty: size belongs into the table", function() space:dirty({}, 4096) end)
    raises("space:dirty", function() space:dirty(0, {}) end)
    raises("space:dirty", function() space:dirty(0, "4kb") end)
  end)
end)
