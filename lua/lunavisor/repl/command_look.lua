-- SPDX-License-Identifier: MIT
-- Commands of a prompt that show the vCPU: registers, code, memory, calls, why it stopped.

local change = require "lunavisor.vcpu.change"
local explain = require "lunavisor.exit.explain"
local u64 = require "lunavisor.text.u64"

local ROW, ROWS = 16, 4
local SEGMENTS = { "cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr", "gdtr", "idtr" }

-- The table of registers, with * behind those that the last stop has changed.
local function registers_text(self, cpu)
  local lines = { change.marked(cpu:regs(), self.changed) }
  for i, name in ipairs(SEGMENTS) do lines[i + 1] = tostring(cpu[name]) end
  return table.concat(lines, "\n")
end

local function row_text(address, bytes)
  local digits = bytes:gsub(".", function(c) return ("%02x "):format(c:byte()) end)
  return ("%s: %-48s |%s|"):format(u64.hex(address), digits, (bytes:gsub("[%c\127-\255]", ".")))
end

local function memory_text(cpu, address, size)
  local lines, at = {}, u64.exact(address)
  local bytes = cpu:read(at, size)
  for from = 1, #bytes, ROW do
    lines[#lines + 1] = row_text(at, bytes:sub(from, from + ROW - 1))
    at = at + u64(ROW)
  end
  return table.concat(lines, "\n")
end

return function(add)
  add("r", "", "registers, with * behind those that have changed", function(self)
    return registers_text(self, self:need_cpu())
  end)

  add("u", "[ADDRESS [COUNT]]", "unassemble, from rip on", function(self, rest)
    local cpu = self:need_cpu()
    local address, count = self:numbers(rest)
    local list, message = cpu:disasm(count and u64.tonumber(count), address)
    if not list then error(message, 0) end
    return tostring(list)
  end)

  add("x", "ADDRESS [SIZE]", "examine memory at a linear address", function(self, rest)
    local address, size = self:numbers(rest)
    if address == nil then error("x: an address expected", 0) end
    return memory_text(self:need_cpu(), address, size and u64.tonumber(size) or ROW * ROWS)
  end)

  add("bt", "", "backtrace: the chain of calls", function(self)
    return tostring(self:need_cpu():backtrace())
  end)

  add("why", "", "why it has stopped, with all that can be seen", function(self)
    if not self.exit then error("nothing has stopped the guest yet", 0) end
    return tostring(explain.of(self.exit, self.looked == self.exit.cpu and self.changed or nil))
  end)

  add("exits", "[COUNT]", "the last exits", function(self, rest)
    local count = rest ~= "" and u64.tonumber(self:numbers(rest)) or nil
    local list, message = self:need_cpu():last_exits(count)
    if not list then error(message, 0) end
    return tostring(list)
  end)
end
