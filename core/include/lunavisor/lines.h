/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: the source lines of an ELF file, out of the DWARF that compilers and
 * assemblers write with -g. Needs the library libdw (Debian: libdw1), which is looked for at the
 * first call that needs it: without it, or in a build without its header (libdw-dev), those fail
 * with _UNSUPPORTED, and all else works. The file is not trusted. Any thread, one at a time for
 * each luna_lines. */
#ifndef LUNAVISOR_LINES_H
#define LUNAVISOR_LINES_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef struct luna_lines luna_lines;

/* A line of a source file. */
typedef struct luna_line {
  uint64_t address;   /* the first one that belongs to it */
  const char *path;   /* of the file, as the compiler knew it; valid until the next call */
  uint32_t directory; /* so much of path, with its slash, is the directory that the compiler was
                         started in; 0 where the file is not in it */
  uint32_t line;      /* from 1 on */
  uint32_t column;    /* the same; 0 where it is not known */
  uint32_t reserved;
} luna_line;

/* The lines of a file, of which nothing is read yet but its size and time: it is opened, and stays
 * so until the first look, which reads the sections that tell of lines. _SYSTEM, _ACCESS or
 * _NOT_FOUND where it cannot be opened. */
LUNA_API int luna_lines_create(const char *path, luna_lines **lines);
/* The lines of a file in memory: the sections that tell of lines are copied, the rest is not. The
 * failures are those of luna_lines_at. */
LUNA_API int luna_lines_copy(const void *bytes, uint64_t size, luna_lines **lines);
/* Drops it. NULL is ignored. */
LUNA_API void luna_lines_release(luna_lines *lines);

/* The line that an address of the file belongs to, as the file was linked. _NOT_FOUND where it
 * belongs to none or the file tells of none; _STATE where the file was changed since it was opened;
 * _ARGUMENT where it is damaged or no ELF file; _LIMIT where it has more than is looked at (2 GiB
 * of such sections, 2^20 ranges of addresses, 10 seconds). */
LUNA_API int luna_lines_at(luna_lines *lines, uint64_t address, luna_line *found);
/* The first address of a line, or of the next one in that file that has code. `file` is its name,
 * or its path from any directory on: "main.c", "kernel/main.c". _NOT_FOUND where there is no such
 * file, or no code from there on; the other failures are those of luna_lines_at. */
LUNA_API int luna_lines_find(luna_lines *lines, const char *file, uint32_t line, luna_line *found);

#endif
