/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: descriptors that the characters of a guest's devices come from and go to.
 * But for luna_stream_wait, none of these calls waits. Descriptors that they make are the caller's,
 * closed by exec and by luna_stream_close. Any thread may make them. */
#ifndef LUNAVISOR_STREAM_H
#define LUNAVISOR_STREAM_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

/* Listens on a TCP port of a numeric IPv4 or IPv6 address; with port 0 the kernel chooses one.
 * _ARGUMENT for an address that is none, _BUSY where somebody else listens there, _ACCESS,
 * _SYSTEM. */
LUNA_API int luna_stream_tcp(const char *address, uint16_t port, int32_t *fd);
/* The port that a TCP socket is bound to. _SYSTEM for a descriptor that is none. */
LUNA_API int luna_stream_port(int32_t fd, uint32_t *port);
/* Listens on a Unix socket that only its owner can connect to (mode 0600). One that a dead process
 * has left there is replaced; _BUSY for one that is in use and for any other file. _ARGUMENT for a
 * path that is empty or longer than 107 bytes. */
LUNA_API int luna_stream_unix(const char *path, int32_t *fd);
/* A client that waits at a listener, or -1 where none does. */
LUNA_API int luna_stream_accept(int32_t listener, int32_t *fd);
/* The master of a new pseudo-terminal in raw mode. While nobody has the terminal open, reads give
 * 0 and writes _NOT_FOUND. */
LUNA_API int luna_stream_pty(int32_t *fd);
/* The name of its terminal, in `size` bytes. _SYSTEM for a descriptor that is no such master. */
LUNA_API int luna_stream_terminal(int32_t fd, char *name, uint64_t size);
typedef enum luna_stream_way {
  LUNA_STREAM_INPUT,  /* to be read */
  LUNA_STREAM_OUTPUT, /* to be written anew; made where it is not there */
  LUNA_STREAM_APPEND  /* the same, behind what is there */
} luna_stream_way;

/* A file, terminal or FIFO by its path; of a FIFO, nobody need have the other end open. _SYSTEM,
 * _ACCESS where the host refuses. */
LUNA_API int luna_stream_open(const char *path, int way, int32_t *fd);
/* Another descriptor of what `fd` is (0: the standard input), that does not block without a change
 * to the flags of `fd` itself, which other processes may share. */
LUNA_API int luna_stream_share(int32_t fd, int32_t *made);
/* Reads up to `size` bytes that are there. Returns how many, at most INT32_MAX; 0 at the end, where
 * the other side is gone; _BUSY where nothing is there now. */
LUNA_API int luna_stream_read(int32_t fd, void *data, uint64_t size);
/* Writes what there is room for. Returns how many bytes; _BUSY where there is no room now,
 * _NOT_FOUND where nobody is there to read them any more, which raises no SIGPIPE. */
LUNA_API int luna_stream_write(int32_t fd, const void *data, uint64_t size);
/* Does not fail. */
LUNA_API void luna_stream_close(int32_t fd);
/* Waits until there is something to read, or the other side is gone: 1; 0 when the time is up or a
 * signal has come before. */
LUNA_API int luna_stream_wait(int32_t fd, uint64_t nanoseconds);
/* 1 for a terminal, 0 for anything else. */
LUNA_API int luna_stream_is_terminal(int32_t fd);
/* Makes `fd` another descriptor of what `by` is: what is written to the one goes to the other. */
LUNA_API int luna_stream_replace(int32_t fd, int32_t by);
/* The action of SIGINT is again what it was at the first call of this: interpreters take their
 * handler away when Ctrl-C has come once. */
LUNA_API void luna_interrupt_renew(void);
/* For a program that an interpreter runs, and that ends in good order at Ctrl-C: the first SIGINT
 * has the action that it had at the first call of this or of luna_interrupt_renew, a second one has
 * none, as it comes where a shell or timeout(1) sends it twice, and a third ends the process.
 * luna_interrupt_renew begins to count again. Nothing where SIGINT has no handler. */
LUNA_API void luna_interrupt_guard(void);

#endif
