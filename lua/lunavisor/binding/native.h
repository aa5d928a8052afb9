/* SPDX-License-Identifier: MIT
 * What the files of the native module share: handles, checks, results. */
#ifndef LUNA_NATIVE_H
#define LUNA_NATIVE_H

#include <lauxlib.h>
#include <lua.h>
#include <lunavisor.h>
#include <stdbool.h>

#define LUNA_EXACT 9007199254740992.0 /* 2^53: every whole number up to here is exact in a double */

typedef enum luna_handle_kind {
  HANDLE_VM,
  HANDLE_BUFFER,
  HANDLE_VCPU,
  HANDLE_LINES
} luna_handle_kind;

/* Lives in a userdata. The magic number tells it from other userdata without a look-up of its
 * metatable. */
typedef struct luna_handle {
  uint64_t magic;
  luna_handle_kind kind;
  void *object;              /* NULL once closed */
  const luna_memory *memory; /* of a buffer */
} luna_handle;

/* The handle of the object at `index`, open and of the kind; NULL otherwise. What Lua allocates
 * lets finalizers run, and one of them may close the object: a raw call allocates first and then
 * looks at its objects, or does not touch them behind the allocation. */
luna_handle *luna_find(lua_State *L, int index, luna_handle_kind kind);
/* The same; an error otherwise. */
luna_handle *luna_check(lua_State *L, int index, luna_handle_kind kind);
luna_vm *luna_check_vm(lua_State *L);     /* argument 1 */
luna_vcpu *luna_check_vcpu(lua_State *L); /* argument 1 */
/* A new closed handle on the stack, so that nothing is lost if Lua runs out of memory. */
luna_handle *luna_new_handle(lua_State *L, luna_handle_kind kind);

/* What was made since raw.make_none, by number, and -1 for nothing: known even where an error
 * comes before Lua has the result. */
extern _Thread_local int64_t luna_made;

int luna_push_failure(lua_State *L, int status); /* nil, message, status name */
int luna_push_done(lua_State *L, int status);    /* true, or the failure */

/* Room for `size` bytes of a string; 2 GiB and more are refused, as LuaJIT does. */
char *luna_room(lua_State *L, luaL_Buffer *buffer, size_t size);
/* The value at `index`, if it is an integer or a float that is one exactly. */
static inline bool luna_exact(lua_State *L, int index, lua_Integer *value) {
  int whole = lua_isinteger(L, index);
  *value = whole ? lua_tointeger(L, index) : 0;
  if (!whole && lua_type(L, index) == LUA_TNUMBER) {
    lua_Number number = lua_tonumber(L, index);
    *value = lua_tointegerx(L, index, &whole);
    whole = whole && number <= LUNA_EXACT && number >= -LUNA_EXACT;
  }
  return whole;
}

/* Answers the open exit with the value at `index`; false if that is a read and the value no
 * unsigned integer of its size. */
static inline bool luna_give(lua_State *L, luna_vcpu *vcpu, int index) {
  const luna_exit *e = luna_vcpu_exit(vcpu);
  lua_Integer value;
  bool whole = luna_exact(L, index, &value);
  if (e->access == LUNA_READ && (!whole || (e->size < 8 && (uint64_t)value >> 8 * e->size))) {
    return false;
  }
  luna_vcpu_answer(vcpu, (uint64_t)value);
  return true;
}

/* For raw.run, where the answer was none: false, and trap, offset and size of the open exit. */
static inline int luna_push_bad_answer(lua_State *L, const luna_vcpu *vcpu) {
  const luna_exit *e = luna_vcpu_exit(vcpu);
  lua_pushboolean(L, 0);
  lua_pushinteger(L, e->trap);
  lua_pushinteger(L, (lua_Integer)e->offset);
  lua_pushinteger(L, e->size);
  return 4;
}

/* What raw.run gives: kind, trap, offset, size, value and access of the exit, or the failure. */
static inline int luna_push_exit(lua_State *L, const luna_vcpu *vcpu, int kind) {
  if (kind < 0) {
    return luna_push_failure(L, kind);
  }
  const luna_exit *e = luna_vcpu_exit(vcpu);
  lua_pushinteger(L, kind);
  lua_pushinteger(L, e->trap);
  lua_pushinteger(L, (lua_Integer)e->offset);
  lua_pushinteger(L, e->size);
  lua_pushinteger(L, (lua_Integer)e->value);
  lua_pushinteger(L, e->access);
  return 6;
}

extern const luaL_Reg luna_buffer_functions[];
extern const luaL_Reg luna_space_functions[];
extern const luaL_Reg luna_vcpu_functions[];
extern const luaL_Reg luna_state_functions[];
extern const luaL_Reg luna_linear_functions[];
extern const luaL_Reg luna_event_functions[];
extern const luaL_Reg luna_exit_functions[];
extern const luaL_Reg luna_debug_functions[];
extern const luaL_Reg luna_interrupt_functions[];
extern const luaL_Reg luna_thread_functions[];
extern const luaL_Reg luna_stream_functions[];
extern const luaL_Reg luna_lines_functions[];

#endif
