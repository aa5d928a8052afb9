-- SPDX-License-Identifier: MIT
-- Source lines of what was loaded: out of the DWARF of compilers and assemblers, from addresses and
-- back, and everywhere an address is printed or taken.

local compiled = require "spec.support.compiled"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local image = require "spec.support.image"
local luna = require "lunavisor"
local meters = require "lunavisor.vm.meter"
local sessions = require "lunavisor.repl.session"
local stats = require "lunavisor.measure.stats"
local contains, refused, u64 = helper.contains, helper.refused, luna.u64

-- A VM with 8 MiB, and what was loaded there.
local function load(source, options)
  local vm = image.machine "8M"
  return vm, assert(luna.load(vm, source, options))
end

-- What the lines of the C sources have to be.
local function check_c(vm, symbols)
  assert.equal("kernel.c:7", tostring(vm:source_line(symbols._start)))
  local both = vm:source_line(symbols.both)
  assert.same({ "kernel.c", 3 }, { both.file, both.line })
  assert.equal(u64.exact(symbols.both), both.address)
  assert.matches("^/.*/kernel%.c$", both.path)
  assert.equal("sub/other.c:2", tostring(symbols:line(symbols.triple)))
  assert.equal("twice.h:1", tostring(symbols:line(symbols.twice)))
  local name = symbols:at(symbols:find "kernel.c:5")
  assert.equal("both", name)
  assert.equal(5, symbols:line(symbols["kernel.c:5"]).line)
  assert.equal(symbols.triple, symbols:find "other.c:1")
  assert.equal(symbols.triple, symbols:find "sub/other.c:2")
  assert.equal("twice", (symbols:at(symbols["twice.h:2"])))
end

