-- SPDX-License-Identifier: MIT
-- An error at any instruction of any call (of a hook: a time limit, Ctrl-C), and where any
-- allocation fails: nothing stays "running", trapped, mapped or made, and the call can be made
-- again.

local compiled = require "spec.support.compiled"
local files = require "spec.support.files"
local helper = require "spec.support.helper"

-- Runs spec/support/anywhere.lua, whose errors end it with status 1.
local function anywhere(arguments)
  local step = helper.stressed and "60" or helper.jit and "23" or "7"
  local elf = compiled.asm(compiled.directory(), 32, 0x6000)
  local output, status = helper.sh(helper.command("spec/support/anywhere.lua",
    { env = { LUNA_ANYWHERE_STEP = step, LUNA_ANYWHERE_ELF = elf } }) .. arguments)
  if status ~= 0 then error(output, 0) end
  assert.matches("^%d+ calls, [1-9]%d* errors$", output)
end

helper.block("the calls that errors break off", function()
  it("are all that there are", function()
    local made, missing = files.read "spec/support/anywhere_calls.lua", {}
    -- Libraries beside this one.
    local apart = { hv = true, device = true, machine = true, models = true, process = true,
      testing = true }
    for path in helper.sh("ls lua/lunavisor/meta/*.lua"):gmatch "%S+" do
      for name in files.read(path):gmatch "\nfunction [%w_]+[.:]([%w_]+)%(" do
        local called = made:find("[.:]" .. name .. "%f[^%w_]")
        if not called and not apart[path:match "(%w+)%.lua$"] then missing[#missing + 1] = name end
      end
    end
    assert.same({}, missing)
  end)
end)

helper.kvm("an error", function()
  it("at any instruction leaves nothing behind", function() anywhere "" end)

  it("of memory, at any allocation, leaves nothing behind", function()
    if helper.jit then pending "LuaJIT's own allocator cannot be told to fail" end
    local build = assert(os.getenv "LUNAVISOR_LIBRARY"):match "^(.*)/"
    local module = build .. "/spec/alloc.so"
    local file = io.open(module)
    if not file then pending "spec/alloc.so is not built" end
    file:close()
    anywhere((" memory '%s'"):format(module))
  end)
end)
