-- SPDX-License-Identifier: MIT
-- Loaded before the tests. With LUNA_GC_STRESS set it collects all garbage at every thousandth
-- instruction, and in compiled code begins a cycle as soon as the last one ends, so that whatever
-- relies on an object that nothing holds fails soon.
if (os.getenv "LUNA_GC_STRESS" or "") ~= "" then
  collectgarbage("setpause", 0)
  debug.sethook(function() collectgarbage() end, "", 1000)
end
