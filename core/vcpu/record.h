/* SPDX-License-Identifier: MIT
 * The record of the exit at which a vCPU stands. */
#ifndef LUNA_RECORD_H
#define LUNA_RECORD_H

#include "lunavisor.h"

/* Starts a new exit record; returns the kind. */
int luna_exit_set(luna_vcpu *vcpu, luna_exit_kind kind);

#endif
