---@meta lunavisor
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of eventfds, coalesced writes, traps in the core and MSR exits.
error "annotations are not to be required"

---@alias luna.exit_kind
---| "msr"
---@alias luna.answer
---| "refuse" msr: the guest gets a #GP

---A device of memory answers inside the core: { memory = buffer, offset = n }.
---@class luna.device
---@field memory? luna.buffer
---@field offset? integer of the first byte in the buffer

---@class luna.trap_options
---@field coalesced? boolean as vm:coalesce

---A range that belongs to a device.
---@class luna.trap
---@field id integer
---@field kind "pio"|"mmio"|"msr"
---@field first integer
---@field length integer
---@field device luna.device
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

---@class luna.vm_options
---@field unknown_msrs? "exit"|"fault"

---@class luna.exit
---@field msr integer?

---@class luna.vm
local vm = {}
---@param options luna.eventfd_options
---@return luna.eventfd?, string?, string?
function vm:eventfd(options) end
---@param trap luna.trap
---@return boolean?, string?, string?
function vm:coalesce(trap) end
---@param index integer
---@param length integer|luna.msr_device
---@param device? luna.msr_device
---@return luna.trap?, string?, string?
function vm:msr(index, length, device) end

---@class luna.vcpu
local vcpu = {}
---@return boolean?, string?, string?
function vcpu:refuse() end
