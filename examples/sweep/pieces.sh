#!/bin/sh
# SPDX-License-Identifier: MIT
# The sweep, written down once: whoever runs it, or a unit of it, says the rest (--jobs, --unit N).
exec luna sweep pieces.lua --accel soft --set access=random,runs,stride --set piece='4..4096*4' \
  --seeds 1..3 --label piece='piece, KiB' --label mapped='mapped, MiB' "$@"
