-- SPDX-License-Identifier: MIT
-- GNU parallel, which runs the units of a sweep: here, or on other machines over ssh.
--
-- A shell starts it and waits for it, and has the directory's lock for as long. Its output, which
-- is that of whole units, goes to a file and not through this process: where this is killed,
-- nothing is lost, and the ticker of the shell, which sees that nobody listens, ends parallel.

local plan = require "lunavisor.sweep.plan"

local M = {}

local ATTEMPTS = 3 -- of a unit whose host went away

-- The shell's lines are "tick", and at last "end STATUS"; or, before it has begun, "none" where
-- there is no parallel, and "busy PID" where another one runs.
local SCRIPT = [[
case $(parallel --version 2>/dev/null) in "GNU parallel"*) ;; *) echo none; exit ;; esac
exec 9>>%(lock)
if command -v flock >/dev/null && ! flock -n 9; then
  echo "busy $(cat %(lock))"
  exit
fi
echo $$ >%(lock)
exec 2>>%(log)
trap : INT
parallel --plain %(options) luna sweep --do {} </dev/null >>%(output) 2>>%(log) 9>&- &
parallel=$!
trap 'kill -TERM $parallel 2>/dev/null' TERM HUP
(
  trap '' PIPE INT TERM
  while kill -0 $parallel 2>/dev/null && echo tick; do sleep 0.5; done
  # It takes no signal before its first unit.
  while kill -TERM $parallel 2>/dev/null; do sleep 2; done
) 2>/dev/null 9>&- &
ticker=$!
while :; do
  wait $parallel
  status=$?
  kill -0 $parallel 2>/dev/null || break
done
kill -9 $ticker 2>/dev/null
echo "end $status"
]]

local function is_file(path)
  local file = io.open(path, "rb")
  if not file then return false end
  local ok = file:read(0) ~= nil
  file:close()
  return ok
end

-- What parallel is told. options: jobs, timeout, on (hosts).
local function options_of(store, options)
  local words = { "--joblog", plan.quote(store:path "joblog"), "--arg-file",
    plan.quote(store:path "units") }
  local function add(...)
    for _, word in ipairs { ... } do words[#words + 1] = word end
  end
  if options.jobs then add("--jobs", ("%d"):format(options.jobs)) end
  if options.timeout then add("--timeout", ("%.14g"):format(options.timeout)) end
  if options.on then
    add(is_file(options.on) and "--sshloginfile" or "--sshlogin", plan.quote(options.on),
      "--workdir", ".", "--retries", ATTEMPTS)
  end
  return table.concat(words, " ")
end

-- Where this program is, so that units here run the same.
local function environment()
  local program = os.getenv "LUNA_PROGRAM"
  local place = program and program:match "^(.*)/[^/]*$"
  return "export PARALLEL_SHELL=/bin/sh"
    .. (place and ("\nPATH=%s:$PATH\nexport PATH"):format(plan.quote(place)) or "") .. "\n"
end

local Run = {}
Run.__index = Run

--- Starts the units, a list of their words.
function M.start(store, words, options)
  local ok, problem = store:write("units", table.concat(words, "\n") .. "\n")
  if not ok then return nil, problem end
  local fills = { options = options_of(store, options) }
  for _, name in ipairs { "lock", "output", "log" } do
    fills[name] = plan.quote(store:path(name))
  end
  local script = environment() .. SCRIPT:gsub("%%%((%l+)%)", fills)
  return setmetatable({ pipe = assert(io.popen(script)), store = store }, Run)
end

--- Waits for the next thing to be told: "tick"; "end", status; "none"; "busy", the process. nil
--- where the shell was killed.
function Run.next(self)
  local line = self.pipe:read "*l"
  if not line then return nil end
  local what, number = line:match "^(%l+) ?(%d*)$"
  return what, tonumber(number)
end

--- Ends what runs: what has not ended by itself is no more.
function Run.stop(self)
  local text = plan.read_file(self.store:path "lock")
  local pid = text and text:match "(%d+)%s*$"
  if pid then os.execute("kill -TERM " .. pid .. " 2>/dev/null") end
end

function Run.close(self) self.pipe:close() end

-- ---- What became of units that have no line ----

local NAMES = { [1] = "SIGHUP", [2] = "SIGINT", [6] = "SIGABRT", [7] = "SIGBUS", [9] = "SIGKILL",
  [11] = "SIGSEGV", [15] = "SIGTERM" }

local function line_of(status, signal, seconds, host, timeout)
  if status == -1 then
    return { status = 124, seconds = seconds, error = ("not done within %.14g s"):format(timeout) }
  end
  if status > 128 and status < 160 then signal = status - 128 end -- as a shell tells it
  if signal > 0 then
    return { status = 128 + signal, seconds = seconds,
      error = "killed by " .. (NAMES[signal] or "signal " .. signal) }
  end
  local where = host ~= ":" and " on " .. host or ""
  return { status = status, seconds = seconds,
    error = ("it ended with status %d and no result%s: the log may tell"):format(status, where) }
end

--- Lines for those of the units, in the order in which they were started, that have ended without
--- one, by unit.
function Run.cut(self, units, timeout)
  local found, text = {}, plan.read_file(self.store:path "joblog") or ""
  for seq, host, seconds, status, signal in
    text:gmatch "\n(%d+)\t([^\t]*)\t[^\t]*\t *([%d.]+)\t[^\t]*\t[^\t]*\t(-?%d+)\t(%d+)\t" do
    local unit = units[tonumber(seq)]
    if unit and not self.store.lines[unit] then
      found[unit] = line_of(tonumber(status), tonumber(signal), tonumber(seconds), host,
        timeout or 0)
    end
  end
  return found
end

return M
