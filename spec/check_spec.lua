-- SPDX-License-Identifier: MIT
-- cpu:check: silent for every state that the library makes and that guests reach, and a sentence
-- with the register, the bit and the rule for what the processor refuses.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64 = luna.u64

local function cpu_of(mode)
  return helper.guest { mode = mode, source = "hlt" }.cpu
end

helper.kvm("cpu:check", function()
  for _, mode in ipairs { "reset", "real", "protected", "long", "user" } do
    it("finds nothing in mode " .. mode .. ", before and after a run", function()
      local guest = helper.guest { mode = mode, source = "nop\n hlt" }
      assert.same({ true }, { guest.cpu:check() })
      if mode ~= "reset" then
        assert(guest:run())
        assert.same({ true }, { guest.cpu:check() })
      end
    end)
  end

  -- mode, what is changed, what is said
  local cases = {
    { "real", function(c) c.cr0 = 0x80000010 end, "cr0 bit 31 (PG) is set while bit 0 (PE)" },
    { "real", function(c) c.cr0 = 0x20000010 end, "cr0 bit 29 (NW) is set while bit 30 (CD)" },
    { "real", function(c) c.cr0 = u64(4, 0x10) end, "cr0 bit 34 is reserved" },
    { "real", function(c) c.cr4 = 2 ^ 15 end, "cr4 bit 15 is reserved" },
    { "real", function(c) c.cr4 = u64(8, 0) end, "cr4 bit 35 is reserved" },
    { "real", function(c) c.efer = 2 end, "efer bit 1 is reserved" },
    { "real", function(c) c.efer = 0x400 end, "efer bit 10 (LMA) is set while cr0 bit 31 (PG)" },
    { "long", function(c) c.cr4 = 0 end, "cr4 bit 5 (PAE) is clear while cr0.PG and efer.LME" },
    { "long", function(c) c.efer = 0x100 end, "efer bit 10 (LMA) is clear while" },
    { "long", function(c) c.efer = 0x400 end, "efer bit 10 (LMA) is set while efer bit 8 (LME)" },
    { "long", function(c) c.cr3 = u64(0x80000000, 0) end, "cr3 bit 63 is set: this processor's" },
    { "protected", function(c) c.cr3 = u64(0x80000000, 0) end, "cr3 bit 63 is set: this" },
    { "long", function(c) c.rip = u64 "0x800000000000" end, "rip 0x800000000000 is not canonical" },
    { "protected", function(c) c.rip = u64(1, 0) end, "rip 0x100000000 has more than 32 bits" },
    { "long", function(c) c.rflags = 0x8002 end, "rflags bit 15 is reserved" },
    { "long", function(c) c.rflags = 0x20002 end, "rflags bit 17 (VM) is set in long mode" },
    { "real", function(c) c.rflags = 0x20002 end, "rflags bit 17 (VM) is set outside of prot" },
    { "long", function(c) c.cs.access = 0xe09b end, "cs.access bits 13 (L) and 14 (D) are both" },
    { "protected", function(c) c.cs.access = 0xe09b end, "cs.access bit 13 (L) is set outside of" },
    { "protected", function(c) c.cs.access = 0xc091 end, "cs.access type 1 is no accessed code" },
    { "protected", function(c) c.cs.access = 0xc0f3 end, "cs.access DPL 3 is not 0, as type 3" },
    { "protected", function(c) c.cs.access, c.ss.access = 0xc093, 0xc0f3 end,
      "ss.access DPL 3 is not 0 while cs.access has type 3" },
    { "protected", function(c) c.cs.access = 0xc01b end, "cs.access bit 7 (P) is clear" },
    { "protected", function(c) c.cs.access = 0xc08b end, "cs.access bit 4 (S) must be 1" },
    { "protected", function(c) c.cs.access = 0xc0fb end, "cs.access DPL 3 does not go with ss" },
    { "protected", function(c) c.cs.access = 0x409b end, "cs.access bit 15 (G) is clear, but cs." },
    { "protected", function(c) c.ds.limit = 0x100 end, "ds.access bit 15 (G) is set, but bits 11" },
    { "protected", function(c) c.ss.access = 0xc09b end, "ss.access type 11 is no accessed" },
    { "real", function(c) c.ss.access = 0xf3 end, "ss.access DPL 3 is not 0 outside of" },
    { "protected", function(c) c.es.access = 0xc092 end, "es.access type 2: bit 0 (accessed)" },
    { "protected", function(c) c.es.access = 0xc099 end, "es.access type 9 is code that cannot" },
    { "protected", function(c) c.ds.base = u64(1, 0) end, "ds.base 0x100000000 has more than 32" },
    { "long", function(c) c.fs.base = u64(0x8000, 0) end, "fs.base 0x800000000000 is not canon" },
    { "long", function(c) c.gdtr.base = u64(0x8000, 0) end, "gdtr.base 0x800000000000 is not" },
    { "long", function(c) c.idtr.base = u64(0x8000, 0) end, "idtr.base 0x800000000000 is not" },
    { "long", function(c) c.tr.access = 0x83 end, "tr.access type 3 is no busy TSS (11)" },
    { "long", function(c) c.tr.access = 0x1008b end, "tr.access bit 16 (unusable) is set" },
    { "long", function(c) c.tr.selector = 4 end, "tr.selector 0x4 bit 2 (TI) is set" },
    { "long", function(c) c.ldtr.access = 0x81 end, "ldtr.access type 1 is no LDT (2)" },
    { "long", function(c) c.apic_base = 1 end, "apic_base bit 0 is reserved" },
    { "long", function(c) c.apic_base = 0xfee00400 end, "apic_base bit 10 (EXTD) is set while" },
    { "protected", function(c)
      c.cr4, c.cr3, c.cr0 = 0x20, 0x2000, u64.bor(c.cr0, 2 ^ 31)
    end, "PDPTE 0 at 0x2000 has reserved bit 1 set" },
    { "protected", function(c)
      c.cr4, c.cr3, c.cr0 = 0x20, 0x7f000000, u64.bor(c.cr0, 2 ^ 31)
    end, "cr3 points to 0x7f000000, where no memory is" },
  }

  for _, case in ipairs(cases) do
    it("names it: " .. case[3], function()
      local guest = helper.guest { mode = case[1], source = "hlt" }
      guest.ram:u64(0x2000, 3)
      case[2](guest.cpu)
      helper.refused("state", case[3], guest.cpu:check())
    end)
  end

  it("knows virtual-8086 mode", function()
    local cpu = cpu_of "protected"
    cpu.rflags = 0x20002
    helper.refused("state", "cs must have base selector * 16 and limit 0xffff with rflags.VM",
      cpu:check())
    for i, name in ipairs { "cs", "ss", "ds", "es", "fs", "gs" } do
      local s = cpu[name]
      s.selector, s.base, s.limit, s.access = i, 16 * i, 0xffff, name == "gs" and 0xf2 or 0xf3
    end
    helper.refused("state", "gs.access must be 0xf3 with rflags.VM", cpu:check())
    cpu.gs.access = 0xf3
    assert.is_true(cpu:check())
  end)

  it("is in the text of a fail_entry exit", function()
    local raw, exits = require "lunavisor.binding.backend", require "lunavisor.exit.record"
    local cpu, real = cpu_of "long", raw.exit
    cpu.cr3 = u64(0x80000000, 0)
    raw.exit = function() -- no processor here can be made to fail an entry
      return { kind = exits.numbers.fail_entry, reason = 9, value = u64 "0x80000021", space = 0 }
    end
    local ok, exit = pcall(exits.new, cpu)
    raw.exit = real
    assert.is_true(ok, exit)
    helper.contains("cr3 bit 63 is set", exit.rule)
    helper.contains("fail_entry (hardware reason 0x80000021: cr3 bit 63 is set: ", tostring(exit))
  end)

  -- Page tables of the guest's own, for the first 2 MiB, where its system area is or is not.
  local function own_tables(mode, system)
    local guest = helper.guest { mode = mode, source = "ud2", size = "2M", system = system }
    guest.ram:u64(0x10000, 0x11007)
    guest.ram:u64(0x11000, 0x12007)
    guest.ram:u64(0x12000, 0x87)
    guest.cpu.cr3 = 0x10000
    return guest
  end

  for _, mode in ipairs { "long", "user" } do
    it("tells that page tables keep exceptions from being exits, as the run does: " .. mode,
      function()
        local guest = own_tables(mode)
        helper.refused("not_found", "the page tables at cr3 0x10000 do not map linear address "
          .. "0xfebf1000, the IDT of its system area", guest.cpu:check())
        local exit = guest:stops "shutdown"
        helper.contains("do not map linear address 0xfebf1000, the IDT", exit.rule)
        helper.contains("shutdown (triple fault: no exception of vCPU 0 becomes an exit: the page "
          .. "tables at cr3 0x10000 do not map", tostring(exit))
      end)

    it("finds nothing where they map the system area, and exceptions are exits: " .. mode,
      function()
        local guest = own_tables(mode, 0x100000)
        assert.is_true(guest.cpu:check())
        assert.equal("#UD", guest:stops("exception").name)
      end)
  end

  it("has nothing to add to a triple fault that the guest made", function()
    local guest = helper.guest { mode = "long", source = "lidt [0x8000]\n ud2" }
    local exit = guest:stops "shutdown"
    assert.is_nil(exit.rule)
    helper.contains("shutdown (triple fault) at rip", tostring(exit))
  end)

  it("is what a refused run says", function()
    local guest = helper.guest { source = "hlt" }
    guest.cpu.cr0 = u64 "0x80000010"
    local exit, message = guest:run()
    if exit then pending("this host's KVM runs it: " .. tostring(exit)) end
    helper.contains("KVM refuses its system registers", message)
    helper.contains("cr0 bit 31 (PG) is set while bit 0 (PE) is clear", message)
  end)

  it("names a feature that the vCPU does not have in a refused run", function()
    local guest = helper.guest { source = "hlt" }
    guest.cpu.cr4 = 2 ^ 13
    local exit, message = guest:run()
    if exit then pending "this host's KVM runs a guest with CR4.VMXE" end
    helper.contains("cr4 bit 13 (VMXE) is not offered by this ", message)
    helper.contains("'s CPUID (leaf 0x1, ECX bit 5)", message)
  end)
end)
