-- SPDX-License-Identifier: MIT
-- Why a guest stopped, with all that can be seen of it, as a table and as a text: exit:explain.

local raw = require "lunavisor.binding.backend"
local change = require "lunavisor.vcpu.change"
local class = require "lunavisor.class"
local dump = require "lunavisor.device.dump"
local exceptions = require "lunavisor.exit.exception"
local hidden = require "lunavisor.vm.hidden"
local mistakes = require "lunavisor.exit.mistake"
local mode = require "lunavisor.vcpu.mode"
local past = require "lunavisor.exit.past"
local sorted = require "lunavisor.text.sorted"
local symbols = require "lunavisor.text.symbols"
local trace = require "lunavisor.exit.trace"
local u64 = require "lunavisor.text.u64"

local hex = u64.hex

local Explanation = class.define(class.class "explanation", {}, [[
  sentence mistakes symbol line no_line mode code walk refused exceptions again last devices lines
  hidden registers changed segments problem vcpus]])

local CODE, LAST, ALL, EVENTS = 8, 10, 64, 8

-- Kinds after which the guest could not have gone on by itself.
local fatal = { shutdown = true, fault = true, exception = true, internal = true,
  instruction = true, fail_entry = true, host_fault = true }

-- Those that may stand for a triple fault, for not every KVM tells one from what it cannot emulate.
local triple = { shutdown = true, instruction = true, internal = true }

-- ---- Page walks ----

-- SDM Vol. 3, 5.7: bits of a #PF's error code, with the bit of the entries that forbids it.
local rules = {
  { error = 1, bit = 1, wanted = true, text = "allows no writes" },
  { error = 2, bit = 2, wanted = true, text = "allows no access from user mode" },
  { error = 4, bit = 63, wanted = false, text = "allows no execution" },
}

-- Which entry has refused the access.
local function refusal(walk, code)
  if not walk.present then return tostring(walk) end
  for _, rule in ipairs(rules) do
    if code and mode.bit(u64(code), rule.error) then
      for i, entry in ipairs(walk.entries) do
        if mode.bit(entry.value, rule.bit) ~= rule.wanted then
          return ("gva %s: entry %d of the walk, %s at gpa 0x%x, %s"):format(hex(walk.gva), i,
            hex(entry.value), entry.gpa, rule.text)
        end
      end
    end
  end
end

-- The walk of the address that has failed, and what has refused it.
local function failed_walk(scene)
  local exit, cpu = scene.exit, scene.cpu
  if not scene.fatal or not mode.pages(cpu) then return nil end
  local candidates = { exit.address or false, scene.linear,
    exit.kind == "shutdown" and cpu.cr2 or false, mode.stack(cpu, mode.bits(cpu) / 8) }
  for _, gva in ipairs(candidates) do
    local walk, message = nil, nil
    if gva then walk, message = scene.walk(gva) end
    if message then return nil, message end
    local refused = walk and refusal(walk, gva == exit.address and exit.error_code)
    if refused then return walk, refused end
  end
  return exit.address and scene.walk(exit.address) or nil
end

-- ---- Devices ----

local kinds = { pio = "port", mmio = "gpa", msr = "msr" }

local function trap_of(vm, one)
  local place = kinds[one.kind] and one[kinds[one.kind]]
  if not place then return nil end
  for _, trap in pairs(vm.traps) do
    if trap.kind == one.kind and place >= trap.first and place < trap.first + trap.length then
      return trap
    end
  end
end

-- What each device was asked last, the latest first.
local function last_asked(vm, list)
  local found, seen = {}, {}
  for i = #list, 1, -1 do
    local trap = trap_of(vm, list[i])
    if trap and not seen[trap] then
      seen[trap] = true
      found[#found + 1] = { trap = trap, exit = list[i],
        text = ("%s: %s"):format(trace.device(trap), past.text(list[i])) }
    end
  end
  return found
end

-- Kinds of exits at which a guest may be waiting for an interrupt.
local waiting = { hlt = true, timeout = true, parked = true }

-- Lines by a status and an enable register, as interrupts are, that are up and
-- lead nowhere: nobody was told.
local function loose_lines(vm, exit)
  local found = {}
  if not waiting[exit.kind] then return found end
  for _, name in ipairs(sorted(vm.attached.entries)) do
    local dev = vm.attached.entries[name].dev
    for _, about in ipairs(dump.layout_of(dev).lines) do
      local line = dev[about.name]
      if type(about.rule) == "table" and line.level and #line.targets == 0 then
        found[#found + 1] = ("%s.%s is up and drives nothing: vm:attach(%s, { %s = 5 }) or %s.%s"
          .. ":connect(...) says what it drives"):format(name, about.name, name, about.name, name,
          about.name)
      end
    end
  end
  return found
end

-- ---- The table ----

local names = { "cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr", "gdtr", "idtr" }

local function segments_of(cpu)
  local lines = {}
  for i, name in ipairs(names) do lines[i] = tostring(cpu[name]) end
  return table.concat(lines, "\n")
end

