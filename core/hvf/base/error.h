/* SPDX-License-Identifier: MIT
 * Failures: a code of the framework's with a sentence for hv_ext_error_message. */
#ifndef HVF_ERROR_H
#define HVF_ERROR_H

#include <Hypervisor/hv_error.h>

/* Records the sentence for hv_ext_error_message; returns `code`. */
__attribute__((format(printf, 2, 3))) hv_return_t hvf_fail(hv_return_t code, const char *format,
                                                           ...);
/* HV_NO_DEVICE. */
hv_return_t hvf_fail_no_vm(void);
/* The code for a luna_status that is a failure, with its message. */
hv_return_t hvf_fail_status(int status);

/* The same; HV_SUCCESS for one that is none. */
static inline hv_return_t hvf_status(int status) {
  return __builtin_expect(status >= 0, true) ? HV_SUCCESS : hvf_fail_status(status);
}

#endif
