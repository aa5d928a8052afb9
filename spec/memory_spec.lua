-- SPDX-License-Identifier: MIT
-- The kinds of buffers, views of them, and what a guest sees of them.

local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local raises = helper.raises

-- Where other processes find the descriptor of a buffer.
local function path_of(buffer)
  local stat = assert(io.open "/proc/self/stat")
  local pid = stat:read "*n"
  stat:close()
  return ("/proc/%d/fd/%d"):format(pid, buffer:fd())
end

local function file_of(text, options)
  options = options or {}
  options.file = helper.file(text)
  return helper.keep(luna.buffer(options)), options.file
end

helper.block("a memfd buffer", function()
  it("is zeroed memory with a descriptor, which a process can map again", function()
    local one = helper.keep(luna.buffer { size = "8K", memfd = true })
    assert.equal(("\0"):rep(0x2000), one:read(0))
    assert.equal("number", type(one:fd()))
    local two = helper.keep(luna.buffer { fd = one:fd() })
    assert.equal(0x2000, two.size)
    assert.not_equal(one:fd(), two:fd())
    one:write(0xffe, "both")
    assert.equal("both", two:read(0xffe, 4))
    two:u8(0, 7)
    assert.equal(7, one:u8(0))
    one:close()
    assert.equal("both", two:read(0xffe, 4))
  end)

  it("is reached by other processes", function()
    local one = helper.keep(luna.buffer { size = "4K", memfd = true })
    one:write(0, "to the child")
    assert.equal("to the child", (helper.sh("head -c 12 " .. path_of(one))))
    helper.sh("printf answer 1<>" .. path_of(one))
    assert.equal("answer child", one:read(0, 12))
  end)

  it("can be sealed against other sizes", function()
    for _, sealed in ipairs { false, true } do
      local one = helper.keep(luna.buffer { size = "8K", memfd = true, sealed = sealed })
      local path = path_of(one)
      local _, grew = helper.sh("truncate -s 16384 " .. path)
      assert.equal(sealed, grew ~= 0)
      assert.equal(sealed and 0x2000 or 0x4000, tonumber((helper.sh("stat -L -c %s " .. path))))
      if sealed then
        local _, shrank = helper.sh("truncate -s 0 " .. path)
        assert.not_equal(0, shrank)
      end
      one:u8(0x1fff, 1)
    end
  end)

  it("leaves no descriptor behind", function()
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _ = 1, 20 do
      local one = luna.buffer { size = "4K", memfd = true }
      local two = luna.buffer { fd = one:fd() }
      local view = two:view(0, 10)
      one:close()
      view:close()
      two:close()
    end
    assert.equal(before, helper.descriptors())
  end)

  it("has none of its own where it is a view or other memory", function()
    local one = helper.keep(luna.buffer { size = "8K", memfd = true })
    assert.equal(one:fd(), helper.keep(one:view(0x1000)):fd())
    assert.is_nil(helper.keep(luna.buffer "4K"):fd())
  end)
end)

