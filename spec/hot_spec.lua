-- SPDX-License-Identifier: MIT
-- What the software CPU runs while a guest's vector state is in the host's registers: the objects
-- that were built have no vector register in them, and lead to libc only where that state is saved.
-- And that scripts/lint.d/hot.lua finds what is wrong, in small objects.

local helper = require "spec.support.helper"

local function check(directory)
  local output, status = helper.sh(("%s scripts/lint.d/hot.lua '%s'"):format(helper.engine,
    directory))
  return output, status == 0
end

describe("the hot code of the software CPU", function()
  it("touches no vector register", function()
    local build = (os.getenv "LUNAVISOR_LIBRARY" or ""):match "^(.*)/[^/]*$" or "build"
    local objects = build .. "/obj/core/soft"
    if helper.sanitized then pending "a sanitizer's own code is everywhere" end
    if select(2, helper.sh(("test -e '%s/loop.o'"):format(objects))) ~= 0 then
      pending "this build has no software CPU"
    end
    local output, clean = check(objects)
    assert.is_true(clean, output)
    assert.matches("^hot: %d+ objects, no problem$", output)
  end)
end)

describe("scripts/lint.d/hot.lua", function()
  local tree

  before_each(function() tree = (helper.sh "mktemp -d") end)
  after_each(function() helper.sh("rm -rf " .. tree) end)

  -- What it says of objects, whose sources are texts by path without ".c".
  local function compiled(sources)
    for name, text in pairs(sources) do
      helper.sh(("mkdir -p $(dirname %s/%s)"):format(tree, name))
      local file = assert(io.open(("%s/%s.c"):format(tree, name), "w"))
      file:write("void *memcpy(void *, const void *, unsigned long); void soft_park(void *);\n"
        .. "void soft_cold(void *); extern char a[], b[]; extern unsigned long sizes[];\n" .. text)
      file:close()
      local output, status = helper.sh(("gcc -O1 -mgeneral-regs-only -c -o %s/%s.o %s/%s.c")
        :format(tree, name, tree, name))
      assert(status == 0, output)
    end
    return check(tree)
  end

  it("names a call of libc from hot code", function()
    local output, clean = compiled {
      ["mmu/copy"] = "void soft_copy(void) { memcpy(a, b, sizes[0]); }",
    }
    assert.is_false(clean)
    assert.equal("soft_copy reaches memcpy while vector state may be live: soft_copy\n"
      .. "hot: 1 objects, 1 problems", output)
  end)

  it("follows calls, and stops where the state is saved", function()
    local sources = {
      ["execute/one"] = "void soft_op_one(void *cpu) { soft_cold(cpu); a[0]++; }",
      ["kernel/cold"] = "static __attribute__((noinline)) void own(void) "
        .. "{ memcpy(a, b, sizes[0]); }\n"
        .. "void soft_cold(void *cpu) { own(); soft_park(cpu); }",
    }
    local output, clean = compiled(sources)
    assert.is_false(clean)
    helper.contains("soft_op_one reaches memcpy while vector state may be live: soft_op_one -> "
      .. "soft_cold -> kernel/cold.o:own", output)
    sources["kernel/cold"] = sources["kernel/cold"]:gsub("own%(%); soft_park%(cpu%);",
      "soft_park(cpu); own();")
    output, clean = compiled(sources)
    assert.equal("hot: 2 objects, no problem", output)
    assert.is_true(clean)
  end)

  it("names a vector register anywhere but where state is moved", function()
    local text = 'void soft_%s(void) { __asm__ volatile("pxor %%xmm3, %%xmm3"); }'
    local output, clean = compiled {
      ["kernel/clear"] = text:format "clear", ["vector/vector"] = text:format "move",
    }
    assert.is_false(clean)
    assert.equal("kernel/clear.o: soft_clear uses a vector register: pxor %xmm3,%xmm3\n"
      .. "hot: 2 objects, 1 problems", output)
  end)

  it("finds nothing where nothing was built", function()
    local output, clean = check(tree)
    assert.is_false(clean)
    helper.contains("there are no objects in ", output)
  end)
end)
