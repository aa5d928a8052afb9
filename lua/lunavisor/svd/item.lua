-- SPDX-License-Identifier: MIT
-- What the parts of a peripheral of an SVD file have in common: notes, descriptions, and the parts
-- in them. `self` is the peripheral (peripheral.lua).

local M = {}

local DOC_MOST = 72 -- bytes of a description that a table has

--- Notes something that a device's table cannot say; returns the text.
function M.note(self, node, where, form, ...)
  local text = form:format(...)
  self.notes[#self.notes + 1] = { line = node.line, where = where, text = text }
  return text
end

--- A function(node, text) that notes what is left out, for the head of the table too.
function M.complainer(self, where)
  return function(node, text)
    self.remarks[#self.remarks + 1] = M.note(self, node, where, "%s", text)
  end
end

--- The description of an element, cut short; nil where it has none.
function M.doc(self, node)
  local text = self.tree:text(node, "description")
  if text and #text > DOC_MOST then
    text = text:sub(1, DOC_MOST):gsub("[\128-\255]+$", ""):gsub("%s*%S*$", "") .. " ..."
  end
  return text
end

--- The elements with these tags in an element, and those of what it is derived from that it has not
--- itself.
function M.of(self, node, holder, tags)
  local list, seen = {}, {}
  local at = node
  while at do
    local inner = at
    if holder then
      inner = nil
      for _, child in ipairs(at) do
        if child.tag == holder then inner = child break end
      end
    end
    for _, child in ipairs(inner or {}) do
      self.budget:take(child, 1)
      if tags[child.tag] then
        local name = self.tree:name(child)
        seen[name] = seen[name] or at
        if seen[name] == at then list[#list + 1] = child end
      end
    end
    at = at.base
  end
  return list
end

return M
