-- SPDX-License-Identifier: MIT
-- How the C library is called: arguments by name, who calls, results, and failures in Lua's terms.

local u64 = require "lunavisor.text.u64"
local buffers = require "lunavisor.memory.buffer"
local parse = require "lunavisor.hv.parse"
local library = require(rawget(_G, "jit") and "lunavisor.hv.ffi" or "lunavisor.hv.native")

local unpack = table.unpack or unpack
local type, error, select = type, error, select
local running, status_of = coroutine.running, coroutine.status
local EXACT = 2 ^ 53

local M = { library = library }

-- ---- Failures ----

--- The numbers of the codes that failed calls return.
M.errors = {}
local codes = {} -- the other way
for _, name in ipairs {
  "ERROR", "BUSY", "BAD_ARGUMENT", "NO_RESOURCES", "NO_DEVICE", "DENIED", "FAULT", "UNSUPPORTED",
} do
  M.errors[name:lower()], codes[parse.constants[name]] = parse.constants[name], name:lower()
end

--- nil, message, code.
function M.fail(code, text, ...)
  return nil, select("#", ...) > 0 and text:format(...) or text, code
end

local fail = M.fail

-- The sentence of C's last failure, with Lua's names and threads.
local function message()
  return (library.message():gsub("%f[%w_]HV_", ""):gsub("%f[%w_]hv_", "hv.")
    :gsub("(%l+) thread%f[%A]", "%1 coroutine"))
end

-- ---- Results ----

local converts = {
  u64 = function(value) return value end,
  number = tonumber,
  boolean = function(value) return value ~= 0 end,
}

local function finish(outs, status, ...)
  if status ~= 0 then return nil, message(), codes[status % 2 ^ 32] or "error" end
  if #outs < 2 then return not outs[1] or outs[1]((...)) end
  local results = { ... }
  for i, convert in ipairs(outs) do results[i] = convert(results[i]) end
  return unpack(results, 1, #outs)
end

--- The C call hv_`name` with arguments of those letters (ffi.lua): what it puts in its places, each
--- as a type or by a function, or true; nil, message, code.
function M.bind(name, letters, ...)
  local raw, outs = library.call("hv_" .. name, letters), { ... }
  for i, kind in ipairs(outs) do outs[i] = converts[kind] or kind end
  return function(...) return finish(outs, raw(...)) end
end

-- ---- Who calls ----

local owners = {} -- of vCPUs, by token: { first =, last = (numbers), thread = (a weak table) }

local acting = 0 -- as whom; false where an error came in between
local adopt, destroy = library.call("hv_ext_thread_adopt", "i"), M.bind("vcpu_destroy", "i")

local function act(token)
  if acting == token then return end
  acting = false
  adopt(token)
  acting = token
end

-- A vCPU goes with its coroutine.
local function sweep()
  local before = acting or 0
  for token, owner in pairs(owners) do
    local thread = owner.thread[1]
    if thread == nil or status_of(thread) == "dead" then
      act(token)
      for id = owner.first, owner.last do
        if destroy(id) then break end
      end
      owners[token] = nil
    end
  end
  act(before)
end

-- The number that the running coroutine has for C: its address, 0 for the main one.
local function token_of_caller()
  if next(owners) then sweep() end
  local thread, main = running()
  if not thread or main then return 0 end
  return tonumber((("%p"):format(thread))), thread
end

--- Notes that the caller owns a vCPU, of a number from `first` to `last`, or with nil none. Returns
--- what was noted before.
function M.own(first, last)
  local token, thread = token_of_caller()
  if not thread then return nil end
  local before = owners[token]
  owners[token] = first and { first = first, last = last,
    thread = setmetatable({ thread }, { __mode = "v" }) } or nil
  return before
end

-- Between calls nobody is acted as: another Lua state may be next.
local function back(...)
  act(0)
  return ...
end

-- ---- Arguments ----

local limits = {} -- by the number of bits
for bits = 1, 32 do limits[bits] = 2 ^ bits end

local function wrong(name, what, value)
  return nil, ("%s: %s expected, got %s"):format(name, what, type(value))
end

-- A value as a call takes it; nil and a message to raise; or nil, nil and one to return.
local function whole(name, value, bits)
  local most = bits and limits[bits] or EXACT
  if type(value) == "number" and value >= 0 and value < most and value % 1 == 0 then
    return value
  end
  local exact = u64.exact(value)
  if exact == nil then return wrong(name, "a whole number", value) end
  if u64.lt(exact, most) then return u64.tonumber(exact) end
  if not bits or not u64.lt(exact, EXACT) then
    return nil, nil, ("%s: %s is too large, or negative"):format(name, u64.hex(exact))
  end
  return nil, nil, ("%s: at most %d bits, not %s"):format(name, bits, u64.hex(exact))
end

local function integer(name, value)
  local exact = u64.exact(value)
  if exact == nil then return wrong(name, "an integer", value) end
  return exact
end

local function of_type(kind, what)
  return function(name, value)
    if type(value) ~= kind then return wrong(name, what, value) end
    return value
  end
end

local function numbers(name, value)
  if type(value) ~= "table" then return wrong(name, "a list of vCPUs", value) end
  local list = {}
  for i, item in ipairs(value) do
    local number, problem, refusal = whole(("%s[%d]"):format(name, i), item, 32)
    if not number then return nil, problem, refusal end
    list[i] = number
  end
  return list
end

-- By the type in C, and by the name of those that have another in Lua; others are whole numbers.
local by_type = {
  bool = of_type("boolean", "true or false"), uint64_t = integer, int64_t = integer,
}
local by_name = {
  state = of_type("table", "a table"), vcpus = numbers, bytes = of_type("string", "a string"),
  buffer = function(name, value)
    if getmetatable(value) ~= buffers.class then return wrong(name, "a buffer", value) end
    if not value[1] then return nil, name .. ": attempt to use a closed buffer" end
    return value
  end,
}

--- The argument names of each call, by its name.
M.calls = {}

--- Defines hv[name] with arguments of those names, which C knows the types of. "size?" may be left
--- out; of "port!" the function makes what it can.
function M.define(hv, name, arguments, fn)
  local names, takes, bits, marks, count = {}, {}, {}, {}, 0
  for argument in arguments:gmatch "%S+" do
    local plain, mark = argument:match "^([%w_]+)([?!]?)$"
    count = count + 1
    names[count], takes[count], marks[count] = plain, by_name[plain] or whole, mark
    for _, parameter in ipairs(by_name[plain] and {} or parse.calls[name] or {}) do
      if parameter.name == plain then
        takes[count] = by_type[parameter.type] or whole
        bits[count] = parameter.bits < 64 and parameter.bits or nil
      end
    end
  end
  M.calls[name] = names
  local full = "hv." .. name .. ": "
  hv[name] = function(...)
    local given, refused = { ... }, nil
    for i = 1, count do
      if marks[i] == "" or marks[i] == "?" and given[i] ~= nil then
        local value, problem, refusal = takes[i](names[i], given[i], bits[i])
        if problem then error(full .. problem, 2) end
        given[i], refused = value, refused or refusal
      end
    end
    if refused then return fail("bad_argument", "%s", full .. refused) end
    local token = token_of_caller()
    if token == acting then return fn(unpack(given, 1, count)) end -- maybe a finalizer, in a call
    act(token)
    return back(fn(unpack(given, 1, count)))
  end
end

return M
