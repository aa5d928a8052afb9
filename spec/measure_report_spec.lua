-- SPDX-License-Identifier: MIT
-- The page of luna report: what it has of VMs, that it needs nothing else, that nothing of a guest
-- is markup in it, and that a long run makes it no longer.

local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local html = require "spec.support.html"
local meters = require "lunavisor.vm.meter"
local report = require "lunavisor.measure.report"
local symbols = require "lunavisor.text.symbols"

local LONG = "it takes long with the collector always at work"

local path, made

local function contains(part, text)
  if not text:find(part, 1, true) then error(part .. " is not in the page", 2) end
end

local function page(outcome)
  assert(made:close(outcome))
  local text = files.read(path)
  html.check(text)
  return text
end

local function lacks(part, text)
  assert.is_nil(text:find(part, 1, true), part .. " is there")
end

-- Writes bx characters to the port dx.
local PRINT = [[
  print: mov al, [si]
  out dx, al
  inc si
  dec bx
  jnz print
  hlt
  text: db %s ]]

local function printing(bytes, count)
  local list = {}
  for i = 1, #bytes do list[i] = bytes:byte(i) end
  return ("mov dx, 0x3f8\n mov si, text\n mov bx, %d\n"):format(count or #bytes)
    .. PRINT:format(table.concat(list, ","))
end

helper.kvm("the page of a run", function()
  before_each(function()
    path = helper.file ""
    made = assert(report.new(path, { title = "luna <run>", version = "lunavisor & Lua" }))
    meters.add(made)
  end)
  after_each(function() meters.remove(made) end)

  local function guest(source, name, mode)
    local one = helper.guest { source = source, mode = mode }
    one.vm:pio(0x3f8, 8, { name = name, write = function() end, read = function() return 7 end })
    return one
  end

  it("tells what ran, how it ended and why it stopped", function()
    guest(printing "hello", "printer"):stops "hlt"
    local text = page { status = 3, text = "It <ended>.", detail = "stack & trace" }
    contains("<title>luna &lt;run&gt;</title>", text)
    contains("lunavisor &amp; Lua", text)
    contains('<div class="outcome bad">It &lt;ended&gt;.\n<pre>stack &amp; trace</pre>', text)
    contains("<b>6</b><span>exits</span>", text)
    contains("<h3>Why it stopped</h3>\n<p class=\"mono\">hlt at rip 0x10", text)
    contains("<b>Likely:</b> HLT with interrupts off", text)
    contains("real mode, ring 0, no paging, interrupts off", text)
    contains("<mark>=&gt; 0x10", text)
    contains("<small>at the end; with * what has changed since the guest was last entered</small>",
      text)
    assert.matches('<p class="mono">rax 0x%x+ %-&gt; 0x%x+, rdx 0x', text)
    contains('rsi*      <span class="z">000000000000', text)
    contains("pio (write of 1 byte at port 0x3f8, value 0x6f)", text)
    contains("the device at port 0x3f8 (printer, given at ", text)
    contains(html.console("printer", "hello"), text)
    contains('<i class="c1"></i>printer <span>5</span>', text)
    contains('<td class="name mono">printer, port 0x3f8</td>', text)
    contains('rip*      <span class="z">000000000000</span>10', text)
    contains("cs            0000  <span class=\"z\">0000000000000000</span>  "
      .. '<span class="z">0000</span>ffff  009b', text)
    contains("0x3f8..0x3ff  printer", text)
    lacks("<h2>", text)
  end)

  it("has the last of what a guest prints, and says what is left out", function()
    if helper.stressed then pending(LONG) end
    local one = helper.guest { mode = "protected",
      source = "mov ecx, 70000\n mov esi, 0x20000\n mov dx, 0x3f8\n rep outsb\n hlt" }
    one.ram:write(0x20000, ("a"):rep(60000) .. ("b"):rep(10000))
    one.vm:pio(0x3f8, 8, { write_block = function() end })
    one:stops "hlt"
    local text = page()
    contains("The last 64 KiB; 4.36 KiB before that are left out.", text)
    local console = text:match '<pre class="console">(.-)</pre>'
    assert.equal(("a"):rep(55536) .. ("b"):rep(10000), console)
  end)

  it("has no markup of a guest", function()
    local evil = "</pre><script>alert(1)</script><img src=x onerror='x'>&lt;\27[31m\0\255\226\130"
    local one = guest(printing(evil), "<script>2</script>")
    one.vm:mmio(0x800000, 4, { read = function() end, name = "</svg><script>3" })
    one.vm.symbols = symbols.new { { "</code><script>6", 0, 0x1000, 0x100 } }
    one:stops "hlt"
    local text = page { status = 1, text = "<script>4</script>", detail = "<script>5</script>" }
    lacks("<script", text)
    lacks("<img", text)
    lacks("<i>", text)
    contains("&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x "
      .. "onerror='x'&gt;&amp;lt;\226\144\128\\xff\\xe2\\x82</pre>", text)
    contains("&lt;script&gt;2&lt;/script&gt;", text)
    contains("&lt;/svg&gt;&lt;script&gt;3", text)
    contains("Code in <code>&lt;/code&gt;&lt;script&gt;6+0x", text)
  end)

  it("knows a divisor from a character", function()
    local source = [[
      mov dx, 0x3fb
      mov al, 0x83
      out dx, al
      mov dx, 0x3f8
      mov al, 'x'
      out dx, al
      mov dx, 0x3fb
      mov al, 3
      out dx, al
      mov dx, 0x3f8
      mov al, 'y'
      out dx, al
      hlt ]]
    guest(source, "by hand"):stops "hlt"
    local kit = helper.guest { source = source }
    local output = {}
    kit.vm:attach(require "lunavisor.device.models.uart16550" { output = function(text)
      output[#output + 1] = text
    end }, { pio = 0x3f8, name = "com1" })
    kit:stops "hlt"
    local text = page()
    contains(html.console("by hand", "y"), text)
    contains(html.console("com1", "y"), text)
    assert.same({ "y" }, output)
  end)

  it("leaves the devices of the script as they were", function()
    local one = helper.guest { source = printing "hello" }
    local heard = {}
    local dev = { write = function(_, _, _, value) heard[#heard + 1] = string.char(value) end }
    local write = dev.write
    one.vm:pio(0x3f8, 1, dev)
    one:stops "hlt"
    one.vm:close()
    assert.equal("hello", table.concat(heard))
    assert.equal(write, dev.write)
    contains('<pre class="console">hello</pre>', page())
  end)

  -- Exits beyond those whose moments are known are counted all the same.
  local function counts_all(run)
    local one = guest("mov ecx, 6000\n mov dx, 0x3f9\n again: in al, dx\n dec ecx\n jnz again\n"
      .. "hlt", "counter", "protected")
    run(one)
    local text = page()
    contains('<i class="c1"></i>counter <span>6,000</span>', text)
    contains('<i class="c2"></i>hlt <span>1</span>', text)
    local columns = 0
    for count in text:gmatch "<title>[^\n]*\n([%d,]+)  counter" do
      columns = columns + tonumber((count:gsub(",", "")))
    end
    assert.is_true(math.abs(columns - 6000) < 300, columns) -- rounded
    return text
  end

  it("has every exit on its timeline", function()
    counts_all(function(one) one:stops "hlt" end)
  end)

  it("has those of vCPUs on threads of their own", function()
    local text = counts_all(function(one)
      helper.spinner(one)
      assert.equal("hlt", one.vm:run({ timeout = 20 }).kind)
    end)
    contains('<td class="name mono">counter, port 0x3f9</td>', text)
  end)

  it("has those of a single one under vm:run", function()
    local text = counts_all(function(one)
      assert.equal("hlt", one.vm:run({ timeout = 20 }).kind)
    end)
    contains('<td class="name mono">counter, port 0x3f9</td>', text)
  end)

  it("ends its timeline with the last run", function()
    local one = guest("mov cx, 5000\n mov dx, 0x3f9\n again: in al, dx\n loop again\n hlt")
    local began = luna.clock()
    one.cpu:run { max_exits = 4999 }
    one.cpu:run { max_exits = 1 } -- so soon behind that that it is not looked at then
    local took = luna.clock() - began
    while luna.clock() < began + took + 0.5 do end
    local last, unit
    for to, what in page():gmatch "<title>[^\n]* to ([%d.]+) ([^\n]*)\n" do
      last, unit = to, what
    end
    last = tonumber(last) * assert(({ ["\194\181s"] = 1e-6, ms = 1e-3, s = 1 })[unit], unit)
    assert.is_true(last < took + 0.25, ("%g s of %g"):format(last, took))
  end)

  it("has those of many short runs, and of vm:poll", function()
    counts_all(function(one)
      for _ = 1, 2000 do one.cpu:run { max_exits = 1 } end
      one.cpu:run { max_exits = 3900 }
      one.vm:start()
      helper.within(function() return one.vm:poll() end)
    end)
  end)

  it("has a section for each VM and vCPU", function()
    for i = 1, 2 do
      local one = guest("hlt", "printer")
      for _ = 2, i do one.vm:vcpu { mode = "real", rip = 0x1000 } end
      one.vm:run { timeout = 60 }
      if i == 1 then one.vm:close() end
    end
    local text = page()
    contains("<h2>VM 1<small>vm on ", text)
    contains("<h2>VM 2<small>vm on ", text)
    contains("<h3>Why it stopped</h3>", text)
    contains("<h3>Where vCPU 0 stands</h3>", text)
    contains("<h3>Registers of vCPU 1<small>", text)
  end)

  it("has the last of many VMs", function()
    local first = helper.keep(luna.vm())
    for _ = 1, 20 do luna.vm():close() end
    local ram = helper.keep(luna.buffer "64K") -- the first goes on, and is not looked at any more
    first.default:map(ram, 0)
    ram:write(0x1000, helper.code("out 0x60, al\n in al, 0x61\n hlt", 16, 0x1000))
    first:pio(0x60, 1, { write = function() end })
    local cpu = assert(first:vcpu { mode = "real", rip = 0x1000 })
    cpu:on("pio", function() return 0 end)
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    local text = page()
    contains("Of 21 VMs the last 16 are here.", text)
    contains("<h2>VM 6<small>", text)
    contains("<h2>VM 21<small>", text)
    lacks("<h2>VM 5<small>", text)
  end)

  it("tells how the last run ended, where that is not what a vCPU stands at", function()
    local one = guest(printing "ab")
    one.cpu:on("hlt", function()
      one.vm:stop "<enough>"
      return "continue"
    end)
    assert.equal("stopped", one:run({ timeout = 60 }).kind)
    local text = page()
    contains('<h3>How the last run ended</h3><p class="mono">stopped at rip 0x10', text)
    contains(", with &lt;enough&gt;</p>", text)
  end)

  local function last(run)
    local one = helper.guest { source = "out 0x60, al\n jmp $" }
    one.vm:pio(0x60, 1, { write = function() error "no" end })
    run(one)
    return page():match '<h3>How the last run ended</h3><p class="mono">(.-)</p>'
  end

  it("tells of a run that has raised", function()
    assert.equal("It raised an error.", last(function(one)
      assert.is_false((pcall(one.run, one, { timeout = 60 })))
    end))
  end)

  it("tells of a run of all vCPUs whose time was up", function()
    assert.matches("^timeout %(vcpu 0 at rip 0x1000; vcpu 1 at rip 0x1000%)$", last(function(one)
      one.vm:vcpu { mode = "real", rip = 0x1000 }
      one.ram:write(0x1000, "\235\254")
      assert.equal("timeout", one.vm:run({ timeout = 0.1 }).kind)
    end))
  end)

  it("says that there was no VM, or no run", function()
    luna.vm():close()
    local text = page()
    contains("<b>0</b><span>vCPUs</span>", text)
    contains("There was no exit.", text)
    contains("The guest ran too short a time for samples.", text)
    made = assert(report.new(path, { title = "", version = "" }))
    contains("No VM was made.", page())
  end)

  it("has accesses that nobody took, and what a vCPU that has not run has", function()
    local vm = helper.keep(luna.vm { unknown = "ones" })
    local ram = helper.keep(luna.buffer "64K")
    vm.default:map(ram, 0)
    ram:write(0x1000, helper.code("in al, 0x80\n in al, 0x80\n hlt", 16, 0x1000))
    local cpu = assert(vm:vcpu { mode = "real", rip = 0x1000 })
    assert(vm:vcpu { mode = "real", rip = 0x2345 })
    assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
    local text = page()
    contains('<td class="name mono">read of 1 byte at port 0x80</td>'
      .. '<td class="name mono">0x1002</td><td class="n">2</td>', text)
    contains("pio without a device <span>2</span>", text)
    contains('<h3>Where vCPU 1 stands</h3>\n<p class="mono">has not run</p>', text)
    contains("2345", text)
  end)

  it("has the screen of a PC, where there is something on it", function()
    if helper.stressed then pending(LONG) end
    local function screen(draw)
      local vm = helper.keep(luna.machine("pc", { memory = "16M", serial = false, debug = false }))
      helper.keep(vm.machine.ram)
      draw(vm.devices.vga.regions)
      return page():match '<img class="screen" alt="(.-)"\n?[^>]*>'
    end
    local function again()
      meters.remove(made)
      made = assert(report.new(path, { title = "", version = "" }))
      meters.add(made)
    end
    assert.is_nil(screen(function() end))
    again()
    assert.equal("&lt;ok", screen(function(regions)
      for i, char in ipairs { "<", "o", "k" } do
        regions.window.write(nil, 0x18000 + 2 * i - 2, 1, char:byte())
      end
    end):match "%S+")
    again()
    assert.equal("graphics", screen(function(regions)
      for index, value in pairs { 16, 16, 8, 0x41 } do
        regions.vbe.write(nil, 0, 2, index)
        regions.vbe.write(nil, 1, 2, value)
      end
    end))
  end)

  it("says where its file cannot be, and what of it cannot be written", function()
    assert.same({ nil, "/no/where: No such file or directory" }, { report.new("/no/where", {}) })
    local full = report.new("/dev/full", { title = "", version = "" })
    local ok, message = full:close()
    assert.is_nil(ok)
    contains("No space left", message)
  end)
end)
