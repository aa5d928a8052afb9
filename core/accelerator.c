/* SPDX-License-Identifier: MIT
 * The choice between KVM and the software CPU. */
#include "accelerator.h"

#include "base/error.h"
#include "kvm/kvm.h"
#ifdef LUNA_SOFT
#include "soft/soft.h"
#endif

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int status;

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static int use_software(void) {
#ifdef LUNA_SOFT
  luna_kvm_set_own(&luna_soft_table);
  return LUNA_OK;
#else
  return LUNA_ERROR_UNSUPPORTED;
#endif
}

static void choose(void) {
  const char *wanted = variable("LUNA_ACCEL");
  bool automatic = !*wanted || strcmp(wanted, "auto") == 0;
  if (strcmp(wanted, "soft") == 0) {
    status = use_software();
  } else if (!automatic && strcmp(wanted, "kvm") != 0) {
    status = LUNA_ERROR_ARGUMENT;
  } else if (automatic && !*variable("LUNA_KVM_DEVICE") &&
             access(luna_kvm_device(), R_OK | W_OK) != 0) {
    use_software(); /* where there is none, opening the device says why */
  }
}

int luna_accelerator_choose(void) {
  pthread_once(&once, choose);
  switch (status) {
    case LUNA_ERROR_ARGUMENT:
      return luna_fail(status, "LUNA_ACCEL is '%s': it can be kvm, soft or auto",
                       variable("LUNA_ACCEL"));
    case LUNA_ERROR_UNSUPPORTED:
      return luna_fail(status, "there is no software CPU in this build of the library: it was made "
                               "without Zydis (Debian: libzydis-dev)");
    default:
      return LUNA_OK;
  }
}
