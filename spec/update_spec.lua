-- SPDX-License-Identifier: MIT
-- Many changes as one, protect, and that a map has the fewest slots that it can have.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local function with_buffer(size)
  local vm = helper.keep(luna.vm())
  return vm.default, helper.keep(luna.buffer(size or "64K")), vm
end

-- The regions as text: "GPA+SIZE OFFSET RIGHTS ENFORCED FLAGS".
local function shape(space)
  local list = {}
  for i, region in ipairs(space:regions()) do
    list[i] = ("%x+%x %x %s %s%s%s"):format(region.gpa, region.size, region.offset, region.rights,
      region.enforced, region.strict and " strict" or "", region.separate and " separate" or "")
  end
  return list
end

-- The slots as text: "GPA+SIZE", with " ro".
local function slots(space)
  local list = {}
  for i, slot in ipairs(space:slots()) do
    list[i] = ("%x+%x%s"):format(slot.gpa, slot.size, slot.read_only and " ro" or "")
  end
  return list
end

local function numbers(space)
  local list = {}
  for i, slot in ipairs(space:slots()) do list[i] = slot.slot end
  return list
end

helper.kvm("space:update", function()
  it("makes many changes of every kind", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, { size = 0x8000 }))
    assert.is_true(space:update(function(update)
      update:unmap(0x1000, 0x1000)
      update:protect(0x4000, 0x2000, "r-x")
      update:map(ram, 0x8000, 0x20000, 0x2000, "rw-", { strict = true })
      update:map(ram, 0x1000, { size = 0x1000, offset = 0x9000, rights = "---" })
    end))
    assert.same({ "0+1000 0 rwx rwx", "1000+1000 9000 --- ---", "2000+2000 2000 rwx rwx",
      "4000+2000 4000 r-x r-x", "6000+2000 6000 rwx rwx", "20000+2000 8000 rw- rw- strict" },
      shape(space))
  end)

  it("makes them in their order", function()
    local space, ram = with_buffer()
    assert(space:update(function(update)
      update:map(ram, 0, { size = 0x4000 })
      update:unmap(0x1000, 0x1000)
      update:map(ram, 0x8000, 0x1000, 0x1000, "r-x")
      update:protect(0x1000, 0x2000, "---")
      update:unmap(0x3000, 0x1000)
    end))
    assert.same({ "0+1000 0 rwx rwx", "1000+1000 8000 --- ---", "2000+1000 2000 --- ---" },
      shape(space))
  end)

  it("of nothing is nothing", function()
    local space = with_buffer()
    assert.is_true(space:update(function() end))
    assert.same({}, shape(space))
  end)

  local bad = {
    { "an overlap", "is mapped already", function(update, ram) update:map(ram, 0x1000) end },
    { "a hole to unmap", "nothing is mapped at 0x40000",
      function(update) update:unmap(0x40000, 0x1000) end },
    { "a hole to protect", "nothing is mapped at 0x8000",
      function(update) update:protect(0x7000, 0x2000, "r-x") end },
    { "an unaligned gpa", "not a multiple of the page size",
      function(update) update:unmap(0x10, 0x1000) end },
    { "a range past the buffer", "the buffer has 0x10000",
      function(update, ram) update:map(ram, 0xf000, 0x100000, 0x2000, "rwx") end },
    { "a hole that the update itself made", "nothing is mapped at 0x2000",
      function(update) update:protect(0x2000, 0x1000, "r-x") end },
  }
  for _, case in ipairs(bad) do
    it("leaves everything where the third change is " .. case[1], function()
      local space, ram = with_buffer()
      assert(space:map(ram, 0, { size = 0x8000 }))
      assert(space:protect(0x3000, 0x1000, "r-x"))
      local before, before_numbers = tostring(space), numbers(space)
      raises(case[2], function()
        space:update(function(update)
          update:unmap(0x2000, 0x1000)
          update:map(ram, 0x8000, 0x20000, 0x1000, "rwx")
          case[3](update, ram)
          update:unmap(0x5000, 0x1000)
        end)
      end)
      assert.equal(before, tostring(space))
      assert.same(before_numbers, numbers(space))
      assert(space:unmap(0, 0x8000))
      assert.same({}, shape(space))
    end)
  end

  it("returns what KVM cannot, and leaves everything", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, { size = 0x8000 }))
    helper.refused("unsupported", "execute without read", space:update(function(update)
      update:unmap(0, 0x1000)
      update:protect(0x4000, 0x1000, "--x")
    end))
    assert.same({ "0+8000 0 rwx rwx" }, shape(space))
  end)

  it("changes nothing where its function raises", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, { size = 0x8000 }))
    local ok, message = pcall(space.update, space, function(update)
      update:unmap(0, 0x8000)
      error("changed my mind", 0)
    end)
    assert.same({ false, "changed my mind" }, { ok, message })
    assert.same({ "0+8000 0 rwx rwx" }, shape(space))
  end)

  it("blames the line of a mistake in its arguments", function()
    local space, ram = with_buffer()
    raises("update:map: rights", function()
      space:update(function(update) update:map(ram, 0, 0x1000, "rw") end)
    end)
    raises("update:unmap: gpa: a whole number", function()
      space:update(function(update) update:unmap(-1, 0x1000) end)
    end)
    raises("space:update: a function expected, got nil", function() space:update() end)
  end)

  it("keeps the slots that it does not change", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, 0x0, 0x1000, "rwx"))
    assert(space:map(ram, 0x2000, 0x2000, 0x1000, "rwx"))
    assert(space:map(ram, 0x4000, 0x4000, 0x1000, "rwx"))
    local before = numbers(space)
    assert(space:update(function(update)
      update:unmap(0x2000, 0x1000)
      update:map(ram, 0x2000, 0x2000, 0x1000, "rwx")
      update:protect(0x4000, 0x1000, "---")
      update:protect(0x4000, 0x1000, "rw-")
      update:protect(0x4000, 0x1000, "rwx")
    end))
    assert.same(before, numbers(space))
  end)

  it("is seen by the guest as a whole", function()
    local guest = helper.guest { mode = "protected", source = [[
      out 0x10, al
      mov al, [0x200000]
      mov ah, [0x201000]
      hlt]] }
    local extra = helper.keep(luna.buffer "8K")
    extra:u8(0, 1)
    extra:u8(0x1000, 2)
    assert(guest.vm.default:map(extra, 0x200000))
    guest.vm:pio(0x10, 1, { write = function()
      guest.vm.default:update(function(update)
        update:unmap(0x200000, 0x2000)
        update:map(extra, 0x1000, 0x200000, 0x1000, "rwx")
        update:map(extra, 0x0000, 0x201000, 0x1000, "rwx")
      end)
    end })
    guest:stops "hlt"
    assert.equal("0x102", luna.hex(guest.cpu.rax))
  end)
