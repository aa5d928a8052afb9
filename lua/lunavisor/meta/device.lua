---@meta lunavisor.device
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the device kit, and of what a VM has for devices of it.
error "annotations are not to be required"

---@alias luna.register_access
---| "ro" | "rw" | "wo" | "w1c" | "w1s" | "w0c" | "wc" | "toggle" | "rc" | "rs" | "reserved"
---| "const"

---@alias luna.write_hook fun(dev: luna.kit_device, new: integer, old: integer, written: integer)

---@class luna.register_field
---@field bits? integer|string 7 or "11:8"
---@field access? luna.register_access
---@field reset? integer|string
---@field enum? table<string, integer>
---@field todo? string where it is described what is not modelled
---@field follows? string
---@field after? number seconds
---@field read? fun(dev: luna.kit_device, value: integer, index?: integer): integer?
---@field write? luna.write_hook
---@field doc? string

---@class luna.block_hooks
---@field read? fun(dev: luna.kit_device, count: integer): string
---@field write? fun(dev: luna.kit_device, bytes: string)

---@class luna.register
---@field at integer|false false: not on the bus
---@field width? 1|2|4|8
---@field access? luna.register_access
---@field reset? integer|luna.u64|string|table
---@field fields? table<string, luna.register_field|integer|string>
---@field rest? luna.register_access of bits in no field
---@field count? integer
---@field stride? integer
---@field fifo? integer depth
---@field trigger? integer
---@field when? fun(dev: luna.kit_device): boolean
---@field follows? string
---@field after? number seconds
---@field todo? string
---@field precious? boolean
---@field narrow? "merge"|"refuse"
---@field block? luna.block_hooks any number of bytes in one call
---@field match? table<string, fun(dev: luna.kit_device, fields: table)> by pattern of bits
---@field sequence? table registers that are written one after the other
---@field pair? string the wider register whose bytes come one after the other
---@field first? "low"|"high" of a pair
---@field shared? boolean a pair's reads and writes count together
---@field bank? string the region behind an index
---@field index? string
---@field step? integer what an access of a bank adds to the index
---@field read? fun(dev: luna.kit_device, value: integer|luna.u64, index?: integer): integer?
---@field write? luna.write_hook
---@field doc? string

---@class luna.device_region
---@field registers? table<string, luna.register>
---@field read? fun(dev: luna.kit_device, offset: integer, size: integer): integer|luna.u64 a region
---without registers
---@field write? fun(dev: luna.kit_device, offset: integer, size: integer, value: integer|luna.u64)
---@field width? 1|2|4|8
---@field size? integer bytes
---@field endian? "little"|"big"
---@field narrow? "merge"|"refuse"
---@field unknown? "ones"|"zeros"|"error"|fun(dev: luna.kit_device, access: table): integer?

---@class luna.device_table : luna.device_region
---@field regions? table<string, luna.device_region>
---@field lines? table<string, true|table|fun(dev: luna.kit_device): boolean>
---@field inputs? integer|table<string, fun(dev: luna.kit_device, level: boolean)>
---@field input? fun(dev: luna.kit_device, number: integer, level: boolean)
---@field timers? table<string, fun(dev: luna.kit_device)>
---@field reset? fun(dev: luna.kit_device, ...)
---@field state? table fields that are saved and reset
---@field buffers? table<string, luna.size> memory of its own, whole pages: dev.name is a buffer
---@field holds? string names of fields that no state can have
---@field keeps? string names of registers, fields and timers that a reset leaves as they are
---@field options? table what instances can be made with besides
---@field init? fun(dev: luna.kit_device, options: table)
---@field attached? fun(dev: luna.kit_device, vm: luna.vm|false) when it comes to a VM, or leaves it
---@field loaded? fun(dev: luna.kit_device) when a state has been loaded
---@field saving? fun(dev: luna.kit_device) before a state is made of it
---@field methods? table<string, function>
---@field version? integer
---@field upgrade? fun(state: table, version: integer): table
---@field doc? string

---@class luna.instance_options
---@field name? string
---@field clock? luna.clock
---@field dma? table memory: read(self, gpa, size), write(self, gpa, bytes)
---@field log? false|fun(text: string, dev: luna.kit_device)

---@class luna.exposed
---@field buffer luna.buffer
---@field offset? integer into the buffer
---@field at? integer into the region
---@field size? luna.size
---@field rights? luna.rights

