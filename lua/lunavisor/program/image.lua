-- SPDX-License-Identifier: MIT
-- What luna boot makes of its image: how luna.machine gets it, with which command line, and which
-- firmware a disk has.

local files = require "lunavisor.program.file"
local formats = require "lunavisor.load.formats"
local reader = require "lunavisor.load.reader"
local say = require "lunavisor.program.say"

local M = {}

local BIOS, VGA = "/usr/share/seabios/bios.bin", "/usr/share/seabios/vgabios-stdvga.bin"
local MIB, STACK = 0x100000, 0x90000 -- of assembly source: where code and stack begin
local LARGE = 2 ^ 28 -- no kernel, and not read to see what it is

-- The size of what is no directory, which io.open opens as well. nil, message.
local function size_of(path)
  local file, problem = io.open(path, "rb")
  if not file then return nil, problem end
  local size = file:seek "end" or 0
  local message
  if size > LARGE and file:seek "set" then message = select(2, file:read(1)) end
  file:close()
  if message then return nil, ("%s: %s"):format(path, message) end
  return size
end

-- The name of the image's format, `said` where that is given, and its size; nil, message.
local function format_of(path, said)
  if said and not formats.by_name[said] then
    return nil, ("--format: one of %s expected, got %s"):format(formats.names, said)
  end
  local size, problem = size_of(path)
  if not size then return nil, "the image cannot be opened: " .. problem end
  if said then return said, size end
  if size and size > LARGE then return "disk", size end
  local ok, image = pcall(reader.open, { name = path })
  if not ok then return nil, (reader.refusal(image)) or tostring(image) end
  local format = formats.recognise(image)
  if format then return format.name, size end
  return nil, ("%s is none of the formats %s; --format says which one it is"):format(path,
    formats.names)
end

local function command_of(options, format)
  local text = options.cmdline
  if format == "linux" and not text then text = "console=ttyS0 panic=-1 reboot=k" end
  if not options.rest then return text end
  local quoted = {}
  for i, word in ipairs(options.rest) do
    quoted[i] = (word == "" or word:find "%s") and '"' .. word .. '"' or word
  end
  local words = table.concat(quoted, " ")
  if format == "linux" then words = "-- " .. words end
  return text and text ~= "" and text .. " " .. words or words
end

-- Refuses what is said for an image of another kind.
local function refused(options, names, kind)
  for name in names:gmatch "%S+" do
    if options[name] then return ("--%s is not for %s"):format(name, kind) end
  end
  if options.rest and names:find "cmdline" then
    return ("a command line, behind --, is not for %s"):format(kind)
  end
end

-- A disk is read by a BIOS; --bios none begins in its boot sector, without one. An image of a
-- floppy disk's size is one, where neither --format nor --floppy says otherwise.
local function disk_of(options, size)
  local problem = refused(options, "initrd cmdline", "a disk image")
  if problem then return nil, problem end
  local bios, image = options.bios, options.image
  local found = { disk = options.disk, floppy = options.floppy }
  local floppies = require "lunavisor.device.models.floppy" -- here: kernels start without it
  if not image then
    image = options.floppy
  elseif not options.format and not options.floppy and floppies.is_size(size) then
    found.floppy = image
  else
    found.disk = image
  end
  if options.machine ~= "pc" and bios ~= "none" then
    return nil, "a disk image needs --machine pc, or --bios none"
  elseif bios == "none" then
    found.image, found.load = image, { format = "disk" }
  elseif not bios and not files.read(BIOS) then
    return nil, "a disk image needs a BIOS (Debian: apt-get install seabios), or --bios FILE, or "
      .. "--bios none"
  else
    found.bios, found.rom = bios or BIOS, files.read(VGA)
  end
  return found
end

-- Assembly source is 32-bit code that begins where kernels do.
local function assembled(options)
  if options.format then return nil, "--format is not for assembly source" end
  local text, message = files.read(options.image)
  if not text then return nil, "the image cannot be opened: " .. message end
  local ok, code, problem = pcall(require "lunavisor.text.asm", text, { bits = 32, org = MIB })
  if not ok or not code then
    return nil, ("%s: %s"):format(options.image, say.plain(ok and problem or code))
  end
  return { image = { bytes = code, name = options.image }, disk = options.disk,
    floppy = options.floppy, load = { format = "flat", mode = "protected", address = MIB,
      stack = STACK, command = command_of(options, "flat") } }
end

-- What the machine has no part for, and what is no disk.
local function unfit(options)
  for _, name in ipairs { "disk", "floppy", "screenshot" } do
    local path = options[name]
    if path and options.machine ~= "pc" then return ("--%s needs --machine pc"):format(name) end
    if path and name ~= "screenshot" then
      local size, message = size_of(path)
      if size == 0 then message = path .. " is empty" end
      if message then return ("--%s: %s"):format(name, message) end
    end
  end
  for _, step in ipairs(options.steps or {}) do
    if step.kind == "type" and options.machine ~= "pc" then return "--type needs --machine pc" end
    if options.machine == "bare" then
      return ("--%s needs a serial port: --machine pc or microvm"):format(
        step.kind == "wait" and "wait-for" or step.kind)
    end
    local character = step.kind == "type"
      and require("lunavisor.device.models.keys").missing(step.text)
    if character then
      return ("--type: no key of a US keyboard makes %q"):format(character)
    end
  end
end

--- How luna.machine gets it: { image, load, bios, disk, floppy, rom }. nil, message.
function M.find(options)
  local problem = unfit(options)
  if problem then return nil, problem end
  if not options.image then
    if not options.floppy then return nil, "missing argument 'image', or --floppy FILE" end
    return disk_of(options)
  end
  if options.image:find "%.asm$" then return assembled(options) end
  local format, size = format_of(options.image, options.format)
  if not format then return nil, size end
  if format == "disk" then return disk_of(options, size) end
  if format == "bios" and options.machine == "pc" then
    problem = refused(options, "bios initrd cmdline", "firmware")
    if problem then return nil, problem end
    return { bios = options.image, disk = options.disk, floppy = options.floppy,
      rom = files.read(VGA) }
  end
  if options.bios and options.bios ~= "none" then
    return nil, "--bios is for a disk image, and " .. options.image .. " is a kernel: " .. format
  end
  return { image = options.image, disk = options.disk, floppy = options.floppy,
    load = { format = format, command = command_of(options, format), initrd = options.initrd } }
end

return M
