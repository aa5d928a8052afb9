/* SPDX-License-Identifier: MIT
 * Source lines of a file: this program's own, and what is refused of damaged copies of it. */
#include "fixture/test.h"

#include "lunavisor.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static luna_lines *lines;
static luna_line line;
static char *image; /* the bytes of this program */
static size_t size;

static const char self[] = "/proc/self/exe";

/* Whether this build and host can tell lines; the program may be without them too. */
static bool is_there(void) {
  CHECK_OK(luna_lines_create(self, &lines));
  int status = luna_lines_find(lines, "test_lines.c", 1, &line);
  luna_lines_release(lines);
  if (status != LUNA_OK) {
    CHECK(status == LUNA_ERROR_UNSUPPORTED || status == LUNA_ERROR_NOT_FOUND);
    printf("left out: %s\n", luna_error_message());
  }
  return status == LUNA_OK;
}

static int find_base(struct dl_phdr_info *info, size_t length, void *base) {
  (void)length;
  *(uint64_t *)base = info->dlpi_addr;
  return 1; /* the first is the program */
}

/* The line that it begins in; an optimizer may leave some of its three out. */
static __attribute__((noinline)) uint32_t marked(void) {
  return __LINE__ - 1;
}

static void own_lines(void) {
  uint64_t base = 0;
  uint32_t here = marked();
  dl_iterate_phdr(find_base, &base);
  uint64_t address = (uint64_t)(uintptr_t)marked - base;
  CHECK_OK(luna_lines_create(self, &lines));
  CHECK_OK(luna_lines_at(lines, address, &line));
  CHECK(line.line >= here && line.line <= here + 2);
  CHECK_EQ(line.address, address);
  CHECK(!strcmp(line.path + line.directory, "spec/core/debug/test_lines.c"));
  CHECK_OK(luna_lines_find(lines, "debug/test_lines.c", here, &line));
  CHECK(line.line >= here);
  CHECK(!strcmp(line.path + line.directory, "spec/core/debug/test_lines.c"));
  CHECK_FAILS(luna_lines_find(lines, "st_lines.c", 1, &line), LUNA_ERROR_NOT_FOUND,
              "cannot find line 1 of st_lines.c: the image has no such file");
  CHECK_FAILS(luna_lines_find(lines, "test_lines.c", 100000, &line), LUNA_ERROR_NOT_FOUND,
              "there is no code from there on");
  CHECK_FAILS(luna_lines_at(lines, 1, &line), LUNA_ERROR_NOT_FOUND, "no line has this address");
  luna_lines_release(lines);
}

static void no_file(void) {
  CHECK_FAILS(luna_lines_create("/no/such/file", &lines), LUNA_ERROR_SYSTEM,
              "cannot open /no/such/file for its source lines");
  CHECK(!lines);
  luna_lines_release(NULL);
}

/* ---- Damaged ones ---- */

static void read_self(void) {
  FILE *file = fopen(self, "rb");
  CHECK(file);
  CHECK(fseek(file, 0, SEEK_END) == 0);
  size = (size_t)ftell(file);
  rewind(file);
  image = malloc(size);
  CHECK(image);
  CHECK_EQ(fread(image, 1, size, file), size);
  fclose(file);
}

static void refuse(size_t length, luna_status status, const char *why) {
  CHECK_FAILS(luna_lines_copy(image, length, &lines), status, why);
  CHECK(!lines);
}

/* The header of a section, by its name. */
static Elf64_Shdr *section(const char *name) {
  Elf64_Ehdr *header = (Elf64_Ehdr *)(void *)image;
  Elf64_Shdr *all = (Elf64_Shdr *)(void *)(image + header->e_shoff);
  for (uint32_t i = 0; i < header->e_shnum; i++) {
    if (!strcmp(image + all[header->e_shstrndx].sh_offset + all[i].sh_name, name)) {
      return &all[i];
    }
  }
  CHECK(!name);
  return NULL;
}

static void damaged(void) {
  read_self();
  CHECK_OK(luna_lines_copy(image, size, &lines));
  CHECK_OK(luna_lines_find(lines, "test_lines.c", marked(), &line));
  luna_lines_release(lines);
  Elf64_Ehdr *header = (Elf64_Ehdr *)(void *)image;
  const Elf64_Ehdr kept = *header;
  Elf64_Shdr *one = section(".debug_line");
  const Elf64_Shdr whole = *one;
  refuse(0, LUNA_ERROR_ARGUMENT, "the ELF header at offset 0x0 takes 0x40 bytes");
  refuse(sizeof kept, LUNA_ERROR_ARGUMENT, "the table of sections at offset");
  header->e_ident[EI_DATA] = ELFDATA2MSB;
  refuse(size, LUNA_ERROR_ARGUMENT, "no little-endian ELF file");
  *header = kept;
  header->e_ident[EI_CLASS] = 3;
  refuse(size, LUNA_ERROR_ARGUMENT, "EI_CLASS or e_shentsize");
  *header = kept;
  header->e_shoff = UINT64_MAX;
  refuse(size, LUNA_ERROR_ARGUMENT, "the table of sections at offset 0xffffffffffffffff");
  *header = kept;
  header->e_shstrndx = header->e_shnum;
  refuse(size, LUNA_ERROR_ARGUMENT, "e_shstrndx is none of its sections");
  *header = kept;
  header->e_shnum = 0;
  refuse(size, LUNA_ERROR_ARGUMENT, "the file is damaged");
  *header = kept;
  one->sh_offset = size;
  refuse(size, LUNA_ERROR_ARGUMENT, "a section at offset");
  one->sh_offset = header->e_shoff - 1;
  refuse(size, LUNA_ERROR_ARGUMENT, "a section lies over the table of sections");
  *one = whole;
  one->sh_size = UINT64_C(3) << 30;
  refuse(size, LUNA_ERROR_LIMIT, "more than 2 GiB");
  *one = whole;
  one->sh_flags |= SHF_COMPRESSED;
  const Elf64_Chdr packed = {.ch_type = ELFCOMPRESS_ZLIB, .ch_size = UINT64_C(1) << 40};
  memcpy(image + one->sh_offset, &packed, sizeof packed); /* it may lie anywhere */
  refuse(size, LUNA_ERROR_LIMIT, "more than 2 GiB");
  free(image);
}

int main(void) {
  RUN(no_file);
  if (is_there()) {
    RUN(own_lines);
    RUN(damaged);
  }
  return test_end();
}
