-- SPDX-License-Identifier: MIT
-- What a guest may do under each of the rights, native and strict, against a table.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local PAGE = 0x200000

-- rights = { enforced or false where the map is refused, native; the same, strict }
local enforced = {
  ["---"] = { "---", "---" },
  ["r--"] = { "r-x", "r--" },
  ["-w-"] = { "rwx", "-w-" },
  ["rw-"] = { "rwx", "rw-" },
  ["r-x"] = { "r-x", "r-x" },
  ["rwx"] = { "rwx", "rwx" },
  ["--x"] = { false, false },
  ["-wx"] = { false, false },
}

-- enforced = what a read, a write and an execution come to: "value", "stored", "ran", or the access
-- of the fault.
local experience = {
  ["---"] = { "r", "w", "x" },
  ["r--"] = { "value", "w", "x" },
  ["-w-"] = { "r", "stored", "x" },
  ["rw-"] = { "value", "stored", "x" },
  ["r-x"] = { "value", "w", "ran" },
  ["rwx"] = { "value", "stored", "ran" },
}

local modes = {
  protected = 32,
  long = 64,
  user = 64,
}

-- Tries an access at 0x200000 in a guest that ends with a write to port 0x10.
local accesses = {
  read = { source = "mov eax, [ebx + 8]", outcome = function(guest)
    return luna.hex(guest.cpu.rax) == "0x87654321" and "value" or "wrong value"
  end },
  write = { source = "mov dword [ebx + 8], 0x13572468", outcome = function(_, extra)
    return extra:u32(8) == 0x13572468 and "stored" or "lost"
  end },
  execute = { source = "call reg", outcome = function(guest)
    return luna.hex(guest.cpu.rcx) == "0x5c" and "ran" or "did not run"
  end },
}

local function try(mode, access, map)
  local bits = modes[mode]
  local source = accesses[access].source:gsub("reg", bits == 64 and "rbx" or "ebx")
  local guest = helper.guest { mode = mode, source = source .. "\n out 0x10, al" }
  local extra = helper.keep(luna.buffer "4K")
  extra:write(0, helper.code("mov ecx, 0x5c\n ret", bits, PAGE))
  extra:u32(8, 0x87654321)
  local made, message, code = map(guest.vm.default, extra)
  if not made then return code, message end
  local region = guest.vm.default:find(PAGE)
  guest.cpu.rbx, guest.cpu.rax = PAGE, 0
  local exit = assert(guest:run())
  if exit.kind == "fault" then
    local gpa = access == "execute" and PAGE or PAGE + 8
    assert.same({ gpa, access == "execute" and 0 or 4 }, { exit.gpa, exit.size })
    return exit.access, region
  end
  assert.equal("pio", exit.kind, tostring(exit))
  return accesses[access].outcome(guest, extra), region
end

for mode in pairs(modes) do
  helper.kvm("in mode " .. mode, function()
    for rights, cases in pairs(enforced) do
      for i, strict in ipairs { false, true } do
        for j, access in ipairs { "read", "write", "execute" } do
          local expected = cases[i] and experience[cases[i]][j]
          it(("%s under %s%s is: %s"):format(access, rights, strict and " strict" or "",
            expected or "no such map"), function()
            local outcome, region = try(mode, access, function(space, extra)
              return space:map(extra, PAGE, { rights = rights, strict = strict })
            end)
            assert.equal(expected or "unsupported", outcome)
            if expected then
              assert.same({ rights, cases[i], strict or nil },
                { region.rights, region.enforced, region.strict })
              local slot = cases[i]:match "x" and "number" or "nil"
              assert.equal(slot, type(region.slot))
            end
          end)

          it(("%s under %s%s by protect is: %s"):format(access, rights,
            strict and " strict" or "", expected or "no such map"), function()
            local outcome, region = try(mode, access, function(space, extra)
              assert(space:map(extra, PAGE))
              return space:protect(PAGE, 0x1000, rights, { strict = strict })
            end)
            assert.equal(expected or "unsupported", outcome)
            if expected then
              assert.same({ rights, cases[i], strict or nil },
                { region.rights, region.enforced, region.strict })
            end
          end)
        end
      end
    end
  end)
end

helper.kvm("strict memory", function()
  local function strict(rights, source)
    local guest = helper.guest { mode = "long", source = source }
    local extra = helper.keep(luna.buffer "8K")
    assert(guest.vm.default:map(extra, PAGE, { rights = rights, strict = true }))
    return guest, extra
  end

  it("answers accesses of every width and to its end", function()
    local guest, extra = strict("rw-", [[
      mov ebx, 0x200000
      mov byte [rbx], 0x11
      mov word [rbx + 3], 0x2222
      mov dword [rbx + 9], 0x33333333
      mov rax, 0x4444444444444444
      mov [rbx + 0xffc], rax
      mov [rbx + 0x1ff8], rax
      mov rcx, [rbx + 0xffc]
      movdqu xmm0, [rbx + 0xff8]
      movdqu [0x3000], xmm0
      hlt]])
    guest:stops "hlt"
    assert.equal("\x11\0\0\x22\x22\0\0\0\0\x33\x33\x33\x33\0", extra:read(0, 14))
    assert.equal(("\x44"):rep(8), extra:read(0xffc, 8))
    assert.equal(("\x44"):rep(8), extra:read(0x1ff8, 8))
    assert.equal("0x4444444444444444", luna.hex(guest.cpu.rcx))
    assert.equal(extra:read(0xff8, 16), guest.ram:read(0x3000, 16))
  end)

  it("answers string instructions and read-modify-writes", function()
    local guest, extra = strict("rw-", [[
      mov edi, 0x200000
      mov ecx, 20
      mov al, 7
      rep stosb
      add dword [0x200010], 0x01010101
      mov esi, 0x200000
      mov edi, 0x3000
      mov ecx, 20
      rep movsb
      hlt]])
    guest:stops "hlt"
    assert.equal(("\7"):rep(16) .. ("\8"):rep(4), extra:read(0, 20))
    assert.equal(extra:read(0, 20), guest.ram:read(0x3000, 20))
  end)

  it("faults at its end", function()
    local guest = strict("rw-", "mov rax, [0x201ffc]\n hlt")
    local exit = guest:stops "fault"
    assert.same({ 0x202000, 4, "r" }, { exit.gpa, exit.size, exit.access })
  end)

  it("read-only lets a device have the writes", function()
    local guest, extra = strict("r--", [[
      mov eax, [0x200010]
      mov [0x200010], ax
      hlt]])
    extra:u32(0x10, 0xaabbccdd)
    local device = helper.recorder()
    guest.vm:mmio(PAGE, 0x1000, device)
    guest:stops "hlt"
    assert.same({ "w 10 2 0xccdd" }, device.log)
    assert.equal(0xaabbccdd, extra:u32(0x10))
  end)

  it("becomes ordinary memory by protect", function()
    local guest = strict("rw-", "mov eax, 0x200000\n call rax\n hlt")
    guest.vm.default:write(PAGE, "\xc3")
    assert.equal("x", guest:stops("fault").access)
    assert(guest.vm.default:protect(PAGE, 0x2000, "rwx"))
    guest.cpu:retry()
    guest:stops "hlt"
    assert.is_nil(guest.vm.default:find(PAGE).strict)
  end)
end)
