-- SPDX-License-Identifier: MIT
-- Which parts of its addresses a process has asked for, and with which rights: areas in order, that
-- never overlap. Addresses are pages, numbers of 4 KiB.

local methods = {}
local Areas = { __index = methods }

--- None yet. An area is { first =, last =, rights =, name = }, without the page `last`.
local function new()
  return setmetatable({ list = {} }, Areas)
end

-- The place of the first area that ends behind a page.
local function place(self, page)
  local list = self.list
  local low, high = 1, #list + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if list[middle].last > page then high = middle else low = middle + 1 end
  end
  return low
end

--- The area that has a page, or nil.
function methods.find(self, page)
  local area = self.list[place(self, page)]
  return area and area.first <= page and area or nil
end

local function part(area, first, last)
  return { first = first, last = last, rights = area.rights, name = area.name }
end

-- Lets an area begin at a page that is within one.
local function split(self, page)
  local at = place(self, page)
  local area = self.list[at]
  if not area or area.first >= page then return end
  table.insert(self.list, at + 1, part(area, page, area.last))
  area.last = page
end

--- The areas in [first, last), cut at both ends; where the list has them.
function methods.cut(self, first, last)
  split(self, first)
  split(self, last)
  local from, found = place(self, first), {}
  local at = from
  while self.list[at] and self.list[at].first < last do
    found[#found + 1] = self.list[at]
    at = at + 1
  end
  return found, from
end

--- Whether every page of [first, last) is in an area.
function methods.covers(self, first, last)
  local at = place(self, first)
  while first < last do
    local area = self.list[at]
    if not area or area.first > first then return false end
    first, at = area.last, at + 1
  end
  return true
end

--- Forgets what is in [first, last).
function methods.remove(self, first, last)
  local found, from = self:cut(first, last)
  for _ = 1, #found do table.remove(self.list, from) end
end

local function joins(one, other)
  return one and other and one.last == other.first and one.rights == other.rights
    and one.name == other.name
end

-- Makes one area of two that continue each other.
local function join(self, at)
  local list = self.list
  if not joins(list[at], list[at + 1]) then return end
  list[at].last = list[at + 1].last
  table.remove(list, at + 1)
end

--- Puts an area into [first, last), in place of what is there.
function methods.put(self, first, last, rights, name)
  self:remove(first, last)
  local at = place(self, first)
  table.insert(self.list, at, { first = first, last = last, rights = rights, name = name })
  join(self, at)
  join(self, at - 1)
end

--- Other rights for [first, last), all of which is in areas.
function methods.protect(self, first, last, rights)
  local found, from = self:cut(first, last)
  for _, area in ipairs(found) do area.rights = rights end
  for at = from + #found, from - 1, -1 do join(self, at) end
end

--- The highest gap of `count` pages below `top` and not below `least`; its first page, or nil.
function methods.gap(self, count, least, top)
  local list, last = self.list, top
  for at = #list, 1, -1 do
    local area = list[at]
    if area.first < last then
      if last - math.max(area.last, least) >= count then return last - count end
      last = math.min(last, area.first)
    end
  end
  return last - least >= count and last - count or nil
end

return { new = new }
