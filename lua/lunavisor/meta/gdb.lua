---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the server for gdb, and of core files.
error "annotations are not to be required"

---@class luna.gdb_options
---@field port? integer TCP, 0 for one that is free
---@field path? string a Unix socket, for its owner alone
---@field stdio? boolean for gdb's target remote | command
---@field address? string of this host, 127.0.0.1 where nil
---@field bits? 16|32|64 of the registers that gdb is shown

---@class luna.serve_options
---@field timeout? number seconds
---@field deadline? number a moment of luna.clock()

---@class luna.gdb_server
---@field vm luna.vm
---@field port integer?
---@field path string?
---@field connected boolean
---@field exit luna.exit|false at which the guest stands
---@field refusal string|false why the last breakpoint or register was refused
---@field closed boolean
local gdb = {}
---@param options? luna.serve_options
---@return "detached"|"killed"|"gone"|"timeout"|"closed", luna.exit?
function gdb:serve(options) end
function gdb:close() end

---@class luna.core_options
---@field space? luna.space|integer whose memory, vm.default where nil
---@field linear? boolean false: at guest-physical addresses only

---@class luna.vm
local vm = {}
---@param path string
---@param options? luna.core_options
---@return true?, string?, string?
function vm:core(path, options) end
---@param options luna.gdb_options
---@return luna.gdb_server?, string?, string?
function vm:gdb(options) end
