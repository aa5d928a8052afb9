---@meta lunavisor.process
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of luna.process, for editors. Programs load none of them; a spec compares
-- them with what there is.
error "annotations are not to be required"

---@class luna.process_options
---@field args? string[] behind the program's name
---@field env? table<string, string> empty where nil
---@field stdin? string|fun(count: integer): string? at its end where nil
---@field stdout? fun(text: string) the script's where nil
---@field stderr? fun(text: string) the script's where nil
---@field root? string a directory of the host that it can read
---@field files? table<string, string|fun(path: string): string> by path, in front of root
---@field memory? luna.size 256M where nil
---@field terminal? boolean
---@field clock? fun(): number seconds
---@field seed? integer of its random bytes, 1 where nil
---@field log? fun(text: string) told of calls that nobody answers; the standard error where nil
---@field trace? fun(text: string) gets a line for each call
---@field accel? luna.accel
---@field cpuid? luna.cpuid_values[]|fun(answer: luna.cpuid_values): boolean?

---How a run ended.
---@class luna.ending
---@field kind "exited"|"killed"|"timeout"|"stopped"|"failed"
---@field status? integer
---@field signal? string killed: its name
---@field value? any stopped: what cpu:stop was called with
---@field exit? luna.exit

---A number, or the name of an error such as "ENOENT".
---@alias luna.call_result integer|luna.u64|string
---@alias luna.call_handler
---| fun(call: luna.system_call, a: integer|luna.u64, ...: integer|luna.u64): luna.call_result?

---@class luna.process
---@field vm luna.vm
---@field cpu luna.vcpu
---@field name string
---@field symbols luna.symbols
---@field ending luna.ending|false once it has ended
local process = {}
---@param options? luna.run_options
---@return luna.ending?, string?, string?
function process:run(options) end
---@param name string of a system call
---@param fn luna.call_handler?
function process:on(name, fn) end
---@return string
function process:maps() end
function process:close() end

---@class luna.system_call
---@field name string
---@field number integer|luna.u64
---@field rip luna.u64
---@field process luna.process
---@field args (integer|luna.u64)[]
local call = {}
---@param address integer|luna.u64
---@return string
function call:text(address) end
---@param address integer|luna.u64
---@param size integer|luna.u64
---@return string
function call:read(address, size) end
---@param address integer|luna.u64
---@param bytes string
---@return integer
function call:write(address, bytes) end
---@return luna.call_result?
function call:default() end

local luna = {}
---@param image luna.image_source
---@param options? luna.process_options
---@return luna.process?, string?, string?
function luna.process(image, options) end

return luna
