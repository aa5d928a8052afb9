---@meta lunavisor
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the API, for editors: runs and their ends, blocks of string I/O, exits.
error "annotations are not to be required"

---@alias luna.exit_kind
---| "system_event" | "hypercall" | "eoi" | "tpr" | "limit"

---@class luna.run_options
---@field timeout? number seconds
---@field deadline? number a moment of luna.clock()
---@field max_exits? integer after so many exits that devices and handlers deal with

---@class luna.device
---@field read_block? fun(self, offset: integer, size: integer, count: integer): string
---@field write_block? fun(self, offset: integer, size: integer, data: string)

---@class luna.exit
---@field reason_name string? KVM_EXIT_* in lower case; nil for an unknown number
---@field count integer? pio: elements of a string instruction that are left, with this one
---@field type integer? system_event: KVM_SYSTEM_EVENT_*; its name is in name
---@field number integer? hypercall
---@field arguments luna.u64[]? hypercall: six
---@field long boolean? hypercall: made in 64-bit mode
---@field write boolean? tpr: whether the guest wrote it
---@field context_valid boolean? other, notify

---@class luna.vcpu
---@field exec_time integer nanoseconds in the guest since account(true)
---@field idle_time integer nanoseconds of them halted inside KVM
local vcpu = {}
---@param on boolean
function vcpu:account(on) end
