-- SPDX-License-Identifier: MIT
-- What a prompt does with a line, wherever it comes from: Lua or a command, and what is said of it.

local class = require "lunavisor.class"
local change = require "lunavisor.vcpu.change"
local u64 = require "lunavisor.text.u64"
local commands = require "lunavisor.repl.command"
local evaluate = require "lunavisor.repl.evaluate"
local names = require "lunavisor.repl.names"
local raw = require "lunavisor.binding.backend"
local runner = require "lunavisor.vm.runner"
local show = require "lunavisor.repl.show"

local Session = class.class "session"
local methods = {}
local M = { class = Session }

local unpack = rawget(table, "unpack") or unpack

--- A session. given: names for its Lua, of which vm, cpu and exit say what the commands are about.
--- say(text): where print and the guest's news go to. between(): called while the guest runs;
--- something true stops it.
function M.new(given, say, between)
  local self = setmetatable({ given = given, exit = given.exit or false, say = say,
    between = between or function() return false end, points = {}, number = 0, text = "",
    seen = {}, changed = {}, looked = false, leaving = false }, Session)
  self.print = function(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
    say(table.concat(parts, "\t") .. "\n")
  end
  self.env = names.of(self, given)
  self.addresses = names.for_addresses(self)
  self:look()
  return self
end

-- ---- What it is about ----

function methods.vm(self)
  local given = rawget(self.given, "vm")
  if given then return given end
  local cpu = rawget(self.given, "cpu")
  return cpu and cpu.vm or nil
end

function methods.cpu(self)
  local given = rawget(self.given, "cpu")
  if given then return given end
  local vm = self:vm()
  return vm and vm[1] and vm.vcpus[1] or nil
end

--- The vCPU or VM that the commands need; an error where there is none.
function methods.need_cpu(self)
  local cpu = self:cpu()
  if not cpu or not cpu[1] then
    error("there is no vCPU at hand: say cpu = ... or vm = ...", 0)
  end
  return cpu
end

function methods.need_vm(self)
  local vm = self:vm()
  if not vm or not vm[1] then error("there is no VM at hand: say vm = ...", 0) end
  return vm
end

--- Whether the guest waits for a handler that has asked for this prompt.
function methods.is_inside(self)
  local cpu, vm = self:cpu(), self:vm()
  return cpu and runner.busy(cpu.runner) or vm and runner.busy(vm.runner) or false
end

-- ---- Registers that have changed ----

local function registers_of(cpu)
  local ok, set = pcall(function() return cpu:regs() end)
  return ok and set or {}
end

--- Looks at the registers: from here on, `changed` has the names of those that are not as they were
--- when this was called before.
function methods.look(self)
  local cpu = self:cpu()
  local now, before = cpu and cpu[1] and registers_of(cpu) or {}, self.seen
  self.changed = self.looked == cpu and change.between(before, now) or {}
  self.seen, self.looked = now, cpu
end

--- "rax 0x1 -> 0x2, rip ...", nil where nothing has changed.
function methods.changes(self)
  return change.text(self.changed, self.seen)
end

-- ---- Lines ----

local function results(ok, ...)
  return ok, select("#", ...), { ... }
end

local function plain(message)
  if type(message) ~= "string" then return show.text(message) end
  return (message:gsub("^[^\n]-:%d+: ", ""))
end

-- Lua that has been typed may be interrupted, and so may the guest that it runs.
local function protected(fn, ...)
  raw.interrupt_renew()
  local ok, count, list = results(xpcall(fn, function(message)
    if type(message) == "string" and message:find("interrupted!", 1, true) then
      return "interrupted"
    end
    return message
  end, ...))
  if ok then return true, count, list end
  return false, list[1]
end

local function run_lua(fn)
  local ok, count, list = protected(fn)
  if not ok then return nil, type(count) == "string" and count or show.text(count) end
  return show.values(count, list) or ""
end

local function run_command(self, command, rest)
  local ok, count, list = protected(command.fn, self, rest)
  if ok then return list[1] or "" end
  return nil, plain(count)
end

--- Does a line: what is to be shown, "" for nothing; nil and a message where it failed; nil, nil
--- and true where more lines belong to it, which come with the next call.
function methods.line(self, line)
  if self.text == "" then
    local command, rest = commands.find(line)
    if command then return run_command(self, command, rest) end
    if not line:find "%S" then return "" end
  end
  local source = self.text ~= "" and self.text .. "\n" .. line or line
  self.text = ""
  local fn, problem, more = evaluate.compile(source, "=repl", self.env)
  local alone = fn and source:match "^%s*([%a_][%w_]*)%s*$"
  local hint = alone and self.env[alone] == nil and class.hint(alone, commands.by_name) or ""
  if hint ~= "" then return nil, ("there is no command and no name %s%s"):format(alone, hint) end
  if fn then
    -- LuaJIT: what is compiled looks for no Ctrl-C. Functions within are.
    if rawget(_G, "jit") then jit.off(fn) end
    return run_lua(fn)
  end
  if more and line:find "%S" then
    self.text = source
    return nil, nil, true
  end
  return nil, problem
end

--- Forgets the lines of something that is not whole yet.
function methods.forget(self) self.text = "" end

-- A text with addresses in the place of source lines such as "kernel.c:12".
local function without_lines(self, text)
  return (text:gsub("%f[^%s%c(]([%w_%./+-]*[%w_]):(%d+)%f[^%w_]", function(file, number)
    local name, vm = file .. ":" .. number, self:vm()
    if not vm or not vm[1] then return nil end
    local address, message = vm.symbols:find(name)
    if address == nil then error(message, 0) end
    return ('(luna.u64 "%s")'):format(u64.hex(address))
  end))
end

--- The numbers of a text of expressions with spaces between them: "rsp + 8 64" are two.
function methods.numbers(self, text)
  local values, pending = {}, nil
  text = without_lines(self, text)
  local function add(source)
    source = source:gsub("%f[%w]0[xX](%x+)%f[%W]", function(digits)
      if #digits > 13 then return ('(luna.u64 "0x%s")'):format(digits) end
    end)
    local fn, problem = evaluate.compile(source, "=address", self.addresses)
    if not fn then error(problem, 0) end
    local value = fn()
    if u64.exact(value) == nil then
      error(("%s is no address and no number: %s"):format(source, show.text(value)), 0)
    end
    values[#values + 1] = value
  end
  for word in text:gmatch "%S+" do
    local both = pending and pending .. " " .. word or word
    local fn, _, more = evaluate.compile(both, "=address", self.addresses)
    if not pending or fn or more then
      pending = both
    else
      add(pending)
      pending = word
    end
  end
  if pending then add(pending) end
  return unpack(values)
end

--- The values of a text as Lua: what a handler's prompt answers with.
function methods.results(self, text)
  local fn, problem = evaluate.compile(text, "=repl", self.env)
  if not fn then error(problem, 0) end
  return fn()
end

--- Ends the prompt with these results; "quit": the program with it.
function methods.leave(self, how, ...)
  self.leaving = { how, select("#", ...), ... }
end

--- Lets vCPUs that run on threads of their own have their exits answered: what there is to say.
function methods.idle(self)
  local vm = self:vm()
  if not vm or not vm[1] or not next(vm.started) or self:is_inside() then return nil end
  local ok, exit = pcall(vm.poll, vm)
  if ok and not exit then return nil end
  if not ok then return tostring(exit) end
  self.exit = exit
  return tostring(exit)
end

--- Takes its breakpoints and watches away.
function methods.close(self)
  for _, point in ipairs(self.points) do point:close() end
  self.points = {}
end

class.define(Session, methods, "exit text leaving", [[
  given say between points number seen changed looked print env addresses]])

return M
