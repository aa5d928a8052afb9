-- SPDX-License-Identifier: MIT
-- Interrupts of a PCI function as messages: the capabilities MSI and MSI-X. By the PCI Local Bus
-- Specification 3.0, 6.8. pci.lua puts them into configuration spaces.

local u64 = require "lunavisor.text.u64"
local word = require "lunavisor.device.word"

local M = {}

local bits, insert = word.bits, word.insert

-- A key of the device: a function(address, data), false where messages go to the memory of its DMA.
local TAKER = {}

--- Says who takes the messages of a device.
function M.connect(d, message)
  rawset(d, TAKER, message or false)
end

local function has(d, name)
  return rawget(d, "class").layout.by[name] ~= nil
end

--- Whether a function interrupts by messages, so that its pin is quiet (6.8.3.3).
function M.is_on(d)
  return has(d, "MSI_CONTROL") and d.MSI_CONTROL.enable == 1
    or has(d, "MSIX_CONTROL") and d.MSIX_CONTROL.enable == 1
end

-- A message is a write to memory, which only a bus master makes (6.2.2, bit 2).
local function deliver(d, high, low, data)
  local taker = rawget(d, TAKER)
  if d.PCI_COMMAND.master == 0 or taker == nil then return end
  local address, ok, problem = high == 0 and low or u64(high, low)
  if taker then
    ok, problem = taker(address, data)
  else
    ok, problem = d.dma:u32(address, data)
  end
  if not ok and problem then d:log(problem) end
end

-- ---- MSI (6.8.1) ----

-- How many vectors system software has given; the low bits of the data say which (6.8.1.6).
local function given(d)
  local control = d.MSI_CONTROL
  return 2 ^ math.min(control.capable, control.given, 5)
end

local function fire(d, vector)
  local count = given(d)
  local data = d.MSI_DATA
  deliver(d, d.MSI_ADDRESS_HIGH, d.MSI_ADDRESS.value, data - data % count + vector % count)
end

-- What was masked comes when it is not any more (6.8.3.1).
local function unmask(d)
  if d.MSI_CONTROL.enable == 0 then return end
  local mask = d.MSI_MASK.vectors
  for vector = 0, 31 do
    local pending = d.MSI_PENDING
    if bits(pending, vector) == 1 and bits(mask, vector) == 0 then
      d.MSI_PENDING = insert(pending, vector, 1, 0)
      fire(d, vector)
    end
  end
end

local function exponent(what, count, most)
  local power = word.only(count)
  if not power or power > most then
    error(("pci.config: %s: count: 1, 2, 4 to %d expected, got %s"):format(what, 2 ^ most,
      tostring(count)), 5)
  end
  return power
end

--- The capability MSI with 64-bit addresses and masks; spec: { count = 1 to 32 vectors }, true for
--- one. `changed` is called when it is switched on or off.
function M.capability(spec, changed)
  local count = type(spec) == "table" and spec.count or 1
  local power = exponent("msi", count, 5)
  local function control(d)
    unmask(d)
    changed(d)
  end
  return { id = 0x05, size = 0x18, registers = function(at)
    return {
      MSI_CONTROL = { at = at + 2, width = 2, write = control, fields = { enable = 0,
        capable = { "3:1", "const", reset = power }, given = "6:4",
        wide = { 7, "const", reset = 1 }, maskable = { 8, "const", reset = 1 } } },
      MSI_ADDRESS = { at = at + 4, width = 4, fields = { address = "31:2" } },
      MSI_ADDRESS_HIGH = { at = at + 8, width = 4 },
      MSI_DATA = { at = at + 0xc, width = 2 },
      MSI_MASK = { at = at + 0x10, width = 4, write = unmask,
        fields = { vectors = count == 1 and 0 or ("%d:0"):format(count - 1) } },
      MSI_PENDING = { at = at + 0x14, width = 4, access = "ro" },
    }
  end }
