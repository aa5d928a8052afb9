-- SPDX-License-Identifier: MIT
-- What the library says of misuse of luna.load and of symbols.
-- message_spec.lua compares.

return function(o)
  local luna, vm, other, cpu = o.luna, o.vm, o.other, o.cpu
  local HLT = { bytes = "\xf4" }
  local symbols = luna.load(vm, HLT, { format = "flat", address = 0xf000 }).symbols

  return {
    { "luna.load: a vm expected, got table", function() luna.load({}, HLT) end },
    {
      "luna.load: image: the name of a file, or { bytes = ... }, expected, got nil",
      function() luna.load(vm) end,
    },
    {
      "luna.load: image: unknown option 'data'; the options are bytes, name",
      function() luna.load(vm, { data = "" }) end,
    },
    {
      "luna.load: image: bytes: a string expected, got number",
      function() luna.load(vm, { bytes = 5 }) end,
    },
    {
      "luna.load: image: name: a name expected, got number",
      function() luna.load(vm, { bytes = "", name = 5 }) end,
    },
    {
      "luna.load: unknown option 'cmdline'; the options are address, command, cpu, drive, format, "
      .. "framebuffer, initrd, mode, modules, relocate, rsdp, space, stack",
      function() luna.load(vm, HLT, { cmdline = "" }) end,
    },
    {
      'luna.load: format: linux, multiboot2, multiboot, pvh, elf, bios, disk, flat expected, '
      .. 'got "efl"',
      function() luna.load(vm, HLT, { format = "efl" }) end,
    },
    {
      "luna.load: mode: 'real', 'protected', 'long' or 'user' expected, got number",
      function() luna.load(vm, HLT, { mode = 5 }) end,
    },
    {
      "luna.load: address: a whole number from 0 to 0x8000000000000 expected, got -1",
      function() luna.load(vm, HLT, { address = -1 }) end,
    },
    {
      "luna.load: rsdp: a whole number from 0 to 0x10000000000000 expected, got string",
      function() luna.load(vm, HLT, { rsdp = "x" }) end,
    },
    {
      "luna.load: drive: a whole number from 0 to 0xff expected, got 256",
      function() luna.load(vm, HLT, { drive = 256 }) end,
    },
    {
      "luna.load: relocate: true or false expected, got number",
      function() luna.load(vm, HLT, { relocate = 0 }) end,
    },
    {
      "luna.load: command: a command line expected, got one with a zero byte",
      function() luna.load(vm, HLT, { command = "a\0b" }) end,
    },
    {
      "luna.load: initrd: the name of a file, or { bytes = ... }, expected, got a buffer",
      function() luna.load(vm, HLT, { initrd = o.ram }) end,
    },
    {
      "luna.load: modules: a list expected, got string",
      function() luna.load(vm, HLT, { modules = "x" }) end,
    },
    {
      "luna.load: module 2: command: a command line expected, got number",
      function() luna.load(vm, HLT, { modules = { "x", { file = "y", command = 5 } } }) end,
    },
    {
      "luna.load: framebuffer: 'text' or a table expected, got number",
      function() luna.load(vm, HLT, { framebuffer = 5 }) end,
    },
    {
      "luna.load: framebuffer: bits: 15, 16, 24 or 32 expected, got 8",
      function() luna.load(vm, HLT, { framebuffer = { address = 0, bits = 8 } }) end,
    },
    {
      "luna.load: framebuffer: pitch: a whole number from 2560 to 1048576 expected, got 640",
      function()
        luna.load(vm, HLT, { framebuffer = { address = 0, width = 640, height = 480,
          pitch = 640 } })
      end,
    },
    {
      "luna.load: space: it belongs to another VM",
      function() luna.load(vm, HLT, { space = other.default }) end,
    },
    {
      "luna.load: cpu: it belongs to another VM",
      function() luna.load(other, HLT, { cpu = cpu }) end,
    },
    {
      "symbols:at: address: an integer expected, got x",
      function() symbols:at("x") end,
    },
    {
      "symbols:find: a symbols expected, got number; call it with a colon: symbols:find(...)",
      function() symbols.find(5) end,
    },
    {
      "symbols:at: address: an integer expected, got 1.5",
      function() symbols:name(1.5) end,
    },
    {
      "symbols:at: address: an integer expected, got x",
      function() vm:symbol "x" end,
    },
    {
      "vm:symbol: vm.symbols: a symbols expected, got table",
      function()
        other.symbols = {}
        other:symbol(0)
      end,
    },
    { "there is no symbol 'mian'", function() local _ = symbols.mian end },
    { "symbols cannot be set: 'main'", function() symbols.main = 5 end },
  }
end
