/* SPDX-License-Identifier: MIT
 * The memory of stubs, shared by instructions with the same bytes. It is mapped twice, writable and
 * executable: not all hosts let memory be both at once. */
#include "soft/vector/stub.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct soft_stub {
  size_t at; /* in the pool */
  uint8_t size;
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

static unsigned hash_of(const soft_stub_code *code) {
  uint32_t hash = 2166136261u;
  for (unsigned i = 0; i < code->size; i++) {
    hash = (hash ^ code->bytes[i]) * 16777619u;
  }
  return hash % SOFT_STUB_BUCKETS;
}

static const uint8_t *make(soft_cpu *cpu, const soft_stub_code *code, soft_stub **bucket) {
  if (!cpu->stubs && !make_pool(cpu)) {
    return NULL;
  }
  soft_stub *made = soft_arena_take(cpu, sizeof *made);
  *made = (soft_stub){cpu->stubs_used, code->size, *bucket};
  memcpy(cpu->stubs_writable + made->at, code->bytes, code->size);
  cpu->stubs_used += SOFT_STUB_MOST;
  *bucket = made;
  return cpu->stubs + made->at;
}

const uint8_t *soft_stub_find(soft_cpu *cpu, const soft_stub_code *code) {
  soft_stub **bucket = &cpu->stub_table[hash_of(code)];
  for (soft_stub *one = *bucket; one; one = one->next) {
    if (one->size == code->size &&
        memcmp(cpu->stubs_writable + one->at, code->bytes, code->size) == 0) {
      return cpu->stubs + one->at;
    }
  }
  return make(cpu, code, bucket);
}

const uint8_t *soft_stub_put(soft_cpu *cpu, const soft_stub_part *parts, unsigned count) {
  size_t at = cpu->stubs_used, size = 0;
  for (unsigned i = 0; i < count; i++) {
    size += parts[i].size;
  }
  if (at + size + SOFT_STUB_KEPT > SOFT_STUB_POOL || (!cpu->stubs && !make_pool(cpu))) {
    return NULL;
  }
  for (unsigned i = 0; i < count; i++) {
    memcpy(cpu->stubs_writable + cpu->stubs_used, parts[i].bytes, parts[i].size);
    cpu->stubs_used += parts[i].size;
  }
  cpu->stubs_used = (cpu->stubs_used + SOFT_STUB_ALIGN - 1) & ~(size_t)(SOFT_STUB_ALIGN - 1);
  return cpu->stubs + at;
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
