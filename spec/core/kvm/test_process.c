/* SPDX-License-Identifier: MIT
 * A vCPU over the real KVM in a process that was forked: KVM ties it to the one that made it. */
#include "fixture/vcpu_fixture.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child says of its use of the parent's VM; it
 * does not come back to the tests. */
static void in_the_child(int pipe_end) {
  char report[2048];
  uint64_t value;
  luna_buffer *buffer;
  int run_status = luna_vcpu_run(vcpu, luna_clock() + UINT64_C(60000) * MILLISECOND);
  int length = snprintf(report, sizeof report, "run %d %s\n", run_status, luna_error_message());
  int get_status = luna_vcpu_get(vcpu, LUNA_CR3, &value);
  length += snprintf(report + length, sizeof report - (size_t)length, "get %d %s\n", get_status,
                     get_status < 0 ? luna_error_message() : "");
  int status = luna_buffer_create(PAGE, &buffer);
  status = status == LUNA_OK ? luna_vm_map_space(vm, 0, buffer, 0, 0x100000, PAGE, RWX) : status;
  length += snprintf(report + length, sizeof report - (size_t)length, "map %d %s\n", status,
                     luna_error_message());
  luna_vm *own;
  luna_vcpu *own_vcpu;
  status = luna_vm_create(&own);
  status = status == LUNA_OK ? luna_vcpu_create(own, NULL, &own_vcpu) : status;
  length += snprintf(report + length, sizeof report - (size_t)length, "own %d\n", status);
  ssize_t written = write(pipe_end, report, (size_t)length);
  _exit(written == length ? 0 : 1);
}

/* The report's line that begins so has the text. */
static void check_line(const char *report, const char *begin, const char *text) {
  char line[1024];
  const char *found = strstr(report, begin);
  CHECK(found);
  snprintf(line, sizeof line, "%.*s", (int)strcspn(found, "\n"), found);
  CHECK_TEXT(line, text);
}

static void forked(void) {
  int ends[2];
  begin_real_vm("\xf4\xeb\xfd", 3); /* hlt, again and again */
  begin_real_vcpu(LUNA_MODE_REAL);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    in_the_child(ends[1]);
  }
  close(ends[1]);
  char report[4096];
  size_t length = 0;
  ssize_t got;
  while ((got = read(ends[0], report + length, sizeof report - 1 - length)) > 0) {
    length += (size_t)got;
  }
  report[length] = '\0';
  close(ends[0]);
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  const char *why = "KVM ties a VM to the process that made it, and this one was forked from it";
  test_note("%.*s", (int)strcspn(report, "\n"), report);
  check_line(report, "run -5 cannot run vCPU 0 in this process", why);
  check_line(report, "get -5 cannot use a VM in this process", why);
  check_line(report, "map -5 cannot use a VM in this process", why);
  CHECK_TEXT(report, "own 0\n");
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* the parent's goes on */
  end();
}

/* ---- A vCPU that is in the guest when the process is forked ---- */

static void *run_until_interrupted(void *unused) {
  (void)unused;
  while (run() != LUNA_EXIT_INTERRUPTED) {
  }
  return NULL;
}

/* Every call that would wait for the vCPU or a lock ends with the error; 0, or the number of one
 * that did not. A child that hangs dies of SIGALRM. */
