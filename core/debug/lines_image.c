/* SPDX-License-Identifier: MIT
 * The copy of the sections of an ELF file that tell of source lines. What the library that reads
 * them gets is this alone: a file may be cut or written over while it is read, and names further
 * files that the image's maker chose. */
#include "debug/lines_image.h"

#include "base/error.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  NAME_MOST = 32,
  TYPE_OFFSET = 4 /* of sh_type, in both classes */
};
static const uint64_t size_most = UINT64_C(1) << 31; /* of all sections, also unpacked */

static const char *const wanted[] = {
    ".debug_info",   ".debug_abbrev",      ".debug_line", ".debug_line_str", ".debug_str",
    ".debug_ranges", ".debug_str_offsets", ".debug_addr", ".debug_rnglists",
};

/* The table of sections. */
typedef struct table {
  uint64_t offset;
  uint32_t count;
  uint32_t width; /* of an entry */
  uint32_t names; /* the number of the section with their names */
  bool is_64;
} table;

/* ---- The source ---- */

static uint64_t time_of(const struct stat *about) {
  return (uint64_t)about->st_mtim.tv_sec * 1000000000 + (uint64_t)about->st_mtim.tv_nsec;
}

int luna_lines_open(luna_lines_source *source, const char *path) {
  struct stat about;
  *source = (luna_lines_source){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (source->fd < 0 || fstat(source->fd, &about) < 0) {
    int number = errno;
    luna_lines_close(source);
    return luna_fail_errno(number, "cannot open %s for its source lines", path);
  }
  source->size = (uint64_t)about.st_size;
  source->changed = time_of(&about);
  return LUNA_OK;
}

void luna_lines_close(luna_lines_source *source) {
  if (!source->bytes && source->fd >= 0) {
    close(source->fd);
  }
  source->fd = -1;
}

static int check_unchanged(const luna_lines_source *source) {
  struct stat about;
  if (source->bytes) {
    return LUNA_OK;
  }
  if (fstat(source->fd, &about) < 0) {
    return luna_fail_errno(errno, "cannot read source lines");
  }
  if ((uint64_t)about.st_size != source->size || time_of(&about) != source->changed) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot read source lines: the file was changed since it was opened");
  }
  return LUNA_OK;
}

static int fail_cut(const char *what, uint64_t offset, uint64_t size, uint64_t end) {
  return luna_fail(LUNA_ERROR_ARGUMENT,
                   "cannot read source lines: %s at offset 0x%" PRIx64 " takes 0x%" PRIx64
                   " bytes: a file of that length expected, this one has 0x%" PRIx64,
                   what, offset, size, end);
}

/* Copies [offset, offset + size) to its place. */
static int copy(const luna_lines_source *source, luna_lines_image *image, const char *what,
                uint64_t offset, uint64_t size) {
  if (size > source->size || offset > source->size - size) {
    return fail_cut(what, offset, size, source->size);
  }
  char *to = (char *)image->data + offset;
  if (source->bytes) {
    memcpy(to, (const char *)source->bytes + offset, size);
    return LUNA_OK;
  }
  for (uint64_t done = 0; done < size;) {
    ssize_t got = pread(source->fd, to + done, size - done, (off_t)(offset + done));
    if (got < 0 && errno != EINTR) {
      return luna_fail_errno(errno, "cannot read source lines");
    }
    if (got == 0) {
      return fail_cut(what, offset, size, offset + done);
    }
    done += got > 0 ? (uint64_t)got : 0;
  }
  return LUNA_OK;
}

/* ---- The headers ---- */

static int fail_header(const char *what) {
  return luna_fail(LUNA_ERROR_ARGUMENT, "cannot read source lines: %s", what);
}

static int read_header(const luna_lines_image *image, table *sections) {
  const unsigned char *ident = image->data;
  if (memcmp(ident, ELFMAG, SELFMAG) || ident[EI_DATA] != ELFDATA2LSB) {
    return fail_header("no little-endian ELF file");
  }
  if (ident[EI_CLASS] == ELFCLASS64) {
    const Elf64_Ehdr *header = image->data;
    *sections =
        (table){header->e_shoff, header->e_shnum, sizeof(Elf64_Shdr), header->e_shstrndx, true};
    return header->e_shentsize == sections->width || sections->count == 0
               ? LUNA_OK
               : fail_header("e_shentsize is not that of ELF64");
  }
  const Elf32_Ehdr *header = image->data;
  *sections =
      (table){header->e_shoff, header->e_shnum, sizeof(Elf32_Shdr), header->e_shstrndx, false};
  return ident[EI_CLASS] == ELFCLASS32 &&
                 (header->e_shentsize == sections->width || sections->count == 0)
             ? LUNA_OK
             : fail_header("EI_CLASS or e_shentsize is none of ELF32 or ELF64");
}

static char *entry_at(const luna_lines_image *image, const table *sections, uint32_t index) {
  return (char *)image->data + sections->offset + (uint64_t)index * sections->width;
}

