-- SPDX-License-Identifier: MIT
-- dim, dimIncrement and dimIndex of an SVD file: how many of an element there are, and their names.

local M = {}

local COUNT_MOST, NAMES_MOST, STEP_MOST = 65536, 4096, 2 ^ 32

--- { count, increment, array, index } of an element with a dim, nil where it has none. `array`: its
--- name ends in [%s].
function M.of(tree, node)
  local count, at = tree:number(node, "dim", COUNT_MOST)
  local name = count and tree:name(node)
  -- One of its own that is derived from an array is none.
  if not count or at.parent ~= node and not name:find("%s", 1, true) then return nil end
  if count == 0 then tree:fail(at, "<dim> is 0: at least 1 expected") end
  if not name:find("%s", 1, true) then
    tree:fail(at, "<dim> of %q: a name with %%s or [%%s] in it expected", name)
  end
  local increment = tree:number(node, "dimIncrement", STEP_MOST)
  if not increment then tree:fail(at, "<dim> without <dimIncrement>") end
  return { count = count, increment = increment, array = name:find("[%s]", 1, true) ~= nil,
    index = tree:text(node, "dimIndex"), at = at }
end

-- The names of "0-3", "A-D" or "a,b,c"; nil where the text is none of that.
local function parse(text)
  local list = {}
  local first, last = text:match "^(%d+)%s*%-%s*(%d+)$"
  if first and #first < 10 and #last < 10 and tonumber(last) - tonumber(first) < NAMES_MOST then
    for i = tonumber(first), tonumber(last) do list[#list + 1] = ("%d"):format(i) end
    return list
  end
  first, last = text:match "^(%a)%s*%-%s*(%a)$"
  if first then
    for i = first:byte(), last:byte() do list[#list + 1] = string.char(i) end
    return list
  end
  for part in text:gmatch "[^,]+" do
    part = part:match "^%s*([%w_]+)%s*$"
    if not part then return nil end
    list[#list + 1] = part
  end
  return list
end

--- The index of each, as texts.
function M.names(tree, node, dim)
  if dim.count > NAMES_MOST then
    tree:fail(dim.at, "<dim> is %d: at most %d that have names of their own expected", dim.count,
      NAMES_MOST)
  end
  local list = {}
  if not dim.index then
    for i = 1, dim.count do list[i] = tostring(i - 1) end
    return list
  end
  list = parse(dim.index)
  if not list or #list ~= dim.count then
    tree:fail(tree:child(node, "dimIndex"), "<dimIndex> is %q: %d names such as 0-%d or A,B "
      .. "expected", dim.index:sub(1, 40), dim.count, dim.count - 1)
  end
  return list
end

return M
