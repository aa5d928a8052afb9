-- SPDX-License-Identifier: MIT
-- What a vCPU has of one subject: breakpoints and single steps.

return function(_methods, _readers, _writers)
end
