-- SPDX-License-Identifier: MIT
-- The framework's memory from Lua: map, unmap, protect, rights, and memory made for that.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local refused = support.refused

local R, W, X, RWX = hv.MEMORY_READ, hv.MEMORY_WRITE, hv.MEMORY_EXEC, support.RWX
local PAGE = 4096

local CODE = 0x100000

-- Runs an instruction with DS at the page, or from the page itself, in a vCPU of its own: the
-- rights that an EPT violation tells, or nil where there is none.
local function violation(asid, gpa, code)
  local page = support.memory(PAGE)
  page:write(0, code .. "\xf4") -- and HLT
  assert(hv.vm_map_space(asid, page, CODE, PAGE, RWX))
  local rights
  coroutine.wrap(function()
    local id = assert(hv.vcpu_create())
    assert(hv.vcpu_set_space(id, asid))
    for segment, base in pairs { CS = code == "" and gpa or CODE, DS = gpa } do
      support.write(id, hv["VMCS_GUEST_" .. segment .. "_BASE"], base)
    end
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0))
    assert(hv.vcpu_run_until(id, support.seconds(10)))
    if support.read(id, hv.VMCS_RO_EXIT_REASON) == hv.VMX_REASON_EPT_VIOLATION then
      local bits = math.floor(support.read(id, hv.VMCS_RO_EXIT_QUALIFIC) / 8) % 8
      rights = (bits % 2 == 1 and "r" or "-") .. (bits % 4 > 1 and "w" or "-")
        .. (bits > 3 and "x" or "-")
    end
    assert(hv.vcpu_set_space(id, 0))
    assert(hv.vcpu_destroy(id))
  end)()
  assert(hv.vm_unmap_space(asid, CODE, PAGE))
  return rights
end

-- OR of a byte with 0, at offset 0: it reads and writes.
local function rights_at(asid, gpa)
  return violation(asid, gpa, "\x80\x0e\0\0\0") or "rwx"
end

