/* SPDX-License-Identifier: MIT
 * Two kernels in one process, both made of the fake: which one a VM gets, and that what is learnt
 * of one is not taken for the other's. */
#include "fake/fake_file.h"
#include "fixture/test.h"

#include "kvm/host.h"
#include "kvm/kvm.h"
#include "memory/vm.h"
#include "stops.h"
#include "vcpu/vcpu.h"

#include <errno.h>

/* What the fake is while one of the kernels has a call. */
static fake_config configs[LUNA_ACCEL_COUNT];
static unsigned calls[LUNA_ACCEL_COUNT];

static void turn_to(uint32_t accel) {
  fake_host = configs[accel];
  calls[accel]++;
}

static int open_kvm(const char *path) {
  turn_to(LUNA_ACCEL_KVM);
  return fake_table()->open(path);
}

static int ioctl_kvm(int fd, unsigned long request, void *argument) {
  turn_to(LUNA_ACCEL_KVM);
  return fake_table()->ioctl(fd, request, argument);
}

static int open_soft(const char *path) {
  turn_to(LUNA_ACCEL_SOFT);
  return fake_table()->open(path);
}

static int ioctl_soft(int fd, unsigned long request, void *argument) {
  turn_to(LUNA_ACCEL_SOFT);
  return fake_table()->ioctl(fd, request, argument);
}

static luna_kvm_table tables[LUNA_ACCEL_COUNT];

static void begin(void) {
  char reason[1];
  fake_install(NULL);
  luna_accelerator_choose(LUNA_ACCEL_KVM, reason, sizeof reason); /* the library's own first */
  tables[LUNA_ACCEL_KVM] = tables[LUNA_ACCEL_SOFT] = *fake_table();
  tables[LUNA_ACCEL_KVM].open = open_kvm;
  tables[LUNA_ACCEL_KVM].ioctl = ioctl_kvm;
  tables[LUNA_ACCEL_SOFT].open = open_soft;
  tables[LUNA_ACCEL_SOFT].ioctl = ioctl_soft;
  luna_kvm_set_own(LUNA_ACCEL_KVM, &tables[LUNA_ACCEL_KVM]);
  luna_kvm_set_own(LUNA_ACCEL_SOFT, &tables[LUNA_ACCEL_SOFT]);
  luna_kvm_replace(NULL);
  configs[LUNA_ACCEL_KVM] = configs[LUNA_ACCEL_SOFT] = fake_defaults();
  configs[LUNA_ACCEL_KVM].slots_max = 20;
  configs[LUNA_ACCEL_KVM].vcpus_max = 2;
  configs[LUNA_ACCEL_KVM].stops = FAKE_STOP_INT3;
  configs[LUNA_ACCEL_SOFT].slots_max = 30;
  configs[LUNA_ACCEL_SOFT].msr_exits = 0;
  configs[LUNA_ACCEL_SOFT].stops = FAKE_STOP_HARDWARE | FAKE_STOP_WATCH;
  unsetenv("LUNA_ACCEL");
  unsetenv("LUNA_KVM_DEVICE");
}

static luna_vm *make(uint32_t accel) {
  const luna_vm_options options = {.accel = accel};
  luna_vm *vm;
  CHECK_OK(luna_vm_open(&options, &vm));
  return vm;
}

static void end(luna_vm *vm) {
  luna_vm_release(vm);
}

/* ---- The choice ---- */

static void check_choice(uint32_t asked, int chosen, const char *why) {
  char reason[640] = "";
  int got = luna_accelerator_choose(asked, reason, sizeof reason);
  test_note("%s", got < 0 ? luna_error_message() : reason);
  CHECK_EQ(got, chosen);
  CHECK(strstr(got < 0 ? luna_error_message() : reason, why));
  if (got >= 0) {
    luna_vm *vm = make(asked);
    CHECK_EQ(luna_vm_accelerator(vm), (uint32_t)chosen);
    CHECK(strcmp(luna_vm_accelerator_reason(vm), reason) == 0);
    end(vm);
  } else {
    const luna_vm_options options = {.accel = asked};
    luna_vm *vm = NULL;
    CHECK_FAILS(luna_vm_open(&options, &vm), chosen, why);
    CHECK(!vm);
  }
}

static void without_a_word(void) {
  begin();
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_KVM, "/dev/kvm can be opened");
  static const int absences[] = {ENOENT, EACCES, EBUSY};
  for (size_t i = 0; i < sizeof absences / sizeof *absences; i++) {
    begin();
    configs[LUNA_ACCEL_KVM].open_error = absences[i];
    check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_SOFT, "cannot open /dev/kvm: ");
    CHECK_OK(luna_probe());
  }
}

