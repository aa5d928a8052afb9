-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: breakpoints and single steps.

return function(_M, _shared)
end
