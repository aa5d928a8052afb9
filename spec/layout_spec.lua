-- SPDX-License-Identifier: MIT
-- LuaJIT sees the structures and enums of lunavisor.h as the C compiler does; its parts go with it.

local helper = require "spec.support.helper"

-- The fields of the structures and the names of the enums' constants in preprocessed C.
local function declared(text)
  local structs, constants = {}, {}
  for name, body in text:gmatch "typedef struct ([%w_]+) (%b{}) [%w_]+;" do
    local fields = {}
    for field in body:gmatch "([%w_]+)[%[%d%]]*;" do fields[#fields + 1] = field end
    structs[#structs + 1] = { name = name, fields = fields }
  end
  for body in text:gmatch "enum [%w_]*%s*(%b{})" do
    for name in body:gmatch "LUNA_[%w_]+" do constants[#constants + 1] = name end
  end
  return structs, constants
end

-- A C program that prints one line a fact, and the facts as LuaJIT has them.
local function questions(ffi, structs, constants)
  local lines, expected = {}, {}
  local function ask(name, c, value)
    lines[#lines + 1] = ('  printf("%s %%lld\\n", (long long)(%s));'):format(name, c)
    expected[#expected + 1] = ("%s %d"):format(name, value)
  end
  for _, struct in ipairs(structs) do
    ask(struct.name, ("sizeof(%s)"):format(struct.name), ffi.sizeof(struct.name))
    for _, field in ipairs(struct.fields) do
      local made = ffi.new(struct.name)
      ask(struct.name .. "." .. field, ("offsetof(%s, %s)"):format(struct.name, field),
        ffi.offsetof(struct.name, field))
      local _, size = pcall(ffi.sizeof, made[field])
      if type(made[field]) == "cdata" and ffi.typeof(made[field]) ~= ffi.typeof "void *" then
        ask("sizeof " .. struct.name .. "." .. field,
          ("sizeof(((%s *)0)->%s)"):format(struct.name, field), size)
      end
    end
  end
  for _, name in ipairs(constants) do ask(name, name, tonumber(ffi.C[name])) end
  return table.concat(lines, "\n"), expected
end

describe("the layout in LuaJIT", function()
  after_each(helper.clean)

  it("is that of the C compiler", function()
    if not helper.jit then pending "only LuaJIT reads the header itself" end
    require "lunavisor"
    local structs, constants = declared(require "lunavisor.binding.cdef")
    local names = {}
    for _, struct in ipairs(structs) do names[#names + 1] = struct.name end
    for _, name in ipairs { "luna_region", "luna_exit", "luna_vcpu_options" } do
      assert.truthy(table.concat(names, " "):find(name, 1, true), name)
    end
    assert.truthy(#constants > 100, #constants)

    local body, expected = questions(require "ffi", structs, constants)
    local source = helper.file("#include <lunavisor.h>\n#include <stdio.h>\n"
      .. "int main(void) {\n" .. body .. "\n}\n")
    local output, status = helper.sh(("${CC:-gcc} -x c -Icore/include -o %s.out %s && %s.out; "
      .. "s=$?; rm -f %s.out; exit $s"):format(source, source, source, source))
    assert.equal(0, status, output)
    assert.equal(table.concat(expected, "\n"), output)
  end)
end)

describe("the parts of lunavisor.h", function()
  it("say that they are included by it alone", function()
    for name in helper.sh("ls core/include/lunavisor"):gmatch "%S+" do
      local output, status = helper.sh(("echo '#include <lunavisor/%s>' | ${CC:-gcc} -x c "
        .. "-Icore/include -fsyntax-only -"):format(name))
      if name == "vmx.h" then -- numbers alone
        assert.equal(0, status, output)
      else
        helper.contains("a part of lunavisor.h, which is to be included", output)
      end
    end
  end)
end)
