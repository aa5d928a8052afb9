-- SPDX-License-Identifier: MIT
-- The prompt for programs: lines of JSON on a Unix socket; and JSON itself.

local uv = require "spec.support.luv"
local helper = require "spec.support.helper"
local json = require "lunavisor.repl.json"
local luna = require "lunavisor"
local sessions = require "lunavisor.repl.session"
local sockets = require "lunavisor.repl.socket"

local contains = helper.contains

describe("JSON", function()
  it("is read as it was written", function()
    local value = { id = 1, line = 'a"\\\n\t\1', list = { 1, -2.5, true, false, "x" }, empty = {} }
    local text = json.line(value)
    assert.falsy(text:find "\n")
    assert.same(value, json.decode(text))
  end)

  it("has all that the standard has", function()
    assert.same({ a = { b = { 1, 2 } } }, json.decode ' { "a" : { "b" : [ 1 , 2 ] , "c": null } } ')
    assert.equal("é€𝄞/\b\f\r", json.decode [["\u00e9\u20ac\ud834\udd1e\/\b\f\r"]])
    assert.equal(1.5e3, json.decode "1.5e3")
    assert.is_nil(json.decode "null")
  end)

  it("is refused where it is none", function()
    for text, problem in pairs {
      ["{"] = "a name in quotes expected at byte 2", ['{"a"}'] = "a colon expected at byte 5",
      ["[1 2]"] = "a comma or ] expected at byte 4", ['"a'] = "the end of a string",
      ['"\\q"'] = "an escape", ['"\\u12"'] = "four digits", ["1 2"] = "the end expected at byte 3",
      [""] = "a value expected at byte 1", [("["):rep(200)] = "less depth", ["-"] = "a value",
    } do
      local ok, message = pcall(json.decode, text)
      assert.is_false(ok, text)
      contains("JSON: ", message)
      contains(problem, message)
    end
  end)
end)

-- A client in this process.
local Client = {}
Client.__index = Client

-- A socket is there before somebody listens: then it is tried again.
local function client(path)
  local self = setmetatable({ got = "", over = false }, Client)
  helper.within(function()
    local answered, problem
    self.handle = uv.new_pipe(false)
    self.handle:connect(path, function(why)
      answered, problem = true, why
      if why then return self.handle:close() end
      self.handle:read_start(function(_, text)
        if text then self.got = self.got .. text else self.over = true end
      end)
    end)
    helper.within(function()
      uv.run "nowait"
      return answered
    end)
    assert(not problem or problem:find "ECONNREFUSED", problem)
    return not problem
  end)
  for _ = 1, 5 do uv.run "nowait" end
  return helper.keep(self)
end

function Client.send(self, text)
  self.handle:write(text .. "\n")
  uv.run "nowait"
end

function Client.close(self)
  if not self.handle:is_closing() then self.handle:close() end
  for _ = 1, 3 do uv.run "nowait" end
end

function Client.take(self)
  for _ = 1, 3 do uv.run "nowait" end
  local line, rest = self.got:match "^([^\n]*)\n(.*)$"
  if not line then return nil end
  self.got = rest
  return json.decode(line)
end

