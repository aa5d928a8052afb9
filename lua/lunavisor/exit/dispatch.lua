-- SPDX-License-Identifier: MIT
-- Who answers an exit: the device at a trap, the handler of the exit's kind, or nobody; and what
-- their answers mean.

local raw = require "lunavisor.binding.backend"
local blocks = require "lunavisor.exit.block"
local exits = require "lunavisor.exit.record"
local deferred = require "lunavisor.deferred"
local recorder = deferred "lunavisor.device.recorder"
local spaces = require "lunavisor.memory.space"
local u64 = require "lunavisor.text.u64"
local unowned = require "lunavisor.exit.unowned"

local raw_answer, raw_mark = raw.answer, raw.mark
local type, error, tostring = type, error, tostring

local M = {}

local WRITE = 2 -- luna_access
local FAULT, DEBUG = exits.numbers.fault, exits.numbers.debug

-- ---- Values ----

local limits = { 2 ^ 8, 2 ^ 16, 2 ^ 24, 2 ^ 32 }

local function bad_value(value, offset, size, who, level)
  local shown = value
  if u64.exact(value) ~= nil then shown = u64.hex(value) end
  error(("%s answered a read of %d byte%s at offset 0x%x with %s: an unsigned integer of that size "
    .. "expected"):format(who, size, size == 1 and "" or "s", offset, tostring(shown)), level or 0)
end

-- What somebody gave for a read, if it is an integer of `size` bytes. `level` is whom error() in
-- bad_value blames, nobody where nil.
local function check_value(value, offset, size, who, level)
  local limit = limits[size]
  if type(value) == "number" and limit then
    if value >= 0 and value < limit and value % 1 == 0 then return value end
  elseif not limit then
    local exact = u64.exact(value)
    if exact ~= nil and (size == 8 or u64.rshift(exact, 8 * size) == u64.exact(0)) then
      return exact
    end
  elseif u64.exact(value) ~= nil and u64.lt(value, limit) then
    return u64.tonumber(value)
  end
  bad_value(value, offset, size, who, level)
end

M.check_value, M.bad_value = check_value, bad_value

-- ---- Devices ----

-- What does the access instead of a function that the device has not: the one for blocks.
local function missing(device, name, offset)
  if device[name .. "_block"] ~= nil then return blocks.single[name] end
  error(("the guest %ss at offset 0x%x of a device that has no %s function (%s)")
    :format(name, offset, name, tostring(device)), 0)
end

--- Lets the device at a trap do the access; what to answer. An error leaves the exit open.
local function serve(device, offset, size, value, access)
  if access == WRITE then
    local write = device.write or missing(device, "write", offset)
    write(device, offset, size, value)
    return 0
  end
  local read = device.read or missing(device, "read", offset)
  return check_value(read(device, offset, size), offset, size, "the device")
end

M.serve, M.missing = serve, missing

-- The same for MSRs; nil where the guest gets a #GP instead.
local function serve_msr(cpu, device, offset, value, access)
  local fn = access == WRITE and device.write or access ~= WRITE and device.read
  local given = "refuse"
  if fn then given = fn(device, offset, 8, value) end
  if given == "refuse" then
    if cpu[1] then raw.refuse(cpu) end
    return nil
  end
  return access == WRITE and 0 or check_value(given, offset, 8, "the device")
end

--- A function (cpu, offset, size, value, access) -> answer, or nil if it is given already, for a
--- device that serve is not enough for; nil for one that it is. device.of_vcpu(cpu) gives the
--- device that answers where each vCPU has its own at one place.
function M.special(kind, device)
  local of_vcpu = rawget(device, "of_vcpu")
  if of_vcpu then
    return function(cpu, offset, size, value, access)
      local own = of_vcpu(cpu)
      if kind == "msr" then return serve_msr(cpu, own, offset, value, access) end
      return serve(own, offset, size, value, access)
    end
  elseif kind == "msr" then
    return function(cpu, offset, _, value, access)
      return serve_msr(cpu, device, offset, value, access)
    end
  elseif device.read_block or device.write_block then
    return function(cpu, offset, size, value, access)
      if blocks.serve(cpu, device, offset, size, access) then return nil end
      return serve(device, offset, size, value, access)
    end
  end
  return nil
end

-- ---- What handlers may say ----

local ALL_ONES = u64.bnot(0)

local function is_open(exit)
  return exit.access ~= nil
end

