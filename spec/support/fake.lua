-- SPDX-License-Identifier: MIT
-- The fake KVM of the C tests (spec/core/fake/fake.h), for specs of what no host's KVM does at
-- will. It is in KVM's place between install() and remove(), while no VM is alive.

local path = (os.getenv "LUNAVISOR_LIBRARY" or "build/"):match "^(.*)/" .. "/spec/fake.so"

if not rawget(_G, "jit") then return assert(package.loadlib(path, "luaopen_fake"))() end

local ffi = require "ffi"
if not pcall(function() return ffi.typeof "struct luna_fake" end) then
  ffi.cdef [[
    struct luna_fake { int declared; };
    void fake_install(const void *config);
    void fake_remove(void);
    void fake_exit(uint32_t reason, const uint64_t *words, size_t count);
  ]]
end
local lib = ffi.load(path)

return {
  install = function() lib.fake_install(nil) end,
  remove = lib.fake_remove,
  exit = function(reason, words)
    lib.fake_exit(reason, ffi.new("uint64_t[?]", #words + 1, words), #words)
  end,
}
