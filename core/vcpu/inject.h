/* SPDX-License-Identifier: MIT
 * Letting the guest take an exception. */
#ifndef LUNA_INJECT_H
#define LUNA_INJECT_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the exception pushes an error code. */
bool luna_exception_has_code(uint32_t vector);

#endif
