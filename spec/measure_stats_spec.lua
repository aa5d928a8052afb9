-- SPDX-License-Identifier: MIT
-- What luna run --stats counts: exits by kind and device, the shares of the time, where the guest
-- was; and that runs end as they do without.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local meters = require "lunavisor.vm.meter"
local stats = require "lunavisor.measure.stats"

local made

local function counts(list)
  local set = {}
  for _, one in ipairs(list) do set[one.name] = one.count end
  return set
end

local LOOP = [[
  mov ecx, 300
  again: mov dx, 0x3f8
  out dx, al
  mov dx, 0x60
  in al, dx
  dec ecx
  jnz again
  mov ebx, 0x%x
  spin: dec ebx
  jnz spin
  hlt ]]

helper.kvm("statistics of runs", function()
  before_each(function()
    made = stats.new()
    meters.add(made)
  end)
  after_each(function() meters.remove(made) end)

  local function guest(turns)
    local made_guest = helper.guest { source = LOOP:format(turns), mode = "protected" }
    made_guest.vm:pio(0x3f8, 1, { write = function() end, name = "printer" })
    made_guest.vm:pio(0x60, 1, { read = function() return 7 end })
    return made_guest
  end

  it("count exits by kind and device", function()
    local one = guest(1)
    one:stops "hlt"
    local result = made:result()
    assert.same({ pio = 600, hlt = 1 }, counts(result.kinds))
    assert.same({ printer = 300, ["port 0x60"] = 300 }, counts(result.devices))
    assert.equal(601, result.exits)
    assert.equal(1, result.runs)
    assert.equal(1, result.vms)
    assert.is_true(result.seconds > 0)
    assert.same(result.kinds, made:result().kinds) -- asking again counts nothing twice
  end)

  it("count those of VMs that are closed, and of traps that are given back", function()
    local one = guest(1)
    one:stops "hlt"
    for _, trap in pairs(one.vm.traps) do trap:close() end
    one.vm:close()
    luna.vm():close()
    local result = made:result()
    assert.same({ printer = 300, ["port 0x60"] = 300 }, counts(result.devices))
    assert.equal(2, result.vms)
  end)

  it("begin again after one of them has failed", function()
    local fails, entered, left = true, 0, 0
    local kind = { begin = function()
      return {
        enter = function()
          if fails then error("no more", 0) end
          entered = entered + 1
        end,
        leave = function() left = left + 1 end,
      }
    end }
    meters.add(kind)
    local one = guest(1)
    meters.remove(kind)
    local ok, message = pcall(one.run, one, { timeout = 1 })
    assert.is_false(ok)
    helper.contains("no more", message)
    fails = false
    one:stops "hlt"
    assert.same({ 1, 1 }, { entered, left })
  end)

  it("say where the guest was, by its symbols", function()
    local code, labels = luna.asm(LOOP:format(0x8000000), { bits = 32, org = 0x1000 })
    local one = guest(1)
    one.ram:write(one.cpu.rip, code)
    one.vm.symbols = labels
    one:run { timeout = 1 }
    local result = made:result()
    assert.equal("spin", result.profile[1].name)
    assert.is_true(result.profile[1].count > 5)
    local time = result.time
    assert.is_true(time.guest > 0.5)
    assert.is_true(math.abs(time.guest + time.kvm + time.lua - 1) < 0.001)
    helper.contains("spin", stats.text(result))
    helper.contains("Exits by kind:\n         600   99.8 %  pio", stats.text(result))
  end)

  it("let Ctrl-C through, and no other error of a look", function()
    local one = guest(0x80000000)
    local problem = "in a loop: interrupted!"
    one.vm.symbols = { at = function() error(problem, 0) end }
    local ok, message = pcall(one.run, one, { timeout = 60 })
    assert.is_false(ok)
    helper.contains(problem, message)
    problem = "no symbols"
    assert.equal("timeout", one:run({ timeout = 0.1 }).kind)
  end)

  it("leave a run's limits and its end as they are", function()
    local one = guest(1)
    assert.equal("limit", one:run { max_exits = 5 }.kind)
    assert.equal("timeout", guest(0x80000000):run({ timeout = 0.05 }).kind)
    local parked = helper.guest { source = "hlt" }
    parked.cpu:on("hlt", function() return "park" end)
    assert.equal("parked", parked.vm:run({ timeout = 60 }).kind)
    assert.is_true(made:result().kinds[1].count >= 5)
  end)

  it("sample vCPUs that run on threads of their own", function()
    local one = helper.guest { source = "spin: jmp spin" }
    helper.keep(one.vm:vcpu { rip = one.cpu.rip })
    local exit = one.vm:run { timeout = 0.6 }
    assert.equal("timeout", exit.kind)
    local result = made:result()
    assert.equal(luna.hex(one.cpu.rip), result.profile[1].name)
    assert.is_true(result.profile[1].count > 3)
    assert.is_nil(result.time)
  end)

  it("have the time of a single vCPU under vm:run", function()
    local one = guest(0x80000000)
    assert.equal("timeout", one.vm:run({ timeout = 0.3 }).kind)
    local time = made:result().time
    assert.is_true(time.guest > 0.5)
    assert.is_true(math.abs(time.guest + time.kvm + time.lua - 1) < 0.001)
  end)

  for how, more in pairs { ["of vCPUs on threads"] = true, ["of a single vCPU"] = false } do
    it("sample the places that are come to, " .. how, function()
      local one = guest(1)
      if more then helper.spinner(one) end
      local begin = luna.clock()
      repeat -- many of the moments of which one in ten is measured
        one.cpu.rip = 0x1000
        assert.equal("hlt", one.vm:run({ timeout = 20 }).kind)
      until luna.clock() > begin + 0.5
      local result = made:result()
      local places = counts(result.places)
      assert.is_true(places["printer, port 0x3f8"] > 0)
      assert.is_true(places["port 0x60"] > 0)
      assert.is_true(places["port 0x60"] <= counts(result.devices)["port 0x60"])
    end)
  end
end)
