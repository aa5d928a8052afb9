-- SPDX-License-Identifier: MIT
-- cpu:backtrace: the call chain by frame pointers.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, hex = luna.u64, luna.hex

-- main calls outer, which calls inner, which writes to a port.
local function chain(bp, sp)
  return (([[
    xor BP, BP
    call outer
  back0:
    jmp $
  outer:
    push BP
    mov BP, SP
    call inner
  back1:
    pop BP
    ret
  inner:
    push BP
    mov BP, SP
    sub SP, 16
  here:
    out 0x10, al
    nop]]):gsub("BP", bp):gsub("SP", sp))
end

local registers = {
  real = { "bp", "sp" }, protected = { "ebp", "esp" }, long = { "rbp", "rsp" },
  user = { "rbp", "rsp" },
}

-- The offsets of the labels, from the assembler.
local function places(mode, source)
  local bits = mode == "real" and 16 or mode == "protected" and 32 or 64
  local _, labels = assert(luna.asm(source, { bits = bits, org = 0x1000 }))
  return { labels.back0, labels.back1, labels.here }
end

local function rips(trace)
  local list = {}
  for i, frame in ipairs(trace) do list[i] = hex(frame.rip) end
  return list
end

helper.kvm("cpu:backtrace", function()
  for mode, names in pairs(registers) do
    it("finds the callers in mode " .. mode, function()
      local source = chain(names[1], names[2])
      local guest = helper.guest { mode = mode, source = source }
      local at = places(mode, source)
      guest:stops "pio"
      guest.cpu:answer()
      local trace = guest.cpu:backtrace()
      assert.equal(3, #trace)
      local rip = u64.tonumber(trace[1].rip) -- at the OUT, or behind it
      assert.truthy(rip == at[3] or rip == at[3] + 2, rip)
      assert.same({ hex(at[2]), hex(at[1]) }, { rips(trace)[2], rips(trace)[3] })
      assert.equal(hex(guest.cpu.rbp), hex(trace[1].rbp))
      assert.equal("0x0", hex(trace[3].rbp))
      if luna.disasm "\x90" then
        assert.equal("pop " .. names[1], trace[2].instruction)
        assert.equal(("jmp 0x%x"):format(at[1]), trace[3].instruction)
        assert.equal(("#2  rip 0x%x  rbp 0x0  jmp 0x%x"):format(at[1], at[1]),
          tostring(trace):match "[^\n]+$")
        assert.equal(("rip 0x%x  rbp 0x0  jmp 0x%x"):format(at[1], at[1]), tostring(trace[3]))
      end
      assert.equal(1, #guest.cpu:backtrace(1))
      assert.equal(2, #guest.cpu:backtrace(2))
    end)
  end

  -- A vCPU whose frames are as given: { address, saved rbp, return address }.
  local function with_frames(frames)
    local guest = helper.guest { mode = "long", source = "hlt" }
    for _, frame in ipairs(frames) do
      guest.ram:u64(frame[1], frame[2])
      guest.ram:u64(frame[1] + 8, frame[3])
    end
    guest.cpu.rbp = frames[1] and frames[1][1] or 0
    return guest.cpu
  end

  it("has the stack's segment in real mode", function()
    local guest = helper.guest { source = "hlt" }
    guest.cpu.ss.base = 0x20000
    guest.cpu.rbp = u64 "0xdead8000" -- BP is its low half
    guest.ram:u16(0x28000, 0x9000)
    guest.ram:u16(0x28002, 0x1234)
    guest.ram:u16(0x29000, 0)
    guest.ram:u16(0x29002, 0x5678)
    assert.same({ "0x1000", "0x1234", "0x5678" }, rips(guest.cpu:backtrace()))
  end)

  it("ends at a frame pointer that is 0", function()
    assert.same({ "0x1000" }, rips(with_frames({}):backtrace()))
  end)

  it("ends at a return address that is 0", function()
    assert.same({ "0x1000", "0x2000" },
      rips(with_frames({ { 0x8000, 0x9000, 0x2000 }, { 0x9000, 0xa000, 0 } }):backtrace()))
  end)

  it("ends where the chain leads nowhere", function()
    for _, nowhere in ipairs { u64(0x40000000), u64 "0x800000000000", u64 "0xfffffffffffffffc" } do
      assert.same({ "0x1000", "0x2000" },
        rips(with_frames({ { 0x8000, nowhere, 0x2000 } }):backtrace()))
    end
    local cpu = with_frames { { 0x8000, 0x9000, u64 "0x800000000000" } }
    local trace = cpu:backtrace() -- a return address to nowhere is shown, without an instruction
    assert.equal("0x800000000000", hex(trace[2].rip))
    assert.is_nil(trace[2].instruction)
    assert.equal("rip 0x800000000000  rbp 0x9000", tostring(trace[2]))
  end)

  it("ends where the chain does not grow", function()
    assert.same({ "0x1000", "0x2000" },
      rips(with_frames({ { 0x8000, 0x8000, 0x2000 } }):backtrace()))
    assert.same({ "0x1000", "0x2000", "0x3000" },
      rips(with_frames({ { 0x8000, 0x9000, 0x2000 }, { 0x9000, 0x8000, 0x3000 } }):backtrace()))
  end)

  it("ends at its limit", function()
    local frames = {}
    for i = 1, 100 do frames[i] = { 0x8000 + 16 * i, 0x8010 + 16 * i, 0x2000 + i } end
    local cpu = with_frames(frames)
    assert.equal(64, #cpu:backtrace())
    assert.equal(7, #cpu:backtrace(7))
    assert.equal(101, #cpu:backtrace(1000))
    helper.raises("cpu:backtrace: max", function() cpu:backtrace(0) end)
  end)

  it("needs a vCPU that is open", function()
    local cpu = with_frames {}
    cpu:close()
    helper.raises("attempt to use a closed vcpu", function() cpu:backtrace() end)
  end)
end)
