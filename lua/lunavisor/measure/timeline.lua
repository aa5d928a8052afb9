-- SPDX-License-Identifier: MIT
-- What happened when, by name, in no more memory for a long run than for a short one: counts in
-- buckets of time, two of which become one whenever they are too many.

local floor = math.floor

local M = {}

local WIDTH = 1000 -- nanoseconds of a bucket, to begin with
local NAMES = 48   -- more become "others"

local Timeline = {}
Timeline.__index = Timeline

--- A timeline of up to `most` buckets, for moments in nanoseconds from `first` on.
function M.new(first, most)
  return setmetatable({ first = first, most = most, width = WIDTH, last = 0, series = {},
    by_name = {} }, Timeline)
end

--- The series of that name: what add and spread want.
function Timeline.of(self, name)
  local series = self.by_name[name]
  if series then return series end
  if #self.series >= NAMES and name ~= "others" then return self:of "others" end
  series = { name = name, counts = {}, sum = 0 }
  self.series[#self.series + 1], self.by_name[name] = series, series
  return series
end

local function halve(counts)
  local made = {}
  for at, count in pairs(counts) do
    local to = floor(at / 2)
    made[to] = (made[to] or 0) + count
  end
  return made
end

-- The bucket of a moment, from 0 on.
local function bucket(self, moment)
  local since = moment - self.first
  if since < 0 then since = 0 end
  if since > self.last then self.last = since end
  while since >= self.most * self.width do
    self.width = 2 * self.width
    for _, series in ipairs(self.series) do series.counts = halve(series.counts) end
  end
  return floor(since / self.width)
end

--- Something happened `count` times at a moment.
function Timeline.add(self, series, moment, count)
  local at = bucket(self, moment)
  local counts = series.counts
  counts[at] = (counts[at] or 0) + count
  series.sum = series.sum + count
end

--- It happened so often from one moment to another.
function Timeline.spread(self, series, from, to, count)
  local last = bucket(self, to)
  local at = bucket(self, from)
  if at >= last then return self:add(series, to, count) end
  local counts, begin = series.counts, from - self.first
  local rate = count / (to - from)
  while at <= last do
    local first, behind = at * self.width, (at + 1) * self.width
    if first < begin then first = begin end
    if behind > to - self.first then behind = to - self.first end
    counts[at] = (counts[at] or 0) + rate * (behind - first)
    at = at + 1
  end
  series.sum = series.sum + count
end

--- Up to `most` columns of the same time: their width in nanoseconds, how many there are, and a
--- function(series) -> counts by column, from 1 on.
function Timeline.columns(self, most)
  local used = floor(self.last / self.width) + 1
  local group = math.ceil(used / most)
  return group * self.width, math.ceil(used / group), function(series)
    local made = {}
    for at, count in pairs(series.counts) do
      local to = floor(at / group) + 1
      made[to] = (made[to] or 0) + count
    end
    return made
  end
end

return M
