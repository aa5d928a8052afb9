-- SPDX-License-Identifier: MIT
-- Why a guest stopped, as a table with the fields its kind has, and as a sentence.

local raw = require "lunavisor.backend"
local u64 = require "lunavisor.u64"

local Exit = { __name = "exit" }

-- Kinds by number and number by kind; the core has the names.
local names, numbers = {}, {}
do
  local kind = 1
  while raw.exit_name(kind) do
    names[kind] = raw.exit_name(kind)
    numbers[names[kind]] = kind
    kind = kind + 1
  end
end

local access_names = { [1] = "r", [2] = "w", [4] = "x" }

local function access_fields(exit, e)
  exit.size, exit.access = e.size, access_names[e.access]
  if exit.access == "w" then
    exit.value = e.size <= 4 and u64.tonumber(e.value) or e.value
  end
  if exit.kind == "pio" then
    exit.port = u64.tonumber(e.address)
  else
    exit.gpa = u64.tonumber(e.address)
  end
end

-- SDM Vol. 3, table 6-1.
local exceptions = {
  [0] = "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", nil, "#TS", "#NP", "#SS",
  "#GP", "#PF", nil, "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
}

-- The vector of each name.
local vectors = {}
for vector, name in pairs(exceptions) do vectors[name] = vector end

local fields = {
  pio = access_fields,
  mmio = access_fields,
  fault = access_fields,
  exception = function(exit, e)
    exit.vector, exit.error_code = e.vector, e.error_code
    exit.name = exceptions[e.vector] or ("vector %d"):format(e.vector)
    if e.vector == 14 then exit.address = e.address end
  end,
  internal = function(exit, e)
    exit.suberror, exit.instruction, exit.data = e.suberror, e.instruction, e.data
  end,
  fail_entry = function(exit, e, cpu)
    local _, rule = raw.check(cpu)
    exit.value, exit.rule = e.value, rule
  end,
  host_fault = function(exit, e)
    exit.gpa = u64.tonumber(e.address)
    if e.access ~= 0 then access_fields(exit, e) end
  end,
}

--- The exit at which the vCPU stands.
local function new(cpu)
  local e = raw.exit(cpu)
  local exit = setmetatable({ kind = names[e.kind], reason = e.reason, rip = cpu.rip,
    space = cpu.vm.spaces[e.space] }, Exit)
  local fill = fields[exit.kind]
  if fill then fill(exit, e, cpu) end
  return exit
end

local verb = { r = "read", w = "write", x = "execute" }

local function access_text(exit)
  local place = exit.port and ("port 0x%x"):format(exit.port) or ("gpa 0x%x"):format(exit.gpa)
  if exit.access == "x" then return ("execute at %s"):format(place) end
  return ("%s of %d byte%s at %s%s"):format(verb[exit.access], exit.size,
    exit.size == 1 and "" or "s", place,
    exit.access == "w" and ", value " .. u64.hex(exit.value) or "")
end

-- KVM_INTERNAL_ERROR_* of <linux/kvm.h>
local suberrors = {
  "KVM cannot emulate the instruction", "KVM met an exception while it delivered another",
  "KVM could not deliver an event", "KVM met an exit that it does not expect",
}

local texts = {
  pio = access_text,
  mmio = access_text,
  fault = function(exit) return access_text(exit) .. ", which no region allows" end,
  exception = function(exit)
    return ("%s, error code 0x%x%s"):format(exit.name, exit.error_code,
      exit.address and ", address " .. u64.hex(exit.address) or "")
  end,
  internal = function(exit)
    local bytes = exit.instruction:gsub(".", function(c) return (" %02x"):format(c:byte()) end)
    return ("suberror %d: %s%s"):format(exit.suberror, suberrors[exit.suberror] or "unknown",
      bytes ~= "" and "; instruction bytes" .. bytes or "")
  end,
  fail_entry = function(exit)
    return "hardware reason " .. u64.hex(exit.value) .. (exit.rule and ": " .. exit.rule or "")
  end,
  shutdown = function() return "triple fault" end,
  host_fault = function(exit)
    return "the host memory behind a region cannot be used"
      .. (exit.gpa > 0 and (", gpa 0x%x"):format(exit.gpa) or "")
  end,
  other = function(exit) return ("KVM exit reason %d"):format(exit.reason) end,
}

function Exit.__tostring(exit)
  local text = texts[exit.kind]
  return exit.kind .. (text and " (" .. text(exit) .. ")" or "") .. " at rip "
    .. u64.hex(exit.rip)
end

return { new = new, names = names, numbers = numbers, vectors = vectors, class = Exit }
