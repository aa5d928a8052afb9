-- SPDX-License-Identifier: MIT
-- Address spaces: mapping, unmapping, what a space shows, and what its rights mean to a guest.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, raises, hex = helper.contains, helper.raises, luna.hex

local function with_buffer(size)
  return helper.keep(luna.vm()), helper.keep(luna.buffer(size or "64K"))
end

-- The regions as text: "GPA+SIZE OFFSET RIGHTS ENFORCED".
local function shape(space)
  local list = {}
  for i, region in ipairs(space:regions()) do
    list[i] = ("%x+%x %x %s %s"):format(region.gpa, region.size, region.offset, region.rights,
      region.enforced)
  end
  return list
end

helper.kvm("mapping", function()
  it("makes a region", function()
    local vm, ram = with_buffer()
    assert.is_true(vm:map_space(0, ram, 0x2000, 0x10000, "8K", "rwx"))
    local regions = vm.default:regions()
    assert.equal(1, #regions)
    local region = regions[1]
    assert.same({ 0x10000, 0x2000, 0x2000, "rwx", "rwx" },
      { region.gpa, region.size, region.offset, region.rights, region.enforced })
    assert.equal(ram, region.buffer)
    assert.equal(ram.id, region.buffer_id)
    assert.equal("number", type(region.slot))
  end)

  it("may leave the offset out", function()
    local vm, ram = with_buffer()
    assert.is_true(vm:map_space(0, ram, 0x10000, 0x2000, "rwx"))
    assert.same({ "10000+2000 0 rwx rwx" }, shape(vm.default))
  end)

  it("takes the space itself for its number, and is a method of it", function()
    local vm, ram = with_buffer()
    assert.is_true(vm:map_space(vm.default, ram, 0, 0, 0x1000, "rwx"))
    assert.is_true(vm.default:map(ram, 0, 0x4000, 0x1000, "rwx"))
    assert.same({ "0+1000 0 rwx rwx", "4000+1000 0 rwx rwx" }, shape(vm.default))
    assert.is_true(vm:unmap_space(vm.default, 0, 0x1000))
    assert.is_true(vm.default:unmap(0x4000, 0x1000))
    assert.same({}, shape(vm.default))
  end)

  it("allows a buffer at several places, and in several VMs", function()
    local guest = helper.guest { source = "mov al, [0x2000]\n inc al\n mov [0x3000], al\n hlt",
      size = "8K" }
    local shared = helper.keep(luna.buffer "4K")
    assert(guest.vm:map_space(0, shared, 0x2000, 0x1000, "rwx"))
    assert(guest.vm:map_space(0, shared, 0x3000, 0x1000, "rwx"))
    local other = helper.keep(luna.vm())
    assert(other:map_space(0, shared, 0, 0x1000, "rwx"))
    shared:u8(0, 0x41)
    guest:stops "hlt"
    assert.equal(0x42, shared:u8(0))
  end)

  it("refuses what is not aligned or nothing", function()
    local vm, ram = with_buffer()
    raises("cannot map gpa 0x800: it is not a multiple of the page size 0x1000",
      function() vm:map_space(0, ram, 0, 0x800, 0x1000, "rwx") end)
    raises("cannot map from offset 0x10 of a buffer: it is not a multiple of the page size 0x1000",
      function() vm:map_space(0, ram, 0x10, 0, 0x1000, "rwx") end)
    raises("cannot map 0x1800 bytes at gpa 0x3000: the size must be a multiple of 0x1000 and not 0",
      function() vm:map_space(0, ram, 0, 0x3000, 0x1800, "rwx") end)
    raises("cannot map 0x0 bytes at gpa 0x3000",
      function() vm:map_space(0, ram, 0, 0x3000, 0, "rwx") end)
    raises("cannot map gpa 0x1: ", function() vm.default:map(ram, 0, 1, 0x1000, "rwx") end)
    assert.same({}, shape(vm.default))
  end)

  it("refuses what is beyond the buffer", function()
    local vm, ram = with_buffer()
    raises("cannot map 0x11000 bytes from offset 0x0: the buffer has 0x10000",
      function() vm:map_space(0, ram, 0, 0, 0x11000, "rwx") end)
    raises("cannot map 0x2000 bytes from offset 0xf000: the buffer has 0x10000",
      function() vm:map_space(0, ram, 0xf000, 0, 0x2000, "rwx") end)
    raises("from offset 0x20000", function() vm:map_space(0, ram, 0x20000, 0, 0x1000, "rwx") end)
    assert.is_true(vm:map_space(0, ram, 0xf000, 0, 0x1000, "rwx"))
  end)

  it("refuses what is beyond the guest's addresses", function()
    local vm, ram = with_buffer()
    local text = "guest-physical addresses of this host have "
    raises(text, function() vm:map_space(0, ram, 0, 2 ^ 52, 0x1000, "rwx") end)
    local _, message = pcall(vm.map_space, vm, 0, ram, 0, 2 ^ 52, 0x1000, "rwx")
    local bits = tonumber(message:match "have (%d+) bits")
    assert.truthy(bits >= 32 and bits <= 52, message)
    contains(("end at 0x%x"):format(2 ^ bits - 1), message)
    raises(text, function() vm:map_space(0, ram, 0, 2 ^ bits - 0x1000, 0x2000, "rwx") end)
    assert.same({}, shape(vm.default))
  end)

  it("refuses what is mapped already, and says where", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0, 0x4000, 0x3000, "rwx"))
    for _, range in ipairs { { 0x4000, 0x3000 }, { 0x3000, 0x2000 }, { 0x6000, 0x1000 },
      { 0x5000, 0x1000 }, { 0, 0x10000 } } do
      raises(("cannot map gpa 0x%x..0x%x in space 0: 0x4000..0x6fff is mapped already; unmap it "
        .. "first"):format(range[1], range[1] + range[2] - 1),
        function() vm:map_space(0, ram, 0, range[1], range[2], "r-x") end)
    end
    assert.same({ "4000+3000 0 rwx rwx" }, shape(vm.default))
    assert.is_true(vm:map_space(0, ram, 0x8000, 0x3000, 0x1000, "rwx"))
    assert.is_true(vm:map_space(0, ram, 0x8000, 0x7000, 0x1000, "rwx"))
  end)

  it("refuses rights that are none", function()
    local vm, ram = with_buffer()
    for _, rights in ipairs { "rw", "xwr", "RWX", "", "rwxx", "r w" } do
      raises(("rights: 'rwx', 'r-x', '---' or the like expected, got %q"):format(rights),
        function() vm:map_space(0, ram, 0, 0, 0x1000, rights) end)
    end
    raises("expected, got number", function() vm:map_space(0, ram, 0, 0, 0x1000, 7) end)
    raises("space:map: rights", function() vm.default:map(ram, 0, 0, 0x1000, "w") end)
    raises("space:map: rights", function() vm.default:map(ram, 0, 0, 0x1000, 7) end)
  end)

  it("returns what KVM has no rights for: execute without read", function()
    local vm, ram = with_buffer()
    for _, rights in ipairs { "--x", "-wx" } do
      helper.refused("unsupported", "execute without read: KVM's memory slots always allow reads",
        vm:map_space(0, ram, 0, 0, 0x1000, rights))
    end
    assert.same({}, shape(vm.default))
  end)

  it("refuses what is no space or no buffer", function()
    local vm, ram = with_buffer()
    local other = helper.keep(luna.vm())
    raises("there is no space 1 in this VM",
      function() vm:map_space(1, ram, 0, 0, 0x1000, "rwx") end)
    raises("there is no space 4294967295", function() vm:unmap_space(2 ^ 32 - 1, 0, 0x1000) end)
    raises("space: a whole number from 0 to 0xffffffff expected, got table",
      function() vm:map_space(other.default, ram, 0, 0, 0x1000, "rwx") end)
    raises("got -1", function() vm:map_space(-1, ram, 0, 0, 0x1000, "rwx") end)
    raises("got nil", function() vm:unmap_space(nil, 0, 0x1000) end)
    raises("vm:map_space: buffer: a buffer expected, got a vm",
      function() vm:map_space(0, vm, 0, 0, 0x1000, "rwx") end)
    raises("vm:map_space: buffer: a buffer expected, got nil",
      function() vm:map_space(0, nil, 0, 0, 0x1000, "rwx") end)
    raises("space:map: buffer: a buffer expected, got string",
      function() vm.default:map("64K", 0, 0, 0x1000, "rwx") end)
  end)

  it("refuses numbers that are no addresses", function()
    local vm, ram = with_buffer()
    raises("vm:map_space: gpa: a whole number from 0", function()
      vm:map_space(0, ram, 0, -4096, 0x1000, "rwx")
    end)
    raises("vm:map_space: gpa: a whole number from 0", function()
      vm:map_space(0, ram, 0, 0.5, 0x1000, "rwx")
    end)
    raises("vm:map_space: offset: a whole number from 0", function()
      vm:map_space(0, ram, "0", 0, 0x1000, "rwx")
    end)
    raises("vm:map_space: size: a number of bytes or a size", function()
      vm:map_space(0, ram, 0, 0, "4kb", "rwx")
    end)
    raises("space:unmap: gpa: a whole number from 0", function() vm.default:unmap(-1, 0x1000) end)
    raises("space:find: gpa: a whole number from 0", function() vm.default:find "0" end)
  end)