helper.kvm("source lines", function()
  for _, cc in ipairs { "gcc", "clang" } do
    for _, version in ipairs { 4, 5 } do
      for _, bits in ipairs { 32, 64 } do
        it(("of %s, DWARF %d, %d bits"):format(cc, version, bits), function()
          local vm, loaded = load(compiled.c(compiled.directory(),
            { cc = cc, bits = bits, flags = "-gdwarf-" .. version }))
          check_c(vm, loaded.symbols)
        end)
      end
    end
  end

  it("of an executable that is loaded elsewhere", function()
    local path = compiled.pie(compiled.directory())
    for _, address in ipairs { 0x200000, 0x612000 } do
      local vm, loaded = load(path, { address = address })
      assert.equal(address, loaded.segments[1].gpa)
      check_c(vm, loaded.symbols)
    end
  end)

  it("that are compressed", function()
    local vm, loaded = load(compiled.c(compiled.directory(), { flags = "-g -gz" }))
    check_c(vm, loaded.symbols)
  end)

  it("of a file that is there as bytes", function()
    local path = compiled.c(compiled.directory(), {})
    local vm, loaded = load { bytes = files.read(path) }
    check_c(vm, loaded.symbols)
  end)

  for _, bits in ipairs { 32, 64 } do
    it(("of nasm, %d bits, for multiboot"):format(bits), function()
      local vm, loaded = load(compiled.asm(compiled.directory(), bits))
      assert.equal("multiboot", loaded.format)
      local symbols = loaded.symbols
      assert.equal("start.asm:7", tostring(vm:source_line(symbols._start)))
      assert.equal("start.asm:7", tostring(vm:source_line(symbols._start + 4)))
      assert.equal(symbols._start + 5, symbols["start.asm:8"])
      assert.equal(symbols.again, symbols["start.asm:10"])
    end)
  end

  it("of a process", function()
    local dir = compiled.directory()
    local process = helper.keep(luna.process(compiled.c(dir, {})))
    assert.equal("kernel.c:7", tostring(process.vm:source_line(process.symbols._start)))
    assert.equal("killed", process:run({ timeout = 60 }).kind)
  end)

  it("are the next that have code, where one has none", function()
    local _, loaded = load(compiled.c(compiled.directory(), {}))
    local symbols = loaded.symbols
    assert.equal(7, symbols:line(symbols["kernel.c:7"]).line)
    assert.equal(symbols:find "kernel.c:3", symbols:find "kernel.c:1")
  end)

  it("that are not there are refused with the reason", function()
    local vm, loaded = load(compiled.c(compiled.directory(), {}))
    local symbols = loaded.symbols
    refused("not_found", "the address is not in the image", vm:source_line(0x500000))
    refused("not_found", "there is no code from there on", symbols:find "kernel.c:100")
    refused("not_found", "the image has no such file", symbols:find "colonel.c:1")
    refused("not_found", "the image has no such file", symbols:find "ernel.c:1")
    refused("not_found", "no file has so many lines", symbols:find "kernel.c:4294967296")
    assert.is_nil((symbols:find "kernel.c"))
    helper.raises("there is no symbol 'colonel.c:1': cannot find line 1 of colonel.c", function()
      return symbols["colonel.c:1"]
    end)
    helper.raises("symbols:line: address: an integer expected, got x", function()
      symbols:line "x"
    end)
    vm.symbols = select(2, luna.asm("main: hlt", { org = 0x1000 }))
    refused("not_found", "no source lines are known", vm:source_line(0x1000))
    refused("not_found", "no source lines are known", vm.symbols:find "main.c:1")
  end)

  it("are those of the file that was loaded", function()
    local dir = compiled.directory()
    local path = compiled.c(dir, {})
    local vm, loaded = load(path)
    os.rename(path, path .. ".old")
    files.write(path, "another")
    check_c(vm, loaded.symbols)
    os.rename(path .. ".old", path)
    vm, loaded = load(path)
    local bytes = files.read(path)
    files.write(path, bytes .. "more")
    refused("state", "the file was changed since it was opened",
      vm:source_line(loaded.symbols._start))
    local cpu = helper.keep(vm:vcpu(loaded.entry))
    contains("(cannot read source lines: the file was changed since it was opened)",
      tostring(cpu:run({ timeout = 60 }):explain()))
  end)

  it("are read when they are asked for, and no descriptor is kept then", function()
    local path = compiled.c(compiled.directory(), {})
    local output = helper.child(([[
      local luna = require "lunavisor"
      local function count()
        local text = assert(io.open("/proc/self/maps")):read "*a"
        print(select(2, text:gsub("libdw", "")) > 0)
      end
      local vm, ram = luna.vm(), luna.buffer "4M"
      vm.default:map(ram, 0)
      local loaded = assert(luna.load(vm, %q))
      local cpu = vm:vcpu(loaded.entry)
      print(vm:symbol(cpu.rip))
      count()
      print(vm:source_line(cpu.rip))
      count()
    ]]):format(path))
    assert.equal("_start\nfalse\nkernel.c:7\ntrue", output)
    local vm = image.machine "8M"
    local before = helper.descriptors()
    local loaded = assert(luna.load(vm, path))
    assert.equal(before + 1, helper.descriptors())
    vm:source_line(loaded.symbols._start)
    assert.equal(before, helper.descriptors())
  end)

  it("are done without where libdw is not installed", function()
    local path = compiled.c(compiled.directory(), {})
    local dir = helper.sh "mktemp -d"
    helper.keep { close = function() os.execute("rm -rf " .. dir) end }
    files.write(dir .. "/libdw.so.1", "")
    local output = helper.child(([[
      local luna = require "lunavisor"
      local vm, ram = luna.vm(), luna.buffer "4M"
      vm.default:map(ram, 0)
      local loaded = assert(luna.load(vm, %q))
      local cpu = vm:vcpu(loaded.entry)
      print(vm:source_line(cpu.rip))
      print(cpu:run({ timeout = 60 }):explain())
    ]]):format(path), { env = { LD_LIBRARY_PATH = dir .. ":" .. (os.getenv "LD_LIBRARY_PATH"
      or "") } })
    assert.matches("^nil\tcannot read source lines: libdw.so.1 cannot be loaded %(.-%): install "
      .. "libdw %(Debian: libdw1%)\tunsupported\n", output)
    contains("\nIn: _start+0x", output)
    contains("\n(cannot read source lines: libdw.so.1 cannot", output)
  end)
end)

