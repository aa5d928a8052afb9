/* SPDX-License-Identifier: MIT
 * Descriptors for the characters of devices: what they refuse, and that none of them waits.
 * spec/device/channel_spec.lua has the rest, with real clients. */
#include "fixture/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static void mistakes_are_told(void) {
  int32_t fd = -1;
  CHECK_EQ(luna_stream_tcp("here", 0, &fd), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_tcp("127.0.0.1", 0, NULL), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_unix("", &fd), LUNA_ERROR_ARGUMENT);
  char path[200];
  memset(path, 'x', sizeof path - 1);
  path[sizeof path - 1] = 0;
  CHECK_EQ(luna_stream_unix(path, &fd), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_open("/dev/null", 3, &fd), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_share(-1, &fd), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_read(0, path, 0), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_write(1, path, 0), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_stream_terminal(-1, path, sizeof path), LUNA_ERROR_SYSTEM);
  CHECK_EQ(fd, -1);
}

static void a_listener_does_not_wait(void) {
  int32_t fd, client = 0;
  uint32_t port = 0;
  CHECK_EQ(luna_stream_tcp("127.0.0.1", 0, &fd), LUNA_OK);
  CHECK_EQ(luna_stream_port(fd, &port), LUNA_OK);
  CHECK(port > 0);
  CHECK_EQ(luna_stream_accept(fd, &client), LUNA_OK);
  CHECK_EQ(client, -1);
  luna_stream_close(fd);
}

static void a_terminal_has_nobody_at_first(void) {
  int32_t fd;
  char name[64], text[8];
  CHECK_EQ(luna_stream_pty(&fd), LUNA_OK);
  CHECK_EQ(luna_stream_terminal(fd, name, sizeof name), LUNA_OK);
  int other = open(name, O_RDWR | O_NOCTTY);
  CHECK(other >= 0);
  CHECK_EQ(luna_stream_write(fd, "hello", 5), 5);
  CHECK_EQ(read(other, text, sizeof text), 5);
  CHECK_EQ(luna_stream_read(fd, text, sizeof text), LUNA_ERROR_BUSY); /* no echo */
  close(other);
  CHECK_EQ(luna_stream_read(fd, text, sizeof text), 0);
  CHECK_EQ(luna_stream_write(fd, "hello", 5), LUNA_ERROR_NOT_FOUND);
  luna_stream_close(fd);
}

static void what_is_shared_keeps_its_flags(void) {
  int ends[2];
  int32_t fd;
  char data[4096] = {0};
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(luna_stream_share(ends[1], &fd), LUNA_OK);
  int status;
  while ((status = luna_stream_write(fd, data, sizeof data)) > 0) {
  }
  CHECK_EQ(status, LUNA_ERROR_BUSY);
  CHECK_EQ(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
  close(ends[0]);
  CHECK_EQ(luna_stream_write(fd, data, 1), LUNA_ERROR_NOT_FOUND); /* and no SIGPIPE */
  luna_stream_close(fd);
  close(ends[1]);
}

static void waits_end(void) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(luna_stream_wait(ends[0], 1000000), 0);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(luna_stream_wait(ends[0], UINT64_MAX), 1);
  close(ends[0]);
  CHECK_EQ(luna_stream_wait(ends[0], 0), LUNA_ERROR_ARGUMENT);
  close(ends[1]);
}

static void a_descriptor_becomes_another(void) {
  int ends[2], other[2], fd;
  char text[2];
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(pipe(other), 0);
  CHECK_EQ(luna_stream_replace(ends[1], other[1]), LUNA_OK);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(read(other[0], text, sizeof text), 1);
  CHECK_EQ(luna_stream_replace(ends[1], -1), LUNA_ERROR_SYSTEM);
  CHECK_EQ(luna_stream_is_terminal(ends[0]), 0);
  CHECK_EQ(luna_stream_pty(&fd), LUNA_OK);
  CHECK_EQ(luna_stream_is_terminal(fd), 1);
  luna_stream_close(fd);
  for (int i = 0; i < 2; i++) {
    close(ends[i]);
    close(other[i]);
  }
}

static volatile sig_atomic_t interrupts;

static void interrupted(int number) {
  signal(number, SIG_IGN);
  interrupts++;
}

static void ctrl_c_comes_more_than_once(void) {
  signal(SIGINT, interrupted);
  luna_interrupt_renew();
  for (int i = 0; i < 3; i++) {
    raise(SIGINT);
    raise(SIGINT);
    CHECK_EQ(interrupts, i + 1);
    luna_interrupt_renew();
  }
  signal(SIGINT, SIG_DFL);
}

int main(void) {
  RUN(waits_end);
  RUN(a_descriptor_becomes_another);
  RUN(ctrl_c_comes_more_than_once);
  RUN(mistakes_are_told);
  RUN(a_listener_does_not_wait);
  RUN(a_terminal_has_nobody_at_first);
  RUN(what_is_shared_keeps_its_flags);
  return test_end();
}
