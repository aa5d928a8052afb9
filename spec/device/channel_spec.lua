-- SPDX-License-Identifier: MIT
-- Channels: real sockets, pseudo-terminals, FIFOs and files as the host's end of devices.

local helper = require "spec.support.helper"
local channel = require "lunavisor.device.models.channel"
local raw = require "lunavisor.binding.backend"
local uart16550 = require "lunavisor.device.models.uart16550"

local uv = require "spec.support.luv"

local function kept(...) return helper.keep(...) end

-- A client of a channel: .got is what it was sent, .over whether it was hung up on.
local function client(made)
  if not uv then pending "luv is not installed" end
  local self = { got = "", over = false }
  local handle = made.port and uv.new_tcp() or uv.new_pipe(false)
  local function connected(problem)
    if problem then
      self.problem = problem
      return
    end
    self.connected = true
    handle:read_start(function(_, text)
      if text then self.got = self.got .. text else self.over = true end
    end)
  end
  if made.port then
    handle:connect("127.0.0.1", made.port, connected)
  else
    handle:connect(made.path, connected)
  end
  function self.send(text) handle:write(text) end
  function self.close()
    if not handle:is_closing() then handle:close() end
    uv.run "nowait"
  end
  kept(self)
  return self
end

-- Lets channel and clients get on until it is true.
local function until_true(made, fn)
  helper.within(function()
    made:poll()
    if uv then uv.run "nowait" end
    return fn()
  end)
end

local function told(made)
  local got = { text = "" }
  made:receive(function(text) got.text = got.text .. text end)
  return got
end

helper.block("a channel over TCP", function()
  it("takes a client and carries both directions", function()
    local made = kept(channel.tcp())
    local got, one = told(made), client(made)
    until_true(made, function() return made.connected end)
    made:write "login: "
    one.send "root\n"
    until_true(made, function() return one.got == "login: " and got.text == "root\n" end)
    assert.matches("channel tcp port %d+ %(connected%)", tostring(made))
  end)

  it("is bound to loopback unless it is told otherwise", function()
    local made = kept(channel.tcp())
    local function bound(port)
      return helper.sh("cat /proc/net/tcp"):match((" (%%x+):%04X 00000000:0000 0A"):format(port))
    end
    assert.equal("0100007F", bound(made.port))
    local open = kept(channel.tcp { address = "0.0.0.0" })
    assert.equal("00000000", bound(open.port))
  end)

  it("tells a second client and sends it away", function()
    local made = kept(channel.tcp())
    local one = client(made)
    until_true(made, function() return made.connected end)
    local two = client(made)
    until_true(made, function() return two.over end)
    assert.equal("Another client is connected.\r\n", two.got)
    assert.equal(1, made.refused)
    made:write "for one"
    until_true(made, function() return one.got == "for one" end)
  end)

  it("keeps the last of what nobody has taken for the next client", function()
    local made = kept(channel.tcp { keep = 5 })
    made:write "boot messages"
    local one = client(made)
    until_true(made, function() return one.got == "sages" end)
    assert.equal(8, made.lost)
    one:close()
    until_true(made, function() return not made.connected end)
    made:write "again"
    local two = client(made)
    until_true(made, function() return two.got == "again" end)
  end)

  it("never waits for a client that does not read", function()
    local made = kept(channel.tcp { keep = 1000 })
    local one = client(made)
    until_true(made, function() return made.connected end)
    local chunk, count = ("x"):rep(65536), 0
    repeat
      made:write(chunk)
      count = count + 1
    until made.lost > 0 or count > 1000
    assert.is_true(made.lost > 0)
    assert.equal("", one.got)
  end)

  it("says what it cannot, and what it does not know", function()
    local made = kept(channel.tcp())
    helper.refused("busy", "another program does", channel.tcp { port = made.port })
    helper.raises("channel.tcp: unknown option 'host'", function() channel.tcp { host = "x" } end)
    helper.raises("a numeric IPv4 or IPv6 address", function() channel.tcp { address = "here" } end)
    helper.raises("period: seconds from 0.0001", function() channel.tcp { period = 0 } end)
  end)
end)

