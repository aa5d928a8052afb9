-- SPDX-License-Identifier: MIT
-- The last exceptions and interrupts of a vCPU, and what became of each: from what the software CPU
-- keeps of them.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local exits = require "lunavisor.exit.record"
local mode = require "lunavisor.vcpu.mode"
local symbols = require "lunavisor.text.symbols"
local u64 = require "lunavisor.text.u64"

local M = {}

local Exception = class.define(class.class "past exception", {},
  "name vector serial source rip symbol line cs ring error_code address delivered met shutdown")
local Met = class.define(class.class "met exception", {},
  "name vector error_code address stage text")

local hex = u64.hex

-- luna_exception_source and luna_delivery.
local sources = { [0] = "exception", "instruction", "interrupt" }
local stages = { "limit", "gate", "code", "stack", "frame", "task" }

local NMI, DF, NP, PF = 2, exits.vectors["#DF"], exits.vectors["#NP"], exits.vectors["#PF"]

local names = {}
for name, vector in pairs(exits.vectors) do names[vector] = name end

local function name_of(vector, source)
  if source == "instruction" then return ("INT 0x%x"):format(vector) end
  if source == "interrupt" and vector ~= NMI then return ("interrupt 0x%x"):format(vector) end
  return names[vector] or ("vector %d"):format(vector)
end

-- ---- What has stopped a delivery ----

local why = {}

function why.limit() return "its gate is beyond the IDT's limit" end

function why.gate(met, source)
  if met.vector == NP then return "its gate is not present" end
  if met.address then return ("its gate at %s cannot be read"):format(hex(met.address)) end
  local text = "its gate is empty, or of no type that leads to a handler"
  return source == "instruction" and text .. ", or not for this ring" or text
end

function why.code(met)
  if met.address then
    return ("the descriptor of the handler's code at %s cannot be read"):format(hex(met.address))
  end
  if met.vector == NP then return "the handler's code segment is not present" end
  if met.error_code and met.error_code > 1 then
    return ("the handler's selector 0x%x is of no code segment that it can run in"):format(
      met.error_code - met.error_code % 4)
  end
  return "the handler's selector is null, or its address lies outside of the segment"
end

function why.stack(met)
  if met.address then
    return ("the handler's stack is not to be had, %s cannot be read"):format(hex(met.address))
  end
  return "the handler's stack is none that it can use"
end

function why.frame(met)
  if met.address then
    return ("the stack at %s cannot be written"):format(hex(met.address))
  end
  return "the stack has no room within its segment"
end

function why.task() return "the switch to the handler's task fails" end

-- ---- Texts ----

local function called(name, code)
  return name .. (code and ("(0x%x)"):format(code) or "")
end

-- SDM Vol. 3, 4.7: what an access was that a page fault is for.
local function access_text(code)
  if mode.bit(u64(code), 4) then return "executing" end
  return mode.bit(u64(code), 1) and "writing" or "reading"
end

local function head(one)
  local what = one.name
  if one.address then
    what = ("%s %s %s"):format(what, access_text(one.error_code or 0), hex(one.address))
  end
  local place = symbols.joined(one.symbol, one.line)
  place = hex(one.rip) .. (place and " <" .. place .. ">" or "")
  local where = one.source == "instruction" and "in front of rip" or "at rip"
  local code = one.error_code and one.vector ~= DF and (", error code 0x%x"):format(one.error_code)
  return ("%s %s %s%s"):format(what, where, place, code or "")
end

function Exception.__tostring(one)
  local text = head(one)
  if one.met then
    text = ("%s; delivering it met %s: %s"):format(text, called(one.met.name, one.met.error_code),
      one.met.text)
  end
  return text .. (one.shutdown and ", a triple fault" or "")
end

-- ---- The list ----

local ERROR, MET, MET_ERROR, SHUTDOWN = 0, 1, 2, 3 -- bits: LUNA_EXCEPTION_*

local function has(entry, flag)
  return math.floor(entry.flags / 2 ^ flag) % 2 == 1
end

local function met_of(entry, source)
  if not has(entry, MET) then return nil end
  local met = { vector = entry.met, name = name_of(entry.met, "exception"),
    error_code = has(entry, MET_ERROR) and entry.met_error or nil,
    address = entry.met == PF and entry.met_address or nil, stage = stages[entry.stage] }
  met.text = why[met.stage](met, source)
  return setmetatable(met, Met)
end

local function exception_of(cpu, entry)
  local source = sources[entry.source]
  return setmetatable({
    name = name_of(entry.vector, source), vector = entry.vector, serial = entry.serial,
    source = source, rip = entry.rip, symbol = cpu.vm:symbol(entry.rip),
    line = cpu.vm:source_line(entry.rip) or nil, cs = entry.cs,
    ring = entry.cpl, error_code = has(entry, ERROR) and entry.error or nil,
    address = entry.vector == PF and source == "exception" and entry.address or nil,
    delivered = entry.stage == 0, met = met_of(entry, source), shutdown = has(entry, SHUTDOWN),
  }, Exception)
end

--- The texts of a list, those that come again one after the other once, with how often.
function M.lines(list)
  local lines, times = {}, {}
  for _, one in ipairs(list) do
    local text = tostring(one)
    if lines[#lines] ~= text then lines[#lines + 1] = text end
    times[#lines] = (times[#lines] or 0) + 1
  end
  for i, count in ipairs(times) do
    if count > 1 then lines[i] = ("%s (%d times)"):format(lines[i], count) end
  end
  return lines
end

local function list_of(cpu, list, message, code)
  if not list then return nil, message, code end
  for i, entry in ipairs(list) do list[i] = exception_of(cpu, entry) end
  return setmetatable(list, { __tostring = function(self)
    return table.concat(M.lines(self), "\n")
  end })
end

--- The last exceptions and interrupts of a vCPU, up to `most`, the oldest first; its text has a
--- line for each. nil, message, code where they are not kept, or its thread has it.
function M.list(cpu, most)
  return list_of(cpu, raw.last_exceptions(cpu, most))
end

--- The same of one that stands at a triple fault: on KVM its instruction is done again for that, on
--- the software CPU. nil, message, code where that leads to no such one.
function M.of_triple_fault(cpu, most)
  return list_of(cpu, raw.triple_fault(cpu, most))
end

return M
