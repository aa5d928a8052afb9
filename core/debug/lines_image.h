/* SPDX-License-Identifier: MIT
 * What an ELF file tells of source lines, as a private copy with nothing else in it. */
#ifndef LUNA_LINES_IMAGE_H
#define LUNA_LINES_IMAGE_H

#include <stdint.h>

/* Where the bytes come from: a file that was opened with this size and time, or memory. */
typedef struct luna_lines_source {
  const void *bytes; /* NULL: a file */
  uint64_t size;
  int fd;
  uint64_t changed; /* nanoseconds; st_mtim */
} luna_lines_source;

/* As large as the file, for everything is at its place; only what was copied takes memory. */
typedef struct luna_lines_image {
  void *data;
  uint64_t size;
} luna_lines_image;

int luna_lines_open(luna_lines_source *source, const char *path);
void luna_lines_close(luna_lines_source *source);
/* The headers and the sections that tell of lines; all others are made ones without contents. The
 * failures are those of luna_lines_at. */
int luna_lines_image_make(const luna_lines_source *source, luna_lines_image *image);
void luna_lines_image_drop(luna_lines_image *image);

#endif
