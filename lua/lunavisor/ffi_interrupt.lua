-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: interrupts and their controllers.

return function(_M, _shared)
end
