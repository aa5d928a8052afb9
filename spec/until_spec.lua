-- SPDX-License-Identifier: MIT
-- cpu:run's until_rip and until_gpa.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, u64 = luna.hex, luna.u64

local function run_to(guest, options)
  options.timeout = options.timeout or 10
  local exit = assert(guest.cpu:run(options))
  return ("%s %s %s"):format(exit.kind, tostring(exit.reached), hex(exit.rip))
end

local LOOP = "mov cl, 3\nagain: nop\n dec cl\n jnz again\n out 0x10, al"

for _, mode in ipairs { "real", "protected", "long", "user" } do
  helper.kvm("cpu:run in mode " .. mode, function()
    it("runs until rip, once a round", function()
      local guest = helper.guest { mode = mode, source = LOOP }
      for left = 3, 1, -1 do
        assert.equal("debug true 0x1002", run_to(guest, { until_rip = 0x1002 }))
        assert.equal(u64(left), u64.band(guest.cpu.rcx, 0xff))
      end
      assert.matches("^pio nil", run_to(guest, { until_rip = 0x1002 }))
    end)

    it("runs until the instruction at a gpa, once a round", function()
      local guest = helper.guest { mode = mode, source = LOOP }
      for left = 3, 1, -1 do
        assert.equal("debug true 0x1002", run_to(guest, { until_gpa = 0x1002 }))
        assert.equal(u64(left), u64.band(guest.cpu.rcx, 0xff))
      end
      assert.matches("^pio nil", run_to(guest, { until_gpa = 0x1002 }))
    end)

    it("leaves no breakpoint behind", function()
      local guest = helper.guest { mode = mode, source = LOOP }
      run_to(guest, { until_rip = 0x1002 })
      guest:stops "pio"
      guest.cpu:answer()
      guest.cpu.rip = 0x1000
      guest.cpu:on("debug", function() error "hit" end)
      guest:stops "pio"
    end)

    it("gives the exit that comes before", function()
      local guest = helper.guest { mode = mode, source = "out 0x20, al\n nop\n nop" }
      assert.matches("^pio nil", run_to(guest, { until_rip = 0x1003 }))
      guest.cpu:answer()
      assert.equal("debug true 0x1003", run_to(guest, { until_rip = 0x1003 }))
    end)

    it("goes through devices, and ends in time", function()
      local guest = helper.guest { mode = mode, source = "out 0x20, al\n nop\nhere: jmp here" }
      local device = helper.recorder {}
      guest.vm:pio(0x20, 1, device)
      assert.equal("debug true 0x1003", run_to(guest, { until_rip = 0x1003 }))
      assert.same({ "w 0 1 0x0" }, device.log)
      assert.matches("^timeout nil", run_to(guest, { until_rip = 0x5000, timeout = 0.02 }))
      assert.matches("^timeout nil", run_to(guest, { until_gpa = 0x5000, timeout = 0.02 }))
    end)
  end)
end

helper.kvm("until_rip", function()
  it("is an offset in CS", function()
    local guest = helper.guest { mode = "real", source = "jmp 0x100:0x10", org = 0x1000 }
    guest.ram:write(0x1010, ("\x90"):rep(8) .. "\xf4")
    guest.cpu.cs.base, guest.cpu.cs.selector = 0x1000, 0x100
    guest.cpu.rip = 0x10
    assert.equal("debug true 0x14", run_to(guest, { until_rip = 0x14 }))
    assert.equal("debug true 0x16", run_to(guest, { until_gpa = 0x1016 }))
    assert.equal("hlt nil 0x19", run_to(guest, { until_rip = 0x4 }))
  end)

  it("is told apart from breakpoints there", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n nop\n out 0x10, al" }
    local bp = assert(guest.cpu:breakpoint(0x1001))
    assert.equal("debug nil 0x1001", run_to(guest, { until_rip = 0x1002 }))
    assert.equal(1, bp.hits)
    assert.equal("debug true 0x1002", run_to(guest, { until_rip = 0x1002 }))
  end)

  it("does not call cpu:on(\"debug\")", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n nop" }
    guest.cpu:on("debug", function() error "called" end)
    assert.equal("debug true 0x1002", run_to(guest, { until_rip = 0x1002 }))
  end)

  it("takes its breakpoint away when a handler raises", function()
    local guest = helper.guest { mode = "long", source = "out 0x20, al\n nop\n out 0x10, al" }
    guest.vm:pio(0x20, 1, { write = function() error "broken" end })
    local ok, message = pcall(run_to, guest, { until_rip = 0x1002 })
    assert.is_false(ok)
    helper.contains("broken", message)
    guest.vm:close()
  end)

  it("leaves no breakpoint behind when its coroutine is dropped", function()
    local guest = helper.guest { mode = "long", source = "out 0x20, al\n nop\n out 0x10, al" }
    guest.vm:pio(0x20, 1, { write = function() coroutine.yield "waiting" end })
    local run = coroutine.wrap(function() return run_to(guest, { until_rip = 0x1002 }) end)
    assert.equal("waiting", run())
    run = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    guest.cpu:answer()
    assert.equal(0x10, guest:stops("pio").port)
  end)

  it("is refused where no breakpoint is left", function()
    local probe = luna.probe().features
    local guest = helper.guest { mode = "real", source = "times 8 nop" }
    if probe.hardware_breakpoints % 2 == 0 or probe.software_breakpoints % 2 == 1 then
      pending "this host's KVM has software breakpoints in real mode"
    end
    for i = 1, 4 do assert(guest.cpu:breakpoint(0x2000 + i)) end
    helper.refused("limit", "all are taken", guest.cpu:run { until_rip = 0x1004, timeout = 1 })
  end)

  it("refuses what is no address", function()
    local cpu = helper.guest({ source = "nop" }).cpu
    helper.raises("until_rip: an integer expected", function() cpu:run { until_rip = "x" } end)
    helper.raises("until_gpa: a whole number", function() cpu:run { until_gpa = -1 } end)
    helper.raises("not both", function() cpu:run { until_gpa = 1, until_rip = 1 } end)
  end)
end)

helper.kvm("until_gpa", function()
  it("finds another linear address of the same memory", function()
    local guest = helper.guest { mode = "user", source = "mov eax, 0x200000\n jmp rax" }
    local code = helper.keep(luna.buffer { size = "2M" })
    code:write(0, "\x90\x90\xe6\x10") -- nop; nop; out 0x10, al
    assert(guest.vm:map_space(0, code, 0x200000, code.size, "rwx"))
    -- the page directory of the system area: 0x400000 leads to the memory at 0x200000, too
    local directory = guest.cpu.system + 0x8000
    guest.vm.default:write(directory + 16, guest.vm.default:read(directory + 8, 8))
    guest.cpu.rip = 0x400000
    assert.equal("debug true 0x400001", run_to(guest, { until_gpa = 0x200001 }))
    guest:stops "pio"
  end)
end)
