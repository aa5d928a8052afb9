---@meta lunavisor.debug
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
---@field handler? fun(cpu: luna.vcpu, exit: luna.exit): luna.answer
local breakpoint = {}
---@return true?, string? message, string? code
function breakpoint:close() end

---@class luna.exit
---@field address luna.u64? debug: linear, of the instruction
---@field breakpoint luna.breakpoint? debug: nil for a single step
---@field dr6 integer? debug
---@field until boolean? debug: the address that cpu:run was to run to

---@class luna.vcpu
local vcpu = {}
---@param gva luna.u64|integer
---@param options? { size: integer, access: "x"|"w"|"rw", software: boolean }
---@param fn? fun(cpu: luna.vcpu, exit: luna.exit): luna.answer
---@return luna.breakpoint?, string?, string?
function vcpu:breakpoint(gva, options, fn) end
---@param count? integer
---@param options? { timeout: number }
---@return luna.exit?, string?, string?
function vcpu:step(count, options) end
---@param fn fun(cpu: luna.vcpu, address: luna.u64): "stop"?
---@param options? { timeout: number, count: integer }
---@return luna.exit?, string?, string?
function vcpu:trace(fn, options) end
