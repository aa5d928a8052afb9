-- SPDX-License-Identifier: MIT
-- exit:explain: the typical mistakes are named, and the rest is what can be seen.

local device = require "lunavisor.device"
local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains = helper.contains

local function names(explanation)
  local list = {}
  for i, one in ipairs(explanation.mistakes) do list[i] = one.name end
  return table.concat(list, ", ")
end

-- The explanation of how the guest stops, which is of one of these kinds.
local function explain(guest, kinds, options)
  local exit = assert(guest:run(options or { timeout = 2 }))
  assert.truthy((" " .. kinds .. " "):find(" " .. exit.kind .. " ", 1, true), tostring(exit))
  return exit:explain(), exit
end

local FATAL = "shutdown fault internal instruction exception"

helper.kvm("exit:explain", function()
  it("says what there is to say", function()
    local guest = helper.guest { mode = "long", source = "mov al, 5\n out 0x61, al\n ud2\n nop" }
    guest.vm:pio(0x60, 4, { name = "bell", write = function() end })
    local why, exit = explain(guest, "exception instruction")
    assert.equal(tostring(exit), why.sentence)
    assert.equal("", names(why))
    contains("64-bit mode, ring 0, 4-level paging, interrupts off", why.mode)
    assert.equal(2, #why.last)
    assert.equal(0x61, why.last[1].port)
    assert.equal(1, #why.devices)
    contains("the device at port 0x60 (bell, given at ", why.devices[1].text)
    contains("write of 1 byte at port 0x61, value 0x5", why.devices[1].text)
    assert.equal(guest.cpu.rsp, why.registers.rsp)
    local text = tostring(why)
    local parts = { "Mode: ", "Last exits:\n  pio", "Registers:\n  rax", "  idtr (base " }
    for _, part in ipairs(parts) do
      contains(part, text)
    end
    if luna.disasm "\x90" then
      assert.equal("ud2", why.code[1].text)
      assert.is_true(why.code[1].marked)
      assert.equal(8, #why.code)
      contains("Code:\n  => 0x1004: 0f 0b", text)
    end
  end)

  it("names the place by its symbol", function()
    local source = "mov al, 5\n main:\n nop\n ud2"
    local guest = helper.guest { mode = "long", source = source }
    local _, labels = luna.asm(source, { bits = 64, org = 0x1000 })
    guest.vm.symbols = labels
    local why = explain(guest, "exception instruction")
    assert.equal("main+0x1", why.symbol)
    contains("In: main+0x1", tostring(why))
  end)

  for mode, words in pairs { real = "real mode, ring 0, no paging",
    protected = "32-bit protected mode, ring 0, no paging",
    user = "64-bit mode, ring 3, 4-level paging" } do
    it("tells the mode " .. mode, function()
      local why = explain(helper.guest { mode = mode, source = "out 0x10, al" }, "pio")
      contains(words, why.mode)
      assert.equal("", names(why))
    end)
  end

  describe("tells which registers have changed", function()
    local SOURCE = "mov ecx, 5\n out 0x10, al\n mov ebx, 2\n mov edx, 3\n ud2"

    -- "rbx 0x0" for each that has changed, with what it was, but for rip and rflags.
    local function changes(why)
      local list = {}
      for name, before in pairs(why.changed) do
        if name ~= "rip" and name ~= "rflags" then list[#list + 1] = name .. luna.hex(before) end
      end
      table.sort(list)
      return table.concat(list, " ")
    end

    it("since the run has begun", function()
      local guest = helper.guest { mode = "long", source = SOURCE }
      guest.cpu.rcx, guest.cpu.rdx, guest.cpu.rsi = 0x11, 3, 0x66
      local why = explain(guest, "pio")
      assert.equal("rcx0x11", changes(why))
      guest.cpu.rdi = 0x77
      guest.cpu:answer()
      why = explain(guest, "exception instruction")
      assert.equal("rbx0x0", changes(why))
      contains("\nChanged, with * below: rbx 0x0 -> 0x2, ", tostring(why))
      contains("rbx*      0000000000000002", tostring(why))
      contains("rcx       0000000000000005", tostring(why))
    end)

    for _, how in ipairs { "cpu", "vm" } do
      it(("since a handler has let the guest go on, with %s:run"):format(how), function()
        local guest, seen = helper.guest { mode = "long", source = SOURCE }, nil
        guest.cpu:on("pio", function(cpu, exit)
          seen = cpu.started and "rcx0x0" or changes(exit:explain()) -- a thread has it then
          cpu.rdx = 2
          return "continue"
        end)
        local why = assert(guest[how]:run({ timeout = 60 })):explain()
        assert.equal("rcx0x0", seen)
        assert.equal("rbx0x0 rdx0x2", changes(why))
      end)
    end

    it("and counts no exit of a device", function()
      local guest = helper.guest { mode = "long", source = SOURCE }
      guest.vm:pio(0x10, 1, { write = function() end })
      guest.cpu.rdx = 2
      assert.equal("rbx0x0 rcx0x0 rdx0x2", changes(explain(guest, "exception instruction")))
    end)

    it("where nothing has", function()
      local guest = helper.guest { mode = "long", source = "ud2" }
      local why = explain(guest, "exception instruction")
      assert.equal("", changes(why))
      assert.is_nil(why.changed.rbx)
    end)
  end)

  it("sees that there is no memory at rip", function()
    local why = explain(helper.guest { mode = "protected", source = "jmp 0x40000000" }, FATAL)
    contains("no code", names(why))
    contains("Likely: the vCPU executes where nothing is: gva 0x40000000", tostring(why))
  end)

  it("sees that it runs through zeros", function()
    local guest = helper.guest { mode = "long", source = "mov rax, 0x40000000\n jmp 0x9000" }
    local why = explain(guest, FATAL)
    contains("zeros", names(why))
    contains("the vCPU executes zeros at 0x900", tostring(why))
  end)

  it("takes the zeros behind an instruction that was done for none", function()
    assert.equal("halted", names(explain(helper.guest { source = "hlt" }, "hlt")))
    local store = helper.guest { mode = "long", source = "mov eax, 0x40000000\n mov [rax], al" }
    assert.equal("", names(explain(store, "fault")))
  end)

  it("sees that there is no IDT", function()
    local guest = helper.guest { mode = "protected",
      source = "lidt [none]\n ud2\n none: dw 0\n dd 0" }
    local why = explain(guest, "shutdown")
    contains("no idt", names(why))
    contains("#UD: it ends at limit 0x0", tostring(why))
  end)

  it("sees gates that are not present", function()
    local guest = helper.guest { mode = "protected",
      source = "lidt [none]\n ud2\n none: dw 0x7ff\n dd 0x9000" }
    local why = explain(guest, "shutdown")
    contains("its gate at 0x9030 is not present", tostring(why))
  end)

  it("sees that the stack is outside of memory", function()
    local guest = helper.guest { mode = "protected", source = "mov esp, 0x40000000\n push eax" }
    local why = explain(guest, FATAL)
    contains("no stack", names(why))
    contains("rsp is 0x3ffffffc: the access to gpa 0x3ffffffc was one to the stack", tostring(why))
    guest = helper.guest { mode = "long", source = "mov rsp, 0x7000000000\n push rax" }
    why = explain(guest, FATAL)
    contains("no stack", names(why))
    contains("rsp is 0x7000000000: gva 0x6ffffffff8 leads nowhere", tostring(why))
  end)

  it("sees that the stack is in memory that may not be written", function()
    local guest = helper.guest { mode = "protected", source = "ud2" }
    guest.vm.default:protect(0x8000, 0x1000, "r-x")
    guest.cpu.rsp = 0x9000
    local why = explain(guest, FATAL)
    contains("no stack", names(why))
    contains(why.sentence:find "^shutdown" and "whose region has the rights r-x"
      or "the access to gpa 0x8ffc was one to the stack", tostring(why))
  end)

  it("takes an empty stack at the end of memory for none", function()
    local guest = helper.guest { mode = "protected", rsp = 0x100000,
      source = "mov eax, 0x40000000\n mov [eax], al\n nop" }
    assert.equal("", names(explain(guest, "fault")))
  end)

  it("takes no stack for the cause of an exception that is about none", function()
    local guest = helper.guest { mode = "user", rsp = 0, source = "mov eax, 5\n hlt" }
    assert.equal("", names(explain(guest, "exception")))
    guest = helper.guest { mode = "user", rsp = 0, source = "push rax\n hlt" }
    assert.equal("no stack", names(explain(guest, "exception")))
  end)

  it("sees long mode without PAE", function()
    local guest = helper.guest { mode = "protected", source = [[
      lidt [none]
      mov ecx, 0xc0000080
      rdmsr
      or eax, 0x100
      wrmsr
      mov eax, cr0
      or eax, 0x80000000
      mov cr0, eax
      none: dw 0
      dd 0]] }
    guest.cpu.cr4 = 0
    local why = explain(guest, FATAL .. " fail_entry")
    assert.equal("long tables", why.mistakes[1].name)
    contains("CR4.PAE", why.mistakes[1].text)
  end)

  it("sees long mode whose tables are not there", function()
    local guest = helper.guest { mode = "long", source = "lidt [none]\n mov eax, 0x9000\n"
      .. "mov cr3, rax\n nop\n none: dw 0\n dq 0" }
    local why = explain(guest, FATAL .. " fail_entry")
    assert.equal("long tables", why.mistakes[1].name)
    contains("the PML4 table at CR3 0x9000 has no entry for the code", tostring(why))
    assert.is_false(why.walk.present)
    contains("Page walk: gva 0x10", tostring(why))
    contains("\n  1: 0x0 at gpa 0x9000", tostring(why))
  end)

  it("shows the walk of a page fault and what has refused it", function()
    local guest = helper.guest { mode = "long", source = "mov rax, 0x7000000000\n mov [rax], al" }
    local why, exit = explain(guest, "exception")
    assert.equal("#PF", exit.name)
    assert.equal(exit.address, why.walk.gva)
    contains("leads nowhere", why.refused)
  end)

  it("says which entry forbids a write", function()
    local guest = helper.guest { mode = "user", source = "mov eax, 0x9000\n mov [rax], al" }
    local walk = guest.cpu:translate(0x9000)
    local last = walk.entries[#walk.entries]
    local low = luna.u64.tonumber(luna.u64.band(last.value, 0xfd))
    guest.cpu.space:write(last.gpa, string.char(low))
    local why = explain(guest, "exception")
    contains(("at gpa 0x%x, allows no writes"):format(last.gpa), why.refused)
    contains("allows no writes", tostring(why))
  end)

  it("sees HLT with interrupts off, and not with them on", function()
    contains("HLT with interrupts off", tostring(explain(helper.guest { source = "hlt" }, "hlt")))
    assert.equal("", names(explain(helper.guest { source = "sti\n hlt" }, "hlt")))
  end)

  it("sees a loop that polls a register", function()
    local guest = helper.guest { mode = "long",
      source = "again: in al, 0x64\n test al, 1\n jz again" }
    guest.vm:pio(0x64, 1, { read = function() return 0x1c end })
    local why = explain(guest, "timeout", { timeout = 0.6 })
    assert.equal("polls", names(why))
    contains("a loop polls port 0x64, and has not got what it waits for; the last answer was 0x1c",
      tostring(why))
    assert.equal(10, #why.last)
  end)

  it("takes reads of two registers for no such loop", function()
    local guest = helper.guest { mode = "long",
      source = "again: in al, 0x64\n in al, 0x60\n jmp again" }
    guest.vm:pio(0x60, 5, { read = function() return 0 end })
    assert.equal("", names(explain(guest, "timeout", { timeout = 0.2 })))
  end)

  it("names interrupts that are up and lead nowhere, where the guest waits", function()
    local bell = device "bell" {
      registers = { RING = { at = 0 }, OUT = { at = 4, write = function(dev) dev.RING = 1 end } },
      lines = { irq = { status = "RING" }, out = true },
    }
    local guest = helper.guest { mode = "long",
      source = "mov rbx, 0xd0000000\n mov [rbx], eax\n mov dword [rbx + 4], 1\n hlt\n hlt\n ud2" }
    local dev = guest.vm:attach(bell { log = false }, { mmio = 0xd0000000 })
    dev.lines.out = true
    local why = explain(guest, "hlt")
    assert.same({ "bell.irq is up and drives nothing: vm:attach(bell, { irq = 5 }) or "
      .. "bell.irq:connect(...) says what it drives" }, why.lines)
    contains("Lines that lead nowhere:\n  bell.irq is up", tostring(why))
    local heard = dev.irq:connect(function() end)
    assert.same({}, explain(guest, "hlt").lines)
    dev.irq:disconnect(heard)
    assert.same({}, explain(guest, FATAL).lines)
  end)

  it("explains every vCPU of a run that none has ended", function()
    local guest = helper.guest { mode = "long", source = "jmp $" }
    helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x9000 })
    local why = assert(guest.vm:run { timeout = 0.05 }):explain()
    assert.equal(2, #why.vcpus)
    contains("vcpu 1 at rip 0x1000", tostring(why))
    contains("64-bit mode", why.vcpus[2].mode)
  end)

  it("says where it is too late to look", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x11, al" }
    local exit = guest:stops "pio"
    guest.cpu:answer()
    guest:stops "pio"
    contains("the vCPU has gone on since", tostring(exit:explain()))
    guest.cpu:close()
    local why = exit:explain()
    contains("the vCPU is closed", why.problem)
    assert.is_nil(why.registers)
    helper.raises("an exit expected, got table", function() exit.explain {} end)
  end)
end)
