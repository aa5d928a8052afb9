-- SPDX-License-Identifier: MIT
-- What loaders hand to kernels, each in the layout of its protocol: modules, command lines, the
-- memory map, a framebuffer.

local reader = require "lunavisor.load.reader"

local M = {}

local PAGE = 0x1000

M.NAME = "lunavisor"

--- Puts the modules of the options into the plan, each at a page of its own behind what is planned:
--- a list of { gpa, size, command }.
function M.modules(plan, list)
  local placed = {}
  for i, source in ipairs(list or {}) do
    local image = reader.open(source)
    if image.size == 0 then
      image:refuse("format", "it is empty, and module %d: at least one byte expected", i)
    end
    local gpa = plan:place(image.bytes, ("module %d, %s"):format(i, image.name), {
      alignment = PAGE, low = plan:behind(),
    })
    placed[i] = { gpa = gpa, size = image.size, command = source.command or "" }
  end
  return placed
end

--- Where each color of a framebuffer is in a pixel: { red = { position, size }, ... }.
function M.colors(bits)
  if bits == 15 then return { red = { 10, 5 }, green = { 5, 5 }, blue = { 0, 5 } } end
  if bits == 16 then return { red = { 11, 5 }, green = { 5, 6 }, blue = { 0, 5 } } end
  return { red = { 16, 8 }, green = { 8, 8 }, blue = { 0, 8 } }
end

--- The text screen of a VGA adapter as a framebuffer.
M.TEXT = { address = 0xb8000, width = 80, height = 25, pitch = 160, bits = 16 }

--- A framebuffer for an image that asks for one: `wanted` is { width, height, bits }, 0 where it
--- does not matter, or text = true. What the options say goes before it.
function M.framebuffer(image, options, wanted, field, offset)
  local given = options.framebuffer
  if given then return given end
  if not wanted then return nil end
  if wanted.text then return "text" end
  image:wrong(field, offset, ("a framebuffer of %d x %d, %d bits"):format(wanted.width,
    wanted.height, wanted.bits), "no such wish, or the option framebuffer,", "unsupported")
end

--- The state that multiboot and PVH begin in: flat 32-bit protected mode, no paging, EAX and EBX.
function M.entry(rip, eax, ebx)
  return { mode = "protected", rip = rip, registers = { rax = eax, rbx = ebx } }
end

return M
