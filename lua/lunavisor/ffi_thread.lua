-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: vCPUs on threads of their own.

return function(_M, _shared)
end
