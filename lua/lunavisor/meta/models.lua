---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the devices that ship: what each can be made with besides what every
-- device can, and its methods. lua/manual/models.md tells of them.
error "annotations are not to be required"

---Where characters go: a function, an open file, an object with write (a ring, a channel), or
---nowhere.
---@alias luna.output false|table|userdata|fun(text: string)

---What is behind a drive or chip: the path of a file, or a buffer.
---@alias luna.image string|luna.buffer

---@class luna.a20_gate_options: luna.instance_options
---@field map? false|fun(open: boolean): true?, string? changes the memory to fit

---@class luna.acpi_pm_options: luna.instance_options
---@field off? integer the sleep type that is S5
---@field enable? integer what turns ACPI on
---@field disable? integer
---@class luna.acpi_pm: luna.kit_device
local acpi_pm = {}
function acpi_pm:press_power() end
function acpi_pm:press_sleep() end

---@class luna.ata_options: luna.instance_options
---@field master? false|luna.image|table or { image =, cdrom =, serial =, model =, read_only =,
---copy =, size = }
---@field slave? false|luna.image|table
---@field bus_master? false|fun(channel: luna.ata) called when a drive asks for DMA
---@class luna.ata: luna.kit_device
local ata = {}
---@param which "master"|"slave"|integer
---@param image luna.image|table
function ata:insert(which, image) end
---@param which "master"|"slave"|integer
function ata:eject(which) end

---@class luna.cfi_flash_options: luna.instance_options
---@field image? false|luna.image
---@field size? luna.size of a chip without an image
---@field read_only? boolean
---@field copy? boolean what is written stays in this process
---@field block? luna.size erased at once
---@field idle? integer its status without an error

---@class luna.debug_console_options: luna.instance_options
---@field output? luna.output
---@field present? integer what a read gives

---@class luna.debug_exit_options: luna.instance_options
---@field exit? false|fun(value: integer, status: integer)

---@class luna.eeprom24c02_options: luna.instance_options
---@field address? integer of its three pins
---@field data? string
---@class luna.eeprom24c02: luna.kit_device
local eeprom24c02 = {}
---@return string
function eeprom24c02:data() end

---@class luna.fw_cfg_options: luna.instance_options
---@field files? table<string, string>
---@field items? table<integer, string>
---@class luna.fw_cfg: luna.kit_device
local fw_cfg = {}
---@param name string
---@param data? string nil: what it has
---@param writable? boolean
---@return string?
function fw_cfg:file(name, data, writable) end
---@param number integer
---@param data string
function fw_cfg:item(number, data) end

---@class luna.i8042_options: luna.instance_options
---@field config? integer the command byte at power-on
---@field pace? number seconds from one key to the next
---@class luna.i8042: luna.kit_device
local i8042 = {}
---@param text string
function i8042:type(text) end
---@param key string
function i8042:press(key) end
---@param key string
function i8042:release(key) end
---@param moved table what has moved or is pressed of the mouse
function i8042:move(moved) end

---@class luna.i82077_options: luna.instance_options
---@field drive0? false|luna.image|table or { image =, drive =, read_only =, copy =, size = }
---@field drive1? false|luna.image|table
---@field pace? number seconds until a command is done
---@class luna.i82077: luna.kit_device
local i82077 = {}
---@param which 0|1|"drive0"|"drive1"
---@param image false|luna.image|table
function i82077:insert(which, image) end
---@param which 0|1|"drive0"|"drive1"
function i82077:eject(which) end
---@param number 0|1
---@return integer kind as CMOS memory has it, 0 for none
function i82077:drive_type(number) end
---@param count integer
---@return string
function i82077:take(count) end
---@param bytes string
---@return false?
function i82077:give(bytes) end
function i82077:terminal() end

---Who is at the other end of a channel.
---@class luna.dma_peripheral
---@field take fun(self, count: integer): string up to so many bytes for memory
---@field give fun(self, bytes: string): false? bytes from memory; false where it takes none
---@field terminal fun(self) the terminal count

