-- SPDX-License-Identifier: MIT
-- luna report, and --report of luna run and luna boot: there is a page whatever way a run ends.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local html = require "spec.support.html"
local process = require "spec.support.process"
local program = require "spec.support.program"

local directory

local function run(words, before)
  return program.luna(directory, words, before)
end

local function write(name, text) files.write(directory .. "/" .. name, text) end

-- The page that `luna words` writes, its output and status.
local function page_of(words, before)
  os.remove(directory .. "/page.html")
  local output, status = run(words, before)
  local text = files.read(directory .. "/page.html")
  html.check(text)
  return text, output, status
end

local function contains(part, text)
  if not text:find(part, 1, true) then error(part .. " is not in the page", 2) end
end

-- Runs it, with SIGINT when it has said `mark`.
local function cut(words, mark)
  local text, output = page_of(([[%s >said 2>&1 & pid=$!
    until grep -q %s said || ! kill -0 $pid; do sleep 0.02; done
    sleep 0.3; kill -INT $pid; wait $pid; echo "status $?"; cat said]]):format(words, mark))
  helper.contains("status 130", output)
  contains('<div class="outcome bad">The run was interrupted.', text)
  return text, output
end

helper.kvm("luna report", function()
  setup(function()
    directory = program.directory()
    write("ready", process.program "sys 1, 1, 0x400000, 1\n jmp $")
  end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  it("runs a script with its arguments, and writes a page", function()
    local text, output, status = page_of "report page.html guest.lua 'a <b>' --report"
    assert.equal(0, status, output)
    assert.equal("a <b>\thlt", output)
    contains("<h1>luna report page.html guest.lua 'a &lt;b&gt;' --report</h1>", text)
    contains('<div class="outcome good">The script has returned.', text)
    contains("hlt at rip 0x1005", text)
    text, output, status = page_of "report --accel soft page.html guest.lua"
    assert.same({ 0, "nil\thlt" }, { status, output })
    contains("<b>soft</b>", text)
    assert.same({ "x\thlt", 0 }, { select(2, page_of "run --report page.html guest.lua x") })
  end)

  it("says what is missing", function()
    local output, status = run "report page.html"
    assert.equal(126, status)
    helper.contains("missing argument 'script'", output)
    helper.contains("missing argument 'file'", (run "report"))
  end)

  it("says before the guest begins where the page cannot be written", function()
    for _, words in ipairs { "report /no/where guest.lua", "run --report /no/where guest.lua",
      "boot kernel.elf --report /no/where", "run --linux --report /no/where cat" } do
      local output, status = run(words)
      assert.equal(126, status)
      assert.equal("luna: --report: /no/where: No such file or directory", output)
    end
  end)

  it("says at the end where it was not written", function()
    local output, status = run "run --report /dev/full guest.lua"
    assert.equal(1, status)
    helper.contains("hlt\nluna: --report: /dev/full: No space left on device", output)
  end)

  it("has a page where the script raises", function()
    write("raises.lua", "local vm = require('lunavisor').vm()\nerror 'no <good>'")
    local text, output, status = page_of "run --report page.html raises.lua"
    assert.equal(1, status)
    helper.contains("luna: raises.lua:2: no <good>", output)
    contains('<div class="outcome bad">An error was raised.', text)
    contains("raises.lua:2: no &lt;good&gt;\n", text)
    contains("<b>0</b><span>vCPUs</span>", text)
  end)

  it("has a page where the script ends the program, also from a device", function()
    write("ends.lua", [[
      local luna = require "lunavisor"
      local vm, ram = luna.vm(), luna.buffer "64K"
      vm.default:map(ram, 0)
      ram:write(0x1000, luna.asm("mov al, 7\n out 0x60, al\n hlt", { bits = 16, org = 0x1000 }))
      vm:pio(0x60, 1, { name = "door", write = function(_, _, _, value) os.exit(value) end })
      vm:vcpu({ rip = 0x1000 }):run()]])
    local text, _, status = page_of "run --report page.html ends.lua"
    assert.equal(7, status)
    contains('<div class="outcome bad">The script has called os.exit: status 7', text)
    contains("pio (write of 1 byte at port 0x60, value 0x7) at rip 0x1004", text)
    contains('<i class="c1"></i>door <span>1</span>', text)
  end)

  it("has a page where Ctrl-C ends a script", function()
    write("long.lua", files.read(directory .. "/loop.lua") .. "\nio.stdout:write 'ready\\n'\n"
      .. "io.stdout:flush()\ncpu:run { timeout = 20 }")
    local text, output = cut("run --report page.html long.lua", "ready")
    helper.contains("interrupted!", output)
    contains("<h3>Why it stopped</h3>", text)
    contains("=&gt; 0x1004: eb fe  jmp 0x1004", text)
  end)

  it("has a page where Ctrl-C ends a guest", function()
    local text, output = cut("boot loop.elf --timeout 120 --report page.html", "loop")
    helper.contains("luna: interrupted", output)
    assert.is_nil(output:find("stack traceback", 1, true))
    contains('<pre class="console">in a loop\n</pre>', text)
    contains("jmp 0x1000", text)
    text, output = cut("run --linux --calls --report page.html ready", "write")
    helper.contains("luna: interrupted", output)
    contains("Why it stopped", text)
  end)

  it("has a page of a guest that cannot go on, or does not end", function()
    local text, _, status = page_of "boot triple.elf --timeout 120 --report page.html"
    assert.equal(125, status)
    contains('<div class="outcome bad">The guest could not go on: status 125.', text)
    contains("shutdown (triple fault) at rip 0x1000", text)
    contains("<b>Likely:</b> no exception can be taken with the IDT at 0x0", text)
    contains("#UD at rip 0x1000", text) -- as the exceptions that it has swallowed
    text, _, status = page_of "boot loop.elf --timeout 1 --report page.html"
    assert.equal(124, status)
    contains("The time of --timeout was up: status 124.", text)
    contains(html.console("com1", "in a loop\n"), text)
    contains('Hottest guest addresses<small>by samples, 100 a second</small></h3>\n<table', text)
    text, _, status = page_of "boot status.elf --timeout 120 --report page.html"
    assert.equal(42, status)
    contains('<div class="outcome bad">The guest has ended with status 42.', text)
    text, _, status = page_of "boot junk --format elf --report page.html"
    assert.equal(126, status)
    contains("It could not be run: status 126.\n<pre>", text)
  end)

  it("has what a Linux program writes", function()
    local text, output, status = page_of "run --linux --root . --report page.html open"
    assert.same({ "hello", 0 }, { output, status })
    contains(html.console("stdout", "hello\n"), text)
    contains("The program has ended, status 0.", text)
    text, output, status = page_of "run --linux --report page.html wrong"
    helper.contains("SIGSEGV", output)
    assert.equal(139, status)
    contains("SIGSEGV", text)
    text, output, status = page_of "run --linux --report page.html junk"
    assert.equal(126, status)
    helper.contains("luna: junk", output)
    contains('<div class="outcome bad">junk', text)
  end)
end)
