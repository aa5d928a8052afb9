-- SPDX-License-Identifier: MIT
-- What the library says of misuse of luna.process.
-- message_spec.lua compares.

local image = require "spec.support.image"

return function(o)
  local luna = o.luna
  local PROGRAM = { bytes = image.elf { entry = 0x401000, segments = {
    { data = "\xf4", vaddr = 0x401000 } } } }
  local process = assert(luna.process(PROGRAM))
  process:close()
  local function with(options)
    return function() luna.process(PROGRAM, options) end
  end

  -- Each function has its own line: a message blames it.
  return {
    {
      "luna.process: image: the name of a file, or { bytes = ... }, expected, got nil",
      function() luna.process() end,
    },
    {
      "luna.process: unknown option 'arg'; the options are accel, args, clock, cpuid, env, files, "
      .. "log, memory, root, seed, stderr, stdin, stdout, terminal, trace",
      with { arg = {} },
    },
    { "luna.process: args: a table expected, got string", with { args = "x" } },
    { "luna.process: args: 2: a string expected, got number", with { args = { "a", 5 } } },
    { "luna.process: env: names without '=' expected, got A=", with { env = { ["A="] = "x" } } },
    { "luna.process: env: A: a string expected, got one with a zero byte",
      with { env = { A = "x\0" } } },
    { "luna.process: stdin: a function expected, got number", with { stdin = 5 } },
    { "luna.process: stdout: a function expected, got string", with { stdout = "x" } },
    { "luna.process: root: a string expected, got boolean", with { root = true } },
    { "luna.process: files: paths that begin with '/' expected, got x",
      with { files = { x = "" } } },
    { "luna.process: files: /x: a function expected, got number", with { files = { ["/x"] = 5 } } },
    { "luna.process: memory: a multiple of 4K, from 1M on, expected, got 4096",
      with { memory = "4K" } },
    { "luna.process: memory: a number of bytes or a size such as '64K', '2M' or '1G' expected, "
      .. 'got "x"', with { memory = "x" } },
    { "luna.process: terminal: true or false expected, got number", with { terminal = 1 } },
    { "luna.process: seed: a whole number from 0 to 0x20000000000000 expected, got -1",
      with { seed = -1 } },
    { "luna.process: accel: 'auto', 'kvm' or 'soft' expected, got 'x'", with { accel = "x" } },
    { "luna.process: cpuid: a function or a list of answers expected, got number",
      with { cpuid = 5 } },
    {
      "process:on: the name of a system call expected, got \"opne\"; did you mean 'open'?",
      function() process:on("opne", print) end,
    },
    {
      "process:on: the name of a system call expected, got number",
      function() process:on(5, print) end,
    },
    {
      "process:on: a function expected, got string",
      function() process:on("open", "x") end,
    },
    {
      "process:run: a process expected, got number; call it with a colon: process:run(...)",
      function() process.run(5) end,
    },
    { "a process has no field 'statu'", function() return process.statu end },
  }
end