end)

helper.kvm("the slots", function()
  it("are one for neighbours that continue each other, in any order of maps", function()
    local orders = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 0, 3, 1, 2 } }
    for _, order in ipairs(orders) do
      local space, ram = with_buffer()
      for _, page in ipairs(order) do
        assert(space:map(ram, 0x1000 * page, 0x10000 + 0x1000 * page, 0x1000, "rwx"))
      end
      assert.same({ "10000+4000" }, slots(space))
    end
  end)

  it("are one each for maps that are kept separate", function()
    local space, ram = with_buffer()
    for page = 0, 3 do
      assert(space:map(ram, 0x1000 * page, 0x1000 * page, 0x1000, "rwx",
        { separate = page % 2 == 0 }))
    end
    assert.same({ "0+1000", "1000+1000", "2000+1000", "3000+1000" }, slots(space))
    assert.is_true(space:find(0).separate)
    assert.is_nil(space:find(0x1000).separate)
  end)

  it("of separate maps stay apart from others of their kind", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, 0, 0x1000, "rwx", { separate = true }))
    local slot = space:find(0).slot
    assert(space:map(ram, 0x1000, 0x1000, 0x1000, "rwx", { separate = true }))
    assert.same({ "0+1000", "1000+1000" }, slots(space))
    assert.equal(slot, space:find(0).slot)
  end)

  it("are split by unmap and one again by map", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0))
    assert(space:unmap(0x4000, 0x2000))
    assert.same({ "0+4000", "6000+a000" }, slots(space))
    assert(space:map(ram, 0x4000, 0x4000, 0x2000, "rwx"))
    assert.same({ "0+10000" }, slots(space))
  end)

  it("are as they were after protect and back", function()
    for _, rights in ipairs { "r-x", "---", "r--", "rw-" } do
      local space, ram = with_buffer()
      assert(space:map(ram, 0))
      assert(space:protect(0x3000, 0x2000, rights))
      assert.same({ "0+3000 0 rwx rwx", ("3000+2000 3000 %s %s"):format(rights,
        space:find(0x3000).enforced), "5000+b000 5000 rwx rwx" }, shape(space))
      assert(space:protect(0x3000, 0x2000, "rwx"))
      assert.same({ "0+10000 0 rwx rwx" }, shape(space))
      assert.same({ "0+10000" }, slots(space))
    end
  end)

  it("stay the same where protect changes only what KVM does not know", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0))
    local before = numbers(space)
    assert(space:protect(0, 0x10000, "rw-"))
    assert.same(before, numbers(space))
    assert.equal("rw-", space:find(0).rights)
  end)

  it("use numbers that are free again", function()
    local space, ram = with_buffer()
    local highest = 0
    for round = 1, 50 do
      for page = 0, 3 do
        assert(space:map(ram, 0, 0x2000 * page, 0x1000, round % 2 == 0 and "rwx" or "r-x"))
      end
      for _, slot in ipairs(numbers(space)) do highest = math.max(highest, slot) end
      assert(space:unmap(0, 0x1000))
      for page = 1, 3 do assert(space:unmap(0x2000 * page, 0x1000)) end
    end
    assert.truthy(highest < 8, highest)
  end)

  it("are none for no rights and for strict rights that KVM has not", function()
    local space, ram = with_buffer()
    for i, rights in ipairs { "---", "r--", "-w-", "rw-" } do
      assert(space:map(ram, 0, 0x2000 * i, 0x1000, rights, { strict = true }))
    end
    assert.same({}, slots(space))
    assert.equal(4, #space:regions())
  end)

  it("are read-only where nothing may be written", function()
    local space, ram = with_buffer()
    for i, rights in ipairs { "r--", "r-x", "rw-", "-w-" } do
      assert(space:map(ram, 0, 0x2000 * i, 0x1000, rights))
    end
    assert.same({ "2000+1000 ro", "4000+1000 ro", "6000+1000", "8000+1000" }, slots(space))
  end)
end)

