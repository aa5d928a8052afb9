/* SPDX-License-Identifier: MIT
 * Hosts without a usable KVM: the status and the sentence that each obstacle gets; names of
 * numbers; the probe. */
#include "fixture/test.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static void install_open_error(int number) {
  fake_config config = fake_defaults();
  config.open_error = number;
  fake_install(&config);
}

/* The same obstacle through both ways to it. */
static void check_both(int status, const char *part) {
  luna_vm *vm = NULL;
  CHECK_FAILS(luna_probe(), status, part);
  CHECK_FAILS(luna_vm_create(&vm), status, part);
  CHECK(!vm);
  uint64_t value;
  CHECK_FAILS(luna_probe_value(0, &value), status, part);
  CHECK_EQ(fake_open(), 0);
}

static void missing(void) {
  install_open_error(ENOENT);
  check_both(LUNA_ERROR_NO_KVM, "cannot open /dev/kvm: it is missing (No such file or directory); "
                                "load KVM with 'modprobe kvm_intel' or 'modprobe kvm_amd'");
  install_open_error(ENODEV);
  check_both(LUNA_ERROR_NO_KVM, "it is missing (No such device)");
  install_open_error(ENXIO);
  check_both(LUNA_ERROR_NO_KVM, "it is missing (No such device or address)");
}

static void no_permission(void) {
  install_open_error(EACCES);
  check_both(LUNA_ERROR_ACCESS, "cannot open /dev/kvm: no permission (Permission denied); join its "
                                "group with 'sudo usermod -aG kvm $USER'");
  install_open_error(EPERM);
  check_both(LUNA_ERROR_ACCESS, "no permission (Operation not permitted)");
}

static void busy(void) {
  install_open_error(EBUSY);
  check_both(LUNA_ERROR_BUSY, "cannot open /dev/kvm: it is busy (Device or resource busy); another "
                              "hypervisor holds the processor's virtualization");
}

static void other_open_errors(void) {
  install_open_error(EMFILE);
  check_both(LUNA_ERROR_LIMIT, "cannot open /dev/kvm: Too many open files");
  CHECK_EQ(luna_error_number(), EMFILE);
  install_open_error(ENOMEM);
  check_both(LUNA_ERROR_MEMORY, "cannot open /dev/kvm: Cannot allocate memory");
  install_open_error(EIO);
  check_both(LUNA_ERROR_SYSTEM, "cannot open /dev/kvm: Input/output error");
}

static void bad_version(void) {
  fake_config config = fake_defaults();
  config.api_version = 11;
  fake_install(&config);
  check_both(LUNA_ERROR_NO_KVM, "/dev/kvm is not a KVM device: its API version is 11, not 12");
}

static void create_refused(void) {
  fake_config config = fake_defaults();
  luna_vm *vm = NULL;
  config.create_error = EBUSY;
  fake_install(&config);
  CHECK_FAILS(luna_probe(), LUNA_ERROR_BUSY, "cannot create a VM: KVM is busy");
  CHECK_FAILS(luna_vm_create(&vm), LUNA_ERROR_BUSY, "cannot create a VM: KVM is busy");
  config.create_error = ENOMEM;
  fake_install(&config);
  CHECK_FAILS(luna_probe(), LUNA_ERROR_MEMORY, "cannot create a VM: Cannot allocate memory");
  CHECK_EQ(luna_error_number(), ENOMEM);
  CHECK_FAILS(luna_vm_create(&vm), LUNA_ERROR_MEMORY, "cannot create a VM");
  CHECK(!vm);
}

/* A signal while KVM makes the VM is nobody's failure. */
static void create_interrupted(void) {
  fake_fail(3, EINTR); /* open, version, create */
  CHECK_OK(luna_probe());
  CHECK(fake_failed());
  CHECK_EQ(fake_calls(KVM_CREATE_VM), 2);
}

