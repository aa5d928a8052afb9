/* SPDX-License-Identifier: MIT
 * The checks of a VM entry on what the program has written. */
#ifndef HVF_GUEST_H
#define HVF_GUEST_H

#include "hvf/base/cpu.h"

/* Whether the processor would enter a guest with these registers; hv_ext_error_message says which
 * rule they break. */
bool hvf_guest_check(hvf_vcpu *v);
/* The same of the controls, where one of those is on that go together with others. */
bool hvf_guest_check_controls(const hvf_vcpu *v);
/* The same of the event to inject. */
bool hvf_guest_check_event(const hvf_vcpu *v);
/* Makes hv_ext_error_message say why KVM has let an entry fail. */
void hvf_guest_explain(hvf_vcpu *v);

#endif
