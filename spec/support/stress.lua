-- SPDX-License-Identifier: MIT
-- Loaded before the tests. With LUNA_GC_STRESS set it collects all garbage at every thousandth
-- instruction, or however many it says, if more, and in compiled code begins a cycle as soon as the
-- last one ends, so that whatever relies on an object that nothing holds fails soon.
local every = os.getenv "LUNA_GC_STRESS" or ""
if every ~= "" then
  collectgarbage("setpause", 0)
  debug.sethook(function() collectgarbage() end, "", math.max(1000, tonumber(every) or 0))
end
