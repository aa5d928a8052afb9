-- SPDX-License-Identifier: MIT
-- Which kernel a VM runs on: the option, LUNA_ACCEL, and KVM and the software CPU side by side.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains = helper.contains

local probe = luna.probe()
local accelerators = probe.accelerators

local script = [[
  local luna = require "lunavisor"
  local fine, vm, message, code = pcall(luna.vm)
  if not fine then print(vm) return end
  if not vm then print(code .. ": " .. message) return end
  local ram = luna.buffer "64K"
  vm.default:map(ram, 0)
  ram:write(0x1000, "\xb0\x2a\xf4") -- mov al, 42; hlt
  local cpu = vm:vcpu { rip = 0x1000 }
  print(cpu:run({ timeout = 60 }).kind, luna.hex(cpu.rax), vm.accel)
  print(vm.accel_reason)
]]

local function on(accelerator, device, text)
  return helper.child(text or script,
    { env = { LUNA_ACCEL = accelerator, LUNA_KVM_DEVICE = device } })
end

local function needs(...)
  for _, name in ipairs { ... } do
    if not accelerators[name].available then pending(accelerators[name].message) end
  end
end

describe("LUNA_ACCEL", function()
  it("soft needs no device", function()
    needs "soft"
    assert.equal("hlt\t0x2a\tsoft\nLUNA_ACCEL is soft", on("soft", "/nonexistent"))
  end)

  it("kvm is KVM alone", function()
    contains("no_kvm: cannot open /nonexistent", on("kvm", "/nonexistent"))
  end)

  it("kvm is KVM", function()
    needs "kvm"
    assert.equal("hlt\t0x2a\tkvm\nLUNA_ACCEL is kvm", on("kvm", ""))
  end)

  it("auto is KVM where its device is named", function()
    contains("no_kvm: cannot open /nonexistent", on("auto", "/nonexistent"))
    contains("no_kvm: cannot open /nonexistent", on("", "/nonexistent"))
  end)

  it("auto is KVM where it can be opened, else the software CPU", function()
    needs "soft"
    local best = accelerators.kvm.available and "kvm" or "soft"
    for _, value in ipairs { "", "auto" } do
      contains("hlt\t0x2a\t" .. best .. "\n", on(value, ""))
    end
  end)

  it("has no further values", function()
    contains("LUNA_ACCEL is 'tcg': it can be kvm, soft or auto", on("tcg", ""))
    contains("LUNA_ACCEL is 'tcg'", on("tcg", "", [[
      local luna = require "lunavisor"
      local probe = luna.probe()
      assert(not probe.available and not probe.accel and probe.code == "argument")
      print(probe.message)
      print(probe)
    ]]))
  end)

  it("is for VMs that ask for nothing", function()
    needs "soft"
    assert.equal("soft\tit was asked for\nLUNA_ACCEL is 'tcg'", on("tcg", "", [[
      local luna = require "lunavisor"
      local vm = luna.vm { accel = "soft" }
      print(vm.accel, vm.accel_reason)
      print((select(2, pcall(luna.vm, { accel = "auto" })):match "LUNA_ACCEL is '%w+'"))
    ]]))
  end)

  it("is for the Hypervisor framework too", function()
    needs "soft"
    assert.equal("true\ttrue", on("soft", "/nonexistent", [[
      local hv = require "lunavisor.hv"
      print(hv.vm_create(hv.VM_DEFAULT), (hv.vm_destroy()))
    ]]))
  end)
end)

