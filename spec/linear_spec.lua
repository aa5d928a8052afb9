-- SPDX-License-Identifier: MIT
-- Linear addresses: cpu:translate, cpu:read, cpu:write and cpu:u8 to u64, by the guest's own page
-- tables. The paging modes that not every host can run are tested in spec/core/debug/test_walk.c.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, hex = luna.u64, luna.hex
local ALL, LARGE = 7, 0x80 -- present, writable, user; a page at a higher level

-- A vCPU in mode "long" with 1 MiB of memory, which runs no code.
local function idle(mode)
  return helper.guest { mode = mode or "long", source = "hlt" }
end

-- Tables at 0x20000 that map the 2 MiB from `gva` on with 4 KiB pages, none of them present but
-- those of `pages`, by number.
local function tables(guest, gva, pages)
  local table_gpa = 0x20000
  for level = 4, 2, -1 do
    local index = u64.tonumber(u64.band(u64.rshift(gva, 12 + 9 * (level - 1)), 511))
    guest.ram:u64(table_gpa + 8 * index, table_gpa + 0x1000 + ALL)
    table_gpa = table_gpa + 0x1000
  end
  for number, entry in pairs(pages) do guest.ram:u64(table_gpa + 8 * number, entry) end
  guest.cpu.cr3 = 0x20000
end

local HIGH = u64 "0xffffffff80000000"

