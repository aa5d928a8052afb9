-- SPDX-License-Identifier: MIT
-- Follows a guest instruction by instruction and shows what each one changed; then sets a
-- breakpoint with a condition, in Lua.

local luna = require "lunavisor"

local vm = assert(luna.vm())
local ram = assert(luna.buffer("64K"))
assert(vm:map_space(0, ram, 0x0, ram.size, "rwx"))

-- Euclid's algorithm: the greatest common divisor of eax and ebx.
ram:write(0x1000, assert(luna.asm([[
    mov eax, 48
    mov ebx, 36
  again:
    xor edx, edx
    div ebx
    mov eax, ebx
    mov ebx, edx
    test ebx, ebx
    jnz again
    out 0x10, al
    hlt
]], { bits = 32, org = 0x1000 })))

local function start()
  return assert(vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x8000 })
end

local NAMES = { "rax", "rbx", "rdx" }

-- What the registers show that they did not show before.
local before = { rax = luna.u64(0), rbx = luna.u64(0), rdx = luna.u64(0) }
local function changes(cpu)
  local list = {}
  for _, name in ipairs(NAMES) do
    local now = cpu[name]
    if now ~= before[name] then list[#list + 1] = ("%s = %s"):format(name, luna.hex(now)) end
    before[name] = now
  end
  return #list > 0 and table.concat(list, ", ") or "-"
end

local cpu = start()
for _, name in ipairs(NAMES) do cpu[name] = 0 end
local last
local exit = assert(cpu:trace(function(_, address)
  if last then print(("%s  %s"):format(last, changes(cpu))) end
  last = luna.hex(address)
end, { count = 1000, timeout = 10 }))
print(("the guest gives %d to port 0x%x"):format(exit.value, exit.port))
cpu:close()

-- Only where the remainder is 0.
cpu = start()
local bp = assert(cpu:breakpoint(0x1010, function()
  return cpu.rdx == luna.u64(0) and "stop" or "continue"
end))
exit = assert(cpu:run { timeout = 10 })
print(exit)
print(("round %d, and the divisor is %s"):format(bp.hits, luna.hex(cpu.rbx)))
