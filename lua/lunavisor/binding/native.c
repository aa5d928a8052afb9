/* SPDX-License-Identifier: MIT
 * The raw calls for Lua 5.4: one function a call of the core, nothing else. ffi*.lua have the same
 * ones for LuaJIT. A call takes an object of the shared layer, a table whose [1] is the handle made
 * here, and returns its results, or nil, message and status name. */
#include "native.h"

#include <stdbool.h>

static const char *const kind_name[] = {"vm", "buffer", "vcpu", "lines"};
static const char *const type_name[] = {"lunavisor.vm", "lunavisor.buffer", "lunavisor.vcpu",
                                        "lunavisor.lines"};

static const char closed_key[] = "lunavisor.when_closed";

_Thread_local int64_t luna_made = -1;

static int raw_made(lua_State *L) {
  if (luna_made < 0) {
    return 0;
  }
  lua_pushinteger(L, luna_made);
  return 1;
}

static int raw_make_none(lua_State *L) {
  (void)L;
  luna_made = -1;
  return 0;
}

static const uint64_t magic = 0x6c756e612d68646c;

char *luna_room(lua_State *L, luaL_Buffer *buffer, size_t size) {
  if (size > INT32_MAX) {
    lua_pushliteral(L, "not enough memory");
    lua_error(L);
  }
  return luaL_buffinitsize(L, buffer, size);
}

int luna_push_failure(lua_State *L, int status) {
  luaL_pushfail(L);
  lua_pushstring(L, luna_error_message());
  lua_pushstring(L, luna_status_name(status));
  return 3;
}

int luna_push_done(lua_State *L, int status) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static luna_handle *fail_check(lua_State *L, int index, luna_handle_kind kind) {
  if (lua_type(L, index) != LUA_TTABLE || lua_rawgeti(L, index, 1) == LUA_TNIL) {
    luaL_typeerror(L, index, kind_name[kind]);
  }
  lua_getfield(L, LUA_REGISTRYINDEX, closed_key);
  lua_pushstring(L, kind_name[kind]);
  lua_call(L, 1, 0);
  return NULL;
}

/* In the way of every access. */
luna_handle *luna_find(lua_State *L, int index, luna_handle_kind kind) {
  luna_handle *found = NULL;
  if (lua_type(L, index) == LUA_TTABLE) {
    if (lua_rawgeti(L, index, 1) == LUA_TUSERDATA && lua_rawlen(L, -1) >= sizeof(luna_handle)) {
      luna_handle *h = lua_touserdata(L, -1);
      found = h->magic == magic && h->kind == kind && h->object ? h : NULL;
    }
    lua_settop(L, -2);
  }
  return found;
}

luna_handle *luna_check(lua_State *L, int index, luna_handle_kind kind) {
  luna_handle *h = luna_find(L, index, kind);
  return h ? h : fail_check(L, index, kind);
}

luna_vm *luna_check_vm(lua_State *L) {
  return luna_check(L, 1, HANDLE_VM)->object;
}

luna_vcpu *luna_check_vcpu(lua_State *L) {
  return luna_check(L, 1, HANDLE_VCPU)->object;
}

/* A new closed handle on the stack, so that nothing is lost if Lua runs out of memory. */
luna_handle *luna_new_handle(lua_State *L, luna_handle_kind kind) {
  luna_handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  *h = (luna_handle){.magic = magic, .kind = kind};
  luaL_setmetatable(L, type_name[kind]);
  return h;
}

static void release(luna_handle *h) {
  void *object = h->object;
  h->object = NULL;
  if (!object) {
    return;
  }
  switch (h->kind) {
    case HANDLE_VM:
      luna_vm_release(object);
      break;
    case HANDLE_BUFFER:
      luna_buffer_release(object);
      break;
    case HANDLE_VCPU:
      luna_vcpu_release(object);
      break;
    case HANDLE_LINES:
      luna_lines_release(object);
      break;
  }
}

static int handle_gc(lua_State *L) {
  release(lua_touserdata(L, 1));
  return 0;
}

/* Says who raises for a closed object: a function that gets its kind. */
static int raw_when_closed(lua_State *L) {
  lua_settop(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, closed_key);
  return 0;
}

