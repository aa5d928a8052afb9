---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the prompt.
error "annotations are not to be required"

---@class luna.repl_names
---@field vm? luna.vm which VM the commands are about
---@field cpu? luna.vcpu which vCPU; the first of vm where nil
---@field exit? luna.exit why the guest has stopped
---@field [string] any whatever else is to be at hand

---@class luna.repl_options
---@field socket? string a Unix socket for programs, in place of the standard input

---A prompt until it is left: what `leave` was given.
---@param names? luna.repl_names
---@param options? luna.repl_options
---@return any ...
function luna.repl(names, options) end
