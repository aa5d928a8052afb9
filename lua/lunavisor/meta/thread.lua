---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations: vCPUs on threads of their own, timers, event loops.
error "annotations are not to be required"

---@class luna.vm_run_options
---@field timeout? number seconds
---@field deadline? number a moment of luna.clock()

---@class luna.timer_options
---@field period? number seconds

---A function that waits for its moment.
---@class luna.timer
---@field missed integer moments of a periodic timer that passed while nothing ran
local timer = {}
function timer:close() end

---@class luna.vm
local vm = {}
---Exits without a vCPU: "timeout", "stopped", "parked".
---@param options? luna.vm_run_options
---@return luna.exit?, luna.vcpu|string|nil vcpu_or_message, string? code
function vm:run(options) end
---@return true?, string? message, string? code
function vm:start() end
---@param value? any exit.value, from a handler
---@return true?, string? message, string? code
function vm:stop(value) end
---@return true?, string? message, string? code
function vm:pause() end
---@return true?, string? message, string? code
function vm:resume() end
---@return luna.exit?, luna.vcpu|string|nil vcpu_or_message, string? code
function vm:poll() end
---@return integer?, string? message, string? code
function vm:fd() end
---@param seconds number
---@param fn fun(timer: luna.timer)
---@param options? luna.timer_options
---@return luna.timer
function vm:timer(seconds, fn, options) end

---@class luna.vcpu
---@field started boolean it runs under vm:run, or on a thread of its own
---@field parked boolean a handler under vm:run said "park"
local vcpu = {}
---@return true?, string? message, string? code
function vcpu:start() end
---@return true?, string? message, string? code
function vcpu:join() end
---@return true?, string? message, string? code
function vcpu:pause() end
---@return true?, string? message, string? code
function vcpu:resume() end
---@return true?, string? message, string? code
function vcpu:unpark() end