/* What fails this time only, or on a device that was named, is said. */
static void kvm_that_fails(void) {
  begin();
  configs[LUNA_ACCEL_KVM].open_error = EMFILE;
  check_choice(LUNA_ACCEL_AUTO, LUNA_ERROR_LIMIT, "cannot open /dev/kvm");
  begin();
  configs[LUNA_ACCEL_KVM].open_error = ENOENT;
  setenv("LUNA_KVM_DEVICE", "/dev/other", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ERROR_NO_KVM, "cannot open /dev/other");
  check_choice(LUNA_ACCEL_SOFT, LUNA_ACCEL_SOFT, "it was asked for");
  unsetenv("LUNA_KVM_DEVICE");
  check_choice(LUNA_ACCEL_KVM, LUNA_ERROR_NO_KVM, "cannot open /dev/kvm");
}

static void variable(void) {
  begin();
  setenv("LUNA_ACCEL", "soft", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_SOFT, "LUNA_ACCEL is soft");
  check_choice(LUNA_ACCEL_KVM, LUNA_ACCEL_KVM, "it was asked for");
  setenv("LUNA_ACCEL", "kvm", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_KVM, "LUNA_ACCEL is kvm");
  setenv("LUNA_ACCEL", "auto", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_KVM, "can be opened");
  setenv("LUNA_ACCEL", "", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_KVM, "can be opened");
  setenv("LUNA_ACCEL", "tcg", 1);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ERROR_ARGUMENT, "LUNA_ACCEL is 'tcg'");
  check_choice(LUNA_ACCEL_SOFT, LUNA_ACCEL_SOFT, "it was asked for");
  unsetenv("LUNA_ACCEL");
  check_choice(LUNA_ACCEL_COUNT, LUNA_ERROR_ARGUMENT, "there is no accelerator 3");
}

static void build_without_software(void) {
  begin();
  luna_kvm_set_own(LUNA_ACCEL_SOFT, NULL);
  check_choice(LUNA_ACCEL_SOFT, LUNA_ERROR_UNSUPPORTED, "it was made without Zydis");
  check_choice(LUNA_ACCEL_AUTO, LUNA_ACCEL_KVM, "can be opened");
  begin();
  configs[LUNA_ACCEL_KVM].open_error = ENOENT;
  luna_kvm_set_own(LUNA_ACCEL_SOFT, NULL);
  check_choice(LUNA_ACCEL_AUTO, LUNA_ERROR_NO_KVM, "made without Zydis");
}

static void names(void) {
  CHECK(strcmp(luna_accelerator_name(LUNA_ACCEL_AUTO), "auto") == 0);
  CHECK(strcmp(luna_accelerator_name(LUNA_ACCEL_KVM), "kvm") == 0);
  CHECK(strcmp(luna_accelerator_name(LUNA_ACCEL_SOFT), "soft") == 0);
  CHECK(!luna_accelerator_name(LUNA_ACCEL_COUNT));
  CHECK(!luna_accelerator_name(-1));
}

/* ---- Side by side ---- */

static void run_once(luna_vm *vm) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = 0x1000};
  luna_vcpu *vcpu;
  uint32_t accel = luna_vm_accelerator(vm);
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  CHECK(vcpu->fd.table == &tables[accel]);
  CHECK_EQ(luna_vcpu_xsave_size(vcpu), vm->host->xsave_size);
  unsigned other = calls[LUNA_ACCEL_KVM + LUNA_ACCEL_SOFT - accel];
  CHECK_EQ(luna_vcpu_run(vcpu, 0), LUNA_EXIT_HLT);
  luna_vcpu_release(vcpu);
  CHECK_EQ(calls[LUNA_ACCEL_KVM + LUNA_ACCEL_SOFT - accel], other);
}

/* A vCPU that takes over the number of another gets a fresh state, which each kernel is asked for
 * once, however often they take turns. */
static void turns(void) {
  begin();
  luna_vm *kvm = make(LUNA_ACCEL_KVM);
  luna_vm *soft = make(LUNA_ACCEL_SOFT);
  CHECK(kvm->spaces[0]->vm_fd.table == &tables[LUNA_ACCEL_KVM]);
  CHECK(soft->spaces[0]->vm_fd.table == &tables[LUNA_ACCEL_SOFT]);
  for (int i = 0; i < 2; i++) {
    run_once(kvm);
    run_once(soft);
  }
  uint64_t vms = fake_calls(KVM_CREATE_VM);
  uint64_t questions = fake_calls(KVM_GET_SUPPORTED_CPUID);
  for (int i = 0; i < 4; i++) {
    run_once(kvm);
    run_once(soft);
  }
  CHECK_EQ(fake_calls(KVM_CREATE_VM), vms);
  CHECK_EQ(fake_calls(KVM_GET_SUPPORTED_CPUID), questions);
  CHECK_EQ(luna_live(LUNA_OBJECT_VM), 2);
  end(kvm);
  end(soft);
  CHECK_EQ(fake_mistakes(), 0);
}

