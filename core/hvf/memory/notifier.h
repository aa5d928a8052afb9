/* SPDX-License-Identifier: MIT
 * Port writes that signal. */
#ifndef HVF_NOTIFIER_H
#define HVF_NOTIFIER_H

#include <stdbool.h>
#include <stdint.h>

/* Whether there are ports whose writes do not signal by themselves. Any thread. */
bool hvf_notifier_watches(void);
/* Whether a port write that is about to exit has signalled instead. Any thread. */
bool hvf_notifier_take(uint16_t addr, uint32_t size, uint64_t value);
/* Forgets all of them, with the VM. The lock is held. */
void hvf_notifier_drop_all(void);

#endif
