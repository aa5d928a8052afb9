-- SPDX-License-Identifier: MIT
-- Checks of arguments, with errors at the line of whoever called the library.

local raw = require "lunavisor.binding.backend"
local classes = require "lunavisor.class"
local sorted = require "lunavisor.text.sorted"
local u64 = require "lunavisor.text.u64"

local M = {}

local floor = math.floor
local units = { K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30, T = 2 ^ 40 }
for name, factor in pairs { k = 2 ^ 10, m = 2 ^ 20, g = 2 ^ 30, t = 2 ^ 40 } do
  units[name] = factor
end

-- An object that was closed through a copy of it, or by a finalizer, passes the checks of the
-- shared layer: raw calls raise.
raw.when_closed(function(kind)
  error(("attempt to use a closed %s"):format(kind), classes.outside())
end)

-- The level at which error() blames the caller of the public function `depth` calls above the
-- check.
local function blame(depth)
  return (depth or 1) + 2
end

--- Refuses options that are not in `known`, a set; gives the table, empty for nil.
function M.options(what, options, known, depth)
  if options == nil then return {} end
  if type(options) ~= "table" then
    error(("%s: a table of options expected, got %s"):format(what, type(options)), blame(depth))
  end
  for key in pairs(options) do
    if not known[key] then
      local names = sorted(known)
      error(("%s: unknown option '%s'; %s"):format(what, tostring(key), #names == 0
        and "there are none" or "the options are " .. table.concat(names, ", ")), blame(depth))
    end
  end
  return options
end

--- A u64 that is an ordinary number too, as that number; anything else as it is.
function M.plain(value)
  if type(value) == "number" then return value end
  local exact = u64.exact(value)
  return exact ~= nil and u64.le(exact, 2 ^ 53) and u64.tonumber(exact) or value
end

--- A whole number from `low` to `high` (2^53 where not given); a u64 will do.
function M.whole(what, value, low, high, depth)
  high = high or 2 ^ 53
  if type(value) ~= "number" then value = M.plain(value) end
  if type(value) ~= "number" or floor(value) ~= value or value < low or value > high then
    local shown = type(value) == "number" and ("%.14g"):format(value) or type(value)
    error(("%s: a whole number from %d to %s expected, got %s")
      :format(what, low, (low > 9 and "%d" or "0x%x"):format(high), shown), blame(depth))
  end
  return floor(value)
end

--- A whole number of 64 bits, as the raw calls take it: a number or a u64.
function M.exact(what, value, depth)
  local exact = u64.exact(value)
  if exact == nil then
    error(("%s: an integer expected, got %s (write large ones as u64 \"0x...\")")
      :format(what, tostring(value)), blame(depth))
  end
  return exact
end

--- A string that C sees whole: without a zero byte. `expected` says what for.
function M.name(what, value, expected, depth)
  if type(value) ~= "string" or value:find("\0", 1, true) then
    error(("%s: %s expected, got %s"):format(what, expected,
      type(value) == "string" and "one with a zero byte" or classes.describe(value)), blame(depth))
  end
  return value
end

--- A size: a whole number of bytes, or a string such as "64K", "2M" or "1G".
function M.size(what, value, depth)
  if type(value) == "string" then
    local digits, unit = value:match "^(%d+)([KMGTkmgt]?)$"
    if not digits then
      error(("%s: a number of bytes or a size such as '64K', '2M' or '1G' expected, got %q")
        :format(what, value), blame(depth))
    end
    value = tonumber(digits) * (units[unit] or 1)
  end
  return M.whole(what, value, 0, nil, depth) -- a tail call: it blames the same level
end

--- A value in a message: hexadecimal, or what it is; of a number that is not exact any more, what
--- to say in its place.
function M.shown(value)
  if u64.exact(value) ~= nil then return u64.hex(value) end
  if type(value) == "number" and value >= 2 ^ 53 and value < 2 ^ 64 then
    return ("%.0f, which no number holds exactly: say luna.u64 \"0x...\""):format(value)
  end
  return type(value) == "number" and tostring(value) or classes.describe(value)
end

--- Options behind a module: nil where they are the path that require gives beside it on Lua 5.4,
--- as in t.bus(require "edu").
function M.beside_module(options)
  if type(options) == "string" and options:find "%.lua$" then return nil end
  return options
end

local bits = { r = 1, w = 2, x = 4 }

--- Rights such as "rwx" or "r-x" as bits: r 1, w 2, x 4.
function M.rights(what, value, depth)
  local r, w, x
  if type(value) == "string" then r, w, x = value:match "^([r-])([w-])([x-])$" end
  if not r then
    error(("%s: 'rwx', 'r-x', '---' or the like expected, got %s")
      :format(what, type(value) == "string" and ("%q"):format(value) or type(value)), blame(depth))
  end
  return (bits[r] or 0) + (bits[w] or 0) + (bits[x] or 0)
end

--- The text of rights bits.
function M.rights_text(value)
  return (value % 2 >= 1 and "r" or "-") .. (value % 4 >= 2 and "w" or "-")
    .. (value % 8 >= 4 and "x" or "-")
end

--- true or false; nil counts as false.
function M.flag(what, value, depth)
  if value ~= nil and type(value) ~= "boolean" then
    error(("%s: true or false expected, got %s"):format(what, type(value)), blame(depth))
  end
  return value or false
end

--- An object of the class.
function M.object(what, value, class, depth)
  if getmetatable(value) ~= class then
    error(("%s: a %s expected, got %s"):format(what, class.__name, classes.describe(value)),
      blame(depth))
  end
  if value[1] == false then
    error(("attempt to use a closed %s"):format(class.__name), blame(depth))
  end
  return value
end

--- Something that can be called.
function M.callable(what, value, depth)
  local meta = getmetatable(value)
  if type(value) ~= "function" and not (type(meta) == "table" and meta.__call) then
    error(("%s: a function expected, got %s"):format(what, type(value)), blame(depth))
  end
  return value
end

--- A __tostring for what is read from a vCPU when it is asked for: where that cannot be read, the
--- text says why.
function M.text(name, fn)
  return function(self)
    local ok, text = pcall(fn, self)
    return ok and text or ("%s (%s)"):format(name, (text:gsub("^[^\n]-:%d+: ", "")))
  end
end

--- make(...), a raw call that makes something. Where descriptors or memory are missing for it, once
--- again when the garbage is collected: objects that were dropped without close() may have them.
function M.again(make, ...)
  local made, message, code = make(...)
  if made ~= nil or code ~= "limit" and code ~= "memory" then return made, message, code end
  collectgarbage()
  collectgarbage()
  return make(...)
end

-- Mistakes of the script raise; what the world refuses is returned (nil, message, code).
local mistake = { argument = true, range = true, overlap = true, not_found = true, state = true }

--- The results of a raw call; mistakes are raised. To be tail called, so that level 2 is the caller
--- of the public function.
function M.result(value, message, code)
  if value ~= nil then return value end
  if mistake[code] then error(message, 2) end
  return nil, message, code
end

return M
