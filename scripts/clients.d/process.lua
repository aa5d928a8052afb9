-- SPDX-License-Identifier: MIT
-- What clients have in common: files of Debian's packages, wherever these were unpacked, and a
-- program that is run for its output and its time.

local M = {}

function M.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

function M.read_line(command)
  local pipe = io.popen(command)
  local line = pipe:read "*l"
  pipe:close()
  return line
end

--- The bytes of a file; "" where there is none.
function M.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text
end

--- The path of a new file with these bytes.
function M.make_file(bytes)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

local function exists(path)
  local file = path and io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- Where `scripts/setup clients` unpacks packages.
local UNPACKED = debug.getinfo(1, "S").source:match "^@(.*)scripts/clients%.d/" .. "build/clients"

--- The newest file of that pattern of the shell, in the directories of LUNA_CLIENTS, with ':'
--- between them, in which packages were unpacked (dpkg -x), in that of `scripts/setup clients`, or
--- in the root; nil.
function M.find(pattern)
  local places = { os.getenv "LUNA_CLIENTS" or "", UNPACKED, "/" }
  for root in table.concat(places, ":"):gmatch "[^:]+" do
    local path = M.read_line(("ls -d %s/%s 2>/dev/null | sort -V | tail -n 1"):format(
      M.quote(root:gsub("/$", "")), pattern))
    if exists(path) then return path end
  end
end

--- The first that is missing of a list of { pattern, package }, as a sentence; nil.
function M.missing(list)
  for _, one in ipairs(list) do
    if not M.find(one[1]) then
      return ("there is no /%s, of the package %s: scripts/setup clients gets it, or LUNA_CLIENTS "
        .. "says where it was unpacked"):format(one[1], one[2])
    end
  end
end

function M.has_qemu()
  return M.read_line "command -v qemu-system-x86_64" ~= nil
end

--- Runs a command, which is ended after so many seconds: its output, its status (124 where the time
--- was up), how long it took, and how much of a processor's time.
function M.run(command, seconds)
  local script = ("TIMEFORMAT='times %%R %%U %%S'; time { timeout -k 2 %d %s 2>&1; "
    .. "status=$?; echo; echo status $status; }"):format(seconds, command)
  local pipe = io.popen(("bash -c %s </dev/null 2>&1"):format(M.quote(script)))
  local text = pipe:read "*a":gsub("\r", "")
  pipe:close()
  local status, real, user, system =
    text:match "\nstatus (%d+)\n+times ([%d.]+) ([%d.]+) ([%d.]+)\n$"
  text = text:gsub("\nstatus %d+\n+times [^\n]*\n$", "")
  return text, tonumber(status), tonumber(real or 0), tonumber(user or 0) + tonumber(system or 0)
end

--- What a run is worth, as scripts/clients takes it: `checks` are patterns that its output has to
--- have, each of which counts; it passes with all of them.
function M.judge(checks, text, status, seconds)
  local result = { passed = 0, failed = 0, skipped = 0, seconds = seconds, text = text }
  for _, check in ipairs(checks) do
    local kind = text:find(check) and "passed" or "failed"
    result[kind] = result[kind] + 1
  end
  result.verdict = result.failed == 0 and "PASS" or status == 124 and "TIME" or "FAIL"
  return result
end

return M
