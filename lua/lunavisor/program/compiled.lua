-- SPDX-License-Identifier: MIT
-- The modules of this library as an engine has compiled them, in one file that make writes: most of
-- a program's start is parsing. A module is taken from there only while its source is what was
-- compiled; all others are looked for as ever.
--
-- The file begins with a line of two numbers, of modules and bytes up to the first one; then comes
-- a line for each: its name, the path of its source, and the bytes of source and code, which follow
-- one another behind the lines.

local M = {}

local LINE = "^(%S+)\t([^\t]+)\t(%d+)\t(%d+)$"

local load = loadstring or load

-- The text of a file, no more than `most` bytes where that is given: in one go, without the pieces
-- of "*a".
local function read_source(path, most)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read(most or "*a")
  file:close()
  return text
end

-- ---- Writing ----

local function lines_of(modules, first)
  local lines = { ("%d %8d\n"):format(#modules, first) }
  for _, module in ipairs(modules) do
    lines[#lines + 1] = ("%s\t%s\t%d\t%d\n"):format(module.name, module.path, #module.source,
      #module.code)
  end
  return table.concat(lines)
end

--- Compiles modules, a list of { name, file, path }: `path` is where the file will be looked for.
--- The bytes of the file.
function M.make(modules)
  local parts = {}
  for _, module in ipairs(modules) do
    module.source = assert(read_source(module.file))
    module.code = string.dump(assert(load(module.source, "@" .. module.path)))
    parts[#parts + 1] = module.source .. module.code
  end
  return lines_of(modules, #lines_of(modules, 0)) .. table.concat(parts)
end

-- ---- Using it ----

-- Where what is: { path, at, source, code } by name; nil where the file is none of ours.
local function read_index(file)
  local count, at = (file:read "*l" or ""):match "^(%d+) +(%d+)$"
  local index = {}
  at = tonumber(at)
  for _ = 1, tonumber(count) or 0 do
    local name, path, source, code = (file:read "*l" or ""):match(LINE)
    if not name then return nil end
    source, code = tonumber(source), tonumber(code)
    index[name] = { path = path, at = at, source = source, code = code }
    at = at + source + code
  end
  return count and index
end

local function searcher(file, index)
  return function(name)
    local found = index[name]
    local source = found and read_source(found.path, found.source + 1)
    if not source or #source ~= found.source then return nil end
    file:seek("set", found.at)
    local both = file:read(found.source + found.code) or ""
    if both:sub(1, found.source) ~= source then return nil end
    local chunk = load(both:sub(found.source + 1), "@" .. found.path)
    if chunk then return chunk, found.path end
  end
end

--- Looks for modules in the file first from now on; nothing where it is not there.
function M.use(path)
  local file = io.open(path, "rb")
  local index = file and read_index(file)
  if not index then return false end
  table.insert(rawget(package, "searchers") or rawget(package, "loaders"), 2,
    searcher(file, index))
  return true
end

return M
