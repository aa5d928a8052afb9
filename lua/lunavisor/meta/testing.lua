---@meta lunavisor.testing
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of the testing kit, lunavisor.testing.
error "annotations are not to be required"

---@class luna.testing
local testing = {}

---@class luna.bus_options
---@field memory? integer|integer[][] for DMA: bytes from gpa 0, 16 MiB where nil, or { gpa, size }s
---@field options? table what the device is made with

---What a test takes for a device: a class, an instance, a function that makes one, one by hand.
---@alias luna.testing_device table|fun(options: table): table

---@param device luna.testing_device
---@param options? luna.bus_options
---@return luna.bus
function testing.bus(device, options) end

---@class luna.derive_options: luna.bus_options
---@field except? table<string, string> reasons by the name of a register or test that is left out

---@class luna.derived_test
---@field name string
---@field register string? nil: of the device as a whole
---@field except string? why it is left out
---@field check fun(): string? what is wrong

---The tests that a device's table gives by itself.
---@param device luna.testing_device|luna.bus
---@param options? luna.derive_options
---@return luna.derived_test[]
function testing.derive(device, options) end
---The same as tests of busted, in a describe block.
---@param device luna.testing_device|luna.bus
---@param options? luna.derive_options
function testing.registers(device, options) end

---@class luna.dma_access
---@field access "r"|"w"
---@field gpa integer
---@field size integer
---@field data string?
---@field failed string? why it failed

---@class luna.dma_failure
---@field gpa? integer any where nil
---@field size? integer bytes, 1 where nil
---@field access? "r"|"w" both where nil
---@field count? integer how often, always where nil
---@field message? string what the device is told

---@alias luna.value_hook
---|fun(bus: luna.bus, value: integer|luna.u64, offset: integer, size: integer): integer|luna.u64?

---A device on a bus without a VM. Of one thread.
---@class luna.bus
---@field device table
---@field name string
---@field clock table|false
---@field memory table guest memory: read, write, u8 to u64
---@field lines table<string|integer, boolean> the level of each line and input
---@field dma_log luna.dma_access[]
---@field said string[] what the device has logged
local bus = {}

---An offset in the first region, or "STATUS", "COEFF[2]", for reads also a field, "STATUS.busy".
---@alias luna.place integer|string

---@param where luna.place
---@param size? integer bytes, the register's own where nil
---@return integer|luna.u64
function bus:read(where, size) end
---@param where luna.place
---@param size? integer
---@param value integer|luna.u64
function bus:write(where, size, value) end
---@param where luna.place
---@return integer
function bus:read8(where) end
---@param where luna.place
---@return integer
function bus:read16(where) end
---@param where luna.place
---@return integer
function bus:read32(where) end
---@param where luna.place
---@return luna.u64
function bus:read64(where) end
---@param where luna.place
---@param value integer
function bus:write8(where, value) end
---@param where luna.place
---@param value integer
function bus:write16(where, value) end
---@param where luna.place
---@param value integer
function bus:write32(where, value) end
---@param where luna.place
---@param value integer|luna.u64
function bus:write64(where, value) end
---A region of the device, the first where nil, as a device for a VM.
---@param name? string
---@return luna.device
function bus:region(name) end
---@param seconds number
function bus:pass(seconds) end
---@param name string|integer
---@return table line what the device drives, or what drives its input
function bus:line(name) end
---@param name string|integer
---@param level boolean? nil: it works again
function bus:stick(name, level) end
---@param name string|integer
---@return string[] edges "up" and "down", since the last call
function bus:edges(name) end
---@param failure? luna.dma_failure the next access where nil
---@return fun() undo
function bus:fail_dma(failure) end
---What comes to the device, and what it does of it, in a file for t.replay.
---@param path string
---@return luna.recording?, string?, string?
function bus:record(path) end
---@param where luna.place? all where nil
---@param fn fun(bus: luna.bus, value: nil, offset: integer, size: integer)
---@return fun() undo
function bus:before_read(where, fn) end
---@param where luna.place?
---@param fn luna.value_hook
---@return fun() undo
function bus:after_read(where, fn) end
---@param where luna.place?
---@param fn luna.value_hook
---@return fun() undo
function bus:before_write(where, fn) end
---@param where luna.place?
---@param fn fun(bus: luna.bus, value: nil, offset: integer, size: integer)
---@return fun() undo
function bus:after_write(where, fn) end

---@class luna.guest_options
---@field mode? "real"|"reset"|"protected"|"long"|"user" "real" where nil
---@field memory? integer|string its size, from gpa 0, "1M" where nil
---@field org? integer where the code is, and where it begins, 0x1000 where nil
---@field rsp? integer 0x8000 where nil
---@field registers? table<string, integer|luna.u64>
---@field devices? table[] { device, pio = or mmio = address, ... }, as vm:attach takes it
---@field console? integer|false its port, 0xe9 where nil
---@field timeout? number seconds of each run, 10 where nil
---@field accel? string of luna.vm
---@field clock? luna.clock of luna.vm
---@field vm? luna.vm_options
---@field binary? boolean the source is machine code

---A guest of assembly source, closed after the test.
---@param source string
---@param options? luna.guest_options
---@return luna.guest
function testing.guest(source, options) end
---Closes what tests have made here, which busted does after each test.
function testing.close() end
---Drives devices through a recording; fails at the first difference. LUNA_GOLDEN=renew in the
---environment: writes the file anew.
---@param path string
---@param what? luna.bus|table<string, luna.bus> by the recorded names; nil: only reads the file
---@return luna.replay
function testing.replay(path, what) end
---Notes the edges of a line from here on, for assert.edges.
---@param line luna.line
---@return luna.line
function testing.watch(line) end

---@class luna.replay
---@field path string
---@field accesses integer
local replay = {}
---Up to behind so many accesses; with a VM, its devices get the states.
---@param count integer
---@param vm? luna.vm
---@return luna.replay
function replay:to(count, vm) end

---@class luna.guest
---@field vm luna.vm
---@field ram luna.buffer
---@field cpu luna.vcpu
---@field console luna.console|false
---@field screen luna.screen
---@field exit luna.exit|false the last
---@field labels luna.symbols addresses of the source's labels, as vm.symbols
---@field devices table[]
---@field timeout number
---@field bits 16|32|64
local guest = {}
---@param options? luna.run_options
---@return luna.exit
function guest:run(options) end
---@param kind luna.exit_kind
---@param options? luna.run_options
---@return luna.exit
function guest:stops(kind, options) end
---Ends the run at the write that completes the text.
---@param text string
---@param options? luna.run_options
---@return luna.guest
function guest:prints(text, options) end
function guest:close() end

---@class luna.console
---@field output string
---@field input string what the guest has not read yet
local console = {}
---@param bytes string for devices that print
function console:put(bytes) end
---@return integer? byte for devices that read
function console:get() end
---@param text string
---@return luna.console
function console:send(text) end
---@param text string
---@param options? luna.run_options
---@return luna.console
function console:expect(text, options) end
---@param count? integer lines, 5 where nil
---@return string
function console:tail(count) end

---@class luna.screen
---@field columns integer
---@field rows integer
---@field gpa integer
local screen = {}
---@param number integer from 0
---@return string
function screen:row(number) end
---@return string
function screen:text() end

return testing
