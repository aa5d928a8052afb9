-- SPDX-License-Identifier: MIT
-- The headers of the Hypervisor framework: Apple's constants with Apple's values, for C and C++
-- compilers, for what reads only C's declarations, and from Lua.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"

local u64 = luna.u64
local apple, names = {}, {}
for name, value in require("spec.support.hvf_constants"):gmatch "(%S+) (0x%x+)" do
  apple[name] = u64(value)
  names[#names + 1] = name
end
local ours = { HV_VM_STRICT_EXEC = u64(2 ^ 32) }

-- What a compiler says of a source, "" if nothing; nil where there is no such compiler.
local function compile(command, source)
  local program = command:match "^%S+"
  if helper.sh("command -v " .. program .. " || true") == "" then return nil end
  local path = helper.file(source)
  return (helper.sh(("%s -Wall -Wextra -Wpedantic -Werror -Icore/include -fsyntax-only %s")
    :format(command, path)))
end

local kinds = {
  "gcc -x c -std=c99", "gcc -x c -std=c11", "g++ -x c++ -std=c++17", "clang -x c -std=c99 -fblocks",
  "clang -x c -std=gnu17 -fblocks", "clang++ -x c++ -std=c++17",
}

-- An assertion of every standard: a type that cannot be when the condition is false.
local claims = 0
local function claim(condition, ...)
  claims = claims + 1
  return ("typedef char claim_%d[(%s) ? 1 : -1];\n"):format(claims, condition:format(...))
end

local function each(fn)
  for _, kind in ipairs(kinds) do
    local said = compile(kind, fn())
    if said then assert.same({ kind, "" }, { kind, said }) end
  end
end

describe("the headers of the Hypervisor framework", function()
  it("stand alone", function()
    for name in helper.sh("ls core/include/Hypervisor"):gmatch "%S+" do
      each(function() return "#include <Hypervisor/" .. name .. ">\n" end)
    end
  end)

  it("have Apple's constants with Apple's values", function()
    each(function()
      local source = { "#include <Hypervisor/Hypervisor.h>\n" }
      for _, name in ipairs(names) do
        local code = u64.rshift(apple[name], 16) == u64(0xfae9) and "(uint32_t)" or ""
        source[#source + 1] = claim("(unsigned long)%s%s == %sul", code, name, u64.hex(apple[name]))
      end
      return table.concat(source)
    end)
    assert.truthy(#names > 500)
  end)

  it("have them as declarations, not as macros", function()
    local found = {}
    local text = helper.sh "gcc -E -dD -P -Icore/include core/include/Hypervisor/Hypervisor.h"
    for name in text:gmatch "#define (%w[%w_]*)" do
      if name:match "^HV_" or apple[name] then found[#found + 1] = name end
    end
    table.sort(found)
    assert.same({ "HV_API", "HV_BEGIN", "HV_END", "HV_WIDE" }, found)
  end)

  it("write them so that simple parsers can work them out", function()
    local text = helper.sh "cc -E -P -DHV_CDEF= -Icore/include core/include/Hypervisor/Hypervisor.h"
    assert.is_truthy(text:find("HV_DEADLINE_FOREVER = 0x", 1, true))
    assert.is_nil(text:match "[~?]") -- Python's cffi has no such operators
  end)

  it("have Apple's types", function()
    each(function()
      return "#include <Hypervisor/hv_intr.h>\n#include <Hypervisor/hv_vmx.h>\n" ..
        claim "sizeof(hv_capability_t) == 8" .. claim "sizeof(hv_ion_message_t) == 56" ..
        claim "sizeof(struct hv_apic_state) == 240" .. claim "(mach_port_t)-1 > 0" ..
        claim "HV_X86_RIP == 0"
    end)
  end)

  it("leave a program its own Mach types", function()
    each(function()
      return [[#define _MACH_PORT_T
typedef int mach_port_t;
#define _MACH_MESSAGE_H_
typedef struct { mach_port_t port; } mach_msg_header_t;
typedef struct { int size; } mach_msg_trailer_t;
#include <Hypervisor/Hypervisor.h>
]] .. claim "sizeof(hv_ion_message_t) == 40"
    end)
    each(function()
      return "#include <Hypervisor/Hypervisor.h>\n#ifndef _MACH_PORT_T\n" ..
        "typedef int mach_port_t;\n#endif\n"
    end)
  end)
end)

describe("hv's constants", function()
  it("are those of the headers", function()
    local wrong, count = {}, 0
    for name, value in pairs(apple) do
      local mine = hv[name:gsub("^HV_", "")]
      if mine == nil or type(mine) == "function" or u64(mine) ~= value then wrong[name] = mine end
    end
    assert.same({}, wrong)
    for name, value in pairs(require("lunavisor.hv.parse").constants) do
      count = count + 1
      local known = apple[name] or apple["HV_" .. name] or ours["HV_" .. name]
      assert.truthy(known and known == u64(value), name)
    end
    assert.equal(#names + 1, count)
  end)

  -- LuaJIT has a parser of C's declarations, whose enumerators have 32 bits.
  if rawget(_G, "jit") then
    it("are what a parser of C's declarations sees", function()
      local C = require("ffi").C
      for _, name in ipairs(names) do
        if u64.lt(apple[name], 2 ^ 32) then
          assert.equal(u64.tonumber(apple[name]), C[name] % 2 ^ 32)
        end
      end
    end)
  end
end)
