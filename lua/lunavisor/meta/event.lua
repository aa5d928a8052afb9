---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of eventfds, coalesced writes, traps in the core and MSR exits.
error "annotations are not to be required"

---@class luna.trap_options
---@field coalesced? boolean as vm:coalesce

---A range that belongs to a device.
---@class luna.trap
---@field vm luna.vm
---@field id integer
---@field kind "pio"|"mmio"|"msr"
---@field first integer
---@field length integer
---@field device luna.device|luna.msr_device
---@field where string "script.lua:12", where it was given
---@field closed boolean?
---@field close fun(self: luna.trap): boolean?, string?, string?

---@class luna.msr_device
---@field read? fun(device: luna.msr_device, offset: integer, size: 8): integer|luna.u64|"refuse"
---@field write? fun(device: luna.msr_device, offset: integer, size: 8, value: luna.u64): "refuse"?
---@field memory? luna.buffer
---@field offset? integer

---@class luna.eventfd_options
---@field port? integer
---@field gpa? integer one of both
---@field size? integer bytes of the write
---@field match? integer|luna.u64 only writes of this value
---@field any_size? boolean writes of any size
---@field fd? integer an eventfd of the script's

---@class luna.eventfd
---@field fd integer? nil when closed
---@field read fun(self: luna.eventfd): integer?, string?, string?
---@field write fun(self: luna.eventfd, count?: integer): boolean?, string?, string?
---@field close fun(self: luna.eventfd)

---@class luna.vm
local vm = {}
---@param options luna.eventfd_options
---@return luna.eventfd?, string?, string?
function vm:eventfd(options) end
---@param trap luna.trap
---@return boolean?, string?, string?
function vm:coalesce(trap) end
---@param index integer
---@param length integer
---@param device luna.msr_device
---@return luna.trap?, string?, string?
---@overload fun(self, index: integer, device: luna.msr_device): luna.trap?, string?, string?
function vm:msr(index, length, device) end

---@class luna.vcpu
local vcpu = {}
---@return boolean?, string?, string?
function vcpu:refuse() end
