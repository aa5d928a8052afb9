-- SPDX-License-Identifier: MIT
-- What luna.probe says of this host, and of hosts where KVM cannot be used.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains = helper.contains

helper.kvm("luna.probe", function()
  it("says that VMs can be made", function()
    local probe = luna.probe()
    assert.is_true(probe.available)
    assert.is_nil(probe.message)
    assert.is_nil(probe.code)
    local name = probe.accel == "kvm" and "KVM" or "the software CPU"
    assert.equal(name .. " is usable\n", tostring(probe):match "^[^\n]*\n")
  end)

  it("has KVM's answers as numbers", function()
    local features = luna.probe().features
    for name, value in pairs(features) do
      assert.equal("number", type(value), name)
      assert.truthy(name:match "^[a-z0-9_]+$", name)
      contains(("\n  %-26s %s"):format(name, value == 0 and "no" or ("%d"):format(value)),
        tostring(luna.probe()))
    end
    assert.truthy(features.nr_memslots > 30)
    assert.truthy(features.max_vcpus >= 1)
    assert.equal(1, features.immediate_exit)
  end)

  it("leaves nothing open", function()
    local before = helper.descriptors()
    for _ = 1, 10 do luna.probe() end
    assert.equal(before, helper.descriptors())
  end)
end)

describe("where KVM cannot be used", function()
  after_each(helper.clean)

  local script = [[
    local luna = require "lunavisor"
    local probe = luna.probe()
    print(probe.available, probe.code)
    print(probe.message)
    print((tostring(probe):gsub("\n.*", "")))
    print(select("#", luna.vm()), (luna.vm()))
    print(select(2, luna.vm()))
    local features = 0
    for _ in pairs(probe.features) do features = features + 1 end
    print(features)
  ]]
  local cases = {
    ["/nonexistent"] = { "no_kvm", { "cannot open /nonexistent: it is missing",
      "modprobe kvm_intel", "modprobe kvm_amd", "firmware", "nested virtualization" } },
    ["/dev/null"] = { "no_kvm", { "/dev/null is not a KVM device" } },
    ["/"] = { "system", { "cannot open /: " } },
  }
  for device, expected in pairs(cases) do
    it(("because it is %s, probe and luna.vm say what is wrong"):format(device), function()
      local env = { LUNA_ACCEL = "kvm", LUNA_KVM_DEVICE = device }
      local output = helper.child(script, { env = env })
      local status, message, text, counted, again, features =
        output:match("^(.-)\n(.-)\n(.-)\n(.-)\n(.-)\n(.-)$")
      assert.equal("false\t" .. expected[1], status)
      for _, part in ipairs(expected[2]) do contains(part, message) end
      assert.equal("KVM is not usable: " .. message, text)
      assert.equal("3\tnil", counted)
      assert.equal(message .. "\t" .. expected[1], again)
      assert.equal("0", features)
    end)
  end

  it("for want of a permission, the message says how to get it", function()
    local path = helper.file ""
    local output, status = helper.sh(("chmod 0 %s && [ $(id -u) != 0 ]"):format(path))
    if status ~= 0 then pending("this is root, whom no permission stops " .. output) end
    output = helper.child(script, { env = { LUNA_ACCEL = "kvm", LUNA_KVM_DEVICE = path } })
    contains("false\taccess\n", output)
    contains("no permission", output)
    contains("usermod -aG kvm", output)
  end)

  it("buffers, u64 and asm work all the same", function()
    assert.equal("0x5\tnop", helper.child([[
      local luna = require "lunavisor"
      local buffer = luna.buffer "4K"
      buffer:write(0, "nop")
      print(luna.hex(luna.u64(5)), buffer:string(0))
    ]], { env = { LUNA_ACCEL = "kvm", LUNA_KVM_DEVICE = "/nonexistent" } }))
  end)
end)
