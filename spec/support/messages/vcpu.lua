-- SPDX-License-Identifier: MIT
-- What the library says of misuse of a vCPU, its registers and breakpoints.
-- message_spec.lua compares.

return function(o)
  local cpu, exit, other = o.cpu, o.exit, o.other

  return {
    { "cpu:run: a table of options expected, got number", function() cpu:run(5) end },
    {
      "cpu:disasm: count: a whole number from 1 to 0x10000 expected, got 0",
      function() cpu:disasm(0) end,
    },
    {
      'cpu:disasm: rip: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu:disasm(1, "x") end,
    },
    {
      "cpu:run: unknown option 'time'; the options are deadline, max_exits, timeout, "
      .. "until_gpa, until_rip",
      function() cpu:run { time = 5 } end,
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
      'cpu:run: until_rip: an integer expected, got x (write large ones as u64 "0x...")',
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
    { "a vcpu has no field 'rxa'; did you mean 'rax'?", function() local _ = cpu.rxa end },
    { "an exit has no field 'knid'; did you mean 'kind'?", function() local _ = exit.knid end },
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
    {
      'cpu:breakpoint: address: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu:breakpoint("x") end,
    },
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
    {
      'cpu.tsc_offset: an integer expected, got x (write large ones as u64 "0x...")',
      function() cpu.tsc_offset = "x" end,
    },
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
      "an exit's value cannot be set: it says what has happened; return the answer from the "
        .. "handler, or call cpu:answer",
      function() exit.value = 5 end,
    },
    {
      "an exit's rip cannot be set: it says what has happened; set cpu.rip to go on elsewhere",
      function() exit.rip = 1 end,
    },
    { "cpu:stop: this vCPU neither runs nor is started", function() cpu:stop() end },
  }
end
