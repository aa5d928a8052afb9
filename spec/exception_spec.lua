-- SPDX-License-Identifier: MIT
-- The last exceptions and interrupts of a vCPU, and those that a triple fault was made of.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"
local contains = helper.contains

local IDT, HANDLER, AWAY = 0x6000, 0x3000, luna.u64 "0x7000000000"

-- A gate: where it leads, its type with the present bit. In long mode of 16 bytes.
local function gate(guest, long, vector, handler, kind)
  local selector = luna.u64.tonumber(guest.cpu.cs.selector)
  handler = luna.u64(handler)
  local low = luna.u64.tonumber(luna.u64.band(handler, 0xffffffff))
  local function byte(value, n) return math.floor(value / 256 ^ n) % 256 end
  local bytes = string.char(byte(low, 0), byte(low, 1), byte(selector, 0), byte(selector, 1), 0,
    kind or 0x8e, byte(low, 2), byte(low, 3))
  if long then
    local high = luna.u64.tonumber(luna.u64.rshift(handler, 32))
    bytes = bytes .. string.char(byte(high, 0), byte(high, 1), byte(high, 2), byte(high, 3), 0, 0,
      0, 0)
  end
  guest.ram:write(IDT + vector * #bytes, bytes)
end

-- A guest with an IDT of its own, by default of no gates and of the largest limit.
local function guest_with(mode, source, limit, make)
  local guest = (make or helper.guest) { mode = mode, source = source }
  guest.cpu.idtr.base, guest.cpu.idtr.limit = IDT, limit or 0xfff
  return guest
end

local function texts(list)
  local all = {}
  for i, one in ipairs(list) do all[i] = tostring(one) end
  return table.concat(all, "\n")
end

local function names(list)
  local all = {}
  for i, one in ipairs(list) do all[i] = one.name .. (one.met and ">" .. one.met.name or "") end
  return table.concat(all, " ")
end

-- The explanation of the triple fault that the guest ends with: the last exceptions are these.
local function chain(guest, expected)
  local exit = guest:run()
  local kinds = { shutdown = true, instruction = guest.vm.accel == "kvm" }
  assert.is_true(kinds[exit.kind], tostring(exit))
  local why = exit:explain()
  local found = names(why.exceptions)
  assert.equal(expected, found:sub(-#expected), texts(why.exceptions))
  assert.equal(guest.vm.accel == "kvm", why.again)
  local last = why.exceptions[#why.exceptions]
  assert.equal("#DF", last.name)
  assert.is_true(last.shutdown)
  contains(", a triple fault", tostring(why))
  contains(why.again and "Exceptions (of the instruction, done again on the software CPU):\n  "
    or "Last exceptions and interrupts:\n  ", tostring(why))
  return why.exceptions, tostring(why)
end

helper.kvm("a triple fault", function()
  if not luna.probe().accelerators.soft.available then
    it("is explained", function() pending(luna.probe().accelerators.soft.message) end)
    return
  end

  it("without an IDT is explained", function()
    local list = chain(guest_with("protected", "nop\n ud2", 0), "#UD>#GP #GP>#GP #DF>#GP")
    assert.equal("#UD at rip 0x1001; delivering it met #GP(0x33): its gate is beyond the IDT's "
      .. "limit", tostring(list[1]))
    assert.equal("limit", list[3].met.stage)
    assert.is_false(list[1].delivered)
    assert.equal(0x33, list[2].error_code)
    assert.equal(0x43, list[3].met.error_code)
  end)

  it("by a page fault beyond the IDT's limit is explained", function()
    local guest = guest_with("long", "mov rax, 0x7000000000\n mov [rax], al", 0x8f)
    gate(guest, true, 8, HANDLER, 0x0e)
    local list = chain(guest, "#PF>#GP #DF>#NP")
    assert.equal("#PF writing 0x7000000000 at rip 0x100a, error code 0x2; delivering it met "
      .. "#GP(0x73): its gate is beyond the IDT's limit", tostring(list[1]))
    assert.equal(AWAY, list[1].address)
    assert.equal(0, list[1].ring)
    assert.equal("#DF at rip 0x100a; delivering it met #NP(0x43): its gate is not present, a "
      .. "triple fault", tostring(list[2]))
  end)

  it("by gates that are empty is explained", function()
    local _, text = chain(guest_with("protected", "ud2"), "#UD>#GP #GP>#GP #DF>#GP")
    contains("its gate is empty, or of no type that leads to a handler", text)
  end)

  it("by an IDT that is not there is explained", function()
    local guest = guest_with("long", "ud2")
    guest.cpu.idtr.base = AWAY
    local list = chain(guest, "#UD>#PF #PF>#PF #DF>#PF")
    contains("delivering it met #PF(0x0): its gate at 0x70000000e0 cannot be read",
      tostring(list[2]))
  end)

  it("by a handler's code segment that is none is explained", function()
    local guest = guest_with("protected", "ud2")
    for _, vector in ipairs { 6, 8, 13 } do
      guest.ram:write(IDT + vector * 8, "\0\x30\xf8\x0f\0\x8e\0\0")
    end
    local list = chain(guest, "#UD>#GP #GP>#GP #DF>#GP")
    contains("met #GP(0xff9): the handler's selector 0xff8 is of no code segment that it can run "
      .. "in", tostring(list[1]))
  end)

  it("by a stack without memory is explained, and changes nothing", function()
    local guest = guest_with("long", "ud2")
    for _, vector in ipairs { 6, 8, 14 } do gate(guest, true, vector, HANDLER) end
    guest.cpu.rsp = 0x10 -- a part of the frame fits
    local exit = guest:stops "shutdown"
    guest.ram:write(0, ("?"):rep(0x40))
    local why = exit:explain()
    assert.equal("#UD>#PF #PF>#PF #DF>#PF", names(why.exceptions))
    contains("#PF writing 0xfffffffffffffff8 at rip 0x1000, error code 0x2; delivering it met "
      .. "#PF(0x2): the stack at 0xfffffffffffffff8 cannot be written", tostring(why))
    assert.equal(("?"):rep(0x40), guest.ram:read(0, 0x40))
  end)

  it("in the handler of #DF is explained", function()
    local guest = guest_with("protected", "ud2")
    gate(guest, false, 8, HANDLER)
    local code, labels = luna.asm("double: lidt [none]\n mov eax, 0xff8\n mov ds, ax\n"
      .. "none: dw 0\n dd 0", { bits = 32, org = HANDLER })
    guest.ram:write(HANDLER, code)
    guest.vm.symbols = labels
    local list, text = chain(guest, "#GP>#GP #DF>#GP")
    local one = list[#list - 1]
    assert.equal(0xff8, one.error_code)
    assert.equal("double+0xc", one.symbol)
    contains("#GP at rip 0x300c <double+0xc>, error code 0xff8; delivering it met #GP(0x6b)", text)
  end)

  it("in a handler that is not there is explained", function()
    local guest = guest_with("long", "mov rax, 0x7100000000\n mov [rax], al")
    for _, vector in ipairs { 8, 14 } do gate(guest, true, vector, AWAY) end
    guest.cpu.rsp = 0x100
    local _, text = chain(guest, "#PF>#PF #DF>#PF")
    contains("#PF executing 0x7000000000 at rip 0x7000000000, error code 0x10; delivering it met",
      text)
    if guest.vm.accel == "soft" then
      contains("#PF executing 0x7000000000 at rip 0x7000000000, error code 0x10 (", text)
    end
  end)

  it("in real mode is explained", function()
    local guest = guest_with("real", "ud2", 3)
    guest.ram:u32(IDT + 4 * 6, 0x1000) -- KVM's emulator looks at no limit, until the stack is here
    local list = chain(guest, "#UD>#GP #GP>#GP #DF>#GP")
    assert.is_nil(list[1].met.error_code)
  end)

  it("that an INT n leads to is explained", function()
    local list, text = chain(guest_with("protected", "int 0x80", 0x10),
      "INT 0x80>#GP #GP>#GP #DF>#GP")
    contains("INT 0x80 in front of rip 0x1002; delivering it met #GP(0x402): its gate is beyond",
      tostring(list[1]))
    contains("no exception can be taken with the IDT at 0x6000", text)
  end)

  it("whose instruction leads to none any more is not", function()
    local guest = guest_with("protected", "ud2", 0)
    local exit = guest:stops "shutdown"
    if guest.vm.accel ~= "kvm" then return end
    guest.ram:write(0x1000, "\x90")
    local why = exit:explain()
    assert.same({ 0, false }, { #why.exceptions, why.again })
  end)

  it("behind which KVM has reset the vCPU, as on AMD's processors, is said to be", function()
    local guest = guest_with("protected", "ud2", 0)
    local exit = guest:stops "shutdown"
    local cpu = guest.cpu
    cpu.cr0, cpu.rip, cpu.cs.base, cpu.cs.selector = 0x10, 0xfff0, 0xffff0000, 0xf000
    local problem = exit:explain().problem
    if guest.vm.accel ~= "kvm" then return assert.is_nil(problem) end
    contains("the vCPU stands where INIT puts it", problem)
  end)
end)

helper.kvm("cpu:last_exceptions", function()
  it("is what the capability says", function()
    local guest = helper.guest { source = "hlt" }
    if luna.capability "exceptions" > 0 then
      assert.equal(0, #guest.cpu:last_exceptions())
    else
      helper.refused("unsupported", "KVM does not keep them", guest.cpu:last_exceptions())
    end
  end)
end)

soft.block("cpu:last_exceptions on the software CPU", function()
  local function real(source)
    local guest = soft.guest { source = source }
    for vector = 0, 0x40 do guest.ram:write(vector * 4, "\0\x30\0\0") end
    guest.ram:write(HANDLER, "\xcf") -- iret
    return guest
  end

  it("has what the guest was given, the oldest first", function()
    local guest = real "int 0x21\n int3\n xor cl, cl\n div cl\n hlt"
    guest.ram:write(HANDLER, helper.code([[
      mov bp, sp
      cmp byte [0x1005], 0xf6
      jne back
      cmp word [bp], 0x1005
      jne back
      add word [bp], 2
      back: iret]], 16, HANDLER))
    guest:stops "hlt"
    local list = assert(guest.cpu:last_exceptions())
    assert.equal("INT 0x21 INT 0x3 #DE", names(list))
    assert.equal("instruction", list[1].source)
    assert.equal("exception", list[3].source)
    assert.equal(luna.u64(0x1002), list[1].rip)
    assert.equal(luna.u64(0x1005), list[3].rip)
    assert.is_true(list[3].delivered)
    assert.is_nil(list[3].met)
    assert.same({ 1, 2, 3 }, { list[1].serial, list[2].serial, list[3].serial })
    assert.equal("INT 0x21 in front of rip 0x1002\nINT 0x3 in front of rip 0x1003\n"
      .. "#DE at rip 0x1005", tostring(list))
    assert.equal("#DE", guest.cpu:last_exceptions(1)[1].name)
    assert.equal(0, #guest.cpu:last_exceptions(0))
  end)

  it("has interrupts", function()
    local guest = real "sti\n nop\n hlt\n hlt"
    assert(guest.cpu:irq(0x20))
    guest:stops "hlt"
    assert(guest.cpu:nmi())
    guest:stops "hlt"
    local list = guest.cpu:last_exceptions()
    assert.equal("interrupt 0x20 NMI", names(list))
    assert.equal("interrupt", list[2].source)
  end)

  it("keeps sixteen", function()
    local guest = real "mov cx, 20\n again: int 0x30\n loop again\n hlt"
    guest:stops "hlt"
    local list = guest.cpu:last_exceptions(100)
    assert.equal(16, #list)
    assert.same({ 5, 20 }, { list[1].serial, list[16].serial })
    assert.equal("INT 0x30 in front of rip 0x1005 (16 times)",
      tostring(list):gsub(" times%).*", " times)"))
  end)

  it("has what failed without a triple fault, and goes into explanations", function()
    local guest = guest_with("protected", "int 0x21", nil, soft.guest)
    gate(guest, false, 13, HANDLER)
    guest.ram:write(HANDLER, "\xf4")
    local why = guest:stops("hlt"):explain()
    assert.equal("INT 0x21>#GP #GP", names(why.exceptions))
    contains("Last exceptions and interrupts:\n  INT 0x21 in front of rip 0x1002; delivering it "
      .. "met #GP(0x10a): its gate is empty, or of no type that leads to a handler, or not for "
      .. "this ring\n  #GP at rip 0x1000, error code 0x10a\n", tostring(why))
    assert.is_false(why.again)
  end)

  it("refuses a count that is none", function()
    local guest = soft.guest { source = "hlt" }
    helper.raises("cpu:last_exceptions: count", function() guest.cpu:last_exceptions(-1) end)
  end)
end)

-- The host's memory under the stack is gone when the frame is pushed.
soft.block("an exception whose frame meets memory that is gone", function()
  local function cut(source, prepare)
    local guest = soft.guest { mode = "protected", source = source }
    local stack = helper.keep(luna.buffer { size = "16K", memfd = true })
    assert(guest.vm.default:map(stack, 0x400000))
    guest.cpu.rsp = 0x402800
    for vector = 0, 0x40 do gate(guest, false, vector, HANDLER + vector * 2) end
    guest.ram:write(HANDLER, ("\xf4\x90"):rep(0x41))
    guest.cpu.idtr.base, guest.cpu.idtr.limit = IDT, 0xfff
    if prepare then prepare(guest) end
    assert(io.open("/proc/self/fd/" .. stack:fd(), "wb")):close()
    guest:stops "host_fault"
    guest.cpu.rsp = 0x8000
    guest:stops "hlt"
    return math.floor((luna.u64.tonumber(guest.cpu.rip) - HANDLER) / 2)
  end

  it("comes again with its instruction, and is no double fault", function()
    assert.equal(13, cut "mov ax, 0xff8\n mov ds, ax")
  end)

  it("comes again where it is an interrupt", function()
    assert.equal(0x20, cut("sti\n nop\n again: jmp again", function(guest)
      assert(guest.cpu:irq(0x20))
    end))
  end)

  it("comes again where it is an NMI", function()
    assert.equal(2, cut("again: jmp again", function(guest) assert(guest.cpu:nmi()) end))
  end)
end)
