/* SPDX-License-Identifier: MIT
 * From addresses to source lines and back. Of the units of an ELF file only their ranges are read;
 * the lines of one where an address of it is asked for. */
#include "base/error.h"
#include "debug/lines_image.h"
#include "debug/lines_library.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef LUNA_DWARF

enum {
  RANGES_MOST = 1 << 20,
  ROWS_MOST = 1 << 22, /* of lines that are held at a time, where all are looked through */
  FIRST = 64
};
static const uint64_t patience = 10000000000; /* nanoseconds */

/* Of one unit, or of none of the file's addresses in particular: [0, 0). */
typedef struct unit_range {
  uint64_t low, high;
  Dwarf_Off unit;
} unit_range;

struct luna_lines {
  luna_lines_source source;
  luna_lines_image image;
  const luna_lines_library *library;
  Elf *elf;
  Dwarf *dwarf;
  unit_range *ranges; /* by their low ends */
  size_t count, room;
  Dwarf_Off *units; /* in the order of the file */
  size_t unit_count, unit_room;
  uint64_t rows; /* of lines that the library holds */
  uint64_t deadline;
  char *path; /* of the last line, kept beyond the library's own */
};

/* ---- The index ---- */

static int fail_damaged(const luna_lines *self) {
  const char *why = self->library->dwarf_errmsg(-1);
  return luna_fail(LUNA_ERROR_ARGUMENT, "cannot read source lines: the file is damaged: %s",
                   why ? why : "its units are not whole");
}

static int fail_limit(const char *what) {
  return luna_fail(LUNA_ERROR_LIMIT, "cannot read source lines: %s", what);
}

static int check_time(const luna_lines *self) {
  return luna_clock() < self->deadline ? LUNA_OK : fail_limit("it has taken 10 seconds");
}

/* Room for one element more; NULL, and the array is as it was. */
static void *grow(void *array, size_t count, size_t *room, size_t size) {
  if (count < *room) {
    return array;
  }
  size_t more = *room ? 2 * *room : FIRST;
  void *grown = realloc(array, more * size);
  if (!grown) {
    luna_fail(LUNA_ERROR_MEMORY, "cannot read source lines: no memory for them");
    return NULL;
  }
  *room = more;
  return grown;
}

static int add_range(luna_lines *self, uint64_t low, uint64_t high, Dwarf_Off unit) {
  if (self->count == RANGES_MOST) {
    return fail_limit("the file has more than 2^20 ranges of addresses");
  }
  unit_range *ranges = grow(self->ranges, self->count, &self->room, sizeof *ranges);
  if (!ranges) {
    return LUNA_ERROR_MEMORY;
  }
  self->ranges = ranges;
  self->ranges[self->count++] = (unit_range){low, high, unit};
  return LUNA_OK;
}

static int add_unit(luna_lines *self, Dwarf_Die *die) {
  Dwarf_Off unit = self->library->dwarf_dieoffset(die);
  Dwarf_Addr base, low, high;
  size_t before = self->count;
  int status = LUNA_OK;
  ptrdiff_t next = 0;
  Dwarf_Off *units = grow(self->units, self->unit_count, &self->unit_room, sizeof *units);
  if (!units) {
    return LUNA_ERROR_MEMORY;
  }
  self->units = units;
  self->units[self->unit_count++] = unit;
  while (status == LUNA_OK &&
         (next = self->library->dwarf_ranges(die, next, &base, &low, &high)) > 0) {
    status = low < high ? add_range(self, low, high, unit) : LUNA_OK;
    status = status == LUNA_OK && self->count % FIRST == 0 ? check_time(self) : status;
  }
  return status == LUNA_OK && self->count == before ? add_range(self, 0, 0, unit) : status;
}

static int compare_ranges(const void *one, const void *other) {
  const unit_range *a = one, *b = other;
  if (a->low != b->low) {
    return a->low < b->low ? -1 : 1;
  }
  if (a->high != b->high) {
    return a->high < b->high ? -1 : 1;
  }
  return a->unit < b->unit ? -1 : a->unit > b->unit;
}