helper.kvm("space:protect", function()
  it("spans regions and splits those at its ends", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, 0, 0x2000, "rwx"))
    assert(space:map(ram, 0x4000, 0x2000, 0x2000, "r-x"))
    assert(space:map(ram, 0x8000, 0x4000, 0x2000, "---"))
    assert.is_true(space:protect(0x1000, "16K", "rw-"))
    assert.same({ "0+1000 0 rwx rwx", "1000+1000 1000 rw- rwx", "2000+2000 4000 rw- rwx",
      "4000+1000 8000 rw- rwx", "5000+1000 9000 --- ---" }, shape(space))
  end)

  it("joins what it makes alike", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, 0, 0x2000, "rwx"))
    assert(space:map(ram, 0x2000, 0x2000, 0x2000, "r-x"))
    assert(space:protect(0x2000, 0x2000, "rwx"))
    assert.same({ "0+4000 0 rwx rwx" }, shape(space))
  end)

  it("sets and clears strict, and keeps separate", function()
    local space, ram = with_buffer()
    assert(space:map(ram, 0, { separate = true }))
    assert(space:protect(0, 0x10000, "rw-", { strict = true }))
    assert.same({ "0+10000 0 rw- rw- strict separate" }, shape(space))
    assert(space:protect(0, 0x10000, "rw-"))
    assert.same({ "0+10000 0 rw- rwx separate" }, shape(space))
  end)

  it("names the hole and changes nothing", function()
    local space, ram, vm = with_buffer()
    assert(space:map(ram, 0, 0x1000, 0x2000, "rwx"))
    assert(space:map(ram, 0x4000, 0x4000, 0x1000, "rwx"))
    raises("cannot protect gpa 0x1000..0x4fff of space 0: nothing is mapped at 0x3000",
      function() space:protect(0x1000, 0x4000, "r-x") end)
    raises("nothing is mapped at 0x0", function() space:protect(0, 0x2000, "r-x") end)
    raises("nothing is mapped at 0x5000",
      function() vm:protect_space(0, 0x4000, 0x2000, "r-x") end)
    raises("cannot protect gpa 0x1800", function() space:protect(0x1800, 0x1000, "r-x") end)
    raises("cannot protect 0x0 bytes", function() space:protect(0x1000, 0, "r-x") end)
    raises("space:protect: rights", function() space:protect(0x1000, 0x1000, "rw") end)
    raises("space:protect: unknown option 'separate'",
      function() space:protect(0x1000, 0x1000, "rwx", { separate = true }) end)
    assert.same({ "1000+2000 0 rwx rwx", "4000+1000 4000 rwx rwx" }, shape(space))
  end)

  it("counts for a guest that runs on", function()
    local guest = helper.guest { mode = "protected", source = [[
      again:
      mov byte [0x3000], 1
      hlt
      jmp again]] }
    guest:stops "hlt"
    assert(guest.vm.default:protect(0x3000, 0x1000, "r-x"))
    assert.same({ "w", 0x3000 }, { guest:stops("fault").access, guest.cpu:run().gpa })
    guest.cpu:answer()
    guest:stops "hlt"
    assert(guest.vm.default:protect(0x3000, 0x1000, "rwx"))
    guest.ram:u8(0x3000, 0)
    guest:stops "hlt"
    assert.equal(1, guest.ram:u8(0x3000))
  end)
end)
