/* SPDX-License-Identifier: MIT
 * The functions of libdw and libelf that are used, looked for when lines are first asked for. */
#ifndef LUNA_LINES_LIBRARY_H
#define LUNA_LINES_LIBRARY_H

#ifdef LUNA_DWARF

#include <dwarf.h>
#include <elfutils/libdw.h>

#define LUNA_LINES_FUNCTIONS(one)                                                                  \
  one(elf_version) one(elf_memory) one(elf_end) one(dwarf_begin_elf) one(dwarf_end)                \
      one(dwarf_get_units) one(dwarf_dieoffset) one(dwarf_offdie) one(dwarf_ranges)                \
          one(dwarf_getsrclines) one(dwarf_onesrcline) one(dwarf_getsrc_die) one(dwarf_lineaddr)   \
              one(dwarf_lineno) one(dwarf_linecol) one(dwarf_linebeginstatement)                   \
                  one(dwarf_lineendsequence) one(dwarf_linesrc) one(dwarf_attr)                    \
                      one(dwarf_formstring) one(dwarf_errno) one(dwarf_errmsg)

typedef struct luna_lines_library {
#define LUNA_LINES_MEMBER(name) __typeof__(name) *name;
  LUNA_LINES_FUNCTIONS(LUNA_LINES_MEMBER)
#undef LUNA_LINES_MEMBER
} luna_lines_library;

#endif

struct luna_lines_library;

/* NULL with _UNSUPPORTED where the library is not there. */
const struct luna_lines_library *luna_lines_library_get(void);

#endif