---An instance; its registers, lines and declared fields are fields by name.
---@class luna.kit_device : luna.device
---@field name string
---@field now number seconds
---@field clock luna.clock
---@field dma luna.dma
---@field lines table<string, boolean>
---@field inputs table<string|integer, luna.line>
---@field regions table<string, luna.device>
---@field options table
---@field todos table<string, integer> changes of what is not modelled
---@field vm luna.vm|false
local dev = {}
---@param seconds number
---@param name string
function dev:after(seconds, name) end
---@param name string
---@return boolean
function dev:cancel(name) end
---@return string
function dev:dump() end
---@param seconds number
---@param name string
function dev:every(seconds, name) end
---@param region string
---@param piece? false|luna.exposed nothing where nil or false
function dev:expose(region, piece) end
---@param name string
---@return number?
function dev:left(name) end
---@param state table
---@param options? { partial: boolean }
---@return true?, string[]|string|nil, string?
function dev:load(state, options) end
---@param text string
function dev:log(text) end
function dev:mark() end
---@param ... any
function dev:reset(...) end
---@return table
function dev:save() end
---@param name string of a sequence or pair
function dev:start(name) end
function dev:update() end
---@param clock luna.clock
function dev:use_clock(clock) end

---@class luna.line
---@field name string
---@field level boolean
---@field edges integer
local line = {}
---@generic T
---@param target T
---@return T
function line:connect(target) end
---@param target luna.line|function
---@return true
function line:disconnect(target) end
function line:pulse() end
---@param level boolean|0|1
function line:set(level) end

---@class luna.clock
---@field now number seconds
local clock = {}
---@param seconds number
function clock:advance(seconds) end
---@param seconds number
---@param fn fun(alarm: table)
---@return table
function clock:after(seconds, fn) end
---@param alarm table
---@return boolean
function clock:cancel(alarm) end
---@param seconds number
---@param fn fun(alarm: table)
---@return table
function clock:every(seconds, fn) end
function clock:fire() end
---@param alarm table
---@return number?
function clock:left(alarm) end
---@param alarm table
---@param seconds number
function clock:move(alarm, seconds) end

---@class luna.fifo
---@field depth integer
---@field trigger integer
---@field count integer
---@field lost integer
---@field full boolean
---@field empty boolean
---@field triggered boolean
local fifo = {}
function fifo:clear() end
---@return (integer|luna.u64)[]
function fifo:list() end
---@return integer|luna.u64|nil
function fifo:peek() end
---@return integer|luna.u64
function fifo:pop() end
---@param value integer|luna.u64
---@return boolean
function fifo:push(value) end

---@class luna.dma
---@field translate false|fun(gpa: integer, size: integer, access: string): integer?, any
local dma = {}
---@param gpa integer|luna.u64
---@param size integer
---@return string?, string?, string?
function dma:read(gpa, size) end
---@param gpa integer|luna.u64
---@param data string
---@return true?, string?, string?
function dma:write(gpa, data) end

---@alias luna.device_class fun(options?: luna.instance_options): luna.kit_device

---The module: device "name" { ... } gives a class, which gives instances.
---@class luna.kit
---@overload fun(name: string): fun(spec: luna.device_table): luna.device_class
local device = {}
---@param source? table
---@return luna.clock
function device.clock(source) end
---@param target? luna.kit_device|function
---@return { device: string, name: string, todo: string, changes: integer }[]
function device.coverage(target) end
---@param target luna.kit_device|function
---@param form? "markdown"|"svg"
---@return string
function device.describe(target, form) end
---@class luna.explorer : luna.device
---@field log table[]
local explorer = {}
---@return string
function explorer:draft() end
---@param options { size: integer, at: integer?, port: integer?, name: string?, most: integer? }
---@return luna.explorer
function device.explore(options) end
---@param value any
---@return "device"|"class"|nil
function device.is(value) end
---@param value any
---@return table
function device.layout(value) end
---@param name string
---@param changed? fun(level: boolean, line: luna.line)
---@return luna.line
function device.line(name, changed) end
---@param size integer
---@param gpa? integer
---@return table
function device.memory(size, gpa) end

---@class luna.vm
---@field clock luna.clock
---@field devices table<string, luna.kit_device>|fun(): table
local vm = {}
---@param target luna.kit_device|function
---@param options table
---@return luna.kit_device?, string?, string?
function vm:attach(target, options) end
---@param target luna.kit_device
function vm:detach(target) end
---@param number integer
---@return luna.line
function vm:line(number) end
---What comes to devices, and what they do of it, in a file for t.replay.
---@param path string
---@return luna.recording?, string?, string?
function vm:record(path) end
---@param old luna.kit_device
---@param new luna.kit_device|function|string
---@return luna.kit_device?, string[]|string, string?
function vm:replace(old, new) end
---@return table[]
function vm:unknown() end
---@param wanted string|table|fun(access: table)
---@param fn? fun(access: table)
---@return { close: fun() }
function vm:watch(wanted, fn) end

---@class luna.recording
---@field path string
---@field accesses integer so far
---@field closed boolean
local recording = {}
---Ends it: the file is whole.
function recording:close() end

---@class luna.trap
---@field hits integer accesses that came to the device

return device
