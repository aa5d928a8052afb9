/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: VMs, their spaces and traps. */
#include "native.h"

/* entries of the dirty rings, luna_irqchip, 1 for a PIT, 1 for exits of unknown MSRs,
 * luna_accelerator */
static int raw_vm_create(lua_State *L) {
  const luna_vm_options options = {
      .dirty_ring = (uint32_t)luaL_checkinteger(L, 1),
      .irqchip = (uint32_t)luaL_checkinteger(L, 2),
      .pit = (uint32_t)luaL_checkinteger(L, 3),
      .unknown_msrs = (uint32_t)luaL_checkinteger(L, 4),
      .accel = (uint32_t)luaL_checkinteger(L, 5),
  };
  luna_handle *h = luna_new_handle(L, HANDLE_VM);
  luna_vm *vm;
  int status = luna_vm_open(&options, &vm);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  h->object = vm;
  return 1;
}

/* Its luna_accelerator, and why that one. */
static int raw_vm_accelerator(lua_State *L) {
  const luna_vm *vm = luna_check_vm(L);
  lua_pushinteger(L, luna_vm_accelerator(vm));
  lua_pushstring(L, luna_vm_accelerator_reason(vm));
  return 2;
}

static int raw_map(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_buffer *buffer = luna_check(L, 3, HANDLE_BUFFER)->object;
  return luna_push_done(
      L, luna_vm_map_space(vm, (uint32_t)luaL_checkinteger(L, 2), buffer,
                           (uint64_t)luaL_checkinteger(L, 4), (uint64_t)luaL_checkinteger(L, 5),
                           (uint64_t)luaL_checkinteger(L, 6), (uint32_t)luaL_checkinteger(L, 7)));
}

static int raw_unmap(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_unmap_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                               (uint64_t)luaL_checkinteger(L, 3),
                                               (uint64_t)luaL_checkinteger(L, 4)));
}

static int raw_protect(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_protect_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                                 (uint64_t)luaL_checkinteger(L, 3),
                                                 (uint64_t)luaL_checkinteger(L, 4),
                                                 (uint32_t)luaL_checkinteger(L, 5)));
}

static uint64_t field(lua_State *L, int number) {
  lua_rawgeti(L, -1, number);
  uint64_t value = (uint64_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

/* One change from the table on top: kind, gpa, size, rights, buffer, offset. */
static luna_change get_change(lua_State *L) {
  luna_change change = {
      .kind = (uint32_t)field(L, 1),
      .gpa = field(L, 2),
      .size = field(L, 3),
      .rights = (uint32_t)field(L, 4),
      .offset = field(L, 6),
  };
  if (lua_rawgeti(L, -1, 5) != LUA_TNIL) {
    change.buffer = luna_check(L, lua_gettop(L), HANDLE_BUFFER)->object;
  }
  lua_pop(L, 1);
  return change;
}

/* vm, space, list of changes */
static int raw_update(lua_State *L) {
  uint32_t space = (uint32_t)luaL_checkinteger(L, 2);
  size_t count = lua_rawlen(L, 3);
  luna_change *changes = lua_newuserdatauv(L, (count + 1) * sizeof *changes, 0);
  luna_vm *vm = luna_check_vm(L);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 3, (lua_Integer)i + 1);
    changes[i] = get_change(L);
    lua_pop(L, 1);
  }
  return luna_push_done(L, luna_vm_update_space(vm, space, changes, count));
}

static int raw_remap(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_buffer *buffer = luna_check(L, 4, HANDLE_BUFFER)->object;
  return luna_push_done(L, luna_vm_remap_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                               (uint64_t)luaL_checkinteger(L, 3), buffer,
                                               (uint64_t)luaL_checkinteger(L, 5)));
}

static int raw_space_create(lua_State *L) {
  uint32_t space;
  int status = luna_vm_space_create(luna_check_vm(L), &space);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = space;
  lua_pushinteger(L, space);
  return 1;
}

static int raw_space_destroy(lua_State *L) {
  return luna_push_done(L,
                        luna_vm_space_destroy(luna_check_vm(L), (uint32_t)luaL_checkinteger(L, 2)));
}

