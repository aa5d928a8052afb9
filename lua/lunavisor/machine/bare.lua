-- SPDX-License-Identifier: MIT
-- The machine "bare": memory from 0 on, and no device.

return {
  options = {}, parts = "",
  defaults = { memory = 16 * 2 ^ 20, irqchip = "none" },
  build = function(board)
    local ok, message, code = board:map()
    if not ok then return nil, message, code end
    return board:boot(board.options.image, board.options.load)
  end,
}
