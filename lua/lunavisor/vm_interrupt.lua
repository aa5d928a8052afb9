-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: interrupts and their controllers.

return function(_methods)
end