helper.kvm("source lines are told", function()
  -- The guest of C sources at its UD2, without exceptions of its own.
  local function stopped()
    local vm, loaded = load(compiled.c(compiled.directory(), {}))
    local cpu = helper.keep(vm:vcpu(loaded.entry))
    return vm, cpu, cpu:run { timeout = 60 }
  end

  it("by exits and post-mortems", function()
    local _, _, exit = stopped()
    assert.matches(" at rip 0x%x+ <_start%+0x%x+, kernel.c:11>", tostring(exit))
    local why = exit:explain()
    assert.same({ "kernel.c", 11 }, { why.line.file, why.line.line })
    assert.matches("\nIn: _start%+0x%x+, kernel.c:11\n", tostring(why))
    if luna.disasm "\x90" then
      assert.matches("Code:\n  _start%+0x%x+, kernel.c:11:\n  => ", tostring(why))
      assert.equal(11, why.code[1].line.line)
    end
  end)

  it("by instructions, lists of them, and backtraces", function()
    if not luna.disasm "\x90" then pending "this build has no Zydis" end
    local vm, cpu = stopped()
    cpu.rip = vm.symbols.both
    contains("both, kernel.c:3: 55", tostring(cpu:instruction()))
    local text = tostring(cpu:disasm(10))
    assert.matches("^both, kernel.c:3:\n=> 0x%x+: 55 +push rbp\n   0x", text)
    assert.matches("\nkernel.c:4:\n   0x", text)
    cpu.rip = vm.symbols._start
    cpu.rsp, cpu.rbp = 0x300000, 0
    local exit = cpu:run { timeout = 10, until_rip = vm.symbols["other.c:3"] }
    assert.is_true(exit.reached)
    local trace = cpu:backtrace()
    assert.equal("sub/other.c:3", tostring(trace[1].line))
    assert.equal("kernel.c:5", tostring(trace[2].line))
    assert.equal("kernel.c:9", tostring(trace[3].line))
    assert.matches("\n#1  rip 0x%x+  rbp 0x%x+  both%+0x%x+  kernel.c:5  ", tostring(trace))
  end)

  it("by exceptions", function()
    local vm, cpu = stopped()
    local list = cpu:last_exceptions(1) or { { line = vm:source_line(cpu.rip), rip = cpu.rip } }
    if vm.accel == "soft" then
      contains(", kernel.c:11>", tostring(list[1]))
    end
    assert.equal(11, list[1].line.line)
  end)

  it("by the prompt, which takes them too", function()
    local vm, cpu = stopped()
    cpu.rip, cpu.rsp = vm.symbols._start, 0x300000
    local session = helper.keep(sessions.new({ vm = vm }, function() end))
    assert.matches("^1: break at 0x%x+ <both%+0x%x+, kernel.c:5>$", session:line "b kernel.c:5")
    assert.matches(" at rip 0x%x+ <both%+0x%x+, kernel.c:5>", session:line "c")
    assert.matches(" <triple%+0x%x+, sub/other.c:3>", session:line "c sub/other.c:3")
    assert.equal(session:line "x rip 4", session:line "x other.c:3 4")
    assert.equal(session:line "x rip+1 4", session:line "x other.c:3+1 4")
    assert.matches("^2: break at 0x%x+ <twice, twice.h:1> if cpu.rax == 1$",
      session:line "b twice.h:1 if cpu.rax == 1")
    local text, problem = session:line "b colonel.c:5"
    assert.is_nil(text)
    assert.equal("cannot find line 5 of colonel.c: the image has no such file", problem)
  end)

  it("by profiles, of where most samples are", function()
    local made = stats.new()
    meters.add(made)
    local vm, loaded = load(compiled.asm(compiled.directory(), 32))
    meters.remove(made)
    vm.default:write(loaded.symbols.again, "\xeb\xfe") -- jmp $
    local cpu = helper.keep(vm:vcpu(loaded.entry))
    assert.equal("timeout", cpu:run({ timeout = 0.2 }).kind)
    local result = made:result()
    assert.same({ "again", "start.asm:10" }, { result.profile[1].name, result.profile[1].line })
    contains("again, start.asm:10", stats.text(result))
  end)
end)

-- ---- Damage ----

local seed = tonumber(os.getenv "LUNA_SEED" or "") or 1 + os.time() % 1000000
local ROUNDS = helper.stressed and 20 or 400

-- A generator of our own: the same numbers on both engines.
local state = seed
local function random(n)
  state = state * 48271 % 2147483647
  return math.floor(state / 2147483647 * n)
end

-- The bytes with some of those changed that tell of lines, or of where they are.
local function damage(bytes)
  local first = assert(bytes:find "\0kernel.c\0") - 1
  local last = #bytes
  first = math.min(first, 0x1000)
  for _ = 1, 1 + random(6) do
    local at = first + random(last - first)
    local word = random(2) == 0 and "\xff\xff\xff\xff" or image.le32(random(2 ^ 31))
    bytes = image.patch(bytes, at, random(3) == 0 and word or string.char(random(256)))
      :sub(1, last)
  end
  return bytes
end

helper.kvm("damaged source lines", function()
  for _, flags in ipairs { "-gdwarf-4", "-gdwarf-5", "-g -gz" } do
    it("are refused or told, with " .. flags, function()
      local vm = image.machine "8M"
      local bytes, told = files.read(compiled.c(compiled.directory(), { flags = flags })), 0
      for round = 1, ROUNDS do
        local ok, message = pcall(function()
          local loaded = luna.load(vm, { bytes = damage(bytes) }, { format = "elf" })
          if not loaded then return end
          for _ = 1, 4 do
            local line, why, code = loaded.symbols:line(0x100000 + random(0x100))
            assert(line or why and code, "no reason")
            told = told + (line and 1 or 0)
          end
          loaded.symbols:find("kernel.c:" .. random(12))
          loaded.symbols:find "none.h:1"
        end)
        assert.is_true(ok, ("LUNA_SEED=%d, round %d: %s"):format(seed, round, tostring(message)))
      end
      assert.is_true(told > 0)
    end)
  end

  it("tell no more characters than a path may have, and none that steer a terminal", function()
    local bytes = files.read(compiled.c(compiled.directory(), { flags = "-gdwarf-5" }))
    bytes = bytes:gsub("kernel%.c%z", "k\27[31m.c\0")
    local vm, loaded = load { bytes = bytes }
    assert.equal("k?[31m.c:7", tostring(vm:source_line(loaded.symbols._start)))
  end)
end)
