/* SPDX-License-Identifier: MIT
 * Looks for libdw, and libelf behind it, at run time: few programs ask for lines, and what it needs
 * itself would be loaded with each of them. */
#include "debug/lines_library.h"

#include "base/error.h"

#ifdef LUNA_DWARF

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static luna_lines_library library;
static bool found;
static char problem[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look(void) {
  static const struct {
    const char *name;
    size_t offset;
  } functions[] = {
#define ONE(name) {#name, offsetof(luna_lines_library, name)},
      LUNA_LINES_FUNCTIONS(ONE)
#undef ONE
  };
  void *handle = dlopen("libdw.so.1", RTLD_NOW | RTLD_LOCAL);
  void *address = handle;
  for (size_t i = 0; i < sizeof functions / sizeof *functions && address; i++) {
    address = dlsym(handle, functions[i].name);
    memcpy((char *)&library + functions[i].offset, &address, sizeof address);
  }
  found = address && library.elf_version(EV_CURRENT) != EV_NONE;
  if (!found) {
    const char *why = dlerror();
    strncpy(problem, why ? why : "its version is another", sizeof problem - 1);
  }
}

const luna_lines_library *luna_lines_library_get(void) {
  pthread_once(&once, look);
  if (!found) {
    luna_fail(LUNA_ERROR_UNSUPPORTED,
              "cannot read source lines: libdw.so.1 cannot be loaded (%s): install libdw (Debian: "
              "libdw1)",
              problem);
    return NULL;
  }
  return &library;
}

#else

const struct luna_lines_library *luna_lines_library_get(void) {
  luna_fail(LUNA_ERROR_UNSUPPORTED, "cannot read source lines: this build of the library was made "
                                    "without libdw (Debian: libdw-dev)");
  return NULL;
}

#endif
