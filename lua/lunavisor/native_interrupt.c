/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: interrupts and their controllers. */
#include "native.h"

const luaL_Reg luna_interrupt_functions[] = {
    {NULL, NULL},
};
