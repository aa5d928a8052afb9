-- SPDX-License-Identifier: MIT
-- What annotations name, and what a module has, to be compared.

local M = {}

--- The captures of a pattern in a text, in order of the alphabet.
function M.named(text, pattern)
  local names = {}
  for name in text:gmatch(pattern) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The names of a table's functions, likewise.
function M.functions(set)
  local names = {}
  for name, value in pairs(set) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- ---- Types ----

-- What lua-language-server knows without being told; self stands in place of a parameter.
local BUILTIN = { any = true, boolean = true, ["false"] = true, ["ffi.cdata"] = true, fun = true,
  ["function"] = true, integer = true, ["nil"] = true, number = true, self = true, string = true,
  table = true, ["true"] = true, userdata = true }

-- The type that a text begins with: up to a space that is in no brackets and next to no | or comma.
local function type_at(text)
  local depth = 0
  for at = 1, #text do
    local char = text:sub(at, at)
    if char:find "[%(%[{<]" then depth = depth + 1 end
    if char:find "[%)%]}>]" then depth = depth - 1 end
    if char == " " and depth == 0 and not text:sub(1, at):find "[|:,] $"
      and not text:find("^ *|", at) then
      return text:sub(1, at - 1)
    end
  end
  return text
end

local FORMS = { "^param [%w_.]+%?? (.*)", "^field %[[^%]]+%] (.*)", "^field [%w_]+%?? (.*)",
  "^return (.*)", "^type (.*)", "^alias [%w_.]+ (.*)", "^overload (.*)", "^class [%w_.]+ *: *(.*)" }

local function type_of(line)
  for _, form in ipairs(FORMS) do
    local text = line:match(form)
    if text then return type_at(text) end
  end
end

--- The types that annotations use and none of them defines, each with its line.
function M.undefined(text)
  local defined, found = setmetatable({}, { __index = BUILTIN }), {}
  for name in text:gmatch "%-%-%-@[acg]%l+ ([%w_.]+)" do defined[name] = true end
  for line in text:gmatch "%-%-%-@([^\n]+)" do
    local kind = (type_of(line) or ""):gsub('"[^"]*"', ""):gsub("([%(,{] *)[%w_]+%??:", "%1")
    for name in kind:gmatch "[%a_][%w_.]*" do
      if not defined[name] then found[#found + 1] = name .. " in " .. line end
    end
  end
  return found
end

--- The functions whose parameters are not those that are annotated in front of them.
function M.other_parameters(text)
  local found, given = {}, {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local name = line:match "^%-%-%-@param ([%w_.]+)"
    if name then
      given[#given + 1] = name
    elseif not line:find "^%-%-%-" then
      local wanted = (line:match "^function [^(]+%((.-)%)" or ""):gsub(" ", "")
      if table.concat(given, ",") ~= wanted then found[#found + 1] = line end
      given = {}
    end
  end
  return found
end

return M
