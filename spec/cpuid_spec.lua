-- SPDX-License-Identifier: MIT
-- What CPUID answers: the host's table with the vCPU's own number, changed before the first run, in
-- every space, and for vCPUs that come later.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local hex = luna.hex

local SOURCE = [[
  mov eax, 0x40000010
  mov ecx, 0
  cpuid
  hlt
  jmp 0x1000]]

local ANSWER = { eax = 0x11111111, ebx = 0x22222222, ecx = 0x33333333, edx = 0x44444444 }

local function add_answer(cpu)
  cpu.cpuid[0x40000010] = ANSWER
  cpu.cpuid[0x40000000] = { eax = 0x40000010 } -- the highest leaf of its range
end

local function check_answer(guest)
  guest:stops "hlt"
  local cpu = guest.cpu
  assert.equal("0x11111111 0x22222222 0x33333333 0x44444444",
    table.concat({ hex(cpu.rax), hex(cpu.rbx), hex(cpu.rcx), hex(cpu.rdx) }, " "))
end

helper.kvm("the CPUID table", function()
  it("is the host's, with the number of the vCPU as its APIC ID", function()
    local vm = helper.keep(luna.vm())
    for id = 0, 2 do
      local cpu = helper.keep(vm:vcpu())
      assert.equal(id, math.floor(cpu.cpuid[1].ebx / 2 ^ 24))
      local topology = cpu.cpuid[0xb]
      if topology then assert.equal(id, topology.edx) end
      assert.truthy(cpu.cpuid[0].eax >= 1)
      assert.matches("^cpuid 0x1: eax %x+ ebx 0" .. id, tostring(cpu.cpuid[1]))
      assert.matches("cpuid 0x0: eax", tostring(cpu.cpuid), 1, true)
    end
  end)

  it("has answers by leaf and subleaf, and none for others", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    assert.is_nil(cpu.cpuid[0x12345678])
    assert.is_nil(cpu.cpuid(0xd, 63))
    cpu.cpuid:set(0x12345678, 3, { eax = 7 })
    assert.is_nil(cpu.cpuid[0x12345678])
    assert.equal(7, cpu.cpuid(0x12345678, 3).eax)
    assert.equal(3, cpu.cpuid(0x12345678, 3).subleaf)
    cpu.cpuid:set(0x12345678, 3)
    assert.is_nil(cpu.cpuid(0x12345678, 3))
    local list = cpu.cpuid:list()
    assert.truthy(#list > 10)
    assert.equal(0, list[1].leaf)
  end)

  it("can be changed before the first run, leaf by leaf", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    add_answer(guest.cpu)
    check_answer(guest)
    assert.equal(0x33333333, guest.cpu.cpuid[0x40000010].ecx)
  end)

  it("keeps what an assignment does not name", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    local eax = cpu.cpuid[1].eax
    cpu.cpuid[1] = { ecx = 0 }
    assert.equal(eax, cpu.cpuid[1].eax)
    assert.equal(0, cpu.cpuid[1].ecx)
    local answer = cpu.cpuid[1]
    answer.edx = 5
    assert.equal(5, answer.edx)
    assert.equal(5, cpu.cpuid[1].edx)
    cpu.cpuid[1] = nil
    assert.is_nil(cpu.cpuid[1])
  end)

  it("can be set as a whole", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    local list = guest.cpu.cpuid:list()
    list[#list + 1] = { leaf = 0x40000010, eax = 0x11111111, ebx = 0x22222222, ecx = 0x33333333,
      edx = 0x44444444 }
    for _, answer in ipairs(list) do
      if answer.leaf == 0x40000000 then answer.eax = 0x40000010 end
    end
    guest.cpu.cpuid = list
    check_answer(guest)
    helper.raises("it has run", function() guest.cpu.cpuid = list end)
    helper.raises("a list of answers expected, got number", function() guest.cpu.cpuid = 1 end)
    helper.raises("cpuid: leaf: a whole number", function() guest.cpu.cpuid = { {} } end)
    helper.raises("unknown field 'x'", function() guest.cpu.cpuid = { { leaf = 1, x = 1 } } end)
  end)

  it("can be filtered, also when the vCPU is made", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    local vm = guest.vm
    guest.cpu:close()
    local seen = 0
    guest.cpu = assert(vm:vcpu { mode = "long", rip = 0x1000, cpuid = function(answer)
      seen = seen + 1
      if answer.leaf == 0x40000000 then answer.eax = 0x40000010 end
      if answer.leaf == 0x40000001 then -- becomes the leaf that the guest asks for
        for name, value in pairs(ANSWER) do answer[name] = value end
      end
      return answer.leaf ~= 0x80000002
    end })
    assert.is_nil(guest.cpu.cpuid[0x80000002])
    assert.truthy(seen > 10)
    assert.equal(0x22222222, guest.cpu.cpuid[0x40000001].ebx)
    guest.cpu.cpuid:filter(function(answer) return answer.leaf < 0x80000000 end)
    assert.is_nil(guest.cpu.cpuid[0x80000000])
    assert.is_true(guest.cpu.cpuid:filter(function() end))
  end)

  it("goes with the vCPU to other spaces, made before and after", function()
    local guest = helper.guest { mode = "long", source = SOURCE }
    local cpu, vm = guest.cpu, guest.vm
    local one, two = vm:space(), vm:space()
    assert(one:map(guest.ram, 0, guest.ram.size, "rwx"))
    assert(two:map(guest.ram, 0, guest.ram.size, "rwx"))
    assert(cpu:set_space(one))
    add_answer(cpu)
    check_answer(guest)
    assert(cpu:set_space(0))
    check_answer(guest)
    assert(cpu:set_space(two))
    check_answer(guest)
  end)

  it("cannot change once the vCPU has run", function()
    local guest = helper.guest { source = "hlt" }
    guest:stops "hlt"
    helper.raises("cannot change the CPUID of vCPU 0: it has run",
      function() guest.cpu.cpuid[1] = { ecx = 0 } end)
    helper.raises("it has run", function() guest.cpu.cpuid:filter(function() end) end)
    assert.truthy(guest.cpu.cpuid[1])
  end)
end)

helper.kvm("a vCPU of a number that another vCPU has had", function()
  local function reused()
    local guest = helper.guest { mode = "long", source = SOURCE }
    add_answer(guest.cpu)
    check_answer(guest)
    local list = guest.cpu.cpuid:list()
    guest.cpu:close()
    return guest, list
  end

  local function another(guest, cpuid)
    guest.cpu = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, cpuid = cpuid })
  end

  it("can have the table that its KVM vCPU has run with", function()
    local guest, list = reused()
    another(guest, list)
    check_answer(guest)
    guest.cpu:close()
    another(guest)
    guest.cpu.cpuid = list
    check_answer(guest)
  end)

  it("is told so when it wants another", function()
    local guest, list = reused()
    another(guest)
    local ok, message = pcall(guest.run, guest)
    if ok then pending "this host's KVM changes the table of a vCPU that has run" end
    helper.contains("cannot run vCPU 0 with this CPUID: a former vCPU of that number has run "
      .. "with another", message)
    helper.raises("a former vCPU of that number has run with another",
      function() guest.cpu.cpuid[1] = { ecx = 0 } end)
    assert.has_error(function() guest.vm:vcpu { cpuid = list, mode = "none" } end)
  end)