end

-- ---- MSI-X (6.8.2) ----

-- Whether a vector is masked, alone or with all (6.8.2.3, 6.8.2.9).
local function masked(d, vector)
  return d.MSIX_CONTROL.mask == 1 or d.MSIX_VECTOR[vector].mask == 1
end

local function pend(d, vector, on)
  local index = math.floor(vector / 32)
  d.MSIX_PENDING[index] = insert(d.MSIX_PENDING[index], vector % 32, 1, on and 1 or 0)
end

local function fire_x(d, vector)
  deliver(d, d.MSIX_ADDRESS_HIGH[vector], d.MSIX_ADDRESS[vector].value, d.MSIX_DATA[vector])
end

local function unmask_x(d, first, last)
  if d.MSIX_CONTROL.enable == 0 then return end
  for vector = first, last do
    if bits(d.MSIX_PENDING[math.floor(vector / 32)], vector % 32) == 1
      and not masked(d, vector) then
      pend(d, vector, false)
      fire_x(d, vector)
    end
  end
end

local function check_x(spec)
  if type(spec) ~= "table" or type(spec.count) ~= "number" or spec.count % 1 ~= 0
    or spec.count < 1 or spec.count > 2048 or type(spec.bar) ~= "number" then
    error("pci.config: msix: { count = 1 to 2048, bar = 0 to 5 } expected", 5)
  end
end

--- The capability MSI-X; its table and pending bits are in the region of M.x_region at that BAR.
function M.x_capability(spec, changed)
  check_x(spec)
  return { id = 0x11, size = 12, registers = function(at)
    return {
      MSIX_CONTROL = { at = at + 2, width = 2, write = function(d)
        unmask_x(d, 0, spec.count - 1)
        changed(d)
      end, fields = { last = { "10:0", "const", reset = spec.count - 1 }, mask = 14,
        enable = 15 } },
      MSIX_TABLE = { at = at + 4, width = 4, access = "const", reset = spec.bar },
      MSIX_PBA = { at = at + 8, width = 4, access = "const", reset = 16 * spec.count + spec.bar },
    }
  end }
end

--- The region of the table (6.8.2.6 to 6.8.2.9) and the pending bits behind it (6.8.2.10), and the
--- size of its BAR.
function M.x_region(spec)
  check_x(spec)
  local count, words = spec.count, 2 * math.ceil(spec.count / 64)
  local size = 4096
  while size < 16 * count + 4 * words do size = 2 * size end
  return { size = size, width = 4, unknown = "zeros", registers = {
    MSIX_ADDRESS = { at = 0, count = count, stride = 16, fields = { address = "31:2" } },
    MSIX_ADDRESS_HIGH = { at = 4, count = count, stride = 16 },
    MSIX_DATA = { at = 8, count = count, stride = 16 },
    MSIX_VECTOR = { at = 12, count = count, stride = 16, reset = 1, fields = { mask = 0 },
      write = function(d, _, _, _, index) unmask_x(d, index, index) end },
    MSIX_PENDING = { at = 16 * count, count = words, access = "ro" },
  } }, size
end

-- ---- Sending ----

--- Sends the message of a vector, or notes that it is pending; whether messages are on. A vector
--- that the function has not is number 0.
function M.send(d, vector)
  if has(d, "MSIX_CONTROL") and d.MSIX_CONTROL.enable == 1 then
    if vector > d.MSIX_CONTROL.last then vector = 0 end
    if masked(d, vector) then pend(d, vector, true) else fire_x(d, vector) end
    return true
  elseif has(d, "MSI_CONTROL") and d.MSI_CONTROL.enable == 1 then
    vector = vector % given(d)
    if bits(d.MSI_MASK.vectors, vector) == 1 then
      d.MSI_PENDING = insert(d.MSI_PENDING, vector, 1, 1)
    else
      fire(d, vector)
    end
    return true
  end
  return false
end

return M
