-- SPDX-License-Identifier: MIT
-- The arguments of the calls that map, protect and unmap, which a VM, a space and an update share.

local check = require "lunavisor.check"
local buffers = require "lunavisor.memory.buffer"

local M = {}

local STRICT, SEPARATE, WINDOW = 8, 16, 32 -- luna_map_flag
local map_options = {
  offset = true, size = true, rights = true, strict = true, separate = true, window = true,
}
local protect_options = { strict = true }

local function flags_of(what, options, depth)
  return (check.flag(what .. ": strict", options.strict, depth) and STRICT or 0)
    + (check.flag(what .. ": separate", options.separate, depth) and SEPARATE or 0)
    + (check.flag(what .. ": window", options.window, depth) and WINDOW or 0)
end

-- The three forms as options: (buffer, gpa, options), (buffer, gpa, size, rights, options) and
-- (buffer, offset, gpa, size, rights, options).
local function forms(what, buffer, a, b, c, d, e, depth)
  local given, gpa, size, rights, offset
  if b == nil or type(b) == "table" then
    given = check.options(what, b, map_options, depth)
    gpa, size, rights, offset = a, given.size, given.rights or "rwx", given.offset
  elseif type(c) == "string" and (d == nil or type(d) == "table") then
    given = check.options(what, d, map_options, depth)
    gpa, size, rights, offset = a, b, c, given.offset
  elseif type(b) == "string" and b:find "^[rwx-]+$" then
    error(('%s: gpa: a whole number expected, got %q; behind one number rights are an option: '
      .. "{ rights = %q }"):format(what, b, b), depth + 1)
  else
    given = check.options(what, e, map_options, depth)
    offset, gpa, size, rights = a, b, c, d
  end
  offset = check.whole(what .. ": offset", offset or 0, 0, nil, depth)
  if size == nil then size = buffer.size - offset end
  return given, gpa, size, rights, offset
end

--- gpa, size, rights with flags, offset.
function M.map(what, depth, buffer, a, b, c, d, e)
  check.object(what .. ": buffer", buffer, buffers.class, depth)
  local given, gpa, size, rights, offset = forms(what, buffer, a, b, c, d, e, depth + 1)
  gpa = check.whole(what .. ": gpa", gpa, 0, nil, depth)
  size = check.size(what .. ": size", size, depth)
  rights = check.rights(what .. ": rights", rights, depth)
  return gpa, size, rights + flags_of(what, given, depth + 1), offset
end

--- gpa, size.
function M.range(what, depth, gpa, size)
  gpa = check.whole(what .. ": gpa", gpa, 0, nil, depth)
  return gpa, check.size(what .. ": size", size, depth)
end

--- gpa, size, rights with flags.
function M.protect(what, depth, gpa, size, rights, options)
  options = check.options(what, options, protect_options, depth)
  gpa = check.whole(what .. ": gpa", gpa, 0, nil, depth)
  size = check.size(what .. ": size", size, depth)
  rights = check.rights(what .. ": rights", rights, depth)
  return gpa, size, rights + flags_of(what, options, depth + 1)
end

--- The names of the flags in `bits`.
function M.flag_names(bits)
  local names = {}
  if bits % (2 * STRICT) >= STRICT then names[#names + 1] = "strict" end
  if bits % (2 * SEPARATE) >= SEPARATE then names[#names + 1] = "separate" end
  if bits % (2 * WINDOW) >= WINDOW then names[#names + 1] = "window" end
  return names
end

return M
