-- SPDX-License-Identifier: MIT
-- What the library says of misuse of a VM: devices, interrupts, timers, options.
-- message_spec.lua compares.

return function(o)
  local luna, vm, ram, other, device = o.luna, o.vm, o.ram, o.other, o.device

  return {
    {
      "luna.vm: unknown option 'memory'; the options are accel, apic_frequency, "
      .. "clock, dirty, dirty_ring, hypercalls, irqchip, pit, unknown, unknown_msrs",
      function() luna.vm { memory = 1 } end,
    },
    {
      "vm:timer: unknown option 'perod'; the options are period",
      function() vm:timer(1, print, { perod = 1 }) end,
    },
    {
      "vm:vcpu: a vm expected, got table; call it with a colon: vm:vcpu(...)",
      function() vm.vcpu { mode = "real" } end,
    },
    { "a vm has no field 'nothing' that can be set", function() vm.nothing = 1 end },
    {
      "vm:vcpu: mode: 'real', 'protected', 'long', 'user' or 'reset' expected, got \"protect\"",
      function() vm:vcpu { mode = "protect" } end,
    },
    {
      'vm:vcpu: rip: an integer expected, got x (write large ones as u64 "0x...")',
      function() vm:vcpu { rip = "x" } end,
    },
    {
      "vm:vcpu: registers: a table of registers by name expected, got number",
      function() vm:vcpu { registers = 5 } end,
    },
    {
      "vm:vcpu: registers: there is no rxa; did you mean 'rax'?",
      function() vm:vcpu { registers = { rxa = 5 } } end,
    },
    {
      "vm:vcpu: registers: cs: a table of its fields expected, got number",
      function() vm:vcpu { registers = { cs = 5 } } end,
    },
    {
      "vm:vcpu: registers: cs: there is no bse; did you mean 'base'?",
      function() vm:vcpu { registers = { cs = { bse = 5 } } } end,
    },
    {
      "vm:vcpu: cpuid: a function or a list of answers expected, got number",
      function() vm:vcpu { cpuid = 5 } end,
    },
    {
      "vm:vcpu: system: a whole number from 0 to 0x20000000000000 expected, got string",
      function() vm:vcpu { system = "x" } end,
    },
    {
      "cannot put a system area at gpa 0x1000: it must be a multiple of 0x10000, above 0 "
      .. "and below 4 GiB",
      function() vm:vcpu { system = 0x1000, mode = "long" } end,
    },
    { "vm:vcpu: wait: true or false expected, got number", function() vm:vcpu { wait = 1 } end },
    {
      "vm:pio: a device expected (a table with read and/or write, or memory), got nil",
      function() vm:pio(0x60, 1) end,
    },
    {
      "vm:pio: a device expected (a table with read and/or write, or memory), got a "
      .. "buffer; write { memory = buffer } for one",
      function() vm:pio(0x60, 1, ram) end,
    },
    {
      "vm:pio: the device has neither a read nor a write function",
      function() vm:pio(0x60, 1, {}) end,
    },
    {
      "vm:pio: device.read: a function expected, got number",
      function() vm:pio(0x60, 1, { read = 5 }) end,
    },
    {
      "vm:pio: the device has memory and functions: one or the other expected",
      function() vm:pio(0x60, 1, { memory = ram, read = print }) end,
    },
    {
      "vm:pio: device.memory: a buffer expected, got number",
      function() vm:pio(0x60, 1, { memory = 5 }) end,
    },
    { "cannot trap 0 bytes at port 0x60", function() vm:pio(0x60, 0, device) end },
    {
      "cannot trap 0x1 bytes at port 0x10000: the last port is 0xffff",
      function() vm:pio(0x10000, 1, device) end,
    },
    {
      "cannot trap ports 0x20..0x20: 0x20..0x20 is trapped already (trap 1); close that "
      .. "trap first",
      function() vm:pio(0x20, 1, device) end,
    },
    {
      "vm:pio: coalesced: true or false expected, got number",
      function() vm:pio(0x60, 1, device, { coalesced = 1 }) end,
    },
    {
      "vm:mmio: gpa: a whole number from 0 to 0x20000000000000 expected, got string",
      function() vm:mmio("x", 1, device) end,
    },
    {
      "cannot trap 0x1000 bytes at gpa 0x10000000000000: the last gpa is 0xffffffffffff",
      function() vm:mmio(2 ^ 52, "4K", device) end,
    },
    {
      "vm:msr: there is no MSR 'nothing': the names are those of SDM Vol. 4, table 2-2",
      function() vm:msr("nothing", device) end,
    },
    { "vm:eventfd: a port or a gpa expected, one of both", function() vm:eventfd {} end },
    {
      "vm:eventfd: port: a whole number from 0 to 0xffff expected, got 65536",
      function() vm:eventfd { port = 0x10000, size = 1 } end,
    },
    {
      "cannot make an eventfd of writes of 3 bytes: 1, 2, 4 are possible",
      function() vm:eventfd { port = 5, size = 3 } end,
    },
    {
      "vm:eventfd: any_size goes with neither size nor match",
      function() vm:eventfd { port = 5, size = 1, any_size = true } end,
    },
    {
      'vm:eventfd: match: an integer expected, got x (write large ones as u64 "0x...")',
      function() vm:eventfd { port = 5, size = 1, match = "x" } end,
    },
    {
      "cannot match 0x100: a write has 1 byte",
      function() vm:eventfd { port = 5, size = 1, match = 256 } end,
    },
    { "vm:coalesce: trap: a trap expected, got number", function() vm:coalesce(5) end },
    {
      "vm:coalesce: the trap belongs to another VM",
      function() vm:coalesce(other:pio(1, 1, device)) end,
    },
    {
      "vm:irq: line: a whole number from 0 to 0xfff expected, got 5000",
      function() vm:irq(5000, 1) end,
    },
    {
      "cannot set interrupt line 30: it has no route; give the VM routes first",
      function() vm:irq(30, 1) end,
    },
    { "vm:irq: level: a whole number from 0 to 0x1 expected, got 2", function() vm:irq(5, 2) end },
    {
      'vm:msi: address: an integer expected, got x (write large ones as u64 "0x...")',
      function() vm:msi("x", 0) end,
    },
    { "vm:route: a list of routes expected, got number", function() vm:route(5) end },
    {
      "vm:route: entry 1: an address and data, or chip = 'ioapic' or 'pic' and a pin expected",
      function() vm:route { { line = 1 } } end,
    },
    {
      'vm:route: entry 1: address: an integer expected, got x (write large ones as u64 "0x...")',
      function() vm:route { { line = 1, address = "x" } } end,
    },
    {
      "vm:route: entry 1: pin: a whole number from 0 to 0x17 expected, got 24",
      function() vm:route { { line = 1, chip = "ioapic", pin = 24 } } end,
    },
    {
      "cannot route interrupt line 1 to a pin: the VM's controllers are not in KVM; route "
      .. "it to a message",
      function() vm:route { { line = 1, chip = "pic", pin = 1 } } end,
    },
    {
      "vm:route: entry 1: unknown option 'pni'; the options are address, chip, data, line, pin",
      function() vm:route { { line = 1, pni = 1 } } end,
    },
    {
      "vm:irqfd: eventfd: a whole number from 0 to 0x7fffffff expected, got nil",
      function() vm:irqfd(1, nil) end,
    },
    {
      "vm:chip: 'ioapic', 'pic_primary' or 'pic_secondary' expected, got apic",
      function() vm:chip("apic") end,
    },
    { "vm:chip: a state is a string of 512 bytes", function() vm:chip("ioapic", "x") end },
    {
      "vm:apic_frequency: hertz: a whole number from 16000000 to 2000000000 expected, got 1",
      function() vm:apic_frequency(1) end,
    },
    {
      'vm:sync_tsc: value: an integer expected, got x (write large ones as u64 "0x...")',
      function() vm:sync_tsc("x") end,
    },
    { "vm:timer: delay: seconds from 0 on expected, got -1", function() vm:timer(-1, print) end },
    { "vm:timer: a function expected, got nil", function() vm:timer(1) end },
    {
      "vm:timer: period: seconds from 1e-06 on expected, got 0",
      function() vm:timer(1, print, { period = 0 }) end,
    },
    {
      "vm:run: timeout: seconds from 0 on expected, got -1",
      function() vm:run { timeout = -1 } end,
    },
    {
      "cannot set an interrupt line: the VM was made without an interrupt controller in "
      .. "KVM (irqchip 'split' or 'kernel')",
      function() other:irq(1, 1) end,
    },
    {
      "cannot send a message-signalled interrupt: the VM was made without an interrupt "
      .. "controller in KVM (irqchip 'split' or 'kernel')",
      function() other:msi(0, 0) end,
    },
    {
      "the VM's IOAPIC and PICs are not in KVM: it was not made with irqchip 'kernel'",
      function() other:chip("pic_primary") end,
    },
    {
      "luna.vm: dirty: 'bitmap' or 'ring' expected, got none",
      function() luna.vm { dirty = "none" } end,
    },
    {
      "cannot make a VM with dirty rings of 5 entries: a power of two is needed",
      function() luna.vm { dirty = "ring", dirty_ring = 5 } end,
    },
    {
      "luna.vm: accel: 'auto', 'kvm' or 'soft' expected, got 'sofr'; did you mean 'soft'?",
      function() luna.vm { accel = "sofr" } end,
    },
    {
      "luna.vm: accel: 'auto', 'kvm' or 'soft' expected, got number",
      function() luna.vm { accel = 2 } end,
    },
    {
      "luna.vm: irqchip: 'none', 'split' or 'kernel' expected, got full",
      function() luna.vm { irqchip = "full" } end,
    },
    {
      "cannot make a VM with a PIT in KVM: that needs KVM's own IOAPIC, irqchip 'kernel'",
      function() luna.vm { pit = true } end,
    },
    {
      "luna.vm: unknown_msrs: 'exit' or 'fault' expected, got no",
      function() luna.vm { unknown_msrs = "no" } end,
    },
    {
      "luna.vm: apic_frequency: a whole number from 16000000 to 2000000000 expected, got 5",
      function() luna.vm { apic_frequency = 5 } end,
    },
    {
      "vm:irq: level: a whole number from 0 to 0x1 expected, got string",
      function() vm:irq(5, "x") end,
    },
    { "vm:timer: delay: seconds from 0 on expected, got x", function() vm:timer("x", print) end },
    { "vm:core: path: a path expected, got nil", function() vm:core() end },
    {
      "vm:core: this VM has no vCPU, and a core has a thread",
      function() other:core "x" end,
    },
    {
      "vm:core: vCPU 1 is started; cpu:join ends that",
      function()
        o.started:start()
        local ok, message = pcall(vm.core, vm, "x")
        o.started:join()
        assert(not ok)
        error(message, 0)
      end,
    },
    { "vm:gdb: one of port, path and stdio = true expected", function() vm:gdb {} end },
    {
      "vm:gdb: address is for a port only",
      function() vm:gdb { path = "x", address = "0.0.0.0" } end,
    },
    {
      "vm:gdb: bits: 16, 32 or 64 expected, got 8",
      function() vm:gdb { port = 0, bits = 8 } end,
    },
    {
      "gdb:serve: this VM has no vCPU to debug",
      function() other:gdb({ port = 0 }):serve() end,
    },
    {
      "attempt to use a closed gdb server",
      function()
        local gdb = vm:gdb { port = 0 }
        gdb:close()
        gdb:serve()
      end,
    },
  }
end
