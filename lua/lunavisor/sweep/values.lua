-- SPDX-License-Identifier: MIT
-- What luna sweep's --set says: a name and its values, "size=1..64", "width=1,2,4..64*2".

local M = {}

--- The most values of a parameter, and the most units of a sweep.
M.MOST = 1000000

-- Characters that a backslash takes the meaning from.
local SPECIAL = "[,.\\]"

-- The pieces between commas: a list of { text, plain = no range, because something is escaped }.
local function pieces(text)
  local list, piece, plain, at = {}, {}, false, 1
  while at <= #text do
    local char = text:sub(at, at)
    local next_char = text:sub(at + 1, at + 1)
    if char == "\\" and next_char:find(SPECIAL) then
      piece[#piece + 1], plain, at = next_char, true, at + 1
    elseif char == "," then
      list[#list + 1] = { text = table.concat(piece), plain = plain }
      piece, plain = {}, false
    else
      piece[#piece + 1] = char
    end
    at = at + 1
  end
  list[#list + 1] = { text = table.concat(piece), plain = plain }
  return list
end

local function shown(value)
  if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%d"):format(value) end
  return ("%.14g"):format(value)
end

-- How many steps there are from one number to the other. nil where it is never reached.
local function steps_of(from, to, sign, by)
  if sign == "*" then
    if from == 0 or by <= 0 or by == 1 or to / from <= 0 then return nil end
    return math.log(to / from) / math.log(by)
  end
  return by ~= 0 and (to - from) / by or nil
end

-- Adds the numbers of a range; false where the text is none. nil, what is wrong with it.
local function add_range(list, text)
  local first, last, sign, by = text:match "^([%w.+-]-)%.%.([%w.+-]+)([:*]?)(.*)$"
  local from, to = tonumber(first), tonumber(last)
  if not from or not to then return false end
  if sign == "" then
    by = to < from and -1 or 1
  else
    by = tonumber(by)
    if not by then return nil, "a number expected behind the " .. sign end
  end
  local steps = from == to and 0 or steps_of(from, to, sign, by)
  if not steps or steps < 0 or steps ~= steps then return nil, "it never gets there" end
  steps = math.floor(steps + 1e-9)
  if steps >= M.MOST then return nil, ("more than %d values"):format(M.MOST) end
  for i = 0, steps do
    list[#list + 1] = shown(sign == "*" and from * by ^ i or from + i * by)
  end
  return true
end

--- The values that a text stands for, a list of texts. nil, message.
function M.list(text)
  local list, seen = {}, {}
  for _, piece in ipairs(pieces(text)) do
    local done, problem = false, nil
    if not piece.plain then done, problem = add_range(list, piece.text) end
    if problem then return nil, ("%s: %s"):format(piece.text, problem) end
    if not done then list[#list + 1] = piece.text end
    if #list > M.MOST then return nil, ("more than %d values"):format(M.MOST) end
  end
  for _, value in ipairs(list) do
    if seen[value] then return nil, ("%s is there twice"):format(value) end
    seen[value] = true
  end
  return list
end

--- The name and the values of "name=values". nil, message.
function M.parse(text)
  local name, values = text:match "^([%a_][%w_]*)=(.*)$"
  if not name then return nil, "name=values expected, got " .. text end
  local list, problem = M.list(values)
  if not list then return nil, ("%s: %s"):format(name, problem) end
  return name, list
end

return M
