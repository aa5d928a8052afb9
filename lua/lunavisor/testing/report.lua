-- SPDX-License-Identifier: MIT
-- Where a guest is: the names of its source, what it did last, and the instructions there.

local disasm = require "lunavisor.text.disasm"
local pasts = require "lunavisor.exit.past"
local u64 = require "lunavisor.text.u64"

local unpack = rawget(table, "unpack") or unpack

local M = {}

-- ---- What it did ----

local MOST = 8

-- The name of the device that an exit went to, nil where it has none.
local function device_of(vm, past)
  local address = past.port or past.gpa or past.msr
  local kind = past.port and "pio" or past.gpa and "mmio" or "msr"
  for _, trap in pairs(vm.traps) do
    if address and trap.kind == kind and address >= trap.first
      and address < trap.first + trap.length then
      return rawget(trap.device, "name")
    end
  end
  return nil
end

-- The last exits, a line each, the same one after another once.
local function exits_of(guest)
  local lines, last, times = {}, nil, 0
  local function close()
    if last and times > 1 then lines[#lines] = ("%s, %d times"):format(lines[#lines], times) end
  end
  for _, past in ipairs(guest.cpu:last_exits() or {}) do
    local name = device_of(guest.vm, past)
    local text = pasts.text(past) .. (name and " of " .. name or "")
    if text == last then
      times = times + 1
    else
      close()
      lines[#lines + 1] = "  " .. text
      last, times = text, 1
    end
  end
  close()
  return { select(math.max(1, #lines - MOST + 1), unpack(lines)) }
end

-- ---- All of it ----

local function add_place(lines, guest)
  local name = guest.labels:name(guest.cpu.rip)
  lines[#lines + 1] = ("it is at rip %s%s"):format(u64.hex(guest.cpu.rip),
    name and " (" .. name .. ")" or "")
  local ok, trace = pcall(guest.cpu.backtrace, guest.cpu, 8)
  for i = 2, ok and type(trace) == "table" and #trace or 0 do
    local caller = guest.labels:name(trace[i].rip)
    lines[#lines + 1] = ("  called from %s%s"):format(u64.hex(trace[i].rip),
      caller and " (" .. caller .. ")" or "")
  end
end

local function add_code(lines, guest)
  local rip = u64.tonumber(guest.cpu.rip)
  local code = rip and guest.vm.default:try_read(rip, 16)
  local list = code and disasm.list(code, { address = rip, bits = guest.bits, count = 4 })
  for _, one in ipairs(list or {}) do lines[#lines + 1] = "  " .. tostring(one) end
end

--- What is known of a guest whose run did not end as meant, below a headline.
function M.text(guest, headline)
  local lines = { headline }
  add_place(lines, guest)
  add_code(lines, guest)
  local exits = exits_of(guest)
  if #exits > 0 then lines[#lines + 1] = "the last exits:" end
  for _, line in ipairs(exits) do lines[#lines + 1] = line end
  if guest.console and guest.console.output ~= "" then
    lines[#lines + 1] = "the last that it printed:"
    lines[#lines + 1] = guest.console:tail()
  end
  return table.concat(lines, "\n")
end

return M
