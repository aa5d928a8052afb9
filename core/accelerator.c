/* SPDX-License-Identifier: MIT
 * The choice between KVM and the software CPU, for each VM. */
#include "accelerator.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "memory/vm.h"
#ifdef LUNA_SOFT
#include "soft/soft.h"
#endif

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[LUNA_ACCEL_COUNT] = {"auto", "kvm", "soft"};

const char *luna_accelerator_name(int accel) {
  return accel >= 0 && accel < LUNA_ACCEL_COUNT ? names[accel] : NULL;
}

static void provide(void) {
#ifdef LUNA_SOFT
  luna_kvm_set_own(LUNA_ACCEL_SOFT, &luna_soft_table);
#endif
}

static void say(char reason[LUNA_REASON_SIZE], const char *text) {
  size_t length = strnlen(text, LUNA_REASON_SIZE - 1);
  memcpy(reason, text, length);
  reason[length] = '\0';
}

/* A path in the environment is a word for KVM. */
static bool device_is_named(void) {
  const char *path = getenv("LUNA_KVM_DEVICE");
  return path && *path;
}

/* What LUNA_ACCEL says, or a negative status. */
static int read_variable(void) {
  const char *value = getenv("LUNA_ACCEL");
  if (!value || !*value) {
    return LUNA_ACCEL_AUTO;
  }
  for (int accel = 0; accel < LUNA_ACCEL_COUNT; accel++) {
    if (strcmp(value, names[accel]) == 0) {
      return accel;
    }
  }
  return luna_fail(LUNA_ERROR_ARGUMENT, "LUNA_ACCEL is '%s': it can be kvm, soft or auto", value);
}

/* Whether KVM is not here for us, and not only this time. */
static bool is_absent(int status) {
  return status == LUNA_ERROR_NO_KVM || status == LUNA_ERROR_ACCESS || status == LUNA_ERROR_BUSY;
}

static int open_device(uint32_t accel) {
  if (luna_host_is_known(accel)) {
    return LUNA_OK;
  }
  luna_fd fd = luna_kvm_open(accel);
  if (fd.number < 0) {
    return fd.number;
  }
  luna_kvm_close(fd);
  return LUNA_OK;
}

static int fail_both(int status, const char *why) {
  return luna_fail((luna_status)status,
                   "%s; this build of the library has no software CPU in its place: it was made "
                   "without Zydis (Debian: libzydis-dev)",
                   why);
}

/* Without a word. */
static int find(char reason[LUNA_REASON_SIZE]) {
  int status = open_device(LUNA_ACCEL_KVM);
  if (status == LUNA_OK) {
    say(reason, luna_kvm_device());
    strncat(reason, " can be opened", LUNA_REASON_SIZE - strlen(reason) - 1);
    return LUNA_ACCEL_KVM;
  }
  if (!is_absent(status) || device_is_named()) {
    return status;
  }
  say(reason, luna_error_message());
  return luna_kvm_is_built(LUNA_ACCEL_SOFT) ? LUNA_ACCEL_SOFT : fail_both(status, reason);
}

int luna_accelerator_pick(uint32_t accel, char reason[LUNA_REASON_SIZE]) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, provide);
  if (accel >= LUNA_ACCEL_COUNT) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no accelerator %u", accel);
  }
  if (accel != LUNA_ACCEL_AUTO) {
    say(reason, "it was asked for");
    return (int)accel;
  }
  int wanted = read_variable();
  if (wanted == LUNA_ACCEL_AUTO) {
    return find(reason);
  }
  say(reason, wanted == LUNA_ACCEL_KVM ? "LUNA_ACCEL is kvm" : "LUNA_ACCEL is soft");
  return wanted;
}

const luna_host *luna_accelerator_host(uint32_t accel, char reason[LUNA_REASON_SIZE]) {
  int picked = luna_accelerator_pick(accel, reason);
  return picked < 0 ? NULL : luna_host_get((uint32_t)picked);
}

int luna_accelerator_choose(uint32_t accel, char *reason, size_t size) {
  char text[LUNA_REASON_SIZE];
  int picked = luna_accelerator_pick(accel, text);
  int status = picked < 0 ? picked : open_device((uint32_t)picked);
  if (status == LUNA_OK && size > 0) {
    size_t length = strnlen(text, size - 1);
    memcpy(reason, text, length);
    reason[length] = '\0';
  }
  return status == LUNA_OK ? picked : status;
}

uint32_t luna_vm_accelerator(const luna_vm *vm) {
  return vm->host->accel;
}

const char *luna_vm_accelerator_reason(const luna_vm *vm) {
  return vm->reason;
}
