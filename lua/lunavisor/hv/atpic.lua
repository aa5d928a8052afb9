-- SPDX-License-Identifier: MIT
-- The two PICs (8259A) of a VM with VM_ACCEL_APIC, the second at line 2 of the first. Their output
-- goes to LINT0 of vCPU 0's local APIC, or to the vCPU that the program says.

local u64 = require "lunavisor.text.u64"
local call = require "lunavisor.hv.call"
local machine = require "lunavisor.hv.machine"

local fail, try, has, band = call.fail, call.try, call.has, call.band

local LINES = 8
local CASCADE = 2 -- the line of the first at which the second is
local SPURIOUS = 7
local BITS = { [0] = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80 } -- of the lines
local EDGES = { 0x07, 0x21 } -- lines 0 to 2, 8 and 13 of a PC are edge-triggered
local MASKED, MODE, EXTINT = 0x10000, 0x700, 0x700 -- of LINT0

local M = {}

-- ---- State ----

-- Apple's structure. `icw_num`: the initialization command word that is next, 1 without one;
-- `sfn`: special fully nested; `smm`: special mask mode; `elc`: level-triggered lines. Levels stay
-- over an initialization; an edge-triggered line has to fall and rise again.
local function fresh(last_request, elc)
  return {
    ready = false, icw_num = 1, rd_cmd_reg = 0, aeoi = false, poll = false, rotate = false,
    sfn = false, irq_base = 0, request = band(last_request, elc), service = 0, mask = 0,
    smm = false, last_request = last_request, lowprio = LINES - 1, intr_raised = false, elc = elc,
  }
end

function machine.make_atpic()
  return { fresh(0, 0), fresh(0, 0) } -- primary, secondary
end

-- ---- Requests ----

local function with(bits, bit) return has(bits, bit) and bits or bits + bit end
local function without(bits, bit) return has(bits, bit) and bits - bit or bits end

-- The lines and their bits, from the highest priority.
local function by_priority(p)
  local step = 0
  return function()
    step = step + 1
    if step > LINES then return nil end
    local line = (p.lowprio + step) % LINES
    return line, BITS[line]
  end
end

-- The line of highest priority that may interrupt now, or nil: one above all that are in service.
-- In special mask mode those are passed over; special fully nested, the second PIC may interrupt
-- itself.
local function requested(p)
  if not p.ready then return nil end
  for line, bit in by_priority(p) do
    local serviced = has(p.service, bit)
    local nested = p.sfn and p == machine.pics[1] and line == CASCADE
    if has(p.request, bit) and not has(p.mask, bit) and (nested or not serviced) then
      return line
    end
    if serviced and not p.smm and not nested then return nil end
  end
end

local function set_request(p, line, level)
  local bit = BITS[line]
  local rises = level and not has(p.last_request, bit)
  p.last_request = (level and with or without)(p.last_request, bit)
  if has(p.elc, bit) then
    p.request = (level and with or without)(p.request, bit)
  elseif rises then
    p.request = with(p.request, bit)
  elseif not level and p == machine.pics[1] and line == CASCADE then
    p.request = without(p.request, bit) -- the second chip has withdrawn it
  end
end

-- Gets vCPU 0 out of the guest, so that it looks at the PICs before it goes on.
local function signal()
  local v = machine.vcpus[0]
  if v then v.cpu:interrupt() end
end

-- Outputs follow requests; the first's goes to the processor.
local function update()
  local primary, secondary = machine.pics[1], machine.pics[2]
  secondary.intr_raised = requested(secondary) ~= nil
  set_request(primary, CASCADE, secondary.intr_raised)
  local was = primary.intr_raised
  primary.intr_raised = requested(primary) ~= nil
  if primary.intr_raised and not was then signal() end
end

-- ---- Acknowledging ----

-- The processor takes the line's interrupt.
local function accept(p, line)
  local bit = BITS[line]
  if not p.aeoi then
    p.service = with(p.service, bit)
  elseif p.rotate then
    p.lowprio = line
  end
  if not has(p.elc, bit) then p.request = without(p.request, bit) end
end

-- A request that is gone by now is line 7's.
local function acknowledge(p, take)
  local line = requested(p)
  if line and take then accept(p, line) end
  return line or SPURIOUS
end

-- The vector that the PICs request; `take`: the processor takes it.
local function vector(take)
  local primary, secondary = machine.pics[1], machine.pics[2]
  local line = acknowledge(primary, take)
  if line ~= CASCADE then return primary.irq_base + line end
  return secondary.irq_base + acknowledge(secondary, take)
end

local function taken()
  local primary = machine.pics[1]
  vector(true)
  set_request(primary, CASCADE, false) -- whatever is requested next rises anew
  primary.intr_raised = false
  update()
end

-- ---- On the way to a vCPU ----

-- Whether LINT0 is open for the PICs.
local function connected(v)
  if v.id ~= 0 then return false end
  local entry = v.cpu.apic.lvt_lint0
  return not has(entry, MASKED) and band(entry, MODE) == EXTINT
end

local function give(v)
  if not v.extint and not connected(v) then return true end
  local ok, message, code = v.cpu:extint(vector(false))
  if not ok then return code == "busy" or nil, message, code end
  v.extint = false
  taken()
  return true
end

