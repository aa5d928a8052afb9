/* SPDX-License-Identifier: MIT
 * The fake for Lua 5.4: require "fake". LuaJIT loads the same file with ffi.load and calls the
 * functions of fake.h. */
#include "fake/fake.h"

#include <lauxlib.h>
#include <lua.h>

FAKE_API int luaopen_fake(lua_State *state);

/* fake.install(): from here on the library talks to the fake. No VM may be alive. */
static int install(lua_State *state) {
  (void)state;
  fake_install(NULL);
  return 0;
}

/* fake.remove(): back to the real KVM. */
static int put_back(lua_State *state) {
  (void)state;
  fake_remove();
  return 0;
}

/* fake.endless_pio(port, size, is_in): size 0 ends it. */
static int endless_pio(lua_State *state) {
  lua_Integer port = luaL_checkinteger(state, 1);
  lua_Integer size = luaL_checkinteger(state, 2);
  luaL_argcheck(state, port >= 0 && port <= 0xffff, 1, "a port is expected");
  luaL_argcheck(state, size == 0 || size == 1 || size == 2 || size == 4, 2, "0, 1, 2 or 4");
  fake_endless_pio((uint16_t)port, (uint32_t)size, lua_toboolean(state, 3));
  return 0;
}

/* fake.endless_batch(port, count): reads of so many bytes at once. */
static int endless_batch(lua_State *state) {
  lua_Integer port = luaL_checkinteger(state, 1);
  lua_Integer count = luaL_checkinteger(state, 2);
  luaL_argcheck(state, count >= 1 && count <= FAKE_BATCH, 2, "1 to FAKE_BATCH");
  fake_endless_batch((uint16_t)port, (uint32_t)count);
  return 0;
}

/* fake.endless_mmio(gpa, size, is_write): size 0 ends it. */
static int endless_mmio(lua_State *state) {
  lua_Integer gpa = luaL_checkinteger(state, 1);
  lua_Integer size = luaL_checkinteger(state, 2);
  luaL_argcheck(state, size >= 0 && size <= 8, 2, "0 to 8");
  fake_endless_mmio((uint64_t)gpa, (uint32_t)size, lua_toboolean(state, 3));
  return 0;
}

/* fake.fail(nth, errno): the nth call from now on fails. */
static int fail(lua_State *state) {
  lua_Integer nth = luaL_checkinteger(state, 1);
  luaL_argcheck(state, nth >= 0, 1, "a number of calls is expected");
  fake_fail((uint64_t)nth, (int)luaL_checkinteger(state, 2));
  return 0;
}

/* fake.calls(): how many ioctls there were since install. */
static int calls(lua_State *state) {
  lua_pushinteger(state, (lua_Integer)fake_calls(0));
  return 1;
}

/* fake.exit(reason, words): the next exit has this reason and these words on the run page. */
static int next_exit(lua_State *state) {
  uint64_t words[16];
  lua_Integer reason = luaL_checkinteger(state, 1);
  luaL_checktype(state, 2, LUA_TTABLE);
  lua_Unsigned count = lua_rawlen(state, 2);
  luaL_argcheck(state, count <= sizeof words / sizeof *words, 2, "at most 16 words");
  for (lua_Unsigned i = 0; i < count; i++) {
    lua_rawgeti(state, 2, (lua_Integer)i + 1);
    words[i] = (uint64_t)lua_tointeger(state, -1);
    lua_pop(state, 1);
  }
  fake_exit((uint32_t)reason, words, count);
  return 0;
}

int luaopen_fake(lua_State *state) {
  static const luaL_Reg functions[] = {
      {"install", install},
      {"remove", put_back},
      {"endless_pio", endless_pio},
      {"endless_batch", endless_batch},
      {"endless_mmio", endless_mmio},
      {"exit", next_exit},
      {"fail", fail},
      {"calls", calls},
      {NULL, NULL},
  };
  luaL_newlib(state, functions);
  return 1;
}
