-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: vCPUs on threads of their own.

return function(_methods)
end
