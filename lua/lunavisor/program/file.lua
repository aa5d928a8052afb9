-- SPDX-License-Identifier: MIT
-- Files as wholes: their text, and new ones that take the place of none.

local M = {}

--- The text of a file. nil, message.
function M.read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text
  text, message = file:read "*a"
  file:close()
  return text, message
end

local function write(path, text)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local ok
  ok, message = file:write(text)
  local closed, problem = file:close()
  if ok and closed then return true end
  return nil, ("%s: %s"):format(path, tostring(message or problem))
end

--- Writes files, a list of { path =, text = }, all of them or none: where one of them is there
--- already, or cannot be written, nil and a message.
function M.create(list)
  for _, one in ipairs(list) do
    local there = io.open(one.path, "rb")
    if there then
      there:close()
      return nil, one.path .. " is there already, and is left as it is: another name expected"
    end
  end
  for i, one in ipairs(list) do
    local ok, message = write(one.path, one.text)
    if not ok then
      for k = 1, i - 1 do os.remove(list[k].path) end
      return nil, message
    end
  end
  return true
end

return M