static int calls_of_the_child(luna_buffer *buffer) {
  const luna_change change = {.kind = LUNA_CHANGE_UNMAP, .gpa = 0x1000, .size = PAGE};
  const char *why = "KVM ties a VM to the process that made it";
  uint64_t first;
  uint64_t length;
  uint32_t number;
  uint8_t byte;
  luna_region region;
  luna_walk walk;
  luna_vcpu *other;
  alarm(20);
#define FOREIGN(call)                                                                              \
  if ((call) != LUNA_ERROR_STATE || !strstr(luna_error_message(), why)) {                          \
    return __LINE__;                                                                               \
  }
  FOREIGN(luna_vm_unmap_space(vm, 0, 0x1000, PAGE));
  FOREIGN(luna_vm_protect_space(vm, 0, 0x1000, PAGE, LUNA_READ));
  FOREIGN(luna_vm_update_space(vm, 0, &change, 1));
  FOREIGN(luna_vm_remap_space(vm, 0, 0x1000, buffer, 0));
  FOREIGN(luna_vm_map_space(vm, 0, buffer, 0, 0x400000, PAGE, RWX));
  FOREIGN(luna_vm_copy_space(vm, 0, 0, &byte, 1, LUNA_READ));
  FOREIGN(luna_vm_dirty_space(vm, 0, 0, PAGE));
  FOREIGN(luna_vm_dirty_take(vm, 0, 0, PAGE, 0, &first, &length));
  FOREIGN(luna_space_next(vm, 0, 0, &region));
  FOREIGN(luna_vm_space_create(vm, &number));
  FOREIGN(luna_vm_space_destroy(vm, 1));
  FOREIGN(luna_vcpu_create(vm, NULL, &other));
  FOREIGN(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x10, 1, &number));
  FOREIGN(luna_vm_trap(vm, LUNA_TRAP_MSR, 0x10, 1, &number));
  FOREIGN(luna_vm_untrap(vm, 1));
  FOREIGN(luna_vcpu_run(vcpu, 0));
  FOREIGN(luna_vcpu_get(vcpu, LUNA_RAX, &first));
  FOREIGN(luna_vcpu_set(vcpu, LUNA_RAX, 1));
  FOREIGN(luna_vcpu_translate(vcpu, 0, &walk));
  FOREIGN(luna_vcpu_copy(vcpu, 0, &byte, 1, LUNA_READ));
  FOREIGN(luna_vcpu_set_space(vcpu, 0, 0));
#undef FOREIGN
  luna_vcpu_interrupt(vcpu);
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  return 0;
}

static void forked_while_in_the_guest(void) {
  pthread_t thread;
  uint32_t trap;
  luna_region code;
  begin_real_vm("\xeb\xfe", 2); /* jmp $ */
  begin_real_vcpu(LUNA_MODE_REAL);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x20, 1, &trap));
  CHECK_OK(luna_space_next(vm, 0, 0, &code));
  CHECK_EQ(pthread_create(&thread, NULL, run_until_interrupted, NULL), 0);
  usleep(50000);
  int status;
  pid_t child = fork();
  if (child == 0) {
    int line = calls_of_the_child(code.buffer);
    _exit(line == 0 ? 0 : line % 256 ? line % 256 : 255);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  luna_vcpu_interrupt(vcpu);
  pthread_join(thread, NULL);
  test_note("the child ended with 0x%x", (unsigned)status);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x1000, PAGE)); /* the parent's goes on */
  end();
}

/* ---- A process without descriptors ---- */

/* The one that is left is for the vCPU. One that is made when it has gone takes its KVM vCPU. */
static void few_descriptors(void) {
  struct rlimit old;
  begin_real_vm("\xf4", 1);
  luna_vcpu *first;
  luna_vcpu *second;
  int next = dup(0);
  CHECK(next >= 0);
  close(next);
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const struct rlimit few = {.rlim_cur = (rlim_t)next + 1, .rlim_max = old.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = 0x1000};
  int status = luna_vcpu_create(vm, &options, &first);
  int kind = status == LUNA_OK ? luna_vcpu_run(first, 0) : 0;
  uint64_t value = 1;
  int again = LUNA_ERROR_STATE;
  if (status == LUNA_OK) {
    luna_vcpu_set(first, LUNA_RBX, 0x1234);
    luna_vcpu_release(first);
    again = luna_vcpu_create(vm, &options, &second);
  }
  if (again == LUNA_OK) {
    luna_vcpu_get(second, LUNA_RBX, &value);
    kind = luna_vcpu_run(second, 0);
    luna_vcpu_release(second);
  }
  setrlimit(RLIMIT_NOFILE, &old);
  test_note("%s", luna_error_message());
  CHECK_EQ(status, LUNA_OK);
  CHECK_EQ(again, LUNA_OK);
  CHECK_EQ(kind, LUNA_EXIT_HLT);
  CHECK_EQ(value, 0);
  luna_vm_release(vm);
}

int main(void) {
  RUN(few_descriptors);
  RUN(forked_while_in_the_guest);
  RUN(forked);
  return test_end();
}
