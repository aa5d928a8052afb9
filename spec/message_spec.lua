-- SPDX-License-Identifier: MIT
-- The list of messages (support/messages/) is what misuse gives, word for word and at the caller's
-- line; and no message that the shared layer raises at a caller is missing from it.

local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local build = require "spec.support.misuse_objects"

-- The messages of every subject, each with what brings it about.
local function messages(o)
  local list = {}
  for subject in ("vcpu vm memory module state load machine process"):gmatch "%l+" do
    for _, entry in ipairs(require("spec.support.messages." .. subject)(o)) do
      list[#list + 1] = entry
    end
  end
  return list
end

-- Whose messages are about what a handler, a device or a test has, or have those of nasm in them:
-- they have specs of their own.
local elsewhere = {
  "exit/dispatch.lua", "exit/block.lua", "text/asm.lua", "lunavisor/device/", "lunavisor/testing/",
  "vm/attach.lua", "vm/view.lua", "vm/watch.lua", "vm/record.lua", "vm/replace.lua",
  "exit/unowned.lua", "process/call.lua", "program/watching.lua",
  "repl/command", "repl/session.lua", "repl/json.lua",
}

-- The first literal of each error() in a source, as a pattern.
local function raised(source)
  local list = {}
  for rest in source:gmatch "%f[%w_]error%s*(%b())" do
    local text = {}
    local head = rest:sub(2):gsub("^%s*%(", ""):gsub("^%s*[%w_%.]+%s*%.%.%s*", "")
    while true do
      local literal, tail = head:match '^%s*%.?%.?%s*"(.-[^\\])"(.*)$'
      if not literal then break end
      text[#text + 1], head = literal, tail
    end
    if #text > 0 then list[#list + 1] = table.concat(text) end
  end
  return list
end

local function pattern_of(format)
  format = format:gsub("\\n.*", ""):gsub('\\"', '"')
  local parts = {}
  for plain, verb in (format .. "%0x"):gmatch "(.-)(%%%-?[%d.]*%a)" do
    parts[#parts + 1] = plain:gsub("%p", "%%%0") .. (verb ~= "%0x" and ".-" or "")
  end
  return table.concat(parts)
end

local function is_elsewhere(path)
  for _, part in ipairs(elsewhere) do
    if path:find(part, 1, true) then return true end
  end
  return path:find "/hv" or path:find "/meta/" or path:find "/binding/"
end

helper.kvm("every message", function()
  it("is what the list says, at the caller's line", function()
    local world, list
    local function begin()
      if world then world.close() end
      helper.clean()
      world = build(luna)
      list = messages(world)
    end
    local function what_comes(i)
      local fn = list[i][2]
      local ok, message = pcall(fn)
      local place = debug.getinfo(fn, "S").short_src .. ":"
      if ok or message:sub(1, #place) ~= place then return message or "no error" end
      return (message:sub(#place + 1):gsub("^%d+: ", ""))
    end
    begin()
    assert.is_true(#list > 200)
    for i = 1, #list do
      -- What came before may have left the objects in another state.
      if what_comes(i) ~= list[i][1] then
        begin()
        assert.equal(list[i][1], what_comes(i))
      end
    end
    world.close()
    helper.clean()
  end)

  it("says no word twice", function()
    for _, entry in ipairs(messages(build(luna))) do
      local before
      for word in entry[1]:gmatch "%f[%w_]%a[%w_]*" do
        assert.are_not.equal(before, word, entry[1])
        before = #word > 1 and word or nil
      end
    end
  end)

  it("that the shared layer raises is in the list", function()
    local texts, missing = {}, {}
    for i, entry in ipairs(messages(build(luna))) do texts[i] = entry[1] end
    local all = table.concat(texts, "\n")
    for path in helper.sh("find lua/lunavisor -name '*.lua'"):gmatch "[^\n]+" do
      if not is_elsewhere(path) then
        for _, format in ipairs(raised(files.read(path))) do
          if not all:find(pattern_of(format)) then
            missing[#missing + 1] = path .. ": " .. format
          end
        end
      end
    end
    assert.equal("", table.concat(missing, "\n"))
  end)
end)
