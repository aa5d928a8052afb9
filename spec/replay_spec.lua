-- SPDX-License-Identifier: MIT
-- Recordings of buses and VMs, and replays of them: exact, with the first difference by name, and
-- renewed by a switch.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local luna = require "lunavisor"
local recordings = require "lunavisor.testing.recording"
local t = require "lunavisor.testing"
local contains, raises, said = helper.contains, helper.raises, helper.said

-- A device with all that a recording has: `bug` and `version` make it another one.
local function gadget(bug, version)
  bug = bug or {}
  return device "gadget" {
    version = version, options = { step = 1, output = false }, holds = "sent",
    registers = {
      CTRL = { at = 0, fields = { on = 0 } },
      COUNT = { at = 4, access = "ro", read = function(_, value)
        return value + (bug.read and value > 2 and 1 or 0)
      end },
      ISR = { at = 8, access = "w1c" }, IER = { at = 0xc },
      COPY = { at = 0x10, write = function(dev, gpa)
        local word = dev.dma:u32(gpa)
        dev.COPY = word or 0xdead
        if word then dev.dma:u32(gpa + 4, word + (bug.dma or 1)) end
      end },
      WIDE = { at = 0x18, width = 8 },
      TIME = { at = 0x20, access = "ro", read = function(dev)
        return math.floor(dev.now * 1e6) % 2 ^ 32
      end },
    },
    lines = { irq = { status = "ISR", enable = "IER" } },
    inputs = { button = function(dev, up) if up and not bug.deaf then dev.ISR = 2 end end },
    timers = { tick = function(dev)
      dev.COUNT = dev.COUNT + dev.options.step + (bug.tick or 0)
      dev.ISR = 1
    end },
    reset = function(dev) dev:every(1e-3, "tick") end,
    methods = {
      feed = function(dev, text)
        dev.COUNT = dev.COUNT + #text
        return #text + (bug.method or 0)
      end,
      take = function(dev, thing) return dev, thing end,
    },
  }
end

-- What the specs let come to a gadget.
local function play(bus)
  bus:write32("IER", 3)
  bus:pass(2.5e-3)
  bus:read32("COUNT")
  bus:write32("ISR", 1)
  bus.device:feed "ab\n\"c"
  bus:line("button"):set(true)
  bus:write32("ISR", 2)
  bus.memory:u32(0x100, 41)
  bus:write32("COPY", 0x100)
  bus:write32("COPY", 0xf0000000)
  bus:write64("WIDE", luna.u64(0x12345678, 0x9abcdef0))
  bus:read64("WIDE")
  bus:read(5, 1)
  bus:pass(1e-3)
  bus:read32("TIME")
end

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

