/* SPDX-License-Identifier: MIT
 * The software CPU through its table: descriptors, slots, exits and how they are finished. */
#include "fixture/soft_guest.h"

#include "kvm/kvm_control.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  PIO = 4096 /* where the run page has the data of ports */
};

static int fails(int result) {
  return result < 0 ? errno : 0;
}

static void descriptors_are_the_process_s_own(void) {
  soft_guest guest = guest_open(0);
  CHECK_EQ(fcntl(guest.vm, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(guest.cpu, F_GETFD), FD_CLOEXEC);
  int vm = guest.vm;
  guest_close(&guest);
  CHECK_EQ(fails(guest_call(vm, KVM_CREATE_VCPU, NULL)), EBADF);
}

static void a_child_has_no_machine(void) {
  soft_guest guest = guest_open(0);
  pid_t child = fork();
  if (child == 0) {
    struct kvm_regs regs;
    _exit(fails(guest_call(guest.cpu, KVM_GET_REGS, &regs)));
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(WEXITSTATUS(status), EIO);
  guest_close(&guest);
}

static int set_slot(const soft_guest *guest, uint32_t slot, uint64_t gpa, uint64_t size) {
  struct kvm_userspace_memory_region region = {.slot = slot,
                                               .guest_phys_addr = gpa,
                                               .memory_size = size,
                                               .userspace_addr = (uintptr_t)guest->ram};
  return fails(guest_call(guest->vm, KVM_SET_USER_MEMORY_REGION, &region));
}

static void slots_follow_kvm_s_rules(void) {
  soft_guest guest = guest_open(0);
  CHECK_EQ(set_slot(&guest, 1, 0x3ff000, 0x1000), EEXIST); /* slot 0 is there */
  CHECK_EQ(set_slot(&guest, 1, 0x400001, 0x1000), EINVAL);
  CHECK_EQ(set_slot(&guest, 1, 0x400000, 0), EINVAL);
  CHECK_EQ(set_slot(&guest, 0, 0, 0x1000), EINVAL); /* another size */
  CHECK_EQ(set_slot(&guest, 1, 0x400000, 0x1000), 0);
  CHECK_EQ(set_slot(&guest, 1, 0x400000, 0), 0);
  CHECK_EQ(fails(guest_call(guest.vm, KVM_CREATE_VCPU, NULL)), EEXIST);
  guest_close(&guest);
}

/* mov al, 7; out 0x42, al; in al, 0x43; hlt */
static void ports_leave_and_are_answered(void) {
  static const uint8_t code[] = {0xb0, 7, 0xe6, 0x42, 0xe4, 0x43, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_IO);
  CHECK_EQ(guest.run->io.direction, KVM_EXIT_IO_OUT);
  CHECK_EQ(guest.run->io.port, 0x42);
  CHECK_EQ(((uint8_t *)guest.run)[PIO], 7);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->io.direction, KVM_EXIT_IO_IN);
  CHECK_EQ(guest_regs(&guest).rip, GUEST_CODE + 4); /* at the instruction */
  ((uint8_t *)guest.run)[PIO] = 0x5a;
  guest.run->immediate_exit = 1; /* finished all the same */
  CHECK_EQ(fails(guest_call(guest.cpu, KVM_RUN, NULL)), EINTR);
  CHECK_EQ(guest_regs(&guest).rax, 0x5a);
  guest.run->immediate_exit = 0;
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_HLT);
  guest_close(&guest);
}

/* add dword [0x500000], 5; hlt: a read, then a write */
static void a_device_is_read_once_and_written_once(void) {
  static const uint8_t code[] = {0x83, 0x04, 0x25, 0, 0, 0x50, 0, 5, 0xf4};
  soft_guest guest = guest_open(0);
  guest_map(&guest, 4 << 20, 4 << 20);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_MMIO);
  CHECK_EQ(guest.run->mmio.phys_addr, 0x500000);
  CHECK_EQ(guest.run->mmio.is_write, 0);
  memset(guest.run->mmio.data, 0, 8);
  guest.run->mmio.data[0] = 8;
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_MMIO);
  CHECK_EQ(guest.run->mmio.is_write, 1);
  CHECK_EQ(guest.run->mmio.data[0], 13);
  CHECK_EQ(guest_regs(&guest).rip, GUEST_CODE + 8);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_HLT);
  guest_close(&guest);
}

