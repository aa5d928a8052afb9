/* SPDX-License-Identifier: MIT
 * Source lines of ELF files that are put together of the input: nine sections, whose lengths come
 * first, with headers that are right or changed a little. A line has a path and a number, and is
 * told again of the address that it has. */
#include "fuzz.h"

#include <elf.h>

enum {
  SECTIONS = 9,
  FIRST = 64, /* behind the ELF header */
  NAMES = 256,
  ROOM = 1 << 16,
  LOOKS = 8
};

static const char names[NAMES] =
    "\0.shstrtab\0.debug_info\0.debug_abbrev\0.debug_line\0.debug_line_str\0.debug_str\0"
    ".debug_ranges\0.debug_rnglists\0.debug_addr\0.debug_str_offsets";
static uint8_t image[ROOM];
static size_t used;

static uint32_t put(const void *bytes, size_t size) {
  uint32_t at = (uint32_t)used;
  memcpy(image + used, bytes, size);
  used = (used + size + 7) & ~(size_t)7;
  return at;
}

static uint32_t name_of(uint32_t index) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < index; i++) {
    at += (uint32_t)strlen(names + at) + 1;
  }
  return at;
}

static void put_headers(const Elf64_Shdr *sections, uint32_t count, bool wide) {
  uint32_t width = wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
  uint32_t table = (uint32_t)used;
  for (uint32_t i = 0; i < count; i++) {
    const Elf64_Shdr *one = &sections[i];
    Elf32_Shdr narrow = {.sh_name = one->sh_name,
                         .sh_type = one->sh_type,
                         .sh_flags = (Elf32_Word)one->sh_flags,
                         .sh_offset = (Elf32_Off)one->sh_offset,
                         .sh_size = (Elf32_Word)one->sh_size};
    memcpy(image + used, wide ? (const void *)one : &narrow, width);
    used += width;
  }
  if (wide) {
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_shoff = table,
                         .e_ehsize = sizeof header,
                         .e_shentsize = (Elf64_Half)width,
                         .e_shnum = (Elf64_Half)count,
                         .e_shstrndx = 1};
    memcpy(image, &header, sizeof header);
  } else {
    Elf32_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_386,
                         .e_version = EV_CURRENT,
                         .e_shoff = table,
                         .e_ehsize = sizeof header,
                         .e_shentsize = (Elf32_Half)width,
                         .e_shnum = (Elf32_Half)count,
                         .e_shstrndx = 1};
    memcpy(image, &header, sizeof header);
  }
}

/* First the lengths, then what is changed, then the sections one behind the other. */
static void make(void) {
  uint8_t flags = fuzz_byte();
  uint32_t lengths[SECTIONS];
  Elf64_Shdr sections[SECTIONS + 2] = {{0}};
  for (uint32_t i = 0; i < SECTIONS; i++) {
    lengths[i] = fuzz_pick(4096);
  }
  memset(image, 0, sizeof image);
  used = FIRST;
  sections[1] = (Elf64_Shdr){.sh_name = name_of(1),
                             .sh_type = SHT_STRTAB,
                             .sh_offset = put(names, sizeof names),
                             .sh_size = sizeof names};
  uint8_t damaged = fuzz_byte();
  for (uint32_t i = 0; i < SECTIONS; i++) {
    size_t length = lengths[i] < input.left ? lengths[i] : input.left;
    sections[i + 2] =
        (Elf64_Shdr){.sh_name = name_of(i + 2),
                     .sh_type = SHT_PROGBITS,
                     .sh_flags = flags & 2 && damaged % SECTIONS == i ? SHF_COMPRESSED : 0,
                     .sh_offset = put(input.next, length),
                     .sh_size = length};
    input.next += length;
    input.left -= length;
  }
  put_headers(sections, SECTIONS + 2, flags & 1);
  fuzz_fill(image, flags & 4 ? used : 1);
}

static void check(luna_lines *lines, int status, const luna_line *line) {
  luna_line again;
  if (fuzz_status(status) != LUNA_OK) {
    return;
  }
  FUZZ_CHECK(line->line > 0, "a line without a number");
  FUZZ_CHECK(strlen(line->path) >= line->directory, "a directory longer than the path");
  uint32_t number = line->line;
  fuzz_status(luna_lines_at(lines, line->address, &again));
  fuzz_status(luna_lines_find(lines, "k.c", number, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fake_config config = fake_defaults();
  fuzz_begin(data, size, &config);
  luna_lines *lines;
  luna_line line;
  make();
  if (fuzz_status(luna_lines_copy(image, used, &lines)) == LUNA_OK) {
    for (uint32_t i = 0; i < LOOKS; i++) {
      check(lines, luna_lines_at(lines, 0x100000 + 8 * i, &line), &line);
    }
    check(lines, luna_lines_at(lines, fuzz_number(), &line), &line);
    check(lines, luna_lines_find(lines, "k.c", 1, &line), &line);
    check(lines, luna_lines_find(lines, "none.h", 1, &line), &line);
    luna_lines_release(lines);
  }
  fuzz_end();
  return 0;
}
