/* SPDX-License-Identifier: MIT
 * The raw calls for Lua 5.4: one function a call of the core, nothing else. ffi.lua has the same
 * ones for LuaJIT. A call takes an object of the shared layer, a table whose [1] is the handle made
 * here, and returns its results, or nil, message and status name. */
#include <lauxlib.h>
#include <lua.h>
#include <lunavisor.h>

#include <stdlib.h>
#include <string.h>

typedef enum handle_kind {
  HANDLE_VM,
  HANDLE_BUFFER,
  HANDLE_VCPU
} handle_kind;

static const char *const kind_name[] = {"vm", "buffer", "vcpu"};
static const char *const type_name[] = {"lunavisor.vm", "lunavisor.buffer", "lunavisor.vcpu"};

/* Lives in a userdata. The magic number tells it from other userdata without a look-up of its
 * metatable. */
typedef struct handle {
  uint64_t magic;
  handle_kind kind;
  void *object;  /* NULL once closed */
  uint8_t *data; /* of a buffer: its memory */
  uint64_t size;
} handle;

static const uint64_t magic = 0x6c756e612d68646c;

static int fail(lua_State *L, int status) {
  luaL_pushfail(L);
  lua_pushstring(L, luna_error_message());
  lua_pushstring(L, luna_status_name(status));
  return 3;
}

