-- SPDX-License-Identifier: MIT
-- What each packet of gdb's remote protocol is answered with. A function gets the server and the
-- body behind the packet's name, and gives the answer's body; nil where none is to be sent now.

local raw = require "lunavisor.binding.backend"
local u64 = require "lunavisor.text.u64"
local evaluate = require "lunavisor.repl.evaluate"
local packet = require "lunavisor.gdb.packet"
local points = require "lunavisor.gdb.point"
local registers = require "lunavisor.gdb.registers"
local target = require "lunavisor.gdb.target"
local mode = require "lunavisor.vcpu.mode"

local commands, M = {}, {}

local NO_MEMORY, REFUSED, NO_SUCH = "E14", "E22", "E01"
local MOST = 0x1f00 -- bytes of memory in a packet of 0x4000

-- ---- Arguments ----

-- An address of digits: { value = u64, text = the digits }; nil for none.
local function address_of(digits)
  local short = digits:gsub("^0+(%x)", "%1")
  if not short:find "^%x+$" or #short > 16 then return nil end
  return { value = u64("0x" .. short), text = short }
end

-- The vCPU of a thread, which is its place in the list: 1 and so on.
local function thread(self, digits)
  local number = tonumber(digits, 16)
  return number and self.vm.vcpus[number]
end

--- The thread of a vCPU, as digits.
function M.number(vm, cpu)
  for i, one in ipairs(vm.vcpus) do
    if one == cpu then return ("%x"):format(i) end
  end
end

--- The vCPU that registers and memory are of.
local function current(self)
  local cpu = self.current
  if not cpu or not cpu[1] then cpu = self.vm.vcpus[1] end
  self.current = cpu
  return cpu
end

M.current = current

-- ---- Hello ----

function commands.qSupported()
  return "PacketSize=4000;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+"
end

function commands.QStartNoAckMode(self)
  self:send "OK"
  self.quiet = true
end

-- The registers are those of the mode in which they are asked for first: the client knows no others
-- until it connects anew.
local function layout(self)
  if not self.registers then
    self.bits = self.fixed or mode.bits(current(self))
    self.features, self.registers = registers.of(self.bits)
  end
  return self.registers
end

