/* SPDX-License-Identifier: MIT
 * Port writes that signal. */
#ifndef HVF_NOTIFIER_H
#define HVF_NOTIFIER_H

#include <stdbool.h>
#include <stdint.h>

/* How many ports there are whose writes do not signal by themselves; read without the lock. */
extern _Atomic uint32_t hvf_notifier_watches;
/* Whether a port write that is about to exit has signalled instead. Any thread. */
bool hvf_notifier_take(uint16_t addr, uint32_t size, uint64_t value);
/* Forgets all of them, with the VM. The lock is held. */
void hvf_notifier_drop_all(void);

#endif
