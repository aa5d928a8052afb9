-- SPDX-License-Identifier: MIT
-- LUNA_ACCEL: which kernel a process's VMs run on.

local helper = require "spec.support.helper"
local contains = helper.contains

local script = [[
  local luna = require "lunavisor"
  local fine, vm, message, code = pcall(luna.vm)
  if not fine then print(vm) return end
  if not vm then print(code .. ": " .. message) return end
  local ram = luna.buffer "64K"
  vm.default:map(ram, 0)
  ram:write(0x1000, "\xb0\x2a\xf4") -- mov al, 42; hlt
  local cpu = vm:vcpu { rip = 0x1000 }
  print(cpu:run({ timeout = 10 }).kind, luna.hex(cpu.rax))
]]

local function on(accelerator, device)
  return helper.child(script, { env = { LUNA_ACCEL = accelerator, LUNA_KVM_DEVICE = device } })
end

describe("LUNA_ACCEL", function()
  it("soft needs no device", function()
    local output = on("soft", "/nonexistent")
    if output:find "without Zydis" then pending "this build has no software CPU" end
    assert.equal("hlt\t0x2a", output)
  end)

  it("kvm is KVM alone", function()
    contains("no_kvm: cannot open /nonexistent", on("kvm", "/nonexistent"))
  end)

  it("auto is KVM where its device is named", function()
    contains("no_kvm: cannot open /nonexistent", on("auto", "/nonexistent"))
    contains("no_kvm: cannot open /nonexistent", on("", "/nonexistent"))
  end)

  it("has no further values", function()
    contains("LUNA_ACCEL is 'tcg': it can be kvm, soft or auto", on("tcg", ""))
  end)
end)
