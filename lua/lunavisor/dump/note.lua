-- SPDX-License-Identifier: MIT
-- The notes of a core file, by which debuggers know the threads and their registers: Linux's
-- structures elf_prpsinfo, elf_prstatus and user_fpregs_struct (<linux/elfcore.h>), of x86-64 and
-- of i386. A vCPU is a thread.

local pack = require "lunavisor.text.pack"
local u64 = require "lunavisor.text.u64"
local mode = require "lunavisor.vcpu.mode"

local M = {}

local le16, le32 = pack.le16, pack.le32
local NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_PRXFPREG = 1, 2, 3, 0x46e62b7f
local SIGTRAP = 5
local FXSAVE = 512 -- bytes

local function zeros(count) return ("\0"):rep(count) end

local function padded(bytes, size) return bytes:sub(1, size) .. zeros(size - #bytes) end

local function note(owner, kind, data)
  local name = owner .. "\0"
  return le32(#name) .. le32(#data) .. le32(kind) .. padded(name, math.ceil(#name / 4) * 4)
    .. padded(data, math.ceil(#data / 4) * 4)
end

-- ---- The process ----

local function info(text, wide)
  local head = zeros(4) .. (wide and zeros(12) or zeros(4)) -- pr_state, pr_flag
    .. zeros(wide and 8 or 4)                               -- pr_uid, pr_gid
  return note("CORE", NT_PRPSINFO, head .. le32(1) .. zeros(12) .. padded("lunavisor", 16)
    .. padded(text, 79) .. "\0")
end

-- ---- Threads ----

-- In the order of struct user_regs_struct. A segment is its selector, "base" its base, and "-" what
-- a guest has not.
local ORDER = {
  [64] = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi - rip cs rflags rsp ss "
    .. "fs.base gs.base ds es fs gs",
  [32] = "rbx rcx rdx rsi rdi rbp rax ds es fs gs - rip cs rflags rsp ss",
}

local segments = { cs = true, ss = true, ds = true, es = true, fs = true, gs = true }

local function value_of(cpu, name)
  if name == "-" then return u64.bnot(0) end
  if name == "rip" then return mode.linear(cpu, cpu.rip) end -- where the code is
  local group = name:match "^(%w+)%.base$"
  if group then return cpu[group].base end
  return segments[name] and cpu[name].selector or cpu[name]
end

local function registers(cpu, bits)
  local parts = {}
  for name in ORDER[bits]:gmatch "%S+" do
    parts[#parts + 1] = pack.encode("u64", { value_of(cpu, name) }):sub(1, bits / 8)
  end
  return table.concat(parts)
end

local function status(cpu, bits)
  local word = bits / 8
  return zeros(12) .. le16(SIGTRAP) .. zeros(2) .. zeros(2 * word)    -- pr_info to pr_sighold
    .. le32(cpu.id + 1) .. zeros(12) .. zeros(4 * 2 * word)           -- pr_pid to pr_cstime
    .. registers(cpu, bits) .. le32(1) .. zeros(bits == 64 and 4 or 0) -- pr_fpvalid
end

local function thread(cpu, bits)
  local state = cpu.xsave:sub(1, FXSAVE)
  local float = bits == 64 and note("CORE", NT_FPREGSET, state)
    or note("LINUX", NT_PRXFPREG, state)
  return note("CORE", NT_PRSTATUS, status(cpu, bits)) .. float
end

--- The notes of a VM; bits: 64 or 32, of the file.
function M.all(vm, bits)
  local parts = { info(("a %s of %d vCPUs"):format(vm.machine and vm.machine.kind or "vm",
    #vm.vcpus), bits == 64) }
  for _, cpu in ipairs(vm.vcpus) do parts[#parts + 1] = thread(cpu, bits) end
  return table.concat(parts)
end

return M