/* Each call of a first luna_vm_create in turn: what fails is reported with a negative status. */
static void first_create_fails(void) {
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    fake_install(NULL);
    fake_fail(nth, EIO);
    luna_vm *vm = NULL;
    int status = luna_vm_create(&vm);
    if (status == LUNA_OK) {
      luna_vm_release(vm);
    } else {
      CHECK(status < 0);
      CHECK(!vm);
    }
    CHECK_EQ(fake_open(), 0);
    CHECK_EQ(fake_mistakes(), 0);
    if (!fake_failed()) {
      break;
    }
  }
}

/* The answers of a host that refused once are asked for again. */
static void refusal_is_not_kept(void) {
  install_open_error(EACCES);
  luna_vm *vm = NULL;
  CHECK_EQ(luna_vm_create(&vm), LUNA_ERROR_ACCESS);
  fake_install(NULL);
  CHECK_OK(luna_vm_create(&vm));
  luna_vm_release(vm);
}

static void device_path(void) {
  setenv("LUNA_KVM_DEVICE", "/dev/other", 1);
  install_open_error(ENOENT);
  CHECK_FAILS(luna_probe(), LUNA_ERROR_NO_KVM, "cannot open /dev/other: it is missing");
  CHECK(strcmp(fake_path(), "/dev/other") == 0);
  setenv("LUNA_KVM_DEVICE", "", 1);
  CHECK_FAILS(luna_probe(), LUNA_ERROR_NO_KVM, "cannot open /dev/kvm: it is missing");
  unsetenv("LUNA_KVM_DEVICE");
}

/* A path longer than the room for the message: cut, but whole as a string. */
static void long_message(void) {
  char path[1024];
  memset(path, 'x', sizeof path);
  path[sizeof path - 1] = '\0';
  setenv("LUNA_KVM_DEVICE", path, 1);
  install_open_error(EIO);
  CHECK_FAILS(luna_probe(), LUNA_ERROR_SYSTEM, "cannot open xxx");
  CHECK(strlen(luna_error_message()) < sizeof path);
  CHECK_EQ(luna_error_number(), EIO);
  unsetenv("LUNA_KVM_DEVICE");
}

/* What is copied is the message, cut where there is no room for all of it. */
static void copied_message(void) {
  char all[1024], part[16] = "................", least[2] = "..";
  setenv("LUNA_KVM_DEVICE", "", 1);
  install_open_error(EIO);
  CHECK(luna_probe() < 0);
  unsetenv("LUNA_KVM_DEVICE");
  CHECK_EQ(luna_error_copy(all, sizeof all), (int)strlen(luna_error_message()));
  CHECK(strcmp(all, luna_error_message()) == 0);
  CHECK_EQ(luna_error_copy(part, 12), 11);
  CHECK(strncmp(part, all, 11) == 0 && part[11] == '\0' && part[12] == '.');
  CHECK_EQ(luna_error_copy(least, 1), 0);
  CHECK(least[0] == '\0' && least[1] == '.');
}

/* Not the fake, but KVM's real table: a file that is no KVM device. */
static void real_table(void) {
  char asked[16];
  snprintf(asked, sizeof asked, "%s", getenv("LUNA_ACCEL") ? getenv("LUNA_ACCEL") : "");
  fake_remove();
  setenv("LUNA_ACCEL", "kvm", 1);
  setenv("LUNA_KVM_DEVICE", "/dev/null", 1);
  int status = luna_probe();
  unsetenv("LUNA_KVM_DEVICE");
  CHECK_EQ(status, LUNA_ERROR_NO_KVM);
  CHECK_TEXT(luna_error_message(), "/dev/null is not a KVM device: its API version is -1, not 12");
  setenv("LUNA_KVM_DEVICE", "/nowhere/kvm", 1);
  status = luna_probe();
  unsetenv("LUNA_KVM_DEVICE");
  CHECK_EQ(status, LUNA_ERROR_NO_KVM);
  CHECK_TEXT(luna_error_message(), "cannot open /nowhere/kvm: it is missing");
  setenv("LUNA_ACCEL", asked, 1); /* the empty text is as none */
}

