/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: vCPUs on threads of their own. */
#include "native.h"

static int raw_start(lua_State *L) {
  return luna_push_done(L, luna_vcpu_start(luna_check_vcpu(L)));
}

static int raw_start_here(lua_State *L) {
  return luna_push_done(L, luna_vcpu_start_here(luna_check_vcpu(L)));
}

/* Whether it is started and has no thread. */
static int raw_here(lua_State *L) {
  lua_pushboolean(L, luna_vcpu_here(luna_check_vcpu(L)) != 0);
  return 1;
}

static int raw_stop(lua_State *L) {
  return luna_push_done(L, luna_vcpu_stop(luna_check_vcpu(L)));
}

static int raw_pause(lua_State *L) {
  return luna_push_done(L, luna_vcpu_pause(luna_check_vcpu(L)));
}

static int raw_resume(lua_State *L) {
  return luna_push_done(L, luna_vcpu_resume(luna_check_vcpu(L)));
}

static int raw_started(lua_State *L) {
  lua_pushboolean(L, luna_vcpu_started(luna_check_vcpu(L)) != 0);
  return 1;
}

/* vm, deadline: kind, trap, offset, size, value, access, number of the vCPU; 0 where there is none;
 * nil, message, status name, number of the vCPU where its run failed */
static int raw_next(lua_State *L) {
  luna_vcpu *vcpu;
  int kind = luna_vm_next(luna_check_vm(L), (uint64_t)lua_tonumber(L, 2), &vcpu);
  if (kind == 0) {
    lua_pushinteger(L, 0);
    return 1;
  }
  if (!vcpu) {
    return luna_push_failure(L, kind);
  }
  uint32_t id = luna_vcpu_id(vcpu);
  int count = luna_push_exit(L, vcpu, kind);
  lua_pushinteger(L, id);
  return count + 1;
}

/* vcpu, answer to the open exit or nil */
static int raw_go(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  if (!lua_isnoneornil(L, 2)) {
    luna_vcpu_answer(vcpu, (uint64_t)lua_tointeger(L, 2));
  }
  return luna_push_done(L, luna_vcpu_go(vcpu));
}

static int raw_vm_fd(lua_State *L) {
  int fd = luna_vm_fd(luna_check_vm(L));
  if (fd < 0) {
    return luna_push_failure(L, fd);
  }
  lua_pushinteger(L, fd);
  return 1;
}

static int raw_alarm(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_alarm(vm, (uint64_t)luaL_checknumber(L, 2)));
}

const luaL_Reg luna_thread_functions[] = {
    {"start", raw_start},     {"start_here", raw_start_here},
    {"here", raw_here},       {"stop", raw_stop},
    {"pause", raw_pause},     {"resume", raw_resume},
    {"started", raw_started}, {"next", raw_next},
    {"go", raw_go},           {"vm_fd", raw_vm_fd},
    {"alarm", raw_alarm},     {NULL, NULL},
};
