/* SPDX-License-Identifier: MIT
 * Finding the port instruction that exited. */
#ifndef HVF_PORT_H
#define HVF_PORT_H

#include "hvf/base/cpu.h"

/* Where RIP stands at a port exit. */
typedef enum hvf_place {
  HVF_PLACE_UNKNOWN,
  HVF_PLACE_AT,    /* at the instruction */
  HVF_PLACE_BEHIND /* behind it */
} hvf_place;

/* Finds the port instruction of the exit around `rip`. */
hvf_place hvf_port_find(hvf_vcpu *v, const luna_exit *e, uint64_t rip, hvf_port *port);
/* The same where it is known to end at `end`; false if there is none. */
bool hvf_port_before(hvf_vcpu *v, const luna_exit *e, uint64_t end, hvf_port *port);

#endif