-- The first sixteen pages of a space as text: what is mapped, with its rights.
local function map_of(asid)
  local lines, last = {}, nil
  for gpa = 0, 0xf000, PAGE do
    local rights = support.mapped(asid or 0, gpa) and rights_at(asid or 0, gpa)
    if rights and last and last.rights == rights and last.gpa + last.size == gpa then
      last.size = last.size + PAGE
    elseif rights then
      last = { gpa = gpa, size = PAGE, rights = rights }
      lines[#lines + 1] = last
    end
  end
  for i, region in ipairs(lines) do
    lines[i] = ("%x+%x %s"):format(region.gpa, region.size, region.rights)
  end
  return table.concat(lines, ", ")
end

helper.kvm("hv.vm_map", function()
  it("maps into the default space, as space 0 is", function()
    support.vm()
    local memory = support.memory(4 * PAGE)
    assert.is_true(hv.vm_map(memory, 0x1000, 2 * PAGE, R + X))
    assert.is_true(hv.vm_map_space(0, memory, 0x8000, PAGE, RWX))
    assert.equal("1000+2000 r-x, 8000+1000 rwx", map_of())
    assert.is_true(hv.vm_unmap_space(0, 0x1000, PAGE))
    assert.is_true(hv.vm_protect_space(0, 0x2000, PAGE, 0))
    assert.is_true(hv.vm_unmap(0x8000, PAGE))
    assert.equal("2000+1000 ---", map_of())
  end)

  it("keeps the spaces apart", function()
    support.vm()
    local memory, asid = support.memory(PAGE), assert(hv.vm_space_create())
    assert.is_true(hv.vm_map_space(asid, memory, 0x5000, PAGE, R + X))
    assert.is_true(hv.vm_map(memory, 0x5000, PAGE, RWX))
    assert.same({ "5000+1000 rwx", "5000+1000 r-x" }, { map_of(), map_of(asid) })
    assert.is_true(hv.vm_protect_space(asid, 0x5000, PAGE, RWX))
    assert.is_true(hv.vm_unmap_space(asid, 0x5000, PAGE))
    assert.same({ "5000+1000 rwx", "" }, { map_of(), map_of(asid) })
  end)

  it("takes views, for an address inside", function()
    support.vm()
    local memory = support.memory(2 * PAGE)
    assert.is_true(hv.vm_map(helper.keep(memory:view(PAGE)), 0, PAGE, RWX))
    memory:u8(PAGE, 0xf4)
    local id = assert(hv.vcpu_create())
    support.write(id, hv.VMCS_GUEST_CS_BASE, 0)
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0))
    support.stops(id, hv.VMX_REASON_HLT) -- at the view's first byte
  end)

  it("keeps memory that is closed until it is unmapped", function()
    local id = support.guest "jmp 0x2000:0"
    local memory = support.memory(PAGE)
    memory:u8(0, 0xf4)
    assert.is_true(hv.vm_map(memory, 0x20000, PAGE, RWX))
    assert.is_true(hv.vm_deallocate(memory))
    collectgarbage()
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(2, luna.live().buffer)
    assert.is_true(hv.vm_unmap(0x20000, PAGE))
    assert.equal(1, luna.live().buffer)
  end)

  it("is busy where something is mapped", function()
    support.vm()
    local memory = support.memory(4 * PAGE)
    assert.is_true(hv.vm_map(memory, 0x2000, PAGE, RWX))
    refused("busy", "is mapped already", hv.vm_map(memory, 0x1000, 2 * PAGE, RWX))
    refused("busy", "is mapped already", hv.vm_map(memory, 0x2000, PAGE, RWX))
    assert.equal("2000+1000 rwx", map_of())
  end)

  it("refuses what is not aligned, empty or outside", function()
    support.vm()
    local memory = support.memory(2 * PAGE)
    for _, case in ipairs { { 0x800, PAGE }, { 0, 0x800 }, { 0, 0 }, { 0, 4 * PAGE },
      { 2 ^ 52, PAGE } } do
      refused("bad_argument", "", hv.vm_map(memory, case[1], case[2], RWX))
    end
    assert(hv.vm_map(memory, 0, PAGE, RWX))
    refused("bad_argument", "", hv.vm_map(memory, 0x800, PAGE, RWX))
    refused("bad_argument", "no space 3", hv.vm_map_space(3, memory, 0, PAGE, RWX))
    refused("bad_argument", "too large, or negative", hv.vm_map(memory, -PAGE, PAGE, RWX))
  end)

  it("refuses flags that there are not, or that KVM cannot do", function()
    support.vm()
    local memory = support.memory(PAGE)
    refused("bad_argument", "unknown ones", hv.vm_map(memory, 0, PAGE, 0x200))
    refused("bad_argument", "MAXPROT_* without", hv.vm_map(memory, 0, PAGE,
      R + hv.MEMORY_MAXPROT_READ))
    refused("unsupported", "ask for both", hv.vm_map(memory, 0, PAGE, R + hv.MEMORY_UEXEC))
    refused("unsupported", "", hv.vm_map(memory, 0, PAGE, X))
    assert.equal("", map_of())
    assert.is_true(hv.vm_map(memory, 0, PAGE, R + X + hv.MEMORY_UEXEC))
  end)
end)

helper.kvm("hv.vm_unmap", function()
  it("splits regions and passes over holes", function()
    support.vm()
    local memory = support.memory(8 * PAGE)
    assert(hv.vm_map(memory, 0, 4 * PAGE, RWX))
    assert(hv.vm_map(memory, 6 * PAGE, 2 * PAGE, RWX))
    assert.is_true(hv.vm_unmap(3 * PAGE, 4 * PAGE))
    assert.equal("0+3000 rwx, 7000+1000 rwx", map_of())
    assert.is_true(hv.vm_unmap(0x100000, PAGE))
    assert.is_true(hv.vm_unmap(0, 0x100000))
    assert.equal("", map_of())
  end)

  it("refuses what is not aligned", function()
    support.vm()
    refused("bad_argument", "multiples of 4096", hv.vm_unmap(0x10, PAGE))
    refused("bad_argument", "size not 0", hv.vm_unmap(0, 0))
    refused("bad_argument", "cannot unmap", hv.vm_unmap(2 ^ 52, PAGE))
    refused("bad_argument", "no space 4", hv.vm_unmap_space(4, 0, PAGE))
  end)
end)

