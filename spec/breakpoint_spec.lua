-- SPDX-License-Identifier: MIT
-- Breakpoints, hardware and software, in every mode.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local spaces = require "spec.support.spaces"
local hex, u64 = luna.hex, luna.u64

local modes = { "real", "protected", "long", "user" }
local bit_of = { real = 1, protected = 2, long = 2, user = 4 }

-- Whether this host's KVM stops a guest in the mode.
local function stops(feature, mode)
  return luna.probe().features[feature] / bit_of[mode] % 2 >= 1
end

local function need(feature, mode)
  if not stops(feature, mode) then
    pending(("this host's KVM has no %s in mode %s"):format(feature, mode))
  end
end

-- At 0x1000: NOPs, then a port access that ends it.
local function nops(mode, more)
  return helper.guest { mode = mode, source = "times 4 nop\n" .. (more or "") .. "\n out 0x10, al" }
end

local COUNTING = [[
  mov cl, 3
again:
  nop
  dec cl
  jnz again
  out 0x10, al
]]

for _, software in ipairs { false, true } do
  local feature = software and "software_breakpoints" or "hardware_breakpoints"
  helper.kvm(software and "a software breakpoint" or "a hardware breakpoint", function()
    for _, mode in ipairs(modes) do
      describe("in mode " .. mode, function()
        it("stops before its instruction, each time", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = COUNTING }
          local bp = assert(guest.cpu:breakpoint(0x1002, { software = software }))
          for left = 3, 1, -1 do
            local exit = guest:stops "debug"
            assert.equal(bp, exit.breakpoint)
            assert.same({ "0x1002", "0x1002" }, { hex(exit.address), hex(exit.rip) })
            assert.equal(u64(left), u64.band(guest.cpu.rcx, 0xff))
          end
          guest:stops "pio"
          assert.same({ 3, software, false }, { bp.hits, bp.software, bp.closed })
        end)

        it("is not in memory that is read, nor in the registers", function()
          need(feature, mode)
          local guest = nops(mode)
          local bp = assert(guest.cpu:breakpoint(0x1001, { software = software }))
          local flags = guest.cpu.rflags
          guest:stops "debug"
          assert.equal(("\x90"):rep(4), guest.ram:read(0x1000, 4))
          assert.equal(hex(flags), hex(guest.cpu.rflags))
          bp:close()
          guest:stops "pio"
          assert.equal(("\x90"):rep(4), guest.ram:read(0x1000, 4))
        end)

        it("is gone when it is closed, in its own handler too", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = COUNTING }
          local seen = {}
          local bp
          bp = assert(guest.cpu:breakpoint(0x1002, { software = software }, function(_, exit)
            seen[#seen + 1] = exit.breakpoint == bp
            bp:close()
            bp:close()
            return "continue"
          end))
          guest:stops "pio"
          assert.same({ true }, seen)
          assert.is_true(bp.closed)
        end)

        it("goes along to another space and back", function()
          need(feature, mode)
          local guest = spaces.with_view { mode = mode, source = COUNTING }
          local bp = assert(guest.cpu:breakpoint(0x1002, { software = software }))
          local hits = {}
          for i = 1, 3 do
            hits[i] = guest:stops("debug").breakpoint == bp and guest.cpu.space.id
            assert(guest.cpu:set_space(i % 2 == 1 and guest.view or 0))
          end
          assert.same({ 0, 1, 0 }, hits)
          bp:close()
          guest:stops "pio"
        end)

        it("at a port access steps over it, and the device answers once", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = "nop\n in al, 0x20\n out 0x10, al" }
          local device = helper.recorder { 0x42 }
          guest.vm:pio(0x20, 1, device)
          local bp = assert(guest.cpu:breakpoint(0x1001, { software = software }))
          local after = assert(guest.cpu:breakpoint(0x1003, { software = software }))
          assert.equal(bp, guest:stops("debug").breakpoint)
          assert.same({}, device.log)
          assert.equal(after, guest:stops("debug").breakpoint)
          local exit = guest:stops "pio"
          assert.same({ 0x10, 0x42 }, { exit.port, exit.value })
          assert.same({ "r 0 1" }, device.log)
        end)

        it("at a string instruction is met once", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode,
            source = "nop\n rep outsb\n nop\n out 0x10, al" }
          local cpu = guest.cpu
          cpu.rcx, cpu.rsi, cpu.rdx = 3, 0x9000, 0x20
          guest.ram:write(0x9000, "abc")
          local device = helper.recorder {}
          guest.vm:pio(0x20, 1, device)
          local bp = assert(cpu:breakpoint(0x1001, { software = software }))
          guest:stops "debug"
          assert.equal(0x10, guest:stops("pio").port)
          assert.same({ "w 0 1 0x61", "w 0 1 0x62", "w 0 1 0x63" }, device.log)
          assert.equal(1, bp.hits)
        end)

        it("at HLT is met, and then HLT is", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = "nop\n hlt\n nop\n out 0x10, al" }
          assert(guest.cpu:breakpoint(0x1001, { software = software }))
          local after = assert(guest.cpu:breakpoint(0x1002, { software = software }))
          guest:stops "debug"
          if mode == "user" then
            assert.equal("#GP", guest:stops("exception").name)
            return
          end
          assert.equal("0x1002", hex(guest:stops("hlt").rip))
          assert.equal(after, guest:stops("debug").breakpoint)
          guest:stops "pio"
        end)

        it("behind an exit is reported", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = "out 0x20, al\n nop\n out 0x10, al" }
          guest.vm:pio(0x20, 1, helper.recorder {})
          local bp = assert(guest.cpu:breakpoint(0x1002, { software = software }))
          assert.equal(bp, guest:stops("debug").breakpoint)
          guest:stops "pio"
        end)

        it("on a jump to itself stops every time", function()
          need(feature, mode)
          local guest = helper.guest { mode = mode, source = "nop\nhere: jmp here" }
          local bp = assert(guest.cpu:breakpoint(0x1001, { software = software }))
          for _ = 1, 5 do guest:stops "debug" end
          assert.equal(5, bp.hits)
          bp:close()
          guest:stops("timeout", { timeout = 0.01 })
          guest.cpu:interrupt()
          guest:stops "interrupted"
        end)
      end)
    end

    it("leaves a vCPU of the same number alone", function()
      need(feature, "long")
      local guest = nops "long"
      assert(guest.cpu:breakpoint(0x1002, { software = software }))
      guest:stops "debug"
      guest.cpu:close()
      guest.cpu = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000 })
      guest:stops "pio"
    end)
  end)
