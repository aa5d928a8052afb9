/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: eventfds, coalesced writes, traps in the core, MSR exits. */
#include "native.h"

const luaL_Reg luna_event_functions[] = {
    {NULL, NULL},
};
