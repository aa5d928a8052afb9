/* SPDX-License-Identifier: MIT
 * The C library for Lua 5.4: every call by its name, with arguments that a string of letters tells.
 * ffi.lua has the same for LuaJIT. */
#include <Hypervisor/Hypervisor.h>
#include <lauxlib.h>
#include <lua.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
  MOST = 8 /* arguments of a call */
};

typedef struct entry {
  const char *name;
  hv_return_t (*call)(const uintptr_t *a);
} entry;

#include "hv_calls.h" /* made of the headers by calls.awk: entries[] */

/* What the letter says, of which `*from` is the index of the next argument in Lua. */
static uintptr_t take(lua_State *L, char letter, int *from, uint64_t *place, void **memory) {
  size_t length;
  const char *bytes;
  switch (letter) {
    case 'i':
      return lua_isboolean(L, *from) ? (uintptr_t)lua_toboolean(L, (*from)++)
                                     : (uintptr_t)luaL_checkinteger(L, (*from)++);
    case 'b':
      return (uintptr_t)lua_touserdata(L, (*from)++);
    case 'o':
      return (uintptr_t)place;
    case 'm':
      bytes = luaL_optlstring(L, (*from)++, NULL, &length);
      if (!bytes) {
        return 0;
      }
      *memory = memcpy(lua_newuserdatauv(L, length + 1, 0), bytes, length);
      *place = length;
      return (uintptr_t)*memory;
    default:
      return 0;
  }
}

static int call(lua_State *L) {
  const entry *function = lua_touserdata(L, lua_upvalueindex(1));
  const char *letters = lua_tostring(L, lua_upvalueindex(2));
  uintptr_t given[MOST] = {0};
  uint64_t places[MOST] = {0};
  void *memory[MOST] = {NULL};
  int from = 1;
  for (int i = 0; letters[i]; i++) {
    given[i] = take(L, letters[i], &from, &places[i], &memory[i]);
  }
  lua_pushinteger(L, function->call(given));
  int count = 1;
  for (int i = 0; letters[i]; i++) {
    if (letters[i] == 'o') {
      lua_pushinteger(L, (lua_Integer)places[i]);
      count++;
    } else if (letters[i] == 'm') {
      lua_pushlstring(L, memory[i], places[i]);
      count++;
    }
  }
  return count;
}

/* name, letters: the call as a function */
static int raw_call(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  size_t length;
  luaL_checklstring(L, 2, &length);
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    if (strcmp(entries[i].name, name) == 0 && length <= MOST) {
      lua_pushlightuserdata(L, (void *)(uintptr_t)&entries[i]);
      lua_pushvalue(L, 2);
      lua_pushcclosure(L, call, 2);
      return 1;
    }
  }
  return luaL_error(L, "there is no call %s", name);
}

static int raw_message(lua_State *L) {
  lua_pushstring(L, hv_ext_error_message());
  return 1;
}

static int raw_tsc_clock(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)hv_tsc_clock());
  return 1;
}

static int raw_eventfd(lua_State *L) {
  lua_pushinteger(L, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return 1;
}

static int raw_close(lua_State *L) {
  close((int)luaL_checkinteger(L, 1));
  return 0;
}

HV_API int luaopen_lunavisor_hv_native(lua_State *L);

int luaopen_lunavisor_hv_native(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"call", raw_call},       {"message", raw_message}, {"tsc_clock", raw_tsc_clock},
      {"eventfd", raw_eventfd}, {"close", raw_close},     {NULL, NULL},
  };
  luaL_newlib(L, functions);
  return 1;
}
