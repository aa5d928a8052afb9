-- SPDX-License-Identifier: MIT
-- The places of spaces and vCPUs in a VM: busy spaces, numbers that are used again, and that what
-- comes to such a number begins afresh.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local state = require "spec.support.state"
local raises, hex = helper.raises, luna.hex
local with_view = require("spec.support.spaces").with_view
local general, value = state.general, state.value
local msrs, msr_source, msr_list, stored =
  state.msrs, state.msr_source, state.msr_list, state.stored

helper.kvm("a space", function()
  it("is busy while a vCPU is in it or about to move to it", function()
    local guest = with_view { mode = "protected", source = "out 0x10, al\n hlt" }
    local text = "cannot destroy space 1: 1 vCPU is in it; move it to another space first"
    local seen
    guest.vm:pio(0x10, 1, { write = function()
      guest.cpu:set_space(guest.view)
      seen = { guest.view:close() }
    end })
    guest:stops "hlt"
    assert.equal("busy", seen[3])
    helper.contains(text, seen[2])
    helper.refused("busy", text, guest.view:close())
    guest.cpu:set_space(0)
    assert.is_true(guest.view:close())
    assert.is_true(guest.view:close())
    raises("attempt to use a closed space", function() guest.view:map(guest.ram, 0) end)
  end)

  it("is free when its vCPU is closed", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:close()
    assert.is_true(guest.view:close())
    assert.equal(1, luna.live().space)
  end)

  it("0 lives as long as its VM", function()
    local vm = helper.keep(luna.vm())
    raises("cannot destroy space 0: it is the VM's default space",
      function() vm.default:close() end)
  end)

  it("has the lowest number that is free", function()
    local vm = helper.keep(luna.vm())
    local one, two, three = vm:space(), vm:space(), vm:space()
    assert.same({ 1, 2, 3 }, { one.id, two.id, three.id })
    one:close()
    three:close()
    assert.equal(1, vm:space().id)
    assert.equal(3, vm:space().id)
    assert.equal(4, vm:space().id)
    two:close()
    assert.equal(2, vm:space().id)
  end)

  it("begins empty when its number was used before", function()
    local guest = with_view { mode = "protected", source = "mov al, [0x3000]\n hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:set_space(0)
    assert(guest.view:close())
    local again = guest.vm:space()
    assert.equal(1, again.id)
    assert.same({}, again:regions())
    guest.cpu.rip = 0x1000
    guest.cpu:set_space(again)
    assert.same({ 0x1000, "x" }, { guest:stops("fault").gpa, guest.cpu:run().access })
  end)
end)

helper.kvm("a vCPU with a number that was used before", function()
  local list = { msrs[1], msrs[2], msrs[4], msrs[5], msrs[6], msrs[7], msrs[8], msrs[9] }

  local dirt = [[
    movdqu xmm2, [0x5000]
    mov eax, 0x12345000
    mov dr0, rax
    mov dr3, rax
    mov eax, 0x700
    mov dr7, rax
    fninit
    jmp 0x1100]]
  local look = [[
    movdqu [0x5100], xmm2
    mov rax, dr0
    mov [0x5110], rax
    mov rax, dr3
    mov [0x5118], rax
    mov rax, dr6
    mov [0x5120], rax
    mov rax, dr7
    mov [0x5128], rax
    fxsave [0x5200]
    jmp 0x1100 + entry]]

  -- Everything that a vCPU in long mode begins with, as text.
  local function picture(vm, ram, cpu, entry)
    ram:fill(0, 0x4000, 0x2000)
    local parts = {}
    for name, register in pairs(cpu:regs()) do parts[#parts + 1] = name .. " " .. hex(register) end
    for _, name in ipairs { "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr", "gdtr", "idtr" } do
      parts[#parts + 1] = tostring(cpu[name])
    end
    ram:write(0x1000, helper.code("entry equ " .. entry .. "\n" .. look, 64, 0x1000))
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    for name, text in pairs(stored(ram, list)) do parts[#parts + 1] = name .. " " .. text end
    parts[#parts + 1] = (ram:read(0x5100, 0x300):gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end))
    table.sort(parts)
    assert(vm)
    return table.concat(parts, "\n")
  end

  for _, where in ipairs { "space 0", "another space" } do
    it("is as a new VM's first, after one that was in " .. where, function()
      local vm = helper.keep(luna.vm())
      local ram = helper.keep(luna.buffer "1M")
      assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
      local view = assert(vm:space())
      assert(view:map(ram, 0))
      local code = helper.code(msr_source, 64, 0x1100)
      local entry = code:find("\xf4", 1, true) -- behind the hlt
      ram:write(0x1100, code)
      msr_list(ram, list)
      local fresh = helper.keep(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
      local expected = picture(vm, ram, fresh, entry)
      ram:write(0x1000, helper.code(dirt, 64, 0x1000))
      ram:fill(0x5a, 0x5000, 16)
      if where ~= "space 0" then fresh:set_space(view) end
      fresh.rip = 0x1000
      for i, name in ipairs(general) do fresh[name] = value(i, 5) end
      fresh.rsp, fresh.cr8, fresh.cr2 = 0x7000, 7, 0x123
      fresh.fs.base, fresh.fs.selector = 0x7000, 0x33
      assert.equal("hlt", fresh:run({ timeout = 60 }).kind)
      local dirty = picture(vm, ram, fresh, entry)
      assert.not_equal(expected, dirty)
      fresh:close()
      local again = helper.keep(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
      assert.equal(0, again.id)
      assert.equal(0, again.space.id)
      assert.equal(expected, picture(vm, ram, again, entry))
    end)
  end

  it("can be made where the last one set its time-stamp counter", function()
    local guest = with_view { mode = "long", source = [[
      mov ecx, 0x10
      xor eax, eax
      mov edx, 0x100000
      wrmsr
      mov ecx, 0x3b
      mov edx, 0x1000
      wrmsr
      hlt]] }
    assert.equal("hlt", guest:run().kind)
    guest.cpu:close()
    local again = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
    assert.equal(0, again.id)
    assert.equal("hlt", again:run({ timeout = 60 }).kind)
  end)

  it("moves with its system area to a space where the last one was", function()
    local guest = with_view { mode = "long", source = "nop\n hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:close()
    guest.cpu = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
    guest.cpu:set_space(guest.view)
    assert.equal("hlt", guest:run().kind)
  end)

  it("is the lowest that is free", function()
    local vm = helper.keep(luna.vm())
    local one, two, three = vm:vcpu(), vm:vcpu(), helper.keep(vm:vcpu())
    assert.same({ 0, 1, 2 }, { one.id, two.id, three.id })
    two:close()
    assert.equal(1, helper.keep(vm:vcpu()).id)
    one:close()
    assert.equal(0, helper.keep(vm:vcpu()).id)
    assert.equal(3, helper.keep(vm:vcpu()).id)
  end)

  it("does not go on with what the last one had under way", function()
    local guest = helper.guest { mode = "protected", source = "in al, 0x10\n hlt" }
    guest:stops "pio"
    guest.cpu:close()
    guest.ram:write(0x1000, "\xf4")
    local again = helper.keep(guest.vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x8000 })
    again.rax = 0x1122
    assert.equal("hlt", again:run({ timeout = 60 }).kind)
    assert.same({ "0x1001", "0x1122" }, { hex(again.rip), hex(again.rax) })
  end)
end)
