---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations: the state of a vCPU beyond its general and system registers.
error "annotations are not to be required"

---The bytes of a wide register as they were when it was read.
---@class luna.vector
---@field u8 integer[]
---@field u16 integer[]
---@field u32 integer[]
---@field u64 luna.u64[]
---@field f32 number[]
---@field f64 number[]
---@field bytes fun(self: luna.vector): string
---@field number fun(self: luna.vector): number of an x87 register

---What a wide register is set to: its bytes, another register's value, a list of u64, or a table
---with one view, like { f64 = { 1.5, 2 } }.
---@alias luna.vector_value string|luna.vector|luna.u64[]|table<string, number[]>

---@class luna.cpuid_values
---@field leaf? integer
---@field subleaf? integer nil where the leaf has none
---@field eax? integer
---@field ebx? integer
---@field ecx? integer
---@field edx? integer

---cpu.cpuid[leaf], cpu.cpuid(leaf, subleaf); writable before the first run.
---@class luna.cpuid
---@field [integer] luna.cpuid_values?
---@field filter fun(self: luna.cpuid, fn: fun(answer: luna.cpuid_values): boolean?): true
---@field list fun(self: luna.cpuid): luna.cpuid_values[]
---@field set fun(self: luna.cpuid, leaf: integer, subleaf: integer, values: luna.cpuid_values?)
---@overload fun(leaf: integer, subleaf?: integer): luna.cpuid_values?

---@class luna.vcpu
---@field dr0 luna.u64
---@field dr1 luna.u64
---@field dr2 luna.u64
---@field dr3 luna.u64
---@field dr6 luna.u64
---@field dr7 luna.u64
---@field xcr0 luna.u64
---@field fcw luna.u64
---@field fsw luna.u64
---@field ftw luna.u64 the abridged tag word, as FXSAVE has it
---@field fop luna.u64
---@field fip luna.u64
---@field fdp luna.u64
---@field mxcsr luna.u64
---@field st table<integer, luna.vector> 0 to 7, by their place in the file
---@field xmm table<integer, luna.vector> 0 to 31
---@field ymm table<integer, luna.vector>
---@field zmm table<integer, luna.vector>
---@field k table<integer, luna.u64> 0 to 7
---@field xsave string the whole x87, SSE and AVX state in XSAVE's standard form
---@field msr table<integer|string, luna.u64> by number or name
---@field cpuid luna.cpuid
local vcpu = {}

---The whole state as a string; not memory and not CPUID.
---@return string
function vcpu:state() end

---Puts a state back; nil, message, code where nothing was changed.
---@param state string
---@return true?, string?, string?
function vcpu:set_state(state) end

---Looks for what the processor would refuse in the registers.
---@return true?, string?, string?
function vcpu:check() end
