/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: guest-linear addresses and disassembly. */
#include "native.h"

static void push_list(lua_State *L, const uint64_t *values, uint32_t count) {
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = 0; i < count; i++) {
    lua_pushinteger(L, (lua_Integer)values[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

/* vcpu, gva: paging, level of the entry that is missing, whether it has a reserved bit set, rights,
 * whether user mode has them, gpa, size of the page, entries, their gpas */
static int raw_translate(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  luna_walk walk;
  int status = luna_vcpu_translate(vcpu, (uint64_t)luaL_checkinteger(L, 2), &walk);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, walk.paging);
  lua_pushinteger(L, walk.missing);
  lua_pushboolean(L, (int)walk.reserved);
  lua_pushinteger(L, walk.rights);
  lua_pushboolean(L, (int)walk.user);
  lua_pushinteger(L, (lua_Integer)walk.gpa);
  lua_pushinteger(L, (lua_Integer)walk.page_size);
  push_list(L, walk.entries, walk.entry_count);
  push_list(L, walk.entry_gpas, walk.entry_count);
  return 9;
}

/* vcpu, gva, size */
static int raw_linear_read(lua_State *L) {
  size_t size = (size_t)luaL_checkinteger(L, 3);
  luaL_Buffer b;
  char *bytes = luna_room(L, &b, size);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  int status = luna_vcpu_copy(vcpu, (uint64_t)luaL_checkinteger(L, 2), bytes, size, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luaL_pushresultsize(&b, size);
  return 1;
}

/* vcpu, gva, string */
static int raw_linear_write(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 3, &size);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_copy(vcpu, (uint64_t)luaL_checkinteger(L, 2),
                                          (char *)(uintptr_t)bytes, size, LUNA_WRITE));
}

/* vcpu, gva, size of the integer: its value */
static int raw_linear_get(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint64_t value = 0;
  int status = luna_vcpu_copy(vcpu, (uint64_t)luaL_checkinteger(L, 2), &value,
                              (uint64_t)luaL_checkinteger(L, 3) & 15, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

/* vcpu, gva, size of the integer, value */
static int raw_linear_set(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint64_t value = (uint64_t)luaL_checkinteger(L, 4);
  return luna_push_done(L, luna_vcpu_copy(vcpu, (uint64_t)luaL_checkinteger(L, 2), &value,
                                          (uint64_t)luaL_checkinteger(L, 3) & 15, LUNA_WRITE));
}

/* vcpu, offset in the code segment: the bytes of code there, 16, 32 or 64 bits */
static int raw_code(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  luna_code code;
  int status = luna_vcpu_code(vcpu, (uint64_t)luaL_checkinteger(L, 2), &code);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushlstring(L, (const char *)code.bytes, code.size);
  lua_pushinteger(L, code.bits);
  return 2;
}

/* bytes, how many of them to leave out at the front, address, bits: size and text of the first
 * instruction */
static int raw_disassemble(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  size_t skip = (size_t)luaL_checkinteger(L, 2);
  luna_instruction found;
  int status = luna_disassemble(bytes + skip, size - skip, (uint64_t)luaL_checkinteger(L, 3),
                                (uint32_t)luaL_checkinteger(L, 4), &found);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, found.size);
  lua_pushstring(L, found.text);
  return 2;
}

const luaL_Reg luna_linear_functions[] = {
    {"translate", raw_translate},       {"linear_read", raw_linear_read},
    {"linear_write", raw_linear_write}, {"linear_get", raw_linear_get},
    {"linear_set", raw_linear_set},     {"code", raw_code},
    {"disassemble", raw_disassemble},   {NULL, NULL},
};
