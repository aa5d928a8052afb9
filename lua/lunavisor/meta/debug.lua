---@meta _
-- SPDX-License-Identifier: MIT
-- Annotations of breakpoints and single steps, for editors.
error "annotations are not to be required"

---@class luna.breakpoint
---@field address luna.u64 linear
---@field access "x"|"w"|"rw"
---@field software boolean
---@field size integer of a watchpoint, in bytes
---@field hits integer
---@field closed boolean
---@field handler? luna.handler
local breakpoint = {}
---@return true?, string? message, string? code
function breakpoint:close() end

---@class luna.break_options
---@field access? "x"|"w"|"rw"
---@field size? integer of a watchpoint: 1, 2, 4 or 8 bytes
---@field software? boolean INT3, or never; nil for what stops the guest here

---@class luna.step_options
---@field timeout? number seconds

---@class luna.trace_options
---@field timeout? number seconds
---@field count? integer instructions

---@class luna.vcpu
local vcpu = {}
---@param gva luna.u64|integer
---@param options? luna.break_options
---@param fn? luna.handler
---@return luna.breakpoint?, string?, string?
---@overload fun(self, gva: luna.u64|integer, fn: luna.handler): luna.breakpoint?, string?, string?
function vcpu:breakpoint(gva, options, fn) end
---@param count? integer
---@param options? luna.step_options
---@return luna.exit?, string?, string?
---@overload fun(self, options: luna.step_options): luna.exit?, string?, string?
function vcpu:step(count, options) end
---@param fn fun(cpu: luna.vcpu, address: luna.u64): "stop"?
---@param options? luna.trace_options
---@return luna.exit?, string?, string?
function vcpu:trace(fn, options) end