/* What the fake says of a feature. */
static uint64_t offered(const char *name) {
  static const struct {
    const char *name;
    uint64_t value;
  } features[] = {
      {"nr_memslots", 509},        {"max_vcpus", 64},     {"sync_regs", 7},
      {"immediate_exit", 1},       {"readonly_mem", 1},   {"coalesced_pio", 1},
      {"x86_user_space_msr", 1},   {"x86_msr_filter", 1}, {"hardware_breakpoints", 7},
      {"software_breakpoints", 7}, {"watchpoints", 7},    {"irqchip", 1},
      {"split_irqchip", 1},        {"pit2", 1},           {"x86_apic_bus_cycles_ns", 1},
  };
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    if (strcmp(features[i].name, name) == 0) {
      return features[i].value;
    }
  }
  return 0;
}

static void probe(void) {
  CHECK_OK(luna_probe());
  CHECK_EQ(fake_calls(KVM_CREATE_VM), 1);
  CHECK(!luna_probe_name(-1));
  int count = 0;
  while (luna_probe_name(count)) {
    uint64_t value = 77;
    CHECK_OK(luna_probe_value(count, &value));
    const char *name = luna_probe_name(count);
    test_note("%s", name);
    CHECK_EQ(value, offered(name));
    count++;
  }
  CHECK(count > 10);
  uint64_t value;
  CHECK_FAILS(luna_probe_value(count, &value), LUNA_ERROR_ARGUMENT, "there is no host feature");
  CHECK_FAILS(luna_probe_value(-1, &value), LUNA_ERROR_ARGUMENT, "there is no host feature -1");
}

static void names(void) {
  for (int status = 0; status >= LUNA_ERROR_SYSTEM; status--) {
    CHECK(luna_status_name(status));
  }
  CHECK(strcmp(luna_status_name(LUNA_ERROR_OVERLAP), "overlap") == 0);
  CHECK(strcmp(luna_status_name(LUNA_ERROR_NO_KVM), "no_kvm") == 0);
  CHECK(strcmp(luna_status_name(LUNA_ERROR_SYSTEM), "system") == 0);
  CHECK(!luna_status_name(1) && !luna_status_name(LUNA_ERROR_SYSTEM - 1));
  for (int kind = LUNA_EXIT_HLT; kind <= LUNA_EXIT_OTHER; kind++) {
    CHECK(luna_exit_name(kind));
  }
  CHECK(strcmp(luna_exit_name(LUNA_EXIT_FAIL_ENTRY), "fail_entry") == 0);
  CHECK(strcmp(luna_exit_name(LUNA_EXIT_OTHER), "other") == 0);
  CHECK(!luna_exit_name(0) && !luna_exit_name(-1) && !luna_exit_name(LUNA_EXIT_TPR + 1));
  CHECK(strcmp(luna_register_name(LUNA_R8), "r8") == 0);
  CHECK(strcmp(luna_register_name(LUNA_LDTR_ACCESS), "ldtr.access") == 0);
  CHECK(!luna_register_name(-1) && !luna_register_name(LUNA_REGISTER_COUNT));
  CHECK_EQ(luna_live(-1), 0);
  CHECK_EQ(luna_live(LUNA_OBJECT_COUNT), 0);
  CHECK_TEXT(luna_version(), ".");
}

