/* SPDX-License-Identifier: MIT
 * Descriptors that characters come from and go to, none of which ever blocks: listeners and their
 * clients, pseudo-terminals, and what the process was given. */
#include "base/error.h"

#include "lunavisor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
  KIND = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
  WAITING = 4,       /* clients that wait to be accepted, or refused */
  CAREFUL = PIPE_BUF /* what a descriptor that may block takes at once when it says it has room */
};

void luna_stream_close(int32_t fd) {
  int number = errno;
  close(fd);
  errno = number;
}

/* ---- Listeners ---- */

typedef union address {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
  struct sockaddr_un path;
} address;

static socklen_t parse(const char *text, uint16_t port, address *to) {
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, text, &to->four.sin_addr) == 1) {
    to->four.sin_family = AF_INET;
    to->four.sin_port = htons(port);
    return sizeof to->four;
  }
  if (inet_pton(AF_INET6, text, &to->six.sin6_addr) == 1) {
    to->six.sin6_family = AF_INET6;
    to->six.sin6_port = htons(port);
    return sizeof to->six;
  }
  return 0;
}

/* A socket that listens there; -1 with errno. */
static int listener(const address *at, socklen_t length) {
  const int on = 1;
  int fd = socket(at->any.sa_family, KIND, 0);
  if (fd < 0) {
    return -1;
  }
  bool ok = at->any.sa_family == AF_UNIX
                ? fchmod(fd, 0600) == 0 /* of the file that bind makes */
                : setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0;
  if (!ok || bind(fd, &at->any, length) != 0 || listen(fd, WAITING) != 0) {
    luna_stream_close(fd);
    return -1;
  }
  return fd;
}

int luna_stream_tcp(const char *text, uint16_t port, int32_t *fd) {
  address at;
  if (!text || !fd) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_tcp: an address and a place expected");
  }
  socklen_t length = parse(text, port, &at);
  if (length == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot listen on '%s': a numeric IPv4 or IPv6 address, such as 127.0.0.1 or "
                     "::1, expected",
                     text);
  }
  int made = listener(&at, length);
  if (made < 0 && errno == EADDRINUSE) {
    return luna_fail(LUNA_ERROR_BUSY,
                     "cannot listen on port %u of %s: another program does; choose another port, "
                     "or 0 for any that is free",
                     port, text);
  }
  if (made < 0) {
    return luna_fail_errno(errno, "cannot listen on port %u of %s", port, text);
  }
  *fd = made;
  return LUNA_OK;
}

int luna_stream_port(int32_t fd, uint32_t *port) {
  address at = {0};
  socklen_t length = sizeof at;
  if (!port) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_port: a place expected");
  }
  if (getsockname(fd, &at.any, &length) != 0) {
    return luna_fail_errno(errno, "descriptor %d has no port", fd);
  }
  *port = ntohs(at.any.sa_family == AF_INET ? at.four.sin_port : at.six.sin6_port);
  return LUNA_OK;
}

/* Whether a socket of that path has been left behind by a process that is gone. */
static bool is_left(const address *at) {
  struct stat status;
  if (lstat(at->path.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return false;
  }
  int fd = socket(AF_UNIX, KIND, 0);
  bool left = fd >= 0 && connect(fd, &at->any, sizeof at->path) != 0 && errno == ECONNREFUSED;
  if (fd >= 0) {
    luna_stream_close(fd);
  }
  return left;
}

int luna_stream_unix(const char *path, int32_t *fd) {
  address at = {.path = {.sun_family = AF_UNIX}};
  if (!path || !fd || !*path || strlen(path) >= sizeof at.path.sun_path) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot listen on a Unix socket: a path of 1 to %zu bytes expected",
                     sizeof at.path.sun_path - 1);
  }
  memcpy(at.path.sun_path, path, strlen(path) + 1);
  int made = listener(&at, sizeof at.path);
  if (made < 0 && errno == EADDRINUSE && is_left(&at)) {
    unlink(path);
    made = listener(&at, sizeof at.path);
  }
  if (made < 0 && errno == EADDRINUSE) {
    return luna_fail(LUNA_ERROR_BUSY,
                     "cannot listen on %s: the file is there already, and no socket that its "
                     "owner has left; choose another path or remove it",
                     path);
  }
  if (made < 0) {
    return luna_fail_errno(errno, "cannot listen on %s", path);
  }
  *fd = made;
  return LUNA_OK;
}

int luna_stream_accept(int32_t at, int32_t *fd) {
  if (!fd) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_accept: a place expected");
  }
  int made = accept4(at, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (made < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
    return luna_fail_errno(errno, "cannot take a client of descriptor %d", at);
  }
  *fd = made;
  return LUNA_OK;
}

/* ---- Terminals, and what the process was given ---- */