end

helper.kvm("a breakpoint", function()
  for _, mode in ipairs(modes) do
    it("takes the kind that stops the guest, in mode " .. mode, function()
      local guest = nops(mode)
      local bp = assert(guest.cpu:breakpoint(0x1002))
      assert.equal(bp, guest:stops("debug").breakpoint)
      assert.equal(not stops("hardware_breakpoints", mode), bp.software)
    end)
  end

  it("that is the fifth is a software one, or is refused", function()
    need("hardware_breakpoints", "long")
    local guest = nops("long", "times 8 nop")
    for i = 1, 4 do assert(guest.cpu:breakpoint(0x1000 + i, { software = false })) end
    helper.refused("limit", "has 4", guest.cpu:breakpoint(0x1006, { software = false }))
    need("software_breakpoints", "long")
    assert.is_true(assert(guest.cpu:breakpoint(0x1006)).software)
    for i = 1, 4 do assert.equal(u64(0x1000 + i), guest:stops("debug").address) end
    assert.equal(u64(0x1006), guest:stops("debug").address)
  end)

  it("calls cpu:on(\"debug\"), unless it has a handler", function()
    local guest = nops "long"
    local seen = {}
    guest.cpu:on("debug", function(_, exit)
      seen[#seen + 1] = "on " .. hex(exit.address)
      return "continue"
    end)
    assert(guest.cpu:breakpoint(0x1001))
    assert(guest.cpu:breakpoint(0x1002, function(_, exit)
      seen[#seen + 1] = "own " .. hex(exit.address)
      return "continue"
    end))
    guest:stops "pio"
    assert.same({ "on 0x1001", "own 0x1002" }, seen)
  end)

  it("whose handler raises is got over by the next run", function()
    local guest = nops "long"
    assert(guest.cpu:breakpoint(0x1001, function() error "no" end))
    helper.contains("no", helper.fails(guest))
    guest:stops "pio"
  end)

  it("is reported after a fetch that first found no memory", function()
    local guest = helper.guest { mode = "long", source = "mov eax, 0x400000\n jmp rax" }
    local late = helper.keep(luna.buffer "4K")
    late:write(0, "\xe6\x10") -- out 0x10, al
    guest.cpu:on("fault", function(_, exit)
      assert(guest.vm:map_space(0, late, exit.gpa, late.size, "rwx"))
      return "retry"
    end)
    local bp = assert(guest.cpu:breakpoint(0x400000, { software = false }))
    assert.equal(bp, guest:stops("debug").breakpoint)
    guest:stops "pio"
  end)

  it("says what it is", function()
    local guest = nops "long"
    local bp = assert(guest.cpu:breakpoint(0x1002, { software = false }))
    helper.contains("debug (x breakpoint at 0x1002 (1 hit)) at rip 0x1002",
      tostring(guest:stops "debug"))
    bp:close()
    assert.equal("x breakpoint at 0x1002 (1 hit), closed", tostring(bp))
  end)

  it("refuses what makes no sense", function()
    local cpu = nops("long").cpu
    helper.raises("an integer expected", function() cpu:breakpoint("x") end)
    helper.raises("access: \"x\", \"w\" or \"rw\" expected", function()
      cpu:breakpoint(0, { access = "r" })
    end)
    helper.raises("software breakpoint is for access", function()
      cpu:breakpoint(0, { access = "w", software = true })
    end)
    helper.raises("size is for access", function() cpu:breakpoint(0, { size = 4 }) end)
    helper.raises("1, 2, 4 or 8 bytes", function()
      cpu:breakpoint(2, { size = 4, access = "w" })
    end)
    helper.raises("unknown option 'hits'", function() cpu:breakpoint(0, { hits = 1 }) end)
    helper.raises("handler: a function expected", function() cpu:breakpoint(0, {}, 5) end)
    cpu:close()
    helper.raises("closed vcpu", function() cpu:breakpoint(0) end)
  end)
end)

helper.kvm("a software breakpoint in guest memory", function()
  local function patched(source)
    need("software_breakpoints", "user")
    return helper.guest { mode = "user", source = source }
  end

  it("does not undo what the guest writes there", function()
    local guest = patched "mov byte [abs 0x100a], 0xf3\n nop\n nop\n nop\n pause\n out 0x10, al"
    assert(guest.cpu:breakpoint(0x100a, { software = true }))
    guest:stops "pio"
    assert.equal(0xf3, guest.ram:u8(0x100a))
  end)

  it("is no write of the host's or the guest's", function()
    need("software_breakpoints", "user")
    local vm = helper.keep(luna.vm { dirty = "bitmap" })
    local ram = helper.keep(luna.buffer "1M")
    assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
    ram:write(0x1000, helper.code("nop\n nop\n out 0x10, al", 64, 0x1000))
    local cpu = helper.keep(vm:vcpu { mode = "user", rip = 0x1000, rsp = 0x8000 })
    local function dirty()
      local list = {}
      for gpa in vm.default:dirty(0, ram.size) do list[#list + 1] = gpa end
      return list
    end
    dirty() -- begins to follow
    ram:u8(0x5000, 1)
    assert(cpu:breakpoint(0x1001, { software = true }))
    assert.equal("debug", assert(cpu:run { timeout = 60 }).kind)
    assert.same({ 0x5000 }, dirty())
  end)

  it("is refused in memory that may only be read", function()
    need("software_breakpoints", "user")
    local vm = helper.keep(luna.vm())
    local file = helper.file(("\x90"):rep(4096))
    local code = helper.keep(luna.buffer { file = file, read_only = true })
    assert(vm:map_space(0, code, 0x1000, code.size, "r-x"))
    local cpu = helper.keep(vm:vcpu { mode = "user", rip = 0x1000 })
    helper.refused("unsupported", "may only read", cpu:breakpoint(0x1001, { software = true }))
  end)

  it("is the guest's own where no breakpoint is", function()
    local guest = patched "nop\n int3\n out 0x10, al"
    assert(guest.cpu:breakpoint(0x1000 + 2, { software = true }))
    local exit = guest:stops "exception"
    assert.same({ "#BP", "0x1002" }, { exit.name, hex(exit.rip) })
  end)
end)

helper.kvm("a watchpoint", function()
  it("stops behind the access, or is refused", function()
    local guest = helper.guest { mode = "long",
      source = "mov dword [abs 0x9000], 1\n nop\n out 0x10, al" }
    local bp, message, code = guest.cpu:breakpoint(0x9000, { access = "w", size = 4 })
    if not stops("watchpoints", "long") then
      return helper.refused("unsupported", "does not stop a guest there in ring 0",
        bp, message, code)
    end
    local exit = guest:stops "debug"
    assert.same({ bp, "0x100b" }, { exit.breakpoint, hex(exit.rip) })
    guest:stops "pio"
  end)
end)
