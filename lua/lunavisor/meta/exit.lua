---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the time that a guest takes, and of the last exits and
-- exceptions.
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

---@class luna.met_exception
---@field name string
---@field vector integer
---@field error_code integer?
---@field address luna.u64? of a page fault
---@field stage "limit"|"gate"|"code"|"stack"|"frame"|"task" how far the delivery had come
---@field text string

---@class luna.past_exception
---@field name string
---@field vector integer
---@field serial integer from 1
---@field source "exception"|"instruction"|"interrupt"
---@field rip luna.u64 where the handler returns to
---@field symbol string?
---@field line luna.source_line?
---@field cs integer
---@field ring integer
---@field error_code integer?
---@field address luna.u64? of a page fault
---@field delivered boolean
---@field met luna.met_exception? what its delivery has met
---@field shutdown boolean that made a triple fault

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
---@param count? integer at most, 16 where nil
---@return luna.past_exception[]?, string?, string?
function vcpu:last_exceptions(count) end
