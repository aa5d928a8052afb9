-- SPDX-License-Identifier: MIT
-- The calls that anywhere.lua breaks off: every method of the public API is in one (error_spec.lua
-- compares them with the annotations). Each is done again and again: what it makes it takes back.

local luna = require "lunavisor"

local function close(object)
  if object then object:close() end
end

--- The calls by name. world: a VM with a split irqchip, its memory and vCPU, whose code is that of
--- anywhere.lua; another VM with a vCPU that never runs.
return function(world)
  local vm, ram, cpu, other, spare = world.vm, world.ram, world.cpu, world.other, world.spare
  local bell = other:eventfd { port = 1, size = 1 }
  other.default:map(luna.buffer "256K", 0)
  local device = { read = function() return 0 end, write = function() end }

  local function stops(kind)
    local exit = assert(cpu:run { timeout = 60 })
    if exit.kind ~= kind then error(("%s expected, got %s"):format(kind, tostring(exit)), 0) end
  end

  return {
    run = function()
      cpu.rip = 0x1000
      assert(cpu:run { timeout = 60 })
    end,
    run_until = function()
      cpu.rip = 0x1000
      cpu:run { until_rip = 0x1002, timeout = 0.001 }
    end,
    step = function()
      cpu.rip = 0x1000
      cpu:step()
    end,
    trace = function()
      cpu.rip = 0x1000
      cpu:trace(function() return "stop" end)
    end,
    vm_run = function()
      cpu.rip = 0x1000
      vm:run { timeout = 60 }
    end,
    vm_start = function()
      cpu.rip = 0x1000
      vm:start()
      vm:poll()
      vm:stop()
    end,
    trap = function() close(vm:pio(0x60, 2, device)) end,
    mmio = function() close(vm:mmio(0xfee10000, 0x1000, { memory = ram })) end,
    coalesced = function() close(vm:pio(0x70, 1, device, { coalesced = true })) end,
    msr = function() close(vm:msr(0x1234, device)) end,
    eventfd = function() close(vm:eventfd { port = 0x80, size = 2 }) end,
    irqfd = function() close(vm:irqfd(5, bell)) end,
    space = function() close(vm:space()) end,
    timer = function() close(vm:timer(100, print)) end,
    breakpoint = function() close(cpu:breakpoint(0x3000)) end,
    fault = function() close(vm.default:on_fault(0x100000, 0x1000, print)) end,
    vcpu = function() close(vm:vcpu { cpuid = { { leaf = 0, eax = 1 } } }) end,
    vm = function() close(luna.vm()) end,
    buffer = function() close(luna.buffer "4K") end,
    view = function() close(ram:view(0, 0x1000)) end,
    map = function()
      vm.default:map(ram, 0x200000)
      vm.default:unmap(0x200000, ram.size)
    end,
    update = function()
      vm.default:update(function(update) update:map(ram, 0x200000) end)
      vm.default:unmap(0x200000, ram.size)
    end,
    memory = function() ram:write(0x4000, vm.default:read(0x4000, 64) .. cpu:read(0x4000, 64)) end,
    look = function()
      tostring(cpu:run { timeout = 0 })
      return vm.default:regions(), tostring(vm), cpu:regs(), cpu:translate(0), luna.disasm("\xf4")
    end,
    explain = function() return cpu:run({ timeout = 0 }):explain() end,
    repl = function() luna.repl { vm = vm } end,
    gdb = function()
      local server = vm:gdb { port = 0 }
      server:serve { timeout = 0 }
      close(server)
    end,
    state = function()
      cpu.rip = 0x2000
      cpu:set_state(cpu:state())
    end,
    buffer_read = function()
      return ram:u8(0x5000), ram:u16(0x5000), ram:u32(0x5000), ram:u64(0x5000),
        ram:read(0x5000, 16), ram:string(0x5000, 16), ram:find("abc"), ram:hexdump(0x5000, 16),
        ram:compare(0x5000, ram, 0x6000, 16), ram:page_size(), ram:pointer()
    end,
    buffer_write = function()
      ram:u8(0x5000, 1)
      ram:u16(0x5000, 1)
      ram:u32(0x5000, 1)
      ram:u64(0x5000, 1)
      ram:fill(0, 0x5000, 16)
      ram:copy(0x5000, ram, 0x6000, 16)
      ram:mark(0x5000, 1)
    end,
    buffer_fd = function()
      local buffer = luna.buffer { size = "4K", memfd = true }
      buffer:fd()
      close(buffer)
    end,
    space_read = function()
      local space = vm.default
      return space:u8(0x5000), space:u16(0x5000), space:u32(0x5000), space:u64(0x5000),
        space:try_read(0x5000, 16), space:find(0x5000), space:slots(), space:try_read(0x900000, 1)
    end,
    space_write = function()
      local space = vm.default
      space:u8(0x5000, 1)
      space:u16(0x5000, 1)
      space:u32(0x5000, 1)
      space:u64(0x5000, 1)
      space:write(0x5000, "abc")
      space:try_write(0x5000, "abc")
      for _ in space:dirty(0x5000, 0x1000) do end
    end,
    space_change = function()
      vm:map_space(0, ram, 0x200000, ram.size, "rwx")
      vm:protect_space(0, 0x200000, 0x1000, "r-x")
      vm.default:protect(0x201000, 0x1000, "r-x")
      vm:unmap_space(0, 0x200000, ram.size)
    end,
    window = function()
      assert(vm.default:map(ram, 0x200000, { size = 0x1000, window = true }))
      vm.default:remap(0x200000, ram, 0x1000)
      vm.default:unmap(0x200000, 0x1000)
    end,
    space_edit = function()
      vm.default:update(function(update)
        update:map(ram, 0x200000)
        update:protect(0x200000, 0x1000, "r-x")
        update:unmap(0x201000, 0x1000)
      end)
      vm.default:unmap(0x200000, 0x1000)
      vm.default:unmap(0x202000, ram.size - 0x2000)
    end,
    move = function()
      local view = vm:space()
      view:map(ram, 0)
      cpu:set_space(view)
      cpu:set_space(0)
      close(view)
    end,
    linear = function()
      cpu:u8(0x5000, 1)
      cpu:u16(0x5000, 1)
      cpu:u32(0x5000, 1)
      cpu:u64(0x5000, 1)
      cpu:write(0x5000, "abc")
      return cpu:instruction(), cpu:backtrace(4), cpu:disasm(4), cpu:last_exits(4),
        cpu:last_exceptions(4)
    end,
    core = function()
      local path = os.tmpname()
      vm:core(path)
      os.remove(path)
    end,
    answer = function()
      cpu.rip = 0x2800
      stops("pio")
      cpu:retry()
      stops("pio")
      cpu:answer(1)
      cpu:finish()
      stops("stopped")
    end,
    drop = function()
      cpu.rip = 0x2800
      stops("pio")
      cpu:drop()
    end,
    refuse = function()
      cpu.rip, cpu.rsp = 0x2a00, 0x8000
      stops("msr")
      cpu:refuse()
      stops("stopped")
    end,
    inject = function()
      cpu.rip, cpu.rsp = 0x2800, 0x8000
      cpu:inject("#GP", 0)
      stops("stopped")
    end,
    on = function()
      cpu:on("hlt", print)
      cpu:on("hlt", nil)
    end,
    check = function() return cpu:check(), spare:regs() end,
    account = function()
      spare:account(true)
      spare:account(false)
    end,
    interrupts = function()
      spare:irq(0x40)
      spare:nmi()
      spare:smi()
      spare:extint(0x30)
      spare:window(true)
      spare:window(false)
      spare:interrupt()
      other:msi(0xfee00000, 0x4041)
      spare:set_state(spare:state())
    end,
    sipi = function()
      local waits = other:vcpu { wait = true }
      waits:sipi(9)
      close(waits)
    end,
    chip = function()
      local chips, message = luna.vm { irqchip = "kernel" }
      if not chips then return message end -- not every KVM has them
      chips:chip("ioapic", chips:chip "ioapic")
      close(chips)
    end,
    frequency = function()
      local fresh = luna.vm { irqchip = "split" }
      fresh:apic_frequency(1e9)
      fresh:sync_tsc(0)
      close(fresh)
    end,
    coalesce = function()
      local trap = vm:mmio(0xfee20000, 0x1000, device)
      vm:coalesce(trap)
      close(trap)
    end,
    routes = function()
      other:route { { line = 3, address = 0xfee00000, data = 0x4042 } }
      other:irq(3, 1)
      other:route {}
    end,
    apic = function()
      spare.apic:set(spare.apic:get())
      spare.apic:fire_timer()
    end,
    pause = function()
      cpu.rip = 0x1000
      vm:start()
      cpu:pause()
      cpu:resume()
      vm:pause()
      vm:resume()
      vm:fd()
      vm:stop()
    end,
    start = function()
      cpu.rip = 0x1000
      cpu:start()
      cpu:unpark()
      vm:poll()
      if cpu.started then cpu:join() end
    end,
    luna = function()
      luna.debug(true)
      luna.debug(false)
      luna.live()
      return luna.probe(), luna.capability "slots_max", luna.hex(1), luna.clock(),
        luna.with(luna.buffer "4K", tostring)
    end,
    asm = function() assert(luna.asm "hlt") end,
    load = function()
      local image = assert(luna.load(vm, { bytes = "\xf4" }, { format = "flat",
        address = 0x5000 }))
      local symbols = image.symbols
      return symbols:at(0), symbols:list(), symbols:find "x", symbols:name(0), vm:symbol(0),
        symbols:line(0)
    end,
    lines = function()
      local elf = assert(luna.load(other, os.getenv "LUNA_ANYWHERE_ELF", { format = "elf" }))
      local symbols = elf.symbols
      other.symbols = symbols
      return assert(other:source_line(symbols._start)), assert(symbols:find "start.asm:8")
    end,
  }
end