helper.block("luna.vm's accel", function()
  it("is what was asked for, and says so", function()
    for _, name in ipairs { "kvm", "soft" } do
      if accelerators[name].available then
        local vm = helper.keep(luna.vm { accel = name })
        assert.equal(name, vm.accel)
        assert.equal("it was asked for", vm.accel_reason)
        contains(("vm (0 vcpus, 0 traps)\non %s: it was asked for\n"):format(name), tostring(vm))
      end
    end
  end)

  it("is what luna.probe says where nothing was asked for", function()
    if not probe.available then pending(probe.message) end
    local vm = helper.keep(luna.vm())
    assert.equal(probe.accel, vm.accel)
    assert.equal(probe.reason, vm.accel_reason)
    assert.equal(accelerators[probe.accel].features, probe.features)
    contains(("a VM gets %s: %s"):format(probe.accel, probe.reason), tostring(probe))
  end)

  it("is refused where it cannot be had", function()
    for _, name in ipairs { "kvm", "soft" } do
      local one = accelerators[name]
      if not one.available then
        helper.refused(one.code, one.message, luna.vm { accel = name })
        contains("is not usable: " .. one.message, tostring(probe))
      end
    end
  end)

  it("has other names near it", function()
    helper.raises("luna.vm: accel: 'auto', 'kvm' or 'soft' expected, got 'sotf'; "
      .. "did you mean 'soft'?", function() luna.vm { accel = "sotf" } end)
    helper.raises("got 'KVM'; did you mean 'kvm'?", function() luna.vm { accel = "KVM" } end)
    helper.raises("expected, got boolean", function() luna.vm { accel = true } end)
    helper.raises("unknown option 'accell'; the options are accel, ",
      function() luna.vm { accell = "soft" } end)
  end)

  it("has limits of its own", function()
    for _, name in ipairs { "kvm", "soft" } do
      local one = accelerators[name]
      if one.available then
        for limit, value in pairs(one.limits) do
          assert.equal(value, luna.capability(limit, name), limit)
        end
        assert.equal(one.features.nr_memslots, one.limits.slots_max)
      end
    end
  end)
end)

-- The guest writes squares to a port and to memory, with the paging of long mode, and halts.
local source = [[
  mov ecx, 1
again:
  mov eax, ecx
  imul eax, eax
  mov [0x4000 + rcx * 8], rax
  mov dx, 0x300
  out dx, eax
  inc ecx
  cmp ecx, 50
  jne again
  in eax, dx
  cpuid
  hlt
]]

local function machine(accel)
  local guest = helper.guest { mode = "long", source = source, vm = { accel = accel },
    system = 0x20000 }
  guest.log = {}
  guest.vm:pio(0x300, 4, {
    read = function() return 7 end,
    write = function(_, _, _, value) guest.log[#guest.log + 1] = value end,
  })
  return guest
end

helper.block("KVM and the software CPU in one process", function()
  it("run the same guest with the same results, in turns", function()
    needs("kvm", "soft")
    local kvm, soft = machine "kvm", machine "soft"
    for _ = 1, 20 do
      for _, guest in ipairs { kvm, soft } do
        assert.equal("limit", guest:run({ max_exits = 2 }).kind)
      end
    end
    kvm:stops "hlt"
    soft:stops "hlt"
    assert.equal(49, #kvm.log)
    assert.same(kvm.log, soft.log)
    assert.equal(kvm.ram:read(0x4000, 400), soft.ram:read(0x4000, 400))
    assert.equal(luna.hex(kvm.cpu.rip), luna.hex(soft.cpu.rip))
    assert.equal(luna.hex(kvm.cpu.rcx), luna.hex(soft.cpu.rcx))
  end)

  it("run at once, on threads", function()
    needs("kvm", "soft")
    local guests = { machine "kvm", machine "soft" }
    for _, guest in ipairs(guests) do guest.cpu:start() end
    for _, guest in ipairs(guests) do
      local exit = guest.vm:run { timeout = 60 }
      assert.equal("hlt", exit.kind)
    end
    assert.same(guests[1].log, guests[2].log)
  end)

  it("keep vCPUs apart, and hand on states", function()
    needs("kvm", "soft")
    local kvm, soft = machine "kvm", machine "soft"
    for _, pair in ipairs { { kvm, soft }, { soft, kvm } } do
      local from, to = pair[1].cpu, pair[2].cpu
      from.rbx, from.xmm[3], from.msr.lstar = 0x1234, { u64 = { 5, 6 } }, 0x4567
      assert(to:set_state(assert(from:state())))
      assert.equal("0x1234", luna.hex(to.rbx))
      assert.equal("0x4567", luna.hex(to.msr.lstar))
      assert.equal(tostring(from.xmm[3]), tostring(to.xmm[3]))
      to.rbx, to.msr.lstar = 0, 0
    end
  end)
end)
