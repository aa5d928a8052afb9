-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: guest-linear addresses and disassembly.

return function(_M, _shared)
end
