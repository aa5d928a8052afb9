/* SPDX-License-Identifier: MIT
 * What a program at a terminal needs: to wait for a line without holding up the rest, to know
 * whether somebody is there, and Ctrl-C more than once. */
#include "base/error.h"

#include "lunavisor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

int luna_stream_wait(int32_t fd, uint64_t nanoseconds) {
  const uint64_t second = 1000000000;
  struct pollfd polled = {.fd = fd, .events = POLLIN};
  if (nanoseconds > INT32_MAX * second) {
    nanoseconds = INT32_MAX * second;
  }
  struct timespec left = {.tv_sec = (time_t)(nanoseconds / second),
                          .tv_nsec = (long)(nanoseconds % second)};
  int count = ppoll(&polled, 1, &left, NULL);
  if (count < 0 && errno != EINTR) {
    return luna_fail_errno(errno, "cannot wait for descriptor %d", fd);
  }
  if (count == 1 && polled.revents & POLLNVAL) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "descriptor %d is not open", fd);
  }
  return count == 1;
}

int luna_stream_is_terminal(int32_t fd) {
  return isatty(fd) == 1;
}

int luna_stream_replace(int32_t fd, int32_t by) {
  if (dup2(by, fd) < 0) {
    return luna_fail_errno(errno, "cannot put descriptor %d in the place of %d", by, fd);
  }
  return LUNA_OK;
}

/* ---- Ctrl-C ---- */

static pthread_once_t looked = PTHREAD_ONCE_INIT;
static struct sigaction first;
static struct sigaction guard; /* its handler is there where luna_interrupt_guard was called */
static volatile sig_atomic_t came;

static void look(void) {
  sigaction(SIGINT, NULL, &first);
}

/* SIGINT is blocked in here: none meets the default action that an interpreter's handler sets. */
static void on_interrupt(int number) {
  static const struct sigaction standard = {.sa_handler = SIG_DFL};
  if (came == 0) {
    first.sa_handler(number);
  }
  sigaction(SIGINT, came == 0 ? &guard : &standard, NULL);
  came = 1;
}

void luna_interrupt_renew(void) {
  pthread_once(&looked, look);
  came = 0;
  sigaction(SIGINT, guard.sa_handler ? &guard : &first, NULL);
}

void luna_interrupt_guard(void) {
  pthread_once(&looked, look);
  if (first.sa_flags & SA_SIGINFO || first.sa_handler == SIG_DFL || first.sa_handler == SIG_IGN) {
    return;
  }
  guard = first;
  guard.sa_flags &= ~(SA_NODEFER | (int)SA_RESETHAND);
  guard.sa_handler = on_interrupt;
  luna_interrupt_renew();
}
