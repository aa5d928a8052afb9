---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of guest-linear addresses, disassembly and instructions that KVM cannot
-- emulate.
error "annotations are not to be required"

---@class luna.walk
---@field gva luna.u64
---@field present boolean
---@field paging "none"|"32-bit"|"PAE"|"4-level"|"5-level"
---@field entries { gpa: integer, value: luna.u64 }[] from the root on
---@field gpa integer? where present
---@field size integer? of the page
---@field rights luna.rights? what the entries give
---@field user boolean? user mode has the rights too
---@field missing integer? where not present: the level of the last entry, 1 for a page table's
---@field reserved boolean? the last entry has a reserved bit set

---@class luna.instruction
---@field address luna.u64
---@field size integer bytes
---@field bytes string
---@field text string
---@field symbol string? what vm.symbols calls the address
---@field line luna.source_line? that it belongs to
---@field target string? what they call where it jumps
---@field marked boolean? cpu:disasm: it is at rip

---@class luna.frame
---@field rip luna.u64
---@field rbp luna.u64
---@field instruction string?
---@field symbol string?
---@field line luna.source_line? of the innermost frame, else that of the call

---@class luna.vcpu
local vcpu = {}
---@param gva integer|luna.u64
---@return luna.walk?, string?, string? nil where a table lies in unmapped memory
function vcpu:translate(gva) end
---@param gva integer|luna.u64
---@param size luna.size
---@return string
function vcpu:read(gva, size) end
---@param gva integer|luna.u64
---@param data string
function vcpu:write(gva, data) end
---@param gva integer|luna.u64
---@param value? integer
---@return integer
function vcpu:u8(gva, value) end
---@param gva integer|luna.u64
---@param value? integer
---@return integer
function vcpu:u16(gva, value) end
---@param gva integer|luna.u64
---@param value? integer
---@return integer
function vcpu:u32(gva, value) end
---@param gva integer|luna.u64
---@param value? integer|luna.u64
---@return luna.u64
function vcpu:u64(gva, value) end
---@return luna.instruction?, string?, string?
function vcpu:instruction() end
---@param count? integer 8 where nil
---@param rip? integer|luna.u64
---@return luna.instruction[]?, string?, string?
function vcpu:disasm(count, rip) end
---@param max? integer
---@return luna.frame[]
function vcpu:backtrace(max) end

---@class lunavisor
local luna = {}
---@param bytes string
---@param options? { address: integer|luna.u64, bits: 16|32|64, count: integer }
---@return luna.instruction[]?, string?, string?
function luna.disasm(bytes, options) end
