/* SPDX-License-Identifier: MIT
 * What the files of the native module share: handles, checks, results. */
#ifndef LUNA_NATIVE_H
#define LUNA_NATIVE_H

#include <lauxlib.h>
#include <lua.h>
#include <lunavisor.h>

typedef enum luna_handle_kind {
  HANDLE_VM,
  HANDLE_BUFFER,
  HANDLE_VCPU
} luna_handle_kind;

/* Lives in a userdata. The magic number tells it from other userdata without a look-up of its
 * metatable. */
typedef struct luna_handle {
  uint64_t magic;
  luna_handle_kind kind;
  void *object;              /* NULL once closed */
  const luna_memory *memory; /* of a buffer */
} luna_handle;

/* The handle of the object at `index`, open and of the kind; an error otherwise. */
luna_handle *luna_check(lua_State *L, int index, luna_handle_kind kind);
luna_vm *luna_check_vm(lua_State *L);     /* argument 1 */
luna_vcpu *luna_check_vcpu(lua_State *L); /* argument 1 */
/* A new closed handle on the stack, so that nothing is lost if Lua runs out of memory. */
luna_handle *luna_new_handle(lua_State *L, luna_handle_kind kind);

int luna_push_failure(lua_State *L, int status); /* nil, message, status name */
int luna_push_done(lua_State *L, int status);    /* true, or the failure */

/* Room for `size` bytes of a string; 2 GiB and more are refused, as LuaJIT does. */
char *luna_room(lua_State *L, luaL_Buffer *buffer, size_t size);

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

#endif
