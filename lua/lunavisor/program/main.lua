-- SPDX-License-Identifier: MIT
-- What scripts/luna runs.

os.exit(require("lunavisor.program").main(arg), true)
