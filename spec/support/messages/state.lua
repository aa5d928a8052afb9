-- SPDX-License-Identifier: MIT
-- What the library says of calls at the wrong time: of closed, started and running things.
-- message_spec.lua compares.

return function(o)
  local luna, vm, cpu, device, started, closed = o.luna, o.vm, o.cpu, o.device, o.started, o.closed

  -- Leaves a run in which a handler has yielded.
  local function suspend()
    cpu:on("pio", function() coroutine.yield() end)
    coroutine.wrap(function() cpu:run { timeout = 60 } end)()
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
