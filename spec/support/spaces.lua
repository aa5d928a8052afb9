-- SPDX-License-Identifier: MIT
-- Guests with a second space, .view, to move to.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local spaces = {}

--- A guest with a second space, .view, that shows the same memory.
function spaces.with_view(options)
  local guest = helper.guest(options)
  guest.view = assert(guest.vm:space())
  assert(guest.view:map(guest.ram, 0))
  return guest
end

--- The same with a page at 0x200000 that is another one in each space. Returns the guest, the page
--- of space 0 and the page of .view.
function spaces.with_pages(options)
  local guest = spaces.with_view(options)
  local old, new = helper.keep(luna.buffer "4K"), helper.keep(luna.buffer "4K")
  assert(guest.vm.default:map(old, 0x200000))
  assert(guest.view:map(new, 0x200000))
  return guest, old, new
end

return spaces