helper.kvm("a prompt on a socket", function()
  -- The guest, its session and a socket; step() answers what is there.
  local function start(source)
    if not uv then pending "luv is not installed" end
    local guest = helper.guest { mode = "long", source = source or "inc eax\n hlt" }
    local path = helper.file ""
    os.remove(path)
    local socket = assert(sockets.new(path))
    helper.keep { close = function() sockets.close(socket) end }
    local session = helper.keep(sessions.new({ vm = guest.vm }, socket.say, socket.between))
    guest.path, guest.session, guest.socket = path, session, socket
    -- Serves until `done`, which is looked at beside the run.
    function guest.serve(done)
      local idle = session.idle
      rawset(session, "idle", function(...)
        if done() then session:leave "spec" end
        return idle(...)
      end)
      sockets.run(socket, session)
      rawset(session, "leaving", false)
      rawset(session, "idle", nil)
    end
    function guest.ask(one, text)
      one:send(text)
      local answer
      guest.serve(function()
        answer = answer or one:take()
        return answer
      end)
      return answer
    end
    return guest
  end

  it("is for its owner alone, and gone afterwards", function()
    local guest = start()
    assert.equal("600", (helper.sh("stat -c %a " .. guest.path)))
    sockets.close(guest.socket)
    assert.equal(1, select(2, helper.sh("test -e " .. guest.path)))
  end)

  it("answers each line with one, with what has stopped the guest", function()
    local guest = start()
    local one = client(guest.path)
    assert.same({ id = 1, ok = true, output = "2" }, guest.ask(one, '{"id": 1, "line": "1 + 1"}'))
    assert.same({ ok = true, output = "1\tx\n" }, guest.ask(one, [["print(1, 'x')"]]))
    local answer = guest.ask(one, '{"line": "c"}')
    assert.is_true(answer.ok)
    assert.same({ kind = "hlt", vcpu = 0, text = tostring(guest.session.exit) }, answer.exit)
    contains("changed: rax 0x0 -> 0x1", answer.output)
    answer = guest.ask(one, '"cpu.rxa"')
    assert.is_false(answer.ok)
    contains("did you mean 'rax'?", answer.error)
    assert.is_true(guest.ask(one, '"do"').more)
    assert.is_nil(guest.ask(one, '"end"').more)
  end)

  it("refuses what it does not understand", function()
    local guest = start()
    local one = client(guest.path)
    contains("JSON: ", guest.ask(one, "cpu.rax").error)
    contains("expected: ", guest.ask(one, "{}").error)
    contains("expected: ", guest.ask(one, "5").error)
    assert.equal("the guest does not run", guest.ask(one, '{"interrupt": true}').error)
    one.handle:write(("x"):rep(2 ^ 20 + 5000))
    contains("more than 1 MiB", guest.ask(one, "").error)
  end)

  it("stops a guest that runs, when the client wants it", function()
    local guest = start("again: inc eax\n jmp again")
    local one = client(guest.path)
    one:send '{"id": 1, "line": "c"}'
    one:send '{"id": 2, "line": "1"}'
    one:send '{"id": 3, "interrupt": true}'
    local answers = {}
    guest.serve(function()
      answers[#answers + 1] = one:take()
      return #answers == 3
    end)
    assert.same({ id = 2, ok = false, running = true,
      error = 'the guest runs: {"interrupt": true} stops it' }, answers[1])
    assert.same({ id = 3, ok = true, output = "" }, answers[2])
    assert.equal(1, answers[3].id)
    contains("interrupted at rip", answers[3].output)
  end)

  it("has one client at a time, and tells a second", function()
    local guest = start()
    local one = client(guest.path)
    guest.ask(one, '"1"')
    local two = client(guest.path)
    guest.serve(function()
      two.answer = two.answer or two:take()
      return two.answer and two.over
    end)
    assert.same({ ok = false, error = "another client is connected" }, two.answer)
    assert.equal("2", guest.ask(one, '"1 + 1"').output)
  end)

  it("leaves the guest running when its client goes away", function()
    local guest = start("again: inc dword [0x3000]\n jmp again")
    local one, two = client(guest.path), nil
    one:send '{"line": "c"}'
    local between, seen, looks = guest.socket.between, nil, 0
    guest.session.between = function()
      looks = looks + 1
      if looks == 2 then one:close() end
      if looks == 4 then
        seen = guest.ram:u32(0x3000)
        two = client(guest.path)
      end
      if looks == 6 then two:send '{"interrupt": true}' end
      local stops = between()
      if two then two.answer = two.answer or two:take() end
      return stops
    end
    guest.serve(function() return two and two.answer end)
    assert.same({ ok = true, output = "" }, two.answer)
    assert.is_true(guest.ram:u32(0x3000) > seen)
  end)

  it("tells of exits beside it", function()
    local guest = start "hlt"
    local one = client(guest.path)
    guest.ask(one, '"1"')
    guest.vm:start()
    local answer
    guest.serve(function()
      answer = answer or one:take()
      return answer
    end)
    assert.equal("hlt", answer.exit.kind)
    guest.vm:stop()
  end)

  it("ends by leave", function()
    local path = helper.file ""
    os.remove(path)
    if not uv then pending "luv is not installed" end
    local output = helper.file ""
    local script = helper.file(([[
      local luna = require "lunavisor"
      print(luna.repl({ x = 5 }, { socket = %q }))
    ]]):format(path))
    helper.sh(("%s >%s 2>&1 & until test -S %s; do sleep 0.02; done"):format(
      helper.command(script), output, path))
    local one = client(path)
    one:send '{"line": "leave x + 1"}'
    helper.within(function() return one:take() end)
    helper.within(function() return require("spec.support.files").read(output) == "6\n" end)
    assert.equal(0, luna.live().vm)
  end)
end)