end)

helper.kvm("neighbours", function()
  it("that continue each other are one region", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0x1000, 0x1000, 0x1000, "rwx"))
    assert(vm:map_space(0, ram, 0x3000, 0x3000, 0x1000, "rwx"))
    assert.equal(2, #vm.default:regions())
    assert(vm:map_space(0, ram, 0x2000, 0x2000, 0x1000, "rwx"))
    assert.same({ "1000+3000 1000 rwx rwx" }, shape(vm.default))
  end)

  it("of other rights, other offsets or other buffers stay apart", function()
    local vm, ram = with_buffer()
    local other = helper.keep(luna.buffer "64K")
    assert(vm:map_space(0, ram, 0x0, 0x0, 0x1000, "rwx"))
    assert(vm:map_space(0, ram, 0x1000, 0x1000, 0x1000, "r-x"))
    assert(vm:map_space(0, ram, 0x3000, 0x2000, 0x1000, "r-x"))
    assert(vm:map_space(0, other, 0x4000, 0x3000, 0x1000, "r-x"))
    assert.same({ "0+1000 0 rwx rwx", "1000+1000 1000 r-x r-x", "2000+1000 3000 r-x r-x",
      "3000+1000 4000 r-x r-x" }, shape(vm.default))
  end)
end)

helper.kvm("unmapping", function()
  it("of a part splits the region", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0x1000, 0x8000, 0x5000, "rwx"))
    assert.is_true(vm:unmap_space(0, 0xa000, 0x1000))
    assert.same({ "8000+2000 1000 rwx rwx", "b000+2000 4000 rwx rwx" }, shape(vm.default))
    assert.is_true(vm:unmap_space(0, 0x8000, 0x1000))
    assert.is_true(vm:unmap_space(0, 0xc000, "4K"))
    assert.same({ "9000+1000 2000 rwx rwx", "b000+1000 4000 rwx rwx" }, shape(vm.default))
  end)

  it("spans regions", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0, 0, 0x2000, "rwx"))
    assert(vm:map_space(0, ram, 0, 0x2000, 0x1000, "r-x"))
    assert(vm:map_space(0, ram, 0, 0x3000, 0x2000, "---"))
    assert.is_true(vm:unmap_space(0, 0x1000, 0x3000))
    assert.same({ "0+1000 0 rwx rwx", "4000+1000 1000 --- ---" }, shape(vm.default))
  end)

  it("leaves the rest to the guest", function()
    local guest = helper.guest { mode = "long", source = [[
      mov al, [0x2000]
      mov ah, [0x4000]
      mov bl, [0x3000]
      hlt]] }
    guest.ram:u8(0x2000, 0x22)
    guest.ram:u8(0x4000, 0x44)
    assert(guest.vm:unmap_space(0, 0x3000, 0x1000))
    assert.equal(0x3000, guest:stops("fault").gpa)
    assert.equal("0x4422", hex(guest.cpu.rax))
  end)

  it("refuses a hole, names it and changes nothing", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0, 0x1000, 0x2000, "rwx"))
    assert(vm:map_space(0, ram, 0x4000, 0x4000, 0x1000, "rwx"))
    raises("cannot unmap gpa 0x1000..0x4fff of space 0: nothing is mapped at 0x3000",
      function() vm:unmap_space(0, 0x1000, 0x4000) end)
    raises("nothing is mapped at 0x0", function() vm:unmap_space(0, 0, 0x2000) end)
    raises("nothing is mapped at 0x5000", function() vm:unmap_space(0, 0x4000, 0x2000) end)
    raises("nothing is mapped at 0x9000", function() vm.default:unmap(0x9000, 0x1000) end)
    raises("cannot unmap 0x0 bytes at gpa 0x1000", function() vm:unmap_space(0, 0x1000, 0) end)
    raises("cannot unmap gpa 0x1800", function() vm:unmap_space(0, 0x1800, 0x1000) end)
    assert.same({ "1000+2000 0 rwx rwx", "4000+1000 4000 rwx rwx" }, shape(vm.default))
  end)
