-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: the state of a vCPU beyond its numbered registers.

return function(_methods, _readers, _writers)
end
