/* SPDX-License-Identifier: MIT
 * What a failed call leaves behind: a status, a sentence and an errno, for the calling thread. */
#ifndef LUNA_ERROR_H
#define LUNA_ERROR_H

#include "lunavisor.h"

/* Records the message (printf format) and returns `status`, so that a check reads
 * `return luna_fail(LUNA_ERROR_RANGE, ...)`. */
int luna_fail(luna_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a refused system call: the errno `number` chooses the status, its text is
 * appended. */
int luna_fail_errno(int number, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Why KVM answers EIO after a fork(); luna_fail_errno says it too, in a child that was forked after
 * luna_error_watch_fork. */
extern const char luna_error_foreign[];
void luna_error_watch_fork(void);
/* Makes what failed on another thread this thread's last failure. */
void luna_error_repeat(int status, int number, const char *text);
/* A failure of the calling thread, kept while further calls that may fail clean up behind it. */
typedef struct luna_failure {
  char message[512];
  int number;
  int status;
} luna_failure;

luna_failure luna_failure_take(void);
void luna_failure_put(const luna_failure *failure);

/* The status of the calling thread's last failure. */
int luna_error_status(void);

#endif
