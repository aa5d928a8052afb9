-- SPDX-License-Identifier: MIT
-- The directory of a sweep. What its units have said is appended to the file `output` and read from
-- there again: a unit is done when its whole line is there, and what was cut off in the middle is
-- none. The table of results is made from that.

local csv = require "lunavisor.sweep.csv"
local encode = require("lunavisor.program.json").encode
local json = require "lunavisor.repl.json"
local plan = require "lunavisor.sweep.plan"
local sorted = require "lunavisor.text.sorted"

local M = {}

local Store = {}
Store.__index = Store

-- All files that are of one sweep alone; the script is replaced, and the lock stays.
local FILES = { "sweep.json", "output", "units", "joblog", "log", "results.csv" }

M.BUSY = "the units of %s are being run, by process %s"

local function quoted(path) return plan.quote(path:find "^-" and "./" .. path or path) end

--- The path of a file of the directory.
function Store.path(self, name) return self.directory .. "/" .. name end

--- Writes a file as a whole: whoever looks sees the one before or this one. nil, message.
function Store.write(self, name, text)
  local path = self:path(name)
  local file, message = io.open(path .. ".new", "wb")
  if not file then return nil, message end
  local ok, problem = file:write(text)
  if ok then ok, problem = file:close() end
  if ok then ok, problem = os.rename(path .. ".new", path) end
  if not ok then return nil, ("%s: %s"):format(path, problem) end
  return true
end

local function begin_anew(self)
  for _, name in ipairs(FILES) do os.remove(self:path(name)) end
  local ok, problem = self:write("script.lua", self.plan.text)
  -- Last: with it the directory is one of a sweep.
  if ok then ok, problem = self:write("sweep.json", encode(self.plan:data(), "") .. "\n") end
  if not ok then return nil, problem end
  return self
end

-- Whether it is empty, or one that was cut off while it was begun.
local function is_free(directory)
  local pipe = assert(io.popen("ls -A " .. quoted(directory) .. " 2>/dev/null"))
  local names = pipe:read "*a"
  pipe:close()
  return names == "" or ("\n" .. names):find("\nscript.lua", 1, true) ~= nil
end

--- The process that runs units there, as a text; nil where none does.
function Store.busy(self)
  local lock = quoted(self:path "lock")
  local pipe = assert(io.popen(("! [ -e %s ] || ! command -v flock >/dev/null || "
    .. "flock -n %s true || cat %s"):format(lock, lock, lock)))
  local pid = pipe:read "*l"
  pipe:close()
  return pid
end

--- Opens the directory for a plan, and makes it where it is not there. `again` drops what another
--- sweep, or the same, has left there. nil, message.
function M.open(directory, made, again)
  local self = setmetatable({ directory = directory, plan = made, lines = {}, at = 0,
    rest = "" }, Store)
  local status = os.execute("mkdir -p " .. quoted(directory) .. " 2>/dev/null")
  if status ~= 0 and status ~= true then
    return nil, ("--output: %s cannot be made"):format(directory)
  end
  local text = plan.read_file(self:path "sweep.json")
  local ok, data = pcall(json.decode, text or "")
  if not text or not ok or type(data) ~= "table" then
    if not text and not is_free(directory) then
      return nil, ("--output: %s is not empty, and not the directory of a sweep"):format(directory)
    end
    return begin_anew(self)
  end
  if again then
    local pid = self:busy()
    if pid then return nil, M.BUSY:format(directory, pid) end
    return begin_anew(self)
  end
  local differences = made:differences(data, plan.read_file(self:path "script.lua"))
  if #differences > 0 then
    return nil, ("%s has another sweep: %s\n--again drops it, --output begins one elsewhere")
      :format(directory, table.concat(differences, "; "))
  end
  self:read()
  return self
end

-- ---- Lines ----

-- What a script has returned, by names; also where that is a list, or nothing.
local function by_name(results)
  local named = {}
  for name, value in pairs(type(results) == "table" and results or {}) do
    named[tostring(name)] = value
  end
  return named
end

-- A line whose unit is of this plan and has these values; nil, why not.
local function judge(self, text)
  local ok, line = pcall(json.decode, text, tostring)
  if not ok or type(line) ~= "table" then return nil, "no line of a unit" end
  local unit = line.unit
  if type(unit) ~= "number" or unit % 1 ~= 0 or type(line.status) ~= "number" then
    return nil, "no line of a unit"
  end
  if unit < 1 or unit > self.plan.count then
    return nil, ("unit %d, and there are %d"):format(unit, self.plan.count)
  end
  for name, value in pairs(self.plan:arguments(unit)) do
    local found = type(line.arguments) == "table" and line.arguments[name]
    if encode(found) ~= encode(value) and tostring(found) ~= encode(value) then
      return nil, ("unit %d has %s=%s, and %s is expected"):format(unit, name, encode(found),
        encode(value))
    end
  end
  line.results = by_name(line.results)
  return line
