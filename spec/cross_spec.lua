-- SPDX-License-Identifier: MIT
-- Where subjects meet: vCPUs on threads with every way in which an exit is answered, with
-- interrupts, breakpoints and moves.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local irq = require "spec.support.irq"
local hex, u64 = luna.hex, luna.u64

local features = luna.probe().features or {}
local APIC = 0xfee00000

-- vm:run with a watchdog; the exit must be of the kind.
local function stops(vm, kind, options)
  options = options or {}
  options.timeout = options.timeout or 10
  local exit, cpu = vm:run(options)
  assert(exit, cpu)
  if exit.kind ~= kind then
    error(("exit %s expected, got %s"):format(kind, tostring(exit)), 2)
  end
  return exit, cpu
end

-- A VM with a vCPU for each source, in real mode, whose code is at 0x1000 * n with its stack below.
local function machine(sources, options)
  local vm, ram, cpus = helper.keep(luna.vm(options)), helper.keep(luna.buffer "1M"), {}
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  for i, source in ipairs(sources) do
    local at = 0x1000 * i
    ram:write(at, helper.code(source, 16, at))
    cpus[i] = helper.keep(vm:vcpu { rip = at, rsp = at })
    cpus[i].rdx = i
  end
  return vm, cpus, ram
end

local function parks(cpus)
  for _, cpu in ipairs(cpus) do cpu:on("hlt", function() return "park" end) end
end