static const struct {
  int number;
  int status;
} statuses[] = {
    {EBUSY, LUNA_ERROR_BUSY},         {ENOMEM, LUNA_ERROR_MEMORY},
    {ENOSPC, LUNA_ERROR_LIMIT},       {EMFILE, LUNA_ERROR_LIMIT},
    {ENFILE, LUNA_ERROR_LIMIT},       {EACCES, LUNA_ERROR_ACCESS},
    {EPERM, LUNA_ERROR_ACCESS},       {ENOSYS, LUNA_ERROR_UNSUPPORTED},
    {ENOTTY, LUNA_ERROR_UNSUPPORTED}, {EOPNOTSUPP, LUNA_ERROR_UNSUPPORTED},
    {EINVAL, LUNA_ERROR_SYSTEM},      {EIO, LUNA_ERROR_SYSTEM},
};

static void statuses_of_errno(void) {
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
    CHECK_EQ(luna_fail_errno(statuses[i].number, "trying %d", 5), statuses[i].status);
    CHECK_TEXT(luna_error_message(), "trying 5: ");
    CHECK_TEXT(luna_error_message(), strerror(statuses[i].number));
    CHECK_EQ(luna_error_number(), statuses[i].number);
  }
  CHECK_EQ(luna_fail(LUNA_ERROR_STATE, "no call"), LUNA_ERROR_STATE);
  CHECK_EQ(luna_error_number(), 0);
}

static void *fail_elsewhere(void *message) {
  memcpy(message, luna_error_message(), 1); /* nothing failed in this thread yet */
  luna_fail(LUNA_ERROR_STATE, "elsewhere");
  return NULL;
}

static void errors_are_per_thread(void) {
  char first = 'x';
  pthread_t thread;
  luna_fail(LUNA_ERROR_STATE, "here");
  CHECK_EQ(pthread_create(&thread, NULL, fail_elsewhere, &first), 0);
  pthread_join(thread, NULL);
  CHECK_EQ(first, '\0');
  CHECK_TEXT(luna_error_message(), "here");
}

/* Of two address widths in the CPUID leaf, the guest's counts; without the leaf it is 36 bits. */
static void address_width(void) {
  static const struct {
    uint32_t bits;
    uint32_t entries;
    const char *part;
  } hosts[] = {{40, 40, "have 40 bits and end at 0xffffffffff"},
               {0x270030, 40, "have 39 bits and end at 0x7fffffffff"},
               {40, 0, "have 36 bits and end at 0xfffffffff"},
               {46, 300, "have 46 bits and end at 0x3fffffffffff"}};
  for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
    fake_config config = fake_defaults();
    config.address_bits = hosts[i].bits;
    config.cpuid_entries = hosts[i].entries;
    fake_install(&config);
    luna_vm *vm;
    CHECK_OK(luna_vm_create(&vm));
    CHECK_FAILS(luna_vm_unmap_space(vm, 0, UINT64_C(1) << 52, 0x1000), LUNA_ERROR_RANGE,
                hosts[i].part);
    luna_vm_release(vm);
  }
}

static void no_immediate_exit(void) {
  fake_config config = fake_defaults();
  config.immediate_exit = 0;
  fake_install(&config);
  luna_vm *vm;
  luna_vcpu *vcpu = NULL;
  CHECK_OK(luna_vm_create(&vm));
  CHECK_FAILS(luna_vcpu_create(vm, NULL, &vcpu), LUNA_ERROR_UNSUPPORTED,
              "no KVM_CAP_IMMEDIATE_EXIT");
  CHECK(!vcpu);
  luna_vm_release(vm);
}

int main(void) {
  setenv("LUNA_ACCEL", "kvm", 0); /* to choose one takes calls more */
  RUN(missing);
  RUN(no_permission);
  RUN(busy);
  RUN(other_open_errors);
  RUN(bad_version);
  RUN(create_refused);
  RUN(create_interrupted);
  RUN(first_create_fails);
  RUN(refusal_is_not_kept);
  RUN(device_path);
  RUN(long_message);
  RUN(copied_message);
  RUN(real_table);
  RUN(probe);
  RUN(names);
  RUN(statuses_of_errno);
  RUN(errors_are_per_thread);
  RUN(address_width);
  RUN(no_immediate_exit);
  return test_end();
}