static Elf64_Shdr section_at(const luna_lines_image *image, const table *sections, uint32_t index) {
  const char *entry = entry_at(image, sections, index);
  Elf64_Shdr wide;
  if (sections->is_64) {
    memcpy(&wide, entry, sizeof wide);
    return wide;
  }
  Elf32_Shdr narrow;
  memcpy(&narrow, entry, sizeof narrow);
  return (Elf64_Shdr){.sh_name = narrow.sh_name,
                      .sh_type = narrow.sh_type,
                      .sh_flags = narrow.sh_flags,
                      .sh_offset = narrow.sh_offset,
                      .sh_size = narrow.sh_size};
}

static bool is_wanted(const luna_lines_image *image, const Elf64_Shdr *names, uint32_t name) {
  if (name >= names->sh_size) {
    return false;
  }
  const char *text = (const char *)image->data + names->sh_offset + name;
  uint64_t room = names->sh_size - name;
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    if (strlen(wanted[i]) < room &&
        !strncmp(text, wanted[i], room < NAME_MOST ? room : NAME_MOST)) {
      return true;
    }
  }
  return false;
}

/* How large a section is once it is unpacked. */
static uint64_t unpacked(const luna_lines_image *image, const table *sections,
                         const Elf64_Shdr *section) {
  const char *at = (const char *)image->data + section->sh_offset;
  if (!(section->sh_flags & SHF_COMPRESSED)) {
    return section->sh_size;
  }
  if (sections->is_64 && section->sh_size >= sizeof(Elf64_Chdr)) {
    Elf64_Chdr wide;
    memcpy(&wide, at, sizeof wide);
    return wide.ch_size;
  }
  if (!sections->is_64 && section->sh_size >= sizeof(Elf32_Chdr)) {
    Elf32_Chdr narrow;
    memcpy(&narrow, at, sizeof narrow);
    return narrow.ch_size;
  }
  return section->sh_size;
}

/* ---- The copy ---- */

static int copy_section(const luna_lines_source *source, luna_lines_image *image,
                        const table *sections, const Elf64_Shdr *section, uint64_t *sum) {
  if (section->sh_size > size_most) {
    *sum = section->sh_size;
    return LUNA_OK;
  }
  /* Else the copy would take back what was changed there. */
  if (section->sh_offset < sections->offset + (uint64_t)sections->count * sections->width &&
      sections->offset < section->sh_offset + section->sh_size) {
    return fail_header("a section lies over the table of sections");
  }
  int status = copy(source, image, "a section", section->sh_offset, section->sh_size);
  uint64_t size = status == LUNA_OK ? unpacked(image, sections, section) : 0;
  *sum += size > size_most ? size_most : size;
  return status;
}

static int copy_sections(const luna_lines_source *source, luna_lines_image *image,
                         const table *sections) {
  int status = copy(source, image, "the table of sections", sections->offset,
                    (uint64_t)sections->count * sections->width);
  if (status != LUNA_OK || sections->count == 0) {
    return status;
  }
  if (sections->names >= sections->count) {
    return fail_header("e_shstrndx is none of its sections");
  }
  Elf64_Shdr names = section_at(image, sections, sections->names);
  uint64_t sum = 0;
  status = copy_section(source, image, sections, &names, &sum);
  for (uint32_t i = 0; i < sections->count && status == LUNA_OK && sum <= size_most; i++) {
    static const uint32_t none = SHT_NOBITS;
    Elf64_Shdr section = section_at(image, sections, i);
    if (section.sh_type == SHT_PROGBITS && is_wanted(image, &names, section.sh_name)) {
      status = copy_section(source, image, sections, &section, &sum);
    } else if (i != sections->names) {
      memcpy(entry_at(image, sections, i) + TYPE_OFFSET, &none, sizeof none);
    }
  }
  return status == LUNA_OK && sum > size_most
             ? luna_fail(LUNA_ERROR_LIMIT, "cannot read source lines: the sections that tell of "
                                           "them have more than 2 GiB")
             : status;
}

int luna_lines_image_make(const luna_lines_source *source, luna_lines_image *image) {
  *image = (luna_lines_image){.size = source->size};
  if (source->size < sizeof(Elf64_Ehdr)) {
    return fail_cut("the ELF header", 0, sizeof(Elf64_Ehdr), source->size);
  }
  image->data = mmap(NULL, image->size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (image->data == MAP_FAILED) {
    image->data = NULL;
    return luna_fail_errno(errno, "cannot read source lines: 0x%" PRIx64 " bytes", image->size);
  }
  table sections = {0};
  int status = copy(source, image, "the ELF header", 0, sizeof(Elf64_Ehdr));
  status = status == LUNA_OK ? read_header(image, &sections) : status;
  status = status == LUNA_OK ? copy_sections(source, image, &sections) : status;
  status = status == LUNA_OK ? check_unchanged(source) : status;
  if (status != LUNA_OK) {
    luna_lines_image_drop(image);
  }
  return status;
}

void luna_lines_image_drop(luna_lines_image *image) {
  if (image->data) {
    munmap(image->data, image->size);
  }
  image->data = NULL;
}
