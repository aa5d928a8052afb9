-- SPDX-License-Identifier: MIT
-- vm:eventfd: writes that count up a descriptor instead of leaving the guest.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

helper.kvm("vm:eventfd", function()
  it("counts the writes to a port, and no exit comes of them", function()
    local guest = helper.guest { source = [[
      mov dx, 0x80
      mov cx, 10
    next:
      out dx, al
      loop next
      hlt]] }
    local event = assert(guest.vm:eventfd { port = 0x80, size = 1 })
    assert.equal(0, event:read())
    guest:stops "hlt"
    assert.equal(1, guest.cpu.exits)
    assert.equal(10, event:read())
    assert.equal(0, event:read())
  end)

  it("is counted up by the script too", function()
    local vm = helper.keep(luna.vm())
    local event = assert(vm:eventfd { port = 0x50, size = 1 })
    assert.is_true(event:write())
    assert.is_true(event:write(41))
    assert.equal(42, event:read())
    assert.equal(0, event:read())
    helper.raises("eventfd:write: count: a whole number", function() event:write(0) end)
    event:close()
    helper.raises("attempt to use a closed eventfd", function() event:write() end)
  end)

  it("counts writes to an address", function()
    local guest = helper.guest { mode = "long", source = [[
      mov dword [0x70000000], 1
      mov qword [0x70000008], 2
      hlt]] }
    local event = assert(guest.vm:eventfd { gpa = 0x70000000, size = 4 })
    local other = assert(guest.vm:eventfd { gpa = 0x70000008, size = 8 })
    guest:stops "hlt"
    assert.same({ 1, 1 }, { event:read(), other:read() })
  end)

  it("lets writes of another size, value or direction leave", function()
    local guest = helper.guest { source = [[
      mov dx, 0x80
      mov al, 7
      out dx, al
      mov al, 8
      out dx, al
      out dx, ax
      in al, dx
      hlt]] }
    local recorder = helper.recorder { 1 }
    guest.vm:pio(0x80, 2, recorder)
    local seven = assert(guest.vm:eventfd { port = 0x80, size = 1, match = 7 })
    guest:stops "hlt"
    assert.equal(1, seven:read())
    assert.same({ "w 0 1 0x8", "w 0 2 0x8", "r 0 1" }, recorder.log)
  end)

  it("tells values apart, of 8 bytes too", function()
    local guest = helper.guest { mode = "long", source = [[
      mov rax, 0x8000000000000001
      mov [0x70000000], rax
      mov rax, 2
      mov [0x70000000], rax
      mov [0x70000000], rax
      hlt]] }
    local large = assert(guest.vm:eventfd {
      gpa = 0x70000000, size = 8, match = luna.u64 "0x8000000000000001",
    })
    local two = assert(guest.vm:eventfd { gpa = 0x70000000, size = 8, match = 2 })
    guest:stops "hlt"
    assert.same({ 1, 2 }, { large:read(), two:read() })
    assert.matches("^eventfd %d+ %(gpa 0x70000000, 8 bytes, value 0x8000000000000001%)$",
      tostring(large))
  end)

  it("takes writes of any size", function()
    if (luna.probe().features.ioeventfd_any_length or 1) == 0 then
      pending "this KVM has no KVM_CAP_IOEVENTFD_ANY_LENGTH"
    end
    local guest = helper.guest { mode = "long", source = [[
      mov byte [0x70000000], 1
      mov word [0x70000000], 1
      mov qword [0x70000000], 1
      hlt]] }
    local event = assert(guest.vm:eventfd { gpa = 0x70000000, any_size = true })
    guest:stops "hlt"
    assert.equal(3, event:read())
    assert.matches("any size", tostring(event))
  end)

  it("holds in every space, also in those made later", function()
    local guest = helper.guest { source = "out 0x80, al\n hlt" }
    local first = guest.vm:space()
    local event = assert(guest.vm:eventfd { port = 0x80, size = 1 })
    for _, space in ipairs { first, guest.vm:space() } do
      assert(space:map(guest.ram, 0, { rights = "rwx" }))
      assert(guest.cpu:set_space(space))
      guest.cpu.rip = 0x1000
      guest:stops "hlt"
    end
    assert.equal(2, event:read())
    event:close()
    guest.cpu.rip = 0x1000
    guest:stops "pio"
  end)

  it("ends with close, as often as that is called", function()
    local guest = helper.guest { source = "out 0x80, al\n hlt" }
    local before = helper.descriptors()
    local event = assert(guest.vm:eventfd { port = 0x80, size = 1 })
    assert.equal(before + 1, helper.descriptors())
    raises("cannot make an eventfd of the writes to port 0x80: there is one",
      function() guest.vm:eventfd { port = 0x80, size = 1 } end)
    event:close()
    event:close()
    assert.equal(before, helper.descriptors())
    assert.is_nil(event.fd)
    raises("attempt to use a closed eventfd", function() event:read() end)
    guest:stops "pio"
    assert(guest.vm:eventfd { port = 0x80, size = 1 })
  end)

  it("ends with the VM", function()
    local before = helper.descriptors()
    local vm = helper.keep(luna.vm())
    local event = assert(vm:eventfd { port = 0x80, size = 1 })
    vm:close()
    assert.equal(before, helper.descriptors())
    assert.is_nil(event.fd)
    raises("attempt to use a closed eventfd", function() event:read() end)
    event:close()
    assert.matches("closed", tostring(event))
  end)

  it("uses a descriptor of the script's, which stays open", function()
    local guest = helper.guest { source = "out 0x80, al\n out 0x81, al\n hlt" }
    local own = assert(guest.vm:eventfd { port = 0x80, size = 1 })
    local same = assert(guest.vm:eventfd { port = 0x81, size = 1, fd = own.fd })
    assert.equal(own.fd, same.fd)
    guest:stops "hlt"
    assert.equal(2, same:read())
    same:close()
    assert.equal(0, own:read())
  end)

  it("refuses what makes no sense", function()
    local vm = helper.keep(luna.vm())
    raises("vm:eventfd: a port or a gpa expected", function() vm:eventfd { size = 1 } end)
    raises("vm:eventfd: a port or a gpa expected",
      function() vm:eventfd { port = 1, gpa = 1, size = 1 } end)
    raises("vm:eventfd: port: a whole number from 0 to 0xffff",
      function() vm:eventfd { port = 0x10000, size = 1 } end)
    raises("vm:eventfd: size: a whole number from 1 to 0x8", function() vm:eventfd { port = 1 } end)
    raises("writes of 3 bytes: 1, 2, 4 are possible",
      function() vm:eventfd { port = 1, size = 3 } end)
    raises("vm:eventfd: match: an integer expected, got x",
      function() vm:eventfd { port = 1, size = 1, match = "x" } end)
    raises("cannot match 0x100: a write has 1 byte",
      function() vm:eventfd { port = 1, size = 1, match = 256 } end)
    raises("any_size goes with neither size nor match",
      function() vm:eventfd { port = 1, size = 1, any_size = true } end)
    raises("unknown option 'address'", function() vm:eventfd { address = 1 } end)
    helper.refused("system", "cannot use descriptor 987 as an eventfd",
      vm:eventfd { port = 1, size = 1, fd = 987 })
    helper.refused("system", "cannot make an eventfd of the writes to port 0x1 in space 0",
      vm:eventfd { port = 1, size = 1, fd = 0 })
  end)
end)
