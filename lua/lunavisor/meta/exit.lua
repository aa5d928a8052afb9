---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the time that a guest takes, and of the last exits.
error "annotations are not to be required"

---@class luna.past_exit
---@field kind luna.exit_cause
---@field serial integer what cpu.exits was with it
---@field rip luna.u64? where registers were asked for about that time
---@field port integer? pio
---@field gpa integer? mmio, fault, host_fault
---@field msr integer? msr
---@field size integer? of the access
---@field access? "r"|"w"|"x"
---@field value? integer|luna.u64 written, or answered by the script

---@class luna.vcpu
---@field exec_time integer nanoseconds in the guest since account(true)
---@field idle_time integer nanoseconds of them halted inside KVM
local vcpu = {}
---@param on boolean
---@return true?, string?, string?
function vcpu:account(on) end
---@param count? integer at most, 64 where nil
---@return luna.past_exit[]?, string?, string?
function vcpu:last_exits(count) end
