-- SPDX-License-Identifier: MIT
-- What scripts/lint says of sources that stand in the wrong place or are too long, on small trees.

local helper = require "spec.support.helper"
local write_file = require("spec.support.files").write

local tree

local function write(path, text)
  helper.sh(("mkdir -p %s/%s"):format(tree, path:match "^(.*)/"))
  write_file(tree .. "/" .. path, text)
end

-- What a check says of the files, which are texts by path; and whether it found nothing.
local function check(name, files)
  for path, text in pairs(files) do write(path, text) end
  local output, status = helper.sh(("%s scripts/lint.d/%s.lua %s")
    :format(helper.engine, name, tree))
  return output, status == 0
end

local function include(name)
  return ('#include "%s"\n'):format(name)
end

local function lines(count)
  return ("int x;\n"):rep(count)
end

describe("scripts/lint", function()
  before_each(function() tree = (helper.sh "mktemp -d") end)
  after_each(function() helper.sh("rm -rf " .. tree) end)

  it("lets a wing include what lies below it and the public headers", function()
    local output, clean = check("floors", {
      ["core/include/lunavisor.h"] = include "lunavisor/state.h",
      ["core/include/lunavisor/state.h"] = "",
      ["core/include/Hypervisor/hv.h"] = include "lunavisor.h",
      ["core/base/error.h"] = include "lunavisor.h",
      ["core/kvm/kvm.h"] = include "base/error.h",
      ["core/kvm/kvm.c"] = include "kvm/kvm.h" .. "#include <linux/kvm.h>\n",
      ["core/soft/kernel.c"] = include "kvm/kvm.h" .. include "base/error.h",
      ["core/vcpu/vcpu.h"] = include "kvm/kvm.h",
      ["core/debug/walk.c"] = include "vcpu/vcpu.h",
      ["core/vm.c"] = include "vcpu/vcpu.h",
      ["core/hvf/hvf.h"] = "#include <Hypervisor/hv.h>\n" .. include "lunavisor.h",
      ["core/hvf/run.c"] = include "hvf.h",
      ["spec/core/hvf/test_run.c"] = include "hvf/hvf.h" .. include "kvm/kvm.h",
    })
    assert.equal("", output)
    assert.is_true(clean)
  end)

  it("names both files of an include that goes up or to the side", function()
    local output, clean = check("floors", {
      ["core/include/lunavisor.h"] = "",
      ["core/kvm/kick.h"] = "",
      ["core/kvm/kvm.h"] = include "vcpu/vcpu.h",
      ["core/soft/mmu.c"] = include "kvm/kick.h",
      ["core/vcpu/vcpu.h"] = "",
      ["core/exit/exit.c"] = "\n#  include <debug/debug.h>\n",
      ["core/debug/debug.h"] = include "vm.h",
      ["core/vm.h"] = "",
      ["core/run/run.c"] = include "hvf/hvf.h",
      ["core/hvf/hvf.h"] = include "kvm/kick.h",
      ["core/include/lunavisor/state.h"] = include "base/error.h",
      ["core/base/error.h"] = include "fake/fake.h",
      ["spec/core/fake/fake.h"] = "",
      ["core/turbo/turbo.c"] = "",
    })
    assert.is_false(clean)
    for _, line in ipairs {
      "core/kvm/kvm.h:1: includes core/vcpu/vcpu.h: kvm is on floor 1, vcpu on floor 4 above it",
      "core/soft/mmu.c:1: includes core/kvm/kick.h: soft and kvm stand side by side on floor 1",
      "core/exit/exit.c:2: includes core/debug/debug.h: exit and debug stand side by side",
      "core/debug/debug.h:1: includes core/vm.h: debug is on floor 5, top on floor 7",
      "core/run/run.c:1: includes core/hvf/hvf.h: core/hvf stands beside the floors",
      "core/hvf/hvf.h:1: includes core/kvm/kick.h: core/hvf stands on the public headers",
      "core/include/lunavisor/state.h:1: includes core/base/error.h: a public header",
      "core/base/error.h:1: includes spec/core/fake/fake.h: core/ stands on its own",
      "core/turbo: no floor is set for this wing in scripts/lint.d/floors.lua",
    } do helper.contains(line, output) end
    assert.equal(9, select(2, output:gsub("[^\n]+", "")))
  end)

  it("names the files of a circle of includes", function()
    local output, clean = check("floors", {
      ["core/base/a.h"] = include "b.h",
      ["core/base/b.h"] = include "base/c.h",
      ["core/base/c.h"] = "\n" .. include "a.h",
    })
    assert.is_false(clean)
    assert.equal("core/base/c.h:2: a circle of includes: "
      .. "core/base/a.h -> core/base/b.h -> core/base/c.h -> core/base/a.h", output)
  end)

  it("names what is too long and a folder of too many files", function()
    local files = {
      ["core/kvm/kvm.c"] = lines(501), ["core/kvm/fits.c"] = lines(500),
      ["lua/long.lua"] = lines(401), ["lua/fits.lua"] = lines(400), ["spec/long.lua"] = lines(500),
      ["scripts/run"] = "#!/usr/bin/env luajit\n" .. lines(400), ["build/made.c"] = lines(600),
    }
    for i = 1, 18 do files[("core/hvf/f%d.c"):format(i)] = "" end
    local output, clean = check("sizes", files)
    assert.is_false(clean)
    assert.equal([[
core/kvm/kvm.c: 501 lines, more than 500: it is about more than one thing
lua/long.lua: 401 lines, more than 400: it is about more than one thing
scripts/run: 401 lines, more than 400: it is about more than one thing
core/hvf: 18 .c files, more than 17: make folders of what belongs together]], output)
  end)

  it("names raw calls for LuaJIT that keep a pointer while a finalizer may run", function()
    local output, clean = check("handles", { ["lua/lunavisor/binding/ffi_a.lua"] = [[
      local vcpu = vcpu_of(object)
      local status = C.luna_vcpu_get(vcpu_of(object), reg, u64_out)
      return done(C.luna_vcpu_set(vcpu_of(object), reg, to_u64(value)))
      return done(C.luna_vm_map(vm_of(object), buffer_of(buffer), gpa,
        ffi.cast("uint64_t", size)))
      local function vcpu_of(object) -- not to_u64(value)
      return tonumber(C.luna_vcpu_exits(vcpu_of(object)))
    ]] })
    assert.is_false(clean)
    assert.equal([[
lua/lunavisor/binding/ffi_a.lua:1: vcpu_of is kept: an object may be closed by what is called later
lua/lunavisor/binding/ffi_a.lua:3: to_u64 is called behind vcpu_of, and may close its object
lua/lunavisor/binding/ffi_a.lua:4: ffi.cast is called behind vm_of, and may close its object
lua/lunavisor/binding/ffi_a.lua:4: ffi.cast is called behind buffer_of, and may close its object]],
      output)
  end)

  it("finds nothing wrong with what fits", function()
    local output, clean = check("sizes", { ["core/a.c"] = lines(3), ["README.md"] = lines(500) })
    assert.equal("", output)
    assert.is_true(clean)
  end)
end)
