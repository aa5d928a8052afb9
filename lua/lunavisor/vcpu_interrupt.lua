-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: interrupts and their controllers.

return function(_methods, _readers, _writers)
end
