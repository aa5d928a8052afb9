---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the time that a guest takes.
error "annotations are not to be required"

---@class luna.vcpu
---@field exec_time integer nanoseconds in the guest since account(true)
---@field idle_time integer nanoseconds of them halted inside KVM
local vcpu = {}
---@param on boolean
---@return true?, string?, string?
function vcpu:account(on) end