/* A file without units tells of no lines. What is damaged behind some that are not is left out. */
static int read_units(luna_lines *self) {
  Dwarf_CU *unit = NULL;
  Dwarf_Die die;
  uint8_t type;
  int status = LUNA_OK, result = 1;
  while (status == LUNA_OK && (result = self->library->dwarf_get_units(
                                   self->dwarf, unit, &unit, NULL, &type, &die, NULL)) == 0) {
    status = check_time(self);
    if (status == LUNA_OK && type != DW_UT_type) {
      status = add_unit(self, &die);
    }
  }
  if (status == LUNA_OK && result < 0 && self->count == 0) {
    return fail_damaged(self);
  }
  if (self->count) {
    qsort(self->ranges, self->count, sizeof *self->ranges, compare_ranges);
  }
  return status;
}

static void forget(luna_lines *self) {
  if (self->dwarf) {
    self->library->dwarf_end(self->dwarf);
  }
  if (self->elf) {
    self->library->elf_end(self->elf);
  }
  luna_lines_image_drop(&self->image);
  free(self->ranges);
  free(self->units);
  free(self->path);
  self->path = NULL;
  self->dwarf = NULL;
  self->elf = NULL;
  self->ranges = NULL;
  self->units = NULL;
  self->count = self->room = self->unit_count = self->unit_room = 0;
}

/* Begins anew, with none of the lines that were read. */
static int begin(luna_lines *self) {
  if (self->dwarf) {
    self->library->dwarf_end(self->dwarf);
  }
  self->rows = 0;
  self->dwarf = self->library->dwarf_begin_elf(self->elf, DWARF_C_READ, NULL);
  return self->dwarf ? LUNA_OK : fail_damaged(self);
}

static int read_image(luna_lines *self) {
  self->library = luna_lines_library_get();
  if (!self->library) {
    return LUNA_ERROR_UNSUPPORTED;
  }
  int status = luna_lines_image_make(&self->source, &self->image);
  if (status != LUNA_OK) {
    return status;
  }
  self->elf = self->library->elf_memory(self->image.data, self->image.size);
  status = self->elf ? begin(self) : fail_damaged(self);
  status = status == LUNA_OK ? read_units(self) : status;
  if (status == LUNA_OK) {
    luna_lines_close(&self->source);
  } else {
    luna_failure failure = luna_failure_take();
    forget(self);
    luna_failure_put(&failure);
  }
  return status;
}

static int prepare(luna_lines *self) {
  self->deadline = luna_clock() + patience;
  return self->dwarf ? LUNA_OK : read_image(self);
}

/* ---- A line ---- */

static uint32_t length_of_directory(const luna_lines *self, Dwarf_Die *unit) {
  Dwarf_Attribute attribute;
  const char *directory = NULL;
  if (self->library->dwarf_attr(unit, DW_AT_comp_dir, &attribute)) {
    directory = self->library->dwarf_formstring(&attribute);
  }
  size_t length = directory ? strlen(directory) : 0;
  return length > 0 && !strncmp(self->path, directory, length) && self->path[length] == '/' &&
                 self->path[length + 1]
             ? (uint32_t)length + 1
             : 0;
}

static int fail_none(const char *what) {
  return luna_fail(LUNA_ERROR_NOT_FOUND, "cannot tell the source line: %s", what);
}

static int fill(luna_lines *self, Dwarf_Die *unit, Dwarf_Line *row, luna_line *found) {
  const luna_lines_library *library = self->library;
  int line = 0, column = 0;
  Dwarf_Addr address = 0;
  const char *path = library->dwarf_linesrc(row, NULL, NULL);
  if (!path || library->dwarf_lineaddr(row, &address) || library->dwarf_lineno(row, &line) ||
      line <= 0) {
    return fail_none("the code there is of none");
  }
  char *kept = strdup(path);
  if (!kept) {
    return luna_fail(LUNA_ERROR_MEMORY, "cannot tell the source line: no memory for it");
  }
  free(self->path);
  self->path = kept;
  library->dwarf_linecol(row, &column);
  *found = (luna_line){.address = address,
                       .path = kept,
                       .directory = length_of_directory(self, unit),
                       .line = (uint32_t)line,
                       .column = column > 0 ? (uint32_t)column : 0};
  return LUNA_OK;
}

