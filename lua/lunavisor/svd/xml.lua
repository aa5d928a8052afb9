-- SPDX-License-Identifier: MIT
-- An XML file as a tree of elements, by LuaExpat. It is not trusted: its size and depth are
-- bounded, and it may declare no entities. Mistakes raise { svd = message } with the line, which
-- lunavisor.svd catches.

local M = {}

local BYTES_MOST, PIECE = 2 ^ 26, 2 ^ 16
local DEPTH_MOST, ELEMENTS_MOST, TEXT_MOST = 64, 2 ^ 20, 2 ^ 16

--- Raises for what is in the way at an element or a line of the file.
function M.fail(file, where, form, ...)
  local line = type(where) == "table" and where.line or where
  error({ svd = ("%s:%d: %s"):format(file, line, form:format(...)) }, 0)
end

-- What LuaExpat calls: elements come to be { tag, line, text, [1...] }, with derivedFrom of the
-- attributes, which is the only one that SVD files need.
local function callbacks_of(state)
  local stack = state.stack
  local function refuse(parser, form, ...)
    state.line, state.problem = parser:pos(), form:format(...)
    parser:stop()
  end
  return {
    StartElement = function(parser, tag, attributes)
      if #stack >= DEPTH_MOST then
        return refuse(parser, "<%s> is the %dth element within another: at most %d expected",
          tag:sub(1, 40), #stack + 1, DEPTH_MOST)
      end
      state.elements = state.elements + 1
      if state.elements > ELEMENTS_MOST then
        return refuse(parser, "more than %d elements", ELEMENTS_MOST)
      end
      local node, parent = { tag = tag, line = (parser:pos()), from = attributes.derivedFrom },
        stack[#stack]
      node.parent = parent
      if parent then parent[#parent + 1] = node else state.root = node end
      stack[#stack + 1] = node
    end,
    EndElement = function()
      local node = stack[#stack]
      node.text = node.pieces and table.concat(node.pieces) or node.text
      node.pieces = nil
      stack[#stack] = nil
    end,
    CharacterData = function(parser, text)
      local node = stack[#stack]
      if node[1] or not node.text and not text:find "%S" then return end
      node.bytes = (node.bytes or 0) + #text
      if node.bytes > TEXT_MOST then
        refuse(parser, "<%s> has more than %d bytes of text", node.tag:sub(1, 40), TEXT_MOST)
      elseif not node.text then
        node.text = text
      else
        node.pieces = node.pieces or { node.text }
        node.pieces[#node.pieces + 1] = text
      end
    end,
    StartDoctypeDecl = function(parser)
      refuse(parser, "a document type declaration, where none is expected: entities of a file's "
        .. "own are not read")
    end,
  }
end

local function check(file, state, parser, ok, message, line)
  if ok then return end
  if not state.problem then
    state.line, state.problem = line or parser:pos(), "not well-formed XML: " .. tostring(message)
  end
  pcall(parser.close, parser) -- which raises where the file is cut
  M.fail(file, state.line, "%s", state.problem)
end

--- The root of the tree that a file is; nil and a message where it cannot be read at all.
function M.read(path)
  local loaded, lxp = pcall(require, "lxp")
  if not loaded then return nil, "this Lua has no LuaExpat (Debian: apt-get install lua-expat)" end
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local state, total = { stack = {}, elements = 0 }, 0
  local parser = lxp.new(callbacks_of(state), nil, false)
  local piece = file:read(PIECE)
  while piece do
    total = total + #piece
    if total > BYTES_MOST then
      file:close()
      pcall(parser.close, parser)
      return nil, ("%s: more than %d bytes"):format(path, BYTES_MOST)
    end
    local ok, problem, line = parser:parse(piece)
    if not ok then file:close() end
    check(path, state, parser, ok, problem, line)
    piece, message = file:read(PIECE)
  end
  file:close()
  if message then return nil, message end
  check(path, state, parser, parser:parse())
  parser:close()
  return state.root
end

return M
