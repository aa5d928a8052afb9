-- SPDX-License-Identifier: MIT
-- What luna.load takes: its arguments, checked, with errors at the script's line, however many
-- calls of the library are between (no check is tail called: that would hide one).

local check = require "lunavisor.check"
local class = require "lunavisor.class"
local spaces = require "lunavisor.memory.space"
local vcpus = require "lunavisor.vcpu.vcpu"

local M = {}

local known = {
  format = true, space = true, cpu = true, address = true, mode = true, relocate = true,
  stack = true, drive = true, command = true, initrd = true, modules = true, framebuffer = true,
  rsdp = true,
}
local modes = { real = true, protected = true, long = true, user = true }
local image_options = { bytes = true, name = true }
local module_options = { bytes = true, name = true, file = true, command = true }
local picture_options = { address = true, width = true, height = true, bits = true, pitch = true }

-- For checks: how many calls above one that is made here the last call of the library is.
local function depth()
  return class.outside() - 2
end

local function fail(form, ...)
  error(form:format(...), class.outside())
end

local function whole(what, value, low, high)
  value = check.whole("luna.load: " .. what, value, low, high, depth())
  return value
end

local function is_plain_table(value)
  return type(value) == "table" and getmetatable(value) == nil
end

--- What says where the bytes of an image are, as { bytes =, name = }: the name of a file, or a
--- table of the two.
function M.source(what, value)
  if not is_plain_table(value) then
    local name = check.name(what, value, "the name of a file, or { bytes = ... },", depth())
    return { name = name }
  end
  check.options(what, value, image_options, depth())
  if type(value.bytes) ~= "string" then
    fail("%s: bytes: a string expected, got %s", what, class.describe(value.bytes))
  end
  local name = check.name(what .. ": name", value.name or "bytes", "a name", depth())
  return { bytes = value.bytes, name = name }
end

local function command_of(what, value)
  value = check.name(what .. ": command", value or "", "a command line", depth())
  return value
end

-- A module: the name of a file, or { file = or bytes =, name =, command = }.
local function module_of(what, value)
  if not is_plain_table(value) then
    local source = M.source(what, value)
    source.command = ""
    return source
  end
  check.options(what, value, module_options, depth())
  local source = M.source(what, value.file or { bytes = value.bytes, name = value.name })
  source.command = command_of(what, value.command)
  return source
end

local function modules_of(value)
  if not is_plain_table(value) then
    fail("luna.load: modules: a list expected, got %s", class.describe(value))
  end
  local list = {}
  for i, one in ipairs(value) do
    list[i] = module_of(("luna.load: module %d"):format(i), one)
  end
  return list
end

local depths = { [15] = true, [16] = true, [24] = true, [32] = true }

-- "text", or a linear framebuffer with all its fields.
local function framebuffer_of(value)
  if value == "text" then return value end
  if type(value) ~= "table" then
    fail("luna.load: framebuffer: 'text' or a table expected, got %s", class.describe(value))
  end
  check.options("luna.load: framebuffer", value, picture_options, depth())
  local bits = value.bits or 32
  if not depths[bits] then
    fail("luna.load: framebuffer: bits: 15, 16, 24 or 32 expected, got %s", tostring(bits))
  end
  local width = whole("framebuffer: width", value.width, 1, 0xffff)
  local least = width * math.floor((bits + 7) / 8)
  return {
    address = whole("framebuffer: address", value.address, 0, 2 ^ 52),
    width = width, height = whole("framebuffer: height", value.height, 1, 0xffff),
    bits = bits, pitch = whole("framebuffer: pitch", value.pitch or least, least, 2 ^ 20),
  }
end

local function space_of(vm, space)
  if space == nil then return vm.default end
  check.object("luna.load: space", space, spaces.class, depth())
  if space.vm ~= vm then fail "luna.load: space: it belongs to another VM" end
  return space
end

local function cpu_of(vm, cpu)
  if cpu == nil then return nil end
  check.object("luna.load: cpu", cpu, vcpus.class, depth())
  if cpu.vm ~= vm then fail "luna.load: cpu: it belongs to another VM" end
  return cpu
end

local function one_of(what, value, set, list)
  if value ~= nil and not set[value] then
    fail("luna.load: %s: %s expected, got %s", what, list,
      type(value) == "string" and ("%q"):format(value) or type(value))
  end
  return value
end

-- Options that formats take or do not, in the order in which they are checked.
local of_formats = {
  { "address", function(value) return (whole("address", value, 0, 2 ^ 51)) end },
  { "stack", function(value) return (whole("stack", value, 0, 2 ^ 51)) end },
  { "rsdp", function(value) return (whole("rsdp", value, 0, 2 ^ 52)) end },
  { "drive", function(value) return (whole("drive", value, 0, 255)) end },
  { "relocate", function(value) return (check.flag("luna.load: relocate", value, depth())) end },
  { "command", function(value) return (command_of("luna.load", value)) end },
  { "initrd", function(value) return (M.source("luna.load: initrd", value)) end },
  { "modules", modules_of },
  { "framebuffer", framebuffer_of },
  { "mode", function(value)
    return (one_of("mode", value, modes, "'real', 'protected', 'long' or 'user'"))
  end },
}

--- The options with every value checked. `formats`: a set of names; `names`: the same as text.
function M.options(vm, options, formats, names)
  options = check.options("luna.load", options, known, depth())
  local checked = {
    cpu = cpu_of(vm, options.cpu), space = space_of(vm, options.space),
    format = one_of("format", options.format, formats, names),
  }
  for _, one in ipairs(of_formats) do
    local name, fn = one[1], one[2]
    if options[name] ~= nil then checked[name] = fn(options[name]) end
  end
  return checked
end

--- The first of the options that a format, which takes those in `takes`, does not take; nil where
--- it takes all.
function M.not_taken(options, takes)
  for _, one in ipairs(of_formats) do
    if options[one[1]] ~= nil and not takes[one[1]] then return one[1] end
  end
end

return M
