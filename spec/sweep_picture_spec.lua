-- SPDX-License-Identifier: MIT
-- The pictures of luna sweep: which kind a result gets, what is on it, and that any names make a
-- whole SVG document.

local helper = require "spec.support.helper"
local picture = require "lunavisor.sweep.picture"
local plan = require "lunavisor.sweep.plan"
local scale = require "lunavisor.sweep.scale"
local contains = helper.contains

-- What of a store the picture looks at: each unit's results are what fn makes of its arguments.
local function store(set, seeds, fn)
  local made = { plan = assert(plan.new(helper.file "", set, seeds)), lines = {} }
  for unit = 1, made.plan.count do
    local results = fn(made.plan:arguments(unit))
    made.lines[unit] = { unit = unit, status = results and 0 or 1, results = results or {} }
  end
  function made.results() return { "pages", "text" } end
  return made
end

-- The texts of a document, which has to be whole: each tag is closed, each & is an entity.
local function read(svg)
  local open, texts = {}, {}
  for slash, name, rest, behind in svg:gmatch "<(/?)([%w]+)([^<>]*)>([^<]*)" do
    if slash == "/" then
      assert.equal(name, table.remove(open))
    elseif not rest:find "/$" then
      open[#open + 1] = name
    end
    if name == "text" and slash == "" then texts[#texts + 1] = behind end
  end
  assert.same({}, open)
  for entity in svg:gmatch "&[^;]*;?" do assert.matches("^&%l+;$", entity) end
  assert.is_nil(svg:find "nan" or svg:find "inf[^o]")
  return "|" .. table.concat(texts, "|") .. "|"
end

local function draw(made, over, labels)
  local svg = assert(picture.draw(made, "pages", over, labels or {}))
  return svg, read(svg)
end

local function count(text, part) return select(2, text:gsub(part, "")) end

helper.block("a picture of a sweep", function()
  it("has a line over a number", function()
    local svg, texts = draw(store({ "size=4..20:4" }, nil, function(a)
      return { pages = a.size * 10 }
    end), nil, { size = "size, KiB", pages = "pages, 4 KiB each" })
    assert.equal(5, count(svg, "<circle"))
    contains("|pages over size|", texts)
    contains("|size, KiB|pages, 4 KiB each|", texts)
    contains("|0|50|100|150|200|", texts)
    contains("<title>size=8: 80</title>", svg)
    contains("prefers-color-scheme: dark", svg)
    -- The points are where the ticks say.
    local y200, y0 = svg:match 'y="([%d.]+)" text%-anchor="end">200<',
      svg:match 'y="([%d.]+)" text%-anchor="end">0<'
    local points = {}
    for y in svg:gmatch 'cy="([%d.]+)"' do points[#points + 1] = tonumber(y) end
    assert.is_true(math.abs(points[5] - (y200 - 4)) < 0.2)
    assert.is_true(math.abs(points[1] - (y0 - 4 + (y200 - y0) / 5)) < 0.2)
  end)

  it("has logarithmic axes where things grow by factors", function()
    local svg, texts = draw(store({ "size=1..1024*4" }, nil, function(a)
      return { pages = a.size * 100 }
    end))
    contains("|1|4|16|64|256|1024|", texts)
    contains("|100|1000|10 000|100 000|1e+06|", texts:gsub("1 000 000", "1e+06"))
    local xs = {}
    for x in svg:gmatch 'cx="([%d.]+)"' do xs[#xs + 1] = tonumber(x) end
    for i = 3, #xs do
      assert.is_true(math.abs((xs[i] - xs[i - 1]) - (xs[2] - xs[1])) < 0.2)
    end
  end)

  it("has a line for each name, with gaps where units have failed", function()
    local svg, texts = draw(store({ "mode=real,long", "size=1..5" }, nil, function(a)
      return not (a.mode == "long" and a.size == 3) and { pages = a.size } or nil
    end))
    assert.equal(9, count(svg, "<circle"))
    contains("|mode real|mode long|", texts)
    local lines = {}
    for path in svg:gmatch '<path class="line l%d" d="([^"]*)"' do lines[#lines + 1] = path end
    assert.equal(1, count(lines[1], "M"))
    assert.equal(2, count(lines[2], "M"))
  end)

  it("has the mean, the least and the most of the rest", function()
    local svg, texts = draw(store({ "size=1,2" }, "1..4", function(a)
      return { pages = a.size * 10 + a.seed }
    end))
    contains("<title>size=1: 12.5 (11 to 14, 4 units)</title>", svg)
    contains("|mean of 4 units, least to most|", texts)
    assert.equal(2, count(svg, '<line class="l1"'))
    local over_seed = draw(store({ "size=1,2" }, "1..4", function(a)
      return { pages = a.size * 10 + a.seed }
    end), "seed")
    assert.equal(4, count(over_seed, "<circle"))
  end)

  it("has bars over names", function()
    local svg, texts = draw(store({ "mode=real,<b>&\"'" }, nil, function(a)
      return { pages = a.mode == "real" and -5 or 12345 }
    end))
    assert.equal(2, count(svg, '<rect class="f1"'))
    contains("|&lt;b&gt;&amp;&quot;'|", texts)
    contains("|12 345|", texts)
    contains("|-5|", texts)
  end)

  it("has a map of colours over two numbers, or many names", function()
    local svg, texts = draw(store({ "size=1..3", "width=1,2" }, nil, function(a)
      return not (a.size == 2 and a.width == 2) and { pages = a.size * a.width * 1000 } or nil
    end))
    assert.equal(1, count(svg, 'class="hole"'))
    contains("|6000|", texts)
    contains("<title>size=3, width=2: 6000</title>", svg)
    contains('fill="#f2f4e0"', svg)
    contains('fill="#2a205e"', svg)
    contains("|size|width|", texts)
    svg = draw(store({ "size=1..2", "name=a,b,c,d,e,f,g,h,i" }, nil, function(a)
      return { pages = a.size }
    end))
    assert.equal(18, count(svg, "<title>size="))
    assert.equal(0, count(svg, "<circle"))
  end)

  it("is there for values that are all the same, or one", function()
    for _, value in ipairs { 0, 7, -3, 1e-9, 1e15 } do
      for _, set in ipairs { { "n=1" }, { "n=1..4" }, { "n=a" }, { "n=1..3", "m=1..3" } } do
        draw(store(set, nil, function() return { pages = value } end))
      end
    end
  end)

  it("is refused with the reason", function()
    local made = store({ "size=1,2" }, nil, function() return { text = "x" } end)
    local function refused(text, ...)
      local svg, problem = picture.draw(made, ...)
      assert.is_nil(svg)
      contains(text, problem)
    end
    refused("--plot: no unit has a result page; there are pages, text", "page", nil, {})
    refused("--plot: text is no number in any unit", "text", nil, {})
    refused("--over: there is no parameter sizes; did you mean 'size'?", "text", "sizes", {})
    refused("--over: size is there twice", "text", "size,size", {})
    refused("--over: one or two parameters expected", "text", "", {})
    made = store({}, nil, function() return { text = 1 } end)
    refused("--plot: the sweep has no parameter", "text", nil, {})
  end)
end)

helper.block("numbers on an axis", function()
  it("are short, and in groups", function()
    local shown = {}
    for i, value in ipairs { 0, 4096, 65536, 1234567, 0.25, -12345, 1.5e9, 100000 } do
      shown[i] = scale.number(value)
    end
    assert.same({ "0", "4096", "65 536", "1.23457e+06", "0.25", "-12 345", "1.5e+09", "100 000" },
      shown)
  end)

  it("are round", function()
    local function ticks(low, high)
      local list = {}
      for i, tick in ipairs(scale.linear(low, high, 0, 100, 6).ticks) do
        list[i] = scale.number(tick)
      end
      return table.concat(list, " ")
    end
    assert.equal("0 20 40 60 80 100", ticks(0, 97))
    assert.equal("0 0.1 0.2 0.3 0.4 0.5", ticks(0, 0.48))
    assert.equal("-10 -5 0 5 10", ticks(-7, 9))
  end)
end)