function commands.qXfer(self, body)
  local from, size = body:match "^:features:read:target%.xml:(%x+),(%x+)$"
  if not from then return "" end
  layout(self)
  from, size = tonumber(from, 16), tonumber(size, 16)
  local xml = target.xml(self.features, self.bits)
  return (from + size >= #xml and "l" or "m") .. packet.escape(xml:sub(from + 1, from + size))
end

-- ---- Registers ----

local function read(one, cpu)
  local ok, bytes = pcall(one.get, cpu)
  return ok and packet.hex(bytes) or ("x"):rep(one.bits / 4)
end

function commands.g(self)
  local cpu, parts = current(self), {}
  for i, one in ipairs(layout(self)) do parts[i] = read(one, cpu) end
  return table.concat(parts)
end

function commands.p(self, body)
  local one = layout(self)[(tonumber(body, 16) or -2) + 1]
  return one and read(one, current(self)) or NO_SUCH
end

local function write(self, one, digits)
  if #digits ~= one.bits / 4 or digits:find "%X" then return false, "a damaged value" end
  local bytes = packet.bytes(digits)
  if read(one, current(self)) == digits:lower() then return true end
  if not one.set then return false, one.name .. " cannot be written" end
  local ok, message = pcall(one.set, current(self), bytes)
  return ok, message
end

function commands.P(self, body)
  local number, digits = body:match "^(%x+)=(%x+)$"
  local one = number and layout(self)[tonumber(number, 16) + 1]
  if not one then return NO_SUCH end
  local ok, message = write(self, one, digits)
  self.refusal = not ok and tostring(message) or self.refusal
  return ok and "OK" or REFUSED
end

function commands.G(self, body)
  local from, all = 1, true
  for _, one in ipairs(layout(self)) do
    local digits = body:sub(from, from + one.bits / 4 - 1)
    from = from + one.bits / 4
    if not digits:find "x" then all = write(self, one, digits) and all end
  end
  return all and "OK" or REFUSED
end

-- ---- Memory ----

-- As much as there is from there on, up to the first page that leads nowhere.
local function memory(cpu, at, size)
  local bytes = raw.linear_read(cpu, at, size)
  if bytes then return bytes end
  local parts = {}
  while size > 0 do
    local page = 0x1000 - u64.tonumber(u64.band(at, 0xfff))
    local count = math.min(page, size)
    bytes = raw.linear_read(cpu, at, count)
    if not bytes then break end
    parts[#parts + 1] = bytes
    at, size = at + u64(count), size - count
  end
  return #parts > 0 and table.concat(parts) or nil
end

function commands.m(self, body)
  local digits, size = body:match "^(%x+),(%x+)$"
  local at = digits and address_of(digits)
  if not at then return NO_SUCH end
  size = math.min(tonumber(size, 16), MOST)
  if size == 0 then return "" end
  local bytes = memory(current(self), at.value, size)
  return bytes and packet.hex(bytes) or NO_MEMORY
end

local function put(self, digits, size, data)
  local at = digits and address_of(digits)
  if not at or tonumber(size, 16) ~= #data then return NO_SUCH end
  if #data == 0 then return "OK" end
  return raw.linear_write(current(self), at.value, data) and "OK" or NO_MEMORY
end

function commands.M(self, body)
  local digits, size, data = body:match "^(%x+),(%x+):(%x*)$"
  return put(self, digits, size or "", packet.bytes(data or ""))
end

function commands.X(self, body)
  local digits, size, data = body:match "^(%x+),(%x+):(.*)$"
  return put(self, digits, size or "", packet.unescape(data or ""))
end

-- ---- Threads ----

function commands.H(self, body)
  local what, digits = body:match "^(%l)(%-?%x+)$"
  if what == "g" and tonumber(digits, 16) > 0 then
    local cpu = thread(self, digits)
    if not cpu then return NO_SUCH end
    self.current = cpu
  end
  return "OK"
end

function commands.T(self, body)
  return thread(self, body) and "OK" or NO_SUCH
end

function commands.qfThreadInfo(self)
  local list = {}
  for i in ipairs(self.vm.vcpus) do list[i] = ("%x"):format(i) end
  return "m" .. table.concat(list, ",")
end

function commands.qsThreadInfo() return "l" end
function commands.qAttached() return "1" end
function commands.qC(self) return "QC" .. M.number(self.vm, current(self)) end

function commands.qThreadExtraInfo(self, body)
  local cpu = thread(self, body:match "^,(%x+)$" or "")
  if not cpu then return NO_SUCH end
  return packet.hex(("vCPU %d of space %d, %s%s"):format(cpu.id, cpu.space.id, mode.text(cpu),
    cpu.parked and ", parked" or ""))
end

-- ---- Breakpoints ----

local function point(body, fn)
  local number, digits, size = body:match "^([0-4]),(%x+),(%x+)"
  local address = digits and address_of(digits)
  if not address then return "" end
  return fn(number, address, tonumber(size, 16))
end

-- INT3 in the middle of an instruction would change its operands, and stop nowhere.
local function is_inside(cpu, address)
  for _, one in ipairs(cpu:disasm(1) or {}) do
    local first = mode.linear(cpu, one.address)
    if u64.lt(first, address)
      and u64.lt(address, first + u64(one.size)) then return tostring(one) end
  end
end

function commands.Z(self, body)
  return point(body, function(number, address, size)
    local inside = number == "0" and is_inside(current(self), address.value)
    local ok, why = false, inside and "it would be inside of " .. inside
    if not inside then ok, why = points.set(self.points, self.vm.vcpus, number, address, size) end
    if not ok then self.refusal = why end
    return ok and "OK" or REFUSED
  end)
end

function commands.z(self, body)
  return point(body, function(number, address)
    points.clear(self.points, number, address)
    return "OK"
  end)
end

-- ---- monitor ----

local function results(ok, ...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  return ok, #parts > 0 and table.concat(parts, "\t") .. "\n" or ""
end

function commands.qRcmd(self, body)
  local source, out = packet.bytes(body:sub(2)), {}
  local env = setmetatable({ vm = self.vm, cpu = current(self), space = current(self).space,
    luna = require "lunavisor", gdb = self, exit = self.exit, print = function(...)
      out[#out + 1] = select(2, results(true, ...))
    end }, { __index = _G })
  local fn, problem = evaluate.compile(source, "=monitor", env)
  local _, text = true, tostring(problem) .. "\n"
  if fn then _, text = results(pcall(fn)) end
  self:say(table.concat(out) .. text)
  return "OK"
end

-- ---- Running, and the end ----

commands["?"] = function(self) return self.last end

function commands.vCont(self, body)
  if body == "?" then return "vCont;c;C;s;S" end
  local action, digits = body:match "^;([cCsS])[^:;]*:?(%x*)"
  if not action then return NO_SUCH end
  local cpu = digits ~= "" and thread(self, digits) or current(self)
  self:resume(action:lower() == "s" and cpu or nil)
end

function commands.c(self) self:resume() end
function commands.s(self) self:resume(current(self)) end
commands.C, commands.S = commands.c, commands.s

function commands.D(self)
  self:send "OK"
  self.ending = "detached"
end

function commands.k(self) self.ending = "killed" end

function commands.vKill(self)
  self:send "OK"
  self.ending = "killed"
end

--- The answer to a packet, nil where none is to be sent.
function M.answer(self, body)
  local name = body:match "^[qQv]%a+" or body:sub(1, 1)
  local fn = commands[name]
  if not fn then return "" end
  return fn(self, body:sub(#name + 1))
end

return M