local function last_of(list)
  local found = {}
  for i = math.max(1, #list - LAST + 1), #list do found[#found + 1] = list[i] end
  return found
end

-- The last exceptions, and whether the last instruction had to be done again for that.
local function exceptions_of(exit, cpu)
  local list, _, code = exceptions.list(cpu, EVENTS)
  if list or code ~= "unsupported" or not triple[exit.kind] then return list or {}, false end
  list = exceptions.of_triple_fault(cpu, EVENTS)
  return list or {}, list ~= nil
end

-- KVM on AMD's processors, which leave nothing of the registers, makes an INIT of a triple fault
-- (svm.c, shutdown_interception).
local function is_reset(exit, cpu)
  return exit.kind == "shutdown" and cpu.vm.accel == "kvm" and not mode.bit(cpu.cr0, 0)
    and cpu.rip == u64(0xfff0) and cpu.cs.base == u64(0xffff0000)
end

-- The source line of the rip; nil and why not, where lines cannot be had.
local function line_of(cpu)
  local line, message, code = cpu.vm:source_line(cpu.rip)
  if line then return line end
  return nil, code ~= "not_found" and message or nil
end

local function look(made, exit, cpu, changed)
  local list = past.list(cpu, ALL) or {}
  local scene = { exit = exit, cpu = cpu, past = list, linear = mode.linear(cpu, cpu.rip),
    fatal = fatal[exit.kind] or false, walk = function(gva) return cpu:translate(gva) end }
  made.exceptions, made.again = exceptions_of(exit, cpu)
  scene.triple = exit.kind == "shutdown" or made.again
  made.mode, made.symbol = mode.text(cpu), cpu.vm:symbol(cpu.rip)
  made.line, made.no_line = line_of(cpu)
  made.mistakes = mistakes.find(scene)
  made.code = cpu:disasm(CODE)
  made.walk, made.refused = failed_walk(scene)
  made.last, made.devices = last_of(list), last_asked(cpu.vm, list)
  made.lines, made.hidden = loose_lines(cpu.vm, exit), hidden.list(cpu.vm)
  made.registers, made.segments = cpu:regs(), segments_of(cpu)
  if not is_reset(exit, cpu) then
    made.changed = changed or change.since_entry(cpu, made.registers)
  end
end

local function gone(exit, cpu)
  if not cpu[1] then return "the vCPU is closed: no more can be seen of it" end
  if cpu.started then return "the vCPU is started: cpu:join ends that, and more can be seen" end
  if exit.serial and exit.serial ~= raw.vcpu_exits(cpu) then
    return "the vCPU has gone on since: what follows is how it stands now"
  end
  if is_reset(exit, cpu) then
    return "the vCPU stands where INIT puts it, as KVM does at a triple fault on AMD's processors: "
      .. "how it stood before is lost; on the software CPU (LUNA_ACCEL=soft) it is kept"
  end
end

local function explain(exit, sentence, cpu, changed)
  local made = setmetatable({ sentence = sentence, mistakes = {}, last = {}, devices = {},
    exceptions = {}, lines = {}, hidden = {} },
    Explanation)
  made.problem = cpu and gone(exit, cpu)
  if cpu and cpu[1] and not cpu.started then look(made, exit, cpu, changed) end
  return made
end

local M = {}

--- What exit:explain (vcpu/exit.lua) gives. changed: what a prompt has seen change since its last
--- stop, in the place of what has changed since the last entry.
function M.of(exit, changed)
  if exit.cpu or not exit.vcpus then return explain(exit, tostring(exit), exit.cpu, changed) end
  local made = explain(exit, tostring(exit))
  made.vcpus = {}
  for i, place in ipairs(exit.vcpus) do
    local own = { kind = exit.kind, stuck = place.stuck }
    made.vcpus[i] = explain(own, ("vcpu %d at rip %s"):format(place.cpu.id, hex(place.rip)),
      place.cpu)
  end
  return made
end

-- ---- The text ----

local function indent(text)
  return "  " .. tostring(text):gsub("\n", "\n  ")
end

local function list_of(title, list, text)
  if #list == 0 then return nil end
  local lines = { title }
  for _, one in ipairs(list) do lines[#lines + 1] = indent(text(one)) end
  return table.concat(lines, "\n")
end

function Explanation.__tostring(self)
  local parts = {}
  local function add(text) parts[#parts + 1] = text end
  add(self.sentence)
  if self.problem then add("(" .. self.problem .. ")") end
  for _, one in ipairs(self.mistakes) do add("Likely: " .. one.text .. ".") end
  if self.mode then add("Mode: " .. self.mode) end
  local place = symbols.joined(self.symbol, self.line)
  if place then add("In: " .. place) end
  if self.no_line then add("(" .. self.no_line .. ")") end
  if self.code then add("Code:\n" .. indent(self.code)) end
  if self.refused or self.walk then add("Page walk: " .. (self.refused or tostring(self.walk))) end
  for i, entry in ipairs(self.walk and self.walk.entries or {}) do
    add(("  %d: %s at gpa 0x%x"):format(i, hex(entry.value), entry.gpa))
  end
  add(list_of(self.again and "Exceptions (of the instruction, done again on the software CPU):"
    or "Last exceptions and interrupts:", exceptions.lines(self.exceptions), tostring))
  add(list_of("Last exits:", self.last, tostring))
  add(list_of("Devices, last asked:", self.devices, function(one) return one.text end))
  add(list_of("Devices to which nothing can come:", self.hidden, function(one)
    return ("%s: %s"):format(trace.device(one.trap), one.why)
  end))
  add(list_of("Lines that lead nowhere:", self.lines, tostring))
  local changes = self.changed and change.text(self.changed, self.registers)
  if changes then add("Changed, with * below: " .. changes) end
  if self.registers then
    add("Registers:\n" .. indent(change.marked(self.registers, self.changed or {})) .. "\n"
      .. indent(self.segments))
  end
  for _, one in ipairs(self.vcpus or {}) do add(tostring(one)) end
  return table.concat(parts, "\n")
end

return M