helper.block("a file buffer", function()
  it("writes to the file", function()
    local file, path = file_of(("abcd"):rep(0x800))
    assert.equal(0x2000, file.size)
    assert.equal("abcdabcd", file:read(0xffc, 8))
    file:write(0x10, "WRITTEN")
    assert.equal("WRITTEN", files.read(path):sub(0x11, 0x17))
  end)

  it("that is private does not", function()
    local file, path = file_of(("a"):rep(0x1000), { private = true })
    file:write(0, "mine")
    assert.equal("minea", file:read(0, 5))
    assert.equal(("a"):rep(0x1000), files.read(path))
  end)

  it("that is read-only refuses every write", function()
    local file = file_of(("a"):rep(0x1000), { read_only = true })
    local other = helper.keep(luna.buffer "4K")
    local view = helper.keep(file:view(0, 16))
    for _, target in ipairs { file, view } do
      raises("read-only", function() target:u8(0, 1) end)
      raises("read-only", function() target:u16(0, 1) end)
      raises("read-only", function() target:u32(0, 1) end)
      raises("read-only", function() target:u64(0, 1) end)
      raises("read-only", function() target:write(0, "x") end)
      raises("read-only", function() target:fill(0) end)
      raises("read-only", function() target:copy(0, other, 0, 16) end)
    end
    assert.equal(("a"):rep(0x1000), file:read(0))
    other:copy(0, file)
    assert.equal("aaaa", other:read(0, 4))
    assert.equal(0x61, file:u8(5))
  end)

  it("is rounded up to whole pages, with zeros", function()
    local file, path = file_of(("z"):rep(0x1001))
    assert.equal(0x2000, file.size)
    assert.equal("z" .. ("\0"):rep(0xfff), file:read(0x1000))
    file:u8(0x1800, 1) -- behind the end: stays in memory
    assert.equal(0x1001, #files.read(path))
  end)

  it("begins at an offset and may be a part", function()
    local path = helper.file(("0"):rep(0x1000) .. ("1"):rep(0x1000) .. ("2"):rep(0x1000))
    local rest = helper.keep(luna.buffer { file = path, offset = 0x1000 })
    assert.same({ 0x2000, "12" }, { rest.size, rest:read(0xfff, 2) })
    local part = helper.keep(luna.buffer { file = path, offset = "4K", size = "4K" })
    assert.same({ 0x1000, ("1"):rep(0x1000) }, { part.size, part:read(0) })
    raises("cannot make a buffer of 0x3000 bytes from offset 0x1000 of a file that has 0x3000",
      function() luna.buffer { file = path, offset = 0x1000, size = 0x3000 } end)
    raises("of a file that has 0x3000", function() luna.buffer { file = path, offset = 0x3000 } end)
    raises("it is not a multiple of 0x1000", function() luna.buffer { file = path, offset = 1 } end)
  end)

  it("is refused where the file is not there, empty or not to be opened", function()
    local value, message, code = luna.buffer { file = "/nonexistent/file" }
    assert.is_nil(value)
    helper.contains("cannot open '/nonexistent/file' for a buffer", message)
    assert.equal("string", type(code))
    local path = helper.file ""
    raises("of a file that has 0x0", function() luna.buffer { file = path } end)
    value, message = luna.buffer { fd = 9999 }
    assert.is_nil(value)
    helper.contains("file descriptor 9999", message)
    assert.is_nil((luna.buffer { file = "/" }))
    assert.equal(0, luna.live().buffer)
  end)

  it("leaves no descriptor behind", function()
    local path = helper.file(("x"):rep(0x1000))
    collectgarbage()
    collectgarbage()
    local before = helper.descriptors()
    for _ = 1, 20 do
      assert(luna.buffer { file = path }):close()
      luna.buffer { file = "/" }
      pcall(luna.buffer, { file = path, offset = 1 })
    end
    assert.equal(before, helper.descriptors())
  end)
end)

helper.block("the options of a buffer", function()
  local wrong = {
    { { size = "4K", hugh = "2M" }, "luna.buffer: unknown option 'hugh'" },
    { { size = "4K", huge = "4M" }, "luna.buffer: huge: '2M' or '1G' expected, got 4M" },
    { { file = 5 }, "luna.buffer: file: a path expected, got number" },
    { { size = "4K", read_only = 1 }, "luna.buffer: read_only: true or false expected" },
    { { size = "4K", memfd = 1 }, "luna.buffer: memfd: true or false expected" },
    { { size = "4K", fd = "x" }, "luna.buffer: fd" },
    { { size = "4K", fd = 0.5 }, "luna.buffer: fd" },
    { { size = "4K", pointer = 5 }, "cannot adopt the memory" },
    { { memfd = true }, "expected, got nil" },
    { { size = 100, memfd = true }, "the size must be a multiple of 0x1000" },
  }
  for i, case in ipairs(wrong) do
    it(("are checked (%d: %s)"):format(i, case[2]), function()
      raises(case[2], function()
        luna.buffer(case[1])
      end)
      assert.equal(0, luna.live().buffer)
    end)
  end

  -- In a process of its own: memory that is not there ends it.
  it("huge falls back to ordinary pages", function()
    local output = helper.child [[
      local luna = require "lunavisor"
      for _, case in ipairs { { "2M", "4M" }, { "1G", "1G" }, { "2M", "12K" } } do
        local buffer = assert(luna.buffer { size = case[2], huge = case[1] })
        buffer:u8(0, 1)
        buffer:u8(buffer.size - 1, 2)
        print(case[1], case[2], buffer:page_size(), buffer:u8(0) + buffer:u8(buffer.size - 1))
        buffer:close()
      end
    ]]
    local pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
    local free = tonumber((helper.sh("cat " .. pool)))
    local expected = (free or 0) >= 2 and 2 ^ 21 or 4096
    assert.matches(("^2M\t4M\t%d\t3\n"):format(expected), output)
    assert.matches("\n1G\t1G\t%d+\t3\n2M\t12K\t4096\t3$", output)
  end)
end)

helper.block("a view", function()
  it("is a part of its buffer, at any byte", function()
    local whole = helper.keep(luna.buffer "8K")
    local view = helper.keep(whole:view(0xffd, 6))
    assert.same({ 6, whole.id }, { view.size, view.id })
    view:write(0, "abcdef")
    assert.equal("\0abcdef\0", whole:read(0xffc, 8))
    whole:u8(0xffd, 0x41)
    assert.same({ 0x41, "Abcdef" }, { view:u8(0), view:read() })
    assert.equal(3, view:find "d")
    local inner = helper.keep(view:view(2))
    assert.same({ 4, "cdef" }, { inner.size, inner:read(0) })
  end)

  it("ends where it ends", function()
    local whole = helper.keep(luna.buffer "8K")
    local view = helper.keep(whole:view(0x800, 0x10))
    raises("outside the buffer, which has 0x10 bytes", function() local _ = view:u8(0x10) end)
    raises("outside the buffer, which has 0x10 bytes", function() view:u32(0xd, 1) end)
    raises("outside the buffer, which has 0x10 bytes", function() view:write(0xf, "ab") end)
    raises("outside the buffer", function() view:view(8, 9) end)
    raises("outside the buffer", function() whole:view(0x2000, 1) end)
    raises("cannot make a view of 0x0 bytes", function() whole:view(0, 0) end)
    raises("cannot make a view of 0x0 bytes", function() whole:view(0x2000) end)
    assert.equal(("\0"):rep(0x2000), whole:read(0))
  end)

  it("keeps its buffer alive, and not the other way around", function()
    local whole = helper.keep(luna.buffer "8K")
    local view = helper.keep(whole:view(0x1000, 0x1000))
    local short = whole:view(0, 16)
    short:close()
    raises("attempt to use a closed buffer", function() local _ = short:u8(0) end)
    view:u8(0, 9)
    whole:close()
    assert.equal(9, view:u8(0))
    view:close()
    assert.equal(0, luna.live().buffer)
  end)
end)

helper.block("adopted memory", function()
  it("is the caller's own", function()
    local whole = helper.keep(luna.buffer "8K")
    local mine = helper.keep(luna.buffer { size = "4K", pointer = whole:pointer() })
    mine:write(0, "shared")
    assert.equal("shared", whole:read(0, 6))
    whole:u8(1, 0x48)
    assert.equal("sHared", mine:read(0, 6))
    assert.not_equal(whole.id, mine.id)
    mine:close()
    assert.equal("sHared", whole:read(0, 6))
  end)

  it("must be aligned and have a size", function()
    local whole = helper.keep(luna.buffer "8K")
    local odd = helper.keep(whole:view(1, 0x1000)):pointer()
    raises("is not aligned to 0x1000", function() luna.buffer { size = "4K", pointer = odd } end)
    raises("expected, got nil", function() luna.buffer { pointer = odd } end)
  end)
end)

helper.block("buffer:pointer", function()
  it("on LuaJIT reads and writes the memory, and keeps it after close", function()
    if not helper.jit then
      assert.equal("userdata", type(helper.keep(luna.buffer "4K"):pointer()))
      return
    end
    local ffi = require "ffi"
    local buffer = luna.buffer "4K"
    local pointer = buffer:pointer()
    buffer:write(0, "hello")
    assert.equal("hello", ffi.string(pointer, 5))
    pointer[1] = 0x41
    assert.equal("hAllo", buffer:read(0, 5))
    buffer:close()
    buffer = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(1, luna.live().buffer)
    assert.equal("hAllo", ffi.string(pointer, 5))
    pointer = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(0, luna.live().buffer)
  end)

  it("is refused by a closed buffer, like the others", function()
    local buffer = helper.keep(luna.buffer "4K")
    buffer:close()
    raises("attempt to use a closed buffer", function() local _ = buffer:pointer() end)
    raises("attempt to use a closed buffer", function() buffer:view() end)
    raises("attempt to use a closed buffer", function() local _ = buffer:fd() end)
    raises("attempt to use a closed buffer", function() local _ = buffer:page_size() end)
    raises("attempt to use a closed buffer", function() buffer:mark(0, 1) end)
  end)
end)

-- ---- In a VM ----

helper.kvm("a guest", function()
  for _, mode in ipairs { "protected", "user" } do
    it("reads and writes every kind of buffer in mode " .. mode, function()
      local file, path = file_of(("f"):rep(0x1000))
      local private, private_path = file_of(("p"):rep(0x1000), { private = true })
      local kinds = {
        helper.keep(luna.buffer { size = "4K", memfd = true }), file, private,
        helper.keep(luna.buffer "2M"),
        helper.keep(helper.keep(luna.buffer "8K"):view(0x1000)),
        helper.keep(luna.buffer { size = "4K", pointer = helper.keep(luna.buffer "4K"):pointer() }),
      }
      for _, buffer in ipairs(kinds) do
        local guest = helper.guest { mode = mode, source = [[
          mov al, [0x400010]
          inc al
          mov [0x400011], al
          out 0x10, al]] }
        buffer:u8(0x10, 0x31)
        assert(guest.vm.default:map(buffer, 0x400000))
        guest:stops "pio"
        assert.equal(0x32, buffer:u8(0x11))
      end
      assert.equal("12", files.read(path):sub(0x11, 0x12))
      assert.equal(("p"):rep(0x1000), files.read(private_path))
    end)
  end

  it("cannot be given a write to read-only memory", function()
    local vm = helper.keep(luna.vm())
    local file = file_of(("x"):rep(0x2000), { read_only = true })
    local view = helper.keep(file:view(0))
    raises("with write: the buffer is read-only", function() vm.default:map(file, 0) end)
    raises("with write: the buffer is read-only", function() vm.default:map(view, 0) end)
    raises("with write: the buffer is read-only", function()
      vm.default:map(file, 0, { rights = "rw-", strict = true })
    end)
    assert.same({}, vm.default:regions())
    assert(vm.default:map(file, 0, { rights = "r-x" }))
    raises("its buffer is read-only", function() vm.default:protect(0x1000, 0x1000, "rw-") end)
    assert.equal("r-x", vm.default:find(0x1000).rights)
    helper.refused("system", "read-only", vm.default:write(0, "y"))
    assert.equal("xx", vm.default:read(0, 2))
  end)

  it("has a view mapped as the buffer that it is of", function()
    local vm = helper.keep(luna.vm())
    local whole = helper.keep(luna.buffer "16K")
    local view = helper.keep(whole:view(0x1000, 0x2800))
    assert(vm.default:map(whole, 0, { size = 0x1000 }))
    assert(vm.default:map(view, 0x1000, { size = 0x2000 }))
    assert.equal(1, #vm.default:regions())
    assert.equal(whole, vm.default:find(0).buffer)
    raises("the buffer has 0x2800", function() vm.default:map(view, 0x10000, { size = 0x3000 }) end)
    local odd = helper.keep(whole:view(0x10, 0x2000))
    raises("of a view that begins at 0x10 of its buffer",
      function() vm.default:map(odd, 0x10000, { size = 0x1000 }) end)
  end)
end)