-- Puts rip behind the instruction of the exit, unless the handler has set it.
local function pass(cpu, exit)
  if not exits.is_at_instruction(exit) then
    error(("a handler answered %s with \"skip\": that is for a pio, mmio, msr, fault or "
      .. "instruction exit or an exception that an instruction failed with")
      :format(tostring(exit)), 0)
  end
  if cpu.rip ~= exit.rip then return end
  local next_rip, message = exits.behind(cpu, exit)
  if not next_rip then
    error(("a handler answered %s with \"skip\", and the length of the instruction is not known: "
      .. "%s; set cpu.rip behind it and answer \"continue\""):format(tostring(exit), message), 0)
  end
  cpu.rip = next_rip
end

local verdicts = {
  stop = function() return true end,
  park = function() return "park" end,
  continue = function(cpu, exit)
    if is_open(exit) and exit.access == "r" then
      error(("a handler answered %s with \"continue\": a read needs a value, \"skip\" or \"retry\"")
        :format(tostring(exit)), 0)
    elseif exit.access == "w" then
      raw_answer(cpu)
    elseif exit.access == "x" then
      error(("a handler answered %s with \"continue\": map memory there and say \"retry\"")
        :format(tostring(exit)), 0)
    end
  end,
  skip = function(cpu, exit)
    if not is_open(exit) then return pass(cpu, exit) end
    local _, message = raw_answer(cpu, ALL_ONES)
    if message then error(message, 0) end
  end,
  refuse = function(cpu, exit)
    if exit.kind ~= "msr" then
      error(("a handler answered %s with \"refuse\": that is for an msr exit")
        :format(tostring(exit)), 0)
    end
    raw.refuse(cpu)
  end,
  retry = function(cpu, exit)
    if exit.kind == "instruction" or exit.kind == "exception" then return nil end
    if not is_open(exit) or exit.kind == "pio" or exit.kind == "msr" then
      error(("a handler answered %s with \"retry\": that is for a fault exit")
        :format(tostring(exit)), 0)
    end
    local ok, message = raw.retry(cpu)
    if not ok then error(message, 0) end
  end,
}

-- What is left to do of an exit that its handler has answered itself, or dropped.
local function conclude_closed(exit, answer)
  if answer == "continue" or answer == "skip" then return nil end
  if answer == "stop" or answer == "park" then return verdicts[answer]() end
  error(("a handler answered %s with %s, but it had answered or dropped it before, or set cpu.rip, "
    .. "which drops it: \"continue\", \"skip\", \"stop\" or \"park\" then")
    :format(tostring(exit), tostring(answer)), 0)
end

-- Acts on what a handler of an exit returned; true to stop, "park" to stop this vCPU alone.
local function conclude(cpu, exit, answer)
  if answer == nil then return true end
  if type(answer) == "table" and answer.inject then
    cpu:inject(answer.inject, answer.error_code, answer.address)
    return nil
  end
  if is_open(exit) and not raw.exit_open(cpu) then return conclude_closed(exit, answer) end
  local verdict = verdicts[answer]
  if verdict then return verdict(cpu, exit) end
  if is_open(exit) and exit.access == "r" and type(answer) ~= "string" then
    raw_answer(cpu, check_value(answer, 0, exit.size, "the " .. exit.kind .. " handler"))
    return nil
  end
  error(("a handler answered %s with %s: nil, \"stop\", \"continue\", \"skip\", \"retry\", "
    .. "\"refuse\", \"park\" or, for a read, a value expected")
    :format(tostring(exit), tostring(answer)), 0)
end

--- Set by vcpu/debug.lua: who answers a debug exit.
M.debug_handler = nil

--- Gives an exit that no device takes to its handler. The exit and true or "park" if it surfaces;
--- `enter` is what the guest was entered with.
function M.handle(cpu, kind, enter)
  local exit = exits.new(cpu)
  local meter, recording = cpu.vm.meter, cpu.vm.recording
  if meter then meter:exit(exit) end
  if recording then recorder.exit(recording, exit) end
  local handler
  if kind == DEBUG then
    handler = M.debug_handler(cpu, exit, enter)
  else
    handler = kind == FAULT and spaces.fault_handler(exit.space, exit.gpa) or cpu.handlers[kind]
  end
  if not handler then
    if unowned.answer(cpu, exit) then return nil end
    return exit, true
  end
  local answer = handler(cpu, exit)
  local verdict = cpu[1] and conclude(cpu, exit, answer) -- unless it has closed the vCPU
  if verdict then return exit, verdict end
  if cpu[1] then raw_mark(cpu) end -- as a run does: the handler has seen the registers
end

return M
