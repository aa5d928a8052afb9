/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: the state of a vCPU beyond its numbered registers. */
#include "native.h"

enum {
  STATE_ROOM = 16384 /* enough for most hosts */
};

static uint32_t check_u32(lua_State *L, int index) {
  return (uint32_t)luaL_checkinteger(L, index);
}

/* vcpu, kind, index, size */
static int raw_get_vector(lua_State *L) {
  uint8_t bytes[64];
  luna_vcpu *vcpu = luna_check_vcpu(L);
  size_t size = (size_t)luaL_checkinteger(L, 4);
  int status =
      luna_vcpu_get_vector(vcpu, (int)luaL_checkinteger(L, 2), check_u32(L, 3), bytes, size);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushlstring(L, (const char *)bytes, size);
  return 1;
}

static int raw_set_vector(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 4, &size); /* makes a string of a number */
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(
      L, luna_vcpu_set_vector(vcpu, (int)luaL_checkinteger(L, 2), check_u32(L, 3), bytes, size));
}

static int raw_get_xsave(lua_State *L) {
  luaL_Buffer buffer;
  size_t size = luna_vcpu_xsave_size(luna_check_vcpu(L));
  char *area = luaL_buffinitsize(L, &buffer, size);
  int status = luna_vcpu_get_xsave(luna_check_vcpu(L), area, size);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luaL_pushresultsize(&buffer, size);
  return 1;
}

static int raw_set_xsave(lua_State *L) {
  size_t size;
  const char *area = luaL_checklstring(L, 2, &size);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_xsave(vcpu, area, size));
}

static int raw_get_msr(lua_State *L) {
  uint64_t value;
  luna_vcpu *vcpu = luna_check_vcpu(L);
  int status = luna_vcpu_get_msr(vcpu, check_u32(L, 2), &value);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static int raw_set_msr(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(
      L, luna_vcpu_set_msr(vcpu, check_u32(L, 2), (uint64_t)luaL_checkinteger(L, 3)));
}

static int raw_msr_name(lua_State *L) {
  lua_pushstring(L, luna_msr_name(check_u32(L, 1)));
  return 1;
}

static int raw_msr_find(lua_State *L) {
  uint32_t index;
  int status = luna_msr_find(luaL_checkstring(L, 1), &index);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, index);
  return 1;
}

static void set_u32(lua_State *L, const char *name, uint32_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

/* A list of tables with leaf, subleaf or nil, eax, ebx, ecx, edx. */
static int raw_cpuid(lua_State *L) {
  luna_cpuid answer;
  lua_newtable(L);
  for (uint32_t i = 0; luna_vcpu_cpuid_next(luna_check_vcpu(L), i, &answer) == LUNA_OK; i++) {
    lua_createtable(L, 0, 6);
    set_u32(L, "leaf", answer.leaf);
    if (answer.indexed) {
      set_u32(L, "subleaf", answer.subleaf);
    }
    set_u32(L, "eax", answer.eax);
    set_u32(L, "ebx", answer.ebx);
    set_u32(L, "ecx", answer.ecx);
    set_u32(L, "edx", answer.edx);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* Of the table on the stack; `there` says whether it has the field. */
static uint32_t get_u32(lua_State *L, const char *name, uint32_t *there) {
  lua_pushstring(L, name);
  *there = lua_rawget(L, -2) != LUA_TNIL;
  uint32_t value = (uint32_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

static int raw_set_cpuid(lua_State *L) {
  luaL_checktype(L, 2, LUA_TTABLE);
  size_t count = lua_rawlen(L, 2);
  luna_cpuid *answers = lua_newuserdatauv(L, (count + 1) * sizeof *answers, 0);
  for (size_t i = 0; i < count; i++) {
    uint32_t there;
    lua_rawgeti(L, 2, (lua_Integer)i + 1);
    answers[i].leaf = get_u32(L, "leaf", &there);
    answers[i].eax = get_u32(L, "eax", &there);
    answers[i].ebx = get_u32(L, "ebx", &there);
    answers[i].ecx = get_u32(L, "ecx", &there);
    answers[i].edx = get_u32(L, "edx", &there);
    answers[i].subleaf = get_u32(L, "subleaf", &answers[i].indexed);
    lua_pop(L, 1);
  }
  return luna_push_done(L, luna_vcpu_set_cpuid(luna_check_vcpu(L), answers, count));
}

static int raw_save(lua_State *L) {
  luaL_Buffer buffer;
  size_t room = STATE_ROOM;
  size_t size = room;
  char *state = luaL_buffinitsize(L, &buffer, room);
  int status = luna_vcpu_save(luna_check_vcpu(L), state, &size);
  if (status < 0 && size > room) {
    state = luaL_buffinitsize(L, &buffer, size);
    status = luna_vcpu_save(luna_check_vcpu(L), state, &size);
  }
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luaL_pushresultsize(&buffer, size);
  return 1;
}

static int raw_restore(lua_State *L) {
  size_t size;
  const char *state = luaL_checklstring(L, 2, &size);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_restore(vcpu, state, size));
}

static int raw_check(lua_State *L) {
  return luna_push_done(L, luna_vcpu_check(luna_check_vcpu(L)));
}

const luaL_Reg luna_state_functions[] = {
    {"get_vector", raw_get_vector},
    {"set_vector", raw_set_vector},
    {"get_xsave", raw_get_xsave},
    {"set_xsave", raw_set_xsave},
    {"get_msr", raw_get_msr},
    {"set_msr", raw_set_msr},
    {"msr_name", raw_msr_name},
    {"msr_find", raw_msr_find},
    {"cpuid", raw_cpuid},
    {"set_cpuid", raw_set_cpuid},
    {"save", raw_save},
    {"restore", raw_restore},
    {"check", raw_check},
    {NULL, NULL},
};
