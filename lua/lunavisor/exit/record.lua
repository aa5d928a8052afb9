-- SPDX-License-Identifier: MIT
-- Why a guest stopped, as a table with the fields its kind has, and as a sentence.

local raw = require "lunavisor.binding.backend"
local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"
local disasm = require "lunavisor.deferred" "lunavisor.text.disasm"
local stand = require "lunavisor.exit.stand"
local symbols = require "lunavisor.text.symbols"

local FIELDS = [[
  kind rip cpu space serial reason reason_name port gpa msr size access value count name vector
  error_code address breakpoint reached dr6 suberror instruction rule type number arguments long
  write context_valid data code vcpus stuck]]
local methods = {}
local Exit = class.define(class.class "exit", methods, FIELDS)

local declared = {}
for name in FIELDS:gmatch "%S+" do declared[name] = true end

-- What a script might set, and would wait for something to happen, is behind a name of ours, so
-- that setting it raises.
function Exit.__index(exit, key)
  local method = rawget(methods, key)
  if method then return method end
  if key == "value" then return rawget(exit, "_value") end
  if key == "rip" then return rawget(exit, "_rip") end
  if not declared[key] and not class.is_probe(key) then class.missing(Exit, key, nil, 2) end
  return nil
end

function Exit.__newindex(_, key)
  if not declared[key] then class.missing(Exit, key, " that can be set", 2) end
  error(("an exit's %s cannot be set: it says what has happened; %s"):format(key, key == "rip"
    and "set cpu.rip to go on elsewhere"
    or "return the answer from the handler, or call cpu:answer"), 2)
end

-- Makes an exit of its fields.
local function make(exit)
  exit._value, exit._rip = exit.value, exit.rip
  exit.value, exit.rip = nil, nil
  return setmetatable(exit, Exit)
end

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
    exit._value = e.size <= 4 and u64.tonumber(e.value) or e.value
  end
  if exit.kind == "pio" then
    exit.port, exit.count = u64.tonumber(e.address), e.count
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

-- KVM_SYSTEM_EVENT_* of <linux/kvm.h>
local system_events = {
  "shutdown", "reset", "crash", "wakeup", "suspend", "sev_term", "tdx_fatal",
}

local hypercalls = { [12] = "map_gpa_range" } -- KVM_HC_*: what KVM hands on

-- What KVM says of exits that have no kind of their own, from the words of its run page.
local further = {
  unknown = function(exit, words) exit._value = words[1] end,
  exception = function(exit, words)
    exit.vector = u64.tonumber(u64.band(words[1], 0xffffffff))
    exit.error_code = u64.tonumber(u64.rshift(words[1], 32))
    exit.name = exceptions[exit.vector] or ("vector %d"):format(exit.vector)
  end,
  notify = function(exit, words) exit.context_valid = u64.band(words[1], 1) == u64.exact(0) end,
}

local fields = {
  pio = access_fields,
  mmio = access_fields,
  fault = access_fields,
  timeout = function(exit, _, cpu) exit.stuck = stand.stuck(cpu) end,
  exception = function(exit, e)
    exit.vector, exit.error_code = e.vector, e.error_code
    exit.name = exceptions[e.vector]
      or (e.vector < 32 and "vector %d" or "interrupt 0x%x"):format(e.vector)
    if e.vector == 14 then exit.address = e.address end
  end,
  msr = function(exit, e)
    exit.msr, exit.size, exit.access = u64.tonumber(e.address), e.size, access_names[e.access]
    if exit.access == "w" then exit._value = e.value end
  end,
  internal = function(exit, e)
    exit.suberror, exit.instruction, exit.data = e.suberror, e.instruction, e.data
  end,
  instruction = function(exit, e) exit.suberror, exit.instruction = e.suberror, e.instruction end,
  fail_entry = function(exit, e, cpu)
    local _, rule, code = raw.check(cpu)
    exit._value = e.value
    if code == "state" then exit.rule = rule end
  end,
  shutdown = function(exit, _, cpu)
    local _, rule, code = raw.check(cpu)
    if code == "not_found" then exit.rule = rule end
  end,
  system_event = function(exit, e)
    exit.type, exit.data = u64.tonumber(e.value), e.data
    exit.name = system_events[exit.type] or ("type %d"):format(exit.type)
  end,
  hypercall = function(exit, e)
    exit.number, exit.access, exit.size = u64.tonumber(e.value), "r", e.size
    exit.name = hypercalls[exit.number]
    exit.long = table.remove(e.data) == u64.exact(1)
    exit.arguments = e.data
  end,
  eoi = function(exit, e) exit.vector = e.vector end,
  tpr = function(exit, e)
    if e.access == 0 then
      exit._value = u64.tonumber(e.value)
    else
      exit.address, exit.write = e.address, e.access == 2
    end
  end,
  other = function(exit, e)
    exit.data = e.data
    local more = further[exit.reason_name]
    if more then more(exit, e.data) end
  end,
  host_fault = function(exit, e)
    exit.gpa = u64.tonumber(e.address)
    if e.access ~= 0 then access_fields(exit, e) end
  end,
}