helper.kvm("vm:run and exits", function()
  it("answers MSRs, and refuses them", function()
    local READ = "mov ecx, 0xc0000103\n rdmsr\n mov [0x500], eax\n mov eax, 9\n wrmsr\n hlt"
    local vm, cpus, ram = machine({ READ, "mov ecx, 0xc0000103\n mov bx, 5\n wrmsr\n hlt" })
    ram:u16(13 * 4, 0x900)
    ram:u16(13 * 4 + 2, 0)
    ram:write(0x900, helper.code("mov si, 0x55\n hlt", 16, 0x900))
    local written = {}
    vm:msr(0xc0000103, {
      read = function() return u64(0x1234) end,
      write = function(_, _, _, value)
        if value == u64(9) then written[#written + 1] = value else return "refuse" end
      end,
    })
    parks(cpus)
    stops(vm, "parked")
    assert.equal(0x1234, ram:u32(0x500))
    assert.equal(1, #written)
    assert.same({ "0x0", "0x55" }, { hex(cpus[1].rsi), hex(cpus[2].rsi) })
  end)

  it("gives string I/O to block functions", function()
    local OUT = "mov si, 0x2000\n mov cx, 64\n mov dx, 0x70\n rep outsb\n hlt"
    local IN = "mov di, 0x6000\n mov cx, 64\n mov dx, 0x71\n rep insb\n hlt"
    local vm, cpus, ram = machine({ OUT, "hlt", IN, "hlt" })
    local text, out, at = ("0123456789abcdef"):rep(4), {}, 0
    ram:write(0x2000, text)
    vm:pio(0x70, 1, { write_block = function(_, _, _, data) out[#out + 1] = data end })
    vm:pio(0x71, 1, { read_block = function(_, _, size, count)
      at = at + size * count
      return text:sub(at - size * count + 1, at)
    end })
    cpus[2]:close()
    cpus[4]:close()
    parks { cpus[1], cpus[3] }
    stops(vm, "parked")
    assert.equal(text, table.concat(out))
    assert.equal(text, ram:read(0x6000, 64))
  end)

  it("gives every collected write once, those of one vCPU in order", function()
    local COUNT = "mov cx, 200\n mov al, 0\n again: out dx, al\n inc al\n loop again\n"
      .. "out 0x40, al\n hlt"
    local vm, cpus = machine({ COUNT, COUNT })
    local seen = { {}, {} }
    local ok = vm:pio(1, 2, { write = function(_, offset, _, value)
      local list = seen[offset + 1]
      list[#list + 1] = value
    end }, { coalesced = true })
    if not ok then pending "this host's KVM collects no writes" end
    vm:pio(0x40, 1, { write = function() end })
    parks(cpus)
    stops(vm, "parked")
    for i = 1, 2 do
      assert.equal(200, #seen[i])
      table.sort(seen[i])
      for value = 0, 199 do assert.equal(value, seen[i][value + 1]) end
    end
  end)

  it("finishes accesses to memory and eventfds without Lua", function()
    local vm, cpus = machine({
      "mov cx, 50\n again: out 0x80, al\n in al, 0x90\n inc al\n out 0x90, al\n loop again\n hlt",
      "mov cx, 50\n again: out 0x80, al\n out 0x91, al\n loop again\n hlt",
    })
    local page = helper.keep(luna.buffer "4K")
    local bell = assert(vm:eventfd { port = 0x80, size = 1 })
    vm:pio(0x90, 2, { memory = page })
    parks(cpus)
    stops(vm, "parked")
    assert.equal(100, bell:read())
    assert.equal(50, page:u8(0))
    assert.same({ 1, 1 }, { cpus[1].exits, cpus[2].exits })
  end)

  it("maps memory on demand, once for all that wait for it", function()
    local TOUCH = "mov ax, 0x8000\n add ax, dx\n mov ds, ax\n mov bx, 7\n"
      .. "mov [bx], bl\n mov bl, [bx]\n hlt"
    local vm, cpus = machine({ TOUCH, TOUCH, TOUCH })
    local faults = 0
    vm:unmap_space(0, 0x80000, 0x10000)
    vm.default:on_fault(0x80000, 0x10000, function(_, exit)
      faults = faults + 1
      local page = helper.keep(luna.buffer "4K")
      assert(vm.default:map(page, exit.gpa - exit.gpa % 4096))
      return "retry"
    end)
    parks(cpus)
    stops(vm, "parked")
    assert.equal(1, faults)
    for i = 1, 3 do
      assert.equal("0x7", hex(u64.band(cpus[i].rbx, 0xff)))
      assert.equal(7, vm.default:u8(0x80000 + 16 * i + 7))
    end
  end)

  it("lets handlers yield, move their vCPU and inject", function()
    local vm, cpus, ram = machine({ "out 0x10, al\n mov al, [0x500]\n hlt", "jmp $" })
    local view = assert(vm:space())
    local other = helper.keep(luna.buffer "64K")
    assert(view:map(other, 0))
    other:write(0x1000, ram:read(0x1000, 0x100))
    other:u8(0x500, 0x77)
    cpus[1]:on("pio", function(cpu)
      coroutine.yield "yielded"
      assert(cpu:set_space(view))
      return "continue"
    end)
    local routine = coroutine.create(function() return stops(vm, "hlt") end)
    local _, given = assert(coroutine.resume(routine))
    assert.equal("yielded", given)
    helper.raises("vm:run: this VM is running", function() vm:run() end)
    local _, exit, cpu = assert(coroutine.resume(routine))
    assert.equal(cpus[1], cpu)
    assert.equal(view, cpu.space)
    assert.equal(view, exit.space)
    assert.equal("0x77", hex(u64.band(cpu.rax, 0xff)))
  end)

  it("gives an exit again whose handler was suspended and dropped", function()
    for _, name in ipairs { "run", "poll" } do
      local vm, cpus = machine({ "out 0x10, al\n hlt", "jmp $" })
      local tries = 0
      vm:pio(0x10, 1, { write = function()
        tries = tries + 1
        if tries == 1 then coroutine.yield() end
      end })
      assert(vm:start())
      do
        local routine = coroutine.wrap(function()
          repeat until vm[name](vm)
        end)
        routine()
      end
      collectgarbage()
      collectgarbage()
      assert.equal(1, tries)
      local _, cpu = stops(vm, "hlt")
      assert.same({ 2, cpus[1] }, { tries, cpu })
    end
  end)

  it("skips an instruction that the processor has not", function()
    if not luna.disasm("\x90", { bits = 16 }) then pending "this build has no disassembler" end
    local vm, cpus = machine({ "mov bx, 1\n ud2\n inc bx\n hlt", "jmp $" })
    local vector = 0
    cpus[1]:on("instruction", function() vector = vector + 1 return "skip" end)
    vm.default:u16(6 * 4, 0x900)
    vm.default:u16(6 * 4 + 2, 0)
    vm.default:write(0x900, helper.code("add word [esp], 2\n iret", 16, 0x900))
    local _, cpu = stops(vm, "hlt")
    assert.equal("0x2", hex(u64.band(cpu.rbx, 0xffff)))
  end)
end)

helper.kvm("a vCPU on a thread", function()
  it("keeps its breakpoints", function()
    local vm, cpus = machine({ "inc bx\n inc bx\n jmp 0x1000", "jmp $" })
    local cpu = cpus[1]
    local point, message = cpu:breakpoint(0x1001)
    if not point then pending(message) end
    for i = 1, 3 do
      local exit, met = stops(vm, "debug")
      assert.equal(point, exit.breakpoint)
      assert.equal(cpu, met)
      assert.equal(hex(2 * i - 1), hex(cpu.rbx))
    end
    assert.equal(3, point.hits)
    cpu:on("debug", function() return point.hits < 10 and "continue" or "stop" end)
    stops(vm, "debug")
    assert.equal(10, point.hits)
    assert(cpu:start())
    helper.raises("vCPU 0 is started", function() cpu:breakpoint(0x1002) end)
    helper.raises("cpu:step: vCPU 0 is started", function() cpu:step() end)
    cpu:join()
    point:close()
    if vm:run({ timeout = 0.01 }).kind == "debug" then -- met before cpu:join, and nobody was told
      stops(vm, "timeout", { timeout = 0.01 })
    end
  end)

  it("loses no breakpoint that is closed while it is started", function()
    local vm, cpus = machine({ "inc bx\n inc bx\n jmp 0x1000" })
    local cpu = cpus[1]
    local point, message = cpu:breakpoint(0x1001)
    if not point then pending(message) end
    cpu:on("debug", function() return "continue" end)
    assert(cpu:start())
    helper.raises("vCPU 0 is started", function() point:close() end)
    cpu:join()
    cpu:on("debug", nil)
    local exit = stops(vm, "debug")
    assert.equal(point, exit.breakpoint)
    point:close()
    stops(vm, "timeout", { timeout = 0.01 })
  end)

  it("is interrupted exactly once", function()
    local vm, cpus = machine({ "jmp $", "jmp $" })
    for _ = 1, 20 do
      assert(vm:start())
      cpus[2]:interrupt()
      cpus[2]:interrupt()
      local exit, cpu
      repeat exit, cpu = vm:poll() until exit
      assert.equal("interrupted", exit.kind)
      assert.equal(cpus[2], cpu)
      for _ = 1, 20 do assert.is_nil(vm:poll()) end
      vm:stop()
    end
    stops(vm, "timeout", { timeout = 0.01 })
  end)

  it("is not started by vm:start or vm:run in a handler of cpu:run", function()
    local vm, cpus = machine({ "out 0x10, al\n hlt", "jmp $" })
    local tried = 0
    vm:pio(0x10, 1, { write = function()
      for _, name in ipairs { "start", "run" } do
        helper.raises("vm:" .. name .. ": cpu:run is running one of its vCPUs",
          function() vm[name](vm) end)
        tried = tried + 1
      end
      assert(cpus[2]:start())
    end })
    assert.equal("hlt", cpus[1]:run({ timeout = 60 }).kind)
    assert.same({ 2, true }, { tried, cpus[2].started })
    assert.is_true(vm:stop())
  end)

  it("tells its time while it runs", function()
    local vm, cpus = machine({ "again: out 0x80, al\n jmp again" })
    assert(vm:eventfd { port = 0x81, size = 1 })
    vm:pio(0x80, 1, { memory = helper.keep(luna.buffer "4K") })
    cpus[1]:account(true)
    local seen = {}
    local timer
    timer = vm:timer(0.01, function()
      local now = cpus[1].exec_time
      if #seen == 0 or now > seen[#seen] then seen[#seen + 1] = now end
      assert.equal("number", type(cpus[1].idle_time))
      if #seen == 5 then
        timer:close()
        vm:stop()
      end
    end, { period = 0.01 })
    stops(vm, "stopped")
  end)

  -- KVM would make the caller of some calls wait until the guest comes out by itself: this one does
  -- after a minute or so.
  it("tells its time from within one long entry", function()
    local vm, cpus, ram = machine { [[
      rdtsc
      lea ecx, [edx + 40]
    again:
      rdtsc
      cmp edx, ecx
      jb again
      mov byte [0x500], 1
      hlt]] }
    cpus[1]:account(true)
    assert(cpus[1]:start())
    os.execute "sleep 0.05"
    for _ = 1, 100 do assert.equal(0, cpus[1].idle_time) end
    assert.equal(0, ram:u8(0x500))
    assert(vm:stop())
  end)

  it("gives texts of its exits at any time", function()
    local vm, cpus = machine({ "out 0x10, al\n jmp $", "hlt" })
    local kept = {}
    cpus[1]:on("pio", function(_, exit)
      kept[1] = exit
      return "continue"
    end)
    local exit = stops(vm, "hlt")
    kept[2] = exit
    kept[3] = select(1, vm:run { timeout = 0.01 })
    assert(cpus[1]:start())
    for _, one in ipairs(kept) do assert.equal("string", type(tostring(one))) end
    cpus[1]:join()
    kept[4] = cpus[1]:run { timeout = 0.01 }
    assert(cpus[1]:start())
    helper.contains("timeout at rip", tostring(kept[4]))
    vm:close()
    for _, one in ipairs(kept) do assert.equal("string", type(tostring(one))) end
  end)
end)

helper.kvm("interrupts and threads", function()
  it("reach a guest that runs, without a controller", function()
    local guest = irq.guest("sti\n again: jmp again")
    local sent = 0
    guest.vm:timer(0.005, function()
      if sent < 10 then
        sent = sent + 1
        guest.cpu:irq(0x20 + sent)
        if sent == 3 then guest.cpu:nmi() end
      elseif #guest.taken > 10 then
        guest.vm:stop()
      end
    end, { period = 0.005 })
    guest.ram:u16(2 * 4, 0x4000 + 2 * 32)
    while sent < 10 do stops(guest.vm, "stopped") end
    local seen = {}
    for _, vector in ipairs(guest.taken) do seen[vector] = (seen[vector] or 0) + 1 end
    for i = 1, 10 do assert.equal(1, seen[0x20 + i]) end
    assert.equal(1, seen[2])
  end)

  it("wake a HLT inside KVM, by messages and by an irqfd", function()
    if features.split_irqchip ~= 1 then pending "this host's KVM has no split irqchip" end
    local guest = irq.guest("sti\n again: hlt\n jmp again", { vm = { irqchip = "split" } })
    local vm = guest.vm
    vm:route { { line = 7, address = APIC, data = 0x57 } }
    local bell = assert(vm:eventfd { port = 0x99, size = 1 })
    assert(vm:irqfd(7, bell))
    local second = helper.keep(vm:vcpu { rip = 0x3000, rsp = 0x3000 })
    guest.ram:write(0x3000, helper.code("mov cx, 300\n l: loop l\n out 0x99, al\n s: jmp s", 16,
      0x3000))
    vm:timer(0.02, function() vm:msi(APIC, 0x41) end)
    vm:timer(0.03, function() if #guest.taken > 1 then vm:stop() end end, { period = 0.01 })
    stops(vm, "stopped")
    table.sort(guest.taken)
    assert.same({ 0x41, 0x57 }, guest.taken)
    assert.is_false(second.started)
  end)
end)
