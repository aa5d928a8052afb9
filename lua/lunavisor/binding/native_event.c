/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: eventfds, coalesced writes, traps in the core, MSR exits. */
#include "native.h"

/* vm, kind, first, length, buffer, offset: the trap */
static int raw_trap_memory(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_buffer *buffer = luna_check(L, 5, HANDLE_BUFFER)->object;
  uint32_t trap;
  int status = luna_vm_trap_memory(
      vm, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
      (uint64_t)luaL_checkinteger(L, 4), buffer, (uint64_t)luaL_checkinteger(L, 6), &trap);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = trap;
  lua_pushinteger(L, trap);
  return 1;
}

static int raw_coalesce(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_coalesce(vm, (uint32_t)luaL_checkinteger(L, 2)));
}

/* vm, kind, address, size, flags, value, descriptor or -1 */
static luna_eventfd check_eventfd(lua_State *L) {
  return (luna_eventfd){
      .kind = (uint32_t)luaL_checkinteger(L, 2),
      .address = (uint64_t)luaL_checkinteger(L, 3),
      .size = (uint32_t)luaL_checkinteger(L, 4),
      .flags = (uint32_t)luaL_checkinteger(L, 5),
      .value = (uint64_t)luaL_checkinteger(L, 6),
      .fd = (int32_t)luaL_checkinteger(L, 7),
  };
}

/* The descriptor. */
static int raw_eventfd_add(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_eventfd event = check_eventfd(L);
  int status = luna_vm_eventfd_add(vm, &event);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = event.fd;
  lua_pushinteger(L, event.fd);
  return 1;
}

static int raw_eventfd_remove(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_eventfd event = check_eventfd(L);
  return luna_push_done(L, luna_vm_eventfd_remove(vm, &event));
}

/* descriptor: how many writes */
static int raw_eventfd_read(lua_State *L) {
  uint64_t count;
  int status = luna_eventfd_read((int32_t)luaL_checkinteger(L, 1), &count);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

static int raw_eventfd_write(lua_State *L) {
  return luna_push_done(
      L, luna_eventfd_write((int32_t)luaL_checkinteger(L, 1), (uint64_t)luaL_checkinteger(L, 2)));
}

static int raw_refuse(lua_State *L) {
  return luna_push_done(L, luna_vcpu_refuse(luna_check_vcpu(L)));
}

const luaL_Reg luna_event_functions[] = {
    {"trap_memory", raw_trap_memory},
    {"coalesce", raw_coalesce},
    {"eventfd_add", raw_eventfd_add},
    {"eventfd_remove", raw_eventfd_remove},
    {"eventfd_read", raw_eventfd_read},
    {"eventfd_write", raw_eventfd_write},
    {"refuse", raw_refuse},
    {NULL, NULL},
};
