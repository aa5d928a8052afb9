-- SPDX-License-Identifier: MIT
-- The objects that the list of messages (messages/) is about: a function that makes them.

return function(luna)
  local o = { luna = luna, u64 = luna.u64 }
  o.vm, o.other = luna.vm { irqchip = "split" }, luna.vm()
  o.ram = luna.buffer "64K"
  o.rom = luna.buffer { file = "/proc/self/exe", read_only = true, size = "4K" }
  o.space = o.vm.default
  o.space:map(o.ram, 0)
  o.ram:write(0x1000, "\xe4\x10\xf4") -- in al, 0x10; hlt
  o.ram:write(0x2000, "\xeb\xfe")     -- jmp $
  o.cpu, o.started = o.vm:vcpu { rip = 0x1000 }, o.vm:vcpu { rip = 0x2000 }
  o.device = { read = function() return 0 end, write = function() end }
  o.vm:pio(0x20, 1, o.device)
  o.exit = o.cpu:run { timeout = 60 }
  o.closed = o.vm:space()
  o.closed:close()

  function o.close()
    for _, name in ipairs { "vm", "other", "ram", "rom" } do o[name]:close() end
  end

  return o
end
