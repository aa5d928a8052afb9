-- SPDX-License-Identifier: MIT
-- What scripts/luna runs.

require("lunavisor.program.pace").start()
os.exit(require("lunavisor.program").main(arg), true)
