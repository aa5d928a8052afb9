-- SPDX-License-Identifier: MIT
-- vm:gdb with a scripted client: every packet, in every mode.

local luna = require "lunavisor"
local client = require "spec.support.gdb"
local helper = require "spec.support.helper"
local packet = require "lunavisor.gdb.packet"

local contains, raises = helper.contains, helper.raises
local SOURCE = "start: inc ax\n mov [0x3000], ax\n out 0x10, al\n jmp start"

-- A guest that counts for ever at 0x3000, its server and a client.
local function session(options)
  options = options or {}
  local guest = helper.guest { mode = options.mode or "long", source = options.source or SOURCE }
  guest.vm:pio(0x10, 1, { write = function() end })
  local server = helper.keep(guest.vm:gdb { port = 0, bits = options.bits })
  guest.server, guest.client = server, client.client(server)
  function guest.ask(...) return guest.client:ask(...) end
  return guest
end

describe("packets", function()
  it("are what has come, one after the other", function()
    local text = "+" .. packet.frame "g" .. "\3-$m1,2#00$x"
    local kinds = {}
    while true do
      local kind, body, rest = packet.next(text)
      text = rest
      if not kind then break end
      kinds[#kinds + 1] = kind .. (body and " " .. body or "")
    end
    assert.same({ "packet g", "interrupt", "again", "damaged" }, kinds)
    assert.equal("$x", text)
    assert.equal("damaged", (packet.next("$" .. ("x"):rep(0x9000))))
    assert.equal("$OK#9a", packet.frame "OK")
  end)

  it("carry any byte", function()
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    local data = table.concat(all)
    assert.equal(data, packet.unescape(packet.escape(data)))
    assert.falsy(packet.escape(data):find "[#$*]")
    assert.equal(data, packet.bytes(packet.hex(data)))
  end)
end)

helper.kvm("vm:gdb", function()
  local sizes = { real = { "i8086", 8, 4 }, protected = { "i386", 8, 4 },
    long = { "i386:x86-64", 16, 8 }, user = { "i386:x86-64", 16, 8 } }
  for mode, about in pairs(sizes) do
    it("shows the registers of mode " .. mode, function()
      local guest = session { mode = mode }
      local xml = guest.ask "qXfer:features:read:target.xml:0,3fff"
      contains(("<architecture>%s</architecture>"):format(about[1]), xml)
      local bits = 0
      for size in xml:gmatch 'bitsize="(%d+)"' do bits = bits + tonumber(size) end
      guest.cpu.rax = 0x12345678
      local all = guest.ask "g"
      assert.equal(bits / 4, #all)
      assert.falsy(all:find "x")
      assert.equal("78563412", all:sub(1, 8))
      local rip = about[2] == 8 and 8 or 16
      assert.equal("00100000", (guest.ask(("p%x"):format(rip))):sub(1, 8))
    end)

    it("writes registers of mode " .. mode, function()
      local guest = session { mode = mode }
      local tail = ("0"):rep(about[3] * 2 - 8)
      assert.equal("OK", guest.ask("P0=efbeadde" .. tail))
      assert.equal("0xdeadbeef", luna.hex(guest.cpu.rax))
      assert.equal("OK", guest.ask("G" .. "01000000" .. tail .. (guest.ask "g"):sub(#tail + 9)))
      assert.equal("0x1", luna.hex(guest.cpu.rax))
      assert.equal("E22", guest.ask "P0=ef")
      assert.equal("E01", guest.ask "Pfff=ef")
      assert.equal("E01", guest.ask "pfff")
    end)

    it("steps in mode " .. mode, function()
      local guest = session { mode = mode }
      assert.equal("S05", guest.ask "?")
      assert.equal("T05thread:1;", guest.ask "vCont;s:1;c")
      assert.equal("0x1", luna.hex(guest.cpu.rax))
      assert.equal("T05thread:1;", guest.ask "s")
      assert.equal(1, guest.ram:u16(0x3000))
      assert.equal("T05thread:1;", guest.ask "?")
    end)

    it("is interrupted in mode " .. mode, function()
      local guest = session { mode = mode }
      assert.equal("T02thread:1;", guest.ask("vCont;c", "\3"))
      assert.is_true(guest.ram:u16(0x3000) > 0)
    end)

    it("stops at a breakpoint in mode " .. mode, function()
      local guest = session { mode = mode }
      if guest.ask "Z0,1000,1" ~= "OK" then
        pending(guest.server.refusal)
      end
      assert.equal("OK", guest.ask "Z0,1000,1")
      for _ = 1, 20 do assert.equal("T05thread:1;swbreak:;", guest.ask "c") end
      assert.equal("0x1000", luna.hex(guest.cpu.rip))
      assert.is_true(guest.ram:u16(0x3000) >= 19)
      assert.equal("OK", guest.ask "z0,1000,1")
      assert.equal("T02thread:1;", guest.ask("c", "\3"))
    end)

    it("stops at a hardware breakpoint in mode " .. mode, function()
      local guest = session { mode = mode }
      if guest.ask "Z1,1000,1" ~= "OK" then pending(guest.server.refusal) end
      assert.equal("T05thread:1;hwbreak:;", guest.ask "c")
    end)

    it("stops behind a write that is watched in mode " .. mode, function()
      local guest = session { mode = mode }
      if guest.ask "Z2,3000,2" ~= "OK" then pending(guest.server.refusal) end
      assert.equal("T05thread:1;watch:3000;", guest.ask "c")
      assert.equal(1, guest.ram:u16(0x3000))
      assert.equal("OK", guest.ask "z2,3000,2")
      assert.equal("OK", guest.ask "Z4,3000,2")
      assert.equal("T05thread:1;awatch:3000;", guest.ask "c")
    end)
  end

  it("has the place in linear addresses, and segments that go along in real mode", function()
    local guest = session { mode = "real" }
    guest.cpu.cs.base, guest.cpu.cs.selector, guest.cpu.rip = 0x800, 0x80, 0x800
    assert.equal("00100000", guest.ask "p8")
    assert.equal("OK", guest.ask "P8=03100000")
    assert.equal("0x803", luna.hex(guest.cpu.rip))
    assert.equal("OK", guest.ask "Pc=00020000") -- ds
    assert.equal("0x2000", luna.hex(guest.cpu.ds.base))
  end)

  it("describes the registers as the script wants", function()
    local guest = session { mode = "real", bits = 64 }
    contains("i386:x86-64", guest.ask "qXfer:features:read:target.xml:0,3fff")
    assert.equal(16, #guest.ask "p0")
    assert.equal("l", guest.ask "qXfer:features:read:target.xml:ffff,10")
    assert.equal("", guest.ask "qXfer:auxv:read::0,10")
  end)

  it("reads and writes memory, and never a device's", function()
    local guest = session()
    guest.vm:mmio(0xd0000000, 8, { read = function() error "touched" end })
    assert.equal("OK", guest.ask "M3000,3:616263")
    assert.equal("616263", guest.ask "m3000,3")
    assert.equal("OK", guest.ask("X3000,2:" .. packet.escape "}#"))
    assert.equal("}#c", guest.ram:read(0x3000, 3))
    assert.equal("OK", guest.ask "X3000,0:")
    assert.equal("", guest.ask "m3000,0")
    for _, gone in ipairs { "md0000000,4", "M40000000,1:00", "m800000000000,8",
      "mffffffffffffffff,1" } do
      assert.equal("E14", guest.ask(gone), gone)
    end
    assert.equal("E01", guest.ask "M3000,3:6162")
    assert.equal("E01", guest.ask "mzz,1")
    assert.equal(32, #guest.ask "mffff0,20") -- as much as there is
  end)

  it("refuses a breakpoint inside of the instruction at which the vCPU stands", function()
    local guest = session()
    if not luna.disasm "\x90" then pending "this build has no Zydis" end
    assert.equal("E22", guest.ask "Z0,1001,1")
    contains("it would be inside of 0x1000: 66 ff c0  inc ax", guest.server.refusal)
    assert.equal("", guest.ask "Z9,1000,1")
  end)

  it("shows every vCPU as a thread, and stops all", function()
    local guest = session()
    helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x9000 })
    assert.equal("m1,2", guest.ask "qfThreadInfo")
    assert.equal("l", guest.ask "qsThreadInfo")
    assert.equal("OK", guest.ask "T2")
    assert.equal("E01", guest.ask "T3")
    assert.equal("QC1", guest.ask "qC")
    assert.equal("OK", guest.ask "Hg2")
    assert.equal("E01", guest.ask "Hg5")
    assert.equal("0090000000000000", guest.ask "p7")
    contains("vCPU 1 of space 0, 64-bit mode",
      packet.bytes((guest.ask "qThreadExtraInfo,2")))
    assert.equal("T05thread:2;", guest.ask "vCont;s:2")
    assert.matches("^T02thread:%d;$", (guest.ask("vCont;c", "\3")))
    for _, cpu in ipairs(guest.vm.vcpus) do assert.is_false(cpu.started) end
    if guest.ask "Z0,1000,1" == "OK" then
      assert.matches("^T05thread:%d;swbreak:;$", (guest.ask "vCont;c"))
    end
  end)

  it("runs Lua for monitor", function()
    local guest = session()
    local function monitor(text) return select(2, guest.ask("qRcmd," .. packet.hex(text))) end
    assert.equal("0x1000\n", monitor "luna.hex(cpu.rip)")
    assert.equal("1\t2\n3\n", monitor "print(1, 2) return 3")
    assert.equal("", monitor "local x = 1")
    contains("a vcpu has no field 'rxa'; did you mean 'rax'?", monitor "cpu.rxa")
    contains("monitor", monitor "1 +")
    assert.equal(20001, #monitor "('x'):rep(20000)")
  end)

  it("ends where monitor closes the VM or its vCPUs", function()
    for _, what in ipairs { "vm:close()", "cpu:close()", "gdb:close()" } do
      local guest = session()
      guest.ask "Z0,1000,1"
      guest.client:send(packet.frame("qRcmd," .. packet.hex(what)))
      assert.equal("closed", (guest.server:serve { timeout = 60 }))
    end
  end)

  it("has gdb's tags of x87 registers", function()
    local guest = session()
    assert.equal("ffff0000", guest.ask "p22")
    assert.equal("OK", guest.ask "P22=fcff0000")
    assert.equal("0x1", luna.hex(guest.cpu.ftw))
    assert.equal("fcff0000", guest.ask "p22")
    assert.equal("E22", guest.ask "P23=01000000")
    contains("fiseg cannot be written", guest.server.refusal)
  end)

  it("says what a guest has stopped with", function()
    local stops = { { "ud2", "T04" }, { "mov eax, 0x40000000\n mov [rax], al", "T0b" },
      { "hlt", "T05" }, { "in al, 0x77", "T05" }, { "xor ecx, ecx\n div ecx", "T08" } }
    for _, stop in ipairs(stops) do
      local guest = session { source = stop[1] }
      local answer, said = guest.ask "c"
      assert.equal(stop[2] .. "thread:1;", answer)
      contains(guest.server.exit.kind, said)
      guest.server:close()
    end
  end)

  it("tells of an error in a handler and goes on", function()
    local guest = session()
    guest.cpu:on("hlt", function() error "broken" end)
    guest.ram:write(0x1000, "\xf4")
    local answer, said = guest.ask "c"
    assert.equal("T06thread:1;", answer)
    contains("broken", said)
    assert.equal("OK", guest.ask "T1")
  end)

  it("needs no acknowledgements when the client says so", function()
    local guest = session()
    assert.equal("OK", guest.ask "QStartNoAckMode")
    contains("+$OK#9a", guest.client.got)
    guest.ask "qC"
    assert.equal("$QC1#c5", guest.client.got)
  end)

  it("asks again for what was damaged, and says again what was", function()
    local guest = session()
    guest.ask "qC"
    guest.client.got = ""
    guest.client:send "$qC#00-"
    helper.within(function()
      guest.client:serve()
      return #guest.client.got >= 8
    end)
    assert.equal("-$QC1#c5", guest.client.got)
  end)

  it("answers what it does not know with nothing", function()
    local guest = session()
    for _, body in ipairs { "vMustReplyEmpty", "qHostInfo", "!", "jThreadsInfo", "x0,0", "" } do
      assert.equal("", guest.ask(body))
    end
    contains("PacketSize=4000", guest.ask "qSupported:swbreak+")
    assert.equal("vCont;c;C;s;S", guest.ask "vCont?")
  end)

  it("ends when the client says so, without its breakpoints", function()
    for body, ending in pairs { D = "detached", k = "killed" } do
      local guest = session()
      guest.ask "Z0,1000,1"
      guest.client:send(packet.frame(body))
      assert.equal(ending, (guest.server:serve { timeout = 60 }))
      assert.is_nil(next(guest.server.points))
      assert.is_false(guest.server.connected)
      assert.equal("timeout", guest:run({ timeout = 0.05 }).kind)
      guest.client = client.client(guest.server) -- the next one
      assert.equal("QC1", guest.ask "qC")
      guest.server:close()
    end
  end)

  it("lets the guest be when the client goes", function()
    local guest = session()
    guest.ask "qC"
    guest.client:close()
    assert.equal("gone", (guest.server:serve { timeout = 60 }))
    assert.equal("timeout", guest:run({ timeout = 0.05 }).kind)
  end)

  it("ends a run of the script's when a client comes", function()
    local guest = session()
    local exit = guest:run()
    assert.equal("stopped", exit.kind)
    assert.equal(guest.server, exit.value)
    assert.equal("QC1", guest.ask "qC")
  end)

  it("is on loopback, or on a path for its owner alone", function()
    local guest = session()
    local text = helper.sh "cat /proc/net/tcp"
    contains((" 0100007F:%04X "):format(guest.server.port), text)
    local path = os.tmpname()
    os.remove(path)
    local server = helper.keep(guest.vm:gdb { path = path })
    assert.equal("600", (helper.sh("stat -c %a " .. path)))
    assert.equal("QC1", client.client(server):ask "qC")
    contains("gdb server on " .. path .. " (a client is there)", tostring(server))
    server:close()
    assert.is_nil(io.open(path))
    contains("closed", tostring(server))
  end)

  it("tells a second client", function()
    local guest = session()
    guest.ask "qC"
    local second = client.client(guest.server)
    guest.client:serve()
    helper.within(function()
      guest.client:serve()
      return second.over
    end)
    contains("Another client is connected", second.got)
    assert.equal("QC1", guest.ask "qC")
  end)

  it("refuses what it cannot use", function()
    local guest = helper.guest { source = "hlt" }
    raises("unknown option 'prot'", function() guest.vm:gdb { prot = 1 } end)
    raises("one of port, path and stdio", function() guest.vm:gdb() end)
    raises("vm:gdb: port: a whole number", function() guest.vm:gdb { port = "x" } end)
    local server = guest.vm:gdb { port = 0 }
    raises("gdb:serve: unknown option 'x'", function() server:serve { x = 1 } end)
    assert.is_nil((guest.vm:gdb { port = server.port }))
    server:close()
    server:close()
  end)
end)
