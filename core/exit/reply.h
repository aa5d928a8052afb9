/* SPDX-License-Identifier: MIT
 * The open exit that an answer has been found for. */
#ifndef LUNA_REPLY_H
#define LUNA_REPLY_H

#include "lunavisor.h"

/* Goes on to the next element of a string I/O exit, or closes the exit. */
void luna_exit_next(luna_vcpu *vcpu);

#endif
