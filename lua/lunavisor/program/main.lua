-- SPDX-License-Identifier: MIT
-- What scripts/luna runs.

require("lunavisor.program.pace").start()

-- Whoever ends the program: what it has printed may be lost.
local exit = os.exit
os.exit = function(status, ...) -- luacheck: ignore 122
  exit(require("lunavisor.program.say").ending(status), ...)
end

os.exit(require("lunavisor.program").main(arg), true)
