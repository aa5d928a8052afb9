-- SPDX-License-Identifier: MIT
-- Machine code from assembly source, and where its labels are, through nasm.

local check = require "lunavisor.check"
local symbols = require "lunavisor.text.symbols"

local known = { bits = true, org = true }

local function write_file(path, data)
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  file:write(data)
  return file:close()
end

-- nil where there is none.
local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local data = file:read "*a"
  file:close()
  return data
end

local function quote(path)
  return "'" .. path:gsub("'", "'\\''") .. "'"
end

local function lines_of(source)
  local lines = {}
  for line in (source .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

-- nasm names the temporary file and its line; the lines in front of the source are ours. Behind
-- each message comes what is in that line.
local function explain(messages, path, source, prefix_lines)
  local lines = lines_of(source)
  messages = messages:gsub("[^\n]*", function(line)
    local number, text
    if line:sub(1, #path) == path then number, text = line:sub(#path + 1):match "^:(%d+):(.*)$" end
    if not number then return nil end
    number = tonumber(number) - prefix_lines
    local shown = (lines[number] or ""):gsub("^%s+", ""):gsub("%s+$", "")
    return ("line %d:%s%s"):format(number, text, shown ~= "" and "\n    " .. shown or "")
  end)
  return (messages:gsub("%s+$", ""))
end

-- The labels of nasm's map of symbols: of each section, not those that macros make.
local function labels_of(map)
  local list, inside = {}, false
  for line in (map or ""):gmatch "[^\n]+" do
    if line:match "^%-%-%-%- " then inside = line:match "^%-%-%-%- Section " ~= nil end
    local address, name = line:match "^ *%x+ +(%x+)  (%S+)$"
    if inside and address and name:sub(1, 3) ~= "..@" then
      address = ("0"):rep(16 - #address) .. address
      list[#list + 1] = { name, tonumber(address:sub(1, 8), 16), tonumber(address:sub(9), 16) }
    end
  end
  return symbols.new(list)
end

--- The bytes of assembly source in nasm's syntax. options.bits: 16, 32 or 64 (the source may say so
--- itself; 16 where neither does); options.org: the address it will be at, 0 by default. An error
--- in the source raises with nasm's messages and lines; nil, message, "not_found" where nasm is not
--- installed. Returns the labels too, as symbols: labels.start is the address of start, and
--- labels["start.loop"] that of a local one.
return function(source, options)
  options = check.options("luna.asm", options, known)
  if type(source) ~= "string" then
    error(("luna.asm: the source, a string, expected, got %s"):format(type(source)), 2)
  end
  local bits = options.bits or 16
  if bits ~= 16 and bits ~= 32 and bits ~= 64 then
    error(("luna.asm: bits: 16, 32 or 64 expected, got %s"):format(tostring(bits)), 2)
  end
  local org = check.whole("luna.asm: org", options.org or 0, 0)
  local made, path = pcall(os.tmpname)
  if not made then return nil, "luna.asm: cannot make a temporary file: " .. path, "system" end
  local output, log, map = path .. ".bin", path .. ".log", path .. ".map"
  local prefix = ("bits %d\norg 0x%x\n[map symbols %s]\n"):format(bits, org, map)
  local wrote, message = write_file(path, prefix .. source .. "\n")
  local _, refusal
  if wrote then
    _, refusal = os.execute(("LC_ALL=C; export LC_ALL; nasm -f bin -o %s %s >%s 2>&1")
      :format(quote(output), quote(path), quote(log)))
  end
  -- What nasm has written tells how it went: its status cannot be had where SIGCHLD is ignored.
  local code, messages, names = read_file(output), read_file(log), read_file(map)
  os.remove(path)
  os.remove(output)
  os.remove(log)
  os.remove(map)
  if not wrote then return nil, "luna.asm: cannot write a temporary file: " .. message, "system" end
  if code then return code, labels_of(names) end
  if not messages then
    return nil, ("luna.asm: cannot run a shell: %s"):format(refusal or "there is none"), "system"
  end
  if messages:find("not found", 1, true) and not messages:find(path, 1, true) then
    return nil, "luna.asm: nasm is not installed; install the package 'nasm'", "not_found"
  end
  error("luna.asm: nasm refuses the source\n" .. explain(messages, path, source, 3), 2)
end
