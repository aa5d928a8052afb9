-- SPDX-License-Identifier: MIT
-- What the library says of misuse: the whole message, and what brings it about. message_spec.lua
-- compares.

return function(o)
  local luna, u64, vm, cpu, ram, rom = o.luna, o.u64, o.vm, o.cpu, o.ram, o.rom
  local space, exit, other, device = o.space, o.exit, o.other, o.device
  local started, closed = o.started, o.closed

  -- Leaves a run in which a handler has yielded.
  local function suspend()
    cpu:on("pio", function() coroutine.yield() end)
    coroutine.wrap(function() cpu:run { timeout = 5 } end)()
  end

  return {
    {
      "attempt to use a closed buffer",
      function() local b = luna.buffer "4K" b:close() local _ = b:u8(0) end,
    },
    { "attempt to use a closed vm", function() local v = luna.vm() v:close() v:space() end },
    {
      "attempt to use a closed vcpu",
      function() local c = vm:vcpu() c:close() local _ = c.rax end,
    },
    { "attempt to use a closed space", function() local s = vm:space() s:close() s:regions() end },
    {
      "attempt to use a closed eventfd",
      function() local e = vm:eventfd { port = 5, size = 1 } e:close() e:read() end,
    },
    {
      "attempt to use a closed trap",
      function() local t = vm:pio(0x500, 1, device) t:close() vm:coalesce(t) end,
    },
    { "cpu:run: a table of options expected, got number", function() cpu:run(5) end },
    {
      "cpu:run: unknown option 'time'; the options are deadline, max_exits, timeout, "
      .. "until_gpa, until_rip",
      function() cpu:run { time = 5 } end,
    },
    {
      "luna.vm: unknown option 'memory'; the options are apic_frequency, dirty, "
      .. "dirty_ring, hypercalls, irqchip, pit, unknown_msrs",
      function() luna.vm { memory = 1 } end,
    },
    {
      "vm:timer: unknown option 'perod'; the options are period",
      function() vm:timer(1, print, { perod = 1 }) end,
    },
    {
      "cpu:run: timeout: seconds from 0 on expected, got 5",
      function() cpu:run { timeout = "5" } end,
    },
    {
      "cpu:run: max_exits: a whole number from 1 to 0x20000000000000 expected, got 0",
      function() cpu:run { max_exits = 0 } end,
    },
    {
      "cpu:run: until_rip or until_gpa expected, not both",
      function() cpu:run { until_rip = 0, until_gpa = 0 } end,
    },
    {
      "cpu:run: until_rip: an integer expected, got x",
      function() cpu:run { until_rip = "x" } end,
    },
    {
      "cpu:run: until_gpa: a whole number from 0 to 0x20000000000000 expected, got 0.5",
      function() cpu:run { until_gpa = 0.5 } end,
    },
    {
      "cpu:run: a vcpu expected, got table; call it with a colon: cpu:run(...)",
      function() cpu.run { timeout = 1 } end,
    },
    {
      "vm:vcpu: a vm expected, got table; call it with a colon: vm:vcpu(...)",
      function() vm.vcpu { mode = "real" } end,
    },
    {
      "buffer:u8: a buffer expected, got number; call it with a colon: buffer:u8(...)",
      function() ram.u8(0) end,
    },
    {
      "space:map: a space expected, got a buffer; call it with a colon: space:map(...)",
      function() space.map(ram, 0) end,
    },
    { "a vcpu has no field 'rxa'; did you mean 'rax'?", function() local _ = cpu.rxa end },
    { "an exit has no field 'knid'; did you mean 'kind'?", function() local _ = exit.knid end },
    { "luna has no field 'bufer'; did you mean 'buffer'?", function() local _ = luna.bufer end },
    {
      "luna.u64 has no field 'tonumer'; did you mean 'tonumber'?",
      function() local _ = luna.u64.tonumer end,
    },
    {
      "a vcpu has no field 'eax' that can be set; did you mean 'rax'?",
      function() cpu.eax = 1 end,
    },
    {
      "a vcpu has no field 'cs' that can be set; write its fields, like cs.base",
      function() cpu.cs = 1 end,
    },
    { "cs has no field 'length' that can be set", function() cpu.cs.length = 1 end },
    { "cs has no field 'length'", function() local _ = cpu.cs.length end },
    { "a vm has no field 'nothing' that can be set", function() vm.nothing = 1 end },
    {
      "cpu:step: count: a whole number from 1 to 0x20000000000000 expected, got 0",
      function() cpu:step(0) end,
    },
    { "cpu:trace: a function expected, got number", function() cpu:trace(1) end },
    {
      'cpu:on: no exit kind "nothing"; the kinds are debug, eoi, exception, fail_entry, '
      .. "fault, hlt, host_fault, hypercall, instruction, internal, interrupted, mmio, msr, "
      .. "other, pio, shutdown, signal, system_event, timeout, tpr",
      function() cpu:on("nothing", print) end,
    },
    { "cpu:on: handler: a function expected, got number", function() cpu:on("hlt", 5) end },
    { "cpu:breakpoint: address: an integer expected, got x", function() cpu:breakpoint("x") end },
    {
      'cpu:breakpoint: access: "x", "w" or "rw" expected, got "q"',
      function() cpu:breakpoint(0, { access = "q" }) end,
    },
    {
      'cpu:breakpoint: a software breakpoint is for access "x" only',
      function() cpu:breakpoint(0, { access = "w", software = true }) end,
    },
    {
      'cpu:breakpoint: size is for access "w" and "rw" only',
      function() cpu:breakpoint(0, { size = 4 }) end,
    },
    {
      "cpu:breakpoint: software: true or false expected, got number",
      function() cpu:breakpoint(0, { software = 1 }) end,
    },
    {
      "cpu:breakpoint: handler: a function expected, got number",
      function() cpu:breakpoint(0, 5) end,
    },
    { "cpu:answer: the guest reads: a value expected", function() cpu:answer() end },
    {
      "cpu:answer: the script answered a read of 1 byte at offset 0x0 with 0x100: an "
      .. "unsigned integer of that size expected",
      function() cpu:answer(256) end,
    },
    {
      'cpu:inject: a name such as "#GP" or a vector up to 31 expected, got "#GPX"',
      function() cpu:inject("#GPX") end,
    },
    {
      "cannot inject vector 2 as an exception: exceptions are 0 to 31 without 2",
      function() cpu:inject(2) end,
    },
    {
      "cpu:inject: exception: a whole number from 0 to 0x1f expected, got 32",
      function() cpu:inject(32) end,
    },
    {
      "cpu:set_space: space: a whole number from 0 to 0xffffffff expected, got string",
      function() cpu:set_space("x") end,
    },
    {
      "cpu:set_space: the space belongs to another VM",
      function() cpu:set_space(other:space()) end,
    },
    { "there is no space 77 in this VM", function() cpu:set_space(77) end },
    {
      "cpu:set_state: a string of cpu:state expected, got number",
      function() cpu:set_state(5) end,
    },
    { "cpu:account: true or false expected, got number", function() cpu:account(1) end },
    { "cpu:window: true or false expected, got number", function() cpu:window(1) end },
    {
      "cpu:irq: vector: a whole number from 0 to 0xff expected, got 256",
      function() cpu:irq(256) end,
    },
    {
      "cpu:sipi: vector: a whole number from 0 to 0xff expected, got 256",
      function() cpu:sipi(256) end,
    },
    {
      "cpu:backtrace: max: a whole number from 1 to 0x100000 expected, got 0",
      function() cpu:backtrace(0) end,
    },
    {
      'cpu:read: gva: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu:read("x", 1) end,
    },
    { "cpu:write: a string expected, got number", function() cpu:write(0, 5) end },
    { "cpu:u8: value 256 does not fit in 8 bits", function() cpu:u8(0, 256) end },
    { "cpu:u64: value 0.5 does not fit in 64 bits", function() cpu:u64(0, 0.5) end },
    {
      'register rax: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu.rax = "x" end,
    },
    {
      'MSR IA32_EFER: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu.msr.efer = "x" end,
    },
    {
      "there is no MSR 'nothing': the names are those of SDM Vol. 4, table 2-2",
      function() local _ = cpu.msr.nothing end,
    },
    {
      "an MSR's number (0 to 0xffffffff) or name expected, got -1",
      function() local _ = cpu.msr[-1] end,
    },
    {
      "cpu.msr: an MSR's name expected, got one with a zero byte",
      function() local _ = cpu.msr["a\0"] end,
    },
    { "cpu.tsc_offset: an integer expected, got x", function() cpu.tsc_offset = "x" end },
    {
      "cpu.mp_state: 'runnable', 'halted', 'uninitialized', 'init_received' or "
      .. "'sipi_received' expected, got asleep",
      function() cpu.mp_state = "asleep" end,
    },
    { "cpu.blocking: a table of flags expected, got nil", function() cpu.blocking = nil end },
    {
      "cpu.blocking: unknown option 'sit'; the options are mov_ss, nmi, sti",
      function() cpu.blocking = { sit = true } end,
    },
    { "cpu.xsave: a string expected, got number", function() cpu.xsave = 5 end },
    {
      "register xmm: a string of 16 bytes, a list of u64 or a table like { f64 = { 1.5 } "
      .. "} expected, got number",
      function() cpu.xmm[0] = 5 end,
    },
    { "a register xmm has 16 bytes, the string has 5", function() cpu.xmm[0] = "short" end },
    {
      "register xmm: the views are f32, f64, u8, u16, u32 and u64, not 'f99'",
      function() cpu.xmm[0] = { f99 = { 1 } } end,
    },
    { "register xmm: 256 is no u8", function() cpu.xmm[0] = { u8 = { 256 } } end },
    { "register xmm: it has 16 bytes, these are 24", function() cpu.xmm[0] = { 1, 2, 3 } end },
    { "there is no register xmm[99]: the index is 0 to 31", function() local _ = cpu.xmm[99] end },
    {
      "0x00000000000000000000000000000000 is what the register held when it was read; "
      .. "assign to the register itself",
      function() cpu.xmm[0].u8 = 5 end,
    },
    {
      "cpuid: a table with eax, ebx, ecx and edx expected, got number",
      function() cpu.cpuid[1] = 5 end,
    },
    {
      "cpuid: unknown field 'eix'; eax, ebx, ecx, edx, leaf and subleaf are known",
      function() cpu.cpuid[1] = { eix = 1 } end,
    },
    {
      "cpuid: eax: a whole number from 0 to 0xffffffff expected, got -1",
      function() cpu.cpuid[1] = { eax = -1 } end,
    },
    { "cpuid: a list of answers expected, got number", function() cpu.cpuid = 5 end },
    { "a CPUID table has no field 'x'", function() local _ = cpu.cpuid.x end },
    { "cpuid:filter: a function expected, got number", function() cpu.cpuid:filter(5) end },
    {
      "cpu.apic.tpr: a whole number from 0 to 0xffffffff expected, got -1",
      function() cpu.apic.tpr = -1 end,
    },
    { "an apic has no field 'nothing'", function() local _ = cpu.apic.nothing end },
    {
      "cpu.apic.irr: a word from 0 to 7 expected, got 8",
      function() local _ = cpu.apic.irr[8] end,
    },
    {
      "cpu.apic:set: a string of 1024 bytes expected, got one of 1",
      function() cpu.apic:set("x") end,
    },
    {
      "offset -0x1 and size 1 are outside the buffer, which has 0x10000 bytes",
      function() ram:u8(-1) end,
    },
    { "bad offset (a whole number expected, got 0)", function() ram:u8("0") end },
    { "value 256 does not fit in 8 bits", function() ram:u8(0, 256) end },
    { "value 5 is not an exact 64-bit integer", function() ram:u64(0, "5") end },
    {
      "buffer:read: offset 0x0 and size 1099511627776 are outside the buffer, which has "
      .. "0x10000 bytes",
      function() ram:read(0, 2 ^ 40) end,
    },
    {
      "buffer:read: into: a string.buffer of LuaJIT expected, got number",
      function() ram:read(0, 1, 5) end,
    },
    { "buffer:write: a string expected, got number", function() ram:write(0, 5) end },
    {
      "buffer:write: offset 0x40000000 and size 1 are outside the buffer, which has "
      .. "0x10000 bytes",
      function() ram:write(2 ^ 30, "x") end,
    },
    {
      "buffer:fill: byte: a whole number from 0 to 0xff expected, got 256",
      function() ram:fill(256) end,
    },
    { "buffer:find: a string expected, got number", function() ram:find(5) end },
    { "buffer:copy: source: a buffer expected, got string", function() ram:copy(0, "x") end },
    {
      "buffer:view: offset 0x100000 and size 0 are outside the buffer, which has 0x10000 bytes",
      function() ram:view(2 ^ 20) end,
    },
    { "the buffer is read-only", function() rom:write(0, "x") end },
    { "the buffer is read-only", function() rom:u8(0, 1) end },
    {
      "luna.buffer: a number of bytes or a size such as '64K', '2M' or '1G' expected, got "
      .. '"64KB"',
      function() luna.buffer("64KB") end,
    },
    {
      "cannot make a buffer of 0x0 bytes: the size must be a multiple of 0x1000 and not 0",
      function() luna.buffer(0) end,
    },
    {
      "cannot make a buffer of 0x1388 bytes: the size must be a multiple of 0x1000 and not 0",
      function() luna.buffer(5000) end,
    },
    {
      "luna.buffer: huge: '2M' or '1G' expected, got 3M",
      function() luna.buffer { size = "4K", huge = "3M" } end,
    },
    {
      "luna.buffer: private: true or false expected, got number",
      function() luna.buffer { size = "4K", private = 1 } end,
    },
    { "luna.buffer: file: a path expected, got number", function() luna.buffer { file = 5 } end },
    {
      "luna.buffer: file: a path expected, got one with a zero byte",
      function() luna.buffer { file = "a\0", size = 4096 } end,
    },
    { "space:map: buffer: a buffer expected, got number", function() space:map(5, 0) end },
    {
      "cannot map gpa 0x1: it is not a multiple of the page size 0x1000",
      function() space:map(ram, 1) end,
    },
    {
      "cannot map gpa 0x0..0xffff in space 0: 0x0..0xffff is mapped already; unmap it first",
      function() space:map(ram, 0) end,
    },
    {
      "space:map: rights: 'rwx', 'r-x', '---' or the like expected, got \"wat\"",
      function() space:map(ram, 0x500000, 0x1000, "wat") end,
    },
    {
      "cannot map 0x2000000 bytes from offset 0x0: the buffer has 0x10000",
      function() space:map(ram, 0x500000, 0x2000000, "rwx") end,
    },
    {
      "cannot map 0xffff bytes at gpa 0x500000: the size must be a multiple of 0x1000 and not 0",
      function() space:map(ram, 0x500000, { offset = 1 }) end,
    },
    {
      "space:map: unknown option 'rigths'; the options are offset, rights, separate, "
      .. "size, strict, window",
      function() space:map(ram, 0x500000, { rigths = "r-x" }) end,
    },
    {
      "cannot map gpa 0x500000 in space 0 with write: the buffer is read-only",
      function() space:map(rom, 0x500000) end,
    },
    {
      "cannot map 0x10000 bytes at gpa 0x10000000000000: guest-physical addresses of this "
      .. "host have 48 bits and end at 0xffffffffffff",
      function() space:map(ram, 2 ^ 52) end,
    },
    {
      "cannot unmap gpa 0x900000..0x900fff of space 0: nothing is mapped at 0x900000",
      function() space:unmap(0x900000, 0x1000) end,
    },
    {
      "space:protect: rights: 'rwx', 'r-x', '---' or the like expected, got \"rw\"",
      function() space:protect(0, 0x1000, "rw") end,
    },
    {
      "cannot protect gpa 0x900000..0x900fff of space 0: nothing is mapped at 0x900000",
      function() space:protect(0x900000, 0x1000, "r-x") end,
    },
    {
      "cannot remap gpa 0x0 of space 0: no window begins there; map it as a window",
      function() space:remap(0, ram, 0) end,
    },
    { "space:update: a function expected, got number", function() space:update(5) end },
    {
      "space:find: gpa: a whole number from 0 to 0x20000000000000 expected, got string",
      function() space:find("x") end,
    },
    {
      "cannot access 0x1 bytes at gpa 0x900000 of space 0: nothing is mapped at 0x900000",
      function() space:read(0x900000, 1) end,
    },
    { "space:write: a string expected, got number", function() space:write(0, 5) end },
    { "space:u8: value 256 does not fit in 8 bits", function() space:u8(0, 256) end },
    {
      "space:u8: gpa: a whole number from 0 to 0x20000000000000 expected, got string",
      function() space:u8("x") end,
    },
    { "space:on_fault: a function expected, got nil", function() space:on_fault(0, 0x1000) end },
    {
      "space:dirty: gpa: a whole number from 0 to 0x20000000000000 expected, got string",
      function() space:dirty("x") end,
    },
    {
      "cannot destroy space 0: it is the VM's default space and goes with the VM",
      function() vm.default:close() end,
    },
    { "vm:map_space: there is no space 9 in this VM", function() vm:map_space(9, ram, 0) end },
    {
      "vm:map_space: space: a whole number from 0 to 0xffffffff expected, got string",
      function() vm:map_space("x", ram, 0) end,
    },
    {
      "vm:vcpu: mode: 'real', 'protected', 'long', 'user' or 'reset' expected, got \"protect\"",
      function() vm:vcpu { mode = "protect" } end,
    },
    { "vm:vcpu: rip: an integer expected, got x", function() vm:vcpu { rip = "x" } end },
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
      "vm:eventfd: match: an integer expected, got x",
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
    { "vm:msi: address: an integer expected, got x", function() vm:msi("x", 0) end },
    { "vm:route: a list of routes expected, got number", function() vm:route(5) end },
    {
      "vm:route: entry 1: an address and data, or chip = 'ioapic' or 'pic' and a pin expected",
      function() vm:route { { line = 1 } } end,
    },
    {
      "vm:route: entry 1: address: an integer expected",
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
    { "vm:sync_tsc: value: an integer expected, got x", function() vm:sync_tsc("x") end },
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
      "luna.with: something with a close method expected, got nil",
      function() luna.with(nil, print) end,
    },
    {
      "luna.with: something with a close method expected, got string",
      function() luna.with("x", print) end,
    },
    { "luna.with: a function expected, got nil", function() luna.with(luna.buffer "4K") end },
    { "luna.capability: a name expected, got number", function() luna.capability(5) end },
    {
      "there is no limit 'vcpus': vcpus_max, slots_max, spaces_max, address_bits, "
      .. "dirty_ring_max and xsave_size are known",
      function() luna.capability "vcpus" end,
    },
    { "luna.debug: true or false expected, got number", function() luna.debug(5) end },
    { "luna.asm: the source, a string, expected, got number", function() luna.asm(5) end },
    {
      "luna.asm: bits: 16, 32 or 64 expected, got 8",
      function() luna.asm("nop", { bits = 8 }) end,
    },
    { "luna.disasm: a string of bytes expected, got number", function() luna.disasm(5) end },
    {
      "luna.disasm: bits: 16, 32 or 64 expected, got 8",
      function() luna.disasm("x", { bits = 8 }) end,
    },
    {
      "luna.disasm: address: an integer expected, got x",
      function() luna.disasm("x", { address = "x" }) end,
    },
    { '"5" is not a hexadecimal number of up to 16 digits, like "0x1f"', function() u64("5") end },
    {
      '0.5 is not an exact 64-bit integer (write large ones as u64 "0x...")',
      function() u64(0.5) end,
    },
    {
      'x is not an exact 64-bit integer (write large ones as u64 "0x...")',
      function() u64.hex("x") end,
    },
    {
      "0xffffffffffffffff does not fit in an ordinary number exactly",
      function() u64.tonumber(u64 "0xffffffffffffffff") end,
    },
    { "division by zero", function() u64.div(1, 0) end },
    { "a shift by 64: 0 to 63 expected", function() u64.lshift(1, 64) end },
    {
      "cpu:run: vCPU 1 is started, and its thread runs it; cpu:join ends that",
      function() started:start() started:run() end,
    },
    {
      "vCPU 1 is started, and its thread has it: pause it or stop it first, or do this "
      .. "when its exit has been taken from the queue",
      function() started:start() local _ = started.rax end,
    },
    { "cannot resume vCPU 0: it is not started", function() cpu:resume() end },
    { "u64(high, low): two halves of 32 bits expected, got x", function() u64("x", 0) end },
    {
      "vm:run: this VM is running: a handler is at work, or its coroutine is suspended",
      function()
        vm:timer(0, function() coroutine.yield() end)
        coroutine.wrap(function() vm:run { timeout = 1 } end)()
        vm:run()
      end,
    },
    { "attempt to use a closed space", function() cpu:set_space(closed) end },
    {
      "attempt to use a closed vcpu",
      function() local c2 = cpu.cpuid cpu:close() local _ = c2[0] end,
    },
    {
      "attempt to use a closed vcpu",
      function() local a = cpu.apic cpu:close() local _ = a.tpr end,
    },
    {
      "attempt to use a closed vcpu",
      function() local m = cpu.msr cpu:close() local _ = m.efer end,
    },
    { "attempt to use a closed vcpu", function() local x = cpu.xmm cpu:close() local _ = x[0] end },
    {
      "vm:irq: level: a whole number from 0 to 0x1 expected, got string",
      function() vm:irq(5, "x") end,
    },
    { "vm:timer: delay: seconds from 0 on expected, got x", function() vm:timer("x", print) end },
    {
      "cpu:start: cpu:run is running this vCPU",
      function()
        suspend()
        cpu:start()
      end,
    },
    {
      "cpu:run: this vCPU is running: a handler is at work, or its coroutine is suspended",
      function()
        suspend()
        cpu:run()
      end,
    },
    {
      "vm:run: cpu:run is running one of its vCPUs",
      function()
        suspend()
        vm:run()
      end,
    },
  }
end
