-- SPDX-License-Identifier: MIT
-- What a guest can do with a register or field of an SVD file, as the access kinds of the device
-- kit have it.

local M = {}

local MODIFIED = { oneToClear = "w1c", oneToSet = "w1s", oneToToggle = "toggle",
  zeroToClear = "w0c", clear = "wc", modify = "rw" } -- of zeroToSet, zeroToToggle, set: none
local READ = { clear = "rc", set = "rs" } -- of modify, modifyExternal: none

-- By themselves in lower case: there are files with "read-writeonce".
local function words(text)
  local set = {}
  for word in text:gmatch "%S+" do set[word:lower()] = word end
  return set
end

local ACCESS_WORDS = words "read-only write-only read-write writeOnce read-writeOnce"
local MODIFIED_WORDS =
  words "oneToClear oneToSet oneToToggle zeroToClear zeroToSet zeroToToggle clear set modify"
local READ_WORDS = words "clear set modify modifyExternal"

--- What an element says of it, or else what is around it does: { access, modified, read }.
--- `complain` is as tree:word has it.
function M.of(tree, node, around, complain)
  return {
    access = tree:word(node, "access", ACCESS_WORDS, complain) or around.access,
    modified = tree:word(node, "modifiedWriteValues", MODIFIED_WORDS, complain)
      or around.modified,
    read = tree:word(node, "readAction", READ_WORDS, complain) or around.read,
  }
end

--- Whether two are the same.
function M.same(one, other)
  return one.access == other.access and one.modified == other.modified and one.read == other.read
end

-- Of what can be read and written.
local function both(about)
  local modified, kind = about.modified, "rw"
  if modified and MODIFIED[modified] then
    kind = MODIFIED[modified]
  elseif modified then
    return "rw", ("modifiedWriteValues %s has no access kind"):format(modified)
  end
  if about.read then
    return kind, ("readAction %s is not for what can be written too"):format(about.read)
  elseif about.access == "read-writeOnce" then
    return kind, "read-writeOnce: here it can be written again"
  end
  return kind
end

--- The access kind of the kit, and what of it all that does not say, nil where nothing.
function M.kind(about)
  local access, modified, read = about.access, about.modified, about.read
  if access == "read-only" then
    if not read then return "ro" end
    if READ[read] then return READ[read] end
    return "ro", ("readAction %s: which way is for a function read"):format(read)
  elseif access == "write-only" or access == "writeOnce" then
    if modified and modified ~= "modify" then
      return "wo", ("modifiedWriteValues %s of what cannot be read is for a function write")
        :format(modified)
    end
    return "wo", access == "writeOnce" and "writeOnce: here it can be written again" or nil
  end
  return both(about)
end

return M
