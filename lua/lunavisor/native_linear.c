/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: guest-linear addresses and disassembly. */
#include "native.h"

const luaL_Reg luna_linear_functions[] = {
    {NULL, NULL},
};