helper.block("a channel over a Unix socket", function()
  local function path()
    local name = os.tmpname()
    os.remove(name)
    kept { close = function() os.remove(name) end }
    return name
  end

  it("is for its owner alone, and removed with the channel", function()
    local at = path()
    local made = kept(channel.unix { path = at })
    assert.equal("srw-------", helper.sh("ls -l " .. at):match "^%S+")
    local got, one = told(made), client(made)
    one.send "hello"
    until_true(made, function() return got.text == "hello" end)
    made:close()
    assert.is_nil(io.open(at))
    assert.equal("", (helper.sh("ls " .. at .. " 2>/dev/null || true")))
  end)

  it("takes the place of a socket that a dead process has left, and of nothing else", function()
    local at = path()
    local left = assert(raw.stream_unix(at))
    helper.refused("busy", "the file is there already", channel.unix { path = at })
    raw.stream_close(left)
    kept(channel.unix { path = at }):close()
    local file = assert(io.open(at, "w"))
    file:close()
    helper.refused("busy", "the file is there already", channel.unix { path = at })
    assert(io.open(at)):close()
  end)
end)

helper.block("a channel over a pseudo-terminal", function()
  it("has no echo, and goes on when the terminal is closed and opened again", function()
    local made = kept(channel.pty())
    local got = told(made)
    made:write "early "
    for i = 1, 2 do
      local fd = assert(raw.stream_open(made.path, 0))
      local out = assert(raw.stream_open(made.path, 1))
      made:write("hello" .. i)
      local text = ""
      until_true(made, function()
        text = text .. (raw.stream_read(fd, 100) or "")
        return text == (i == 1 and "early " or "") .. "hello" .. i
      end)
      got.text = ""
      assert.equal(3, raw.stream_write(out, "abc"))
      until_true(made, function() return got.text ~= "" end)
      assert.equal("abc", got.text)
      raw.stream_close(fd)
      raw.stream_close(out)
      until_true(made, function() return not made.connected end)
    end
  end)
end)

helper.block("a channel over files", function()
  it("writes one and is fed another, as fast as the device takes it", function()
    local from, to = helper.file(("0123456789"):rep(10)), helper.file "old"
    local made = kept(channel.file { input = from, output = to })
    local uart = uart16550 { output = made, log = false }
    uart:write(2, 1, 1)
    local text = ""
    until_true(made, function()
      while uart:read(5, 1) % 2 == 1 do text = text .. string.char(uart:read(0, 1)) end
      return #text == 100
    end)
    assert.equal(("0123456789"):rep(10), text)
    uart:write(0, 1, 65)
    made:close()
    assert.equal("A", assert(io.open(to)):read "*a")
    made = kept(channel.file { output = to, append = true })
    made:write "B"
    assert.equal("AB", assert(io.open(to)):read "*a")
    helper.raises("an output, an input or both", function() channel.file {} end)
    helper.refused("system", "cannot open /nowhere/x", channel.file { input = "/nowhere/x" })
  end)

  it("takes the standard input and output, which keep their flags", function()
    local output = helper.sh("echo typed | " .. helper.command(helper.file [[
      local channel = require "lunavisor.device.models.channel"
      local made, got = assert(channel.stdio()), ""
      made:receive(function(text) got = got .. text end)
      local clock = require("lunavisor").clock
      local finish = clock() + 10
      while got == "" and clock() < finish do made:poll() end
      made:write("got " .. got)
      made:close()
      print "and blocking"
    ]]))
    assert.equal("got typed\nand blocking", output)
  end)

  it("survives a reader of its output that goes away", function()
    local said = helper.file ""
    helper.sh(helper.command(helper.file(([[
      local channel = require "lunavisor.device.models.channel"
      local made = assert(channel.stdio())
      made:write "first\n"
      local clock = require("lunavisor").clock
      local finish = clock() + 10
      while made.connected and clock() < finish do made:write "x" end
      io.open(%q, "w"):write("connected: ", tostring(made.connected)):close()
    ]]):format(said))) .. " | head -n 1")
    assert.equal("connected: false", assert(io.open(said)):read "*a")
  end)
end)

helper.block("a channel that is dropped", function()
  it("closes its descriptors", function()
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _ = 1, 20 do assert(channel.tcp()) end
    collectgarbage()
    collectgarbage()
    assert.equal(before, helper.descriptors())
  end)
end)

helper.kvm("a channel of an attached device", function()
  it("is looked after while the guest runs, and by nobody when the device is taken out", function()
    local guest = helper.guest { source = [[
      mov dx, 0x3fd
      next: in al, dx
      test al, 1
      jz next
      mov dx, 0x3f8
      in al, dx
      inc al
      out dx, al
      hlt ]] }
    local made = kept(channel.tcp { period = 0.002 })
    local uart = guest.vm:attach(uart16550 { output = made }, { pio = 0x3f8 })
    local one = client(made)
    helper.within(function()
      uv.run "nowait"
      return one.connected
    end)
    one.send "A"
    uv.run "nowait"
    guest:stops "hlt"
    until_true(made, function() return one.got == "B" end)
    guest.vm:detach(uart)
    assert.is_nil(made.timer)
  end)
end)
