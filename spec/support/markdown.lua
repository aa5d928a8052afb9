-- SPDX-License-Identifier: MIT
-- What is in the project's pages: their blocks of Lua, C, sh and text, their links and headings.

local files = require "spec.support.files"

local markdown = {}

--- The paths of all pages, sorted.
function markdown.pages()
  local pipe = assert(io.popen "find * -name build -prune -o -name '*.md' -print")
  local paths = {}
  for path in pipe:lines() do paths[#paths + 1] = path end
  pipe:close()
  table.sort(paths)
  return paths
end

--- The anchor that a heading gets: lower case, without punctuation, "-" for spaces.
local function anchor(heading)
  return (heading:lower():gsub("[^%w _-]", ""):gsub(" ", "-"))
end

--- A page: .path, .text, .lines (how many), .headings, .anchors (a set), .links, and .blocks in
--- their order. A block has .language, .text, .line, .heading, .name, and .needs where the line
--- above it is a comment: <!-- needs: feature -->.
function markdown.page(path)
  local page = { path = path, text = files.read(path), lines = 0, headings = {}, anchors = {},
    links = {}, blocks = {} }
  local heading, block, needs = "beginning", nil, nil
  for line in page.text:gmatch "([^\n]*)\n" do
    page.lines = page.lines + 1
    local fence = line:match "^```(.*)"
    if block and fence == "" then
      page.blocks[#page.blocks + 1] = block
      block = nil
    elseif block then
      block.text = block.text .. line .. "\n"
    elseif fence then
      block = { language = fence, text = "", line = page.lines, heading = heading, needs = needs,
        name = ("%s:%d, %s"):format(path, page.lines, heading) }
    else
      heading = line:match "^#+ (.*)" or heading
      if line:match "^#" then
        page.headings[#page.headings + 1] = heading
        page.anchors[anchor(heading)] = true
      end
      for target in line:gsub("`[^`]*`", ""):gmatch "%]%(([^)]+)%)" do
        page.links[#page.links + 1] = target
      end
      needs = line:match "^<!%-%- needs: ([%w_]+) %-%->$"
    end
  end
  assert(not block, path .. ": a block without an end")
  return page
end

return markdown
