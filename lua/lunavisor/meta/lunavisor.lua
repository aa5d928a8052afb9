---@meta lunavisor
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the API, for editors. Programs do not load it; a spec compares it with the
-- classes.
error "annotations are not to be required"

---An unsigned 64-bit integer: an integer on Lua 5.4, a uint64_t on LuaJIT.
---@alias luna.u64 integer|ffi.cdata*
---A number of bytes, or "64K", "2M", "1G".
---@alias luna.size integer|string
---Rights such as "rwx", "r-x" or "---".
---@alias luna.rights string
---@alias luna.exit_kind
---| "hlt" | "pio" | "mmio" | "fault" | "exception" | "shutdown" | "internal" | "fail_entry"
---| "host_fault" | "timeout" | "interrupted" | "signal" | "other" | "stopped" | "parked"
---What a handler of an exit answers.
---@alias luna.answer nil|"stop"|"park"|"continue"|"skip"|"retry"|integer|luna.u64|luna.injection

---@class luna.injection
---@field inject string|integer exception name ("#PF") or vector
---@field error_code? integer
---@field address? luna.u64 CR2 for #PF

---@class luna.device
---@field read? fun(device: luna.device, offset: integer, size: integer): integer|luna.u64
---@field write? fun(device: luna.device, offset: integer, size: integer, value: integer|luna.u64)

---@class luna.buffer_options
---@field size? luna.size
---@field memfd? boolean
---@field sealed? boolean
---@field file? string
---@field fd? integer
---@field pointer? userdata|ffi.cdata*
---@field offset? luna.size
---@field private? boolean
---@field read_only? boolean
---@field huge? "2M"|"1G"

---@class luna.map_options
---@field offset? integer
---@field size? luna.size
---@field rights? luna.rights
---@field strict? boolean
---@field separate? boolean
---@field window? boolean

---@class luna.vcpu_options
---@field mode? "real"|"protected"|"long"|"user"|"reset"
---@field rip? luna.u64
---@field rsp? luna.u64
---@field system? integer

---@class luna.region
---@field gpa integer
---@field size integer
---@field buffer luna.buffer?
---@field buffer_id integer
---@field offset integer
---@field rights luna.rights asked for
---@field enforced luna.rights what the guest has
---@field slot integer?
---@field strict boolean?
---@field separate boolean?
---@field window boolean?

---@class luna.slot
---@field slot integer
---@field gpa integer
---@field size integer
---@field read_only boolean

---@class luna.exit
---@field kind luna.exit_kind
---@field rip luna.u64
---@field reason integer KVM_EXIT_*
---@field port integer?
---@field gpa integer?
---@field size integer?
---@field access? "r"|"w"|"x"
---@field value? integer|luna.u64|any
---@field name string? of an exception
---@field vector integer?
---@field error_code integer?
---@field address luna.u64?
---@field suberror integer?
---@field instruction string?
---@field data luna.u64[]?

---@class luna.buffer
---@field id integer
---@field size integer bytes
local buffer = {}
function buffer:close() end
---@param offset integer
---@param value? integer
---@return integer
function buffer:u8(offset, value) end
---@param offset integer
---@param value? integer
---@return integer
function buffer:u16(offset, value) end
---@param offset integer
---@param value? integer
---@return integer
function buffer:u32(offset, value) end
---@param offset integer
---@param value? integer|luna.u64
---@return luna.u64
function buffer:u64(offset, value) end
---@param offset? integer
---@param size? luna.size
---@param into? userdata a string.buffer of LuaJIT
---@return string|userdata
function buffer:read(offset, size, into) end
---@param offset integer
---@param data string|userdata a string, or a string.buffer of LuaJIT
function buffer:write(offset, data) end
---@param offset integer
---@param limit? integer
---@return string
function buffer:string(offset, limit) end
---@param byte integer
---@param offset? integer
---@param size? luna.size
function buffer:fill(byte, offset, size) end
---@param bytes string
---@param from? integer
---@param to? integer
---@return integer?
function buffer:find(bytes, from, to) end
---@param offset? integer
---@param size? integer
---@return string
function buffer:hexdump(offset, size) end
---@param offset integer
---@param source luna.buffer
---@param from? integer
---@param size? luna.size
function buffer:copy(offset, source, from, size) end
---@param offset integer
---@param other luna.buffer
---@param from? integer
---@param size? luna.size
---@return integer? distance of the first difference, nil where equal
function buffer:compare(offset, other, from, size) end
---@param offset integer
---@param size? luna.size
---@return luna.buffer?, string?, string?
function buffer:view(offset, size) end
---@return integer?
function buffer:fd() end
---@return integer
function buffer:page_size() end
---@return userdata|ffi.cdata*
function buffer:pointer() end
---@param offset integer
---@param size integer
function buffer:mark(offset, size) end

---@class luna.update
local update = {}
---@param target luna.buffer
---@param ... any as space:map
function update:map(target, ...) end
---@param gpa integer
---@param size luna.size
function update:unmap(gpa, size) end
---@param gpa integer
---@param size luna.size
---@param rights luna.rights
---@param options? { strict: boolean }
function update:protect(gpa, size, rights, options) end

