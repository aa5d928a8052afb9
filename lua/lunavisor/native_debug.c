/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: breakpoints and single steps. */
#include "native.h"

const luaL_Reg luna_debug_functions[] = {
    {NULL, NULL},
};
