/* SPDX-License-Identifier: MIT
 * The time-stamp counter of a seat, and setting it exactly. */
#ifndef LUNA_SEAT_TSC_H
#define LUNA_SEAT_TSC_H

#include "seat/seat.h"

/* All give 0, or -1 with errno: ENXIO where this KVM keeps no offset (KVM_VCPU_TSC_OFFSET), or lets
 * guests read the host's counter as it is. */

/* What the host's counter shows, in the units of the guest's; and the offset to it. */
int luna_seat_host_counter(const luna_seat *seat, uint64_t *counter, uint64_t *offset);
/* Any thread, with the vCPU out of the guest. A failed call changes nothing. */
int luna_seat_set_tsc_offset(luna_seat *seat, uint64_t offset);
/* Makes the counter show `tsc` from now on. ENXIO: it does not. */
int luna_seat_set_tsc(luna_seat *seat, uint64_t tsc);
/* Makes the target's counter go with the source's: by its offset to the host's, or where this KVM
 * does not tell it, by its value. A status. */
int luna_seat_copy_tsc(luna_seat *target, luna_seat *source);

#endif
