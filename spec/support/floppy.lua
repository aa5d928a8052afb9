-- SPDX-License-Identifier: MIT
-- A floppy controller with its DMA, and what a driver does with them, for the specs of both.

local assert = require "luassert"
local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local i8237 = require "lunavisor.device.models.i8237"
local i82077 = require "lunavisor.device.models.i82077"
local luna = require "lunavisor"

local M = {}

local fdc, dma, memory

function M.out(port, byte) fdc.regions.main.write(nil, port, 1, byte) end
function M.inp(port) return fdc.regions.main.read(nil, port, 1) end

--- The digital input register.
function M.dir() return fdc.regions.change.read(nil, 0, 1) end

--- Sets the data rate.
function M.rate(code) fdc.regions.change.write(nil, 0, 1, code) end

--- Sector number n begins with n.
function M.fill(buffer)
  for n = 0, buffer.size / 512 - 1 do buffer:u32(512 * n, n) end
end

--- A disk of so many KiB.
function M.disk(size)
  local buffer = helper.keep(luna.buffer(size * 1024))
  M.fill(buffer)
  return buffer
end

--- A command's bytes, each when the controller asks for it.
function M.send(...)
  for _, byte in ipairs { ... } do
    assert.is_true(M.inp(4) >= 0x80 and M.inp(4) < 0xc0)
    M.out(5, byte)
  end
end

--- Its result, as hex digits.
function M.result()
  local list = {}
  while M.inp(4) >= 0xc0 do list[#list + 1] = ("%02x"):format(M.inp(5)) end
  return table.concat(list, " ")
end

--- A command has that result.
function M.does(expected, ...)
  M.send(...)
  assert.equal(expected, M.result())
end

--- A controller of these options, out of reset as a driver does it, behind the four interrupts of
--- that; commands take no time where options.pace says nothing. Returns it, the DMA and the memory.
function M.fresh(options)
  memory = device.memory(0x40000)
  dma = i8237 { log = false, dma = memory }
  options.log, options.pace = false, options.pace or 0
  fdc = i82077(options)
  fdc.drq:connect(dma.inputs[2])
  dma:serve(2, fdc)
  dma.MODE[4].value, dma.chips[1].mask = 0xc0, 0
  M.out(2, 0x08)
  M.out(2, 0x0c)
  for i = 0, 3 do M.does(("c%d 00"):format(i), 8) end
  M.send(3, 0xdf, 2)
  return fdc, dma, memory
end

--- Channel 2 for so many bytes at 0x1000: to memory, or from there.
function M.channel(count, from_memory)
  local ports = dma.regions.main
  for _, pair in ipairs { { 10, 6 }, { 12, 0 }, { 11, from_memory and 0x4a or 0x46 }, { 4, 0 },
    { 4, 0x10 }, { 5, (count - 1) % 256 }, { 5, math.floor((count - 1) / 256) }, { 10, 2 } } do
    ports.write(nil, pair[1], 1, pair[2])
  end
end

--- The numbers of the sectors in memory from 0x1000 on.
function M.sectors(count)
  local list = {}
  for i = 1, count do
    local low, high = memory:read(0x1000 + 512 * (i - 1), 2):byte(1, 2)
    list[i] = low + 256 * high
  end
  return list
end

function M.seek(cylinder)
  M.send(15, 0, cylinder)
  M.does(("20 %02x"):format(cylinder), 8)
end

--- Lets go of them.
function M.clean()
  fdc, dma, memory = nil, nil, nil
  helper.clean()
end

return M
