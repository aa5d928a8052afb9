-- SPDX-License-Identifier: MIT
-- Runs every example under this engine, and the C ones that are built, and checks what they print,
-- also against the picture of it in examples/README.md.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local markdown = require "spec.support.markdown"

local has_luv = require "spec.support.luv" ~= false

-- By file: the whole output as a pattern, and the argument. "@check" is a file with the text
-- 123456789, whose CRC-32 is the check value of every table of CRCs.
local expected = {
  ["hello.lua"] = { "^hello from a 16%-bit guest\nhlt at rip 0x100f\n27 exits\nspace 0\n"
    .. "000000000000%-000000200000 rwx rwx buffer 1%+0x0 slot 0$" },
  ["echo.lua"] = { "^to the guest:   a guest reads a port, answers, and halts\n"
    .. "from the guest: A GUEST READS A PORT, ANSWERS, AND HALTS$" },
  ["mmio_counter.lua"] = { "^the guest counted to 30 in steps of 3 and summed up 165$" },
  ["native_speed.lua"] = { "^/%S+: 9 bytes, CRC%-32 cbf43926\n"
    .. "guest [%d.]+ ms, host in Lua [%d.]+ ms$", "@check" },
  ["two_views.lua"] = { '^space 0: "the page of space 0", counter 1\n'
    .. '  fault: write at gpa 0x8000\nspace 1: "the page of the view", counter 1\n'
    .. 'space 0: "the page of space 0", counter 2\nspace 1\n'
    .. "000000000000%-000000010000 r%-x r%-x buffer %d+%+0x0 slot %d+\n"
    .. "000000010000%-000000011000 rw%- rwx buffer %d+%+0x1000 slot %d+\n" },
  ["hv_spaces.lua"] = { '^space 0: "the default space", counter 1\n'
    .. "  EPT violation at 0x8100, qualification 0x1[8a]a\n"
    .. 'space 1: "another one", counter 0\nspace 0: "the default space", counter 2\n'
    .. "busy: cannot destroy space 1: [^\n]+$" },
  ["bank_switch.lua"] = { "^bank  0 says hello\n%.%.%.\nbank 15 says hello\n"
    .. "16 switches, slot %d+ all the time: true$" },
  ["demand_paging.lua"] = { '^the guest read "in t"\nthe guest read "the "\n'
    .. "66 of 512 pieces mapped$" },
  ["stealth_breakpoint.lua"] = { "^the breakpoint was hit 3 times, the function ran 3 times\n"
    .. "the guest's checksum of the code: (%x+) before, %1 after\n"
    .. "6 moves between the spaces$" },
  ["teach_instruction.lua"] = { "^the guest did ud1 eax, %[rsi%] 9 times\n"
    .. "CRC%-32 of 123456789: 0xcbf43926$" },
  ["event_loop.lua"] = { has_luv
    and "uart 1: hello from the first vCPU\n.*some ticks of luv, some beats of the VM$"
    or "^this example needs luv" },
  ["hosting.lua"] = { has_luv
    and "^one said: one> hello oneq\none has ended: stopped\n"
      .. "two said: two> hello twoq\ntwo has ended: stopped$"
    or "^this example needs luv" },
  ["process.lua"] = { "^the program says: /visitors was opened for the first time\n"
    .. "gettid is call 186, and would be answered with 1000\nexited with status 42\t1\n"
    .. "SIGSEGV\t139\ngva 0x0 leads nowhere: the level 2 entry 0x0 at gpa 0x4000 is not present, "
    .. "4%-level paging$" },
  ["doorbell.lua"] = { "^the doorbell rang 12 times\n"
    .. "requests: 1 4 9 16 25 36 49 64 81 100 121 144$" },
  ["trace.lua"] = { "^0x1000  rax = 0x30\n0x1005  rbx = 0x24\n0x100a  %-\n"
    .. "0x100c  rax = 0x1, rdx = 0xc\n.*\n0x1010  rbx = 0x0\n0x1012  %-\n0x1014  %-\n"
    .. "the guest gives 12 to port 0x10\n"
    .. "debug %(%l+ breakpoint at 0x1010 %(2 hits%)%) at rip 0x1010: [^\n]+\n"
    .. "round 2, and the divisor is 0xc$" },
  ["timer_interrupt.lua"] = { "^10 ms: tick\n20 ms: tick\n30 ms: tick\n40 ms: tick\n50 ms: tick\n"
    .. "hlt after 5 ticks$" },
  ["smp.lua"] = { luna.probe().features.split_irqchip == 1
    and "^second: uninitialized\nfirst:  starting the other one\nsecond: started in real mode\n"
      .. "first:  both are up\nstopped: off$"
    or "^this host's KVM has no LAPICs" },
  ["edu/driver.lua"] = { "^the driver says done after 200 us, 10! is 3628800\n"
    .. 'in the device\'s buffer: "through the device"\nback in memory: "through the device"$' },
  ["embed.c"] = { "^hello from a guest run by C\n29 exits$" },
}

