-- SPDX-License-Identifier: MIT
-- Faults: which handler gets them, what its answers do, and memory that is mapped on demand.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, hex = helper.raises, luna.hex
local u64 = luna.u64

local BASE = 0x40000000

local function reader(source, options)
  options = options or {}
  options.mode, options.source = options.mode or "protected", source
  return helper.guest(options)
end

helper.kvm("space:on_fault", function()
  local source = [[
    mov al, [0x40000000]
    mov al, [0x40000fff]
    mov al, [0x40001000]
    mov al, [0x40002000]
    hlt]]

  local function logger(log, name, answer)
    return function(_, fault)
      log[#log + 1] = ("%s %x"):format(name, fault.gpa - BASE)
      return answer
    end
  end

  it("gets the faults of its range, and cpu:on the others", function()
    local guest, log = reader(source), {}
    guest.vm.default:on_fault(BASE, 0x1000, logger(log, "space", "skip"))
    guest.cpu:on("fault", logger(log, "cpu", "skip"))
    guest:stops "hlt"
    assert.same({ "space 0", "space fff", "cpu 1000", "cpu 2000" }, log)
  end)

  it("leaves what nobody takes to the caller of run", function()
    local guest, log = reader(source), {}
    guest.vm.default:on_fault(BASE, 0x1000, logger(log, "space", "skip"))
    assert.equal(BASE + 0x1000, guest:stops("fault").gpa)
    guest.cpu:answer(0)
    assert.equal(BASE + 0x2000, guest:stops("fault").gpa)
    assert.equal(2, #log)
  end)

  it("asks the one that was registered last, also inside of another", function()
    local guest, log = reader(source), {}
    guest.vm.default:on_fault(BASE, "16K", logger(log, "outer", "skip"))
    local inner = guest.vm.default:on_fault(BASE + 0x1000, 0x1000, logger(log, "inner", "skip"))
    guest:stops "hlt"
    assert.same({ "outer 0", "outer fff", "inner 1000", "outer 2000" }, log)
    guest.vm.default:on_fault(BASE + 0xfff, 1, logger(log, "byte", "skip"))
    inner:close()
    inner:close()
    guest.cpu.rip = 0x1000
    guest:stops "hlt"
    assert.same({ "outer 0", "byte fff", "outer 1000", "outer 2000" },
      { log[5], log[6], log[7], log[8] })
  end)

  it("may close itself and register others", function()
    local guest, log = reader(source), {}
    local handle
    handle = guest.vm.default:on_fault(BASE, 0x10000, function(_, fault)
      log[#log + 1] = ("first %x"):format(fault.gpa - BASE)
      handle:close()
      guest.vm.default:on_fault(BASE, 0x10000, logger(log, "second", "skip"))
      return "skip"
    end)
    guest:stops "hlt"
    assert.same({ "first 0", "second fff", "second 1000", "second 2000" }, log)
  end)

  it("is of its space alone", function()
    local guest, log = reader(source), {}
    local view = assert(guest.vm:space())
    assert(view:map(guest.ram, 0))
    guest.vm.default:on_fault(BASE, 0x10000, logger(log, "default", "skip"))
    guest.cpu:on("fault", logger(log, "cpu", "skip"))
    guest.cpu:set_space(view)
    guest:stops "hlt"
    assert.equal("cpu 0", log[1])
    view:on_fault(BASE, 0x10000, logger(log, "view", "skip"))
    guest.cpu.rip = 0x1000
    guest:stops "hlt"
    assert.equal("view 0", log[5])
  end)

  it("comes after memory and devices", function()
    local guest, log = reader(source), {}
    guest.vm.default:on_fault(BASE, 0x10000, logger(log, "space", "skip"))
    guest.vm:mmio(BASE, 0x1000, helper.recorder { 1, 2 })
    assert(guest.vm.default:map(guest.ram, BASE + 0x1000, { size = 0x1000 }))
    guest:stops "hlt"
    assert.same({ "space 2000" }, log)
  end)

  it("shows as text, and checks its arguments", function()
    local space = helper.keep(luna.vm()).default
    assert.equal("fault handler (space 0, gpa 0x1000..0x2fff)",
      tostring(space:on_fault(0x1000, 0x2000, print)))
    raises("space:on_fault: a function expected, got nil",
      function() space:on_fault(0, 0x1000) end)
    raises("space:on_fault: gpa: a whole number", function() space:on_fault("0", 1, print) end)
    raises("space:on_fault: size: a whole number", function() space:on_fault(0, -1, print) end)
  end)

  it("of a handler that raises leaves the access open", function()
    local guest = reader "mov al, [0x40000000]\n hlt"
    local handle = guest.vm.default:on_fault(BASE, 0x1000, function() error "trouble" end)
    local ok, message = pcall(guest.run, guest)
    assert.is_false(ok)
    helper.contains("trouble", message)
    handle:close()
    guest.vm.default:on_fault(BASE, 0x1000, function() return 0x42 end)
    guest:stops "hlt"
    assert.equal("0x42", hex(guest.cpu.rax))
  end)
end)

helper.kvm("the answer of a fault handler", function()
  local function answered(source, answer)
    local guest = reader(source)
    guest.vm.default:on_fault(BASE, 0x1000, function() return answer end)
    return guest
  end

  it("may be the value of a read", function()
    local guest = answered("mov ax, [0x40000000]\n hlt", 0x1234)
    guest:stops "hlt"
    assert.equal("0x1234", hex(guest.cpu.rax))
  end)

  it("skip reads all ones and drops a write", function()
    local guest = answered("mov [0x40000000], al\n mov eax, [0x40000000]\n hlt", "skip")
    guest:stops "hlt"
    assert.equal("0xffffffff", hex(guest.cpu.rax))
  end)

  it("continue drops a write", function()
    answered("mov [0x40000000], al\n hlt", "continue"):stops "hlt"
  end)

  it("nil and stop end the run with the fault, again and again", function()
    for _, answer in ipairs { false, "stop" } do
      local guest = answered("mov al, [0x40000004]\n hlt", answer or nil)
      assert.equal(BASE + 4, guest:stops("fault").gpa)
      assert.equal(BASE + 4, guest:stops("fault").gpa)
      guest.cpu:answer(9)
      guest:stops "hlt"
      assert.equal("0x9", hex(guest.cpu.rax))
    end
  end)

  it("may stop the run by cpu:stop, with the access done", function()
    local guest = reader "mov al, [0x40000000]\n hlt"
    guest.vm.default:on_fault(BASE, 0x1000, function(cpu)
      cpu:stop "enough"
      return 7
    end)
    local exit = guest:stops "stopped"
    assert.equal("enough", exit.value)
    guest:stops "hlt"
    assert.equal("0x7", hex(guest.cpu.rax))
  end)

  local wrong = {
    { "mov al, [0x40000000]", "continue", 'with "continue": a read needs a value' },
    { "mov eax, 0x40000000\n jmp eax", "continue", 'with "continue": map memory there and say' },
    { "mov eax, 0x40000000\n jmp eax", "skip", "cannot answer the fetch at gpa 0x40000000" },
    { "mov al, [0x40000000]", "retry", "no region of space 0 allows it; map memory there first" },
    { "mov [0x40000000], al", "retry", "no region of space 0 allows it; map memory there first" },
    { "mov eax, 0x40000000\n jmp eax", "retry", "no region of space 0 allows it" },
    { "mov al, [0x40000000]", "what", 'with what: nil, "stop", "continue", "skip", "retry"' },
    { "mov al, [0x40000000]", 256, "answered a read of 1 byte at offset 0x0 with 0x100" },
    { "mov al, [0x40000000]", -1, "answered a read of 1 byte at offset 0x0 with" },
    { "mov [0x40000000], al", 5, 'with 5: nil, "stop", "continue", "skip", "retry", "refuse"' },
  }
  for _, case in ipairs(wrong) do
    it(("%s to %q raises"):format(tostring(case[2]), case[1]:match "[^\n]*$"), function()
      local guest = answered(case[1] .. "\n hlt", case[2])
      local ok, message = pcall(guest.run, guest)
      assert.is_false(ok)
      helper.contains(case[3], message)
    end)
  end

  it("retry is for faults", function()
    local guest = reader "hlt"
    guest.cpu:on("hlt", function() return "retry" end)
    local ok, message = pcall(guest.run, guest)
    assert.is_false(ok)
    helper.contains('with "retry": that is for a fault exit', message)
    raises("has no open exit to answer", function() guest.cpu:retry() end)
  end)

  it("may be an exception: reads at the instruction, writes behind it", function()
    for _, case in ipairs { { "mov al, [0x40000000]", 0x1000 }, { "mov [0x40000000], al", 0x1005 } }
    do
      local guest = answered(case[1] .. "\n nop\n hlt",
        { inject = "#GP", error_code = 0x18 })
      guest.cpu.rax = 0x77
      local exit = guest:stops "exception"
      assert.same({ "#GP", 0x18, hex(case[2]), "0x77" },
        { exit.name, exit.error_code, hex(exit.rip), hex(guest.cpu.rax) })
    end
  end)

  for _, mode in ipairs { "long", "user" } do
    it("may be a page fault in mode " .. mode, function()
      local guest = reader("mov ebx, 0x40000010\n mov rax, [rbx]\n out 0x10, al", { mode = mode })
      guest.vm.default:on_fault(BASE, 0x1000, function(_, fault)
        return { inject = "#PF", error_code = 4, address = fault.gpa }
      end)
      local exit = guest:stops "exception"
      assert.same({ 14, 4, "0x40000010", "0x1005" },
        { exit.vector, exit.error_code, hex(exit.address), hex(exit.rip) })
      guest.cpu.rbx = 0x2000
      guest:stops "pio"
      assert.equal("0x0", hex(guest.cpu.rax))
    end)

    it("may be an exception for a fetch in mode " .. mode, function()
      local guest = reader("mov ebx, 0x40000010\n jmp rbx", { mode = mode })
      guest.vm.default:on_fault(BASE, 0x1000, function(_, fault)
        return { inject = "#PF", error_code = 0x14, address = fault.gpa }
      end)
      local exit = guest:stops "exception"
      assert.same({ 14, 0x14, "0x40000010", "0x40000010" },
        { exit.vector, exit.error_code, hex(exit.address), hex(exit.rip) })
    end)
  end

  it("refuses exceptions that are none", function()
    local guest = reader "hlt"
    raises("cpu:inject: exception: a whole number from 0 to 0x1f expected, got 32",
      function() guest.cpu:inject(32) end)
    raises('cpu:inject: a name such as "#GP" or a vector up to 31 expected, got "#XX"',
      function() guest.cpu:inject "#XX" end)
    raises("exceptions are 0 to 31 without 2", function() guest.cpu:inject(2) end)
    raises("cpu:inject: error code", function() guest.cpu:inject("#GP", -1) end)
    raises("cpu:inject: address: an integer expected",
      function() guest.cpu:inject("#PF", 0, 0.5) end)
    guest:stops "hlt"
  end)
end)

helper.kvm("memory on demand", function()
  -- Maps a page of `extra` where a fault is.
  local function paged(source, options)
    local guest = reader(source, options)
    local extra = helper.keep(luna.buffer "64K")
    local log = {}
    guest.vm.default:on_fault(BASE, "64K", function(_, fault)
      local page = fault.gpa - BASE - fault.gpa % 0x1000
      log[#log + 1] = ("%s %x"):format(fault.access, fault.gpa - BASE)
      assert(guest.vm.default:map(extra, page, BASE + page, 0x1000, "rwx"))
      return "retry"
    end)
    return guest, extra, log
  end

  for _, mode in ipairs { "protected", "long", "user" } do
    it("comes with reads and writes in mode " .. mode, function()
      local guest, extra, log = paged([[
        mov ebx, 0x40000000
        mov eax, [ebx + 0x10]
        mov [ebx + 0x1004], eax
        inc dword [ebx + 0x2008]
        mov eax, [ebx + 0x14]
        out 0x10, al]], { mode = mode })
      extra:u32(0x10, 0x11223344)
      extra:u32(0x14, 0x55667788)
      extra:u32(0x2008, 41)
      guest:stops "pio"
      assert.same({ "r 10", "w 1004", "r 2008" }, log)
      assert.same({ 0x11223344, 42, "0x55667788" },
        { extra:u32(0x1004), extra:u32(0x2008), hex(guest.cpu.rax) })
    end)

    it("comes with fetches in mode " .. mode, function()
      local guest, extra, log = paged([[
        mov ebx, 0x40000800
        jmp ]] .. (mode == "protected" and "ebx" or "rbx"), { mode = mode })
      extra:write(0x800, helper.code("mov ecx, 99\n out 0x10, al",
        mode == "protected" and 32 or 64, BASE + 0x800))
      guest:stops "pio"
      assert.same({ "x 800" }, log)
      assert.equal("0x63", hex(guest.cpu.rcx))
    end)
  end

  it("comes with a stack", function()
    local guest, extra, log = paged("push dword 0x1234\n pop eax\n hlt", { rsp = BASE + 0x2000 })
    guest:stops "hlt"
    assert.same({ "w 1ffc" }, log)
    assert.equal(0x1234, extra:u32(0x1ffc))
    assert.equal("0x1234", hex(guest.cpu.rax))
  end)

  it("comes with both halves of an access across a page", function()
    local guest, extra, log = paged([[
      mov eax, 0x11223344
      mov [0x40000ffe], eax
      mov ebx, [0x40001ffe]
      hlt]])
    extra:u32(0x1ffe, 0xaabbccdd)
    guest:stops "hlt"
    assert.same({ 0x11223344, "0xaabbccdd" }, { extra:u32(0xffe), hex(guest.cpu.rbx) })
    assert.same({ "w ffe", "w 1000", "r 2000" }, log)
  end)

  it("comes for the part of an access that is not mapped", function()
    local guest, extra, log = paged("mov eax, [0x40000ffd]\n mov [0x40001ffd], eax\n hlt")
    extra:u32(0xffd, 0x99887766)
    assert(guest.vm.default:map(extra, 0, BASE, 0x1000, "rwx"))
    assert(guest.vm.default:map(extra, 0x2000, BASE + 0x2000, 0x1000, "rwx"))
    guest:stops "hlt"
    assert.same({ "r 1000" }, log)
    assert.equal(0x99887766, extra:u32(0x1ffd))
    assert.equal("0x99887766", hex(guest.cpu.rax))
  end)

  it("comes with an instruction across a page", function()
    local guest, extra, log = paged "mov ebx, 0x40000ffd\n jmp ebx"
    extra:write(0xffd, helper.code("mov ecx, 0x12345678\n hlt", 32, 0))
    assert(guest.vm.default:map(extra, BASE, { size = 0x1000 }))
    local exit = assert(guest:run())
    assert.equal("hlt", exit.kind, tostring(exit))
    assert.equal("0x12345678", hex(guest.cpu.rcx))
    assert.same({ "x 1000" }, log)
  end)

  it("comes where rights are lacking, by protect", function()
    local guest = reader "mov byte [0x40000000], 5\n mov al, [0x40000000]\n hlt"
    local extra, faults = helper.keep(luna.buffer "4K"), 0
    assert(guest.vm.default:map(extra, BASE, { rights = "r-x" }))
    guest.vm.default:on_fault(BASE, 0x1000, function(_, fault)
      faults = faults + 1
      assert.equal("w", fault.access)
      assert(guest.vm.default:protect(BASE, 0x1000, "rwx"))
      return "retry"
    end)
    guest:stops "hlt"
    assert.same({ 1, 5, "0x5" }, { faults, extra:u8(0), hex(guest.cpu.rax) })
  end)

  it("may be mapped by the caller of run, who says retry", function()
    local guest = reader("mov ebx, 0x40000000\n jmp rbx", { mode = "long" })
    local extra = helper.keep(luna.buffer "4K")
    extra:write(0, "\xf4")
    assert.equal("x", guest:stops("fault").access)
    raises("no region of space 0 allows it", function() guest.cpu:retry() end)
    raises("cannot answer the fetch at gpa 0x40000000", function() guest.cpu:answer(0) end)
    assert(guest.vm.default:map(extra, BASE, { rights = "rw-", strict = true }))
    raises("no region of space 0 allows it", function() guest.cpu:retry() end)
    assert(guest.vm.default:protect(BASE, 0x1000, "r-x"))
    assert.is_true(guest.cpu:retry())
    guest:stops "hlt"
    assert.equal(hex(BASE + 1), hex(guest.cpu.rip))
  end)

  it("need not come where the script sets rip instead", function()
    local guest = reader("mov ebx, 0x40000000\n jmp rbx\n hlt", { mode = "long" })
    assert.equal("x", guest:stops("fault").access)
    guest.cpu.rip = 0x1007
    guest:stops "hlt"
    assert.equal("0x1008", hex(guest.cpu.rip))
  end)

  it("has faults with what the guest wanted", function()
    local guest = reader([[
      mov ebx, 0x40000000
      mov rax, 0x1122334455667788
      mov [rbx], rax
      hlt]], { mode = "long" })
    local exit = guest:stops "fault"
    assert.same({ BASE, 8, "w", "0x1122334455667788" },
      { exit.gpa, exit.size, exit.access, hex(exit.value) })
    helper.contains("fault (write of 8 bytes at gpa 0x40000000, value 0x1122334455667788, which no "
      .. "region allows)", tostring(exit))
    assert.truthy(u64.exact(exit.value))
  end)
end)