end)

helper.kvm("what CPUID tables refuse", function()
  it("are fields and numbers that there are not", function()
    local cpu = helper.guest { source = "hlt" }.cpu
    helper.raises("a CPUID table has no field 'x'",
      function() return cpu.cpuid.x end)
    helper.raises("cpuid: unknown field 'eix'", function() cpu.cpuid[1] = { eix = 1 } end)
    helper.raises("cpuid: eax: a whole number", function() cpu.cpuid[1] = { eax = -1 } end)
    helper.raises("a table with eax, ebx, ecx and edx expected",
      function() cpu.cpuid[1] = 5 end)
    helper.raises("no field 'leaf' that can be set", function() cpu.cpuid[1].leaf = 2 end)
    helper.raises("cpuid:filter: a function expected", function() cpu.cpuid:filter(1) end)
    helper.raises("KVM takes at most 256", function()
      for i = 1, 300 do cpu.cpuid[0x50000000 + i] = { eax = i } end
    end)
  end)

  it("keep a vCPU from being made", function()
    local vm = helper.keep(luna.vm())
    helper.raises("vm:vcpu: cpuid: a function or a list of answers expected, got number",
      function() vm:vcpu { cpuid = 1 } end)
    assert.has_error(function() vm:vcpu { cpuid = function() error "no" end } end, "no")
    assert.equal(0, luna.live().vcpu)
  end)
end)
