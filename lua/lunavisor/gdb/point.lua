-- SPDX-License-Identifier: MIT
-- Breakpoints and watchpoints that a client of gdb's protocol has asked for: each is one of every
-- vCPU.

local M = {}

-- By the number of the packets Z and z: what it is, and how a stop at it is told.
local kinds = {
  ["0"] = { options = {}, told = "swbreak:;" },
  ["1"] = { options = { software = false }, told = "hwbreak:;" },
  ["2"] = { access = "w", told = "watch" },
  ["3"] = { access = "rw", told = "rwatch" },
  ["4"] = { access = "rw", told = "awatch" },
}

local function close(point)
  for _, breakpoint in ipairs(point) do breakpoint:close() end
end

--- Sets one on every vCPU: true, or false and why. It is there already: true.
function M.set(points, vcpus, number, address, size)
  local kind, key = kinds[number], number .. " " .. address.text
  if points[key] then return true end
  local point = { kind = kind, address = address }
  local options = kind.options or { access = kind.access, size = size }
  for _, cpu in ipairs(vcpus) do
    local ok, made, message = pcall(cpu.breakpoint, cpu, address.value, options)
    if not ok or not made then
      close(point)
      return false, tostring(message or made)
    end
    point[#point + 1] = made
  end
  points[key] = point
  return true
end

--- Takes one away, of all vCPUs.
function M.clear(points, number, address)
  local key = number .. " " .. address.text
  local point = points[key]
  if not point then return end
  points[key] = nil
  close(point)
end

function M.clear_all(points)
  for key, point in pairs(points) do
    points[key] = nil
    close(point)
  end
end

--- What a stop at a breakpoint of a vCPU is told as: "swbreak:;", "watch:1000;", "" for none of
--- these.
function M.told(points, breakpoint)
  for _, point in pairs(points) do
    for _, own in ipairs(point) do
      if own == breakpoint then
        local told = point.kind.told
        return point.kind.access and ("%s:%s;"):format(told, point.address.text) or told
      end
    end
  end
  return ""
end

return M
