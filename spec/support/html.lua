-- SPDX-License-Identifier: MIT
-- Whether a page is well-formed, and needs nothing but itself.

local M = {}

local VOID = { meta = true, img = true }

--- Raises where elements are not closed in their order, an attribute has no quotes, bytes are not
--- those of a text, or something outside of the page is named.
function M.check(text)
  assert(text:find "^<!DOCTYPE html>\n", "no document type")
  local body = text:gsub("^<![^>]*>", ""):gsub("<style>.-</style>", "")
  local open = {}
  for slash, name, rest in body:gmatch "<(/?)([^%s>/]*)([^>]*)>" do
    assert(name:find "^%l[%l%d]*$", "an element is called " .. name)
    local attributes = rest:gsub('[%w-:]+="[^"<]*"', "")
    assert(attributes:find "^%s*/?$", ("<%s%s>"):format(name, rest))
    if slash == "/" then
      assert(table.remove(open) == name, ("</%s> closes something else"):format(name))
    elseif not VOID[name] and not rest:find "/$" then
      open[#open + 1] = name
    end
  end
  assert(#open == 0, "not closed: " .. table.concat(open, " "))
  assert(not body:gsub("<[^>]*>", ""):find "[<>]", "a bare < or >")
  assert(not text:find "[%z\1-\8\11-\31\127]", "a control character")
  for what in text:gmatch '[%s"](%a+)="' do
    assert(what ~= "href" and not what:find "^on", what .. " is an attribute")
  end
  for source in text:gmatch 'src="([^"]*)"' do
    assert(source:find "^data:image/png;base64,[%w+/]+=*$", "a picture elsewhere")
  end
  assert(not text:find("url(", 1, true) and not text:find("@import", 1, true), "a style elsewhere")
end

--- What a page of luna report has of a console that has this text.
function M.console(name, text)
  return ("<small>what was written to %s</small></h3>\n"
    .. '<div class="scroll"><pre class="console">%s</pre>'):format(name, text)
end

return M
