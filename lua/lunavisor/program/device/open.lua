-- SPDX-License-Identifier: MIT
-- The device that a word of a command stands for: that of a file, or one that ships.

local class = require "lunavisor.class"
local reload = require "lunavisor.program.reload"

local M = {}

-- The classes in lunavisor.device.models; a spec compares the list with the folder.
local SHIPPED = {
  "a20_gate", "acpi_pm", "ata", "cfi_flash", "debug_console", "debug_exit", "eeprom24c02", "fw_cfg",
  "gpio", "i8042", "i82077", "i8237", "i8254", "i8259", "ioapic", "lapic", "mc146818", "pci_host",
  "piix3", "piix3_ide", "system_ports", "uart16550", "vga",
}
local known = {}
for _, name in ipairs(SHIPPED) do known[name] = true end

--- The names of the devices that ship, in order.
function M.shipped() return SHIPPED end

--- The device or class that a file returns, or that ships by that name. nil, message.
function M.device(word)
  if known[word] then return require("lunavisor.device.models." .. word) end
  if not word:find "[./]" then
    return nil, ("%s: a file that ends in .lua, or a device that ships, expected%s"):format(word,
      class.hint(word, known))
  end
  return reload.load(word)
end

return M