-- Kinds whose text ends with the instruction at rip. The value true: its bytes are read at once.
-- The others can be frequent, and are read if somebody asks while the vCPU stands there.
local shows_code = {
  shutdown = true, internal = true, fail_entry = true, instruction = true, host_fault = true,
  other = true, fault = false, exception = false, debug = false, timeout = false,
  interrupted = false,
}

--- The exit at which the vCPU stands.
local function new(cpu)
  local e = raw.exit(cpu)
  local exit = { kind = names[e.kind], reason = e.reason,
    reason_name = raw.reason_name(e.reason), _rip = cpu.rip, cpu = cpu,
    space = cpu.vm.spaces[e.space], serial = raw.vcpu_exits(cpu) }
  local fill = fields[exit.kind]
  if fill then fill(exit, e, cpu) end
  if shows_code[exit.kind] then exit.code = { raw.code(cpu, exit._rip) } end
  return setmetatable(exit, Exit)
end

-- The words up to the last that is not 0.
local function words_text(words)
  local last = #words
  while last > 0 and words[last] == u64.exact(0) do last = last - 1 end
  local list = {}
  for i = 1, last do list[i] = u64.hex(words[i]) end
  return last > 0 and ", data " .. table.concat(list, " ") or ""
end

-- What raw.code says of the rip of an exit, as a table; nil for kinds without, where the vCPU has
-- gone on, and for the exits of vm:run that have none. A write has moved rip on already, so that
-- what is there did not do it.
local function code_of(exit)
  if exit.code then return exit.code end
  local cpu = exit.cpu
  if shows_code[exit.kind] == nil or exit.access == "w" or not cpu or not cpu[1]
    or raw.vcpu_exits(cpu) ~= exit.serial then return nil end
  return { raw.code(cpu, exit.rip) }
end

-- Exceptions whose rip is behind the instruction or nowhere in particular (SDM Vol. 3, table 6-1):
-- traps and aborts.
local no_fault = { [1] = true, [2] = true, [3] = true, [4] = true, [8] = true, [18] = true }

--- Whether the exit is at an instruction that was not done.
local function is_at_instruction(exit)
  return exit.kind == "instruction" or exit.kind == "exception" and not no_fault[exit.vector]
end

--- The rip behind the instruction at which the vCPU stands with the exit; nil and a message.
local function behind(cpu, exit)
  local bytes, bits = raw.code(cpu, exit.rip)
  if not bytes then return nil, bits end
  local size, message = raw.disassemble(bytes, 0, exit.rip, bits)
  if not size then return nil, message end
  local rip = exit.rip + u64(size)
  return bits == 64 and rip or u64.mod(rip, 2 ^ bits)
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

local function places_text(exit)
  return exit.vcpus and stand.text(exit.vcpus) or exit.stuck and stand.STUCK or nil
end