---@class luna.i8237: luna.kit_device
local i8237 = {}
---@param channel integer
---@param peripheral luna.dma_peripheral
function i8237:serve(channel, peripheral) end

---@class luna.i8254: luna.kit_device
local i8254 = {}
---@param number integer of a counter
---@return boolean
function i8254:out(number) end

---@class luna.i8259_options: luna.instance_options
---@field slaves? table<integer, luna.i8259> by input
---@field levels? integer inputs that can be level triggered
---@class luna.i8259: luna.kit_device
local i8259 = {}
---@return integer vector
function i8259:acknowledge() end

---@class luna.ioapic_options: luna.instance_options
---@field id? integer
---@field send? false|function
---@class luna.ioapic: luna.kit_device
local ioapic = {}
---@param vector integer
function ioapic:eoi(vector) end

---What an apic_bus gives its LAPICs.
---@class luna.lapic_options: luna.instance_options
---@field boot? boolean
---@field eoi? false|function
---@field frequency? number Hz
---@field id? integer
---@field moved? fun(dev: luna.lapic) told when its page may be elsewhere
---@field physical? integer how many bits addresses have
---@field pic? false|luna.i8259
---@field send? false|function
---@field signal? false|function
---@field tsc? false|function
---@field tsc_frequency? number Hz
---@field x2apic? boolean whether it has that mode
---@class luna.lapic: luna.kit_device
local lapic = {}
---@return integer vector
function lapic:acknowledge() end
---@param ... any
function lapic:deliver(...) end
---@param ... any
---@return boolean
function lapic:is_meant(...) end
---@return integer
function lapic:priority() end
---@param msr integer
---@return luna.u64? value nil where the guest gets a #GP
function lapic:read_msr(msr) end
---@param ... any
function lapic:set_deadline(...) end
---@param msr integer
---@param value integer|luna.u64
---@return boolean taken false where the guest gets a #GP
function lapic:write_msr(msr, value) end

---@class luna.mc146818_options: luna.instance_options
---@field time? false|number|fun(): number seconds since 1970, UTC
---@field ram? table<integer, integer> by index
---@field century? integer the index of that byte
---@class luna.mc146818: luna.kit_device
local mc146818 = {}
---@param index integer
---@param value? integer
---@return integer
function mc146818:byte(index, value) end

---@class luna.pci_host_options: luna.instance_options
---@field map? false|fun(dev: luna.kit_device, region: string, way: "pio"|"mmio", base: integer?)
---@field message? false|fun(address: integer|luna.u64, data: integer)
---@field route? false|function which interrupt a slot's pin is
---@class luna.pci_host: luna.kit_device
local pci_host = {}
---@param dev luna.kit_device
---@param slot integer
---@param number? integer the function
---@return luna.kit_device
function pci_host:add(dev, slot, number) end

---@class luna.piix3_ide_options: luna.instance_options
---@field primary? false|luna.ata
---@field secondary? false|luna.ata

---@class luna.system_ports_options: luna.instance_options
---@field pit? false|luna.i8254

---@class luna.uart16550_options: luna.instance_options
---@field output? luna.output
---@field frequency? number Hz
---@field carrier? boolean what CTS, DSR and DCD are at first
---@field gated? boolean OUT2 gates the interrupt
---@class luna.uart16550: luna.kit_device
local uart16550 = {}
---@param text? string
function uart16550:feed(text) end
---@param byte integer
---@param errors? integer bits of LSR
function uart16550:receive(byte, errors) end

---@class luna.vga_options: luna.instance_options
---@field rom? false|string what its ROM has
---@class luna.vga: luna.kit_device
local vga = {}
---@return integer? column, integer? row
function vga:cursor() end
---@param path string of a PNG file
---@return true?, string?
function vga:screenshot(path) end
---@return string[] rows none where it shows graphics
function vga:text() end