/* ---- From an address ---- */

static int look_in(luna_lines *self, Dwarf_Off offset, uint64_t address, luna_line *found) {
  Dwarf_Die unit;
  if (!self->library->dwarf_offdie(self->dwarf, offset, &unit)) {
    return fail_damaged(self);
  }
  Dwarf_Line *row = self->library->dwarf_getsrc_die(&unit, address);
  return row ? fill(self, &unit, row, found) : fail_none("no line has this address");
}

int luna_lines_at(luna_lines *self, uint64_t address, luna_line *found) {
  int status = prepare(self);
  if (status != LUNA_OK) {
    return status;
  }
  size_t from = 0, to = self->count;
  while (from < to) { /* how many begin at the address or before it */
    size_t middle = from + (to - from) / 2;
    if (self->ranges[middle].low <= address) {
      from = middle + 1;
    } else {
      to = middle;
    }
  }
  if (from > 0 && address < self->ranges[from - 1].high) {
    return look_in(self, self->ranges[from - 1].unit, address, found);
  }
  /* Those that do not say what is theirs come first. */
  status = fail_none("no line has this address");
  for (size_t i = 0; i < self->count && self->ranges[i].high == 0; i++) {
    status = look_in(self, self->ranges[i].unit, address, found);
    if (status != LUNA_ERROR_NOT_FOUND) {
      return status;
    }
    if (check_time(self) != LUNA_OK) {
      return LUNA_ERROR_LIMIT;
    }
  }
  return status;
}

/* ---- From a line ---- */

typedef struct search {
  const char *file; /* its path from some directory on */
  uint32_t line;
  bool file_found;
  uint32_t best; /* line, 0 for none yet */
  uint64_t address;
  luna_line found;
} search;

/* Whether the path ends with the file's. */
static bool is_file(const char *path, const char *file) {
  size_t length = strlen(path), size = strlen(file);
  return length >= size && !strcmp(path + length - size, file) &&
         (length == size || path[length - size - 1] == '/');
}

static const char *last_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* Whether the name of the unit, which is that of what was compiled, is the file's. */
static bool is_named(const luna_lines *self, Dwarf_Die *unit, const char *file) {
  Dwarf_Attribute attribute;
  const char *name = NULL;
  if (self->library->dwarf_attr(unit, DW_AT_name, &attribute)) {
    name = self->library->dwarf_formstring(&attribute);
  }
  return name && !strcmp(last_name(name), last_name(file));
}

static bool is_better(const search *wanted, uint32_t line, uint64_t address) {
  return line >= wanted->line && (wanted->best == 0 || line < wanted->best ||
                                  (line == wanted->best && address < wanted->address));
}

static int search_rows(luna_lines *self, Dwarf_Die *unit, Dwarf_Lines *rows, size_t count,
                       search *wanted) {
  const luna_lines_library *library = self->library;
  const char *last = NULL;
  bool is_here = false;
  int status = LUNA_OK;
  for (size_t i = 0; i < count && status == LUNA_OK; i++) {
    Dwarf_Line *row = library->dwarf_onesrcline(rows, i);
    const char *path = row ? library->dwarf_linesrc(row, NULL, NULL) : NULL;
    bool ends = true, begins = false;
    int line = 0;
    Dwarf_Addr address = 0;
    if (!path || library->dwarf_lineendsequence(row, &ends) || ends ||
        library->dwarf_linebeginstatement(row, &begins) || library->dwarf_lineno(row, &line) ||
        library->dwarf_lineaddr(row, &address)) {
      continue;
    }
    is_here = path == last ? is_here : is_file(path, wanted->file);
    last = path;
    wanted->file_found = wanted->file_found || is_here;
    if (is_here && begins && line > 0 && is_better(wanted, (uint32_t)line, address)) {
      status = fill(self, unit, row, &wanted->found);
      wanted->best = (uint32_t)line;
      wanted->address = address;
    }
  }
  return status;
}

