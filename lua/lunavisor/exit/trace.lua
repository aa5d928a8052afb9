-- SPDX-License-Identifier: MIT
-- What is said of an error in a device, handler or timer: the device, and the script's frames.

local class = require "lunavisor.class"
local u64 = require "lunavisor.text.u64"

local M = {}

local whole = false   -- luna.debug: the library's own frames, too
local servers = {}    -- by function: from its locals, the VM, the vCPU and the trap that it serves

--- Whether tracebacks have the library's own frames too; with `on`, says so. Returns what was said
--- before.
function M.debug(on)
  local before = whole
  if on ~= nil then whole = on end
  return before
end

--- Tells of a function that calls devices: `find` gets its locals by name, and gives a VM, a vCPU
--- and the number of a trap.
function M.serves(fn, find)
  servers[fn] = find
end

-- The locals of the function at `level` that have a value.
local function locals_at(level)
  local found, index = {}, 1
  while true do
    local name, value = debug.getlocal(level + 1, index)
    if not name then return found end
    found[name] = value
    index = index + 1
  end
end

--- "script.lua:12", the line of the script at which a call of the library is; false where it comes
--- from the library's own program.
function M.here()
  local info = debug.getinfo(class.outside(), "Sl")
  if info and class.is_own(info) then return false end
  return info and info.currentline > 0 and ("%s:%d"):format(info.short_src, info.currentline) or "?"
end

local places = { pio = "port 0x%x", mmio = "gpa 0x%x", msr = "MSR 0x%x" }

--- "port 0x60": where a trap is, or what is so many bytes behind it.
function M.place(trap, offset)
  return places[trap.kind]:format(trap.first + (offset or 0))
end

--- "the device at port 0x60 (keyboard, given at script.lua:12)"
function M.device(trap)
  local name = type(trap.device) == "table" and rawget(trap.device, "name")
  local about = { type(name) == "string" and name or nil }
  if trap.where then about[#about + 1] = "given at " .. trap.where end
  return ("the device at %s%s"):format(M.place(trap),
    #about > 0 and " (" .. table.concat(about, ", ") .. ")" or "")
end

-- The device whose function has failed, and where its guest is; nil where it was none.
local function context()
  local level = 2
  local info = debug.getinfo(level, "f")
  while info and not servers[info.func] do
    level = level + 1
    info = debug.getinfo(level, "f")
  end
  if not info then return nil end
  local vm, cpu, number = servers[info.func](locals_at(level))
  local trap = number and vm.traps[number]
  if not trap then return nil end
  local ok, rip = pcall(function() return cpu.rip end)
  return "in " .. M.device(trap) .. (ok and ", rip " .. u64.hex(rip) or "")
end

local function frame_text(info)
  local place = info.what == "C" and "[C]" or ("%s:%d"):format(info.short_src, info.currentline)
  if info.what == "main" then return place .. ": in main chunk" end
  if info.name then return ("%s: in function '%s'"):format(place, info.name) end
  return info.what == "C" and place .. ": in ?"
    or ("%s: in function <%s:%d>"):format(place, info.short_src, info.linedefined)
end

local MOST = 24 -- frames

-- The frames from `level` on, a line each; what C runs for the library is the library's. `device`
-- stands in the place of the library's frames that have called it.
local function frames(level, device)
  local lines, own = {}, false
  local info = debug.getinfo(level, "Sln")
  while info and #lines < MOST do
    local after = debug.getinfo(level + 1, "Sln")
    own = class.is_own(info)
      or info.what == "C" and (own or after ~= nil and class.is_own(after))
    if own and device then
      lines[#lines + 1] = "\n\t" .. device
      device = nil
    end
    if whole or not own then lines[#lines + 1] = "\n\t" .. frame_text(info) end
    level, info = level + 1, after
  end
  return "\nstack traceback:" .. table.concat(lines) .. (info and "\n\t..." or "")
end

--- For xpcall: a message with the device, if one was at work, and the script's frames. One that has
--- a traceback already is left alone.
function M.back(message)
  if type(message) ~= "string" or message:find("\nstack traceback:", 1, true) then
    return message
  end
  return message .. frames(3, context())
end

return M
