-- SPDX-License-Identifier: MIT
-- A PC that runs memtest86+ from its image: memtest_vm IMAGE ACCEL MODE PATTERN SECONDS. Prints the
-- screen, which is read from the memory of the VGA's text screen, when it has the pattern, or after
-- so many seconds.

package.path = (arg[0]:match "^(.*)/" or ".") .. "/?.lua;" .. package.path
local luna = require "lunavisor"
local pcs = require "pc"

local SCREEN, COLUMNS, LINES = 0xb8000, 80, 25
local LOOK = 0.5 -- seconds from one look at the screen to the next

local pc = pcs.new { accel = arg[2], memory = "8M", text = true, serial = function() end }
local vm = pc.vm
local image = assert(luna.load(vm, arg[1], { framebuffer = "text", mode = arg[3] }))
local cpu = assert(vm:vcpu(image.entry))

local function screen()
  local lines = {}
  for line = 0, LINES - 1 do
    local cells = vm.default:read(SCREEN + line * COLUMNS * 2, COLUMNS * 2)
    lines[#lines + 1] = cells:gsub("(.).", "%1"):gsub("[^\32-\126]", " "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n") .. "\n"
end

vm:timer(LOOK, function()
  if screen():find(arg[4]) then vm:stop "seen" end
end, { period = LOOK })
local exit, message = cpu:run { timeout = tonumber(arg[5]) }
print(screen())
pcs.finish(exit, message, "seen")