local function files()
  local list = {}
  for name in (helper.sh "cd examples && ls -d * edu/driver.lua"):gmatch "[^\n]+" do
    if name:match "%.lua$" or name:match "%.c$" then list[#list + 1] = name end
  end
  return list
end

-- The pictures of the page, by the heading above them.
local pictures = {}
for _, block in ipairs(markdown.page("examples/README.md").blocks) do
  if block.language == "text" then pictures[block.heading] = block.text end
end

-- A line without what differs from run to run: numbers, and the file that it is about.
local function shape(line)
  return (line:gsub("^/%S+:", "FILE:"):gsub("%d[%x.x]*", "0"))
end

-- Each line of the picture, but for "...", is one of the output.
local function check_picture(picture, output)
  local found = {}
  for line in (output .. "\n"):gmatch "([^\n]*)\n" do found[shape(line)] = true end
  for line in picture:gmatch "[^\n]+" do
    if line ~= "..." and not found[shape(line)] then
      error(("the page shows %q, which is not in:\n%s"):format(line, output), 2)
    end
  end
end

describe("the examples", function()
  it("have a picture each", function()
    for name in helper.sh("cd examples && ls *.lua *.c hvf/*.c edu/driver.lua"):gmatch "[^\n]+" do
      assert.truthy(pictures[name], name)
    end
  end)

  it("are all expected here", function()
    local missing = {}
    for _, name in ipairs(files()) do
      if not expected[name] then missing[#missing + 1] = name end
    end
    assert.same({}, missing)
    assert.truthy(#files() >= 5)
  end)
end)

-- The example of a device has a spec of its own.
local spec = assert(loadfile "examples/edu/edu_spec.lua")
if setfenv then
  setfenv(spec, getfenv(1))
else
  debug.setupvalue(spec, 1, _ENV)
end
spec()

helper.kvm("the example", function()
  for _, name in ipairs(files()) do
    local case = expected[name]
    if case then
      it(name .. " prints what it should", function()
        local command
        if name:match "%.c$" then
          local library = os.getenv "LUNAVISOR_LIBRARY"
          local build = library and library:match "^(.*)/" or "build"
          command = build .. "/examples/" .. name:gsub("%.c$", "")
          if helper.sh("test -x " .. command .. " || echo no") == "no" then
            pending(command .. " is not built")
          end
        else
          command = helper.command("examples/" .. name)
        end
        local argument = case[2] == "@check" and helper.file "123456789" or ""
        local output, status = helper.sh(command .. " " .. argument)
        assert.equal(0, status, output)
        assert.matches(case[1], output)
        if not output:match "^this " then check_picture(pictures[name], output) end
      end)
    end
  end

  -- As nc would; bash has no other program to go by.
  it("hosting.lua serves consoles on TCP ports", function()
    if not has_luv then pending "luv is not installed (Debian: lua-luv)" end
    local said = helper.file ""
    local script = helper.file(([[
      %s serve >%s 2>&1 & pid=$!
      until [ "$(grep -c port %s)" = 2 ]; do kill -0 $pid || exit 1; sleep 0.05; done
      for name in two one; do
        port=$(sed -n "s/$name: port //p" %s)
        exec 3<>/dev/tcp/127.0.0.1/$port && printf 'ab q' >&3
        timeout 60 cat <&3
        echo
      done
      wait $pid; echo "status $?"; grep ended %s]]):format(helper.command "examples/hosting.lua",
      said, said, said, said))
    local output = helper.sh("timeout 240 bash " .. script)
    assert.equal("two> ab q\none> ab q\nstatus 0\none has ended: stopped\n"
      .. "two has ended: stopped", output)
  end)
end)
