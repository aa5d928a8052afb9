/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: vCPUs on threads of their own. */
#include "native.h"

const luaL_Reg luna_thread_functions[] = {
    {NULL, NULL},
};
