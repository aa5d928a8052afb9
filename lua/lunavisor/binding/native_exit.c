/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: blocks of string I/O, names of KVM's exits, time spent in the guest,
 * the last exits and exceptions. */
#include "native.h"

#include <string.h>

/* vcpu: how many elements of a string are left, with the open one; 0 where none is open */
static int raw_block_count(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint8_t *data;
  uint32_t size = luna_vcpu_block(vcpu, &data);
  lua_pushinteger(L, size ? luna_vcpu_exit(vcpu)->count : 0);
  return 1;
}

/* vcpu: the bytes of those elements */
static int raw_block_read(lua_State *L) {
  uint8_t *data = NULL;
  uint32_t size = luna_vcpu_block(luna_check_vcpu(L), &data);
  lua_pushlstring(L, (const char *)data, size);
  return 1;
}

/* vcpu, bytes for a read, of that size, or nil */
static int raw_block_answer(lua_State *L) {
  size_t length;
  const char *bytes = luaL_optlstring(L, 2, NULL, &length);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint8_t *data;
  uint32_t size = luna_vcpu_block(vcpu, &data);
  if (bytes && size) {
    luaL_argcheck(L, length == size, 2, "as many bytes as the block has expected");
    memcpy(data, bytes, size);
  }
  return luna_push_done(L, luna_vcpu_answer_block(vcpu));
}

static int raw_reason_name(lua_State *L) {
  lua_pushstring(L, luna_reason_name((uint32_t)luaL_checkinteger(L, 1)));
  return 1;
}

static int raw_reason_text(lua_State *L) {
  lua_pushstring(L, luna_reason_text((uint32_t)luaL_checkinteger(L, 1)));
  return 1;
}

/* vcpu, whether to count */
static int raw_account(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_account(vcpu, (uint32_t)lua_toboolean(L, 2)));
}

/* vcpu: nanoseconds in the guest, and of these halted */
static int raw_time(lua_State *L) {
  uint64_t exec_time;
  uint64_t idle_time;
  int status = luna_vcpu_time(luna_check_vcpu(L), &exec_time, &idle_time);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)exec_time);
  lua_pushinteger(L, (lua_Integer)idle_time);
  return 2;
}

static int raw_mark(lua_State *L) {
  luna_vcpu_mark(luna_check_vcpu(L));
  return 0;
}

/* vcpu, number of a register: what was kept of it, nil where that is nothing */
static int raw_marked(lua_State *L) {
  uint64_t value;
  int reg = (int)luaL_checkinteger(L, 2);
  if (luna_vcpu_marked(luna_check_vcpu(L), reg, &value) < 0) {
    return 0;
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

static void set_number(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

/* vcpu, how many at most: a list of the last exits, the oldest first */
static int raw_last_exits(lua_State *L) {
  luna_last_exit list[LUNA_LAST_EXITS];
  uint32_t count;
  lua_Integer most = luaL_checkinteger(L, 2);
  int status = luna_vcpu_last_exits(
      luna_check_vcpu(L), list, most < LUNA_LAST_EXITS ? (uint32_t)most : LUNA_LAST_EXITS, &count);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = 0; i < count; i++) {
    const luna_last_exit *one = &list[i];
    lua_createtable(L, 0, 8);
    set_number(L, "serial", one->serial);
    set_number(L, "kind", one->kind);
    set_number(L, "address", one->address);
    set_number(L, "size", one->size);
    set_number(L, "access", one->access);
    if (one->known & LUNA_KNOWN_RIP) {
      set_number(L, "rip", one->rip);
    }
    if (one->known & LUNA_KNOWN_VALUE) {
      set_number(L, "value", one->value);
    }
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

typedef int exceptions_call(luna_vcpu *, luna_last_exception *, uint32_t, uint32_t *);

static int push_exceptions(lua_State *L, exceptions_call *ask) {
  luna_last_exception list[LUNA_LAST_EXCEPTIONS];
  uint32_t count;
  lua_Integer most = luaL_checkinteger(L, 2);
  int status = ask(luna_check_vcpu(L), list,
                   most < LUNA_LAST_EXCEPTIONS ? (uint32_t)most : LUNA_LAST_EXCEPTIONS, &count);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = 0; i < count; i++) {
    const luna_last_exception *one = &list[i];
    lua_createtable(L, 0, 13);
    set_number(L, "serial", one->serial);
    set_number(L, "rip", one->rip);
    set_number(L, "address", one->address);
    set_number(L, "met_address", one->met_address);
    set_number(L, "error", one->error);
    set_number(L, "met_error", one->met_error);
    set_number(L, "vector", one->vector);
    set_number(L, "met", one->met);
    set_number(L, "source", one->source);
    set_number(L, "stage", one->stage);
    set_number(L, "cs", one->cs);
    set_number(L, "cpl", one->cpl);
    set_number(L, "flags", one->flags);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* vcpu, how many at most: a list of the last exceptions and interrupts, the oldest first */
static int raw_last_exceptions(lua_State *L) {
  return push_exceptions(L, luna_vcpu_last_exceptions);
}

/* the same where a triple fault was the last exit */
static int raw_triple_fault(lua_State *L) {
  return push_exceptions(L, luna_vcpu_triple_fault);
}

static int raw_hypercalls(lua_State *L) {
  return luna_push_done(L, luna_vm_hypercalls(luna_check_vm(L)));
}

const luaL_Reg luna_exit_functions[] = {
    {"block_count", raw_block_count},
    {"block_read", raw_block_read},
    {"block_answer", raw_block_answer},
    {"reason_name", raw_reason_name},
    {"reason_text", raw_reason_text},
    {"account", raw_account},
    {"time", raw_time},
    {"last_exits", raw_last_exits},
    {"mark", raw_mark},
    {"marked", raw_marked},
    {"last_exceptions", raw_last_exceptions},
    {"triple_fault", raw_triple_fault},
    {"hypercalls", raw_hypercalls},
    {NULL, NULL},
};
