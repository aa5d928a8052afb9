-- SPDX-License-Identifier: MIT
-- Devices to which nothing would ever come: over memory that allows all that they answer, over the
-- controllers of the accelerator. They are refused, and told of where memory comes later.

local luna = require "lunavisor"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local raises, contains = helper.raises, helper.contains

local PLACE = 0x40000000

local function reader() return { read = function() return 7 end } end
local function writer() return { write = function() end } end
local function both() return { read = function() return 7 end, write = function() end } end

helper.kvm("a device that memory hides", function()
  local vm, ram
  before_each(function()
    vm = helper.keep(assert(luna.vm()))
    ram = helper.keep(assert(luna.buffer "64K"))
  end)

  it("is refused, with both places", function()
    assert(vm.default:map(ram, PLACE))
    raises("vm:mmio: gpa 0x40000ff0..0x4000100f: memory is mapped at 0x40000000..0x4000ffff (rwx), "
      .. "whose accesses come to no device; unmap that part first",
      function() vm:mmio(PLACE + 0xff0, 0x20, both()) end)
    raises("vm:mmio: gpa 0x3ffff000..0x40000fff: memory is mapped at 0x40000000..0x4000ffff",
      function() vm:mmio(PLACE - 0x1000, 0x2000, { memory = ram }) end)
    assert(vm:mmio(PLACE - 0x1000, 0x1000, both()))
    assert(vm:mmio(PLACE + 0x10000, 0x1000, both()))
    assert.equal(2, vm.default:regions()[1].gpa == PLACE and #vm.default:regions() + 1)
    vm.default:unmap(PLACE, 0x10000)
    assert(vm:mmio(PLACE, 0x1000, both()))
  end)

  it("may have what the rights forbid", function()
    assert(vm.default:map(ram, PLACE, ram.size, "r-x"))
    raises("(r-x)", function() vm:mmio(PLACE, 0x1000, reader()) end)
    assert(vm:mmio(PLACE, 0x1000, writer()))
    assert(vm:mmio(PLACE + 0x1000, 0x1000, both()))
    vm.default:protect(PLACE, ram.size, "---")
    assert(vm:mmio(PLACE + 0x2000, 0x1000, reader()))
    vm.default:protect(PLACE, ram.size, "rwx")
    raises("(rwx)", function() vm:mmio(PLACE + 0x3000, 0x1000, writer()) end)
  end)

  it("is taken where one of several spaces lets accesses come to it", function()
    local second = assert(vm:space())
    assert(vm.default:map(ram, PLACE))
    assert(vm:mmio(PLACE, 0x1000, both()))
    assert(second:map(ram, PLACE + 0x4000, 0x4000, "rwx"))
    assert(vm:mmio(PLACE + 0x2000, 0x2000, both()))
    raises("vm:mmio: gpa 0x40004000..0x40004fff: memory is mapped at 0x40000000",
      function() vm:mmio(PLACE + 0x4000, 0x1000, both()) end)
    second:protect(PLACE + 0x4000, 0x1000, "---")
    assert(vm:mmio(PLACE + 0x4000, 0x1000, both()))
    raises("memory is mapped", function() vm:mmio(PLACE + 0x7000, 0x2000, both()) end)
    second:close()
    raises("memory is mapped", function() vm:mmio(PLACE + 0x8000, 0x1000, both()) end)
  end)

  it("is told of where memory comes later, unless it has put it there itself", function()
    local guest = helper.guest { source = "hlt" }
    local plain = device "plain" { size = 4096, registers = { A = { at = 0 } } }
    local framed = device "framed" { size = 4096, registers = { A = { at = 0 } },
      buffers = { own = 4096 } } { log = false }
    local trap = guest.vm:mmio(PLACE, 0x1000, both())
    assert(guest.vm:attach(plain { log = false }, { mmio = PLACE + 0x1000 }))
    assert(guest.vm:attach(framed, { mmio = PLACE + 0x2000 }))
    framed:expose("main", { buffer = framed.own })
    assert(guest.vm.default:map(ram, PLACE, 0x2000, "rwx"))
    local said = "memory is mapped at 0x40000000..0x40001fff (rwx), whose accesses come to no "
      .. "device; unmap that part first"
    assert.equal(("trap %d (mmio 0x40000000..0x40000fff, but %s)"):format(trap.id, said),
      tostring(trap))
    local why = guest:stops("hlt"):explain()
    assert.equal(2, #why.hidden)
    assert.equal(trap, why.hidden[1].trap)
    contains("Devices to which nothing can come:\n  the device at gpa 0x40000000 (given at ",
      tostring(why))
    contains("hidden_spec.lua:", tostring(why))
    contains("  the device at gpa 0x40001000 (plain, given at ", tostring(why))
    guest.vm.default:unmap(PLACE, 0x2000)
    assert.same({}, guest.cpu:run { timeout = 1 }:explain().hidden)
    trap:close()
    assert.equal(("trap %d (mmio 0x40000000..0x40000fff, closed)"):format(trap.id), tostring(trap))
  end)

  it("does not make a PCI function raise for the place that a guest gives it", function()
    local pci = require "lunavisor.device.models.pci"
    local kind = pci.device "card" { pci = { vendor = 1, device = 2, class = 0x020000,
      bars = { [0] = { region = "bar", size = 4096 } } },
      regions = { bar = { size = 4096, registers = { A = { at = 0 } } } } }
    local host = assert(vm:attach(require "lunavisor.device.models.pci_host" { log = false,
      map = pci.mapper(vm) }, { pio = { main = 0xcf8, data = 0xcfc } }))
    local said = {}
    host:add(kind { log = function(text) said[#said + 1] = text end }, 3)
    assert(vm.default:map(ram, PLACE))
    assert(vm:mmio(PLACE + 0x10000, 0x1000, both()))
    local main, data = host.regions.main, host.regions.data
    local function put(register, value)
      main:write(0, 4, 0x80001800 + register)
      data:write(0, 4, value)
    end
    put(4, 2)
    put(0x10, PLACE)
    assert.same({}, said)
    put(0x10, PLACE + 0x10000)
    assert.equal(1, #said)
    contains("is nowhere: ", said[1])
  end)
end)

helper.kvm("a device in the place of the accelerator's own", function()
  local function vm_of(options)
    local vm, message = luna.vm(options)
    if not vm then pending(message) end
    return helper.keep(vm)
  end

  it("is refused where KVM has PICs, a PIT and an I/O APIC", function()
    local vm = vm_of { irqchip = "kernel", pit = true }
    for port, text in pairs { [0x20] = "a PIC of irqchip = 'kernel' is at 0x20..0x21",
      [0xa1] = "a PIC of irqchip = 'kernel' is at 0xa0..0xa1",
      [0x4d1] = "the PICs of irqchip = 'kernel' is at 0x4d0..0x4d1",
      [0x3f] = "a PIT of irqchip = 'kernel' is at 0x40..0x43",
      [0x61] = "a PIT of irqchip = 'kernel' is at 0x61..0x61" } do
      raises(("vm:pio: ports 0x%x..0x%x: %s, whose accesses come to no device; make the VM ")
        :format(port, port + 1, text), function() vm:pio(port, 2, both()) end)
    end
    raises("vm:mmio: gpa 0xfec00000..0xfec0001f: an I/O APIC of irqchip = 'kernel' is at "
      .. "0xfec00000..0xfec000ff", function() vm:mmio(0xfec00000, 0x20, both()) end)
    raises("vm:attach: pic at port 0x20..0x21: a PIC of irqchip", function()
      local pic = device "pic" { width = 1, size = 2, registers = { A = { at = 0 } } }
      vm:attach(pic { log = false }, { pio = 0x20 })
    end)
    assert(vm:pio(0x22, 2, both()))
  end)

  it("is taken where it has not", function()
    local vm = vm_of { irqchip = "kernel" }
    assert(vm:pio(0x40, 4, both()))
    assert(vm:pio(0x61, 1, both()))
    vm = vm_of { irqchip = "split" }
    assert(vm:pio(0x20, 2, both()))
    assert(vm:mmio(0xfec00000, 0x20, both()))
  end)
end)
