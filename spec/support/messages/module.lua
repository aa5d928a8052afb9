-- SPDX-License-Identifier: MIT
-- What the library says of misuse of the module, luna.asm, luna.disasm and luna.u64.
-- message_spec.lua compares.

return function(o)
  local luna, u64 = o.luna, o.u64

  return {
    { "luna has no field 'bufer'; did you mean 'buffer'?", function() local _ = luna.bufer end },
    {
      "luna.u64 has no field 'tonumer'; did you mean 'tonumber'?",
      function() local _ = luna.u64.tonumer end,
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
    {
      "luna.capability: accel: 'auto', 'kvm' or 'soft' expected, got 'KVM'; did you mean 'kvm'?",
      function() luna.capability("vcpus_max", "KVM") end,
    },
    { "luna.capability: a name expected, got number", function() luna.capability(5) end },
    {
      "there is no limit 'vcpus': vcpus_max, slots_max, spaces_max, address_bits, "
      .. "dirty_ring_max, xsave_size, controls, exceptions and shadow_vmcs are known",
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
      'luna.disasm: address: an integer expected, got x (write large ones as u64 "0x...")',
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
    { "u64(high, low): two halves of 32 bits expected, got x", function() u64("x", 0) end },
    {
      "luna.repl: a table of names expected, got number",
      function() luna.repl(5) end,
    },
    {
      "luna.repl: unknown option 'sock'; the options are socket",
      function() luna.repl({}, { sock = "" }) end,
    },
    {
      "luna.repl: socket: a path expected, got number",
      function() luna.repl({}, { socket = 5 }) end,
    },
  }
end
