-- SPDX-License-Identifier: MIT
-- Names of addresses: the symbols of an executable with its source lines, the labels of assembly
-- source.

local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local methods = {}
local Symbols = class.class "symbols"
local mine = class.checker(Symbols)

--- Makes a set of a list of { name, high, low, size }: the halves of the address, and how many
--- bytes belong to it, 0 where nobody says. Of two with one name, the first counts.
local function new(list)
  local names, order = {}, {}
  for i, symbol in ipairs(list) do
    symbol.place, order[i] = i, symbol
    if names[symbol[1]] == nil then names[symbol[1]] = symbol end
  end
  table.sort(order, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a.place < b.place
  end)
  return setmetatable({ names = names, order = order, lines = false, read = false }, Symbols)
end

--- A set that is read when it is first looked at: `read` gives a set, or nil for an empty one.
local function later(read)
  return setmetatable({ names = false, order = false, lines = false, read = read }, Symbols)
end

-- The names and the order of a set, which are there from now on.
local function contents(self)
  local read = rawget(self, "read")
  if read then
    local set = read() or new {}
    rawset(self, "names", rawget(set, "names"))
    rawset(self, "order", rawget(set, "order"))
    rawset(self, "lines", rawget(set, "lines"))
    rawset(self, "read", false)
  end
  return rawget(self, "names"), rawget(self, "order"), rawget(self, "lines")
end

--- Adds source lines (load/elf_lines.lua), or none.
local function add_lines(self, lines)
  rawset(self, "lines", lines or false)
end

--- Whether there is any name or line in it.
local function is_of_use(self)
  local _, order, lines = contents(self)
  return lines or order[1] ~= nil
end

-- A number where that is exact, else a u64.
local function address_of(symbol)
  if symbol[2] < 2 ^ 21 then return math.floor(symbol[2] * 2 ^ 32 + symbol[3]) end
  return u64(symbol[2], symbol[3])
end

-- The address of "kernel.c:12", a number where that is exact; nil, message, code.
local function address_of_line(lines, name)
  local file, number = name:match "^([^:].*):(%d+)$"
  if not file then return nil end
  if not lines then return nil, "no source lines are known", "not_found" end
  local line, message, code = lines:find(file, tonumber(number))
  if not line then return nil, message, code end
  local address = line.address
  return u64.lt(address, 2 ^ 53) and math.floor(u64.tonumber(address)) or address
end

--- The address of a name: a number, a u64 from 2^53 on; nil where there is none of that name.
--- "kernel.c:12" is the first address of that line, or of the next one in the file that has code;
--- nil, message, code where there is none.
function methods.find(self, name)
  mine(self)
  local names, _, lines = contents(self)
  local symbol = names[name]
  if symbol then return address_of(symbol) end
  return address_of_line(lines, tostring(name))
end

-- How many symbols begin at or before the address.
local function count_up_to(order, high, low)
  local from, to = 0, #order
  while from < to do
    local middle = math.floor((from + to + 1) / 2)
    local symbol = order[middle]
    if symbol[2] < high or symbol[2] == high and symbol[3] <= low then
      from = middle
    else
      to = middle - 1
    end
  end
  return from
end

local function exact_address(what, address)
  local exact = u64.exact(address)
  if exact ~= nil then return exact end
  error(("symbols:%s: address: an integer expected, got %s"):format(what, tostring(address)),
    class.outside())
end

--- The source line that an address, a number or u64, belongs to: file, line, column, path, address.
--- nil, message, code where it belongs to none, or none are known ("not_found"); where libdw is not
--- installed ("unsupported"), or the image's are damaged ("argument").
function methods.line(self, address)
  mine(self)
  local exact = exact_address("line", address)
  local _, _, lines = contents(self)
  if not lines then return nil, "no source lines are known", "not_found" end
  return lines:at(exact)
end

--- What is at an address, a number or u64: the name of the last symbol that begins there or before
--- and, where it has a size, goes so far; and the distance from it. nil where there is none.
function methods.at(self, address)
  mine(self)
  local exact = exact_address("at", address)
  local high = u64.tonumber(u64.rshift(exact, 32))
  local low = u64.tonumber(u64.band(exact, 0xffffffff))
  local _, order = contents(self)
  local count = count_up_to(order, high, low)
  local symbol = order[count]
  if not symbol then return nil end
  while count > 1 and order[count - 1][2] == symbol[2] and order[count - 1][3] == symbol[3] do
    count = count - 1
    symbol = order[count]
  end
  local distance = math.floor((high - symbol[2]) * 2 ^ 32 + low - symbol[3])
  local size = symbol[4] or 0
  if distance >= 2 ^ 53 or size > 0 and distance >= size then return nil end
  return symbol[1], distance
end

--- The name of an address for people: "main", or "main+0x12"; nil where there is none.
function methods.name(self, address)
  mine(self)
  local name, distance = methods.at(self, address)
  return name and (distance == 0 and name or ("%s+0x%x"):format(name, distance))
end

--- A name and a source line for people: "main+0x12, kernel.c:12", or the one that there is; nil
--- where both are.
local function joined(name, line)
  if name and line then return name .. ", " .. tostring(line) end
  return name or line and tostring(line) or nil
end

--- The same of an address.
local function text(self, address)
  return joined(methods.name(self, address), (methods.line(self, address)))
end

--- All of them in order of address, as a list of { name =, address =, size = }.
function methods.list(self)
  mine(self)
  local list, _, order = {}, contents(self)
  for i, symbol in ipairs(order) do
    list[i] = { name = symbol[1], address = address_of(symbol), size = symbol[4] or 0 }
  end
  return list
end

class.announce(Symbols, methods)

function Symbols.__index(self, name)
  if methods[name] then return methods[name] end
  local names, _, lines = contents(self)
  local symbol = names[name]
  if symbol then return address_of(symbol) end
  if class.is_probe(name) then return nil end
  local address, problem = address_of_line(lines, tostring(name))
  if address ~= nil then return address end
  error(("there is no symbol '%s'%s"):format(tostring(name), problem and ": " .. problem
    or class.hint(name, names)), 2)
end

function Symbols.__newindex(_, name)
  error(("symbols cannot be set: '%s'"):format(tostring(name)), 2)
end

--- "0x1000 start", a line each.
function Symbols.__tostring(self)
  local lines = {}
  for _, symbol in ipairs(methods.list(self)) do
    lines[#lines + 1] = u64.hex(symbol.address) .. " " .. symbol.name
  end
  return table.concat(lines, "\n")
end

return { new = new, later = later, add_lines = add_lines, is_of_use = is_of_use, joined = joined,
  text = text,   class = Symbols }
