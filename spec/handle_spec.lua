-- SPDX-License-Identifier: MIT
-- The life of handles: closing, collecting, what a closed one refuses, and how they show as text.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local function everything()
  local vm, ram = luna.vm(), luna.buffer "64K"
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  return vm, ram, assert(vm:vcpu { mode = "long" })
end

local function settle()
  collectgarbage()
  collectgarbage()
end

local NONE = { vm = 0, space = 0, buffer = 0, vcpu = 0 }

helper.kvm("close", function()
  it("may be called again", function()
    local vm, ram, cpu = everything()
    for _ = 1, 3 do
      cpu:close()
      ram:close()
      vm:close()
    end
    assert.same(NONE, luna.live())
  end)

  it("works in every order", function()
    local orders = { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } }
    for _, order in ipairs(orders) do
      local handles = { everything() }
      for _, i in ipairs(order) do handles[i]:close() end
      assert.same(NONE, luna.live())
    end
  end)

  it("of a VM closes its vCPUs and lets go of its buffers, but does not close them", function()
    local vm, ram, cpu = everything()
    helper.keep(ram)
    vm:close()
    assert.equal("vcpu (closed)", tostring(cpu))
    assert.same({ vm = 0, space = 0, buffer = 1, vcpu = 0 }, luna.live())
    ram:u8(0, 1)
    assert.equal(1, ram:u8(0))
  end)

  it("of a vCPU leaves the others alone", function()
    local guest = helper.guest { source = "hlt" }
    local other = helper.keep(guest.vm:vcpu { rip = 0x1000 })
    other:close()
    guest:stops "hlt"
    assert.equal(1, luna.live().vcpu)
  end)

  it("is refused nothing by a handler: a vCPU that closes itself ends the run", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:close() end })
    local exit = guest:stops "stopped"
    assert.equal("stopped", tostring(exit))
    assert.equal(guest.cpu, exit.cpu)
    assert.equal(0, luna.live().vcpu)
  end)
end)

helper.kvm("what is closed", function()
  it("is refused by every method of a VM", function()
    local vm, ram, cpu = everything()
    cpu:close()
    vm:close()
    helper.keep(ram)
    local text = "attempt to use a closed vm"
    raises(text, function() vm:map_space(0, ram, 0, 0, 0x1000, "rwx") end)
    raises(text, function() vm:unmap_space(0, 0, 0x1000) end)
    raises(text, function() vm:pio(0, 1, { read = print }) end)
    raises(text, function() vm:mmio(0, 1, { read = print }) end)
    raises(text, function() vm:vcpu() end)
    raises(text, function() vm.default:map(ram, 0, 0, 0x1000, "rwx") end)
    raises(text, function() vm.default:unmap(0, 0x1000) end)
    raises(text, function() local _ = vm.default:find(0) end)
    raises(text, function() local _ = vm.default:regions() end)
  end)

  it("is refused by every method and register of a vCPU", function()
    local vm, ram, cpu = everything()
    helper.keep(vm)
    helper.keep(ram)
    local cs = cpu.cs
    cpu:close()
    local text = "attempt to use a closed vcpu"
    raises(text, function() cpu:run() end)
    raises(text, function() cpu:run { timeout = 1 } end)
    raises(text, function() cpu:answer(1) end)
    raises(text, function() cpu:answer() end)
    raises(text, function() cpu:retry() end)
    raises(text, function() cpu:interrupt() end)
    raises(text, function() local _ = cpu:regs() end)
    raises(text, function() local _ = cpu.rax end)
    raises(text, function() cpu.rax = 1 end)
    raises(text, function() local _ = cpu.cs.base end)
    raises(text, function() local _ = cs.base end)
    raises(text, function() cs.base = 1 end)
    raises(text, function() local _ = cpu.exits end)
    raises(text, function() local _ = cpu.system end)
  end)
end)

