/* SPDX-License-Identifier: MIT
 * A vCPU over the real KVM in a process that was forked: KVM ties it to the one that made it. */
#include "fixture/vcpu_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

/* What the child says of its use of the parent's VM; it
 * does not come back to the tests. */
static void in_the_child(int pipe_end) {
  char report[2048];
  uint64_t value;
  luna_buffer *buffer;
  int run_status = luna_vcpu_run(vcpu, luna_clock() + UINT64_C(5000) * MILLISECOND);
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
  check_line(report, "cannot read the system registers of vCPU 0", why);
  check_line(report, "map -5 cannot map gpa 0x100000", why);
  CHECK_TEXT(report, "own 0\n");
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* the parent's goes on */
  end();
}

int main(void) {
  RUN(forked);
  return test_end();
}
