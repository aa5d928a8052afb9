/* SPDX-License-Identifier: MIT
 * A module for Lua 5.4 that lets one allocation fail, as where there is no memory. */
#include <lauxlib.h>
#include <lua.h>

static lua_Alloc next; /* the allocator that does the work */
static void *next_data;
static long left = -1; /* allocations until the one that fails; below 0 none does */
static int failing;    /* Lua collects and tries again: both have to fail */

static void *allocate(void *data, void *block, size_t before, size_t size) {
  (void)data;
  if (size > (block ? before : 0) && left >= 0) {
    if (left-- == 0 || failing) {
      left = failing ? -1 : 0;
      failing = !failing;
      return NULL;
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

__attribute__((visibility("default"))) int luaopen_alloc(lua_State *L);

int luaopen_alloc(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fail_after", fail_after},
      {"failed", failed},
      {NULL, NULL},
  };
  if (!next) {
    next = lua_getallocf(L, &next_data);
    lua_setallocf(L, allocate, NULL);
  }
  luaL_newlib(L, functions);
  return 1;
}
