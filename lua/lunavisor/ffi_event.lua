-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: eventfds, coalesced writes, traps in the core, MSR exits.

return function(_M, _shared)
end
