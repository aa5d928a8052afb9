/* SPDX-License-Identifier: MIT
 * The memory of CPUs: one mapping for each, so large that most of it is never touched. What a CPU
 * leaves behind serves the next one, for the system takes longer to give and take memory than a
 * small guest to run. */
#include "soft/cpu.h"
#include "soft/execute/control.h"
#include "soft/insn.h"
#include "soft/mmu/mmu.h"
#include "soft/vector/stub.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  KEPT_MAX = 4,
  KEPT_CODE = 256 << 10 /* bytes of blocks that are cleared one by one */
};

typedef struct soft_room {
  soft_cpu cpu;
  _Alignas(64) uint8_t xsave[SOFT_XSAVE_SIZE];
  soft_block *hash[SOFT_BLOCK_HASH];
  uint64_t marks[SOFT_MARKS];
  _Alignas(4096) uint8_t arena[SOFT_ARENA_SIZE];
} soft_room;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static soft_room *kept[KEPT_MAX];
static unsigned kept_count;

static soft_room *take(void) {
  pthread_mutex_lock(&lock);
  soft_room *room = kept_count ? kept[--kept_count] : NULL;
  pthread_mutex_unlock(&lock);
  if (room) {
    return room;
  }
  room = mmap(NULL, sizeof *room, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return room == MAP_FAILED ? NULL : room;
}

static bool keep(soft_room *room) {
  pthread_mutex_lock(&lock);
  bool fits = kept_count < KEPT_MAX;
  if (fits) {
    kept[kept_count++] = room;
  }
  pthread_mutex_unlock(&lock);
  return fits;
}

soft_cpu *soft_cpu_new(soft_vm *vm, int id, struct kvm_run *run) {
  soft_room *room = take();
  if (!room) {
    return NULL;
  }
  soft_cpu *cpu = &room->cpu;
  cpu->vm = vm;
  cpu->id = id;
  cpu->run = run;
  cpu->fd = -1;
  cpu->hash = room->hash;
  cpu->marks = room->marks;
  cpu->arena = room->arena;
  cpu->arena_end = SOFT_ARENA_SIZE;
  cpu->xsave = room->xsave;
  soft_tsc_scale(cpu, soft_tsc_khz());
  soft_cpu_reset(cpu, false);
  return cpu;
}

/* All but the TLB, which is empty, and the jump cache: its entries are of flushes that do not come
 * again, for they are counted on. */
static void clear(soft_cpu *cpu) {
  soft_blocks_clear(cpu);
  soft_tlb_flush(cpu);
  uint64_t flushes = cpu->flushes, stamps = cpu->stamps;
  memset(cpu, 0, offsetof(soft_cpu, tlbs));
  cpu->flushes = flushes;
  cpu->stamps = stamps;
}

void soft_cpu_free(soft_cpu *cpu) {
  soft_room *room = (soft_room *)cpu;
  bool small = cpu->arena_used + (SOFT_ARENA_SIZE - cpu->arena_end) < KEPT_CODE;
  soft_stubs_free(cpu);
  free(cpu->cpuid);
  if (small) {
    clear(cpu);
  }
  if (!small || !keep(room)) {
    munmap(room, sizeof *room);
  }
}