static void capabilities(void) {
  begin();
  uint64_t value;
  CHECK_OK(luna_accelerator_capability(LUNA_ACCEL_KVM, "slots_max", &value));
  CHECK_EQ(value, 20);
  CHECK_OK(luna_accelerator_capability(LUNA_ACCEL_SOFT, "slots_max", &value));
  CHECK_EQ(value, 30);
  CHECK_OK(luna_capability("slots_max", &value));
  CHECK_EQ(value, 20);
  luna_vm *kvm = make(LUNA_ACCEL_KVM);
  luna_vm *soft = make(LUNA_ACCEL_SOFT);
  uint32_t trap;
  CHECK_OK(luna_vm_trap(kvm, LUNA_TRAP_MSR, 0x1000, 1, &trap));
  CHECK_FAILS(luna_vm_trap(soft, LUNA_TRAP_MSR, 0x1000, 1, &trap), LUNA_ERROR_UNSUPPORTED,
              "KVM_CAP_X86_MSR_FILTER");
  luna_vcpu *vcpus[3] = {0};
  for (int i = 0; i < 2; i++) {
    CHECK_OK(luna_vcpu_create(kvm, NULL, &vcpus[i]));
  }
  CHECK_FAILS(luna_vcpu_create(kvm, NULL, &vcpus[2]), LUNA_ERROR_LIMIT, "allows 2");
  luna_vcpu_release(vcpus[0]);
  luna_vcpu_release(vcpus[1]);
  for (int i = 0; i < 3; i++) {
    CHECK_OK(luna_vcpu_create(soft, NULL, &vcpus[i]));
  }
  for (int i = 0; i < 3; i++) {
    luna_vcpu_release(vcpus[i]);
  }
  end(kvm);
  end(soft);
}

/* Where a guest stops is found out on each, in either order, and again after neither. */
static void breakpoints(void) {
  begin();
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(luna_stops_probe(LUNA_ACCEL_KVM, LUNA_DEBUG_HARDWARE), 0);
    CHECK(luna_stops_probe(LUNA_ACCEL_SOFT, LUNA_DEBUG_HARDWARE) > 0);
    CHECK(luna_stops_probe(LUNA_ACCEL_KVM, LUNA_DEBUG_SOFTWARE) > 0);
    CHECK_EQ(luna_stops_probe(LUNA_ACCEL_SOFT, LUNA_DEBUG_SOFTWARE), 0);
  }
  uint64_t vms = fake_calls(KVM_CREATE_VM);
  CHECK_EQ(luna_stops_probe(LUNA_ACCEL_KVM, LUNA_DEBUG_WATCH), 0);
  CHECK(luna_stops_probe(LUNA_ACCEL_SOFT, LUNA_DEBUG_WATCH) > 0);
  CHECK_EQ(fake_calls(KVM_CREATE_VM), vms);
}

static void states(void) {
  static uint8_t state[65536];
  begin();
  luna_vm *vms[2] = {make(LUNA_ACCEL_KVM), make(LUNA_ACCEL_SOFT)};
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = 0x1000};
  luna_vcpu *vcpus[2];
  for (int i = 0; i < 2; i++) {
    CHECK_OK(luna_vcpu_create(vms[i], &options, &vcpus[i]));
  }
  for (int i = 0; i < 2; i++) {
    uint64_t value;
    size_t size = sizeof state;
    CHECK_OK(luna_vcpu_set(vcpus[i], LUNA_RBX, 0x1234 + (unsigned)i));
    CHECK_OK(luna_vcpu_save(vcpus[i], state, &size));
    CHECK_OK(luna_vcpu_restore(vcpus[!i], state, size));
    CHECK_OK(luna_vcpu_get(vcpus[!i], LUNA_RBX, &value));
    CHECK_EQ(value, 0x1234 + (unsigned)i);
  }
  for (int i = 0; i < 2; i++) {
    luna_vcpu_release(vcpus[i]);
    end(vms[i]);
  }
}

int main(void) {
  RUN(without_a_word);
  RUN(kvm_that_fails);
  RUN(variable);
  RUN(build_without_software);
  RUN(names);
  RUN(turns);
  RUN(capabilities);
  RUN(breakpoints);
  RUN(states);
  return test_end();
}
