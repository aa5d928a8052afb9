-- SPDX-License-Identifier: MIT
-- The software CPU has the features that CPUID shows, and no others.

local soft = require "spec.support.soft"

soft.block("CR4 of the software CPU", function()
  local SMAP, PCIDE, LA57 = 2 ^ 21, 2 ^ 17, 2 ^ 12

  local function write(bit, change)
    local guest = soft.guest { mode = "long",
      source = "mov rax, cr4\n or rax, rbx\n mov cr4, rax\n out 0x30, al" }
    if change then change(guest.cpu) end
    guest.cpu.rbx = bit
    return guest:run().name or "pio"
  end

  it("has the bits alone whose features CPUID shows", function()
    assert.same({ "pio", "pio", "#GP" }, { write(SMAP), write(PCIDE), write(LA57) })
    assert.equal("#GP", write(SMAP, function(cpu) cpu.cpuid[7].ebx = 0 end))
    assert.equal("#GP", write(PCIDE, function(cpu) cpu.cpuid[1].ecx = 0 end))
  end)
end)

soft.block("an instruction of the software CPU", function()
  local function run(source, change)
    local guest = soft.guest { mode = "long", source = source .. "\n hlt" }
    if change then change(guest.cpu) end
    local exit = guest:run()
    return exit.name or exit.kind
  end

  it("is none where CPUID does not show it", function()
    for source, leaf in pairs { ["rdtscp"] = { 0x80000001, "edx" }, ["rdpid rax"] = { 7, "ecx" },
      ["mov eax, 2\n invpcid rax, [0x2000]"] = { 7, "ebx" } } do
      assert.equal("hlt", run(source))
      assert.equal("#UD", run(source, function(cpu) cpu.cpuid[leaf[1]][leaf[2]] = 0 end))
    end
  end)
end)
