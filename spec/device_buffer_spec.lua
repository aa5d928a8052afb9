-- SPDX-License-Identifier: MIT
-- Memory that a device has of its own: made with it, left alone by a reset, and part of its states.

local device = require "lunavisor.device"
local helper = require "spec.support.helper"
local plain = require "lunavisor.text.plain"
local raises, refused = helper.raises, helper.refused

local function kind(sizes)
  return device "framed" { registers = { A = { at = 0 } }, buffers = sizes or { pixels = "2M" } }
end

local PAGE = ("\0"):rep(4096)

describe("memory of a device", function()
  it("is a buffer of zeros, another one in each instance, that a reset leaves alone", function()
    local one, other = kind() { log = false }, kind() { log = false }
    assert.equal(2 ^ 21, one.pixels.size)
    one.pixels:u32(4096, 0x11223344)
    one.A = 5
    one:reset()
    assert.same({ 0x11223344, 0, 0 }, { one.pixels:u32(4096), other.pixels:u32(4096), one.A })
  end)

  it("is in a state as the pages that are not zero", function()
    local dev = kind { pixels = "2M", more = 8192 } { log = false }
    dev.pixels:u8(4095, 7)
    dev.pixels:u8(2 ^ 21 - 1, 9)
    local saved = dev:save()
    assert.same({ more = {}, pixels = { [0] = PAGE:sub(2) .. "\7",
      [2 ^ 21 - 4096] = PAGE:sub(2) .. "\9" } }, saved.buffers)
    assert.same({}, saved.without)
    local ok, again = plain.read(plain.write(saved))
    assert.is_true(ok)
    local other = kind { pixels = "2M", more = 8192 } { log = false }
    other.pixels:fill(1, 4096, 8192) -- what a state does not have is zero
    other.more:fill(1)
    assert(other:load(again))
    assert.is_nil(dev.pixels:compare(0, other.pixels))
    assert.equal(0, other.more:u8(0))
    assert.same(saved, other:save())
  end)

  it("is loaded only where it fits", function()
    local dev = kind() { log = false }
    dev.pixels:u8(0, 1)
    local saved = dev:save()
    saved.buffers.pixles, saved.buffers.pixels = saved.buffers.pixels, nil
    refused("state", "device framed: the device has no buffer pixles; did you mean 'pixels'?; "
      .. "the state has no buffer pixels", dev:load(saved))
    for _, wrong in ipairs { { [1] = PAGE }, { [0] = "short" }, { [2 ^ 21] = PAGE }, 5,
      { x = PAGE }, { [0] = 1 } } do
      saved.buffers = { pixels = wrong }
      refused("state", "buffer pixels cannot be what the state has for it", dev:load(saved))
    end
    assert.equal(1, dev.pixels:u8(0))
    saved.buffers = nil
    refused("state", "the state has no buffer pixels", dev:load(saved))
    local ok, differs = dev:load(saved, { partial = true })
    assert.same({ true, { "the state has no buffer pixels" } }, { ok, differs })
    assert.equal(1, dev.pixels:u8(0))
  end)

  it("is declared by its size", function()
    local function wrong(message, spec)
      spec.registers = { A = { at = 0 } }
      local ok, problem = pcall(function() device "framed"(spec) end)
      assert.is_false(ok)
      helper.contains("device framed: " .. message, problem)
    end
    wrong("buffers.pixels: a size of whole pages of 4096 bytes expected, got 100",
      { buffers = { pixels = 100 } })
    wrong("buffers.pixels: a size of whole pages of 4096 bytes expected, got many",
      { buffers = { pixels = "many" } })
    wrong("buffers: a table of sizes by name expected, got number", { buffers = 5 })
    wrong("buffers.A: a register is called A too", { buffers = { A = 4096 } })
    wrong("buffers.save: a buffer cannot be called save: every device has that",
      { buffers = { save = 4096 } })
    wrong("buffers.both: a declared field is called both too",
      { state = { both = 1 }, buffers = { both = 4096 } })
  end)

  it("is in the device's description, and cannot be another", function()
    assert.same({ "more", "pixels" }, device.layout(kind { pixels = 4096, more = 4096 }).buffers)
    raises("device framed: buffer pixels cannot be set: write into it",
      function() kind() { log = false }.pixels = 5 end)
  end)
end)