/* vm, space, gpa, size. The memory is there before room is made: a guest may have said the size. */
static int raw_space_read(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint32_t space = (uint32_t)luaL_checkinteger(L, 2);
  uint64_t gpa = (uint64_t)luaL_checkinteger(L, 3);
  size_t size = (size_t)luaL_checkinteger(L, 4);
  int status = luna_vm_copy_space(vm, space, gpa, NULL, size, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luaL_Buffer b;
  char *bytes = luna_room(L, &b, size);
  vm = luna_check_vm(L); /* making room may have run a finalizer that closed it */
  status = luna_vm_copy_space(vm, space, gpa, bytes, size, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luaL_pushresultsize(&b, size);
  return 1;
}

/* vm, space, gpa, string */
static int raw_space_write(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 4, &size);
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_copy_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                              (uint64_t)luaL_checkinteger(L, 3),
                                              (char *)(uintptr_t)bytes, size, LUNA_WRITE));
}

/* vm, space, gpa, size of the integer: its value */
static int raw_space_get(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint64_t value = 0;
  int status =
      luna_vm_copy_space(vm, (uint32_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
                         &value, (uint64_t)luaL_checkinteger(L, 4) & 15, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

/* vm, space, gpa, size of the integer, value */
static int raw_space_set(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint64_t value = (uint64_t)luaL_checkinteger(L, 5);
  return luna_push_done(L, luna_vm_copy_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                              (uint64_t)luaL_checkinteger(L, 3), &value,
                                              (uint64_t)luaL_checkinteger(L, 4) & 15, LUNA_WRITE));
}

/* vm, space, gpa, size */
static int raw_dirty(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_dirty_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                               (uint64_t)luaL_checkinteger(L, 3),
                                               (uint64_t)luaL_checkinteger(L, 4)));
}

/* vm, space, gpa, size, luna_dirty_flag bits: first address and length of a run, false when there
 * are no more */
static int raw_dirty_take(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint64_t first;
  uint64_t length;
  int status = luna_vm_dirty_take(
      vm, (uint32_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
      (uint64_t)luaL_checkinteger(L, 4), (uint32_t)luaL_checkinteger(L, 5), &first, &length);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  if (status == 0) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_pushinteger(L, (lua_Integer)first);
  lua_pushinteger(L, (lua_Integer)length);
  return 2;
}

/* gpa, size, buffer id, offset, rights, enforced rights, slot, flags of the next region. */
static int raw_next_region(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  luna_region region;
  int status = luna_space_next(vm, (uint32_t)luaL_checkinteger(L, 2),
                               (uint64_t)luaL_checkinteger(L, 3), &region);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)region.gpa);
  lua_pushinteger(L, (lua_Integer)region.size);
  lua_pushinteger(L, (lua_Integer)luna_buffer_id(region.buffer));
  lua_pushinteger(L, (lua_Integer)region.offset);
  lua_pushinteger(L, region.rights);
  lua_pushinteger(L, region.enforced);
  lua_pushinteger(L, region.slot);
  lua_pushinteger(L, region.flags);
  return 8;
}

static int raw_trap(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint32_t trap;
  int status = luna_vm_trap(vm, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
                            (uint64_t)luaL_checkinteger(L, 4), &trap);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = trap;
  lua_pushinteger(L, trap);
  return 1;
}

static int raw_untrap(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_untrap(vm, (uint32_t)luaL_checkinteger(L, 2)));
}

const luaL_Reg luna_space_functions[] = {
    {"vm_create", raw_vm_create},
    {"vm_accelerator", raw_vm_accelerator},
    {"map", raw_map},
    {"unmap", raw_unmap},
    {"protect", raw_protect},
    {"update", raw_update},
    {"remap", raw_remap},
    {"space_create", raw_space_create},
    {"space_destroy", raw_space_destroy},
    {"space_read", raw_space_read},
    {"space_write", raw_space_write},
    {"space_get", raw_space_get},
    {"space_set", raw_space_set},
    {"dirty", raw_dirty},
    {"dirty_take", raw_dirty_take},
    {"next_region", raw_next_region},
    {"trap", raw_trap},
    {"untrap", raw_untrap},
    {NULL, NULL},
};
