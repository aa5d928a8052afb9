-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: the state of a vCPU beyond its numbered registers.

return function(_M, _shared)
end
