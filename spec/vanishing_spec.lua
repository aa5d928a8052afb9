-- SPDX-License-Identifier: MIT
-- Memory that is not the host side's alone: written by a guest while it is looked at, or gone.

local helper = require "spec.support.helper"
local luna = require "lunavisor"

-- Two values of the last eight bytes of the memory, and a guest that changes one to the other.
local function flipping()
  local vm, ram = helper.keep(luna.vm()), helper.keep(luna.buffer "64K")
  vm.default:map(ram, 0)
  ram:write(0x1000, luna.asm("again: xor byte [0xffff], 1\n jmp again", { bits = 64,
    org = 0x1000 }))
  helper.keep(vm:vcpu { mode = "user", rip = 0x1000, rsp = 0x8000 })
  return vm, ram, { [("\0"):rep(8)] = true, [("\0"):rep(7) .. "\1"] = true }
end

helper.kvm("memory that a guest writes meanwhile", function()
  it("is read once", function()
    local vm, ram, values = flipping()
    local other = helper.keep(luna.buffer "64K")
    other:copy(0, ram)
    vm:start()
    local stop = luna.clock() + 1
    while luna.clock() < stop do
      -- A string that was changed while it was made equals none of its own content.
      for _ = 1, 100 do assert.is_true(values[ram:read(0xfff8, 8)]) end
      local at = ram:compare(0, other)
      assert.is_true(at == nil or at == 0xffff, at)
      at = ram:find("\1", 0xfff8)
      assert.is_true(at == nil or at == 0xffff, at)
      assert.matches("^\1?$", ram:string(0xffff))
    end
  end)
end)

-- ---- Memory that goes away ----

-- In a process of its own, which may die of it.
local cut_short = [==[
  local luna = require "lunavisor"
  local mode, kind, access = "MODE", "KIND", "ACCESS"
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(("x"):rep(0x4000))
  file:close()
  local buffer
  if kind == "memfd" then
    os.remove(path)
    buffer = assert(luna.buffer { size = "16K", memfd = true })
    path = "/proc/self/fd/" .. buffer:fd()
  else
    buffer = assert(luna.buffer { file = path, private = kind == "private" })
  end
  local vm, ram = assert(luna.vm()), assert(luna.buffer "64K")
  assert(vm.default:map(ram, 0))
  assert(vm.default:map(buffer, 0x400000))
  local sources = {
    read = "mov al, [0x402000]\n out 0x10, al",
    write = "mov [0x402000], al\n out 0x10, al",
    execute = "mov ebx, 0x402000\n jmp " .. (mode == "protected" and "ebx" or "rbx"),
  }
  ram:write(0x1000, luna.asm(sources[access], { bits = mode == "protected" and 32 or 64,
    org = 0x1000 }))
  local cpu = assert(vm:vcpu { mode = mode, rip = 0x1000, rsp = 0x8000 })
  assert(io.open(path, "wb")):close() -- cuts it
  if kind ~= "memfd" then os.remove(path) end
  local exit, message = cpu:run { timeout = 60 }
  print(exit and exit.kind or message)
  io.stdout:flush()
  print(pcall(vm.default.read, vm.default, 0x402000, 16))
  print(pcall(vm.default.u32, vm.default, 0x402000))
  print(pcall(vm.default.write, vm.default, 0x402000, "abc"))
  for _, call in ipairs {
    { "read", 0x2000, 16 }, { "read", 0, 0x4000 }, { "u8", 0x2000 }, { "u16", 0x2000, 1 },
    { "u32", 0x2000 }, { "u64", 0x2000 }, { "u64", 0x2000, 1 }, { "write", 0x2000, "abc" },
    { "fill", 7, 0x2000, 9 }, { "copy", 0x2000, ram, 0, 1 }, { "compare", 0x2000, ram, 0, 1 },
    { "find", "z", 0x2000 }, { "string", 0x2000 }, { "hexdump", 0x2000 },
  } do
    local done, result, why, code = pcall(buffer[call[1]], buffer,
      (table.unpack or unpack)(call, 2))
    if not (done and result == nil and why:match "its memory is gone" and code == "system") then
      print("the buffer:" .. call[1], done, result, why)
    end
  end
  local done, result, why = pcall(ram.copy, ram, 0, buffer, 0x2000, 1)
  if not (done and result == nil and why:match "its memory is gone") then
    print("from the buffer", done, result, why)
  end
  vm:close()
  print "alive"
]==]

helper.kvm("memory that is cut short", function()
  for _, mode in ipairs { "protected", "long", "user" } do
    for _, kind in ipairs { "file", "private", "memfd" } do
      for _, access in ipairs { "read", "write", "execute" } do
        it(("makes a guest's %s a host_fault: %s, mode %s"):format(access, kind, mode), function()
          local output = helper.child((cut_short:gsub("MODE", mode):gsub("KIND", kind)
            :gsub("ACCESS", access)))
          assert.matches("^host_fault\n", output)
          assert.equal(3, select(2, output:gsub("the host memory behind it is gone", "")), output)
          assert.is_nil(output:match "[^\n]*the buffer[^\n]*", output)
          assert.matches("\nalive$", output)
        end)
      end
    end
  end
end)