---@class luna.space
---@field id integer
---@field vm luna.vm
local space = {}
---@return boolean?, string?, string?
function space:close() end
---@param target luna.buffer
---@param gpa integer
---@param options? luna.map_options
---@return boolean?, string?, string?
---@overload fun(self, target: luna.buffer, gpa: integer, size: luna.size, rights: string, ...)
---@overload fun(self, target: luna.buffer, offset: integer, gpa: integer, ...): boolean?
function space:map(target, gpa, options) end
---@param gpa integer
---@param size luna.size
---@return boolean?, string?, string?
function space:unmap(gpa, size) end
---@param gpa integer
---@param size luna.size
---@param rights luna.rights
---@param options? { strict: boolean }
---@return boolean?, string?, string?
function space:protect(gpa, size, rights, options) end
---@param fn fun(update: luna.update)
---@return boolean?, string?, string?
function space:update(fn) end
---@param gpa integer
---@param source luna.buffer
---@param offset? luna.size
---@return boolean?, string?, string?
function space:remap(gpa, source, offset) end
---@param gpa integer
---@return luna.region?
function space:find(gpa) end
---@return luna.region[]
function space:regions() end
---@return luna.slot[]
function space:slots() end
---@param gpa integer
---@param size luna.size
---@return string
function space:read(gpa, size) end
---@param gpa integer
---@param data string
function space:write(gpa, data) end
---@param gpa integer
---@param value? integer
---@return integer
function space:u8(gpa, value) end
---@param gpa integer
---@param value? integer
---@return integer
function space:u16(gpa, value) end
---@param gpa integer
---@param value? integer
---@return integer
function space:u32(gpa, value) end
---@param gpa integer
---@param value? integer|luna.u64
---@return luna.u64
function space:u64(gpa, value) end
---@param gpa? integer
---@param size? luna.size
---@return fun(): integer?
function space:dirty(gpa, size) end
---@param gpa integer
---@param length luna.size
---@param fn fun(cpu: luna.vcpu, fault: luna.exit): luna.answer
---@return { close: fun(self) }
function space:on_fault(gpa, length, fn) end

---@class luna.vm
---@field default luna.space space 0
local vm = {}
function vm:close() end
---@return luna.space?, string?, string?
function vm:space() end
---@param target luna.space|integer
---@param source luna.buffer
---@param ... any as space:map
---@return boolean?, string?, string?
function vm:map_space(target, source, ...) end
---@param target luna.space|integer
---@param gpa integer
---@param size luna.size
---@return boolean?, string?, string?
function vm:unmap_space(target, gpa, size) end
---@param target luna.space|integer
---@param gpa integer
---@param size luna.size
---@param rights luna.rights
---@param options? { strict: boolean }
---@return boolean?, string?, string?
function vm:protect_space(target, gpa, size, rights, options) end
---@param port integer
---@param length integer
---@param device luna.device
---@param options? luna.trap_options
---@return luna.trap?, string?, string?
function vm:pio(port, length, device, options) end
---@param gpa integer
---@param length luna.size
---@param device luna.device
---@param options? luna.trap_options
---@return luna.trap?, string?, string?
function vm:mmio(gpa, length, device, options) end
---@param options? luna.vcpu_options
---@return luna.vcpu?, string?, string?
function vm:vcpu(options) end

---A vCPU. Registers are fields by their SDM names: cpu.rax, cpu.cr3, cpu.cs.base.
---@class luna.vcpu
---@field id integer
---@field vm luna.vm
---@field space luna.space
---@field system integer? gpa of the system area
---@field exits integer how many exits run has had
local vcpu = {}
function vcpu:close() end
---@param options? luna.run_options
---@return luna.exit?, string?, string?
function vcpu:run(options) end
---@param kind luna.exit_kind
---@param handler? fun(cpu: luna.vcpu, exit: luna.exit): luna.answer
function vcpu:on(kind, handler) end
---@param value? integer|luna.u64
function vcpu:answer(value) end
function vcpu:retry() end
function vcpu:interrupt() end
---@param value? any
function vcpu:stop(value) end
---@param exception string|integer
---@param error_code? integer
---@param address? luna.u64
function vcpu:inject(exception, error_code, address) end
---@param target luna.space|integer
---@param options? { fpu: boolean, msrs: boolean }
---@return boolean?, string?, string?
function vcpu:set_space(target, options) end
---@return table<string, luna.u64>
function vcpu:regs() end

---@class lunavisor
---@field _VERSION string
---@field u64 table
local luna = {}
---@param options? { dirty: "bitmap"|"ring", dirty_ring: integer, hypercalls: boolean }
---@return luna.vm?, string?, string?
function luna.vm(options) end
---@param options luna.size|luna.buffer_options
---@return luna.buffer?, string?, string?
function luna.buffer(options) end
---@param source string
---@param options? { bits: 16|32|64, org: integer }
---@return string?, string?, string?
function luna.asm(source, options) end
---@return { available: boolean, message: string?, code: string?, features: table<string, integer> }
function luna.probe() end
---@param name "vcpus_max"|"slots_max"|"spaces_max"|"address_bits"|"dirty_ring_max"
---@return integer?, string?, string?
function luna.capability(name) end
---@param value luna.u64|integer
---@return string
function luna.hex(value) end
---@generic T
---@param handle T
---@param fn fun(handle: T, ...): ...
---@return any ...
function luna.with(handle, fn, ...) end
---@return { vm: integer, space: integer, buffer: integer, vcpu: integer }
function luna.live() end
---@return number
function luna.clock() end

return luna
