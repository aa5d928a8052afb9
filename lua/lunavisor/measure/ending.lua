-- SPDX-License-Identifier: MIT
-- How a VM stands when it is closed or the run ends, for a report: as texts, since nothing of the
-- VM is left when they are shown.

local change = require "lunavisor.vcpu.change"
local class = require "lunavisor.class"
local exceptions = require "lunavisor.exit.exception"
local exits = require "lunavisor.exit.record"
local map = require "lunavisor.measure.map"
local picture = require "lunavisor.device.models.vga_picture"
local stand = require "lunavisor.exit.stand"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local M = {}

local VCPUS, UNKNOWN = 16, 12 -- the most of each

-- What fn gives; nil where it raises, and its message goes to the list.
local function tried(problems, what, fn)
  local ok, made = pcall(fn)
  if ok then return made end
  problems[#problems + 1] = ("%s: %s"):format(what, tostring(made):match "^[^\n]*")
end

local SEGMENTS = { "cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr", "gdtr", "idtr" }

local function digits(value, count)
  return value ~= nil and u64.key(value):sub(-count) or (" "):rep(count)
end

-- A line for each segment register and table.
local function segments_of(cpu)
  local lines = { ("%-9s %-8s  %-16s  %-8s  %s"):format("", "selector", "base", "limit",
    "access") }
  for _, name in ipairs(SEGMENTS) do
    local one, is_table = cpu[name], name:find "dtr$" and name ~= "ldtr"
    lines[#lines + 1] = (("%-9s %8s  %s  %s  %s"):format(name,
      not is_table and digits(one.selector, 4) or "", digits(one.base, 16), digits(one.limit, 8),
      not is_table and digits(one.access, 4) or ""):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n")
end

local function texts_of(list, text)
  local made = {}
  for i, one in ipairs(list) do made[i] = text(one) end
  return made
end

local function walk_text(why)
  if not why.refused and not why.walk then return nil end
  local lines = { why.refused or tostring(why.walk) }
  for i, entry in ipairs(why.walk and why.walk.entries or {}) do
    lines[#lines + 1] = ("  %d: %s at gpa 0x%x"):format(i, u64.hex(entry.value), entry.gpa)
  end
  return table.concat(lines, "\n")
end

-- Where a vCPU stands, and why.
local function vcpu_of(cpu, place)
  local made = { id = cpu.id, exits = u64.tonumber(cpu.exits) }
  if cpu.started then
    made.sentence = "still runs on its thread: no more can be seen of it"
    return made
  end
  local exit = made.exits > 0 and exits.new(cpu)
  if not exit or not exit.kind then
    exit, made.sentence = exits.make { kind = "none", cpu = cpu }, "has not run"
  else
    made.sentence = tostring(exit)
  end
  if place and (place.halted or place.waits or place.parked) then
    made.place = stand.text { place }
  end
  local why = exit:explain()
  made.mistakes = texts_of(why.mistakes, function(one) return one.text end)
  made.mode, made.problem = why.mode, why.problem
  made.source, made.no_line = symbols.joined(why.symbol, why.line), why.no_line
  made.code, made.walk = why.code and tostring(why.code), walk_text(why)
  made.exceptions, made.again = exceptions.lines(why.exceptions), why.again
  made.last = texts_of(why.last, tostring)
  made.devices = texts_of(why.devices, function(one) return one.text end)
  made.registers = why.registers and change.marked(why.registers, why.changed or {})
  made.changes = why.changed and change.text(why.changed, why.registers)
  made.segments = segments_of(cpu)
  return made
end

local function vcpus_of(vm, problems)
  local made, places = {}, nil
  if #vm.vcpus > 1 and not next(vm.started) then
    places = tried(problems, "where the vCPUs stand", function()
      return stand.all(vm, exits.numbers.hlt)
    end)
  end
  for i = 1, math.min(#vm.vcpus, VCPUS) do
    made[#made + 1] = tried(problems, "vCPU " .. vm.vcpus[i].id, function()
      return vcpu_of(vm.vcpus[i], places and places[i])
    end)
  end
  return made
end

local function unknown_of(vm)
  local made, list = {}, vm:unknown()
  for i = 1, math.min(#list, UNKNOWN) do
    local one = list[i]
    made[i] = { count = one.count,
      rip = symbols.text(vm.symbols, one.rip) or u64.hex(one.rip),
      name = ("%s of %d byte%s at %s 0x%x"):format(one.access == "r" and "read" or "write",
        one.size, one.size == 1 and "" or "s", one.kind == "pio" and "port" or "gpa",
        one.address) }
  end
  return made, #list
end

-- The screen as PNG, and its text where it shows text; nil where that is none.
local function screen_of(vm)
  local vga = rawget(vm.attached.entries, "vga")
  if not vga or rawget(vga.dev, "class").layout.name ~= "vga" then return nil end
  local rows = vga.dev:text()
  local text = table.concat(rows, "\n")
  if rows[1] and not text:find "%S" then return nil end
  return picture.png(vga.dev), text
end

-- How its last run has ended, where it has.
local function ended_text(ended)
  if ended == false then return "It raised an error." end
  if class.of(ended) ~= "exit" then return nil end
  local value = ended.value
  local told = ended.kind == "stopped" and (type(value) == "string" or type(value) == "number")
  return tostring(ended) .. (told and (", with %s"):format(value) or "")
end

--- What there is to tell of a VM that is open, whose last run has ended with an exit, or with false
--- where it has raised: kind, accel, reason, vcpus (a list), vcpu_count, ended (a text), unknown (a
--- list), unknown_count, map (SVG), machine (a text), screen (PNG), screen_text, and problems, a
--- list of what could not be looked at and why.
function M.look(vm, ended)
  local problems = {}
  local made = { problems = problems, kind = vm.machine and vm.machine.kind or "vm",
    accel = vm.accel, reason = vm.accel_reason, vcpus = vcpus_of(vm, problems),
    vcpu_count = #vm.vcpus, unknown = {}, unknown_count = 0 }
  made.ended = tried(problems, "how the run ended", function() return ended_text(ended) end)
  tried(problems, "unknown accesses", function()
    made.unknown, made.unknown_count = unknown_of(vm)
  end)
  tried(problems, "the screen", function() made.screen, made.screen_text = screen_of(vm) end)
  made.map = tried(problems, "the map", function() return map.svg(vm) end)
  made.machine = tried(problems, "the machine", function() return vm:machine_text() end)
  return made
end

return M
