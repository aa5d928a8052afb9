-- SPDX-License-Identifier: MIT
-- A host without KVM: what needs it is left out, with the reason, or fails if it must not be.

local helper = require "spec.support.helper"

local function suite(required)
  local output = helper.sh(("LUNA_ACCEL=kvm LUNA_KVM_DEVICE=/no/such/kvm LUNA_REQUIRE_KVM=%s "
    .. "busted --lua='%s' -o spec/support/counts.lua spec/check_spec.lua")
    :format(required, helper.engine))
  return output
end

describe("specs that need KVM", function()
  it("are left out without it, and say why", function()
    local output = suite ""
    helper.contains("\n0 passed, 0 failed, 1 skipped", output)
    helper.contains("KVM is not usable: cannot open /no/such/kvm: it is missing", output)
  end)

  it("fail with LUNA_REQUIRE_KVM=1", function()
    local output = suite "1"
    helper.contains("\n0 passed, 1 failed, 0 skipped", output)
    helper.contains("KVM is not usable: cannot open /no/such/kvm: it is missing", output)
  end)
end)