helper.kvm("the garbage collector", function()
  it("frees everything that nobody holds, in any order", function()
    local orders = { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } }
    for _, order in ipairs(orders) do
      local handles = { everything() }
      for _, i in ipairs(order) do
        assert.truthy(handles[i])
        handles[i] = nil
        settle()
      end
      assert.same(NONE, luna.live())
    end
  end)

  it("frees VMs whose devices refer to them", function()
    do
      local guest = helper.guest { source = "out 0x10, al\n hlt" }
      local vm = assert(luna.vm())
      local cpu = assert(vm:vcpu())
      local device = { vm = vm, cpu = cpu }
      function device.write() device.cpu:stop() end
      device.trap = vm:pio(0, 1, device)
      cpu:on("hlt", function() return vm end)
      assert.equal(2, luna.live().vm)
      guest:stops "pio"
    end
    settle()
    assert.equal(1, luna.live().vm)
    assert.equal(1, luna.live().vcpu)
  end)

  it("keeps a VM for its vCPU, its space and its traps", function()
    local space = helper.keep(luna.vm()).default
    settle()
    assert.equal("space 0", tostring(space))
    local cpu
    do
      local _, ram, made = everything()
      helper.keep(ram):write(0x1000, "\xf4")
      cpu = helper.keep(made)
    end
    settle()
    cpu.rip = 0x1000
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
  end)

  it("keeps the vCPUs that only their VM knows, until either is closed", function()
    local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "64K")
    vm.default:map(ram, 0)
    ram:write(0x1000, helper.code("out 0x10, al\n hlt", 16, 0x1000))
    for _ = 1, 3 do vm:vcpu({ rip = 0x1000 }):on("hlt", function() return "park" end) end
    local said = 0
    vm:pio(0x10, 1, { write = function() said = said + 1 end })
    settle()
    assert.equal("parked", vm:run({ timeout = 60 }).kind)
    assert.equal(3, said)
    local ids = {}
    for i, cpu in ipairs(vm.vcpus) do ids[i] = cpu.id end
    assert.same({ 0, 1, 2 }, ids)
    vm.vcpus[2]:close()
    assert.same({ 0, 2 }, { vm.vcpus[1].id, vm.vcpus[2].id })
    assert.equal(1, assert(vm:vcpu { rip = 0x1000 }).id)
    assert.equal(vm.vcpus[2].id, 1)
    settle()
    assert.equal(3, luna.live().vcpu)
    vm:close()
    assert.same({}, vm.vcpus)
    assert.equal(0, luna.live().vcpu)
  end)

  it("keeps whose descriptor raises a line of a VM", function()
    local vm = helper.keep(luna.vm { irqchip = "split" })
    local bell = helper.keep(luna.vm()):eventfd { port = 0x10, size = 1 }
    local weak = setmetatable({ { fd = bell.fd } }, { __mode = "v" })
    local irqfd = assert(vm:irqfd(3, weak[1]))
    settle()
    assert.truthy(weak[1])
    irqfd:close()
    settle()
    assert.is_nil(weak[1])
  end)

  it("keeps what a VM, a space and a vCPU are told to use", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x11, al\n hlt" }
    local vm, cpu, said = guest.vm, guest.cpu, 0
    local function say() said = said + 1 end
    vm:pio(0x10, 1, { write = say })
    vm:timer(0, say)
    vm.default:on_fault(0x200000, 0x1000, say)
    cpu:breakpoint(0x1002, { software = true }, function()
      say()
      return "continue"
    end)
    cpu:on("pio", function()
      say()
      return "continue"
    end)
    settle()
    guest:stops "hlt"
    assert.is_true(said >= 3)
    assert.equal(1, #vm.vcpus)
  end)

  it("frees what a suspended run holds", function()
    do
      local guest = helper.guest { source = "out 0x10, al\n hlt" }
      guest.vm:pio(0x10, 1, { write = function() coroutine.yield() end })
      local run = coroutine.wrap(function() return guest:run() end)
      run()
      guest.cpu:close()
    end
    settle()
    assert.equal(0, luna.live().vcpu)
  end)
end)

helper.kvm("a thousand VMs", function()
  it("leave no descriptor and no object behind", function()
    local before = helper.descriptors()
    for i = 1, 1000 do
      local vm = assert(luna.vm())
      if i % 10 == 0 then assert(vm:vcpu { mode = "real" }) end
      vm:close()
    end
    assert.same(NONE, luna.live())
    assert.equal(before, helper.descriptors())
  end)

  it("are freed by the collector as well", function()
    local before = helper.descriptors()
    for i = 1, 100 do
      local vm = assert(luna.vm())
      assert(vm:vcpu { mode = "long" })
      if i % 20 == 0 then settle() end
    end
    settle()
    assert.same(NONE, luna.live())
    assert.equal(before, helper.descriptors())
  end)
end)

helper.kvm("objects that were dropped without close()", function()
  it("are collected where descriptors or memory are missing for others", function()
    local path = helper.file [[
      local luna = require "lunavisor"
      collectgarbage "stop"
      local made = 0
      for _ = 1, 60 do
        local vm = assert(luna.vm())
        assert(vm:space())
        assert(vm:vcpu())
        assert(luna.buffer { size = "64K", memfd = true })
        made = made + 1
      end
      print(made)
      for _ = 1, 30 do assert(luna.buffer "256M") end
      print "buffers"
    ]]
    -- The address sanitizer maps terabytes for itself.
    local memory = helper.sanitized and "" or "ulimit -v 4000000; "
    local output = helper.sh("ulimit -n 40; " .. memory .. "exec " .. helper.command(path))
    assert.equal("60\nbuffers", output)
  end)
end)

helper.kvm("luna.live", function()
  it("counts each kind", function()
    assert.same(NONE, luna.live())
    local vm, ram, cpu = everything()
    assert.same({ vm = 1, space = 1, buffer = 2, vcpu = 1 }, luna.live()) -- the system area, too
    helper.keep(vm)
    helper.keep(ram)
    cpu:close()
    assert.same({ vm = 1, space = 1, buffer = 1, vcpu = 0 }, luna.live())
  end)
end)

