-- SPDX-License-Identifier: MIT
-- The memory of a guest through its space: reads and writes over regions, holes, and addresses that
-- a guest says.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, hex = helper.raises, luna.hex
local u64 = luna.u64

helper.kvm("space:read and its neighbours", function()
  local function space_with_hole()
    local space = helper.keep(luna.vm()).default
    local one, two = helper.keep(luna.buffer "8K"), helper.keep(luna.buffer "8K")
    assert(space:map(one, 0x1000, { size = 0x1000 }))
    assert(space:map(two, 0x2000, { size = 0x1000, rights = "---" }))
    assert(space:map(one, 0x3000, { offset = 0x1000, rights = "r--", strict = true }))
    assert(space:map(two, 0x8000, { offset = 0x1000, rights = "r-x" }))
    return space, one, two
  end

  it("reach over regions of any rights", function()
    local space, one, two = space_with_hole()
    local text = ("0123456789abcdef"):rep(0x300)
    assert.is_true(space:write(0x1000, text))
    assert.equal(text, space:read(0x1000, 0x3000))
    assert.equal(text:sub(1, 0x1000), one:read(0, 0x1000))
    assert.equal(text:sub(0x1001, 0x2000), two:read(0, 0x1000))
    assert.equal(text:sub(0x2001), one:read(0x1000, 0x1000))
    space:u64(0x1ffc, u64 "0x1122334455667788")
    assert.same({ 0x55667788, 0x11223344 }, { one:u32(0xffc), two:u32(0) })
    assert.equal("0x1122334455667788", hex(space:u64(0x1ffc)))
    space:u16(0x2fff, 0xbeef)
    assert.same({ 0xef, 0xbe, 0xbeef }, { two:u8(0xfff), one:u8(0x1000), space:u16(0x2fff) })
    space:u32(0x8000, 0xffffffff)
    assert.same({ 0xffffffff, 0xff }, { space:u32(0x8000), space:u8(0x8003) })
    assert.equal("number", type(space:u32(0x8000)))
    assert.equal("", space:read(0x5000, 0))
    assert.is_true(space:write(0x5000, ""))
  end)

  it("name the hole and touch nothing", function()
    local space, one = space_with_hole()
    local holes = {
      { 0x4000, function() return space:read(0x1000, 0x3001) end },
      { 0x0, function() return space:read(0, 0x2000) end },
      { 0x4000, function() return space:write(0x3ffe, "abc") end },
      { 0x9000, function() return space:u64(0x8ffc) end },
      { 0x4000, function() return space:u32(0x3ffd, 0x01020304) end },
      { 0xfff, function() return space:u16(0xfff) end },
      { 0x100000000, function() return space:u8(0x100000000) end },
      { 0x4000, function() return space:read(0x3000, 0x6000) end },
    }
    for _, case in ipairs(holes) do
      local ok, message = pcall(case[2])
      assert.is_false(ok)
      assert.matches(("nothing is mapped at 0x%x$"):format(case[1]), message)
    end
    assert.equal(("\0"):rep(0x2000), one:read(0))
  end)

  it("check what they are given", function()
    local space = space_with_hole()
    raises("space:read: gpa: a whole number", function() local _ = space:read(-1, 1) end)
    raises("space:read: size", function() local _ = space:read(0x1000) end)
    raises("space:write: a string expected, got number", function() space:write(0x1000, 5) end)
    raises("space:u8: value 256 does not fit in 8 bits", function() space:u8(0x1000, 256) end)
    raises("space:u32: value -1 does not fit in 32 bits", function() space:u32(0x1000, -1) end)
    raises("does not fit", function() space:u16(0x1000, 0.5) end)
    raises("does not fit", function() space:u64(0x1000, "x") end)
    raises("space:u8: gpa: a whole number", function() local _ = space:u8 "x" end)
    raises("nothing is mapped at 0x4000", function() space:write(0x4000, "x") end)
  end)
end)

helper.kvm("memory where a guest says where", function()
  local function with_ram()
    local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "64K")
    vm.default:map(ram, 0)
    vm.default:map(ram, 0x20000, { rights = "r-x" })
    ram:write(0xfffc, "last")
    return vm.default, ram
  end

  it("is read and written, whatever the address is made of", function()
    local space, ram = with_ram()
    assert.equal("last", space:try_read(0xfffc, 4))
    assert.equal("last", space:try_read(u64(0xfffc), u64(4)))
    assert.equal("", space:try_read(u64 "0xffffffffffffffff", 0))
    assert.is_true(space:try_write(u64(0x2ffff), "!"))
    assert.is_true(space:try_write(0xfffd, "AS"))
    assert.is_true(space:try_write(u64(0), ""))
    assert.equal("lAS!", ram:read(0xfffc, 4))
  end)

  it("is refused where not all of it is there, and nothing was written", function()
    local space, ram = with_ram()
    for _, gpa in ipairs { 0x10000, 0xfffd, 0x1fffc, 2 ^ 52, 2 ^ 60, 2 ^ 63, 1.5 * 2 ^ 63,
      u64 "0xffffffffffffffff", u64 "0xfffffffffffffffc", u64 "0x8000000000000000" } do
      helper.refused("not_found", "nothing is mapped at", space:try_read(gpa, 4))
      helper.refused("not_found", "nothing is mapped at", space:try_write(gpa, "gone"))
    end
    for _, size in ipairs { 0x10001, 2 ^ 31 - 1, u64(0x10001) } do
      helper.refused("not_found", "nothing is mapped at 0x10000", space:try_read(0, size))
    end
    for _, size in ipairs { 2 ^ 31, 2 ^ 40, u64 "0xffffffffffffffff" } do
      helper.refused("limit", "a string has less than 2 GiB", space:try_read(0, size))
    end
    helper.refused("not_found", "beyond every map", space:try_read(0, 2 ^ 60))
    assert.equal("last", ram:read(0xfffc, 4))
  end)

  it("is still a mistake where it is no number", function()
    local space = with_ram()
    for _, bad in ipairs { 0.5, "0", {}, 0 / 0, 1 / 0, -1 / 0 } do
      raises("space:try_read: gpa: a whole number or u64 expected",
        function() space:try_read(bad, 1) end)
      raises("space:try_read: size: a whole number or u64 expected",
        function() space:try_read(0, bad) end)
      raises("space:try_write: gpa: a whole number or u64 expected",
        function() space:try_write(bad, "") end)
    end
    raises("space:try_write: a string expected, got nil", function() space:try_write(0) end)
    space.vm:close()
    raises("attempt to use a closed vm", function() space:try_read(0, 1) end)
  end)
end)
