/* SPDX-License-Identifier: MIT
 * Port writes that signal. */
#ifndef HVF_NOTIFIER_H
#define HVF_NOTIFIER_H

/* Forgets all of them, with the VM. The lock is held. */
void hvf_notifier_drop_all(void);

#endif