static int done(lua_State *L, int status) {
  if (status < 0) {
    return fail(L, status);
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* The handle of the object at `index`, open and of the kind. */
static handle *check(lua_State *L, int index, handle_kind kind) {
  if (!lua_istable(L, index)) {
    luaL_typeerror(L, index, kind_name[kind]);
  }
  int type = lua_rawgeti(L, index, 1);
  handle *h = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (type != LUA_TUSERDATA || h->magic != magic || h->kind != kind) {
    luaL_typeerror(L, index, kind_name[kind]);
  }
  if (!h->object) {
    luaL_error(L, "attempt to use a closed %s", kind_name[kind]);
  }
  return h;
}

static luna_vm *check_vm(lua_State *L) {
  return check(L, 1, HANDLE_VM)->object;
}

static luna_vcpu *check_vcpu(lua_State *L) {
  return check(L, 1, HANDLE_VCPU)->object;
}

/* A new closed handle on the stack, so that nothing is lost if Lua runs out of memory. */
static handle *new_handle(lua_State *L, handle_kind kind) {
  handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  *h = (handle){.magic = magic, .kind = kind};
  luaL_setmetatable(L, type_name[kind]);
  return h;
}

static void release(handle *h) {
  void *object = h->object;
  h->object = NULL;
  h->data = NULL;
  h->size = 0;
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
  }
}

static int handle_gc(lua_State *L) {
  release(lua_touserdata(L, 1));
  return 0;
}

static int raw_close(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_rawgeti(L, 1, 1);
  handle *h = lua_touserdata(L, -1);
  if (!h || h->magic != magic) {
    return luaL_argerror(L, 1, "not an object of this library");
  }
  release(h);
  return 0;
}

static int raw_is_open(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_rawgeti(L, 1, 1);
  const handle *h = lua_touserdata(L, -1);
  lua_pushboolean(L, h && h->object);
  return 1;
}

/* ---- Library and host ---- */

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

static int raw_probe(lua_State *L) {
  return done(L, luna_probe());
}

static int raw_probe_name(lua_State *L) {
  lua_pushstring(L, luna_probe_name((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_probe_value(lua_State *L) {
  uint64_t value;
  int status = luna_probe_value((int)luaL_checkinteger(L, 1), &value);
  if (status < 0) {
    return fail(L, status);
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

/* ---- Buffers ---- */

static int raw_buffer_create(lua_State *L) {
  handle *h = new_handle(L, HANDLE_BUFFER);
  luna_buffer *buffer;
  int status = luna_buffer_create((uint64_t)luaL_checkinteger(L, 1), &buffer);
  if (status < 0) {
    return fail(L, status);
  }
  h->object = buffer;
  h->data = luna_buffer_data(buffer);
  h->size = luna_buffer_size(buffer);
  return 1;
}

static int raw_buffer_id(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_buffer_id(check(L, 1, HANDLE_BUFFER)->object));
  return 1;
}

/* The memory at the offset in argument 2, of `size` bytes that the buffer has. */
static uint8_t *check_bytes(lua_State *L, uint64_t size) {
  const handle *h = check(L, 1, HANDLE_BUFFER);
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  if (offset > h->size || size > h->size - offset) {
    luaL_error(L, "offset 0x%p and size %I are outside the buffer, which has 0x%p bytes",
               (void *)(uintptr_t)offset, (LUAI_UACINT)size, (void *)(uintptr_t)h->size);
  }
  return h->data + offset;
}

static void check_fits(lua_State *L, lua_Integer value, unsigned bits) {
  if ((uint64_t)value >> bits) {
    luaL_error(L, "value %I does not fit in %d bits", (LUAI_UACINT)value, (int)bits);
  }
}

/* buffer:uN(offset) reads, buffer:uN(offset, value) writes; little endian, any alignment. */
#define ACCESSOR(bits)                                                                             \
  static int raw_u##bits(lua_State *L) {                                                           \
    uint8_t *place = check_bytes(L, (bits) / 8);                                                   \
    uint##bits##_t value;                                                                          \
    if (lua_isnoneornil(L, 3)) {                                                                   \
      memcpy(&value, place, sizeof value);                                                         \
      lua_pushinteger(L, (lua_Integer)value);                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    lua_Integer given = luaL_checkinteger(L, 3);                                                   \
    if ((bits) < 64) {                                                                             \
      check_fits(L, given, (bits) % 64);                                                           \
    }                                                                                              \
    value = (uint##bits##_t)given;                                                                 \
    memcpy(place, &value, sizeof value);                                                           \
    return 0;                                                                                      \
  }

ACCESSOR(8)
ACCESSOR(16)
ACCESSOR(32)
ACCESSOR(64)

static int raw_buffer_read(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  const uint8_t *place = check_bytes(L, size);
  lua_pushlstring(L, (const char *)place, size);
  return 1;
}

static int raw_buffer_write(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 3, &size);
  memcpy(check_bytes(L, size), bytes, size);
  return 0;
}

static int raw_buffer_fill(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  lua_Integer byte = luaL_checkinteger(L, 4);
  check_fits(L, byte, 8);
  memset(check_bytes(L, size), (int)byte, size);
  return 0;
}

static int raw_buffer_find(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  const uint8_t *from = check_bytes(L, size);
  const uint8_t *found = memmem(from, size, bytes, length);
  if (!found) {
    luaL_pushfail(L);
    return 1;
  }
  lua_pushinteger(L, luaL_checkinteger(L, 2) + (found - from));
  return 1;
}

/* ---- VMs ---- */

static int raw_vm_create(lua_State *L) {
  handle *h = new_handle(L, HANDLE_VM);
  luna_vm *vm;
  int status = luna_vm_create(&vm);
  if (status < 0) {
    return fail(L, status);
  }
  h->object = vm;
  return 1;
}

static int raw_map(lua_State *L) {
  luna_vm *vm = check_vm(L);
  luna_buffer *buffer = check(L, 3, HANDLE_BUFFER)->object;
  return done(
      L, luna_vm_map_space(vm, (uint32_t)luaL_checkinteger(L, 2), buffer,
                           (uint64_t)luaL_checkinteger(L, 4), (uint64_t)luaL_checkinteger(L, 5),
                           (uint64_t)luaL_checkinteger(L, 6), (uint32_t)luaL_checkinteger(L, 7)));
}

static int raw_unmap(lua_State *L) {
  luna_vm *vm = check_vm(L);
  return done(L, luna_vm_unmap_space(vm, (uint32_t)luaL_checkinteger(L, 2),
                                     (uint64_t)luaL_checkinteger(L, 3),
                                     (uint64_t)luaL_checkinteger(L, 4)));
}

/* gpa, size, buffer id, offset, rights, enforced rights, slot of the next region. */
static int raw_next_region(lua_State *L) {
  luna_vm *vm = check_vm(L);
  luna_region region;
  int status = luna_space_next(vm, (uint32_t)luaL_checkinteger(L, 2),
                               (uint64_t)luaL_checkinteger(L, 3), &region);
  if (status < 0) {
    return fail(L, status);
  }
  lua_pushinteger(L, (lua_Integer)region.gpa);
  lua_pushinteger(L, (lua_Integer)region.size);
  lua_pushinteger(L, (lua_Integer)luna_buffer_id(region.buffer));
  lua_pushinteger(L, (lua_Integer)region.offset);
  lua_pushinteger(L, region.rights);
  lua_pushinteger(L, region.enforced);
  lua_pushinteger(L, region.slot);
  return 7;
}

static int raw_trap(lua_State *L) {
  luna_vm *vm = check_vm(L);
  uint32_t trap;
  int status = luna_vm_trap(vm, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
                            (uint64_t)luaL_checkinteger(L, 4), &trap);
  if (status < 0) {
    return fail(L, status);
  }
  lua_pushinteger(L, trap);
  return 1;
}

static int raw_untrap(lua_State *L) {
  luna_vm *vm = check_vm(L);
  return done(L, luna_vm_untrap(vm, (uint32_t)luaL_checkinteger(L, 2)));
}

/* ---- vCPUs ---- */

/* vm, mode, rip, rsp, system area or nil to allocate one */
static int raw_vcpu_create(lua_State *L) {
  luna_vm *vm = check_vm(L);
  luna_vcpu_options options = {
      .mode = (uint32_t)luaL_checkinteger(L, 2),
      .rip = (uint64_t)luaL_checkinteger(L, 3),
      .rsp = (uint64_t)luaL_checkinteger(L, 4),
      .system = (uint64_t)luaL_optinteger(L, 5, (lua_Integer)LUNA_SYSTEM_ALLOCATE),
  };
  handle *h = new_handle(L, HANDLE_VCPU);
  luna_vcpu *vcpu;
  int status = luna_vcpu_create(vm, &options, &vcpu);
  if (status < 0) {
    return fail(L, status);
  }
  h->object = vcpu;
  return 1;
}

/* kind, trap, offset, size, value, access */
static int raw_run(lua_State *L) {
  luna_vcpu *vcpu = check_vcpu(L);
  int kind = luna_vcpu_run(vcpu, (uint64_t)lua_tonumber(L, 2));
  if (kind < 0) {
    return fail(L, kind);
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

static int raw_answer(lua_State *L) {
  luna_vcpu *vcpu = check_vcpu(L);
  int status = luna_vcpu_answer(vcpu, (uint64_t)luaL_optinteger(L, 2, 0));
  return status < 0 ? fail(L, status) : 0;
}

static int raw_retry(lua_State *L) {
  return done(L, luna_vcpu_retry(check_vcpu(L)));
}

static int raw_interrupt(lua_State *L) {
  luna_vcpu_interrupt(check_vcpu(L));
  return 0;
}

static int raw_disarm(lua_State *L) {
  luna_vcpu_disarm(check_vcpu(L));
  return 0;
}

static int raw_vcpu_id(lua_State *L) {
  lua_pushinteger(L, luna_vcpu_id(check_vcpu(L)));
  return 1;
}

static int raw_vcpu_system(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_vcpu_system(check_vcpu(L)));
  return 1;
}

static int raw_vcpu_exits(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_vcpu_exits(check_vcpu(L)));
  return 1;
}

static void set_field(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static int raw_exit(lua_State *L) {
  const luna_exit *e = luna_vcpu_exit(check_vcpu(L));
  lua_createtable(L, 0, 16);
  set_field(L, "kind", e->kind);
  set_field(L, "trap", e->trap);
  set_field(L, "address", e->address);
  set_field(L, "offset", e->offset);
  set_field(L, "value", e->value);
  set_field(L, "size", e->size);
  set_field(L, "access", e->access);
  set_field(L, "reason", e->reason);
  set_field(L, "suberror", e->suberror);
  set_field(L, "vector", e->vector);
  set_field(L, "error_code", e->error_code);
  lua_pushlstring(L, (const char *)e->instruction, e->instruction_size);
  lua_setfield(L, -2, "instruction");
  lua_createtable(L, (int)e->data_count, 0);
  for (uint32_t i = 0; i < e->data_count; i++) {
    lua_pushinteger(L, (lua_Integer)e->data[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "data");
  return 1;
}

static int raw_get(lua_State *L) {
  luna_vcpu *vcpu = check_vcpu(L);
  uint64_t value;
  int status = luna_vcpu_get(vcpu, (int)luaL_checkinteger(L, 2), &value);
  if (status < 0) {
    return fail(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static int raw_set(lua_State *L) {
  luna_vcpu *vcpu = check_vcpu(L);
  return done(L,
              luna_vcpu_set(vcpu, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)));
}

static const luaL_Reg functions[] = {
    {"version", raw_version},
    {"clock", raw_clock},
    {"live", raw_live},
    {"probe", raw_probe},
    {"probe_name", raw_probe_name},
    {"probe_value", raw_probe_value},
    {"exit_name", raw_exit_name},
    {"register_name", raw_register_name},
    {"close", raw_close},
    {"is_open", raw_is_open},
    {"buffer_create", raw_buffer_create},
    {"buffer_id", raw_buffer_id},
    {"u8", raw_u8},
    {"u16", raw_u16},
    {"u32", raw_u32},
    {"u64", raw_u64},
    {"buffer_read", raw_buffer_read},
    {"buffer_write", raw_buffer_write},
    {"buffer_fill", raw_buffer_fill},
    {"buffer_find", raw_buffer_find},
    {"vm_create", raw_vm_create},
    {"map", raw_map},
    {"unmap", raw_unmap},
    {"next_region", raw_next_region},
    {"trap", raw_trap},
    {"untrap", raw_untrap},
    {"vcpu_create", raw_vcpu_create},
    {"run", raw_run},
    {"answer", raw_answer},
    {"retry", raw_retry},
    {"interrupt", raw_interrupt},
    {"disarm", raw_disarm},
    {"vcpu_id", raw_vcpu_id},
    {"vcpu_system", raw_vcpu_system},
    {"vcpu_exits", raw_vcpu_exits},
    {"exit", raw_exit},
    {"get", raw_get},
    {"set", raw_set},
    {NULL, NULL},
};

int luaopen_lunavisor_native(lua_State *L);

__attribute__((visibility("default"))) int luaopen_lunavisor_native(lua_State *L) {
  for (int kind = HANDLE_VM; kind <= HANDLE_VCPU; kind++) {
    luaL_newmetatable(L, type_name[kind]); /* may be there: a test suite opens the module often */
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
  }
  luaL_newlib(L, functions);
  return 1;
}
