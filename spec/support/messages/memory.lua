-- SPDX-License-Identifier: MIT
-- What the library says of misuse of buffers and spaces.
-- message_spec.lua compares.

return function(o)
  local luna, vm, ram, rom, space = o.luna, o.vm, o.ram, o.rom, o.space

  return {
    {
      "buffer:u8: a buffer expected, got number; call it with a colon: buffer:u8(...)",
      function() ram.u8(0) end,
    },
    {
      "space:map: a space expected, got a buffer; call it with a colon: space:map(...)",
      function() space.map(ram, 0) end,
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
      "luna.buffer: a size or one table expected: luna.buffer { size = '2M', memfd = true }",
      function() luna.buffer("64K", { memfd = true }) end,
    },
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
      'space:map: gpa: a whole number expected, got "r-x"; behind one number rights are an '
      .. 'option: { rights = "r-x" }', function() space:map(ram, 0x500000, "r-x") end,
    },
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
      "space:try_read: gpa: a whole number or u64 expected, got string",
      function() space:try_read("x", 1) end,
    },
    {
      "space:try_write: a string expected, got number",
      function() space:try_write(0, 5) end,
    },
    {
      "space:dirty: size belongs into the table of options",
      function() space:dirty({}, 5) end,
    },
  }
end
