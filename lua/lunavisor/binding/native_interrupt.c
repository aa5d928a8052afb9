/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: interrupts and their controllers. */
#include "native.h"

enum {
  CHIP_SIZE = 512
};

/* 1 or 0 as a boolean, or the failure. */
static int push_flag(lua_State *L, int status) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushboolean(L, status);
  return 1;
}

static uint32_t number(lua_State *L, int index) {
  return (uint32_t)luaL_checkinteger(L, index);
}

/* ---- To one vCPU ---- */

static int raw_interrupt_vector(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return push_flag(L, luna_vcpu_interrupt_vector(vcpu, number(L, 2)));
}

static int raw_interrupt_waiting(lua_State *L) {
  lua_pushinteger(L, luna_vcpu_interrupt_waiting(luna_check_vcpu(L)));
  return 1;
}

static int raw_nmi(lua_State *L) {
  return luna_push_done(L, luna_vcpu_nmi(luna_check_vcpu(L)));
}

static int raw_smi(lua_State *L) {
  return luna_push_done(L, luna_vcpu_smi(luna_check_vcpu(L)));
}

static int raw_extint(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_extint(vcpu, number(L, 2)));
}

static int raw_window(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_window(vcpu, number(L, 2)));
}

static int raw_get_blocking(lua_State *L) {
  uint32_t blocking;
  int status = luna_vcpu_get_blocking(luna_check_vcpu(L), &blocking);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, blocking);
  return 1;
}

static int raw_set_blocking(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_blocking(vcpu, number(L, 2)));
}

/* ---- Through the VM's controllers ---- */

/* vm, line, level */
static int raw_irq(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_irq(vm, number(L, 2), number(L, 3)));
}

/* vm, address, data */
static int raw_msi(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return push_flag(L, luna_vm_msi(vm, (uint64_t)luaL_checkinteger(L, 2), number(L, 3)));
}

static uint64_t field(lua_State *L, int index) {
  lua_rawgeti(L, -1, index);
  uint64_t value = (uint64_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return value;
}

/* vm, a list of routes, each line, whether it is a message, address, data, chip, pin */
static int raw_route(lua_State *L) {
  size_t count = lua_rawlen(L, 2);
  luna_route *routes = lua_newuserdatauv(L, (count + 1) * sizeof *routes, 0);
  luna_vm *vm = luna_check_vm(L);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 2, (lua_Integer)i + 1);
    routes[i] = (luna_route){
        .line = (uint32_t)field(L, 1),
        .is_message = (uint32_t)field(L, 2),
        .address = field(L, 3),
        .data = (uint32_t)field(L, 4),
        .chip = (uint32_t)field(L, 5),
        .pin = (uint32_t)field(L, 6),
    };
    lua_pop(L, 1);
  }
  return luna_push_done(L, luna_vm_route(vm, routes, count));
}

/* vm, line, descriptor, descriptor of the end of the interrupt or -1, 1 or 0 */
static int raw_irqfd(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  uint32_t on = number(L, 5);
  int status = luna_vm_irqfd(vm, number(L, 2), (int)luaL_checkinteger(L, 3),
                             (int)luaL_checkinteger(L, 4), on);
  luna_made = status >= 0 && on ? 1 : luna_made;
  return luna_push_done(L, status);
}

static int raw_get_chip(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  char state[CHIP_SIZE];
  int status = luna_vm_get_chip(vm, (int)luaL_checkinteger(L, 2), state);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushlstring(L, state, sizeof state);
  return 1;
}

static int raw_set_chip(lua_State *L) {
  size_t size;
  const char *state = luaL_checklstring(L, 3, &size);
  luna_vm *vm = luna_check_vm(L);
  luaL_argcheck(L, size == CHIP_SIZE, 3, "512 bytes expected");
  return luna_push_done(L, luna_vm_set_chip(vm, (int)luaL_checkinteger(L, 2), state));
}

static int raw_set_apic_frequency(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_set_apic_frequency(vm, (uint64_t)luaL_checkinteger(L, 2)));
}

