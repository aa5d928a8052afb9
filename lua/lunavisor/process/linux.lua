-- SPDX-License-Identifier: MIT
-- Numbers that Linux gives to errors and signals, and what a signal does by default.

local M = { errors = {}, error_names = {}, signals = {}, signal_names = {} }

local function add(numbers, names, prefix, text)
  local number = 0
  for name in text:gmatch "%S+" do
    number = number + 1
    if name ~= "-" then numbers[prefix .. name], names[number] = number, prefix .. name end
  end
end

add(M.errors, M.error_names, "E", [[
  PERM NOENT SRCH INTR IO NXIO 2BIG NOEXEC BADF CHILD AGAIN NOMEM ACCES FAULT NOTBLK BUSY EXIST
  XDEV NODEV NOTDIR ISDIR INVAL NFILE MFILE NOTTY TXTBSY FBIG NOSPC SPIPE ROFS MLINK PIPE DOM
  RANGE DEADLK NAMETOOLONG NOLCK NOSYS NOTEMPTY LOOP]])
M.errors.EOVERFLOW, M.errors.EOPNOTSUPP, M.errors.ETIMEDOUT = 75, 95, 110
M.errors.ECONNREFUSED, M.errors.EAFNOSUPPORT, M.errors.ENOTSOCK = 111, 97, 88
for name, number in pairs(M.errors) do M.error_names[number] = name end

add(M.signals, M.signal_names, "SIG", [[
  HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP
  TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS]])

--- Whether an argument is an ordinary number: from 2^53 on it is a u64, which on Lua 5.4 is an
--- integer too.
function M.is_plain(value)
  return type(value) == "number" and value >= 0 and value < 2 ^ 53
end

--- An argument of a system call as the C type int has it.
function M.int(value)
  local low = tonumber(value % 0x100000000)
  return low < 0x80000000 and low or low - 0x100000000
end

--- An offset or a count of 64 bits, which may be negative; huge ones become 2^53.
function M.long(value)
  if type(value) == "number" and value >= 0 then return value end
  local back = tonumber(0 - value)
  return type(back) == "number" and back >= 0 and back < 2 ^ 53 and -back or 2 ^ 53
end

--- The name of a signal; "signal 40" of one that has none.
function M.signal(number)
  return M.signal_names[number] or ("signal %d"):format(number)
end

--- Signals that do nothing by default; stopping is as good as that, where nobody could continue.
M.ignored = {}
for name in ("CHLD CONT URG WINCH STOP TSTP TTIN TTOU"):gmatch "%S+" do
  M.ignored[M.signals["SIG" .. name]] = true
end

return M
