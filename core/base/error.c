/* SPDX-License-Identifier: MIT
 * Thread-local error message and errno; the names of the statuses. */
#include "base/error.h"

#include "lunavisor.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[sizeof((luna_failure *)NULL)->message];
static _Thread_local int number_of_error;
static _Thread_local int status_of_error;

luna_failure luna_failure_take(void) {
  luna_failure failure = {.number = number_of_error, .status = status_of_error};
  memcpy(failure.message, message, sizeof message);
  return failure;
}

void luna_failure_put(const luna_failure *failure) {
  memcpy(message, failure->message, sizeof message);
  number_of_error = failure->number;
  status_of_error = failure->status;
}

const char *luna_error_message(void) {
  return message;
}

int luna_error_copy(char *text, size_t size) {
  size_t length = strnlen(message, size - 1);
  memcpy(text, message, length);
  text[length] = '\0';
  return (int)length;
}

int luna_error_number(void) {
  return number_of_error;
}

int luna_error_status(void) {
  return status_of_error;
}

static const char *const status_names[] = {
    "ok",    "argument", "range",       "overlap", "not_found", "state",  "busy",
    "limit", "memory",   "unsupported", "no_kvm",  "access",    "system",
};

const char *luna_status_name(int status) {
  int count = (int)(sizeof status_names / sizeof *status_names);
  return status <= 0 && -status < count ? status_names[-status] : NULL;
}

int luna_fail(luna_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  number_of_error = 0;
  status_of_error = status;
  return status;
}

const char luna_error_foreign[] =
    "KVM ties a VM to the process that made it, and this one was forked from it; make a VM of its "
    "own here";
void luna_error_repeat(int status, int number, const char *text) {
  snprintf(message, sizeof message, "%s", text);
  number_of_error = number;
  status_of_error = status;
}

static luna_status status_of_errno(int number) {
  switch (number) {
    case EBUSY:
      return LUNA_ERROR_BUSY;
    case ENOMEM:
      return LUNA_ERROR_MEMORY;
    case ENOSPC:
    case EMFILE:
    case ENFILE:
      return LUNA_ERROR_LIMIT;
    case EACCES:
    case EPERM:
      return LUNA_ERROR_ACCESS;
    case ENOSYS:
    case ENOTTY:
    case EOPNOTSUPP:
      return LUNA_ERROR_UNSUPPORTED;
    default:
      return LUNA_ERROR_SYSTEM;
  }
}

/* In a child of fork(), KVM answers every call on the VMs of the parent with EIO. */
static volatile bool forked;
static pthread_once_t watched = PTHREAD_ONCE_INIT;

static void on_fork(void) {
  forked = true;
}

static void watch(void) {
  pthread_atfork(NULL, NULL, on_fork);
}

void luna_error_watch_fork(void) {
  pthread_once(&watched, watch);
}

int luna_fail_errno(int number, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  size_t used = (size_t)length < sizeof message ? (size_t)length : sizeof message - 1;
  bool foreign = number == EIO && forked;
  snprintf(message + used, sizeof message - used, ": %s",
           foreign ? luna_error_foreign : strerror(number));
  number_of_error = number;
  status_of_error = foreign ? LUNA_ERROR_STATE : status_of_errno(number);
  return status_of_error;
}
