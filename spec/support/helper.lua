-- SPDX-License-Identifier: MIT
-- What the specs share: the gate for tests that need KVM, a guest in one call, the clean-up after
-- each test, checks of errors, and child processes.

local assert = require "luassert"
local busted = require "busted"
local files = require "spec.support.files"
local luna = require "lunavisor"

local helper = {}

helper.jit = rawget(_G, "jit") ~= nil
helper.engine = helper.jit and (os.getenv "LUAJIT" or "luajit") or (os.getenv "LUA" or "lua5.4")
helper.other_engine = helper.jit and (os.getenv "LUA" or "lua5.4")
  or (os.getenv "LUAJIT" or "luajit")
--- The collector is always at work (stress.lua), and Lua slow.
helper.stressed = (os.getenv "LUNA_GC_STRESS" or "") ~= ""

--- Whether this process runs under the address sanitizer.
helper.sanitized = (os.getenv "LD_PRELOAD" or ""):find "asan" ~= nil

-- No guest of the specs has this much to do, even one that is emulated on a loaded machine.
local TIMEOUT = 60

-- ---- Clean-up ----

local kept = {}

--- Remembers a handle, which must be there, so that it is closed after the test. Returns it.
function helper.keep(handle, message)
  assert(handle, message)
  kept[#kept + 1] = handle
  return handle
end

local NONE = { vm = 0, space = 0, buffer = 0, vcpu = 0 }

local function nothing_lives()
  for _, count in pairs(luna.live()) do
    if count > 0 then return false end
  end
  return true
end

--- Closes what is kept; then no object of the library may be left, but garbage, which is collected:
--- only if there is some, as it takes longer than most tests.
function helper.clean()
  for i = #kept, 1, -1 do
    kept[i]:close()
    kept[i] = nil
  end
  if nothing_lives() then return end
  collectgarbage()
  collectgarbage()
  if helper.jit and not nothing_lives() then
    jit.flush() -- compiled code holds what was constant in it
    collectgarbage()
    collectgarbage()
  end
  assert.same(NONE, luna.live())
end

-- ---- Blocks ----

--- A describe block after whose tests nothing of the library is left.
function helper.block(name, body)
  busted.describe(name, function()
    busted.after_each(helper.clean)
    body()
  end)
end

--- The same for tests that run guests. Left out where this host has no usable KVM, unless
--- LUNA_REQUIRE_KVM=1: then it fails.
function helper.kvm(name, body)
  local probe = luna.probe()
  if probe.available then return helper.block(name .. " #kvm", body) end
  local reason = "KVM is not usable: " .. probe.message
  busted.describe(name .. " #kvm", function()
    if os.getenv "LUNA_REQUIRE_KVM" == "1" then
      busted.it("runs guests", function() error(reason, 0) end)
    else
      busted.pending("runs guests: " .. reason)
    end
  end)
end

-- ---- Guests ----

local Guest = {}
Guest.__index = Guest

--- Runs the guest. Without a timeout of the test's own, one that does not stop is an error.
function Guest.run(self, options)
  local all = { timeout = TIMEOUT }
  for name, value in pairs(options or {}) do all[name] = value end
  local exit, message, code = self.cpu:run(all)
  local meant = options and (options.timeout or options.deadline)
  if exit and exit.kind == "timeout" and not meant then
    error("the guest does not stop: " .. tostring(exit), 2)
  end
  return exit, message, code
end

--- Runs the guest, which must stop with an exit of the kind. Returns the exit.
function Guest.stops(self, kind, options)
  local exit = assert(self:run(options))
  if exit.kind ~= kind then
    error(("exit %s expected, got %s"):format(kind, tostring(exit)), 2)
  end
  return exit
end

--- Runs the guest, which goes on for ever, until done() is true, however little time the machine
--- has for it, and a moment longer, for what is not to come.
function Guest.settles(self, done)
  helper.within(function()
    self:stops("timeout", { timeout = 0.02 })
    return done()
  end)
  self:stops("timeout", { timeout = 0.02 })
end

local default_bits = { reset = 16, real = 16, protected = 32, long = 64, user = 64 }

--- Machine code at an address; nasm must be there.
function helper.code(source, bits, org)
  return (assert(luna.asm(source, { bits = bits, org = org })))
end

--- A guest: .vm, .ram (`size`, "1M" by default, mapped at 0), .cpu in `mode` ("real" by default),
--- which begins at `org` (0x1000 by default) with the assembled `source`. options.vm: luna.vm's.
function helper.guest(options)
  local mode, org = options.mode or "real", options.org or 0x1000
  local vm = helper.keep(luna.vm(options.vm))
  local ram = helper.keep(luna.buffer(options.size or "1M"))
  assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
  ram:write(org, helper.code(options.source, options.bits or default_bits[mode], org))
  local cpu = helper.keep(vm:vcpu {
    mode = mode, rip = org, rsp = options.rsp or 0x8000, system = options.system,
    wait = options.wait,
  })
  return setmetatable({ vm = vm, ram = ram, cpu = cpu }, Guest)
end

--- A further vCPU of the guest's VM, in a loop at 0x8000, so that the first is not the only one.
function helper.spinner(guest)
  guest.ram:write(0x8000, "\235\254") -- jmp $
  return helper.keep(guest.vm:vcpu { rip = 0x8000 })
end

--- Runs a guest that must fail with an error; returns the message.
function helper.fails(guest)
  local ok, message = pcall(guest.run, guest)
  assert.is_false(ok, "no error")
  return message
end

--- A device that notes every access in the list device.log: "w OFFSET SIZE VALUE" or
--- "r OFFSET SIZE". Reads give the values of the list, one after the other.
function helper.recorder(values)
  local device = { log = {} }
  function device:write(offset, size, value)
    self.log[#self.log + 1] = ("w %x %d %s"):format(offset, size, luna.hex(value))
  end
  function device:read(offset, size)
    self.log[#self.log + 1] = ("r %x %d"):format(offset, size)
    return table.remove(values, 1)
  end
  return device
end

--- Calls fn until it returns true, which it has to do within a minute.
function helper.within(fn)
  local finish = luna.clock() + 60
  while not fn() do
    if luna.clock() > finish then error("it has not come about in a minute", 2) end
  end
end

-- ---- Errors ----

local function contains(text, part)
  assert.equal("string", type(text))
  if not text:find(part, 1, true) then
    error(("%q expected in:\n%s"):format(part, text), 3)
  end
end

--- Checks that a text has a part, literally.
function helper.contains(part, text)
  contains(text, part)
end

--- What a call fails with: its message, also where that is an object of luassert's.
function helper.said(fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then error("it does not fail", 2) end
  return type(message) == "table" and tostring(message.message) or tostring(message)
end

--- Checks that fn raises a message that has the text, and that the message blames a line of fn.
function helper.raises(text, fn)
  local ok, message = pcall(fn)
  if ok then error(("no error, %q expected"):format(text), 2) end
  contains(message, text)
  local info = debug.getinfo(fn, "S")
  local begin = info.short_src .. ":"
  local line = message:sub(1, #begin) == begin and tonumber(message:match("^%d+", #begin + 1))
  if not line or line < info.linedefined or line > info.lastlinedefined then
    error(("%s:%d expected to be blamed in:\n%s")
      :format(info.short_src, info.linedefined, message), 2)
  end
end

--- Checks the results nil, message, code.
function helper.refused(code, text, value, message, found)
  assert.is_nil(value)
  contains(message, text)
  assert.equal(code, found)
end

-- ---- Processes ----

local function read_all(pipe)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

--- How many file descriptors this process has open.
function helper.descriptors()
  local stat = assert(io.open "/proc/self/stat")
  local pid = stat:read "*n"
  stat:close()
  -- The pipe itself is one of them, and for a moment, until popen has closed it, its other end.
  return tonumber(read_all(io.popen(("sleep 0.02; ls /proc/%d/fd | wc -l"):format(pid)))) - 1
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Runs a shell command, for five minutes or so many seconds at most; returns what it printed,
--- errors too, and its exit status.
function helper.sh(command, seconds)
  local text = read_all(assert(io.popen(("timeout -k 5 %d sh -c %s </dev/null 2>&1; echo $?")
    :format(seconds or 300, quote(command)))))
  local output, status = text:match "^(.-)\n?(%d+)\n$"
  return output, tonumber(status)
end

--- The path of a file with that text, which is removed after the test.
function helper.file(text)
  local path = os.tmpname()
  files.write(path, text)
  helper.keep { close = function() os.remove(path) end }
  return path
end

local function setting(name, value)
  return name .. "=" .. quote(value)
end

--- The shell's words for a program that is not this library's: without the sanitizer that Lua has
--- to load first, as gdb does not start with it.
function helper.program(name)
  return "env -u LD_PRELOAD " .. name
end

--- The shell's words for running a Lua file in a process of its own with the library of this one.
--- options.engine: an interpreter, this one's by default; options.env: variables to set.
function helper.command(path, options)
  options = options or {}
  local words = {
    "env", setting("LUA_PATH", package.path), setting("LUA_CPATH", package.cpath),
  }
  for _, name in ipairs { "LD_PRELOAD", "ASAN_OPTIONS" } do -- whoever starts it may not have them
    local value = os.getenv(name)
    if value then words[#words + 1] = setting(name, value) end
  end
  for name, value in pairs(options.env or {}) do words[#words + 1] = setting(name, value) end
  local engine = options.engine or helper.engine
  words[#words + 1] = ("\"$(command -v %s)\" %s"):format(engine, quote(path))
  return table.concat(words, " ")
end

--- Runs a Lua script that way and returns what it prints.
function helper.child(script, options)
  local output, status = helper.sh(helper.command(helper.file(script), options))
  if status ~= 0 then error(("it ended with %d:\n%s"):format(status, output), 2) end
  return output
end

--- Runs a Lua script that way and sends it SIGINT so many seconds after it has said "running";
--- returns what it prints.
function helper.interrupt(script, seconds)
  local said = helper.file ""
  return (helper.sh(([[%s >%s 2>&1 & pid=$!
    until grep -q running %s || ! kill -0 $pid; do sleep 0.02; done
    sleep %s; kill -INT $pid; wait $pid; cat %s]])
    :format(helper.command(helper.file(script)), said, said, seconds, said)))
end

return helper