static int search_unit(luna_lines *self, Dwarf_Off offset, bool named, search *wanted) {
  Dwarf_Die unit;
  Dwarf_Lines *rows;
  size_t count;
  int status = check_time(self);
  if (status == LUNA_OK && self->rows > ROWS_MOST) {
    status = begin(self);
  }
  if (status != LUNA_OK || !self->library->dwarf_offdie(self->dwarf, offset, &unit) ||
      (named && !is_named(self, &unit, wanted->file)) ||
      self->library->dwarf_getsrclines(&unit, &rows, &count)) {
    return status;
  }
  self->rows += count;
  return search_rows(self, &unit, rows, count, wanted);
}

static int search_units(luna_lines *self, bool named, search *wanted) {
  int status = LUNA_OK;
  for (size_t i = 0; i < self->unit_count && status == LUNA_OK; i++) {
    status = search_unit(self, self->units[i], named, wanted);
  }
  return status;
}

int luna_lines_find(luna_lines *self, const char *file, uint32_t line, luna_line *found) {
  search wanted = {.file = file, .line = line ? line : 1};
  int status = prepare(self);
  status = status == LUNA_OK ? search_units(self, true, &wanted) : status;
  if (status == LUNA_OK && !wanted.file_found) { /* one that others include */
    status = search_units(self, false, &wanted);
  }
  if (status != LUNA_OK) {
    return status;
  }
  if (!wanted.best) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     wanted.file_found ? "cannot find line %u of %s: there is no code from there on"
                                       : "cannot find line %u of %s: the image has no such file",
                     line, file);
  }
  *found = wanted.found;
  return LUNA_OK;
}

#else

struct luna_lines {
  luna_lines_source source;
};

static void forget(luna_lines *self) {
  (void)self;
}

static int prepare(luna_lines *self) {
  (void)self, luna_lines_library_get();
  return LUNA_ERROR_UNSUPPORTED;
}

int luna_lines_at(luna_lines *self, uint64_t address, luna_line *found) {
  (void)address, (void)found;
  return prepare(self);
}

int luna_lines_find(luna_lines *self, const char *file, uint32_t line, luna_line *found) {
  (void)file, (void)line, (void)found;
  return prepare(self);
}

#endif

/* ---- Making and dropping ---- */

static int keep(int status, const luna_lines_source *source, luna_lines **lines) {
  luna_lines *self = status == LUNA_OK ? calloc(1, sizeof *self) : NULL;
  *lines = self;
  if (self) {
    self->source = *source;
  }
  return status != LUNA_OK || self
             ? status
             : luna_fail(LUNA_ERROR_MEMORY, "cannot read source lines: no memory for them");
}

int luna_lines_create(const char *path, luna_lines **lines) {
  luna_lines_source source;
  int status = luna_lines_open(&source, path);
  status = keep(status, &source, lines);
  if (status != LUNA_OK) {
    luna_lines_close(&source);
  }
  return status;
}

int luna_lines_copy(const void *bytes, uint64_t size, luna_lines **lines) {
  const luna_lines_source source = {.bytes = bytes, .size = size, .fd = -1};
  int status = keep(LUNA_OK, &source, lines);
  status = status == LUNA_OK ? prepare(*lines) : status;
  if (status != LUNA_OK) {
    luna_lines_release(*lines);
    *lines = NULL;
  }
  return status;
}

void luna_lines_release(luna_lines *self) {
  if (self) {
    forget(self);
    luna_lines_close(&self->source);
    free(self);
  }
}