helper.kvm("hv.vm_protect", function()
  it("changes pages, all of which are mapped", function()
    support.vm()
    assert(hv.vm_map(support.memory(4 * PAGE), 0, 4 * PAGE, RWX))
    assert.is_true(hv.vm_protect(PAGE, PAGE, R + X))
    assert.equal("0+1000 rwx, 1000+1000 r-x, 2000+2000 rwx", map_of())
    refused("bad_argument", "", hv.vm_protect(0, 5 * PAGE, R))
    assert.is_true(hv.vm_protect(0, 10, R + X)) -- a size stands for its pages
    assert.equal("0+2000 r-x, 2000+2000 rwx", map_of())
    refused("bad_argument", "unknown ones", hv.vm_protect(0, PAGE, 2 ^ 12))
    refused("bad_argument", "no space 4", hv.vm_protect_space(4, 0, PAGE, R))
    refused("unsupported", "", hv.vm_protect(0, PAGE, X))
  end)

  it("gives no more than MAXPROT", function()
    support.vm()
    local memory = support.memory(4 * PAGE)
    local most = hv.MEMORY_MAXPROT + hv.MEMORY_MAXPROT_READ + hv.MEMORY_MAXPROT_EXEC
    refused("denied", "ask for more", hv.vm_map(memory, 0, PAGE, RWX + most))
    assert(hv.vm_map(memory, 0, 2 * PAGE, R + most))
    assert.is_true(hv.vm_protect(0, 2 * PAGE, R + X))
    refused("denied", "a MAXPROT of r-x", hv.vm_protect(PAGE, PAGE, R + W))
    assert.is_true(hv.vm_protect(0, PAGE, hv.MEMORY_MAXPROT)) -- less than before
    refused("denied", "a MAXPROT of ---", hv.vm_protect(0, 2 * PAGE, R))
    assert.is_true(hv.vm_protect(PAGE, PAGE, R + X))
    assert(hv.vm_unmap(0, 2 * PAGE))
    assert.is_true(hv.vm_map(memory, 0, 2 * PAGE, RWX))
    assert.is_true(hv.vm_protect(0, 2 * PAGE, R + W))
  end)

  it("forgets MAXPROT with the space", function()
    support.vm()
    local memory, asid = support.memory(PAGE), assert(hv.vm_space_create())
    assert(hv.vm_map_space(asid, memory, 0, PAGE, hv.MEMORY_MAXPROT))
    refused("denied", "MAXPROT", hv.vm_protect_space(asid, 0, PAGE, R))
    assert.is_true(hv.vm_space_destroy(asid))
    assert.equal(asid, hv.vm_space_create())
    assert(hv.vm_map_space(asid, memory, 0, PAGE, 0))
    assert.is_true(hv.vm_protect_space(asid, 0, PAGE, R))
  end)

  it("is exact with VM_STRICT_EXEC", function()
    support.vm(hv.VM_STRICT_EXEC)
    assert(hv.vm_map(support.memory(PAGE), 0, PAGE, R + W))
    assert.equal("rw-", violation(0, 0, "")) -- of a fetch
  end)
end)

helper.block("hv.vm_allocate", function()
  it("gives zeroed memory, and takes it back whole", function()
    local memory = assert(hv.vm_allocate(2 * PAGE, hv.ALLOCATE_DEFAULT))
    assert.equal(("\0"):rep(2 * PAGE), memory:read())
    refused("bad_argument", "did not give", hv.vm_deallocate(memory, PAGE))
    assert.is_true(hv.vm_deallocate(memory, 2 * PAGE))
    assert.equal(0, luna.live().buffer)
  end)

  it("refuses sizes and flags, and memory that is not its own", function()
    refused("bad_argument", "", hv.vm_allocate(100))
    refused("bad_argument", "", hv.vm_allocate(0))
    refused("bad_argument", "no flags 0x1", hv.vm_allocate(PAGE, 1))
    refused("bad_argument", "did not give", hv.vm_deallocate(helper.keep(luna.buffer "4K"), PAGE))
  end)
end)
