/* SPDX-License-Identifier: MIT
 * Two vCPU threads run in a space while a third thread splits, protects and joins the regions they
 * use: on a real kernel, since a hole between two slots shows only there. */
#include "fake/fake.h"
#include "lunavisor.h"
#include "fixture/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
  VCPUS = 2,
  CHANGES = 40, /* while the guests run */
  ROUNDS = 100,
  CODE = 0x1000,
  DATA = 0x100000,
  MARK = 0x12345678,
  RAM = 0x200000,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE
};

/* mov ebx, DATA; again: mov eax, [rbx]; cmp eax, MARK; jne bad; inc dword [rbx + 16]; jmp again;
 * bad: out 0x10, eax; hlt. The same bytes in 32 and 64 bits. */
static const uint8_t code[] = {0xbb, 0x00, 0x00, 0x10, 0x00, 0x8b, 0x03, 0x3d, 0x78, 0x56, 0x34,
                               0x12, 0x75, 0x05, 0xff, 0x43, 0x10, 0xeb, 0xf2, 0xe7, 0x10, 0xf4};

static luna_vm *vm;
static luna_buffer *ram;
static atomic_bool stop;

typedef struct runner {
  pthread_t thread;
  luna_vcpu *vcpu;
  uint64_t deadline;
  int kind;
  luna_exit exit;
} runner;

static void *run_guest(void *argument) {
  runner *r = argument;
  r->kind = luna_vcpu_run(r->vcpu, r->deadline);
  r->exit = *luna_vcpu_exit(r->vcpu);
  atomic_store(&stop, true);
  return NULL;
}

static luna_vcpu *make_vcpu(uint32_t mode) {
  luna_vcpu_options options = {.mode = mode, .rip = CODE, .system = LUNA_SYSTEM_ALLOCATE};
  luna_vcpu *vcpu = NULL;
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  return vcpu;
}

static void begin(void) {
  fake_remove();
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_buffer_create(RAM, &ram));
  uint8_t *memory = luna_buffer_data(ram);
  const uint32_t mark = MARK;
  memcpy(memory + CODE, code, sizeof code);
  memcpy(memory + DATA, &mark, sizeof mark);
  CHECK_OK(luna_vm_map_space(vm, 0, ram, 0, 0, RAM, RWX));
  atomic_store(&stop, false);
}

static void end(void) {
  luna_vm_release(vm);
  luna_buffer_release(ram);
  CHECK_EQ(luna_live(LUNA_OBJECT_VM), 0);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), 0);
}

/* How often the guests have been around. */
static uint32_t rounds(void) {
  const uint8_t *memory = luna_buffer_data(ram);
  return __atomic_load_n((const uint32_t *)(const void *)(memory + DATA + 0x10), __ATOMIC_RELAXED);
}

/* Each change replaces the slot that holds both the code and the data. How many there were before
 * a guest ended: no fewer than CHANGES, and until the guests have run beside them. */
static unsigned change_slots(void) {
  unsigned changes = 0;
  while (!atomic_load(&stop) && (changes < CHANGES || rounds() <= ROUNDS)) {
    uint64_t gpa = 0x10000 + (uint64_t)(changes % 16) * LUNA_PAGE_SIZE;
    CHECK_OK(luna_vm_protect_space(vm, 0, gpa, LUNA_PAGE_SIZE, LUNA_READ | LUNA_EXECUTE));
    CHECK_OK(luna_vm_protect_space(vm, 0, gpa, LUNA_PAGE_SIZE, RWX));
    CHECK_OK(luna_vm_unmap_space(vm, 0, gpa, LUNA_PAGE_SIZE));
    CHECK_OK(luna_vm_map_space(vm, 0, ram, gpa, gpa, LUNA_PAGE_SIZE, RWX));
    changes += 4;
  }
  return changes;
}

static void no_hole(uint32_t mode) {
  begin();
  runner runners[VCPUS] = {0};
  for (int i = 0; i < VCPUS; i++) {
    runners[i].vcpu = make_vcpu(mode);
    runners[i].deadline = luna_clock() + UINT64_C(60000000000);
    pthread_create(&runners[i].thread, NULL, run_guest, &runners[i]);
  }
  unsigned changes = change_slots();
  for (int i = 0; i < VCPUS; i++) {
    luna_vcpu_interrupt(runners[i].vcpu);
    pthread_join(runners[i].thread, NULL);
    luna_vcpu_release(runners[i].vcpu);
  }
  for (int i = 0; i < VCPUS; i++) {
    test_note("vCPU %d: kind %d, address 0x%llx, access %u, value 0x%llx", i, runners[i].kind,
              (unsigned long long)runners[i].exit.address, runners[i].exit.access,
              (unsigned long long)runners[i].exit.value);
    CHECK_EQ(runners[i].kind, LUNA_EXIT_INTERRUPTED);
  }
  CHECK(changes >= CHANGES);
  CHECK(rounds() > ROUNDS);
  end();
}

static void no_hole_without_paging(void) {
  no_hole(LUNA_MODE_PROT32);
}

/* Its page tables lie beside what is replaced; the guest runs at the processor's own speed. */
static void no_hole_in_ring_3(void) {
  no_hole(LUNA_MODE_USER64);
}

int main(void) {
  if (luna_probe() != LUNA_OK && !getenv("LUNA_REQUIRE_KVM")) {
    printf("skip concurrent: %s\n0 passed, 0 failed, 1 skipped\n", luna_error_message());
    return 0;
  }
  RUN(no_hole_without_paging);
  RUN(no_hole_in_ring_3);
  return test_end();
}