end)

helper.kvm("a space", function()
  it("finds the region of an address", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0, 0x4000, 0x2000, "rwx"))
    assert.is_nil(vm.default:find(0x3fff))
    assert.equal(0x4000, vm.default:find(0x4000).gpa)
    assert.equal(0x4000, vm.default:find(0x5fff).gpa)
    assert.is_nil(vm.default:find(0x6000))
    assert.is_nil(vm.default:find(2 ^ 53))
  end)

  it("lists many regions in order", function()
    local vm, ram = with_buffer()
    for page = 199, 0, -1 do
      assert(vm:map_space(0, ram, 0, page * 0x2000, 0x1000, "rwx"))
    end
    local regions = vm.default:regions()
    assert.equal(200, #regions)
    for i, region in ipairs(regions) do assert.equal((i - 1) * 0x2000, region.gpa) end
  end)

  it("shows its regions as text", function()
    local vm, ram = with_buffer()
    assert.equal("space 0", tostring(vm.default))
    assert(vm:map_space(0, ram, 0x1000, 0, 0x2000, "rwx"))
    assert(vm:map_space(0, ram, 0x3000, 0xfee0000000, 0x1000, "r--"))
    assert(vm:map_space(0, ram, 0, 0x8000, 0x1000, "---"))
    local text = tostring(vm.default)
    assert.matches(("^space 0\n000000000000%%-000000002000 rwx rwx buffer %d%%+0x1000 slot %%d+\n")
      :format(ram.id), text)
    assert.matches(("\n000000008000%%-000000009000 %%-%%-%%- %%-%%-%%- buffer %d%%+0x0\n")
      :format(ram.id), text)
    assert.matches(("\n00fee0000000%%-00fee0001000 r%%-%%- r%%-x buffer %d%%+0x3000 slot %%d+$")
      :format(ram.id), text)
  end)

  it("says which rights the guest really has", function()
    local vm, ram = with_buffer()
    for i, case in ipairs { { "rwx", "rwx" }, { "rw-", "rwx" }, { "r-x", "r-x" }, { "r--", "r-x" },
      { "---", "---" } } do
      assert(vm:map_space(0, ram, 0, i * 0x2000, 0x1000, case[1]))
      local region = vm.default:find(i * 0x2000)
      assert.same(case, { region.rights, region.enforced })
      assert.equal(case[1] ~= "---", region.slot ~= nil)
    end
  end)
end)

