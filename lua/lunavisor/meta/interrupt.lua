---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations: interrupts, their controllers, start-up and the time-stamp counter.
error "annotations are not to be required"

---@class luna.route
---@field line integer 0 to 4095
---@field address? integer|luna.u64 of a message
---@field data? integer of a message
---@field chip? "ioapic"|"pic"
---@field pin? integer of the chip

---@alias luna.mp_state
---| "runnable" | "uninitialized" | "init_received" | "halted" | "sipi_received"

---A vCPU's LAPIC in KVM: registers by their SDM names.
---@class luna.apic
---@field id integer
---@field version integer
---@field tpr integer
---@field apr integer
---@field ppr integer
---@field ldr integer
---@field dfr integer
---@field svr integer
---@field isr integer[] eight words, from 0
---@field tmr integer[]
---@field irr integer[]
---@field esr integer
---@field icr_low integer
---@field icr_high integer
---@field lvt_cmci integer
---@field lvt_timer integer
---@field lvt_thermal integer
---@field lvt_pmc integer
---@field lvt_lint0 integer
---@field lvt_lint1 integer
---@field lvt_error integer
---@field initial_count integer
---@field current_count integer
---@field divide integer
local apic = {}
---@return string registers 1024 bytes
function apic:get() end
---@param registers string
---@return true?, string?, string?
function apic:set(registers) end
---@return boolean fired false where it is masked
function apic:fire_timer() end

---@class luna.vm
local vm = {}
---@param line integer
---@param level boolean|integer
---@return boolean?, string?, string?
function vm:irq(line, level) end
---@param address integer|luna.u64
---@param data integer
---@return boolean? taken, string?, string?
function vm:msi(address, data) end
---@param routes luna.route[]
---@return boolean?, string?, string?
function vm:route(routes) end
---@param line integer
---@param eventfd integer|table a descriptor, or an object with one as fd
---@param options? { resample: integer|table }
---@return { close: fun(self) }?, string?, string?
function vm:irqfd(line, eventfd, options) end
---@param name "ioapic"|"pic_primary"|"pic_secondary"
---@param state? string 512 bytes
---@return string|boolean|nil, string?, string?
function vm:chip(name, state) end
---@param hertz? integer
---@return integer? hertz, string?, string?
function vm:apic_frequency(hertz) end
---@param value integer|luna.u64
---@return boolean?, string?, string?
function vm:sync_tsc(value) end

---What keeps events from the guest; what is not given is false.
---@class luna.blocking
---@field sti? boolean interrupts, for one instruction
---@field mov_ss? boolean interrupts, for one instruction
---@field nmi? boolean NMIs, until IRET

---@class luna.vcpu
---@field apic luna.apic
---@field blocking luna.blocking set as a whole
---@field mp_state luna.mp_state
---@field irq_waiting integer? the highest vector that waits
---@field tsc_frequency integer Hz
---@field tsc_offset luna.u64
local vcpu = {}
---@param vector integer 16 to 255
---@return boolean? taken, string?, string?
function vcpu:irq(vector) end
---@return boolean?, string?, string?
function vcpu:nmi() end
---@return boolean?, string?, string?
function vcpu:smi() end
---@param vector integer 0 to 255
---@return boolean?, string?, string?
function vcpu:extint(vector) end
---@param on boolean
---@return boolean?, string?, string?
function vcpu:window(on) end
---@param vector integer 0 to 255
---@return boolean?, string?, string?
function vcpu:sipi(vector) end