helper.block("luna.with", function()
  it("closes the handle and passes arguments and results on", function()
    local kept
    local function results(...) return select("#", ...), ... end
    local n, a, b, c = results(luna.with(luna.buffer "4K", function(buffer, ...)
      kept = buffer
      assert.equal(4096, buffer.size)
      assert.equal(1, luna.live().buffer)
      return ...
    end, 1, nil, nil))
    assert.same({ 3, 1 }, { n, a, b, c })
    assert.equal("buffer (closed)", tostring(kept))
    assert.equal(0, luna.live().buffer)
  end)

  it("closes the handle after an error, which it raises with its traceback", function()
    local ok, message = pcall(luna.with, luna.buffer "4K", function() error "trouble" end)
    assert.is_false(ok)
    assert.matches("handle_spec.lua:%d+: trouble\nstack traceback:", message)
    assert.equal(0, luna.live().buffer)
  end)

  it("refuses what cannot be closed and what cannot be called", function()
    raises("luna.with: something with a close method expected, got nil",
      function() luna.with(nil, print) end)
    raises("luna.with: something with a close method expected, got number",
      function() luna.with(5, print) end)
    raises("luna.with: a function expected, got nil",
      function() luna.with(helper.keep(luna.buffer "4K")) end)
  end)
end)

helper.kvm("<close> of Lua 5.4", function()
  it("closes buffers, VMs, vCPUs and traps", function()
    if helper.jit then pending "LuaJIT has no <close>" end
    local counts = assert(load [[
      local luna, device = ...
      local counts = {}
      do
        local ram <close> = luna.buffer "4K"
        local vm <close> = luna.vm()
        do
          local trap <close> = vm:pio(0x10, 1, device)
          local cpu <close> = vm:vcpu()
          counts[1] = luna.live()
        end
        vm:pio(0x10, 1, device):close()
        counts[2] = luna.live()
      end
      counts[3] = luna.live()
      return counts
    ]])(luna, helper.recorder())
    assert.same({
      { vm = 1, space = 1, buffer = 1, vcpu = 1 },
      { vm = 1, space = 1, buffer = 1, vcpu = 0 },
      NONE,
    }, counts)
  end)
end)

helper.kvm("tostring", function()
  it("says what a handle is", function()
    local vm, ram, cpu = everything()
    helper.keep(vm)
    helper.keep(ram)
    helper.keep(cpu)
    local trap = vm:pio(0x3f8, 8, helper.recorder())
    assert.equal(("buffer %d (0x10000 bytes)"):format(ram.id), tostring(ram))
    assert.equal("vcpu 0 (rip 0x0, 0 exits)", tostring(cpu))
    assert.equal("trap 1 (pio 0x3f8..0x3ff)", tostring(trap))
    assert.equal(("vm (1 vcpus, 1 traps)\non %s: %s\n%s"):format(vm.accel, vm.accel_reason,
      tostring(vm.default)), tostring(vm))
    assert.matches("^space 0\n000000000000%-000000010000 rwx rwx buffer ", tostring(vm.default))
    trap:close()
    assert.matches("^vm %(1 vcpus, 0 traps%)\n", tostring(vm))
  end)

  it("says that it is closed", function()
    local vm, ram, cpu = everything()
    local space = vm.default
    vm:close()
    ram:close()
    cpu:close()
    assert.equal("vm (closed)", tostring(vm))
    assert.equal("space (closed)", tostring(space))
    assert.equal("buffer (closed)", tostring(ram))
    assert.equal("vcpu (closed)", tostring(cpu))
  end)
end)

helper.kvm("what nobody knows", function()
  it("is refused as an option", function()
    raises("luna.vm: unknown option 'memory'", function() luna.vm { memory = "2M" } end)
    raises("luna.vm: a table of options expected, got number", function() luna.vm(5) end)
    local guest = helper.guest { source = "hlt" }
    raises("cpu:run: unknown option 'time'; the options are deadline, max_exits, timeout,",
      function() guest.cpu:run { time = 5 } end)
    raises("cpu:run: a table of options expected, got number", function() guest.cpu:run(5) end)
    for _, timeout in ipairs { -1, "5", 0 / 0, true } do
      raises("cpu:run: timeout: seconds from 0 on expected, got " .. tostring(timeout),
        function() guest.cpu:run { timeout = timeout } end)
    end
    guest:stops "hlt"
  end)

  it("is refused as a method", function()
    local vm, ram, cpu = everything()
    for _, handle in ipairs { helper.keep(vm), helper.keep(ram), helper.keep(cpu), vm.default,
      vm:pio(0, 1, helper.recorder()) } do
      raises("has no field 'frobnicate'", function() handle:frobnicate() end)
    end
  end)
end)
