-- SPDX-License-Identifier: MIT
-- The machine "microvm": memory, the interrupt controllers in KVM (LAPICs, IOAPIC, 8259s), a serial
-- port, a port for characters without protocol, and one that ends the run.

return {
  options = { serial = function(_, value) return value end },
  parts = "com1 console debug_exit",
  defaults = { memory = 128 * 2 ^ 20, irqchip = "kernel", unknown = "ones" },
  build = function(board)
    local options, vm = board.options, board.vm
    local ok, message, code = board:map()
    if not ok then return nil, message, code end
    local output = options.serial == nil and io.stdout or options.serial
    board:put("com1", "uart16550", { pio = 0x3f8, irq = board:irq(4) }, { output = output })
    board:put("console", "debug_console", { pio = 0xe9 }, { output = output })
    board:put("debug_exit", "debug_exit", { pio = 0xf4 },
      { exit = function(value) vm:stop(value) end })
    return board:boot(options.image, options.load)
  end,
}
