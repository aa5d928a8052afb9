/* SPDX-License-Identifier: MIT
 * The memory of stubs, shared by instructions with the same bytes. It is mapped twice, writable and
 * executable: not all hosts let memory be both at once. */
#include "soft/vector/stub.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct soft_stub {
  soft_stub_key key;
  soft_vector_code code;
  soft_stub *next;
};

static bool make_pool(soft_cpu *cpu) {
  int fd = memfd_create("soft-stubs", MFD_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  void *writable = MAP_FAILED, *executable = MAP_FAILED;
  if (ftruncate(fd, SOFT_STUB_POOL) == 0) {
    writable = mmap(NULL, SOFT_STUB_POOL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    executable = mmap(NULL, SOFT_STUB_POOL, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  }
  close(fd);
  if (writable == MAP_FAILED || executable == MAP_FAILED) {
    if (writable != MAP_FAILED) {
      munmap(writable, SOFT_STUB_POOL);
    }
    return false;
  }
  cpu->stubs_writable = writable;
  cpu->stubs = executable;
  return true;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size) {
  memcpy(at, bytes, size);
  return at + size;
}
#define PUT(at, ...)                                                                               \
  put((at), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* void stub(void *memory (rdi), soft_vector_io *io (rsi)) */
static void assemble(uint8_t *at, const soft_stub_key *key) {
  if (key->flags_in) {
    at = PUT(at, 0xff, 0x76, 8, 0x9d); /* push [rsi+8]; popfq */
  }
  if (key->registers & 1) {
    at = PUT(at, 0x48, 0x8b, 0x06); /* mov rax, [rsi] */
  }
  if (key->registers & 2) {
    at = PUT(at, 0x48, 0x8b, 0x4e, 16); /* mov rcx, [rsi+16] */
  }
  if (key->registers & 4) {
    at = PUT(at, 0x48, 0x8b, 0x56, 24); /* mov rdx, [rsi+24] */
  }
  at = put(at, key->bytes, key->size);
  if (key->flags_out) {
    at = PUT(at, 0x9c, 0x8f, 0x46, 8); /* pushfq; pop [rsi+8] */
  }
  if (key->registers & 1) {
    at = PUT(at, 0x48, 0x89, 0x06);
  }
  if (key->registers & 2) {
    at = PUT(at, 0x48, 0x89, 0x4e, 16);
  }
  if (key->registers & 4) {
    at = PUT(at, 0x48, 0x89, 0x56, 24);
  }
  PUT(at, 0xc3);
}

static unsigned hash_of(const soft_stub_key *key) {
  uint32_t hash = 2166136261u;
  for (unsigned i = 0; i < sizeof *key; i++) {
    hash = (hash ^ ((const uint8_t *)key)[i]) * 16777619u;
  }
  return hash % SOFT_STUB_BUCKETS;
}

static soft_vector_code make(soft_cpu *cpu, const soft_stub_key *key, soft_stub **bucket) {
  if (!cpu->stubs && !make_pool(cpu)) {
    return NULL;
  }
  soft_stub *made = soft_arena_take(cpu, sizeof *made);
  void *code = cpu->stubs + cpu->stubs_used;
  assemble(cpu->stubs_writable + cpu->stubs_used, key);
  cpu->stubs_used += SOFT_STUB_MOST;
  made->key = *key;
  memcpy(&made->code, &code, sizeof code);
  made->next = *bucket;
  *bucket = made;
  return made->code;
}

soft_vector_code soft_stub_find(soft_cpu *cpu, const soft_stub_key *key) {
  soft_stub **bucket = &cpu->stub_table[hash_of(key)];
  for (soft_stub *one = *bucket; one; one = one->next) {
    if (memcmp(&one->key, key, sizeof *key) == 0) {
      return one->code;
    }
  }
  return make(cpu, key, bucket);
}

bool soft_stubs_have_room(const soft_cpu *cpu) {
  return cpu->stubs_used + SOFT_STUB_MOST * (SOFT_BLOCK_INSNS + 1) <= SOFT_STUB_POOL;
}

/* The table's entries were in the arena. */
void soft_stubs_drop(soft_cpu *cpu) {
  for (unsigned i = 0; i < SOFT_STUB_BUCKETS; i++) {
    cpu->stub_table[i] = NULL;
  }
  cpu->stubs_used = 0;
}

void soft_stubs_free(soft_cpu *cpu) {
  if (cpu->stubs) {
    munmap(cpu->stubs_writable, SOFT_STUB_POOL);
    munmap(cpu->stubs, SOFT_STUB_POOL);
  }
}

bool soft_in_stub(const soft_cpu *cpu, const void *code) {
  return cpu->stubs && (uintptr_t)code - (uintptr_t)cpu->stubs < SOFT_STUB_POOL;
}
