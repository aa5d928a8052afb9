-- SPDX-License-Identifier: MIT
-- Modules that make has compiled: taken while their source is the same, and as if they were parsed.

local compiled = require "lunavisor.program.compiled"
local helper = require "spec.support.helper"
local program = require "spec.support.program"
local write_file = require("spec.support.files").write

local searchers = rawget(package, "searchers") or rawget(package, "loaders")
local SOURCE = "local M = {}\nfunction M.fail()\n  error 'here'\nend\nreturn M\n"

-- A module and what was compiled of it: the paths of its source and of the file.
local function made()
  local source = helper.file(SOURCE)
  return source, helper.file(compiled.make { { name = "some.module", file = source,
    path = source } })
end

-- What the file gives for a module: a chunk and its path, or nil.
local function found(path, name)
  if not compiled.use(path) then return nil end
  local searcher = table.remove(searchers, 2)
  return searcher(name or "some.module")
end

describe("modules that make has compiled", function()
  it("are as their source: with its name and lines", function()
    local source, path = made()
    local chunk, where = found(path)
    assert.equal(source, where)
    local module = chunk()
    assert.equal("@" .. source, debug.getinfo(module.fail, "S").source)
    local _, message = pcall(module.fail)
    helper.contains(":3: here", message)
  end)

  it("are not taken where the source is another, or gone", function()
    local source, path = made()
    write_file(source, (SOURCE:gsub("here", "gone")))
    assert.is_nil(found(path))
    write_file(source, SOURCE .. "-- more\n")
    assert.is_nil(found(path))
    write_file(source, SOURCE:sub(1, -2))
    assert.is_nil(found(path))
    write_file(source, SOURCE)
    assert.is_function(found(path))
    os.remove(source)
    assert.is_nil(found(path))
  end)

  it("are taken without a look at the source where they are sealed", function()
    local source = helper.file(SOURCE)
    local path = helper.file(compiled.make {
      { name = "some.module", file = source, path = source, sealed = true },
      { name = "some.other", file = source, path = source } })
    write_file(source, "return 1")
    local chunk, where = found(path)
    assert.equal(source, where)
    local _, message = pcall(chunk().fail)
    helper.contains(":3: here", message)
    assert.is_nil(found(path, "some.other"))
    write_file(source, SOURCE)
    assert.is_function(found(path, "some.other"))
  end)

  it("are not taken from a file that is not there, empty, cut, or of another engine", function()
    local _, path = made()
    local file = assert(io.open(path, "rb"))
    local bytes = file:read "*a"
    file:close()
    assert.is_nil(found(path, "some.other"))
    assert.is_false(compiled.use(path .. ".none"))
    for _, size in ipairs { 0, 3, 12, 40 } do
      write_file(path, bytes:sub(1, size))
      assert.is_false(compiled.use(path))
    end
    write_file(path, bytes:sub(1, -40))
    assert.is_nil(found(path))
    local code = assert(bytes:find("\27L", 1, true))
    write_file(path, bytes:sub(1, code) .. "M" .. bytes:sub(code + 2))
    assert.is_nil(found(path))
  end)

  it("are what the program luna begins with", function()
    local directory = program.directory()
    finally(function() helper.sh("rm -r " .. directory) end)
    write_file(directory .. "/where.lua", [[
      local searchers = rawget(package, "searchers") or rawget(package, "loaders")
      for _, name in ipairs { "lunavisor", "lunavisor.device", "lunavisor.binding.library" } do
        print(searchers[2](name) and "compiled")
      end]])
    assert.equal("compiled\ncompiled\ncompiled", (program.luna(directory, "where.lua")))
  end)

  it("are loaded as they are used: most programs have no use for some", function()
    local directory = program.directory()
    finally(function() helper.sh("rm -r " .. directory) end)
    write_file(directory .. "/use.lua", [[
      local luna = require "lunavisor"
      local vm = assert(luna.machine("pc", { memory = "16M" }))
      for _, name in ipairs { "lunavisor.process", "lunavisor.exit.explain", "lunavisor.device.tap",
        "lunavisor.device.models.vga_picture", "lunavisor.device.explore" } do
        if package.loaded[name] then print(name, "is loaded") end
      end
      for _, use in ipairs { luna.process, require("lunavisor.device").explore } do
        print((select(2, pcall(use))))
      end
      print(#vm.devices.vga:text())]])
    helper.contains("use.lua", (program.luna(directory, "use.lua")))
    local output = program.luna(directory, "use.lua")
    assert.is_nil(output:find("is loaded", 1, true), output)
    helper.contains("device.explore: options", output)
    helper.contains("\n25", output)
  end)

  it("are no more at a boot than it needs: one loader, its devices, what a run has of a vCPU",
    function()
      local directory = program.directory()
      finally(function() helper.sh("rm -r " .. directory) end)
      write_file(directory .. "/list.lua", [[
        local exit = os.exit
        os.exit = function(...)
          for name in pairs(package.loaded) do io.stderr:write("\n<", name, ">") end
          exit(...)
        end]])
      local output, status = program.luna(directory, "boot kernel.elf --machine microvm",
        "LUA_INIT=@list.lua")
      assert.equal(0, status, output)
      local _, count = output:gsub("\n<lunavisor[%w_.]*>", "%0")
      helper.contains("<lunavisor.load.multiboot>", output)
      for _, name in ipairs { "process", "measure", "repl", "gdb", "load.linux", "load.elf",
        "load.multiboot2", "vcpu.debug", "vcpu.state", "vm.interrupt", "text.asm", "text.disasm",
        "program.reload", "device.describe" } do
        assert.is_nil(output:find("<lunavisor." .. name .. ">", 1, true), name)
      end
      local most = rawget(_G, "jit") and 104 or 91 -- LuaJIT's binding is Lua
      assert.is_true(count > 50 and count <= most, ("%d modules: %s"):format(count, output))
    end)

  it("leave the collector at work in a script", function()
    local directory = program.directory()
    finally(function() helper.sh("rm -r " .. directory) end)
    write_file(directory .. "/waste.lua", [[
      local most = 0
      for i = 1, 100000 do
        local waste = ("x"):rep(100) .. i
        if #waste > 0 then most = math.max(most, collectgarbage "count") end
      end
      print(most < 8000)]])
    assert.equal("true", (program.luna(directory, "waste.lua")))
  end)
end)
