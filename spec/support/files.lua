-- SPDX-License-Identifier: MIT
-- Files as wholes: their text, and files with a text.

local files = {}

--- The text of a file.
function files.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

--- Makes the file have the text.
function files.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

return files