/* hlt; hlt: of the run page's registers RIP alone, where it is said to be the only new one. */
static void rip_is_taken_alone(void) {
  static const uint8_t code[] = {0xf4, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2, .rax = 7};
  CHECK_EQ(guest_call(guest.vm, KVM_CHECK_EXTENSION, (void *)LUNA_KVM_CAP_SYNC_RIP),
           LUNA_KVM_SYNC_RIP);
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_HLT);
  guest.run->s.regs.regs = (struct kvm_regs){.rip = GUEST_CODE, .rax = 8, .rflags = 2};
  guest.run->kvm_dirty_regs = KVM_SYNC_X86_REGS | LUNA_KVM_SYNC_RIP;
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->kvm_dirty_regs, 0);
  CHECK_EQ(guest_regs(&guest).rip, GUEST_CODE + 1);
  CHECK_EQ(guest_regs(&guest).rax, 7);
  guest.run->kvm_dirty_regs = LUNA_KVM_SYNC_RIP; /* of none: nothing is taken */
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest_regs(&guest).rip, GUEST_CODE + 2);
  guest.run->kvm_dirty_regs = LUNA_KVM_SYNC_RIP << 1;
  CHECK_EQ(fails(guest_call(guest.cpu, KVM_RUN, NULL)), EINVAL);
  guest_close(&guest);
}

/* Blocks are compared with memory at each entry. */
static void code_that_the_host_changes_is_seen(void) {
  static const uint8_t code[] = {0x90, 0xb8, 1, 0, 0, 0, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_HLT);
  CHECK_EQ(regs.rax, 1);
  guest.ram[GUEST_CODE + 2] = 9;
  regs.rip = GUEST_CODE;
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest_regs(&guest).rax, 9);
  guest_close(&guest);
}

/* mov byte [0x1009], 2 writes the immediate of the next instruction, mov al, 1; hlt */
static void code_that_the_guest_changes_is_seen(void) {
  static const uint8_t code[] = {0xc6, 0x04, 0x25, 0x09, 0x10, 0, 0, 2, 0xb0, 1, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_HLT);
  CHECK_EQ(regs.rax, 2);
  guest_close(&guest);
}

/* lock mov, which is none, and lock add in its place */
static void code_that_was_no_instruction_is_looked_at_again(void) {
  static const uint8_t before[] = {0xf0, 0x8b, 0x06, 0xf4}, after[] = {0xf0, 0x01, 0x06, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2, .rsi = 0x2000, .rax = 5};
  CHECK_EQ(guest_run(&guest, before, sizeof before, &regs), KVM_EXIT_SHUTDOWN);
  regs.rflags = 2;
  CHECK_EQ(guest_run(&guest, after, sizeof after, &regs), KVM_EXIT_HLT);
  CHECK_EQ(guest.ram[0x2000], 5);
  guest_close(&guest);
}

/* mov eax, [0x2000] */
static void memory_that_the_host_takes_away_is_efault(void) {
  static const uint8_t code[] = {0x8b, 0x04, 0x25, 0, 0x20, 0, 0, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2, .rip = GUEST_CODE};
  memcpy(guest.ram + GUEST_CODE, code, sizeof code);
  CHECK_EQ(mprotect(guest.ram + 0x2000, 4096, PROT_NONE), 0);
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  CHECK_EQ(fails(guest_call(guest.cpu, KVM_RUN, NULL)), EFAULT);
  CHECK_EQ(guest_regs(&guest).rip, GUEST_CODE);
  CHECK_EQ(mprotect(guest.ram + 0x2000, 4096, PROT_READ | PROT_WRITE), 0);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_HLT);
  guest_close(&guest);
}

/* ud2 without an IDT: RF stays set where the fault could not be delivered */
static void a_triple_fault_leaves_what_a_processor_does(void) {
  static const uint8_t code[] = {0x90, 0x0f, 0x0b};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_SHUTDOWN);
  CHECK_EQ(regs.rip, GUEST_CODE + 1);
  CHECK_EQ(regs.rflags, 0x10002);
  guest_close(&guest);
}

