-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: vCPUs on threads of their own.

return function(_methods, _readers, _writers)
end
