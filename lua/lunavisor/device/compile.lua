-- SPDX-License-Identifier: MIT
-- Registers as functions: what the guest's read and write of one do, and the author's access to its
-- fields, as generated text with slots and masks for constants.

local bits = require "lunavisor.device.bits"
local line = require "lunavisor.device.line"
local u64 = require "lunavisor.text.u64"

local M = {}

local band, bor, bxor, bnot = bits.band, bits.bor, bits.bxor, bits.bnot
local zero = bits.zero

local function mask_of(register, name)
  return register.masks[name] or zero
end

-- ---- Lines ----

-- The text that is true while a rule's line is up.
local function condition(rule)
  local text
  for _, part in ipairs(rule.parts) do
    local value = ("d[%d]"):format(part.register.slot)
    text = text and band(text, value) or value
  end
  if rule.mask then text = band(text, bits.constant(rule.mask, rule.parts[1].register.width)) end
  text = text .. " ~= 0"
  for _, gate in ipairs(rule.gates) do
    text = text .. (" and %s ~= 0"):format(band(("d[%d]"):format(gate.register.slot),
      bits.constant(gate.field and gate.field.mask or gate.register.all, gate.register.width)))
  end
  return text
end

local RULE = [[
do
  local l = d[%d]
  if (%s) ~= l.level then set(l, not l.level) end
end
]]

