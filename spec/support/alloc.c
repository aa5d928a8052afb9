/* SPDX-License-Identifier: MIT
 * A module that counts Lua's allocations, lets the collector run at one of them, and lets one fail,
 * as where there is no memory (Lua 5.4 alone gets over that). LuaJIT loads it too: it calls nothing
 * that the two have differently. */
#include <lauxlib.h>
#include <lua.h>

static lua_Alloc next; /* the allocator that does the work */
static void *next_data;
static long left = -1; /* allocations until the one that fails; below 0 none does */
static int failing;    /* Lua collects and tries again: both have to fail */

static lua_State *state;
static long made;            /* allocations since the last collect_at */
static long collect_at = -1; /* which of them ends the collector's rest; below 0 none does */

static void *allocate(void *data, void *block, size_t before, size_t size) {
  (void)data;
  if (size > (block ? before : 0)) {
    if (left >= 0 && (left-- == 0 || failing)) {
      left = failing ? -1 : 0;
      failing = !failing;
      return NULL;
    }
    if (made++ == collect_at) {
      lua_gc(state, LUA_GCRESTART, 0); /* only lets the next look at the debt begin a cycle */
    }
  }
  return next(next_data, block, before, size);
}

/* The allocation after so many others fails; without a number, none does. */
static int fail_after(lua_State *L) {
  failing = 0;
  left = (long)luaL_optinteger(L, 1, -1);
  return 0;
}

/* Whether the allocation that is to fail has come. */
static int failed(lua_State *L) {
  lua_pushboolean(L, left < 0);
  return 1;
}

/* The collector, which is stopped, goes on at the allocation after so many others; without a
 * number, it does not. Returns how many allocations there were since the last call. */
static int collect_after(lua_State *L) {
  lua_Integer count = made;
  collect_at = (long)luaL_optinteger(L, 1, -1);
  made = 0;
  lua_pushinteger(L, count);
  return 1;
}

__attribute__((visibility("default"))) int luaopen_alloc(lua_State *L);

int luaopen_alloc(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fail_after", fail_after},
      {"failed", failed},
      {"collect_after", collect_after},
      {NULL, NULL},
  };
  if (!next) {
    state = L;
    next = lua_getallocf(L, &next_data);
    lua_setallocf(L, allocate, NULL);
  }
  lua_createtable(L, 0, 3);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
