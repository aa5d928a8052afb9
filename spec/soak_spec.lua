-- SPDX-License-Identifier: MIT
-- A short soak (scripts/soak) leaves nothing behind.

local helper = require "spec.support.helper"

helper.kvm("scripts/soak", function()
  it("ends with nothing left", function()
    if helper.stressed then pending "it takes long with the collector always at work" end
    -- The address sanitizer keeps what was freed.
    local env = helper.sanitized
      and { ASAN_OPTIONS = (os.getenv "ASAN_OPTIONS" or "") .. ":quarantine_size_mb=1" }
    local output, status = helper.sh(helper.command("scripts/soak", { env = env or nil })
      .. " 1 --every 1")
    helper.contains("nothing is left", output)
    assert.matches("seed %d+\n seconds +files +threads +memory +heap +vms", output)
    assert.equal(0, status, output)
  end)

  it("says how to use it", function()
    local output, status = helper.sh(helper.command "scripts/soak" .. " --every")
    helper.contains("usage: soak SECONDS", output)
    assert.equal(2, status)
  end)
end)
