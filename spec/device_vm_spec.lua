-- SPDX-License-Identifier: MIT
-- Devices of the kit in a VM: attached, watched, replaced; and accesses that nobody takes.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local t = require "lunavisor.testing"
local contains, raises, refused = helper.contains, helper.raises, helper.refused

local function counter(more)
  local spec = {
    width = 4, size = 0x10,
    registers = {
      COUNT = { at = 0, write = function(dev, n)
        dev.DONE = n
        dev.dma:u32(0x2000, n + 1)
      end },
      DONE = { at = 4, access = "w1c" },
    },
    lines = { irq = { status = "DONE" } }, timers = { tick = function(dev) dev.COUNT = 77 end },
  }
  for key, value in pairs(more or {}) do spec[key] = value end
  return device "counter"(spec)
end

-- A guest that writes 5 to the counter's register and reads it.
local SOURCE = "mov rbx, 0xd0000000\n mov dword [rbx], 5\n mov eax, [rbx]\n hlt"

local function guest(source, options)
  return helper.guest { source = source or SOURCE, mode = "long", vm = options }
end

helper.kvm("a device that is attached", function()
  it("answers at its address, and has the guest's memory", function()
    local g = guest()
    local dev = g.vm:attach(counter(), { mmio = 0xd0000000 })
    g:stops "hlt"
    assert.equal(5, luna.u64.tonumber(g.cpu.rax))
    assert.equal(6, g.ram:u32(0x2000))
    assert.equal(dev, g.vm.devices.counter)
    assert.equal(g.vm, dev.vm)
    assert.equal(2, g.vm:devices()[1].at[1].trap.hits)
    local ok, message = dev.dma:read(2 ^ 40, 4)
    assert.is_nil(ok)
    helper.contains("counter: DMA cannot read 4 bytes at gpa 0x10000000000", message)
  end)

  it("answers at ports, and drives lines of the VM", function()
    local g = guest("mov dx, 0x300\n mov eax, 1\n out dx, eax\n out 0x80, al",
      { irqchip = "kernel" })
    local other = device.line "other"
    local dev = g.vm:attach(counter(), { pio = 0x300, irq = 5 })
    dev.irq:connect(other)
    g:stops "pio"
    assert.is_true(g.vm:line(5).level)
    assert.is_true(other.level)
    assert.equal("counter\n  port 0x300..0x30f\n  irq: up -> vm line 5, other",
      tostring(g.vm:devices()))
  end)

  it("goes by the VM's clock, also with timers from before", function()
    local clock = device.clock()
    local g = guest(nil, { clock = clock })
    local dev = counter { reset = function(d) d:after(2, "tick") end } ()
    dev.clock:advance(1)
    g.vm:attach(dev, { mmio = 0xd0000000 })
    assert.equal(clock, g.vm.clock)
    clock:advance(0.9)
    assert.equal(0, dev.COUNT)
    clock:advance(0.1)
    assert.equal(77, dev.COUNT)
  end)

  it("gets timers in real time while the guest runs", function()
    local g = guest("jmp $")
    local dev = g.vm:attach(counter { timers = { tick = function(d)
      d.COUNT = 1
      d.vm.vcpus[1]:stop()
    end } }, { mmio = 0xd0000000 })
    dev:after(0.01, "tick")
    g:stops "stopped"
    assert.equal(1, dev.COUNT)
  end)

  it("is not where memory or a chip of the accelerator hides it from the guest", function()
    local g = guest()
    local at = g.vm.default:regions()[1].gpa
    raises(("vm:attach: counter at gpa 0x%x..0x%x: memory is mapped at 0x%x..0x%x (rwx), whose "
      .. "accesses come to no device; unmap that part first"):format(at + 0x20, at + 0x2f, at,
      at + g.vm.default:regions()[1].size - 1), function()
      g.vm:attach(counter() { log = false }, { mmio = at + 0x20 })
    end)
    assert.equal("", tostring(g.vm:devices()))
    g.vm:attach(counter() { log = false }, { mmio = 0xd0000000 })
  end)

  it("never overlaps another unnoticed, and has a name of its own", function()
    local vm = guest().vm
    local kind = counter()
    local dev = vm:attach(kind, { mmio = 0xd0000000 })
    raises("vm:attach: second at gpa 0xd0000008..0xd0000017 overlaps the device at gpa 0xd0000000 "
      .. "(counter, given at ", function()
      vm:attach(kind { name = "second" }, { mmio = 0xd0000008 })
    end)
    raises("there is a device counter already", function() vm:attach(kind, {}) end)
    raises("attached already", function() vm:attach(dev, { name = "again" }) end)
    raises("vm:attach: a table of options expected, as { mmio = 0xd0000000, irq = 5 }, got number",
      function() vm:attach(kind, 0xd0000000) end)
    raises("vm:attach: unknown option 'irg'; did you mean 'irq'?",
      function() vm:attach(kind { name = "x" }, { irg = 5 }) end)
    raises("counter has no region man; did you mean 'main'?",
      function() vm:attach(kind(), { name = "x", mmio = { man = 0 } }) end)
    raises("vm:attach: a device of the kit or a class of them expected, got table",
      function() vm:attach({}, {}) end)
    raises("there is no device countr; did you mean 'counter'?",
      function() return vm.devices.countr end)
    vm:detach(dev)
    vm:attach(kind { name = "second" }, { mmio = 0xd0000008 })
    raises("that device is not attached", function() vm:detach(dev) end)
  end)

  it("is called as it is attached, with its lines, inputs and regions", function()
    local g = guest "mov ebx, 0xd0000000\n mov eax, [rbx]\n hlt"
    local kind = device "twin" {
      regions = { main = { registers = { A = { at = 0, read = function(dev) return dev.A end } } },
        more = { registers = { B = { at = 0 } } } },
      lines = { irq = true }, inputs = { go = function() end },
    }
    local one = g.vm:attach(kind, { name = "one", mmio = { main = 0xd0000000 } })
    local two = g.vm:attach(kind, { name = "two", irq = one.inputs.go })
    assert.same({ "one", "one.irq", "one.inputs.go", "one.main" },
      { one.name, one.irq.name, one.inputs.go.name, one.regions.main.name })
    contains("two\n  irq: down -> one.inputs.go", tostring(g.vm:devices()))
    contains("line two.irq (down", tostring(two.irq))
    raises("device two has no line irk; did you mean 'irq'?", function() return two.lines.irk end)
    raises("device two has no input og", function() return two.inputs.og end)
    assert.is_nil((two.dma:read(2 ^ 40, 1)))
    contains("two: DMA cannot read", (select(2, two.dma:read(2 ^ 40, 1))))
    local seen = 0
    g.vm:watch("one", function() seen = seen + 1 end)
    g:stops "hlt"
    assert.equal(1, seen)
    local bus = t.bus(kind, { options = { name = "third" } })
    assert.equal("third.irq", bus:line("irq").name)
  end)

  it("is named in errors, with its register and the author's lines", function()
    local g = guest()
    g.vm:attach(counter { lines = {}, registers = {
      R = { at = 0, write = function() error "boom" end },
    } }, { mmio = 0xd0000000 })
    local message = helper.fails(g)
    helper.contains("boom", message)
    helper.contains("counter.R write", message)
    helper.contains("in the device at gpa 0xd0000000 (counter, given at ", message)
    helper.contains(", rip 0x100", message)
    assert.is_nil(message:find("lunavisor/device/", 1, true))
  end)
end)