static int raw_get_apic_frequency(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_vm_apic_frequency(luna_check_vm(L)));
  return 1;
}

/* ---- LAPIC ---- */

static int raw_get_apic(lua_State *L) {
  char page[LUNA_APIC_SIZE];
  int status = luna_vcpu_get_apic(luna_check_vcpu(L), page);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushlstring(L, page, sizeof page);
  return 1;
}

static int raw_set_apic(lua_State *L) {
  size_t size;
  const char *page = luaL_checklstring(L, 2, &size);
  luna_vcpu *vcpu = luna_check_vcpu(L);
  luaL_argcheck(L, size == LUNA_APIC_SIZE, 2, "1024 bytes expected");
  return luna_push_done(L, luna_vcpu_set_apic(vcpu, page));
}

static int raw_read_apic(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  uint32_t value;
  int status = luna_vcpu_read_apic(vcpu, number(L, 2), &value);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, value);
  return 1;
}

static int raw_write_apic(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_write_apic(vcpu, number(L, 2), number(L, 3)));
}

static int raw_fire_timer(lua_State *L) {
  return push_flag(L, luna_vcpu_fire_timer(luna_check_vcpu(L)));
}

static int raw_get_mp_state(lua_State *L) {
  uint32_t state;
  int status = luna_vcpu_get_mp_state(luna_check_vcpu(L), &state);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, state);
  return 1;
}

static int raw_set_mp_state(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_mp_state(vcpu, number(L, 2)));
}

static int raw_sipi(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_sipi(vcpu, number(L, 2)));
}

/* ---- Time-stamp counter ---- */

static int raw_get_tsc_frequency(lua_State *L) {
  uint32_t kilohertz;
  int status = luna_vcpu_get_tsc_frequency(luna_check_vcpu(L), &kilohertz);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, kilohertz);
  return 1;
}

static int raw_set_tsc_frequency(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_tsc_frequency(vcpu, number(L, 2)));
}

static int raw_get_tsc_offset(lua_State *L) {
  int64_t offset;
  int status = luna_vcpu_get_tsc_offset(luna_check_vcpu(L), &offset);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, offset);
  return 1;
}

static int raw_set_tsc_offset(lua_State *L) {
  luna_vcpu *vcpu = luna_check_vcpu(L);
  return luna_push_done(L, luna_vcpu_set_tsc_offset(vcpu, luaL_checkinteger(L, 2)));
}

static int raw_sync_tsc(lua_State *L) {
  luna_vm *vm = luna_check_vm(L);
  return luna_push_done(L, luna_vm_sync_tsc(vm, (uint64_t)luaL_checkinteger(L, 2)));
}

const luaL_Reg luna_interrupt_functions[] = {
    {"interrupt_vector", raw_interrupt_vector},
    {"interrupt_waiting", raw_interrupt_waiting},
    {"nmi", raw_nmi},
    {"smi", raw_smi},
    {"extint", raw_extint},
    {"window", raw_window},
    {"get_blocking", raw_get_blocking},
    {"set_blocking", raw_set_blocking},
    {"irq", raw_irq},
    {"msi", raw_msi},
    {"route", raw_route},
    {"irqfd", raw_irqfd},
    {"get_chip", raw_get_chip},
    {"set_chip", raw_set_chip},
    {"set_apic_frequency", raw_set_apic_frequency},
    {"get_apic_frequency", raw_get_apic_frequency},
    {"get_apic", raw_get_apic},
    {"set_apic", raw_set_apic},
    {"read_apic", raw_read_apic},
    {"write_apic", raw_write_apic},
    {"fire_timer", raw_fire_timer},
    {"get_mp_state", raw_get_mp_state},
    {"set_mp_state", raw_set_mp_state},
    {"sipi", raw_sipi},
    {"get_tsc_frequency", raw_get_tsc_frequency},
    {"set_tsc_frequency", raw_set_tsc_frequency},
    {"get_tsc_offset", raw_get_tsc_offset},
    {"set_tsc_offset", raw_set_tsc_offset},
    {"sync_tsc", raw_sync_tsc},
    {NULL, NULL},
};
