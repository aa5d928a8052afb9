---@meta lunavisor.machine
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of luna.machine, for editors. Programs load none of them; a spec compares
-- them with what there is.
error "annotations are not to be required"

---@alias luna.machine_kind "pc"|"microvm"|"bare"

---@class luna.machine_options
---@field memory? luna.size 128M where nil, 16M of "bare"
---@field cpus? integer 1 to 64, 1 where nil
---@field image? luna.image_source what runs; without it no vCPU is made
---@field load? luna.load_options
---@field devices? table<string, false|table> by part: left out, options of its model, or a device
---@field accel? luna.accel
---@field clock? luna.clock of devices
---@field unknown? "stop"|"ones"|"zeros"|"log" "ones" where nil, "stop" of "bare"
---@field cpuid? luna.cpuid_values[]|fun(answer: luna.cpuid_values): boolean?
---@field serial? luna.output pc, microvm: of com1 and port 0xe9; the program's output where nil
---@field bios? luna.image_source pc: firmware, in place of the image
---@field disk? luna.image|table pc: the first drive
---@field cdrom? luna.image|table pc: the first drive of the second channel, for CDs
---@field floppy? luna.image|table pc: the first floppy drive
---@field debug? luna.output pc: of port 0x402
---@field time? number|fun(): number pc: seconds since 1970
---@field irqchip? "kernel"|"pic" pc
---@field pit? "kernel"|"device" pc
---@field acpi? boolean pc: false for no tables
---@field pm? integer pc: port of ACPI's fixed hardware

---@class luna.made_machine
---@field kind luna.machine_kind
---@field ram luna.buffer stays open when the VM is closed
---@field cpus integer
---@field image? luna.loaded_image

local luna = {}
---@param kind luna.machine_kind
---@param options? luna.machine_options
---@return luna.vm?, string?, string?
function luna.machine(kind, options) end

---@type luna.vm
local vm = {}
---@return string
function vm:machine_text() end

return luna
