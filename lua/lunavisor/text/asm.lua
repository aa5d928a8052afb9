-- SPDX-License-Identifier: MIT
-- Machine code from assembly source, through nasm.

local check = require "lunavisor.check"

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

-- nasm names the temporary file and its line; the two lines in front of the source are ours.
local function explain(messages, path, prefix_lines)
  messages = messages:gsub("[^\n]*", function(line)
    if line:sub(1, #path) ~= path then return nil end
    return (line:sub(#path + 1):gsub("^:(%d+):", function(number)
      return ("line %d:"):format(tonumber(number) - prefix_lines)
    end))
  end)
  return (messages:gsub("%s+$", ""))
end

--- The bytes of assembly source in nasm's syntax. options.bits: 16, 32 or 64 (the source may say so
--- itself; 16 where neither does); options.org: the address it will be at, 0 by default. An error
--- in the source raises with nasm's messages and line numbers; nil, message, "not_found" where nasm
--- is not installed.
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
  local path = os.tmpname()
  local output, log = path .. ".bin", path .. ".log"
  local prefix = ("bits %d\norg 0x%x\n"):format(bits, org)
  local wrote, message = write_file(path, prefix .. source .. "\n")
  local _, refusal
  if wrote then
    _, refusal = os.execute(("nasm -f bin -o %s %s >%s 2>&1")
      :format(quote(output), quote(path), quote(log)))
  end
  -- What nasm has written tells how it went: its status cannot be had where SIGCHLD is ignored.
  local code, messages = read_file(output), read_file(log)
  os.remove(path)
  os.remove(output)
  os.remove(log)
  if not wrote then return nil, "luna.asm: cannot write a temporary file: " .. message, "system" end
  if code then return code end
  if not messages then
    return nil, ("luna.asm: cannot run a shell: %s"):format(refusal or "there is none"), "system"
  end
  if messages:find("not found", 1, true) and not messages:find(path, 1, true) then
    return nil, "luna.asm: nasm is not installed; install the package 'nasm'", "not_found"
  end
  error("luna.asm: nasm refuses the source\n" .. explain(messages, path, 2), 2)
end
