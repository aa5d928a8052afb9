-- SPDX-License-Identifier: MIT
-- What joins LAPICs, I/O APICs and senders of messages (SDM Vol. 3, 11.6 and 11.11), and LAPICs to
-- the vCPUs of a VM whose KVM has none (irqchip = "none").

local class = require "lunavisor.class"
local hidden = require "lunavisor.vm.hidden"
local ioapic = require "lunavisor.device.models.ioapic"
local lapic = require "lunavisor.device.models.lapic"
local set_window = require "lunavisor.vcpu.window"
local traps = require "lunavisor.exit.trap"
local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"
local x2apic = require "lunavisor.device.models.x2apic"

local bits = word.bits

local M = {}

local Bus = class.class "apic bus"
local mine = class.checker(Bus)
local methods = {}

local BASE, IF = 0xfee00000, 0x200
local LOWEST = 1

-- ---- Messages ----

--- A bus without anything.
function M.new()
  return setmetatable({ lapics = {}, ioapics = {}, vm = false, x2apic = false,
    by_cpu = {}, pages = {} }, Bus)
end

local function targets(self, message)
  local list, shorthand = {}, message.shorthand or 0
  for _, one in ipairs(self.lapics) do
    local meant
    if shorthand == 0 then
      meant = one:is_meant(message.dest, message.logical, message.wide)
    elseif shorthand == 1 then
      meant = one == message.from
    else
      meant = shorthand == 2 or one ~= message.from
    end
    if meant then list[#list + 1] = one end
  end
  return list
end

-- Of those that are meant, the one at the lowest priority that is on (11.6.2.4).
local function lowest(list)
  local found
  for _, one in ipairs(list) do
    if one.SVR.enable == 1 and (not found or one:priority() < found:priority()) then
      found = one
    end
  end
  return { found }
end

--- Delivers a message, { vector =, mode =, dest =, wide = (dest has 32 bits), logical =, level =,
--- shorthand =, from = }, modes and shorthands as in the ICR; whether anybody took it.
function methods.send(self, message)
  mine(self)
  local list, taken = targets(self, message), false
  if message.mode == LOWEST then list = lowest(list) end
  for _, one in ipairs(list) do taken = one:deliver(message) or taken end
  return taken
end

--- Delivers what a device has written to an address from 0xfee00000 on (11.11), as the option
--- `message` of pci_host gives it. Whether anybody took it; nil, message for another address.
function methods.message(self, address, data)
  mine(self)
  local at = u64.exact(address)
  if at == nil or u64.lt(at, BASE) or not u64.lt(at, BASE + 0x100000) then
    return nil, ("a message to %s: no LAPIC is there"):format(at and u64.hex(at)
      or tostring(address))
  end
  at = u64.tonumber(at)
  return methods.send(self, { dest = bits(at, 12, 8), logical = bits(at, 2) == 1,
    vector = bits(data, 0, 8), mode = bits(data, 8, 3), level = bits(data, 15) == 1 })
end

local function give(options, more)
  local all = {}
  for key, value in pairs(options or {}) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

--- A new LAPIC on the bus; options of lapic.lua. Its number is the next one where none is given.
function methods.lapic(self, options)
  mine(self)
  local made = lapic(give({ id = #self.lapics }, give(options, {
    send = function(message) methods.send(self, message) end,
    eoi = function(vector)
      for _, chip in ipairs(self.ioapics) do chip:eoi(vector) end
    end,
  })))
  self.lapics[#self.lapics + 1] = made
  return made
end

--- A new I/O APIC on the bus; options of ioapic.lua.
function methods.ioapic(self, options)
  mine(self)
  local made = ioapic(give(options, {
    send = function(message) return methods.send(self, message) end,
  }))
  self.ioapics[#self.ioapics + 1] = made
  return made
end

-- ---- vCPUs ----

-- Asks for an exit when the guest takes an interrupt, or not any more.
local function window(entry, on)
  if entry.window == on or not entry.cpu[1] then return end
  entry.window = on
  set_window(entry.cpu, on)
end

local function wake(entry)
  entry.asleep = false
  entry.cpu:unpark()
end

-- The LAPIC's line: a vCPU that is halted takes the interrupt at once.
local function changed(entry, level)
  if level and entry.asleep == "open" and not entry.waits then
    entry.cpu:irq(entry.lapic:acknowledge())
    wake(entry)
  else
    window(entry, level)
  end
end

-- CR8 is the upper half of the TPR (11.8.6).
local function take_cr8(entry)
  local class_now = u64.tonumber(entry.cpu.cr8)
  if class_now ~= math.floor(entry.lapic.TPR.level / 16) then
    entry.lapic.TPR.level = 16 * class_now
  end
end

local function give_cr8(entry)
  local class_now = math.floor(entry.lapic.TPR.level / 16)
  if class_now ~= u64.tonumber(entry.cpu.cr8) then entry.cpu.cr8 = class_now end
end

local function on_other(entry, exit)
  if exit.reason_name == "set_tpr" then
    take_cr8(entry)
  elseif exit.reason_name == "irq_window_open" then
    take_cr8(entry)
    if entry.lapic.lines.intr then
      entry.cpu:irq(entry.lapic:acknowledge())
    else
      window(entry, false)
    end
  else
    return nil
  end
  return "continue"
end

local function on_hlt(entry)
  take_cr8(entry)
  local open = u64.band(entry.cpu.rflags, IF) ~= u64(0)
  if open and entry.lapic.lines.intr then
    entry.cpu:irq(entry.lapic:acknowledge())
    return "continue"
  end
  entry.asleep = open and "open" or "shut"
  return "park"
end

-- What comes to a vCPU besides vectors.
local function signal(entry, what, vector)
  local cpu = entry.cpu
  if what == "nmi" or what == "smi" then
    cpu[what](cpu)
    if entry.asleep then wake(entry) end
  elseif what == "init" and entry.lapic.options.id ~= 0 and cpu.vm.serving ~= cpu then
    if cpu.started then cpu:join() end
    cpu.parked, entry.waits, entry.asleep, entry.window = true, true, false, false
  elseif what == "startup" and entry.waits then
    entry.waits = false
    pcall(cpu.drop, cpu) -- what INIT came into
    cpu:window(entry.lapic.lines.intr)
    cpu:sipi(vector)
    cpu:unpark()
  end
end

-- A page: each vCPU has its own LAPIC there, unless it has moved that elsewhere.
local function page(self, gpa)
  return { name = "lapic", of_vcpu = function(cpu)
    local entry = self.by_cpu[cpu]
    if not entry then error(("vCPU %d has no LAPIC: bus:vcpu(cpu) adds one"):format(cpu.id), 0) end
    return x2apic.place(entry.lapic) == gpa and entry.page or {}
  end }
end

-- Claims a page; nil, message, code where it cannot be had.
local function take_page(self, gpa)
  local trap, message, code = traps.add(self.vm, "mmio", gpa, 4096, page(self, gpa))
  if not trap then return nil, message, code end
  self.pages[gpa] = trap
  return true
end

-- The guest has moved a LAPIC: pages where one is now are claimed, others given back. That it
-- cannot be had there is said in its log.
local function settle_pages(self, moved)
  local used = {}
  for _, entry in pairs(self.by_cpu) do used[x2apic.place(entry.lapic)] = true end
  for gpa, trap in pairs(self.pages) do
    if not used[gpa] then
      trap:close()
      self.pages[gpa] = nil
    end
  end
  local gpa = x2apic.place(moved)
  local ok, why = self.pages[gpa] ~= nil, nil
  if not ok then ok, why = take_page(self, gpa) end
  why = ok and hidden.why(self.vm, "mmio", gpa, 4096, {}) or why
  if why then moved:log(("the guest cannot get at its page at gpa 0x%x: %s"):format(gpa, why)) end
end

-- A region's functions, with CR8 kept the same as the TPR. Nothing is there in x2APIC mode.
local function page_of(entry)
  local dev = entry.lapic
  return {
    name = dev.name,
    read = function(_, offset, size)
      entry.asleep = false
      take_cr8(entry)
      if not x2apic.has_page(dev) then return size < 8 and 256 ^ size - 1 or u64.bnot(0) end
      return dev:read(offset, size)
    end,
    write = function(_, offset, size, value)
      entry.asleep = false
      take_cr8(entry)
      if x2apic.has_page(dev) then dev:write(offset, size, value) end
      give_cr8(entry)
    end,
  }
end

-- The LAPICs' MSRs from `first` on, each vCPU's own: a #GP where the LAPIC refuses them.
local function msrs_of(entry, first)
  local dev = entry.lapic
  return {
    read = function(_, offset)
      entry.asleep = false
      take_cr8(entry)
      return dev:read_msr(first + offset) or "refuse"
    end,
    write = function(_, offset, _, value)
      entry.asleep = false
      take_cr8(entry)
      if not dev:write_msr(first + offset, value) then return "refuse" end
      give_cr8(entry)
    end,
  }
end

-- By vCPU, what `key` of its entry has.
local function each(self, name, key)
  return { name = name, of_vcpu = function(cpu)
    local entry = self.by_cpu[cpu]
    return entry and entry[key] or {}
  end }
end

local function deadline_of(entry)
  return {
    read = function() return entry.lapic.DEADLINE end,
    write = function(_, _, _, value) entry.lapic:set_deadline(value) end,
  }
end

local function take_place(self, vm)
  if self.vm == vm then return true end
  if self.vm then error("bus:vcpu: the vCPUs of a bus are those of one VM", 3) end
  self.vm = vm
  local ok, message, code = take_page(self, BASE)
  if not ok then
    self.vm = false
    return nil, message, code
  end
  -- Where KVM filters MSRs:
  traps.add(vm, "msr", 0x6e0, 1, each(self, "lapic.deadline", "deadline"))
  local base = traps.add(vm, "msr", x2apic.BASE, 1, each(self, "lapic.base", "base"))
  self.x2apic = base ~= nil
    and traps.add(vm, "msr", x2apic.FIRST, 0x100, each(self, "x2apic", "x2")) ~= nil
  return true
end

-- CPUID says whether there is an x2APIC (11.12.1); of a vCPU that has run it cannot be changed.
local function say_x2apic(cpu, on)
  local leaf = cpu.cpuid[1]
  if not leaf then return end
  local ecx = word.insert(leaf.ecx, 21, 1, on and 1 or 0)
  if ecx ~= leaf.ecx then pcall(function() leaf.ecx = ecx end) end
end

-- How many bits addresses have (SDM Vol. 2, CPUID 0x80000008); 36 where it does not say.
local function physical_bits(cpu)
  local leaf = cpu.cpuid[0x80000008]
  return leaf and word.bits(leaf.eax, 0, 8) or 36
end

--- Gives a vCPU a LAPIC of its own, whose number is the vCPU's: at 0xfee00000, until the guest
--- moves it by IA32_APIC_BASE, where KVM filters MSRs; by the VM's clock, with the exits "hlt" and
--- "other" handled. A halted vCPU is parked until its LAPIC wakes it: run the VM with vm:run. It
--- has x2APIC mode where the VM's unknown MSRs are exits (unknown_msrs), and CPUID says whether.
--- options: wait = true: it begins when another has sent it INIT and SIPI; others are lapic.lua's.
--- Returns the LAPIC; nil, message, code where the host refuses.
function methods.vcpu(self, cpu, options)
  mine(self)
  if class.of(cpu) ~= "vcpu" then
    error(("bus:vcpu: a vcpu expected, got %s"):format(class.describe(cpu)), 2)
  elseif self.by_cpu[cpu] then
    error(("bus:vcpu: vCPU %d has a LAPIC already"):format(cpu.id), 2)
  end
  local ok, message, code = take_place(self, cpu.vm)
  if not ok then return nil, message, code end
  options = give(options, {})
  local entry = { cpu = cpu, asleep = false, window = false, waits = options.wait or false }
  options.wait = nil
  entry.lapic = methods.lapic(self, give({ id = cpu.id, name = "lapic" .. cpu.id,
    boot = cpu.id == 0, clock = cpu.vm.clock, tsc = function() return cpu.msr.tsc end,
    tsc_frequency = cpu.tsc_frequency,
    signal = function(_, what, vector) signal(entry, what, vector) end,
    x2apic = self.x2apic, physical = physical_bits(cpu),
    moved = function(dev)
      if self.by_cpu[cpu] then settle_pages(self, dev) end
    end }, options))
  entry.page, entry.deadline = page_of(entry), deadline_of(entry)
  entry.x2, entry.base = msrs_of(entry, x2apic.FIRST), msrs_of(entry, x2apic.BASE)
  say_x2apic(cpu, self.x2apic)
  self.by_cpu[cpu] = entry
  settle_pages(self, entry.lapic)
  cpu.parked = entry.waits
  cpu:on("other", function(_, exit) return on_other(entry, exit) end)
  cpu:on("hlt", function() return on_hlt(entry) end)
  entry.lapic.intr:connect(function(level) changed(entry, level) end)
  return entry.lapic
end

class.define(Bus, methods, "lapics ioapics", "vm by_cpu pages x2apic")

function Bus.__tostring(self)
  return ("apic bus (%d LAPICs, %d I/O APICs)"):format(#self.lapics, #self.ioapics)
end

return M
