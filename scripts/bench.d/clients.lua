-- SPDX-License-Identifier: MIT
-- Programs of others on the software CPU, against QEMU's translator: Debian's kernel to its /init,
-- and SeaBIOS to a boot sector, as scripts/clients runs them, by the time that each has had of the
-- processors. Rows are there where the programs are.

local rounds = require "rounds"

local EMULATOR = "qemu-system-x86_64"
local SECONDS = 120 -- that a run may take
local directory = arg[0]:match "^(.*)/bench%.d/" .. "/clients.d"
package.path = directory .. "/?.lua;" .. package.path

-- What a run has had of the processors.
local function time_of(result)
  assert(result.verdict == "PASS", result.text)
  return result.used
end

-- Ratios of pairs in turns.
local function ratios(client, test, pairs_wanted)
  local options, samples = { accel = "soft", seconds = SECONDS, directory = directory }, {}
  for i = 1, pairs_wanted do
    samples[i] = time_of(client.ours(test, options)) / time_of(client.other(test, options))
  end
  return samples
end

local figures = {}
local function add(name, test, limit, pairs_wanted)
  local client = require(name)
  local missing = client.missing()
  if not missing and not rounds.is_installed(EMULATOR) then
    missing = EMULATOR .. " is not installed"
  end
  if not missing then
    figures[#figures + 1] = { name = ("soft_%s_emulator"):format(name), unit = "x",
      engine = "luajit", limit = limit,
      measure = function() return ratios(client, test, pairs_wanted) end }
  elseif jit then
    io.stderr:write(("bench: soft_%s_emulator is skipped: %s\n"):format(name, missing))
  end
end

add("linux", { name = "init", cpus = 1, script = ":", checks = {} }, 2, 1)
add("seabios", require("seabios").tests()[1], 1.2, 3)
return figures
