-- SPDX-License-Identifier: MIT
-- Where a guest is: the names of its source, what it did last, and the instructions there.

local disasm = require "lunavisor.text.disasm"
local u64 = require "lunavisor.text.u64"

local M = {}

-- ---- What it did ----

local MOST = 8

--- Notes the last accesses of a VM's guest to devices: a list, the same one after another once.
function M.accesses(vm)
  local list = {}
  vm:watch(function(access)
    local last = list[#list]
    if last and last.address == access.address and last.access == access.access
      and last.value == access.value and last.size == access.size then
      last.count = last.count + 1
      return
    end
    access.count = 1
    list[#list + 1] = access
    if #list > MOST then table.remove(list, 1) end
  end)
  return list
end

local places = { pio = "port", mmio = "gpa", msr = "MSR" }

local function access_text(access)
  local value = access.value ~= nil and u64.exact(access.value) ~= nil and u64.hex(access.value)
    or "a block"
  return ("  %s of %d byte%s at %s 0x%x%s: %s%s"):format(access.access == "r" and "read" or "write",
    access.size, access.size == 1 and "" or "s", places[access.kind], access.address,
    access.name and " (" .. access.name .. ")" or "", value,
    access.count > 1 and (", %d times"):format(access.count) or "")
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
  if #guest.accesses > 0 then lines[#lines + 1] = "the last accesses to devices:" end
  for _, access in ipairs(guest.accesses) do lines[#lines + 1] = access_text(access) end
  if guest.console and guest.console.output ~= "" then
    lines[#lines + 1] = "the last that it printed:"
    lines[#lines + 1] = guest.console:tail()
  end
  return table.concat(lines, "\n")
end

return M
