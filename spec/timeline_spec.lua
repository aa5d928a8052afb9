-- SPDX-License-Identifier: MIT
-- The timeline of a report: counts in buckets that merge, and its picture.

local chart = require "lunavisor.measure.chart"
local timelines = require "lunavisor.measure.timeline"

local function sum(series)
  local total, buckets = 0, 0
  for _, count in pairs(series.counts) do total, buckets = total + count, buckets + 1 end
  return total, buckets
end

local function near(expected, value)
  assert.is_true(math.abs(expected - value) < 1e-6 * math.max(1, math.abs(expected)),
    ("%s expected, got %s"):format(expected, value))
end

describe("a timeline", function()
  it("has no more buckets for a longer time, and loses nothing", function()
    local line = timelines.new(5e9, 100)
    local one, other = line:of "one", line:of "other"
    for i = 0, 9999 do
      line:add(one, 5e9 + i * 777, 1)
      if i % 10 == 0 then line:add(other, 5e9 + i * 777, 3) end
    end
    local total, buckets = sum(one)
    near(10000, total)
    assert.is_true(buckets > 50 and buckets <= 100, buckets)
    near(3000, (sum(other)))
    assert.equal(10000, one.sum)
    assert.equal(128000, line.width) -- 1000, doubled until 100 of them are 7.77 ms
    assert.is_true(math.abs(128000 / 777 - one.counts[3]) < 1)
    line:add(one, 5e9 + 3600e9, 1)
    total, buckets = sum(one)
    near(10001, total)
    assert.is_true(buckets <= 100)
  end)

  it("spreads what came from one moment to another", function()
    local line = timelines.new(0, 100)
    local series = line:of "one"
    line:spread(series, 500, 3500, 30)
    assert.same({ [0] = 5, 10, 10, 5 }, series.counts)
    line:spread(series, 3600, 3600, 2)
    assert.equal(7, series.counts[3])
    line:spread(series, 0, 1e9, 1000)
    near(1032, (sum(series)))
    near(1032, series.sum)
    assert.is_true(1e9 <= 100 * line.width)
  end)

  it("has a bounded number of names", function()
    local line = timelines.new(0, 10)
    for i = 1, 1000 do line:add(line:of("name " .. i), i, 1) end
    assert.is_true(#line.series <= 50)
    assert.is_true(line:of("others").sum > 900)
    assert.equal(line:of "others", line:of "name 2000")
    assert.equal("name 7", line:of("name 7").name)
  end)

  it("comes in columns of the same time", function()
    local line = timelines.new(0, 100)
    local series = line:of "one"
    for i = 0, 99 do line:add(series, i * 1000, i) end
    local each, count, counts_of = line:columns(25)
    assert.same({ 4000, 25 }, { each, count })
    assert.equal(0 + 1 + 2 + 3, counts_of(series)[1])
    assert.equal(96 + 97 + 98 + 99, counts_of(series)[25])
    each, count = line:columns(1000)
    assert.same({ 1000, 100 }, { each, count })
  end)
end)

describe("the picture of a timeline", function()
  it("has a layer for each name, the most frequent first, the rest as one", function()
    local line, runs = timelines.new(0, 100), timelines.new(0, 100)
    for i = 1, 12 do line:spread(line:of("name " .. i), 0, 50000, 100 * i) end
    runs:spread(runs:of "running", 0, 25000, 25000)
    local picture, layers = chart.svg(line, runs)
    assert.equal(8, #layers)
    assert.same({ "name 12", 1200 }, { layers[1].name, layers[1].sum })
    assert.same({ "5 others", 1500 }, { layers[8].name, layers[8].sum })
    assert.matches("^<svg ", picture)
    assert.matches('<path class="c8" d="M', picture)
    assert.is_nil(picture:find("nan", 1, true))
    assert.is_nil(picture:find("inf", 1, true))
    assert.matches("<title>0 s to 1 \194\181s\n24  name 12\n22  name 11\n", picture)
    local left, width = picture:match 'class="run" x="([%d.]+)" y="%d+" width="([%d.]+)"'
    assert.same({ 62, 543 }, { tonumber(left), math.floor(width + 0.5) })
  end)

  it("is none where nothing came", function()
    assert.is_nil(chart.svg(timelines.new(0, 100), timelines.new(0, 100)))
  end)

  it("has the name of a device as text", function()
    local line = timelines.new(0, 100)
    line:add(line:of "<b>", 10, 1)
    local picture = chart.svg(line, timelines.new(0, 100))
    assert.is_nil(picture:find("<b>", 1, true))
    assert.matches("1  &lt;b&gt;", picture)
  end)
end)
