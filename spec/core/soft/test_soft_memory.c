/* SPDX-License-Identifier: MIT
 * What the software CPU does to the process around it: its mappings and the host's control
 * registers; and what others do to a guest's code while it runs. */
#include "fixture/soft_guest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
  AT_MXCSR = 24, /* in the image of KVM_GET_XSAVE */
  AT_COMPONENTS = 512,
  INEXACT_UNMASKED = 0xf80,
  FLUSH_TO_ZERO = 0x9f80,  /* the thread's own MXCSR, */
  DOUBLE_PRECISION = 0x27f /* and control word */
};

/* ---- Mappings ---- */

static unsigned count_mappings(const char *name, const char *rights) {
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps);
  char line[512], has[8];
  unsigned count = 0;
  while (fgets(line, sizeof line, maps)) {
    if (sscanf(line, "%*s %7s", has) == 1 && strstr(line, name)) {
      count += strncmp(has, rights, strlen(rights)) == 0;
    }
  }
  fclose(maps);
  return count;
}

/* addps xmm0, xmm1; hlt: its stub is code that was written at run time. */
static void no_memory_is_writable_and_executable(void) {
  static const uint8_t code[] = {0x0f, 0x58, 0xc1, 0xf4};
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rflags = 2};
  CHECK_EQ(guest_run(&guest, code, sizeof code, &regs), KVM_EXIT_HLT);
  CHECK_EQ(count_mappings("", "rwx"), 0);
  CHECK_EQ(count_mappings("soft-stubs", "rw-s"), 1);
  CHECK_EQ(count_mappings("soft-stubs", "r-xs"), 1);
  guest_close(&guest);
  CHECK_EQ(count_mappings("soft-stubs", "r"), 0);
}

/* ---- Control registers ---- */

static void set_control(uint32_t mxcsr, uint16_t word) {
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(word));
}

static uint32_t mxcsr_now(void) {
  uint32_t value;
  __asm__ volatile("stmxcsr %0" : "=m"(value));
  return value;
}

static uint16_t word_now(void) {
  uint16_t value;
  __asm__ volatile("fnstcw %0" : "=m"(value));
  return value;
}

/* Of code that ends with divss xmm0, xmm1, of 1 and 3, which is inexact: #XM, and no IDT. */
static void check_control(const uint8_t *code, size_t size) {
  static uint8_t area[4096];
  const float values[2] = {1, 3};
  const uint32_t unmasked = INEXACT_UNMASKED;
  soft_guest guest = guest_open(0);
  CHECK_EQ(guest_call(guest.cpu, KVM_GET_XSAVE, area), 0);
  memcpy(area + AT_MXCSR, &unmasked, sizeof unmasked);
  memcpy(area + 160, &values[0], sizeof values[0]);
  memcpy(area + 176, &values[1], sizeof values[1]);
  area[AT_COMPONENTS] |= 2;
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_XSAVE, area), 0);
  struct kvm_regs regs = {.rflags = 2, .rip = GUEST_CODE};
  memcpy(guest.ram + GUEST_CODE, code, size);
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  uint32_t old = mxcsr_now();
  uint16_t old_word = word_now();
  set_control(FLUSH_TO_ZERO, DOUBLE_PRECISION);
  int status = guest_call(guest.cpu, KVM_RUN, NULL);
  uint32_t mxcsr = mxcsr_now();
  uint16_t word = word_now();
  set_control(old, old_word);
  CHECK_EQ(status, 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_SHUTDOWN);
  CHECK_EQ(mxcsr & 0xffc0, FLUSH_TO_ZERO);
  CHECK_EQ(word, DOUBLE_PRECISION);
  CHECK_EQ(guest_call(guest.cpu, KVM_GET_XSAVE, area), 0);
  memcpy(&mxcsr, area + AT_MXCSR, sizeof mxcsr);
  CHECK_EQ(mxcsr, INEXACT_UNMASKED | 0x20);
  guest_close(&guest);
}

/* Whether or not fld1 has brought x87 state into the registers. */
static void an_exception_leaves_the_host_s_control_registers(void) {
  static const uint8_t code[] = {0xd9, 0xe8, 0xf3, 0x0f, 0x5e, 0xc1, 0xf4};
  check_control(code, sizeof code);
  check_control(code + 2, sizeof code - 2);
}

/* ---- Code that others change ---- */

static soft_guest watched;
static atomic_bool done;

static void sleep_ms(unsigned ms) {
  const struct timespec time = {.tv_nsec = (long)ms * 1000000};
  nanosleep(&time, NULL);
}

/* jmp $ becomes hlt; ends the guest by force after ten seconds. */
static void *write_hlt(void *argument) {
  (void)argument;
  sleep_ms(20);
  __atomic_store_n((uint16_t *)(void *)(watched.ram + GUEST_CODE), (uint16_t)0x90f4,
                   __ATOMIC_SEQ_CST);
  for (int i = 0; i < 1000 && !atomic_load(&done); i++) {
    sleep_ms(10);
  }
  watched.run->immediate_exit = 1;
  return NULL;
}

static void code_that_changes_while_it_runs_is_seen(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("a guest's memory is everybody's at once, which the thread sanitizer calls a race");
#endif
  static const uint8_t code[] = {0xeb, 0xfe};
  watched = guest_open(0);
  struct kvm_regs regs = {.rflags = 2, .rip = GUEST_CODE};
  memcpy(watched.ram + GUEST_CODE, code, sizeof code);
  CHECK_EQ(guest_call(watched.cpu, KVM_SET_REGS, &regs), 0);
  pthread_t thread;
  atomic_store(&done, false);
  CHECK_EQ(pthread_create(&thread, NULL, write_hlt, NULL), 0);
  int status = guest_call(watched.cpu, KVM_RUN, NULL);
  atomic_store(&done, true);
  pthread_join(thread, NULL);
  CHECK_EQ(status, 0);
  CHECK_EQ(watched.run->exit_reason, KVM_EXIT_HLT);
  guest_close(&watched);
}

/* ---- One CPU after the other ---- */

/* The memory of the last CPU serves the next one, whose guest has its own elsewhere. */
static void a_cpu_knows_no_pages_of_the_last_one(void) {
  static const uint8_t code[] = {0x48, 0x8b, 0x06, 0x48, 0x89, 0x46, 0x08, 0xf4};
  void *where_the_last_one_was = MAP_FAILED;
  for (uint64_t value = 1; value <= 4; value++) { /* mov rax, [rsi]; mov [rsi + 8], rax; hlt */
    soft_guest guest = guest_open(value % 2 ? 0 : 3);
    struct kvm_regs regs = {.rflags = 2 | 3 << 12, .rsi = 0x300000};
    memcpy(guest.ram + regs.rsi, &value, sizeof value);
    guest_run(&guest, code, sizeof code, &regs);
    CHECK_EQ(regs.rax, value);
    CHECK_EQ(guest.ram[regs.rsi + 8], value);
    guest_close(&guest);
    if (where_the_last_one_was != MAP_FAILED) {
      munmap(where_the_last_one_was, GUEST_SIZE);
    }
    where_the_last_one_was =
        mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(where_the_last_one_was != MAP_FAILED);
  }
  munmap(where_the_last_one_was, GUEST_SIZE);
}

int main(void) {
  RUN(no_memory_is_writable_and_executable);
  RUN(an_exception_leaves_the_host_s_control_registers);
  RUN(code_that_changes_while_it_runs_is_seen);
  RUN(a_cpu_knows_no_pages_of_the_last_one);
  return test_end();
}