/* ---- Stops ---- */

enum {
#ifdef __SANITIZE_THREAD__ /* which keeps signals back */
  SOON = 50000000
#else
  SOON = 1000000
#endif
};

static soft_guest stopped;
static atomic_uint_fast64_t asked_at;
static atomic_bool ended;

static void *stop_later(void *wait_us) {
  usleep((useconds_t)(uintptr_t)wait_us);
  atomic_store(&asked_at, luna_clock());
  *(volatile uint8_t *)&stopped.run->immediate_exit = 1;
  return NULL;
}

static void nothing(int number) {
  (void)number;
}

/* Again where it came before the run. */
static void *signal_later(void *thread) {
  do {
    usleep(5000);
    atomic_store(&asked_at, luna_clock());
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
  } while (!atomic_load(&ended));
  return NULL;
}

/* The least nanoseconds of several runs from the stop to the end of KVM_RUN: others on the machine
 * only ever make it longer, so that one which is soon enough is the last. */
static uint64_t time_of_stop(const void *code, size_t size, void *(*stop)(void *), void *argument) {
  uint64_t least = UINT64_MAX;
  stopped = guest_open(0);
  memcpy(stopped.ram + GUEST_CODE, code, size);
  for (int i = 0; i < 1000 && least >= SOON; i++) {
    pthread_t other;
    struct kvm_regs regs = {.rip = GUEST_CODE, .rflags = 2, .rsp = GUEST_STACK};
    CHECK_EQ(guest_call(stopped.cpu, KVM_SET_REGS, &regs), 0);
    stopped.run->immediate_exit = 0;
    atomic_store(&ended, false);
    CHECK_EQ(pthread_create(&other, NULL, stop, argument), 0);
    CHECK_EQ(fails(guest_call(stopped.cpu, KVM_RUN, NULL)), EINTR);
    uint64_t time = luna_clock() - atomic_load(&asked_at);
    atomic_store(&ended, true);
    pthread_join(other, NULL);
    least = time < least ? time : least;
  }
  guest_close(&stopped);
  return least;
}

/* jmp $; and the same with mov ecx, 100000h; xor esi, esi; mov edi, 200000h; rep lodsb */
static const uint8_t endless[] = {0xeb, 0xfe};
static const uint8_t strings[] = {0xb9, 0, 0, 0x10, 0, 0x31, 0xf6, 0xf3, 0xac, 0xeb, 0xf5};

static void a_stop_ends_a_run_within_a_millisecond(void) {
  CHECK(time_of_stop(endless, sizeof endless, stop_later, (void *)(uintptr_t)5000) < SOON);
  CHECK(time_of_stop(endless, sizeof endless, stop_later, NULL) < SOON);
  CHECK(time_of_stop(strings, sizeof strings, stop_later, (void *)(uintptr_t)5000) < SOON);
}

static void any_signal_ends_a_run_within_a_millisecond(void) {
  struct sigaction action = {.sa_handler = nothing}, old;
  pthread_t self = pthread_self();
  sigaction(SIGUSR1, &action, &old);
  CHECK(time_of_stop(endless, sizeof endless, signal_later, &self) < SOON);
  sigaction(SIGUSR1, &old, NULL);
}

int main(void) {
  RUN(descriptors_are_the_process_s_own);
  RUN(a_child_has_no_machine);
  RUN(slots_follow_kvm_s_rules);
  RUN(ports_leave_and_are_answered);
  RUN(a_device_is_read_once_and_written_once);
  RUN(rip_is_taken_alone);
  RUN(code_that_the_host_changes_is_seen);
  RUN(code_that_the_guest_changes_is_seen);
  RUN(code_that_was_no_instruction_is_looked_at_again);
  RUN(memory_that_the_host_takes_away_is_efault);
  RUN(a_triple_fault_leaves_what_a_processor_does);
  RUN(a_stop_ends_a_run_within_a_millisecond);
  RUN(any_signal_ends_a_run_within_a_millisecond);
  return test_end();
}
