/* SPDX-License-Identifier: MIT
 * Machine code as text, through the capstone library. It is looked for at run time, so that nothing
 * needs it to be there; its headers say what it is called and how it lays out its results. */
#include "base/error.h"

#include <inttypes.h>
#include <string.h>

#if __has_include(<capstone/capstone.h>)

#include <capstone/capstone.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_OF(number) #number
#define TEXT(macro) TEXT_OF(macro)

typedef struct capstone {
  unsigned (*version)(int *major, int *minor);
  cs_err (*open)(cs_arch arch, cs_mode mode, csh *handle);
  const char *(*strerror)(cs_err code);
  size_t (*disasm)(csh handle, const uint8_t *code, size_t size, uint64_t address, size_t count,
                   cs_insn **instructions);
  void (*free)(cs_insn *instructions, size_t count);
  csh handles[3]; /* for 16, 32 and 64 bits; each serves one caller at a time */
  char missing[256];
} capstone;

static capstone library;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool find(void *object, const char *name, void *function) {
  void *found = dlsym(object, name);
  memcpy(function, &found, sizeof found); /* ISO C has no cast from an object to a function */
  return found;
}

static bool open_handles(void) {
  static const cs_mode modes[] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
  for (int i = 0; i < 3; i++) {
    cs_err error = library.open(CS_ARCH_X86, modes[i], &library.handles[i]);
    if (error != CS_ERR_OK) {
      snprintf(library.missing, sizeof library.missing, "it does not open: %s",
               library.strerror(error));
      return false;
    }
  }
  return true;
}

static void load(void) {
  const char *name = getenv("LUNAVISOR_CAPSTONE");
  void *object = dlopen(name && *name ? name : "libcapstone.so." TEXT(CS_API_MAJOR), RTLD_NOW);
  if (!object) {
    snprintf(library.missing, sizeof library.missing, "%s", dlerror());
    return;
  }
  bool complete =
      find(object, "cs_version", &library.version) && find(object, "cs_open", &library.open) &&
      find(object, "cs_strerror", &library.strerror) &&
      find(object, "cs_disasm", &library.disasm) && find(object, "cs_free", &library.free);
  int major = 0;
  int minor;
  if (complete) {
    library.version(&major, &minor);
  }
  if (major != CS_API_MAJOR) {
    snprintf(library.missing, sizeof library.missing,
             "it is version %d, and lunavisor was built for " TEXT(CS_API_MAJOR), major);
  }
  if (major != CS_API_MAJOR || !open_handles()) {
    dlclose(object);
  }
}

static void describe(const cs_insn *found, luna_instruction *instruction) {
  *instruction = (luna_instruction){.address = found->address, .size = found->size};
  memcpy(instruction->bytes, found->bytes, found->size);
  snprintf(instruction->text, sizeof instruction->text, "%s%s%s", found->mnemonic,
           found->op_str[0] ? " " : "", found->op_str);
}

/* 1 if the bytes begin with an instruction. */
static size_t disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                          luna_instruction *instruction) {
  cs_insn *found;
  pthread_mutex_lock(&lock);
  size_t count = library.disasm(library.handles[bits / 32], bytes, size, address, 1, &found);
  if (count) {
    describe(found, instruction);
    library.free(found, count);
  }
  pthread_mutex_unlock(&lock);
  return count;
}

static const char *missing(void) {
  pthread_once(&once, load);
  return library.missing[0] ? library.missing : NULL;
}

#else

static const char *missing(void) {
  return "lunavisor was built without its headers";
}

static size_t disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                          luna_instruction *instruction) {
  (void)bytes, (void)size, (void)address, (void)bits, (void)instruction;
  return 0;
}

#endif

int luna_disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                     luna_instruction *instruction) {
  if (bits != 16 && bits != 32 && bits != 64) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot disassemble code of %u bits: 16, 32 or 64", bits);
  }
  const char *why = missing();
  if (why) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot disassemble without the capstone library (%s); install the package "
                     "'libcapstone-dev' and build lunavisor with it",
                     why);
  }
  if (!disassemble(bytes, size, address, bits, instruction)) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "the bytes at 0x%" PRIx64 " are no instruction of %u-bit code", address, bits);
  }
  return LUNA_OK;
}
