/* SPDX-License-Identifier: MIT
 * Codes of the framework, and the sentence behind the last failure of each thread. */
#include "hvf/base/error.h"

#include <Hypervisor/hv_error.h>
#include <Hypervisor/hv_linux.h>

#include "lunavisor.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512] = "no call has failed in this thread";

const char *hv_ext_error_message(void) {
  return message;
}

hv_return_t hvf_fail(hv_return_t code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return code;
}

hv_return_t hvf_fail_no_vm(void) {
  return hvf_fail(HV_NO_DEVICE, "there is no VM in this process: call hv_vm_create first");
}

static hv_return_t code_of(int status) {
  switch (status) {
    case LUNA_ERROR_ARGUMENT:
    case LUNA_ERROR_RANGE:
    case LUNA_ERROR_NOT_FOUND:
      return HV_BAD_ARGUMENT;
    case LUNA_ERROR_OVERLAP:
    case LUNA_ERROR_BUSY:
      return HV_BUSY;
    case LUNA_ERROR_LIMIT:
    case LUNA_ERROR_MEMORY:
      return HV_NO_RESOURCES;
    case LUNA_ERROR_UNSUPPORTED:
    case LUNA_ERROR_NO_KVM:
      return HV_UNSUPPORTED;
    case LUNA_ERROR_ACCESS:
      return HV_DENIED;
    default:
      return HV_ERROR;
  }
}

hv_return_t hvf_fail_status(int status) {
  return hvf_fail(code_of(status), "%s", luna_error_message());
}