int luna_stream_pty(int32_t *fd) {
  struct termios mode;
  if (!fd) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_pty: a place expected");
  }
  int made = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  bool ok = made >= 0 && grantpt(made) == 0 && unlockpt(made) == 0 && tcgetattr(made, &mode) == 0;
  if (ok) {
    cfmakeraw(&mode); /* of the terminal: its echo would be what the guest hears */
    ok = tcsetattr(made, TCSANOW, &mode) == 0;
  }
  if (!ok) {
    int status = luna_fail_errno(errno, "cannot make a pseudo-terminal");
    if (made >= 0) {
      close(made);
    }
    return status;
  }
  *fd = made;
  return LUNA_OK;
}

int luna_stream_terminal(int32_t fd, char *name, uint64_t size) {
  if (!name || size == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_terminal: room for a name expected");
  }
  int number = ptsname_r(fd, name, size);
  return number == 0 ? LUNA_OK : luna_fail_errno(number, "descriptor %d has no terminal", fd);
}

int luna_stream_open(const char *path, int way, int32_t *fd) {
  static const int flags[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC,
                              O_WRONLY | O_CREAT | O_APPEND};
  struct stat status;
  if (!path || !fd || way < LUNA_STREAM_INPUT || way > LUNA_STREAM_APPEND) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_open: a path, a way and a place expected");
  }
  bool fifo = stat(path, &status) == 0 && S_ISFIFO(status.st_mode);
  int made = open(path, (fifo ? O_RDWR : flags[way]) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
  if (made < 0) {
    return luna_fail_errno(errno, "cannot open %s", path);
  }
  *fd = made;
  return LUNA_OK;
}

/* Opened anew, terminals and pipes have flags of their own. A socket needs none, as its calls take
 * a flag, and a file would be at its beginning. */
int luna_stream_share(int32_t fd, int32_t *made) {
  struct stat status;
  char name[32];
  if (!made || fstat(fd, &status) != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "descriptor %d is not open", fd);
  }
  int found = -1, access = fcntl(fd, F_GETFL) & O_ACCMODE;
  if (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode)) {
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    found = open(name, access | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  }
  if (found < 0) {
    found = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  }
  if (found < 0) {
    return luna_fail_errno(errno, "cannot use descriptor %d", fd);
  }
  *made = found;
  return LUNA_OK;
}

/* ---- Characters ---- */

/* What can be done with it now, of `events`, and whether nobody is at the other end. */
static short look(int fd, short events) {
  struct pollfd polled = {.fd = fd, .events = events};
  return poll(&polled, 1, 0) == 1 ? polled.revents : 0;
}

int luna_stream_read(int32_t fd, void *data, uint64_t size) {
  if (!data || size == 0 || size > INT32_MAX) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "luna_stream_read: room for 1 to 2^31 - 1 bytes expected");
  }
  ssize_t count = -1;
  errno = EAGAIN;
  if (look(fd, POLLIN)) {
    count = read(fd, data, size);
  }
  if (count >= 0) {
    return (int)count;
  }
  if (errno == EAGAIN || errno == EINTR) {
    return luna_fail(LUNA_ERROR_BUSY, "there is nothing to read from descriptor %d now", fd);
  }
  return errno == EIO || errno == ECONNRESET
             ? 0
             : luna_fail_errno(errno, "cannot read from descriptor %d", fd);
}

/* write(), without the signal that a pipe which nobody reads any more raises: it goes to the
 * calling thread. */
static ssize_t write_quietly(int fd, const void *data, size_t size) {
  sigset_t pipe_set, before, pending;
  sigemptyset(&pipe_set);
  sigaddset(&pipe_set, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
  ssize_t count = write(fd, data, size);
  int number = errno;
  if (count < 0 && number == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const struct timespec none = {0};
    sigtimedwait(&pipe_set, NULL, &none);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = number;
  return count;
}

static ssize_t write_there(int fd, const void *data, size_t size) {
  bool blocks = !(fcntl(fd, F_GETFL) & O_NONBLOCK);
  short room = look(fd, POLLOUT);
  if (room & (POLLHUP | POLLERR) || !(room & POLLOUT)) {
    errno = room & (POLLHUP | POLLERR) ? EPIPE : EAGAIN;
    return -1;
  }
  return write_quietly(fd, data, blocks && size > CAREFUL ? CAREFUL : size);
}

int luna_stream_write(int32_t fd, const void *data, uint64_t size) {
  if (!data || size == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "luna_stream_write: at least one byte expected");
  }
  size = size < INT32_MAX ? size : INT32_MAX;
  ssize_t count = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count < 0 && errno == ENOTSOCK) {
    count = write_there(fd, data, size);
  }
  if (count >= 0) {
    return (int)count;
  }
  if (errno == EAGAIN || errno == EINTR) {
    return luna_fail(LUNA_ERROR_BUSY, "descriptor %d has no room now", fd);
  }
  if (errno == EPIPE || errno == ECONNRESET || errno == EIO || errno == ENOTCONN) {
    return luna_fail(LUNA_ERROR_NOT_FOUND, "nobody reads from descriptor %d any more", fd);
  }
  return luna_fail_errno(errno, "cannot write to descriptor %d", fd);
}