end

-- Takes the lines of whole text. A mark begins one, wherever it is. Where a unit has several, what
-- was well stays.
local function take(self, text)
  local count = 0
  for piece in text:gmatch "\30([^\n\30]*)\n" do
    local line = judge(self, piece)
    if line then
      local before = self.lines[line.unit]
      if not before or before.status ~= 0 or line.status == 0 then self.lines[line.unit] = line end
      count = count + 1
    end
  end
  return count
end

--- Reads what has come to `output` since the last time; the number of lines.
function Store.read(self)
  local file = io.open(self:path "output", "rb")
  if not file then return 0 end
  file:seek("set", self.at)
  local text = file:read "*a" or ""
  file:close()
  self.at = self.at + #text
  text = self.rest .. text
  local whole, rest = text:match "^(.*\n)([^\n]*)$"
  self.rest = rest or text
  return take(self, whole or "")
end

--- What is cut off at the end of `output` stays apart from what follows. nil, message.
function Store.append(self, text)
  local file, message = io.open(self:path "output", "ab")
  if not file then return nil, message end
  local ok, problem = file:write(self.rest ~= "" and "\n" or "", text)
  if ok then ok, problem = file:close() end
  if not ok then return nil, problem end
  return true
end

--- Takes lines of units that ran elsewhere. How many; nil, message where one is not of this sweep.
function Store.take(self, text)
  local good = {}
  for piece in text:gmatch '{"arguments": [^\n]*}' do
    local line, problem = judge(self, piece)
    if not line then return nil, problem end
    good[#good + 1] = "\30" .. piece .. "\n"
  end
  local ok, problem = self:append(table.concat(good))
  if not ok then return nil, problem end
  self:read()
  return #good
end

--- The units that have no line, and with `failed` those whose status is not 0.
function Store.missing(self, failed)
  local list = {}
  for unit = 1, self.plan.count do
    local line = self.lines[unit]
    if not line or failed and line.status ~= 0 then list[#list + 1] = unit end
  end
  return list
end

--- How many units have a line, and how many of those have failed.
function Store.count(self)
  local done, failed = 0, 0
  for _, line in pairs(self.lines) do
    done = done + 1
    if line.status ~= 0 then failed = failed + 1 end
  end
  return done, failed
end

-- ---- The table ----

--- The names of all results.
function Store.results(self)
  local names = {}
  for _, line in pairs(self.lines) do
    for name in pairs(line.results) do names[name] = true end
  end
  return sorted(names)
end

local function cell(value)
  if type(value) == "table" or type(value) == "number" then return encode(value) end
  return value
end

-- The head of the table: the names of results that are those of other columns too get one more.
local function head_of(self, results, hosts)
  local head, taken = { "unit" }, {}
  for _, one in ipairs(self.plan.parameters) do head[#head + 1] = one.name end
  head[#head + 1], head[#head + 2] = "status", "seconds"
  if hosts then head[#head + 1] = "host" end
  for _, name in ipairs(head) do taken[name] = true end
  taken.error = true
  for _, name in ipairs(results) do
    while taken[name] do name = name .. "_result" end
    head[#head + 1], taken[name] = name, true
  end
  head[#head + 1] = "error"
  return head
end

local function row_of(self, unit, line, results, hosts)
  local row = { unit }
  for _, value in ipairs(self.plan:values(unit)) do row[#row + 1] = value end
  local count = #row
  local function put(value)
    count = count + 1
    row[count] = cell(value)
  end
  put(line.status)
  put(line.seconds and ("%.6f"):format(line.seconds))
  if hosts then put(line.host) end
  for _, name in ipairs(results) do
    put(line.results and line.results[name])
  end
  put(line.error)
  return row, count
end

--- The table of all units that have a line, or one in `cut`, by unit.
function Store.table(self, cut)
  local results, hosts = self:results(), false
  for _, line in pairs(self.lines) do hosts = hosts or line.host ~= nil end
  local head = head_of(self, results, hosts)
  local records = { csv.record(head, #head) }
  for unit = 1, self.plan.count do
    local line = self.lines[unit] or cut and cut[unit]
    if line then
      records[#records + 1] = csv.record(row_of(self, unit, line, results, hosts))
    end
  end
  return table.concat(records)
end

return M
