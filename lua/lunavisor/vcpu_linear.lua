-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: guest-linear addresses and disassembly.

return function(_methods, _readers, _writers)
end
