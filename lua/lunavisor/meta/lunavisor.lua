---@meta lunavisor
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the API, for editors: the module, VMs and vCPUs. Programs load none of
-- them; a spec compares them with the classes.
error "annotations are not to be required"

---An unsigned 64-bit integer: an integer on Lua 5.4, a uint64_t on LuaJIT.
---@alias luna.u64 integer|ffi.cdata*
---What cpu:on takes: the kinds of exits from KVM.
---@alias luna.exit_cause
---| "hlt" | "pio" | "mmio" | "fault" | "exception" | "shutdown" | "internal" | "fail_entry"
---| "host_fault" | "timeout" | "interrupted" | "signal" | "other" | "debug" | "msr" | "hypercall"
---| "instruction" | "system_event" | "eoi" | "tpr"
---What runs return: those, and the ends of a run that the script has asked for.
---@alias luna.exit_kind luna.exit_cause | "limit" | "stopped" | "parked"
---What a handler of an exit answers; a number is the value of a read.
---@alias luna.answer
---| nil
---| "stop"
---| "continue"
---| "skip"
---| "retry"
---| "refuse" # msr: the guest gets a #GP
---| "park"   # under vm:run: the others go on without this vCPU
---| integer
---| luna.u64
---| luna.injection
---@alias luna.handler fun(cpu: luna.vcpu, exit: luna.exit): luna.answer

---@class luna.injection
---@field inject string|integer exception name ("#PF") or vector
---@field error_code? integer
---@field address? luna.u64 CR2 for #PF

---Functions, or memory that the core answers from: { memory = buffer, offset = n }.
---@class luna.device
---@field read? fun(device: luna.device, offset: integer, size: integer): integer|luna.u64
---@field write? fun(device: luna.device, offset: integer, size: integer, value: integer|luna.u64)
---@field read_block? fun(device: any, offset: integer, size: integer, count: integer): string
---@field write_block? fun(device: any, offset: integer, size: integer, data: string)
---@field memory? luna.buffer
---@field offset? integer of the first byte in the buffer

---What runs vCPUs: KVM, the software CPU, or what LUNA_ACCEL says and this host has.
---@alias luna.accel "kvm"|"soft"|"auto"

---@class luna.vm_options
---@field dirty? "bitmap"|"ring" how written pages are followed
---@field dirty_ring? integer entries for each vCPU, a power of two
---@field irqchip? "none"|"split"|"kernel"
---@field pit? boolean with irqchip "kernel"
---@field apic_frequency? integer Hz
---@field unknown_msrs? "exit"|"fault"
---@field hypercalls? boolean those that KVM can hand on are exits
---@field accel? luna.accel what runs its vCPUs
---@field unknown? "stop"|"ones"|"zeros"|"log" what nobody takes
---@field clock? luna.clock of devices

---@class luna.run_options
---@field timeout? number seconds
---@field deadline? number a moment of luna.clock()
---@field max_exits? integer after so many exits that devices and handlers deal with
---@field until_rip? integer|luna.u64 before the instruction there
---@field until_gpa? integer before the instruction whose first byte is there

---@class luna.vcpu_options
---@field mode? "real"|"protected"|"long"|"user"|"reset"
---@field rip? integer|luna.u64
---@field rsp? integer|luna.u64
---@field system? integer gpa of the system area
---@field wait? boolean for INIT and SIPI
---@field cpuid? luna.cpuid_values[]|fun(answer: luna.cpuid_values): boolean?
---@field registers? table<string, integer|luna.u64|table<string, integer|luna.u64>>

---Why a run ended. Those of vm:run without a vCPU have kind and value only.
---@class luna.exit
---@field kind luna.exit_kind
---@field rip luna.u64?
---@field cpu luna.vcpu?
---@field space luna.space? the vCPU was in
---@field serial integer? how many exits the vCPU had had, with this one
---@field reason integer? KVM_EXIT_*
---@field reason_name string? the same in lower case; nil for an unknown number
---@field port integer? pio
---@field gpa integer? mmio, fault, host_fault
---@field msr integer? msr
---@field size integer? of the access
---@field access? "r"|"w"|"x"
---@field value? integer|luna.u64|any of a write; fail_entry; tpr: lowered to; stopped
---@field count integer? pio: elements of a string instruction that are left, with this one
---@field name string? exception, system_event, hypercall
---@field vector integer? exception, eoi
---@field error_code integer? exception
---@field address luna.u64? #PF: CR2; debug: linear, of the instruction; tpr: of the instruction
---@field breakpoint luna.breakpoint? debug: nil for a single step
---@field reached boolean? debug: the address that cpu:run was to run to
---@field dr6 integer? debug
---@field suberror integer? instruction, internal: KVM_INTERNAL_ERROR_*
---@field instruction string? instruction, internal: its bytes
---@field rule string? fail_entry: the rule that is broken; shutdown: why an exception was no exit
---@field type integer? system_event: KVM_SYSTEM_EVENT_*
---@field number integer? hypercall
---@field arguments luna.u64[]? hypercall: six
---@field long boolean? hypercall: made in 64-bit mode
---@field write boolean? tpr: whether the guest wrote it
---@field context_valid boolean? other, notify
---@field data luna.u64[]? internal, system_event, other: further words
---@field code? table what was at rip, of the kinds that read it at once
---@field stuck boolean? timeout of cpu:run: halted in KVM with interrupts off
---@field vcpus luna.place[]? timeout, parked of vm:run: where each vCPU stands

