/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: the state of a vCPU beyond its numbered registers. */
#include "native.h"

const luaL_Reg luna_state_functions[] = {
    {NULL, NULL},
};
