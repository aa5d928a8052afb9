---@meta _
-- SPDX-License-Identifier: MIT
-- LuaCATS annotations of post-mortems.
error "annotations are not to be required"

---@alias luna.mistake_name
---| "long tables" # long mode without CR4.PAE, or without tables
---| "no code"     # no memory at rip
---| "zeros"       # zeros are executed
---| "no idt"      # a triple fault, and no gate is usable
---| "no stack"    # the stack is outside of memory that may be written
---| "halted"      # HLT with interrupts off
---| "polls"       # the last accesses all read one device register

---@class luna.mistake
---@field name luna.mistake_name
---@field text string

---@class luna.device_asked
---@field trap luna.trap
---@field exit luna.past_exit
---@field text string

---@class luna.explanation
---@field sentence string the exit
---@field mistakes luna.mistake[] the nearest to the cause first
---@field symbol string? what vm.symbols calls rip
---@field line luna.source_line? of rip
---@field no_line string? why there is none, where the image has lines and they cannot be read
---@field mode string? in words
---@field code luna.instruction[]? eight, the one at rip marked
---@field walk luna.walk? of the address that has failed
---@field refused string? which entry has refused it
---@field exceptions luna.past_exception[] eight; on KVM those of a triple fault alone
---@field again boolean? found by doing the instruction again on the software CPU
---@field last luna.past_exit[] ten
---@field devices luna.device_asked[] the latest first
---@field lines string[] interrupts of devices that are up and drive nothing, where the guest waits
---@field hidden { trap: luna.trap, why: string }[] devices to which nothing can come
---@field registers table<string, luna.u64>?
---@field changed table<string, luna.u64>? general registers before the last stretch, if others now
---@field segments string?
---@field problem string? too late to see all of it, and why
---@field vcpus luna.explanation[]? of an exit of vm:run without a vCPU

---@class luna.exit
local exit = {}
---@return luna.explanation
function exit:explain() end
