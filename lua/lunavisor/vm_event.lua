-- SPDX-License-Identifier: MIT
-- What a VM has of one subject: eventfds, coalesced writes, traps in the core, MSR exits.

return function(_methods)
end
