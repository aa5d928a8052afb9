-- SPDX-License-Identifier: MIT
-- The gate of address line 20 of a PC: while it is closed, what is behind 1 MiB is what is at 0; by
-- port 0x92, by the keyboard controller, by the BIOS, in states.

local luna = require "lunavisor"
local a20_gate = require "lunavisor.device.models.a20_gate"
local helper = require "spec.support.helper"

local MIB = 2 ^ 20

-- A PC with code of real mode at 0x7c00 that knows the ways to the gate: `low` and `high` say the
-- byte at 0x500 and that at 0x100500.
local function machine(source, options)
  options = options or {}
  options.memory, options.serial = options.memory or "4M", options.serial or false
  options.image = { name = "code", bytes = luna.asm([[
    %macro low 0
      mov al, [0x500]
      out 0xe9, al
    %endmacro
    %macro high 0
      mov al, [es:0x510]
      out 0xe9, al
    %endmacro
    %macro fast 1
      mov al, %1
      out 0x92, al
    %endmacro
    %macro keyboard 1
      mov al, 0xd1
      out 0x64, al
      mov al, %1
      out 0x60, al
    %endmacro
    xor ax, ax
    mov ds, ax
    dec ax
    mov es, ax
    mov byte [0x500], 'l'
    mov byte [es:0x510], 'h'
  ]] .. source .. "\n mov eax, 1\n mov dx, 0xf4\n out dx, al\n", { bits = 16, org = 0x7c00 }) }
  options.load = { format = "flat", mode = "real", address = 0x7c00 }
  local vm = assert(luna.machine("pc", options))
  helper.keep(vm.machine.ram)
  return helper.keep(vm)
end

-- What the guest says.
local function says(source, options)
  options = options or {}
  local said = {}
  options.serial = function(text) said[#said + 1] = text end
  local vm = machine(source, options)
  local exit = assert(vm.vcpus[1]:run { timeout = 60 })
  assert.equal("stopped", exit.kind, tostring(exit))
  return table.concat(said), vm
end

local function shape(vm)
  local list = {}
  for i, region in ipairs(vm.default:regions()) do
    list[i] = ("%x+%x@%x"):format(region.gpa, region.size, region.offset)
  end
  return table.concat(list, " ")
end

helper.kvm("address line 20", function()
  it("is there from the start", function()
    assert.equal("lh", (says "low\n high"))
  end)

  it("is closed and opened by port 0x92", function()
    assert.equal("llwwh", (says [[
      fast 0
      high                          ; what is at 0x500
      low
      mov byte [es:0x510], 'w'
      low
      high
      fast 2
      high]]))
  end)

  it("is closed and opened by the keyboard controller, both ways", function()
    assert.equal("lhlh", (says [[
      keyboard 0xdd
      high
      keyboard 0xdf
      high
      mov al, 0xdd                  ; commands of chipsets
      out 0x64, al
      high
      mov al, 0xdf
      out 0x64, al
      high]]))
  end)

  it("is one gate, whoever closes and whoever opens it", function()
    local said, vm = says [[
      fast 0
      keyboard 0xdf
      high
      in al, 0x92
      add al, '0'
      out 0xe9, al
      keyboard 0xdd
      in al, 0x92
      add al, '0'
      out 0xe9, al
      fast 2
      high
      fast 0
      mov al, 0xd0                  ; "Read Output Port"
      out 0x64, al
      in al, 0x60
      and al, 2
      add al, '0'
      out 0xe9, al]]
    assert.equal("h20h0", said)
    assert.is_false(vm.devices.a20.open)
    assert.is_false(vm.devices.ports.lines.a20)
    assert.is_false(vm.devices.keyboard.lines.a20)
  end)

  it("is closed for all memory below the screen's, and no further", function()
    local said, vm = says "fast 0\n high"
    assert.equal("l", said)
    vm.machine.ram:u32(0x9fffc, 0x12345678)
    assert.equal(0x12345678, vm.default:u32(0x19fffc))
    local below, behind = "0+a0000@0 b8000+8000@0 c0000+40000@c0000 ", " 1a0000+260000@1a0000"
    assert.equal(below .. "100000+a0000@0" .. behind, shape(vm))
    vm.devices.ports.PORT92.a20 = 1
    assert.equal(below .. "100000+a0000@100000" .. behind, shape(vm))
  end)

  it("makes memory of what is none without it", function()
    for memory, open in pairs { ["1M"] = 0xff, ["1088K"] = 0x68 } do
      local said, vm = says("high\n fast 0\n high\n fast 2\n high", { memory = memory })
      assert.equal(string.char(open) .. "l" .. string.char(open), said)
      vm.devices.ports.PORT92.a20 = 0
      assert.equal(MIB + 0xa0000, vm.default:find(MIB).gpa + vm.default:find(MIB).size)
    end
  end)

  it("is in the state of its device", function()
    local names, saved = { "a20", "ports", "keyboard" }, {}
    local _, one = says "fast 0"
    for _, name in ipairs(names) do saved[name] = one.devices[name]:save() end
    for first = 1, 3 do -- in whatever order they are loaded
      local other = machine "high\n keyboard 0xdf\n high"
      for i = 0, 2 do
        local name = names[(first + i - 1) % 3 + 1]
        assert(other.devices[name]:load(saved[name]))
      end
      assert.is_false(other.devices.a20.open)
      other.machine.ram:u8(0x500, 9)
      assert.equal(9, other.default:u8(0x100500))
      assert(other.devices.a20:load(a20_gate():save()))
      assert.is_true(other.devices.ports.lines.a20)
      assert.equal(0, other.default:u8(0x100500))
    end
  end)

  it("leaves memory alone where that is no longer as the machine made it, and says so", function()
    local vm, said = machine("", {}), {}
    vm.devices.a20.logger = function(text) said[#said + 1] = text end
    vm.default:unmap(MIB, 0x1000)
    vm.devices.ports.PORT92.a20 = 0
    assert.equal(1, #said)
    helper.contains("a20: memory stays as it was: ", said[1])
    assert.is_nil(vm.default:find(MIB))
  end)

  it("stays open in a machine without the gate", function()
    local said = says("fast 0\n high\n keyboard 0xdd\n high", { devices = { a20 = false } })
    assert.equal("hh", said)
  end)
end)
