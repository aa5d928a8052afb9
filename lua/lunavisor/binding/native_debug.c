/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: breakpoints and single steps. */
#include "native.h"

#include <stdbool.h>

/* vcpu, deadline, answer to the open exit or nil: as raw.run, for one instruction */
static int raw_step(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  if (!lua_isnoneornil(L, 3) && !luna_give(L, vcpu, 3)) {
    return luna_push_bad_answer(L, vcpu);
  }
  return luna_push_exit(L, vcpu, luna_vcpu_step(vcpu, (uint64_t)lua_tonumber(L, 2)));
}

/* vcpu, kind, gva, size: its number */
static int raw_break_set(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint32_t number;
  int status =
      luna_vcpu_break(vcpu, (int)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3),
                      (uint32_t)luaL_checkinteger(L, 4), &number);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = number;
  lua_pushinteger(L, number);
  return 1;
}

static int raw_break_clear(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_unbreak(vcpu, (uint32_t)luaL_checkinteger(L, 2)));
}

/* vcpu, whether the gpa is wanted: the next instruction's linear address, and its gpa or nil */
static int raw_place(lua_State *L) {
  uint64_t gva;
  uint64_t gpa;
  bool both = lua_toboolean(L, 2);
  int status = luna_vcpu_place(luna_check_vcpu(L), &gva, both ? &gpa : NULL);
  if (status < 0 && status != LUNA_ERROR_NOT_FOUND) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)gva);
  if (status < 0 || !both) {
    lua_pushnil(L);
  } else {
    lua_pushinteger(L, (lua_Integer)gpa);
  }
  return 2;
}

/* the number of the breakpoint that the vCPU stands at, 0 for none, and DR6 */
static int raw_break_met(lua_State *L) {
  const luna_exit *e = luna_vcpu_exit(luna_check_vcpu(L));
  lua_pushinteger(L, e->breakpoint);
  lua_pushinteger(L, e->dr6);
  return 2;
}

const luaL_Reg luna_debug_functions[] = {
    {"step", raw_step},   {"break_set", raw_break_set}, {"break_clear", raw_break_clear},
    {"place", raw_place}, {"break_met", raw_break_met}, {NULL, NULL},
};
