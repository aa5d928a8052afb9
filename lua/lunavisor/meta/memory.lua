---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of memory: buffers, spaces and what is mapped in them.
error "annotations are not to be required"

---A number of bytes, or "64K", "2M", "1G".
---@alias luna.size integer|string
---Rights such as "rwx", "r-x" or "---".
---@alias luna.rights string

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
---@param first? integer those that have a byte of [first, last]
---@param last? integer
---@return luna.region[]
function space:regions(first, last) end
---@return luna.slot[]
function space:slots() end
---@param gpa integer
---@param size luna.size
---@return string
function space:read(gpa, size) end
---@param gpa integer
---@param data string
function space:write(gpa, data) end
---@param gpa integer|luna.u64
---@param size integer|luna.u64
---@return string?, string?, string?
function space:try_read(gpa, size) end
---@param gpa integer|luna.u64
---@param data string
---@return boolean?, string?, string?
function space:try_write(gpa, data) end
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
---@param gpa? integer|{ gpa?: integer, size?: luna.size, host?: boolean }
---@param size? luna.size
---@return fun(): integer?
function space:dirty(gpa, size) end
---@param gpa integer
---@param length luna.size
---@param fn luna.handler
---@return { close: fun(self) }
function space:on_fault(gpa, length, fn) end
