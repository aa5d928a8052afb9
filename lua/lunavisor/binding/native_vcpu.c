/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: vCPUs. */
#include "native.h"

/* vm, mode, rip, rsp, system area or nil to allocate one, 1 to wait for INIT and SIPI */
static int raw_vcpu_create(lua_State *L) {
  luna_vcpu_options options = {
      .mode = (uint32_t)luaL_checkinteger(L, 2),
      .rip = (uint64_t)luaL_checkinteger(L, 3),
      .rsp = (uint64_t)luaL_checkinteger(L, 4),
      .system = (uint64_t)luaL_optinteger(L, 5, (lua_Integer)LUNA_SYSTEM_ALLOCATE),
      .wait = (uint32_t)luaL_optinteger(L, 6, 0),
  };
  luna_handle *h = luna_new_handle(L, HANDLE_VCPU);
  luna_vcpu *vcpu;
  int status = luna_vcpu_create(luna_check_vm(L), &options, &vcpu);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  h->object = vcpu;
  return 1;
}

/* vcpu, deadline, answer to the open exit or nil; false, trap, offset, size of the open exit where
 * that cannot be the answer */
static int raw_run(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  if (!lua_isnoneornil(L, 3) && !luna_give(L, vcpu, 3)) {
    return luna_push_bad_answer(L, vcpu);
  }
  return luna_push_exit(L, vcpu, luna_vcpu_run(vcpu, (uint64_t)lua_tonumber(L, 2)));
}

/* The same for a vCPU that is started and has no thread; 0 where it cannot be run here now. */
static int raw_run_here(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  if (!lua_isnoneornil(L, 3) && !luna_give(L, vcpu, 3)) {
    return luna_push_bad_answer(L, vcpu);
  }
  int kind = luna_vcpu_run_here(vcpu, (uint64_t)lua_tonumber(L, 2));
  if (kind == 0) {
    lua_pushinteger(L, 0);
    lua_pushinteger(L, 0);
    return 2;
  }
  return luna_push_exit(L, vcpu, kind);
}

static int raw_answer(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  int status = luna_vcpu_answer(vcpu, (uint64_t)luaL_optinteger(L, 2, 0));
  return status < 0 ? luna_push_failure(L, status) : 0;
}

static int raw_retry(lua_State *L) {
  return luna_push_done(L, luna_vcpu_retry(luna_check_vcpu(L)));
}

static int raw_drop(lua_State *L) {
  return luna_push_done(L, luna_vcpu_drop(luna_check_vcpu(L)));
}

/* Whether the last exit waits for an answer. */
static int raw_exit_open(lua_State *L) {
  lua_pushboolean(L, luna_vcpu_open(luna_check_vcpu(L)) != 0);
  return 1;
}

/* The kind of a further exit, or 0. */
static int raw_finish(lua_State *L) {
  int kind = luna_vcpu_finish(luna_check_vcpu(L));
  if (kind < 0) {
    return luna_push_failure(L, kind);
  }
  lua_pushinteger(L, kind);
  return 1;
}

static int raw_interrupt(lua_State *L) {
  luna_vcpu_interrupt(luna_check_vcpu(L));
  return 0;
}

static int raw_disarm(lua_State *L) {
  luna_vcpu_disarm(luna_check_vcpu(L));
  return 0;
}

static int raw_vcpu_id(lua_State *L) {
  lua_pushinteger(L, luna_vcpu_id(luna_check_vcpu(L)));
  return 1;
}

static int raw_vcpu_system(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_vcpu_system(luna_check_vcpu(L)));
  return 1;
}

static int raw_vcpu_space(lua_State *L) {
  lua_pushinteger(L, luna_vcpu_space(luna_check_vcpu(L)));
  return 1;
}

static int raw_set_space(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_space(vcpu, (uint32_t)luaL_checkinteger(L, 2),
                                               (uint32_t)luaL_checkinteger(L, 3)));
}

/* vcpu, vector, error code, address */
static int raw_inject(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_inject(vcpu, (uint32_t)luaL_checkinteger(L, 2),
                                            (uint32_t)luaL_checkinteger(L, 3),
                                            (uint64_t)luaL_checkinteger(L, 4)));
}

static int raw_vcpu_exits(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_vcpu_exits(luna_check_vcpu(L)));
  return 1;
}

static void set_field(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static int raw_exit(lua_State *L) {
  const luna_exit exit = *luna_vcpu_exit(luna_check_vcpu(L));
  const luna_exit *e = &exit;
  lua_createtable(L, 0, 16);
  set_field(L, "kind", e->kind);
  set_field(L, "trap", e->trap);
  set_field(L, "address", e->address);
  set_field(L, "offset", e->offset);
  set_field(L, "value", e->value);
  set_field(L, "size", e->size);
  set_field(L, "access", e->access);
  set_field(L, "reason", e->reason);
  set_field(L, "space", e->space);
  set_field(L, "suberror", e->suberror);
  set_field(L, "vector", e->vector);
  set_field(L, "error_code", e->error_code);
  set_field(L, "count", e->count);
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
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint64_t value;
  int status = luna_vcpu_get(vcpu, (int)luaL_checkinteger(L, 2), &value);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static int raw_set(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(
      L, luna_vcpu_set(vcpu, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)));
}

const luaL_Reg luna_vcpu_functions[] = {
    {"vcpu_create", raw_vcpu_create},
    {"run", raw_run},
    {"run_here", raw_run_here},
    {"answer", raw_answer},
    {"retry", raw_retry},
    {"drop", raw_drop},
    {"exit_open", raw_exit_open},
    {"finish", raw_finish},
    {"interrupt", raw_interrupt},
    {"disarm", raw_disarm},
    {"vcpu_id", raw_vcpu_id},
    {"vcpu_space", raw_vcpu_space},
    {"set_space", raw_set_space},
    {"inject", raw_inject},
    {"vcpu_system", raw_vcpu_system},
    {"vcpu_exits", raw_vcpu_exits},
    {"exit", raw_exit},
    {"get", raw_get},
    {"set", raw_set},
    {NULL, NULL},
};