helper.kvm("a mapped buffer", function()
  it("stays for the guest when it is closed, until it is unmapped", function()
    local guest = helper.guest { mode = "long", source = [[
      again: mov al, [0x200000]
      hlt
      jmp again]] }
    local extra = helper.keep(luna.buffer "4K")
    extra:u8(0, 0x37)
    local id = extra.id
    assert(guest.vm:map_space(0, extra, 0x200000, 0x1000, "rwx"))
    extra:close()
    extra = nil -- luacheck: ignore
    collectgarbage()
    assert.equal(3, luna.live().buffer) -- with the guest's memory and its system area
    guest:stops "hlt"
    assert.equal("0x37", hex(guest.cpu.rax))
    assert.equal(id, guest.vm.default:find(0x200000).buffer_id)
    assert(guest.vm:unmap_space(0, 0x200000, 0x1000))
    assert.equal(2, luna.live().buffer)
    guest:stops "fault"
  end)

  it("goes with the VM", function()
    local vm, ram = with_buffer()
    assert(vm:map_space(0, ram, 0, 0x1000, "rwx"))
    ram:close()
    assert.equal(1, luna.live().buffer)
    vm:close()
    assert.equal(0, luna.live().buffer)
  end)

  it("cannot be mapped again when it is closed", function()
    local vm, ram = with_buffer()
    ram:close()
    raises("attempt to use a closed buffer",
      function() vm:map_space(0, ram, 0, 0x1000, "rwx") end)
  end)
end)