local texts = {
  timeout = places_text,
  parked = places_text,
  pio = access_text,
  mmio = access_text,
  fault = function(exit) return access_text(exit) .. ", which no region allows" end,
  exception = function(exit)
    if exit.vector >= 32 then return exit.name end
    return ("%s, error code 0x%x%s"):format(exit.name, exit.error_code,
      exit.address and ", address " .. u64.hex(exit.address) or "")
  end,
  internal = function(exit)
    return ("suberror %d: %s%s"):format(exit.suberror, suberrors[exit.suberror] or "unknown",
      exit.instruction ~= "" and "; instruction bytes " .. disasm.hex(exit.instruction) or "")
  end,
  instruction = function() return "KVM cannot emulate it" end,
  fail_entry = function(exit)
    return "hardware reason " .. u64.hex(exit.value) .. (exit.rule and ": " .. exit.rule or "")
  end,
  eoi = function(exit) return ("vector 0x%x"):format(exit.vector) end,
  shutdown = function(exit) return "triple fault" .. (exit.rule and ": " .. exit.rule or "") end,
  msr = function(exit)
    return ("%s of MSR 0x%x%s"):format(verb[exit.access], exit.msr,
      exit.access == "w" and ", value " .. u64.hex(exit.value) or "")
  end,
  host_fault = function(exit)
    return "the host memory behind a region cannot be used"
      .. (exit.gpa > 0 and (", gpa 0x%x"):format(exit.gpa) or "")
  end,
  system_event = function(exit)
    return "the guest asks for " .. exit.name .. words_text(exit.data)
  end,
  hypercall = function(exit)
    return ("number %d%s%s%s"):format(exit.number, exit.name and ", " .. exit.name or "",
      exit.long and "" or ", 32-bit", words_text(exit.arguments))
  end,
  tpr = function(exit)
    if exit.value then return ("lowered to %d"):format(exit.value) end
    return (exit.write and "written" or "read") .. " by the instruction at "
      .. u64.hex(exit.address)
  end,
  other = function(exit)
    return ("KVM exit reason %d, %s%s"):format(exit.reason, exit.reason_name
      and exit.reason_name .. ": " .. raw.reason_text(exit.reason) or "unknown to this library",
      words_text(exit.data))
  end,
}

local is_exit = class.checker(Exit)

--- Why the guest stopped: a table with `sentence` (the exit's text), `mistakes` (a list of { name
--- =, text = } of those that are recognised: "long tables", "no code", "zeros", "no idt", "no
--- stack", "halted", "polls"), `symbol` and source `line` (of rip; `no_line`: why the lines that
--- the image has cannot be read), `mode` in words, `code` (eight instructions, the one at rip
--- marked), `walk` of the address that has failed and `refused`, which entry has refused it,
--- `exceptions` (the last eight that the guest was given, interrupts too, as cpu:last_exceptions
--- has them; on KVM those of a triple fault alone, found by doing its instruction again on the
--- software CPU, and then `again` is true), `last` (the last ten exits), `devices` (what each was
--- asked last), `lines` (interrupts of devices that are up and drive nothing, where the guest
--- waits), `hidden` (devices to which nothing can come), `registers`, `changed` (general registers
--- by name, as they were when a run or a handler let the guest go on to where it is, of those that
--- are others now), `segments`, and `problem`, where it is too late to look. Of an exit of vm:run
--- without a vCPU, `vcpus` has one for each vCPU. tostring gives all of it, in lines. It changes
--- nothing, and does not raise for what cannot be read. From the thread that runs the VM.
function methods.explain(self)
  is_exit(self)
  return require("lunavisor.exit.explain").of(self)
end

-- What the VM's symbols call the rip, and its source line.
local function symbol_text(exit)
  local name = exit.cpu and symbols.text(exit.cpu.vm.symbols, exit.rip)
  return name and " <" .. name .. ">" or ""
end

function Exit.__tostring(exit)
  local text = texts[exit.kind]
  local what = text and text(exit)
  local code = code_of(exit)
  return exit.kind .. (what and " (" .. what .. ")" or "")
    .. (exit.rip and " at rip " .. u64.hex(exit.rip) .. symbol_text(exit) or "")
    .. (code and ": " .. disasm.text(code[1], code[2], exit.rip) or "")
end

return {
  new = new, make = make, fields = fields, texts = texts, names = names, numbers = numbers,
  vectors = vectors,
  class = Exit, methods = methods,
  is_at_instruction = is_at_instruction, behind = behind,
}
