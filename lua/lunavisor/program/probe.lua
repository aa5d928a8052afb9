-- SPDX-License-Identifier: MIT
-- luna probe: what this host can do.

local say = require "lunavisor.program.say"

local M = { about = "Show what this host can do." }

function M.describe(command)
  command:flag("--json", "As JSON: available, accel, reason, accelerators.")
end

local function plain(found)
  local data = { available = found.available, accel = found.accel, reason = found.reason,
    message = found.message, code = found.code, accelerators = {} }
  for name, one in pairs(found.accelerators) do
    data.accelerators[name] = { available = one.available, message = one.message, code = one.code,
      features = one.features, limits = one.limits }
  end
  return data
end

--- Status 0 where VMs can be made, else 126; the message says what to do.
function M.run(options)
  local found = require("lunavisor").probe()
  local text = options.json and require("lunavisor.program.json").encode(plain(found), "")
  print(text or tostring(found))
  return found.available and 0 or say.CANNOT
end

return M