---@class luna.place
---@field cpu luna.vcpu
---@field rip luna.u64
---@field parked boolean
---@field halted boolean
---@field stuck boolean halted with interrupts off
---@field waits? "INIT"|"SIPI"

---@class luna.vm
---@field default luna.space space 0
---@field spaces table<integer, luna.space> by number
---@field vcpus luna.vcpu[] in the order of their numbers
---@field accel "kvm"|"soft" what runs its vCPUs
---@field accel_reason string why that one
---@field symbols luna.symbols of what was loaded last, or set by a script
---@field machine luna.made_machine|false what luna.machine has made it as
local vm = {}
---@param address integer|luna.u64
---@return string? "main" or "main+0x12"
function vm:symbol(address) end
---@param address integer|luna.u64
---@return luna.source_line?, string?, string?
function vm:source_line(address) end
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

---A segment or table register: its fields are read from and written to the vCPU.
---@class luna.segment
---@field selector luna.u64
---@field base luna.u64
---@field limit luna.u64
---@field access luna.u64 rights in the layout of the VMCS
---@class luna.table_register
---@field base luna.u64
---@field limit luna.u64

---A vCPU. Registers are fields by their SDM names.
---@class luna.vcpu
---@field id integer
---@field vm luna.vm
---@field rax luna.u64
---@field rcx luna.u64
---@field rdx luna.u64
---@field rbx luna.u64
---@field rsp luna.u64
---@field rbp luna.u64
---@field rsi luna.u64
---@field rdi luna.u64
---@field r8 luna.u64
---@field r9 luna.u64
---@field r10 luna.u64
---@field r11 luna.u64
---@field r12 luna.u64
---@field r13 luna.u64
---@field r14 luna.u64
---@field r15 luna.u64
---@field rip luna.u64
---@field rflags luna.u64
---@field cr0 luna.u64
---@field cr2 luna.u64
---@field cr3 luna.u64
---@field cr4 luna.u64
---@field cr8 luna.u64
---@field efer luna.u64
---@field apic_base luna.u64
---@field gdtr luna.table_register
---@field idtr luna.table_register
---@field cs luna.segment
---@field ds luna.segment
---@field es luna.segment
---@field fs luna.segment
---@field gs luna.segment
---@field ss luna.segment
---@field tr luna.segment
---@field ldtr luna.segment
---@field space luna.space
---@field system integer? gpa of the system area
---@field exits integer how many exits run has had
local vcpu = {}
function vcpu:close() end
---@param options? luna.run_options
---@return luna.exit?, string?, string?
function vcpu:run(options) end
---@param kind luna.exit_cause
---@param handler? luna.handler
function vcpu:on(kind, handler) end
---@param value? integer|luna.u64
function vcpu:answer(value) end
---@return true?, string?, string?
function vcpu:retry() end
---@return true?, string?, string?
function vcpu:drop() end
---@return true|luna.exit|nil finished or a further exit, string?, string?
function vcpu:finish() end
function vcpu:interrupt() end
---@param value? any
function vcpu:stop(value) end
---@param exception string|integer
---@param error_code? integer
---@param address? integer|luna.u64
---@return true?, string?, string?
function vcpu:inject(exception, error_code, address) end
---@param target luna.space|integer
---@param options? { fpu: boolean, msrs: boolean }
---@return boolean?, string?, string?
function vcpu:set_space(target, options) end
---@return table<string, luna.u64>
function vcpu:regs() end

---One of luna.probe().accelerators.
---@class luna.accelerator
---@field available boolean
---@field message? string
---@field code? string
---@field features table<string, integer>
---@field limits table<string, integer>

---@class luna.probe
---@field accel? "kvm"|"soft" what a VM gets that asks for nothing
---@field reason? string
---@field available boolean
---@field message? string
---@field code? string
---@field features table<string, integer>
---@field accelerators { kvm: luna.accelerator, soft: luna.accelerator }

---@class lunavisor
---@field _VERSION string
---@field u64 table
---@field arguments table<string, number|string> what `luna run --set` has said
local luna = {}
---@param options? luna.vm_options
---@return luna.vm?, string?, string?
function luna.vm(options) end
---@param options luna.size|luna.buffer_options
---@return luna.buffer?, string?, string?
function luna.buffer(options) end
---@param source string
---@param options? { bits: 16|32|64, org: integer }
---@return string? code
---@return luna.symbols|string? labels, or a message
---@return string? error_code
function luna.asm(source, options) end
---@return luna.probe
function luna.probe() end
---@alias luna.limit "vcpus_max"|"slots_max"|"spaces_max"|"address_bits"|"dirty_ring_max"
---|"xsave_size"|"controls"|"exceptions"|"shadow_vmcs"
---@param name luna.limit
---@param accel? luna.accel
---@return integer?, string?, string?
function luna.capability(name, accel) end
---@param value luna.u64|integer
---@return string
function luna.hex(value) end
---@generic T
---@param handle T
---@param fn fun(handle: T, ...): ...
---@param ... any behind the handle, for fn
---@return any ...
function luna.with(handle, fn, ...) end
---@return { vm: integer, space: integer, buffer: integer, vcpu: integer }
function luna.live() end
---@param on? boolean
---@return boolean before
function luna.debug(on) end
---@return number
function luna.clock() end

return luna