/* Whether an object is open, and not closed through a copy or a finalizer. */
static int raw_is_open(lua_State *L) {
  bool open =
      luna_find(L, 1, HANDLE_VM) || luna_find(L, 1, HANDLE_BUFFER) || luna_find(L, 1, HANDLE_VCPU);
  lua_pushboolean(L, open);
  return 1;
}

static int raw_close(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_rawgeti(L, 1, 1);
  luna_handle *h = lua_touserdata(L, -1);
  if (!lua_toboolean(L, -1)) {
    return 0; /* closed before */
  }
  if (!h || lua_rawlen(L, -1) < sizeof *h || h->magic != magic) {
    return luaL_argerror(L, 1, "not an object of this library");
  }
  release(h);
  lua_pushboolean(L, 0);
  lua_rawseti(L, 1, 1);
  return 0;
}

static int raw_version(lua_State *L) {
  lua_pushstring(L, luna_version());
  return 1;
}

static int raw_clock(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_clock());
  return 1;
}

static int raw_live(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_live((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* luna_accelerator: which one a VM with it gets, and why */
static int raw_choose(lua_State *L) {
  char reason[640];
  int status = luna_accelerator_choose((uint32_t)luaL_checkinteger(L, 1), reason, sizeof reason);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, status);
  lua_pushstring(L, reason);
  return 2;
}

static int raw_accelerator_name(lua_State *L) {
  lua_pushstring(L, luna_accelerator_name((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_probe(lua_State *L) {
  return luna_push_done(L, luna_accelerator_probe((uint32_t)luaL_checkinteger(L, 1)));
}

static int raw_probe_name(lua_State *L) {
  lua_pushstring(L, luna_probe_name((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_probe_value(lua_State *L) {
  uint64_t value;
  int status = luna_accelerator_value((uint32_t)luaL_checkinteger(L, 1),
                                      (int)luaL_checkinteger(L, 2), &value);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static int raw_exit_name(lua_State *L) {
  lua_pushstring(L, luna_exit_name((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_register_name(lua_State *L) {
  lua_pushstring(L, luna_register_name((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_capability(lua_State *L) {
  uint64_t value;
  int status = luna_accelerator_capability((uint32_t)luaL_checkinteger(L, 1),
                                           luaL_checkstring(L, 2), &value);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static const luaL_Reg library_functions[] = {
    {"version", raw_version},
    {"when_closed", raw_when_closed},
    {"is_open", raw_is_open},
    {"made", raw_made},
    {"make_none", raw_make_none},
    {"clock", raw_clock},
    {"live", raw_live},
    {"choose", raw_choose},
    {"accelerator_name", raw_accelerator_name},
    {"probe", raw_probe},
    {"probe_name", raw_probe_name},
    {"probe_value", raw_probe_value},
    {"exit_name", raw_exit_name},
    {"register_name", raw_register_name},
    {"close", raw_close},
    {"capability", raw_capability},
    {NULL, NULL},
};

LUNA_API int luaopen_lunavisor_binding_native(lua_State *L);

int luaopen_lunavisor_binding_native(lua_State *L) {
  for (int kind = HANDLE_VM; kind <= HANDLE_LINES; kind++) {
    luaL_newmetatable(L, type_name[kind]); /* may be there: a test suite opens the module often */
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
  }
  luaL_newlib(L, library_functions);
  luaL_setfuncs(L, luna_buffer_functions, 0);
  luaL_setfuncs(L, luna_space_functions, 0);
  luaL_setfuncs(L, luna_vcpu_functions, 0);
  luaL_setfuncs(L, luna_state_functions, 0);
  luaL_setfuncs(L, luna_linear_functions, 0);
  luaL_setfuncs(L, luna_event_functions, 0);
  luaL_setfuncs(L, luna_exit_functions, 0);
  luaL_setfuncs(L, luna_debug_functions, 0);
  luaL_setfuncs(L, luna_interrupt_functions, 0);
  luaL_setfuncs(L, luna_thread_functions, 0);
  luaL_setfuncs(L, luna_stream_functions, 0);
  luaL_setfuncs(L, luna_lines_functions, 0);
  return 1;
}
