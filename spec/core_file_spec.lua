-- SPDX-License-Identifier: MIT
-- vm:core: a core file with vCPUs as threads and memory as segments, which gdb opens.

local linear = require "lunavisor.dump.linear"
local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"

local contains, raises, refused = helper.contains, helper.raises, helper.refused
local SOURCE = "mov ax, 0x1234\n mov byte [0x3000], 7\n hlt\n nop"

local function path()
  local name = helper.file ""
  os.remove(name)
  return name
end

-- What gdb says of the core file of a VM.
local function gdb(vm, commands, options)
  if select(2, helper.sh "command -v gdb") ~= 0 then pending "gdb is not installed" end
  local name = path()
  assert(vm:core(name, options))
  local words = { helper.program "timeout 240 gdb -nx -batch -ex 'core-file", name .. "'" }
  for _, command in ipairs(commands) do words[#words + 1] = "-ex '" .. command .. "'" end
  return (helper.sh(table.concat(words, " ")))
end

-- A number of `size` bytes of a file's text.
local function number(text, at, size)
  local value = 0
  for i = size, 1, -1 do value = value * 256 + text:byte(at + i) end
  return value
end

-- Where each segment of a file of 64 bits is: "gva gpa size".
local function segments(name)
  local text, list = files.read(name), {}
  for i = 1, number(text, 56, 2) - 1 do
    local at = 64 + 56 * i
    list[i] = ("%x %x %x"):format(number(text, at + 16, 8), number(text, at + 24, 8),
      number(text, at + 40, 8))
  end
  return list
end

helper.kvm("vm:core", function()
  for mode, place in pairs { real = 0x1008, protected = 0x100b, long = 0x100c, user = 0x100c } do
    it("is opened by gdb with a guest in mode " .. mode, function()
      local guest = helper.guest { mode = mode, source = SOURCE }
      helper.keep(guest.vm:vcpu { mode = mode, rip = 0x1000, rsp = 0x9000 })
      guest:run { max_exits = 1 }
      guest.cpu.rip = place
      guest.cpu.st[0], guest.cpu.ftw = { u8 = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f } }, 1
      local output = gdb(guest.vm, { "info threads", "output/x $ax", 'printf " is ax\\n"',
        "x/1i $pc", "x/1xb 0x3000", "info float", "thread 2", "output/x $sp",
        'printf " is sp\\n"' })
      contains("a vm of 2 vCPUs", output)
      contains("* 1 ", output)
      contains("0x1234 is ax", output)
      contains(("0x%x:\thlt"):format(place), output)
      contains("0x3000:\t0x07", output)
      contains("R0: Valid   0x3fff8000000000000000 +1", output)
      contains("0x9000 is sp", output)
    end)
  end

  it("has memory where the page tables have it, and where it is", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    guest.vm.default:map(guest.ram, 0x3000, 0x40000000, 0x1000, "r--")
    guest:stops "hlt"
    local root = luna.u64.tonumber(guest.cpu.cr3)
    guest.vm.default:u64(root + 8 * 511, guest.vm.default:u64(root))
    local commands = { "x/1xb 0xffffff8000003000", "x/1xb 0x40000000", "x/1xb 0x3000" }
    local output = gdb(guest.vm, commands)
    contains("0xffffff8000003000:\t0x07", output)
    contains("0x40000000:\t0x07", output)
    contains("\n0x3000:\t0x07", output)
    output = gdb(guest.vm, commands, { linear = false })
    contains("Cannot access memory at address 0xffffff8000003000", output)
    contains("0x3000:\t0x07", output)
  end)

  it("has the memory of the space that is asked for", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    local other = guest.vm:space()
    other:map(guest.ram, 0x2000, 0x70000, 0x2000, "rwx")
    local name = path()
    assert(guest.vm:core(name, { space = other }))
    assert.same({ "70000 70000 2000" }, segments(name))
    assert.equal(8192, #files.read(name):sub(4097))
  end)

  it("leaves zeros out", function()
    local guest = helper.guest { source = SOURCE, size = "64M" }
    local name = path()
    assert(guest.vm:core(name))
    local blocks = tonumber((helper.sh("stat -c %b " .. name)))
    assert.is_true(blocks < 2048, tostring(blocks))
    assert.equal(2 ^ 26 + 4096, #files.read(name))
  end)

  it("is there whole or not at all", function()
    local guest = helper.guest { source = SOURCE }
    refused("system", "cannot write the core: /no/where/x.part: No such file",
      guest.vm:core "/no/where/x")
    local directory = helper.sh "mktemp -d"
    refused("system", "cannot write the core " .. directory .. ": ", guest.vm:core(directory))
    assert.equal("", (helper.sh("ls " .. directory .. ".part 2>/dev/null; rmdir " .. directory)))
    local empty = helper.keep(luna.vm())
    helper.keep(empty:vcpu {})
    refused("not_found", "nothing is mapped in space 0", empty:core(path()))
  end)

  it("is one of vCPUs that stand", function()
    local guest = helper.guest { source = "jmp $" }
    guest.cpu:start()
    raises("vm:core: vCPU 0 is started; cpu:join ends that", function() guest.vm:core "x" end)
    guest.cpu:join()
    local empty = helper.keep(luna.vm())
    raises("vm:core: this VM has no vCPU, and a core has a thread", function() empty:core "x" end)
    raises("vm:core: space: ", function() guest.vm:core("x", { space = "y" }) end)
  end)
end)

helper.kvm("the ranges of page tables", function()
  -- Every range, page by page, as cpu:translate has it; how many pages.
  local function check(cpu)
    local pages = 0
    for _, range in ipairs(assert(linear.ranges(cpu))) do
      for i = 0, range.count - 1, math.max(1, math.floor(range.count / 8)) do
        local gva = luna.u64(math.floor((range.page + i) / 2 ^ 20),
          (range.page + i) % 2 ^ 20 * 4096)
        local walk = assert(cpu:translate(gva))
        assert.is_true(walk.present)
        assert.equal((range.frame + i) * 4096, walk.gpa)
      end
      pages = pages + range.count
    end
    return pages
  end

  local function guest_with(mode)
    local guest = helper.guest { mode = mode, source = "hlt" }
    return guest, guest.cpu, guest.ram
  end

  it("are those of 4-level paging", function()
    local guest, cpu = guest_with "long"
    assert.equal(2 ^ 20, check(cpu))
    local space, root = guest.vm.default, luna.u64.tonumber(cpu.cr3)
    space:u64(root + 8 * 300, space:u64(root))
    assert.equal(2 ^ 21, check(cpu))
  end)

  it("are those of 32-bit paging", function()
    local _, cpu, ram = guest_with "protected"
    ram:u32(0x10000, 0x11003)
    ram:u32(0x10004, 0x00400083)
    ram:u32(0x10ffc, 0x00002083 + 0x40000000) -- 4 MiB at 0x1_40000000, by PSE-36
    for i = 0, 9 do ram:u32(0x11000 + 4 * i, (20 - i) * 0x1000 + (i == 5 and 0 or 3)) end
    cpu.cr4, cpu.cr3, cpu.cr0 = 0x10, 0x10000, 0x80000011
    assert.equal(9 + 2048, check(cpu))
  end)

  it("are those of PAE paging", function()
    local _, cpu, ram = guest_with "protected"
    ram:u64(0x10020, 0x11001)
    ram:u64(0x10038, 0x11001)
    ram:u64(0x11000, 0x12003)
    ram:u64(0x11008, 0x200083)
    for i = 0, 511 do ram:u64(0x12000 + 8 * i, i * 0x1000 + 3) end
    cpu.cr4, cpu.cr3, cpu.cr0 = 0x20, 0x10020, 0x80000011
    assert.equal(2 * 1024, check(cpu))
  end)

  it("end where the tables lead in circles", function()
    local guest, cpu, ram = guest_with "long"
    for i = 0, 511 do ram:u64(0x10000 + 8 * i, 0x10003) end
    cpu.cr3 = 0x10000
    assert.is_nil(linear.ranges(cpu))
    refused("limit", "the page tables of vCPU 0 make more than 65520 segments", guest.vm:core "x")
    local name = path()
    assert(guest.vm:core(name, { linear = false }))
  end)
end)
