-- SPDX-License-Identifier: MIT
-- The fake KVM of the tests, for what the library itself costs: install(), remove(), exits without
-- end by endless_pio(port, size, is_in) and endless_batch(port, count), reads of bytes; and
-- calls(), how many ioctls there were.

local path = require("rounds").build .. "/spec/fake.so"

if not rawget(_G, "jit") then return assert(package.loadlib(path, "luaopen_fake"))() end

local ffi = require "ffi"
ffi.cdef [[
  void fake_install(const void *config);
  void fake_endless_pio(uint16_t port, uint32_t size, bool in);
  void fake_endless_batch(uint16_t port, uint32_t count);
  uint64_t fake_calls(unsigned long request);
  void fake_remove(void);
]]
local lib = ffi.load(path)
return {
  install = function() lib.fake_install(nil) end,
  remove = lib.fake_remove,
  endless_pio = lib.fake_endless_pio,
  endless_batch = lib.fake_endless_batch,
  calls = function() return tonumber(lib.fake_calls(0)) end,
}