-- The text that brings the lines up to date whose rules look at the register (at any, where nil).
local function rules_text(layout, register)
  local lines = {}
  for _, rule in ipairs(layout.rules) do
    if not register or rule.sees[register] then
      lines[#lines + 1] = RULE:format(rule.slot, condition(rule))
    end
  end
  return table.concat(lines)
end

--- Whether a rule looks at the register.
function M.is_watched(layout, register)
  for _, rule in ipairs(layout.rules) do
    if rule.sees[register] then return true end
  end
  return false
end

--- A function (d) for the lines whose rules look at the register, nil where none does; without one,
--- for all.
function M.update(layout, register)
  local text = rules_text(layout, register)
  if text == "" then return nil end
  return bits.compile(layout.name .. " lines", "local set = ...\nreturn function(d)\n" .. text
    .. "end", line.set)
end

-- ---- The guest's side ----

-- What every generated function begins with; `s` is the slot, a constant but for arrays.
local HEAD = [[
local E = ...
local hook, changed, update, set = E.hook, E.changed, E.update, E.set
local fit, part, hooks = E.fit, E.part, E.hooks
return function(s, i)
return function(d, v)
]]

local function slot_text(register)
  return register.count and "s" or tostring(register.slot)
end

-- The text of a field's value in `from`.
local function field_text(field, from)
  local width = field.register.width
  local text = bits.unsigned(from, width)
  if field.low > 0 then text = bits.rshift(from, field.low) end
  if field.high < 8 * width - 1 then
    text = band(text, bits.constant(bits.mask(0, field.count), width))
  end
  -- A shift of a signed number fills with zeros: only bit 31 at its own place stays signed.
  if width == 4 and field.low == 0 and field.count == 32 then text = bits.unsigned(from, 4) end
  return text
end

local function number_text(field, text)
  return field.register.width == 8 and field.count <= 32 and ("tonumber(%s)"):format(text) or text
end

local function after_read(register)
  local rc, rs = mask_of(register, "rc"), mask_of(register, "rs")
  if rc == zero and rs == zero then return "" end
  local width = register.width
  local text = band("v", bits.constant(bits.without(register.all, rc), width))
  text = bor(text, bits.constant(rs, width))
  return ("local left = %s\nif left ~= v then d[s] = left E.settle(d, left, v) end\n")
    :format(bits.unsigned(text, width))
end

local function read_text(layout, register)
  local width, lines = register.width, {}
  local function add(...) lines[#lines + 1] = (...):format(select(2, ...)) end
  if register.fifo then add "local v = d[s]:pop()\n" else add "local v = d[s]\n" end
  add("%s", after_read(register))
  local hooked = register.read ~= nil
  for k, field in ipairs(register.fields) do
    if field.read then
      hooked = true
      local mask = bits.constant(field.mask, width)
      add("do local given = hooks[%d].read(d, %s, i) if given ~= nil then v = %s end end\n", k,
        number_text(field, field_text(field, "v")), bits.unsigned(bor(
          band("v", bits.constant(bits.without(register.all, field.mask), width)),
          band(("part(%d, given)"):format(k), mask)), width))
    end
  end
  if register.read then
    add "do local given = hook(d, v, i) if given ~= nil then v = fit(given) end end\n"
  end
  if (hooked or register.fifo) and layout.computed then add "update(d)\n" end
  if register.hidden ~= zero then
    add("return %s\n", bits.unsigned(band("v", bits.constant(
      bits.without(register.all, register.hidden), width)), width))
  else
    add "return v\n"
  end
  return table.concat(lines)
end

-- The text of the value after a write of v over old.
local function result_text(register)
  local width = register.width
  local function mask(name)
    local value = mask_of(register, name)
    return value ~= zero and bits.constant(value, width) or nil, value
  end
  local function of_v(text, value)
    return value == register.all and "v" or band("v", text)
  end
  local text, value = mask "rw"
  local result = "old"
  if value == register.all then return "v" end
  if text then
    result = bor(band("old", bits.constant(bits.without(register.all, value), width)),
      band("v", text))
  end
  text, value = mask "w1c"
  if text then result = band(result, bnot(of_v(text, value))) end
  text, value = mask "w1s"
  if text then result = bor(result, of_v(text, value)) end
  text, value = mask "w0c"
  if text then
    result = band(result, bor("v", bits.constant(bits.without(register.all, value), width)))
  end
  text, value = mask "toggle"
  if text then result = bxor(result, of_v(text, value)) end
  text, value = mask "wc"
  if text then
    result = band(result, bits.constant(bits.without(register.all, value), width))
  end
  return result ~= "old" and bits.unsigned(result, width) or nil
end

local function hooks_text(register, add)
  for k, field in ipairs(register.fields) do
    if field.write then
      add("hooks[%d].write(d, %s, %s, %s, i)\n", k, number_text(field, field_text(field, "new")),
        number_text(field, field_text(field, "old")), number_text(field, field_text(field, "v")))
    end
  end
  if register.write then add "hook(d, new, old, v, i)\n" end
end

local function write_text(layout, register)
  local lines = {}
  local function add(...) lines[#lines + 1] = (...):format(select(2, ...)) end
  local result = result_text(register)
  if register.fifo then
    add "local new, old = v, nil\n"
    if result then add "d[s]:push(v)\n" end
  elseif result == "v" and not register.watched and not register.hooked_write then
    add "d[s] = v\n"
  else
    add "local old = d[s]\n"
    add("local new = %s\n", result or "old")
    if result then add "d[s] = new\n" end
    if register.watched then add "if new ~= old then changed(d, new, old) end\n" end
  end
  add("%s", rules_text(layout, register))
  hooks_text(register, add)
  if layout.computed then add "update(d)\n" end
  return table.concat(lines)
end

local function make(layout, register, direction, body, given)
  local text = HEAD:gsub("%(d, v%)", direction == "read" and "(d)" or "(d, v)")
    .. body .. "end\nend"
  if not register.count then text = text:gsub("d%[s%]", "d[" .. slot_text(register) .. "]") end
  return bits.compile(("%s.%s %s"):format(layout.name, register.name, direction), text, given)
end

-- What a field's read hook gave, in its place.
local function parts(layout, register)
  return function(k, given)
    local field = register.fields[k]
    local exact = bits.fits(given, field.count)
    if exact == nil then
      error(("%s.%s.%s: read gave %s, which does not fit in %d bit%s"):format(layout.name,
        register.name, field.name, u64.exact(given) ~= nil and u64.hex(given) or tostring(given),
        field.count, field.count == 1 and "" or "s"), 0)
    end
    return bits.plain(u64.lshift(exact, field.low), 8 * register.width)
  end
end

local function fitter(layout, register)
  local count = 8 * register.width
  local limit = 2 ^ count
  return function(given)
    if count <= 32 and type(given) == "number" and given >= 0 and given < limit
      and given % 1 == 0 then
      return math.floor(given)
    end
    local exact = bits.fits(given, count)
    if exact == nil then
      error(("%s.%s: read gave %s, which is no value of %d bytes"):format(layout.name,
        register.name, u64.exact(given) ~= nil and u64.hex(given) or tostring(given),
        register.width), 0)
    end
    return bits.plain(exact, count)
  end
end

--- Makes register.read_at(slot, index) and write_at, which make the guest's functions (d) and
--- (d, v) of an element: of text that is compiled when the first one is asked for. `given` has
--- changed(d, new, old) and settle, and the layout's update.
function M.register(layout, register, given)
  register.hooked_write = register.write ~= nil
  for _, field in ipairs(register.fields) do
    register.hooked_write = register.hooked_write or field.write ~= nil
  end
  local function with(hook)
    return { hook = hook, changed = given.changed, settle = given.settle, update = layout.update,
      set = line.set, hooks = register.fields, fit = fitter(layout, register),
      part = parts(layout, register) }
  end
  local read, write
  function register.read_at(slot, index)
    read = read or make(layout, register, "read", read_text(layout, register),
      with(register.read))
    return read(slot, index)
  end
  function register.write_at(slot, index)
    write = write or make(layout, register, "write", write_text(layout, register),
      with(register.write))
    return write(slot, index)
  end
end

-- ---- The author's side ----

local function functions_of(layout, field)
  local register = field.register
  local width = register.width
  local value = field_text(field, "d[s]")
  local rest = bits.constant(bits.without(register.all, field.mask), width)
  local moved = bits.lshift("v", field.low)
  local text = ("local tonumber = tonumber\nreturn { get = function(d, s) return %s end,\n"
    .. "put = function(old, v) return %s end }"):format(number_text(field, value),
    bits.unsigned(bor(band("old", rest), moved), width))
  return bits.compile(("%s.%s.%s"):format(layout.name, register.name, field.name), text)
end

--- Gives a field, when the first of them is asked for, get(d, s) and put(old, value): its value in
--- slot s, and a register's value with another one in the field.
function M.field(layout, field)
  setmetatable(field, { __index = function(_, key)
    if key ~= "get" and key ~= "put" then return nil end
    local made = functions_of(layout, field)
    field.get, field.put = made.get, made.put
    return made[key]
  end })
end

return M
