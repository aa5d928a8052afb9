-- SPDX-License-Identifier: MIT
-- How the calls are made: their arguments by name, their results, and the codes of what the library
-- refuses.

local u64 = require "lunavisor.text.u64"
local buffers = require "lunavisor.memory.buffer"

local unpack = table.unpack or unpack

local M = {}

--- nil, message, code.
function M.fail(code, text, ...)
  return nil, select("#", ...) > 0 and text:format(...) or text, code
end

local fail = M.fail

-- The framework's code for what the library returns; "error" for any other.
local codes = {
  overlap = "busy", busy = "busy", limit = "no_resources", memory = "no_resources",
  unsupported = "unsupported", no_kvm = "unsupported", access = "denied",
  not_found = "bad_argument", argument = "bad_argument", range = "bad_argument",
}

local function result(mistake, ok, value, message, code)
  if not ok then
    return fail(mistake, "%s", (tostring(value):gsub("^[^%s:]+%.lua:%d+: ", "")))
  end
  if value ~= nil then return value end
  if message == nil then return true end
  return nil, message, codes[code] or "error"
end

--- The result of fn(...), a call of the library: what it raises as a mistake is "bad_argument".
function M.try(fn, ...)
  return result("bad_argument", pcall(fn, ...))
end

--- The same for a call whose arguments are right: it raises where KVM cannot do it.
function M.try_host(fn, ...)
  return result("unsupported", pcall(fn, ...))
end

-- ---- Arguments ----

local EXACT = 2 ^ 53

local function wrong(name, what, value)
  return nil, ("%s: %s expected, got %s"):format(name, what, type(value))
end

-- A value as a call takes it; nil and a message to raise; or nil, nil and one to return.
local function whole(name, value)
  local exact = u64.exact(value)
  if exact == nil then return wrong(name, "a whole number", value) end
  if u64.le(EXACT, exact) then
    return nil, nil, ("%s: %s is too large, or negative"):format(name, u64.hex(exact))
  end
  return u64.tonumber(exact)
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

local function buffer(name, value)
  if getmetatable(value) ~= buffers.class then return wrong(name, "a buffer", value) end
  if not value[1] then return nil, name .. ": attempt to use a closed buffer" end
  return value
end

local function numbers(name, value)
  if type(value) ~= "table" then return wrong(name, "a list of vCPUs", value) end
  local list = {}
  for i, item in ipairs(value) do
    local number, problem, refusal = whole(("%s[%d]"):format(name, i), item)
    if not number then return nil, problem, refusal end
    list[i] = number
  end
  return list
end

-- By the argument's name; the others are plain whole numbers.
local kinds = {
  buffer = buffer, value = integer, deadline = integer, offset_tsc = integer, tsc = integer,
  address = integer, enable = of_type("boolean", "true or false"),
  load = of_type("boolean", "true or false"), primary = of_type("boolean", "true or false"),
  state = of_type("table", "a table"),
  vcpus = numbers, bytes = of_type("string", "a string"),
  port = function(_, value) return value end,
}

-- What a call needs before its arguments: by the first name, a function (value) -> value | nil,
-- message, code.
local needs = {}
M.needs = needs

--- The argument names of each call, by its name.
M.calls = {}

--- Defines hv[name] with arguments of those names; "size?" may be left out. "vm" as the first takes
-- no argument, but needs the VM; "vcpu" is a vCPU that the caller owns.
function M.define(hv, name, arguments, fn)
  local first = needs[arguments[1]]
  local skip = arguments[1] == "vm" and 1 or 0
  local count = #arguments - skip
  local names, takes, optional = {}, {}, {}
  for i = 1, count do
    local argument = arguments[i + skip]
    names[i] = argument:gsub("%?$", "")
    optional[i] = names[i] ~= argument
    takes[i] = kinds[names[i]] or whole
  end
  M.calls[name] = names
  local full = "hv." .. name .. ": "
  hv[name] = function(...)
    local given = { ... }
    local refused
    for i = 1, count do
      if not (optional[i] and given[i] == nil) then
        local value, problem, refusal = takes[i](names[i], given[i])
        if problem then error(full .. problem, 2) end
        given[i], refused = value, refused or refusal
      end
    end
    if first then
      local found, message, code = first(given[1])
      if not found then return nil, message, code end
      if skip == 0 then given[1] = found end
    end
    if refused then return fail("bad_argument", "%s", full .. refused) end
    return fn(unpack(given, 1, count))
  end
end

-- ---- Numbers ----

--- Whether the number has the bit, given as its value.
function M.has(number, bit)
  return number % (2 * bit) >= bit
end

--- Whether `number` has only bits of `bits`.
function M.within(number, bits)
  return u64.band(number, u64.bnot(bits)) == u64.exact(0)
end

--- The bits of both, as a plain number.
function M.band(a, b)
  return u64.tonumber(u64.band(a, b))
end

return M
