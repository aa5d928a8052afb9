-- SPDX-License-Identifier: MIT
-- Where the author of a device's table wrote each name: the source is read again, so that a mistake
-- is blamed on its own line, and a name that stands twice in one table is found at all.

local M = {}

local cache = {} -- source text by chunk name, of the last file

local function text_of(source)
  if source:sub(1, 1) ~= "@" then
    return source:sub(1, 1) ~= "=" and source or nil
  end
  if cache.name == source then return cache.text end
  local file = io.open(source:sub(2), "rb")
  if not file then return nil end
  cache.name, cache.text = source, file:read "*a"
  file:close()
  return cache.text
end

--- Forgets what was read: a file may have changed.
function M.forget()
  cache = {}
end

-- The files of this library: the specs read all tables there.
M.own = debug.getinfo(1, "S").source:match "^@.*lunavisor/"

--- Whether a table is one of this library's, which need not be read before there is something to
--- blame: that takes longer than all else about it.
function M.is_own(info)
  return info ~= nil and M.own ~= nil and info.source:sub(1, #M.own) == M.own
end

-- ---- Tokens ----

-- The end of a long bracket that begins at `at`, nil where none does.
local function long_bracket(text, at)
  local level = text:match("^%[(=*)%[", at)
  if not level then return nil end
  local _, last = text:find("]" .. level .. "]", at, true)
  return last or #text
end

local function quoted(text, at)
  local quote = text:sub(at, at)
  local i = at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\\" then i = i + 1 elseif c == quote then return i end
    i = i + 1
  end
  return #text
end

-- The next token from `at`: its kind ("name", "string", a sign), its text, and where it ends.
local function token(text, at)
  at = text:find("%S", at)
  if not at then return nil end
  if text:find("^%-%-", at) then
    local last = long_bracket(text, at + 2) or (text:find("\n", at, true) or #text + 1) - 1
    return token(text, last + 1)
  end
  local last = long_bracket(text, at)
  if last then return "string", "", at, last end
  local c = text:sub(at, at)
  if c == '"' or c == "'" then
    last = quoted(text, at)
    return "string", text:sub(at + 1, last - 1), at, last
  end
  local name = text:match("^[%a_][%w_]*", at) or text:match("^%d[%w.]*", at)
  if name then return "name", name, at, at + #name - 1 end
  if text:find("^[=~<>]=", at) then return "sign", text:sub(at, at + 1), at, at + 1 end
  return "sign", c, at, at
end

-- ---- Tables ----

local opens = { ["function"] = true, ["if"] = true, ["do"] = true, ["repeat"] = true }
local closes = { ["end"] = true, ["until"] = true }

-- Notes a key of the innermost table, at `at` of the text.
local function note(found, text, path, key, at)
  for _ in text:sub(found.at, at - 1):gmatch "\n" do found.line = found.line + 1 end
  found.at = at
  local full, line = path .. key, found.line
  if found.lines[full] then
    found.doubled[#found.doubled + 1] = { path = full, line = found.lines[full], again = line }
  else
    found.lines[full] = line
  end
end

-- Reads the table whose brace is at `at`, on that line.
local function read(text, at, line)
  local found, stack, depth = { lines = {}, doubled = {}, at = at, line = line }, {}, 0
  local path, pending, before = "", nil, nil
  local kind, word, first, last = token(text, at)
  while kind do
    local inside = #stack > 0 and stack[#stack].depth == depth
    local starts = inside and (before == "{" or before == "," or before == ";")
    if kind == "name" and opens[word] then
      depth = depth + 1
    elseif kind == "name" and closes[word] then
      depth = depth - 1
    elseif starts and (kind == "name" or kind == "sign" and word == "[") then
      local key, behind = text:match("^%[%s*[\"']?([^\"'%]]*)[\"']?%s*%]%s*()=[^=]", first)
      if kind == "name" then key, behind = word, text:match("^%s*()=[^=]", last + 1) end
      pending = behind and key
      if pending then
        note(found, text, path, pending, first)
        word, last = "=", behind
      end
    elseif kind == "sign" and word == "{" then
      stack[#stack + 1] = { path = path, depth = depth }
      if #stack > 1 then path = path .. (pending or "?") .. "." end
      depth, pending = depth + 1, nil
      stack[#stack].depth = depth
    elseif kind == "sign" and word == "}" then
      path = stack[#stack].path
      stack[#stack] = nil
      depth = depth - 1
      if #stack == 0 then return found end
    end
    before = kind ~= "string" and word or nil
    kind, word, first, last = token(text, last + 1)
  end
  return nil
end

--- The names in the table that stands behind a call at a line, as debug.getinfo tells of the call:
--- { lines = line by path ("registers.ID"), doubled = list }; nil where the source is not there.
function M.read(info, name)
  local text = info and info.source and text_of(info.source)
  if not text then return nil end
  local at, line = 1, info.currentline
  for _ = 2, line do at = (text:find("\n", at, true) or #text) + 1 end
  local quote = text:find('"' .. name .. '"', at, true) or text:find("'" .. name .. "'", at, true)
  local brace = quote and text:match("^%s*%)?%s*(){", quote + #name + 2)
  if not brace then return nil end
  for _ in text:sub(at, brace):gmatch "\n" do line = line + 1 end
  return read(text, brace, line)
end

return M
