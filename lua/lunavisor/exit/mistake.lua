-- SPDX-License-Identifier: MIT
-- Mistakes of guests that are made often, recognised by how they stand when they have stopped. Each
-- has a name for scripts and a sentence that says what to do.

local raw = require "lunavisor.binding.backend"
local u64 = require "lunavisor.text.u64"
local mode = require "lunavisor.vcpu.mode"

local M = {}

local bit, hex = mode.bit, u64.hex

-- Whether bytes at a linear address are in memory, which may be written where `written` says so:
-- true; false and why.
local function is_there(scene, gva, written)
  local walk, message = scene.walk(gva)
  if not walk then return false, message end
  if not walk.present then return false, tostring(walk) end
  local region = scene.cpu.space:find(u64.tonumber(walk.gpa))
  if region and written and not region.enforced:find "w" then
    return false, ("gva %s is gpa %s, whose region has the rights %s"):format(hex(gva),
      hex(walk.gpa), region.enforced)
  end
  if region then return true end
  return false, ("gva %s is gpa %s, where no memory is mapped"):format(hex(gva), hex(walk.gpa))
end

local function is_zero(cpu, gva, size)
  return raw.linear_read(cpu, gva, size) == ("\0"):rep(size)
end

-- ---- Tables ----

-- Long mode's tables are PAE's, with one level more (SDM Vol. 3, 10.8.5).
local function long_tables(scene)
  local cpu = scene.cpu
  if not scene.fatal or not bit(cpu.efer, 8) then return nil end
  if not bit(cpu.cr4, 5) then
    return "EFER.LME is set and CR4.PAE is not, so that CR0.PG cannot be set (#GP): set CR4.PAE "
      .. "first, and let CR3 point to a PML4 table"
  end
  if not mode.pages(cpu) then return nil end
  local walk, message = scene.walk(scene.linear)
  if walk and (walk.present or #walk.entries ~= 1) then return nil end
  return ("long mode is on, and the PML4 table at CR3 %s has no entry for the code: %s"):format(
    hex(cpu.cr3), walk and tostring(walk) or message)
end

local vectors = { { 6, "#UD" }, { 8, "#DF" }, { 13, "#GP" }, { 14, "#PF" } }

-- What is wrong with the gate of a vector, nil where an exception could go through it.
local function gate_problem(cpu, vector)
  local size = not bit(cpu.cr0, 0) and 4 or bit(cpu.efer, 10) and 16 or 8
  local first = size * vector
  if u64.lt(cpu.idtr.limit, first + size - 1) then
    return "it ends at limit " .. hex(cpu.idtr.limit)
  end
  local gva = cpu.idtr.base + u64(first)
  local bytes, message = raw.linear_read(cpu, gva, size)
  if not bytes then return message end
  if size > 4 and bytes:byte(6) < 0x80 then
    return ("its gate at %s is not present"):format(hex(gva))
  end
end

local function no_idt(scene)
  if not scene.triple then return nil end
  local problem
  for _, one in ipairs(vectors) do
    local found = gate_problem(scene.cpu, one[1])
    if not found then return nil end
    problem = problem or ("%s: %s"):format(one[2], found)
  end
  return ("no exception can be taken with the IDT at %s (%s): fill the gates and load it with "
    .. "LIDT before anything can fault"):format(hex(scene.cpu.idtr.base), problem)
end

-- ---- Code and stack ----

local function no_code(scene)
  if not scene.fatal then return nil end
  local there, why = is_there(scene, scene.linear)
  if there then return nil end
  local zeros = is_zero(scene.cpu, scene.linear - u64(16), 16)
  return ("the vCPU executes where nothing is: %s%s"):format(why,
    zeros and "; the bytes before it are zeros, through which it has run" or "")
end

-- HLT and port accesses are no zeros; rip is behind the instruction of a write.
local done = { hlt = true, pio = true }

local function zeros(scene)
  local exit, cpu, at = scene.exit, scene.cpu, scene.linear
  if done[exit.kind] or not is_zero(cpu, at, 8) then return nil end
  if exit.access == "w" and not is_zero(cpu, at - u64(2), 2) then return nil end
  return ("the vCPU executes zeros at %s (each two are an add to memory): no code was put there, "
    .. "or a jump, call or return has gone astray"):format(hex(at))
end

local FRAME = 48 -- of an exception in 64-bit mode, with its error code

-- Whether the access that no region allowed was one to the top of the stack. After a push that is
-- where rsp points, while the stack below may lie in memory; what delivers an exception has pushed
-- all of its frame by then.
local function of_stack(scene)
  local gpa, width = scene.exit.gpa, mode.bits(scene.cpu) / 8
  local walk = scene.walk(mode.stack(scene.cpu, 0))
  if not walk or not walk.present then return false end
  local top = u64.tonumber(walk.gpa)
  return gpa >= top - width and gpa < top + FRAME
end

local of_stacks = { [8] = true, [12] = true, [14] = true } -- #DF, #SS, #PF

local function no_stack(scene)
  local exit = scene.exit
  if not scene.fatal or exit.kind == "exception" and not of_stacks[exit.vector] then return nil end
  local cpu, gpa = scene.cpu, exit.gpa
  local why
  if gpa then
    if exit.access == "x" or not of_stack(scene) then return nil end
    why = ("the access to gpa 0x%x was one to the stack"):format(gpa)
  else
    local there
    there, why = is_there(scene, mode.stack(cpu, mode.bits(cpu) / 8),
      scene.triple)
    if there then return nil end
  end
  return ("the stack is outside of memory that it can have, rsp is %s: %s; set SS and RSP to the "
    .. "end of memory that is mapped writable"):format(hex(cpu.rsp), why)
end

-- ---- Waiting ----

local function halted(scene)
  local exit = scene.exit
  if exit.kind ~= "hlt" and not exit.stuck or bit(scene.cpu.rflags, 9) then return nil end
  return "HLT with interrupts off: no interrupt ends it; where that is not the guest's way to say "
    .. "that it has finished, put STI in front of it"
end

local LEAST = 16 -- reads of one place that make a loop

local ends = { timeout = true, interrupted = true, signal = true }

-- "port 0x3fd" of a read, or nil.
local function read_place(past)
  if past.access ~= "r" then return nil end
  local place = past.port or past.gpa
  return place and (past.port and "port 0x%x" or "gpa 0x%x"):format(place)
end

local function polls(scene)
  local list = scene.past
  local last = #list
  while last > 0 and ends[list[last].kind] do last = last - 1 end
  local place = last >= LEAST and read_place(list[last])
  if not place then return nil end
  for i = last - LEAST + 1, last do
    if read_place(list[i]) ~= place then return nil end
  end
  local value = list[last].value
  return ("a loop polls %s, and has not got what it waits for%s"):format(place,
    value and "; the last answer was " .. hex(value) or "")
end

local all = {
  { "long tables", long_tables }, { "no code", no_code }, { "zeros", zeros },
  { "no idt", no_idt }, { "no stack", no_stack }, { "halted", halted }, { "polls", polls },
}

--- Those that are seen, the nearest to the cause first: a list of { name =, text = }.
--- `scene` has exit, cpu, linear (of rip), past (a list of past exits), walk(gva), fatal: whether
--- the guest could not go on, and triple: whether that was a triple fault.
function M.find(scene)
  local list = {}
  for _, one in ipairs(all) do
    local text = one[2](scene)
    if text then list[#list + 1] = { name = one[1], text = text } end
  end
  return list
end

return M