helper.kvm("cpu:translate", function()
  it("has nothing to walk without paging", function()
    local cpu = idle("real").cpu
    local walk = cpu:translate(0x12345)
    assert.same({ true, 0x12345, 2 ^ 32, "rwx", true, "none", {} },
      { walk.present, walk.gpa, walk.size, walk.rights, walk.user, walk.paging, walk.entries })
    assert.equal("gva 0x12345 -> gpa 0x12345, no paging", tostring(walk))
  end)

  it("walks the tables of the library's modes", function()
    local guest = idle()
    local walk = guest.cpu:translate(0x212345)
    assert.same({ true, 0x212345, 2 ^ 21, "rwx", true, "4-level" },
      { walk.present, walk.gpa, walk.size, walk.rights, walk.user, walk.paging })
    assert.equal(hex(0x212345), hex(walk.gva))
    assert.equal(3, #walk.entries)
    assert.equal(u64.tonumber(guest.cpu.cr3), walk.entries[1].gpa)
    for _, entry in ipairs(walk.entries) do
      assert.equal(hex(guest.vm.default:u64(entry.gpa)), hex(entry.value))
    end
    assert.equal("gva 0x212345 -> gpa 0x212345, rwx user, 2M page, 4-level paging", tostring(walk))
  end)

  it("counts a CR3 that was just written", function()
    local guest = idle()
    tables(guest, HIGH, { [0] = 0x5000 + ALL, [1] = 0x6001, [2] = u64 "0x8000000000007005" })
    local function shown(gva) return tostring(guest.cpu:translate(gva)) end
    assert.equal("gva 0xffffffff80000123 -> gpa 0x5123, rwx user, 4K page, 4-level paging",
      shown(HIGH + u64(0x123)))
    assert.equal("gva 0xffffffff80001000 -> gpa 0x6000, r-x, 4K page, 4-level paging",
      shown(HIGH + u64(0x1000)))
    assert.equal("gva 0xffffffff80002000 -> gpa 0x7000, r-- user, 4K page, 4-level paging",
      shown(HIGH + u64(0x2000)))
  end)

  it("says where an address leads nowhere", function()
    local guest = idle()
    tables(guest, HIGH, {})
    local walk = guest.cpu:translate(HIGH)
    assert.same({ false, 1, false, 4 },
      { walk.present, walk.missing, walk.reserved, #walk.entries })
    assert.is_nil(walk.gpa)
    assert.is_nil(walk.rights)
    assert.equal("gva 0xffffffff80000000 leads nowhere: the level 1 entry 0x0 at gpa 0x23000 is "
      .. "not present, 4-level paging", tostring(walk))
    assert.equal(4, guest.cpu:translate(0x1000).missing)
    guest.ram:u64(0x20000, 0x21000 + ALL + LARGE)
    walk = guest.cpu:translate(0x1000)
    assert.same({ 4, true }, { walk.missing, walk.reserved })
    helper.contains("entry 0x21087 at gpa 0x20000 has a reserved bit set", tostring(walk))
  end)

  it("is refused where a table lies in unmapped memory", function()
    local cpu = idle().cpu
    cpu.cr3 = 0x40000000
    helper.refused("not_found", "its level 4 table entry, at gpa 0x40000000 of space 0, lies where "
      .. "nothing is mapped", cpu:translate(0))
  end)

  it("goes by the CPUID of the vCPU", function()
    local guest = idle()
    local cpu, ram = guest.cpu, guest.ram
    cpu.cpuid[0x80000008] = { eax = 0x3024 } -- 36 bits
    ram:u64(0x20000, 0x21003)
    ram:u64(0x21000, 0x22003)
    ram:u64(0x21008, 0x83) -- a 1-GiB page
    ram:u64(0x22000, u64 "0x1000000083")
    cpu.cr3 = 0x20000
    local walk = cpu:translate(0x1000)
    assert.same({ false, 2, true }, { walk.present, walk.missing, walk.reserved })
    local leaf = cpu.cpuid[0x80000001]
    cpu.cpuid[0x80000001] = { eax = leaf.eax, ebx = leaf.ebx, ecx = leaf.ecx,
      edx = u64.tonumber(u64.band(leaf.edx, 0xfbffffff)) }
    walk = cpu:translate(0x40000000)
    assert.same({ false, 3, true }, { walk.present, walk.missing, walk.reserved })
  end)

  it("says that what is no address leads nowhere", function()
    local cpu, real = idle().cpu, idle("real").cpu
    local walk = cpu:translate(u64 "0x800000000000")
    assert.same({ present = false, entries = {} }, { present = walk.present,
      entries = walk.entries, missing = walk.missing })
    assert.equal("gva 0x800000000000 leads nowhere: it is not canonical, 4-level paging",
      tostring(walk))
    assert.equal("gva 0x100000000 leads nowhere: it is above 4 GiB, no paging",
      tostring(real:translate(2 ^ 32)))
    helper.raises("is not canonical", function() cpu:read(u64 "0x800000000000", 1) end)
  end)

  it("refuses what is no address", function()
    local cpu = idle().cpu
    helper.raises("cpu:translate: gva: an integer expected, got nil",
      function() cpu:translate() end)
    helper.raises("an integer expected, got 1.5", function() cpu:translate(1.5) end)
    cpu:close()
    helper.raises("attempt to use a closed vcpu", function() cpu:translate(0) end)
  end)

  -- The same tables under the processor: what it reads at each address is what the walk finds.
  for _, mode in ipairs { "long", "user" } do
    it("finds what the guest finds in mode " .. mode, function()
      local guest = helper.guest { mode = mode, size = "2M", source = [[
        mov rsi, 0x40000ff8
        mov ecx, 4
      next:
        mov eax, [rsi]
        out 0x10, eax
        add rsi, 0x1000
        dec ecx
        jnz next
        mov eax, [rsi]
        out 0x10, eax]] }
      local cpu, ram = guest.cpu, guest.ram
      -- Further tables behind the library's own, which map 4 GiB: 0x40000000 gets 4 KiB pages.
      local pd = cpu:translate(0x40000000).entries[3].gpa
      guest.vm.default:u64(pd, 0x20000 + ALL)
      for page = 0, 3 do
        ram:u64(0x20000 + 8 * page, 0x100000 + 0x1000 * (3 - page) + ALL)
        ram:u32(0x100ff8 + 0x1000 * page, 0x11110000 + page)
      end
      local seen = {}
      guest.vm:pio(0x10, 4, { write = function(_, _, _, value) seen[#seen + 1] = value end })
      local exit = guest:stops "exception"
      assert.same({ 0x11110003, 0x11110002, 0x11110001, 0x11110000 }, seen)
      for page = 0, 3 do
        local gva = 0x40000ff8 + 0x1000 * page
        assert.equal(0x100ff8 + 0x1000 * (3 - page), cpu:translate(gva).gpa)
        assert.equal(seen[page + 1], cpu:u32(gva))
      end
      assert.same({ "#PF", hex(0x40004ff8) }, { exit.name, hex(exit.address) })
      assert.equal(1, cpu:translate(exit.address).missing)
    end)
  end
end)

helper.kvm("memory at linear addresses", function()
  local function mapped()
    local guest = idle()
    tables(guest, HIGH, { [0] = 0x5000 + ALL, [1] = 0x3001, [2] = 0x4001 })
    return guest, guest.cpu
  end

  it("is read and written across pages, whatever the rights", function()
    local guest, cpu = mapped()
    local data = ("0123456789abcdef"):rep(300)
    cpu:write(HIGH + u64(0xff8), data)
    assert.equal(data:sub(1, 8), guest.ram:read(0x5ff8, 8))
    assert.equal(data:sub(9, 9 + 0xfff), guest.ram:read(0x3000, 0x1000))
    assert.equal(data:sub(9 + 0x1000), guest.ram:read(0x4000, #data - 0x1008))
    assert.equal(data, cpu:read(HIGH + u64(0xff8), #data))
    assert.equal("", cpu:read(0x1000, 0))
    assert.is_true(cpu:write(0x1000, ""))
  end)

  it("is read and written as integers", function()
    local guest, cpu = mapped()
    local edge = HIGH + u64(0xffe)
    cpu:u64(edge, u64 "0x1122334455667788")
    assert.equal("0x1122334455667788", hex(cpu:u64(edge)))
    assert.equal(0x7788, guest.ram:u16(0x5ffe))
    assert.equal(0x33445566, guest.ram:u32(0x3000))
    assert.same({ 0x88, 0x7788, 0x55667788 }, { cpu:u8(edge), cpu:u16(edge), cpu:u32(edge) })
    cpu:u8(edge, 1)
    cpu:u16(edge + u64(1), 0x0302)
    cpu:u32(edge + u64(3), 0x07060504)
    assert.equal("0x1107060504030201", hex(cpu:u64(edge)))
    helper.raises("cpu:u16: value 65536 does not fit in 16 bits",
      function() cpu:u16(edge, 65536) end)
    helper.raises("cpu:u8: gva: an integer expected, got x", function() cpu:u8 "x" end)
  end)

  it("is written in whole or not at all", function()
    local guest, cpu = mapped()
    helper.raises("linear address 0xffffffff80003000 leads nowhere: the level 1 entry 0x0",
      function() cpu:write(HIGH + u64(0x2ffc), "12345678") end)
    assert.equal(0, guest.ram:u32(0x4ffc))
    helper.raises("0xffffffff80003000", function() cpu:read(HIGH + u64(0x2ffc), 5) end)
    helper.raises("0xffffffff80003000", function() cpu:u64(HIGH + u64(0x2ffc)) end)
    helper.raises("0xffffffff80003000", function() cpu:u64(HIGH + u64(0x2ffc), 0) end)
    helper.raises("cpu:write: a string expected, got number", function() cpu:write(HIGH, 5) end)
    helper.raises("cpu:read: size", function() cpu:read(HIGH, -1) end)
  end)

  it("is that of the space that the vCPU moves to", function()
    local guest = idle "real"
    local other = helper.keep(luna.buffer "64K")
    local view = guest.vm:space()
    view:map(other, 0)
    other:u32(0x100, 0x55555555)
    guest.ram:u32(0x100, 0x44444444)
    assert.equal(0x44444444, guest.cpu:u32(0x100))
    guest.cpu:set_space(view)
    assert.equal(0x55555555, guest.cpu:u32(0x100))
  end)

  it("has no segment bases", function()
    local guest = helper.guest { mode = "reset", source = "hlt" }
    local rom = helper.keep(luna.buffer "64K")
    guest.vm.default:map(rom, 0xffff0000)
    rom:write(0xfff0, "\xeb\xfe")
    local cpu = guest.cpu
    assert.equal("\xeb\xfe", cpu:read(cpu.cs.base + cpu.rip, 2))
  end)
end)