--- Before the vCPU is entered: gives it the interrupt that the PICs request, if it takes one. KVM
--- keeps it until the guest accepts it.
function M.offer(v)
  local pics = machine.pics
  if not pics or not pics[1].intr_raised then return true end
  return try(give, v)
end

--- Lets the vCPU take what the PICs request, now or next.
function M.inject(v)
  if v.extint then
    return fail("busy", "vCPU %d has an interrupt of the PICs queued already", v.id)
  end
  v.extint = true
  return true
end

-- ---- Commands ----

local function highest_in_service(p)
  for line, bit in by_priority(p) do
    if has(p.service, bit) and not (p.smm and has(p.mask, bit)) then return line end
  end
end

-- OCW2: ends of interrupts, and rotation of the priorities.
local function command(p, value)
  local rotate, specific, eoi = has(value, 0x80), has(value, 0x40), has(value, 0x20)
  if not eoi and not specific then
    p.rotate = rotate -- in automatic EOI mode
    return
  end
  local line = highest_in_service(p)
  if specific then line = value % LINES end
  if not line then return end
  if eoi then p.service = without(p.service, BITS[line]) end
  if rotate then p.lowprio = line end
end

-- OCW3: what is read, polling, special mask mode.
local function choose(p, value)
  p.poll = has(value, 4)
  if has(value, 2) then p.rd_cmd_reg = value % 2 end
  if has(value, 0x40) then p.smm = has(value, 0x20) end
end

-- ICW1: the others follow.
local function initialize(p)
  for name, value in pairs(fresh(p.last_request, p.elc)) do p[name] = value end
  p.icw_num = 2
end

-- What a write to the data port is, by icw_num: OCW1, or ICW2 to ICW4. A PC has both chips, and the
-- last.
local data_words = {
  function(p, value) p.mask = value end,
  function(p, value) p.irq_base, p.icw_num = value - value % LINES, 3 end,
  function(p) p.icw_num = 4 end, -- how they are connected, which is given
  function(p, value)
    p.aeoi, p.sfn, p.icw_num, p.ready = has(value, 2), has(value, 0x10), 1, true
  end,
}

local function poll(p)
  p.poll = false
  local line = requested(p)
  if line then accept(p, line) end
  return line and 0x80 + line or 0
end

-- ---- Ports ----

local registers = {
  command = {
    read = function(p)
      if p.poll then return poll(p) end
      return p.rd_cmd_reg % 2 == 1 and p.service or p.request
    end,
    write = function(p, value)
      local word = has(value, 0x10) and initialize or has(value, 8) and choose or command
      word(p, value)
    end,
  },
  data = {
    read = function(p) return p.poll and poll(p) or p.mask end,
    write = function(p, value) data_words[p.icw_num](p, value) end,
  },
  trigger = {
    read = function(p) return p.elc end,
    write = function(p, value)
      p.elc = value - band(value, EDGES[p == machine.pics[1] and 1 or 2])
    end,
  },
}

local ports = {
  [0x20] = { 1, registers.command }, [0x21] = { 1, registers.data },
  [0xa0] = { 2, registers.command }, [0xa1] = { 2, registers.data },
  [0x4d0] = { 1, registers.trigger }, [0x4d1] = { 2, registers.trigger },
}

local function no_port(number)
  return fail("bad_argument", "the PICs have no port 0x%x", number)
end

function M.read(number)
  local port = ports[number]
  if not port then return no_port(number) end
  local value = port[2].read(machine.pics[port[1]])
  update()
  return value
end

function M.write(number, value)
  local port = ports[number]
  if not port then return no_port(number) end
  if value > 0xff then
    return fail("bad_argument", "a port of the PICs has 8 bits, not 0x%x", value)
  end
  port[2].write(machine.pics[port[1]], value)
  update()
  return true
end

--- A function that sets a line, 0 to 15 without 2, to the level.
function M.set(level)
  return function(line)
    if line >= 2 * LINES or line == CASCADE then
      return fail("bad_argument", "the PICs have no line %d to set", line)
    end
    local inner = line % LINES
    set_request(machine.pics[line == inner and 1 or 2], inner, level)
    update()
    return true
  end
end

-- ---- The whole state ----

local lowest = { icw_num = 1 }
local highest = { icw_num = 4, lowprio = LINES - 1 }

-- The value as `like` is: true or false, or a number of 8 bits or fewer; nil for any other.
local function checked(name, value, like)
  if type(like) == "boolean" then
    if type(value) ~= "boolean" then return nil end
    return value
  end
  local exact = u64.exact(value)
  if exact == nil or u64.lt(highest[name] or 0xff, exact) or u64.lt(exact, lowest[name] or 0) then
    return nil
  end
  return u64.tonumber(exact)
end

--- A copy.
function M.get_state(primary)
  local copy = {}
  for name, value in pairs(machine.pics[primary and 1 or 2]) do copy[name] = value end
  return copy
end

--- Puts a state of get_state back.
function M.put_state(state, primary)
  local made = {}
  for name, like in pairs(fresh(0, 0)) do
    made[name] = checked(name, state[name], like)
    if made[name] == nil then
      return fail("bad_argument", "%s cannot be %s in a state of a PIC", name,
        tostring(state[name]))
    end
  end
  machine.pics[primary and 1 or 2] = made
  if machine.pics[1].intr_raised then signal() end
  return true
end

return M
