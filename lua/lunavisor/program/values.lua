-- SPDX-License-Identifier: MIT
-- Values of options, for argparse's convert: the number that a text is; nil, what is wrong with it.

local M = {}

--- A converter for the option: to a whole number of `least` or more.
function M.whole(option, least)
  return function(text)
    local number = tonumber(text)
    if number and number % 1 == 0 and number >= least and number < 2 ^ 53 then return number end
    return nil, ("%s: a whole number from %d expected, got %s"):format(option, least, text)
  end
end

--- Of --timeout.
function M.seconds(text)
  local number = tonumber(text)
  if number and number > 0 and number < math.huge then return number end
  return nil, "--timeout: seconds above 0 expected, got " .. text
end

--- Of --gdb.
function M.port(text)
  local number = tonumber(text)
  if number and number % 1 == 0 and number >= 0 and number <= 65535 then return number end
  return nil, "--gdb: a port from 0 to 65535 expected, got " .. text
end

return M
