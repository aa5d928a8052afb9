/* SPDX-License-Identifier: MIT
 * Software breakpoints: INT3 in guest memory. */
#ifndef LUNA_SOFTWARE_H
#define LUNA_SOFTWARE_H

#include "debug/debug.h"

/* All of a vCPU's, before it enters and after it has left. */
int luna_software_insert(luna_vcpu *vcpu);
void luna_software_remove(luna_vcpu *vcpu);
/* Puts a breakpoint among the others, in the order of their addresses; there is room. */
void luna_software_add(luna_debug *debug, luna_breakpoint *point);
/* The breakpoint at the address, or NULL. */
const luna_breakpoint *luna_software_at(const luna_debug *debug, uint64_t gva);
/* _UNSUPPORTED if the address leads to memory that nothing may be written to. */
int luna_software_check(luna_vcpu *vcpu, uint64_t gva);
/* The guest-physical address that code at a linear address is read from, as the registers
 * say; false if it leads nowhere. */
bool luna_software_translate(luna_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
/* Reads guest memory at a linear address, up to the end of its page: how many bytes. */
size_t luna_software_read(luna_vcpu *vcpu, uint64_t gva, uint8_t *bytes, size_t size);

#endif