helper.kvm("a device of several regions", function()
  it("has each at its own place", function()
    local g = guest("mov rbx, 0xd0000000\n mov dx, 0x300\n in eax, dx\n add [rbx], eax\n hlt")
    local dev = g.vm:attach(device "two" { regions = {
      config = { registers = { ID = { at = 0, reset = 3 } } },
      bar = { width = 4, registers = { SUM = { at = 0, reset = 4 } } },
    } }, { pio = { config = 0x300 }, mmio = { bar = 0xd0000000 } })
    g:stops "hlt"
    assert.equal(7, dev.SUM)
    assert.equal(3, dev.regions.config:read(0, 4))
  end)
end)

helper.kvm("watching", function()
  it("sees every access with its answer, and ends", function()
    local g = guest()
    local seen, all = {}, 0
    g.vm:attach(counter(), { mmio = 0xd0000000 })
    local watch = g.vm:watch("counter", function(a)
      seen[#seen + 1] = ("%s %s 0x%x %d %s"):format(a.name, a.access, a.address, a.size, a.value)
    end)
    local every = g.vm:watch(function() all = all + 1 end)
    local none = g.vm:watch("cuonter", error)
    g:stops "hlt"
    assert.same({ "counter w 0xd0000000 4 5", "counter r 0xd0000000 4 5" }, seen)
    assert.equal(2, all)
    watch:close()
    watch:close()
    every:close()
    none:close()
    g.cpu.rip = 0x1000
    g:stops "hlt"
    assert.equal(2, #seen)
    assert.equal(4, g.vm.devices.counter and g.vm:devices()[1].at[1].trap.hits)
    raises("vm:watch: a function expected", function() g.vm:watch "counter" end)
  end)
end)

helper.kvm("what nobody takes", function()
  local source = "in al, 0x80\n out 0x80, al\n mov rbx, 0xd0000000\n mov ecx, [rbx]\n hlt"

  it("stops the guest, is ones, or zeros; and is listed", function()
    for policy, value in pairs { ones = 0xff, zeros = 0 } do
      local g = guest(source, { unknown = policy })
      g:stops "hlt"
      assert.equal(value, luna.u64.tonumber(luna.u64.band(g.cpu.rax, 0xff)))
      local list = g.vm:unknown()
      assert.equal(3, #list)
      assert.equal("read of 1 byte at port 0x80, 1 time, at last from rip 0x1000",
        tostring(list[1]))
      assert.same({ "mmio", 0xd0000000, 4, "r", 1 }, { list[2].kind, list[2].address,
        list[2].size, list[2].access, list[2].count })
    end
    local g = guest(source)
    g:stops "pio"
    assert.equal(1, #g.vm:unknown())
    raises("luna.vm: unknown: 'stop', 'ones', 'zeros' or 'log' expected, got one; did you mean "
      .. "'ones'?", function() luna.vm { unknown = "one" } end)
  end)

  it("goes to handlers first", function()
    local g = guest("in al, 0x80\n hlt", { unknown = "ones" })
    g.cpu:on("pio", function() return 0x12 end)
    g:stops "hlt"
    assert.equal(0x12, luna.u64.tonumber(luna.u64.band(g.cpu.rax, 0xff)))
    assert.equal(0, #g.vm:unknown())
  end)
end)

helper.kvm("replacing a device", function()
  it("keeps state, places, lines and inputs, while the guest runs", function()
    local g = guest((SOURCE:gsub("hlt", "mov dword [rbx + 8], 1\n hlt")))
    local vm, other = g.vm, device.line "other"
    local new_kind = counter { registers = {
      COUNT = { at = 0, write = function() end }, DONE = { at = 4 },
      MORE = { at = 8, write = function(dev, n) dev.last = n end },
    }, state = { last = 0 } }
    local old = vm:attach(counter(), { mmio = 0xd0000000 })
    old.irq:connect(other)
    local told = {}
    other:connect(function(level) told[#told + 1] = level end)
    local watch, new, differs
    watch = vm:watch(function(access)
      if access.access == "r" then
        watch:close()
        new, differs = vm:replace(old, new_kind)
      end
    end)
    g:stops "hlt"
    assert.equal(new, vm.devices.counter)
    assert.equal(5, new.COUNT)
    assert.equal(1, new.last)
    assert.same({ "the state has no register MORE", "the state has no field last" }, differs)
    assert.same({ true }, told)
    new.DONE = 0
    assert.same({ true, false }, told)
  end)

  it("with a file that has a mistake says where, and keeps the old one", function()
    local vm = guest().vm
    local old = vm:attach(counter(), { mmio = 0xd0000000 })
    local path = helper.file "return {\n  ) }"
    refused("file", path:match "[^/]*$" .. ":2:", vm:replace(old, path))
    refused("file", "it returns no device", vm:replace(old, helper.file "return {}"))
    refused("state", "region main is 0x8 bytes now and was 0x10",
      vm:replace(old, counter { size = 8 }))
    assert.equal(old, vm.devices.counter)
  end)
end)

helper.kvm("a region that is memory for a while", function()
  -- A region of 8 KB whose functions answer 0x11 and note writes, and a flag that a guest sets.
  local function window(more)
    local spec = {
      regions = {
        window = { size = 0x2000, read = function() return 0x11 end,
          write = function(d, offset) d.written = offset end },
        control = { registers = { ON = { at = 0, write = function(d, on)
          d:expose("window", on > 0 and { buffer = d.options.memory, at = 0x1000,
            rights = on == 2 and "r-x" or nil })
        end } } },
      },
      options = { memory = false }, state = { written = -1 },
    }
    for key, value in pairs(more or {}) do spec[key] = value end
    return device "window"(spec)
  end

  local function try(source, options)
    local g = guest(source)
    local memory = helper.keep(luna.buffer "64K")
    memory:fill(0x22, 0, 0x1000)
    local said = {}
    local dev = window() { memory = memory, log = function(text) said[#said + 1] = text end }
    g.vm:attach(dev, { mmio = { window = options and options.at or 0xd0000000,
      control = 0xd0010000 } })
    g:stops "hlt"
    return g, dev, memory, said
  end

  local ON = "mov rbx, 0xd0000000\n mov dword [rbx + 0x10000], %d\n mov al, [rbx]\n "
    .. "mov ah, [rbx + 0x1000]\n mov byte [rbx + 0x1005], 0x33\n hlt"

  it("is the guest's where the device says so, with the rights that it says", function()
    local g, dev, memory = try(ON:format(1))
    assert.equal(0x2211, luna.u64.tonumber(g.cpu.rax) % 0x10000)
    assert.same({ -1, 0x33 }, { dev.written, memory:u8(5) })
    g, dev, memory = try(ON:format(2))
    assert.equal(0x2211, luna.u64.tonumber(g.cpu.rax) % 0x10000)
    assert.same({ 0x1005, 0x22 }, { dev.written, memory:u8(5) })
    g, dev, memory = try(ON:format(0))
    assert.equal(0x1111, luna.u64.tonumber(g.cpu.rax) % 0x10000)
    assert.same({ 0x1005, 0x22 }, { dev.written, memory:u8(5) })
  end)

  it("is memory no more when it is detached, and in its other place", function()
    local g, dev = try(ON:format(1))
    assert.equal(0x22, g.vm.default:u8(0xd0001000))
    g.vm:detach(dev)
    assert.is_nil((g.vm.default:try_read(0xd0001000, 1)))
    g.vm:attach(dev, { mmio = { window = 0xe0000000 } })
    assert.equal(0x22, g.vm.default:u8(0xe0001000))
    g.vm:replace(dev, window() { memory = dev.options.memory })
    assert.is_nil((g.vm.default:try_read(0xe0001000, 1)))
  end)

  it("is the device's where it cannot be mapped, and that is said", function()
    local g, dev, _, said = try("hlt", { at = 0x10000000 })
    assert(g.vm.default:map(helper.keep(luna.buffer "4K"), 0x10001000))
    dev.regions.control.write(nil, 0, 4, 1)
    assert.equal(1, #said)
    helper.contains("expose: cannot map gpa 0x10001000..0x10001fff in space 0", said[1])
    assert.equal(0, g.vm.default:u8(0x10001000))
  end)

  it("is refused where it is no piece of both", function()
    local dev = window() {}
    local memory = helper.keep(luna.buffer "4K")
    raises("dev:expose: window has no region windw; did you mean 'window'?",
      function() dev:expose("windw", false) end)
    raises("dev:expose: 0x2000 bytes at offset 0x1000 of region window.window, which has 0x2000",
      function() dev:expose("window", { buffer = memory, at = 0x1000, size = "8K" }) end)
    raises("dev:expose: buffer: a buffer expected, got nil",
      function() dev:expose("window", {}) end)
    raises("dev:expose: unknown option 'size_'",
      function() dev:expose("window", { buffer = memory, size_ = 1 }) end)
  end)
end)