local function write(text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

-- A recording of what play does.
local function recorded(kind, fn)
  local bus = t.bus(kind or gadget())
  local recording = assert(bus:record(path))
  ;(fn or play)(bus)
  recording:close()
  return bus
end

describe("bus:record", function()
  it("writes lines that a replay does again", function()
    local bus = recorded()
    local replay = t.replay(path, t.bus(gadget()))
    assert.equal(10, replay.accesses)
    assert.equal(path, replay.path)
    contains("\nm1 0 feed {\"ab\\010\\034c\",n=1} 5\n", files.read(path))
    contains("\nr1 4 4 2\n", files.read(path))
    contains("\nl1 irq 1\n", files.read(path))
    contains("\nd1 100 29000000\nD1 104 2a000000\n", files.read(path))
    contains("\nr1 18 8 123456789abcdef0\n", files.read(path))
    assert.equal("gadget", bus.device.name)
  end)

  it("leaves the device as it was, and says what it is", function()
    local bus = t.bus(gadget())
    local dev = bus.device
    local read, feed, memory = dev.read, dev.feed, dev.dma.memory
    local sinks, source = #dev.irq.sinks, dev.clock.source
    local recording = assert(bus:record(path))
    assert.are_not.equal(read, dev.read)
    contains("(0 accesses)", tostring(recording))
    bus:read32("CTRL")
    assert.equal(1, recording.accesses)
    recording:close()
    recording:close()
    contains("(1 access, closed)", tostring(recording))
    assert.equal(read, dev.read)
    assert.equal(feed, dev.feed)
    assert.equal(memory, dev.dma.memory)
    assert.is_nil(rawget(dev, "feed"))
    assert.equal(sinks, #dev.irq.sinks)
    assert.equal(source, dev.clock.source)
  end)

  it("begins with whatever state there is", function()
    local bus = t.bus(gadget())
    play(bus)
    local recording = assert(bus:record(path))
    play(bus)
    recording:close()
    t.replay(path, t.bus(gadget()))
  end)

  it("is the same file for the same accesses", function()
    recorded()
    local first = files.read(path)
    recorded()
    assert.equal(first, files.read(path))
  end)

  it("has blocks of string I/O", function()
    local function disk(byte)
      return device "disk" { width = 1, registers = { DATA = { at = 0,
        read = function() return byte end,
        block = { read = function(_, count) return string.char(byte):rep(count) end,
          write = function(dev, bytes) dev.LAST = bytes:byte(-1) end } }, LAST = { at = 1 } } }
    end
    recorded(disk(7), function(bus)
      local region = bus.device.regions.main
      region:write_block(0, 1, "abc")
      assert.equal("\7\7\7\7", region:read_block(0, 2, 2))
      bus:read8("LAST")
    end)
    contains("\nB1 0 1 616263\nb1 0 2 07070707\nr1 1 1 63\n", files.read(path))
    assert.equal(3, t.replay(path, t.bus(disk(7))).accesses)
    contains("access 2: block from 2 bytes at offset 0x0 differs:\n  0x0: 08 08 08 08",
      said(t.replay, path, t.bus(disk(8))))
  end)

  it("passes on what a device raises, and goes on", function()
    local kind = device "moody" { unknown = "error", registers = { A = { at = 0 } } }
    recorded(kind, function(bus)
      assert.is_false(pcall(bus.read32, bus, 4))
      bus:write32("A", 5)
      bus:read32("A")
    end)
    assert.equal(2, t.replay(path, t.bus(kind)).accesses)
  end)

  it("refuses what it cannot do", function()
    local bus = t.bus(gadget())
    raises("bus:record: the path of a file expected, got nil", function() bus:record() end)
    raises("a device of the kit expected", function()
      t.bus({ read = function() return 0 end }):record(path)
    end)
    local made, message, code = bus:record "/no/such/folder/file"
    assert.is_nil(made)
    contains("cannot record: /no/such/folder/file: ", message)
    assert.equal("system", code)
  end)
end)

describe("t.replay names", function()
  local function finds(bug, text, what)
    recorded()
    contains(path .. ": " .. text, said(t.replay, path, what or t.bus(gadget(bug))))
  end

  it("the first answer that differs", function()
    recorded(nil, function(bus)
      for _ = 1, 1203 do bus:read32("COUNT") end
      bus:pass(3e-3)
      bus:read32("COUNT")
    end)
    contains("access 1,204: read of COUNT gave 0x4, was 0x3", said(t.replay, path,
      t.bus(gadget { read = true })))
  end)

  it("a line that does not change, and one that does", function()
    finds({ deaf = true }, "after access 3, when input button changed: gadget: nothing, was: "
      .. "line irq goes up")
    recorded(gadget { deaf = true })
    contains("after access 4, when input button changed: gadget: line irq goes up, and did not",
      said(t.replay, path, t.bus(gadget())))
  end)

  it("other DMA", function()
    finds({ dma = 2 }, "access 5 (write of 0x100 to COPY): gadget: DMA to gpa 0x104: 2b000000, "
      .. "was: DMA to gpa 0x104: 2a000000")
  end)

  it("what a timer does", function()
    finds({ tick = 1 }, "access 2: read of COUNT gave 0x4, was 0x2")
  end)

  it("another result of a method", function()
    finds({ method = 1 }, "after access 3: gadget:feed gave 6, was 5")
  end)

  it("what raises", function()
    recorded()
    local bus = t.bus(gadget())
    bus:before_write("COPY", function() error("no more", 0) end)
    contains("access 5 (write of 0x100 to COPY) raises: no more", said(t.replay, path, bus))
  end)

  it("a call with what no file can hold", function()
    recorded(nil, function(bus) bus.device:take(print) end)
    contains("the call of take had arguments that a recording cannot hold", said(t.replay, path,
      t.bus(gadget())))
  end)
end)

describe("t.replay refuses", function()
  it("another device", function()
    recorded()
    raises("has no device lamp; it has gadget", function()
      t.replay(path, t.bus(device "lamp" { registers = {} }))
    end)
    raises("device gadget: it was a gadget, version 1, and is a gadget, version 2", function()
      t.replay(path, t.bus(gadget(nil, 2)))
    end)
    raises("its option step was 1, and is 2", function()
      t.replay(path, t.bus(gadget(), { options = { step = 2 } }))
    end)
    raises("device gadget: it has a region other, and had none", function()
      t.replay(path, { gadget = t.bus(device "gadget" { options = { step = 1, output = false },
        regions = { other = { registers = {} } } }) })
    end)
    raises("has no device other; it has gadget", function()
      t.replay(path, { other = t.bus(gadget()) })
    end)
    raises("a bus, or buses by the names of devices, expected, got number", function()
      t.replay(path, 5)
    end)
    raises("the path of a recording expected", function() t.replay(nil) end)
  end)

  local function damaged(from, to, text)
    return function()
      recorded()
      write((files.read(path):gsub(from, to, 1)))
      contains(text, said(t.replay, path, t.bus(gadget())))
    end
  end

  it("what is no recording", damaged("^lunavisor", "lunaviser", ":1: this is no recording"))
  it("another version", damaged("recording 1", "recording 9",
    ":1: a recording of version 9; this library reads version 1"))
  it("a line that it does not know", damaged("\nl1 irq 1", "\nq1 irq 1",
    "the recording is damaged: nothing that a recording has"))
  it("an access of no place", damaged("\nr1 4", "\nr7 4", "damaged: there is no place 7"))
  it("a value that is too wide", damaged("\nr1 4 4 2\n", "\nr1 4 4 200000000\n",
    "damaged: 200000000 is no value of 4 bytes"))
  it("a line of no device", damaged("\nl1 ", "\nl2 ", "damaged: there is no device 2"))
  it("a state that is none", damaged("\nstate 1 {", "\nstate 1 {{",
    ":4: the recording is damaged: plain values expected"))
  it("half a byte of DMA", damaged("29000000", "2900000", "an address and bytes expected"))
  it("a file that is cut off", damaged("\nend %d+\n", "\n",
    "its end is missing: the recording was not closed"))
  it("a file from which something is gone", damaged("\nr1 4 4 2\n", "\n",
    "damaged: 10 accesses, and 9 are there"))
  it("a file that is not there", function()
    contains("/no/such/file", said(t.replay, "/no/such/file", t.bus(gadget())))
  end)

  it("whatever else it becomes, with the line", function()
    recorded()
    local text = files.read(path)
    local random = require("lunavisor.testing.chance").new(1)
    for _ = 1, 300 do
      local at = random(#text) + 1
      write(text:sub(1, at - 1) .. string.char(random(256)) .. text:sub(at + 1))
      local file, message = recordings.read(path)
      assert.is_true(file ~= nil or message:find "^[^:]+:%d+: " ~= nil, message)
    end
  end)
end)

describe("replay:to", function()
  it("puts the device into the state at an access", function()
    recorded()
    local bus = t.bus(gadget())
    local replay = t.replay(path, bus)
    replay:to(4)
    assert.equal(2 + 5, bus.device.COUNT)
    assert.is_false(bus.device.lines.irq)
    assert.equal(replay, replay:to(1))
    assert.equal(0, bus.device.COUNT)
    assert.equal(3, bus.device.IER)
    bus:pass(1e-3)
    assert.equal(1, bus.device.COUNT)
    raises("a number of accesses from 0 to 10 expected, got 12", function() replay:to(12) end)
    raises("a VM expected, got table", function() replay:to(1, {}) end)
    raises("a VM expected, as t.replay was given no bus", function() t.replay(path):to(1) end)
  end)
end)

describe("LUNA_GOLDEN=renew", function()
  local getenv = os.getenv
  after_each(function() os.getenv = getenv end) -- luacheck: ignore
  local function renew(bus)
    os.getenv = function(name) -- luacheck: ignore
      if name == "LUNA_GOLDEN" then return "renew" end
      return getenv(name)
    end
    t.replay(path, bus)
    os.getenv = getenv -- luacheck: ignore
  end

  it("writes the file as the device is now", function()
    recorded()
    local before = files.read(path)
    renew(t.bus(gadget()))
    assert.equal((before:gsub("input [^\n]*\n", "")), (files.read(path):gsub("input [^\n]*\n", "")))
    local changed = { read = true, dma = 3, method = 2, deaf = true }
    assert.is_false(pcall(t.replay, path, t.bus(gadget(changed, 2))))
    renew(t.bus(gadget(changed, 2)))
    assert.equal(10, t.replay(path, t.bus(gadget(changed, 2))).accesses)
    contains("\nD1 104 2c000000\n", files.read(path))
    contains("device 1 gadget 2 ", files.read(path))
    assert.is_false(pcall(t.replay, path, t.bus(gadget())))
  end)
end)

helper.kvm("vm:record", function()
  local function guest_of(kind, options)
    local vm = helper.keep(assert(luna.vm(options)))
    local ram = helper.keep(assert(luna.buffer "64K"))
    vm.default:map(ram, 0)
    ram:write(0x2000, "\41\0\0\0\0\0\0\0")
    ram:write(0x1000, assert(luna.asm([[
      mov ebx, 0xd0000000
      mov dword [rbx + 0xc], 3
      again:
      mov eax, [rbx + 4]
      cmp eax, 3
      jb again
      mov dword [rbx + 8], 1
      mov dword [rbx + 0x10], 0x2000
      mov eax, [rbx + 0x20]
      in al, 0x40
      hlt]], { bits = 64, org = 0x1000 })))
    vm:pio(0x40, 1, { name = "port", read = function() return 7 end })
    local dev = assert(vm:attach(kind, { mmio = 0xd0000000, irq = function() end }))
    local cpu = assert(vm:vcpu { mode = "long", rip = 0x1000 })
    return vm, cpu, dev, ram
  end

  it("is replayed without the VM, in real time and with hands at work", function()
    local vm, cpu, _, ram = guest_of(gadget())
    local recording = assert(vm:record(path))
    raises("this VM records already", function() vm:record(path) end)
    local exit = cpu:run { timeout = 60 }
    assert.equal("hlt", exit.kind, tostring(exit))
    vm:close()
    assert.is_true(recording.closed)
    assert.equal("\42\0\0\0", ram:read(0x2004, 4))
    contains("mmio d0000000 36\n", files.read(path))
    contains("\nx hlt at rip 0x10", files.read(path))
    contains("\ndevice 2 - 1 1 ", files.read(path))
    local replay = t.replay(path, t.bus(gadget()))
    assert.is_true(replay.accesses >= 6)
    t.replay(path, { gadget = t.bus(gadget()), port = t.bus { read = function() return 7 end } })
    contains("read of 1 byte at offset 0x0 gave 0x8, was 0x7", said(t.replay, path,
      { port = t.bus { read = function() return 8 end } }))
    contains("gave", said(t.replay, path, t.bus(gadget { read = true })))
  end)

  it("has devices that are attached and replaced meanwhile", function()
    local clock = device.clock()
    local vm, cpu, dev = guest_of(gadget(), { clock = clock })
    local recording = assert(vm:record(path))
    local late = assert(vm:attach(gadget(), { pio = 0x50, name = "late" }))
    assert(vm:replace(dev, gadget()))
    clock:advance(3.5e-3)
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    recording:close()
    assert.is_true(late.COUNT >= 2)
    contains("\ndevice 3 gadget 1 1 ", files.read(path))
    contains(" late\n", files.read(path))
    contains("\ndevice 4 gadget 1 1 ", files.read(path))
    t.replay(path, { late = t.bus(gadget()) })
  end)

  it("is handed over to a live VM at an access", function()
    local clock = device.clock()
    local vm, cpu = guest_of(gadget(), { clock = clock })
    cpu:on("hlt", function() return "stop" end)
    vm:record(path)
    cpu:run { max_exits = 5 }
    clock:advance(5e-3)
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    local devs = vm.devices.gadget:save()
    vm:close()
    local replay = t.replay(path)
    local other, _, dev = guest_of(gadget(), { clock = device.clock() })
    replay:to(replay.accesses, other)
    assert.same(devs.registers, dev:save().registers)
    replay:to(1, other)
    assert.equal(3, dev.IER)
    assert.equal(0, dev.COUNT)
    other:detach(dev)
    raises("replay:to: the VM has no device gadget", function() replay:to(1, other) end)
  end)
end)
