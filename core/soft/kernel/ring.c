/* SPDX-License-Identifier: MIT
 * Dirty rings (api.rst, KVM_CAP_DIRTY_LOG_RING): each vCPU tells which pages it has written in a
 * ring of its own. A slot's bitmap says which pages are in some ring already. */
#include "soft/insn.h"
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <sys/mman.h>

enum {
  RESERVED = 64 /* entries that are left when the vCPU leaves for a full ring */
};

static size_t ring_bytes(const soft_vm *vm) {
  return vm->ring_entries * sizeof(struct kvm_dirty_gfn);
}

int soft_ring_enable(soft_vm *vm, uint64_t bytes) {
  uint64_t entries = bytes / sizeof(struct kvm_dirty_gfn);
  bool power = bytes && !(bytes & (bytes - 1));
  if (!power || bytes < SOFT_PAGE || entries <= RESERVED) {
    return soft_refuse(EINVAL);
  }
  if (bytes > SOFT_RING_BYTES) {
    return soft_refuse(E2BIG);
  }
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    if (atomic_load(&vm->cpus[i])) {
      return soft_refuse(EINVAL);
    }
  }
  if (vm->ring_entries) {
    return soft_refuse(EINVAL);
  }
  vm->ring_entries = (uint32_t)entries;
  return 0;
}

bool soft_ring_make(soft_cpu *cpu) {
  if (!cpu->vm->ring_entries) {
    return true;
  }
  void *pages =
      mmap(NULL, ring_bytes(cpu->vm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cpu->ring = pages == MAP_FAILED ? NULL : pages;
  return cpu->ring;
}

void soft_ring_free(soft_cpu *cpu) {
  if (cpu->ring) {
    munmap(cpu->ring, ring_bytes(cpu->vm));
  }
}

void *soft_ring_map(const soft_cpu *cpu, size_t size) {
  if (!cpu->ring || size != ring_bytes(cpu->vm)) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  return mremap(cpu->ring, 0, size, MREMAP_MAYMOVE); /* the same pages once more */
}

bool soft_ring_full(const soft_cpu *cpu) {
  return cpu->ring &&
         cpu->ring_made - atomic_load(&cpu->ring_reset) >= cpu->vm->ring_entries - RESERVED;
}

/* An entry counts when its flags are set. */
void soft_ring_push(soft_cpu *cpu, const soft_slot *slot, uint64_t page) {
  struct kvm_dirty_gfn *entry = &cpu->ring[cpu->ring_made % cpu->vm->ring_entries];
  entry->slot = slot->id;
  entry->offset = page;
  __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
  cpu->ring_made++;
  if (soft_ring_full(cpu)) {
    soft_look_around(cpu);
  }
}

static const soft_slot *by_id(const soft_map *map, uint32_t id) {
  for (uint32_t i = 0; i < map->count; i++) {
    if (map->slots[i].id == id) {
      return &map->slots[i];
    }
  }
  return NULL;
}

static int reset(soft_vm *vm, soft_cpu *cpu) {
  int done = 0;
  for (;; done++) {
    uint32_t at = atomic_load(&cpu->ring_reset);
    struct kvm_dirty_gfn *entry = &cpu->ring[at % vm->ring_entries];
    if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET)) {
      return done;
    }
    const soft_slot *slot = by_id(atomic_load(&vm->map), entry->slot);
    if (slot && slot->dirty && entry->offset < slot->size / SOFT_PAGE) {
      atomic_fetch_and(&slot->dirty[entry->offset / 64], ~(UINT64_C(1) << entry->offset % 64));
    }
    __atomic_store_n(&entry->flags, 0, __ATOMIC_RELEASE);
    atomic_store(&cpu->ring_reset, at + 1);
  }
}

/* KVM_RESET_DIRTY_RINGS: how many entries. vCPUs then look again before they write. */
int soft_rings_reset(soft_vm *vm) {
  int done = 0;
  if (!vm->ring_entries) {
    return soft_refuse(EINVAL);
  }
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&vm->cpus[i]);
    done += cpu ? reset(vm, cpu) : 0;
  }
  if (done) {
    soft_vm_settle(vm);
  }
  return done;
}
