-- SPDX-License-Identifier: MIT
-- The limits of the host, by name.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

helper.kvm("luna.capability", function()
  local names = { "vcpus_max", "slots_max", "spaces_max", "address_bits", "dirty_ring_max",
    "xsave_size", "controls", "exceptions", "shadow_vmcs" }

  it("has a whole number for each name", function()
    for _, name in ipairs(names) do
      local value = luna.capability(name)
      assert.equal("number", type(value), name)
      assert.truthy(value >= 0 and value % 1 == 0, name)
    end
  end)

  it("agrees with what KVM says of itself", function()
    local features = luna.probe().features
    assert.equal(features.nr_memslots, luna.capability "slots_max")
    assert.equal(features.max_vcpus, luna.capability "vcpus_max")
    assert.truthy(luna.capability "address_bits" >= 32 and luna.capability "address_bits" <= 52)
    assert.truthy(luna.capability "spaces_max" >= 1)
  end)

  it("has controls and a shadow VMCS on the software CPU alone", function()
    for _, name in ipairs { "controls", "shadow_vmcs" } do
      assert.equal(1, luna.capability(name, "soft"), name)
      if luna.probe().accelerators.kvm.available then
        assert.equal(0, luna.capability(name, "kvm"), name)
      end
    end
  end)

  it("is where addresses end", function()
    local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "8K")
    local last = 2 ^ luna.capability "address_bits" - 0x1000
    assert(vm.default:map(ram, last, { size = 0x1000 }))
    helper.raises("guest-physical addresses of this host have",
      function() vm.default:map(ram, last + 0x1000, { size = 0x1000 }) end)
  end)

  it("is how large a dirty ring may be", function()
    local most = luna.capability "dirty_ring_max"
    if most == 0 then
      pending "no dirty ring here"
      return
    end
    helper.keep(luna.vm { dirty = "ring", dirty_ring = most }):close()
    helper.refused("unsupported", "this host's KVM allows",
      luna.vm { dirty = "ring", dirty_ring = 2 * most })
  end)

  it("is how many spaces there can be: what a process may open", function()
    local script = helper.file [[
      local luna = require "lunavisor"
      local most, made, spaces = luna.capability "spaces_max", 0, {}
      local vm = assert(luna.vm())
      local message, code
      while made <= 2 * most do
        local space
        space, message, code = vm:space()
        if not space then break end
        made = made + 1
        spaces[made] = space
      end
      print(made < most, made > most - 40, code)
      print(spaces[1]:close(), vm:space() ~= nil)
      vm:close()
      print(luna.live().space)
    ]]
    local output = helper.sh("ulimit -n 200; " .. helper.command(script))
    local few, many, code = output:match "^(%a+)%s+(%a+)%s+(%a+)\n"
    assert.equal("true", few, output)
    assert.truthy(many)
    assert.truthy(code ~= "nil", output)
    assert.matches("\ntrue%s+true\n0$", output)
  end)

  it("refuses other names", function()
    for _, name in ipairs { "spaces", "", "VCPUS_MAX" } do
      helper.raises(name, function() local _ = luna.capability(name) end)
    end
    -- In a process of its own: this has ended processes.
    assert.equal("false\nfalse\nfalse", helper.child [[
      local luna = require "lunavisor"
      print((pcall(luna.capability)))
      print((pcall(luna.capability, {})))
      print((pcall(luna.capability, 5)))
    ]])
  end)

  it("leaves nothing open", function()
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _ = 1, 10 do
      for _, name in ipairs(names) do luna.capability(name) end
    end
    assert.equal(before, helper.descriptors())
  end)
end)

describe("luna.capability without KVM", function()
  it("returns why it cannot be asked", function()
    local output = helper.child([[
      local luna = require "lunavisor"
      local value, message, code = luna.capability "slots_max"
      print(value, code)
      print(message)
    ]], { env = { LUNA_ACCEL = "kvm", LUNA_KVM_DEVICE = "/nonexistent" } })
    assert.matches("^nil%s+no_kvm\n", output)
    helper.contains("cannot open /nonexistent", output)
  end)
end)
