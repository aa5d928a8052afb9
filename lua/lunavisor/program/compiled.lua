-- SPDX-License-Identifier: MIT
-- The modules of this library as an engine has compiled them, in one file that make writes: most of
-- a program's start is parsing. A module is taken from there only while its source is what was
-- compiled; all others are looked for as ever. Where make has installed both, nobody edits the
-- sources, and they are not looked at: that takes as long as loading the code.
--
-- The file begins with a line that has the bytes up to the first module; then comes a line for each
-- of them: its name, the path of its source, where it begins behind the lines, and the bytes of
-- source and code, which follow one another there; "-" for a source that is not looked at. A line
-- is looked at when its module is asked for.

local M = {}

local FIRST, LINE = "%8d\n", "^([^\t\n]+)\t(%d+)\t([%d-]+)\t(%d+)\n"

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

local function lines_of(modules)
  local lines, at = {}, 0
  for i, module in ipairs(modules) do
    lines[i] = ("%s\t%s\t%d\t%s\t%d\n"):format(module.name, module.path, at,
      module.sealed and "-" or #module.source, #module.code)
    at = at + #module.bytes
  end
  return table.concat(lines)
end

--- Compiles modules, a list of { name, file, path, sealed }: `path` is where the file will be
--- looked for, unless it is sealed. The bytes of the file.
function M.make(modules)
  local parts = {}
  for i, module in ipairs(modules) do
    module.source = assert(read_source(module.file))
    module.code = string.dump(assert(load(module.source, "@" .. module.path)))
    module.bytes = module.sealed and module.code or module.source .. module.code
    parts[i] = module.bytes
  end
  local lines, head = lines_of(modules), #FIRST:format(0)
  return FIRST:format(head + #lines) .. lines .. table.concat(parts)
end

-- ---- Using it ----

-- The lines, after a line's end, and the bytes up to the first module; nil where the file is none
-- of ours.
local function read_lines(file)
  local head = #FIRST:format(0)
  local first = tonumber((file:read(head) or ""):match "^ *(%d+)\n$")
  local lines = first and file:read(first - head)
  if lines and #lines == first - head then return "\n" .. lines, first end
end

-- Whether the source at the path is the one that stands at this place of the file, so long.
local function is_same(file, at, path, size)
  local source = read_source(path, size + 1)
  if not source or #source ~= size then return false end
  file:seek("set", at)
  return file:read(size) == source
end

local function searcher(file, lines, first)
  return function(name)
    local _, tab = lines:find("\n" .. name .. "\t", 1, true)
    if not tab then return nil end
    local path, at, size, code = lines:match(LINE, tab + 1)
    if size == "-" then
      file:seek("set", first + at)
    elseif not is_same(file, first + at, path, tonumber(size)) then
      return nil
    end
    local chunk = load(file:read(tonumber(code)) or "", "@" .. path)
    if chunk then return chunk, path end
  end
end

--- Looks for modules in the file first from now on; nothing where it is not there.
function M.use(path)
  local file = io.open(path, "rb")
  local lines, first
  if file then lines, first = read_lines(file) end
  if not lines then return false end
  file:setvbuf "no" -- what is read from here on is a module's, in one piece
  table.insert(rawget(package, "searchers") or rawget(package, "loaders"), 2,
    searcher(file, lines, first))
  return true
end

return M
