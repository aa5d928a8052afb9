-- SPDX-License-Identifier: MIT
-- The rules of luacheck for this project. The modules run under Lua 5.4 and LuaJIT: all globals of
-- both are known.
std = "max"
max_line_length = 100
exclude_files = { "build" }
files["spec"] = { std = "max+busted" }
files["examples/edu/edu_spec.lua"] = { std = "max+busted" }
-- Declarations for editors: functions without a body.
files["lua/lunavisor/meta"] = { ignore = { "1", "2" } }