helper.kvm("rights", function()
  local function mapped(rights, source)
    local guest = helper.guest { mode = "long", source = source }
    local extra = helper.keep(luna.buffer "4K")
    extra:u32(0, 0xf4c3c3c3) -- ret ret ret hlt
    assert(guest.vm:map_space(0, extra, 0x200000, 0x1000, rights))
    return guest, extra
  end

  it("r-x let the guest read and execute; a write is a fault", function()
    local guest, extra = mapped("r-x", [[
      mov eax, [0x200000]
      mov ebx, 0x200000
      call rbx
      mov byte [0x200001], 0x55
      hlt]])
    local exit = guest:stops "fault"
    assert.equal("0xf4c3c3c3", hex(guest.cpu.rax))
    assert.same({ 0x200001, "w", 1, 0x55 }, { exit.gpa, exit.access, exit.size, exit.value })
    helper.raises("no region of space 0 allows it", function() guest.cpu:retry() end)
    guest.cpu:answer()
    guest:stops "hlt"
    assert.equal(0xf4c3c3c3, extra:u32(0))
  end)

  for _, case in ipairs {
    { "a read", "mov eax, [0x200004]", "r", 4 },
    { "a write", "mov [0x200004], ax", "w", 2 },
    { "an execution", "mov eax, 0x200004\n jmp rax", "x", 0 },
  } do
    it(("--- make %s a fault"):format(case[1]), function()
      local guest = mapped("---", case[2])
      local exit = guest:stops "fault"
      assert.same({ 0x200004, case[3], case[4] }, { exit.gpa, exit.access, exit.size })
    end)
  end

  it("rwx let the guest do all", function()
    local guest, extra = mapped("rwx", [[
      mov byte [0x200000], 0x90
      mov ebx, 0x200000
      call rbx
      hlt]])
    guest:stops "hlt"
    assert.equal(0xf4c3c390, extra:u32(0))
  end)
end)
