/* SPDX-License-Identifier: MIT
 * Failures of KVM_RUN; the life of a vCPU. */
#include "fixture/vcpu_fixture.h"

/* ---- Failures of KVM_RUN ---- */

static void passing_errors(void) {
  begin();
  SCRIPT({.kind = FAKE_ERRNO, .number = EAGAIN}, {.kind = FAKE_ERRNO, .number = ENOMEM},
         {.kind = FAKE_ERRNO, .number = EAGAIN}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 4);
  CHECK_EQ(luna_vcpu_exits(vcpu), 1);
  end();
}

static void lasting_errors(void) {
  static const struct {
    fake_step step;
    int status;
    const char *part;
  } cases[] = {
      {{.kind = FAKE_ERRNO, .number = ENOMEM},
       LUNA_ERROR_MEMORY,
       "cannot run vCPU 0: Cannot allocate memory"},
      {{.kind = FAKE_ERRNO, .number = EAGAIN}, LUNA_ERROR_SYSTEM, "cannot run vCPU 0: Resource"},
      {{.kind = FAKE_ERRNO, .number = EPERM}, LUNA_ERROR_ACCESS, "cannot run vCPU 0: Operation"},
      {{.kind = FAKE_ERRNO, .number = EIO},
       LUNA_ERROR_STATE,
       "cannot run vCPU 0 in this process: KVM ties a VM to the process that made it"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    begin();
    fake_script_endless(&cases[i].step, 1);
    CHECK_FAILS(run(), cases[i].status, cases[i].part);
    CHECK(entries() < 1000);
    end();
  }
}

/* KVM has room for page tables by how much memory is mapped: without any, the fetch is of none. */
static void no_page_tables(void) {
  static const fake_step full[] = {{.kind = FAKE_ERRNO, .number = ENOSPC}};
  luna_buffer *buffer;
  begin();
  fake_script_endless(full, 1);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(luna_vcpu_exit(vcpu)->access, LUNA_EXECUTE);
  const uint64_t gpa = luna_vcpu_exit(vcpu)->address & ~UINT64_C(0xfff);
  CHECK_OK(luna_buffer_create(4096, &buffer));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, gpa, 4096, LUNA_READ | LUNA_EXECUTE));
  fake_script_endless(full, 1);
  CHECK_FAILS(run(), LUNA_ERROR_LIMIT,
              "cannot run vCPU 0: KVM has no room for page tables, which it makes by how much "
              "memory is mapped; map some in space 0");
  luna_buffer_release(buffer);
  end();
}

/* A guest that cannot be entered can still be kicked and timed out. */
static void deadline_while_retrying(void) {
  begin();
  static const fake_step again[] = {{.kind = FAKE_ERRNO, .number = EAGAIN}};
  fake_script_endless(again, 1);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + MILLISECOND), LUNA_EXIT_TIMEOUT);
  end();
}

static void host_fault(void) {
  begin();
  SCRIPT(
      {.kind = FAKE_ERRNO, .number = EFAULT, .reason = FAKE_EXIT_MEMORY_FAULT, .address = 0x123000},
      {.kind = FAKE_ERRNO, .number = EFAULT, .reason = KVM_EXIT_UNKNOWN},
      {.kind = FAKE_ERRNO,
       .number = EHWPOISON,
       .reason = FAKE_EXIT_MEMORY_FAULT,
       .address = 0x456000});
  CHECK_EQ(run(), LUNA_EXIT_HOST_FAULT);
  CHECK_EQ(e->address, 0x123000);
  CHECK_EQ(e->reason, FAKE_EXIT_MEMORY_FAULT);
  CHECK_EQ(run(), LUNA_EXIT_HOST_FAULT);
  CHECK_EQ(e->address, 0);
  CHECK_EQ(run(), LUNA_EXIT_HOST_FAULT);
  CHECK_EQ(e->address, 0x456000);
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* A state that KVM refuses is named, stays as written, and can be mended. */
static void refused_state(void) {
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    set(LUNA_CR0, 0x80000000);
    set(LUNA_CR3, 0x1000);
    set(LUNA_RBX, 0x99);
    for (int i = 0; i < 2; i++) {
      CHECK_FAILS(run(), LUNA_ERROR_SYSTEM,
                  "cannot run vCPU 0: KVM refuses its system registers (cr0=0x80000000 cr3=0x1000 "
                  "cr4=0x0 efer=0x0 apic_base=0xfee00900 cs=0xf000)");
      CHECK_EQ(get(LUNA_CR0), 0x80000000);
    }
    set(LUNA_CR0, 0x80000001);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_sregs()->cr0, 0x80000001);
    CHECK_EQ(fake_sregs()->cr3, 0x1000);
    CHECK_EQ(fake_regs()->rbx, 0x99);
    end();
  }
}

/* An EINVAL that no written register explains must not bring old ones back. */
static void refusal_keeps_the_guests_registers(void) {
  begin();
  static const struct kvm_sregs changed = {.cr0 = 1, .cr3 = 0x7000};
  static const fake_step steps[] = {{.kind = FAKE_HLT, .sregs = &changed},
                                    {.kind = FAKE_ERRNO, .number = EINVAL},
                                    {.kind = FAKE_HLT}};
  fake_script(steps, 3);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(run() < 0);
  CHECK_EQ(get(LUNA_CR3), 0x7000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_sregs()->cr3, 0x7000);
  end();
}

/* ---- Life ---- */

static void vcpu_holds_the_vm(void) {
  uint64_t vms = luna_live(LUNA_OBJECT_VM);
  begin();
  luna_vm_release(vm);
  CHECK_EQ(luna_live(LUNA_OBJECT_VM), vms + 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  luna_vcpu_retain(vcpu);
  luna_vcpu_release(vcpu);
  CHECK_EQ(luna_live(LUNA_OBJECT_VM), vms + 1);
  luna_vcpu_release(vcpu);
  CHECK_EQ(luna_live(LUNA_OBJECT_VM), vms);
}

/* Every call of making a VM and a vCPU fails once; whatever was there is gone. */
static void create_fails(void) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  unsigned refused = 0;
  uint64_t live = test_live();
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    fake_install(NULL);
    luna_vm *made = NULL;
    luna_vcpu *cpu = NULL;
    CHECK_OK(luna_probe()); /* the description of the host is test_error's */
    CHECK_OK(luna_vm_create(&made));
    luna_vm_release(made);
    fake_fail(nth, nth % 2 ? ENOMEM : EMFILE);
    int status = luna_vm_create(&made);
    if (status == LUNA_OK) {
      status = luna_vcpu_create(made, &options, &cpu);
      if (status == LUNA_OK) {
        luna_vcpu_release(cpu);
      }
      luna_vm_release(made);
    }
    CHECK(status <= 0);
    refused += status < 0;
    CHECK_EQ(test_live(), live);
    CHECK_EQ(fake_open(), 0);
    CHECK_EQ(fake_mistakes(), 0);
    if (!fake_failed()) {
      CHECK_EQ(status, LUNA_OK);
      break;
    }
  }
  CHECK(refused >= 8);
}

static void create_messages(void) {
  static const struct {
    uint64_t nth;
    const char *part;
  } calls[] = {{1, "cannot create vCPU 0 in space 0: Cannot allocate"},
               {2, "cannot map the run page of vCPU 0"},
               {3, "cannot set the CPUID leaves of vCPU 0"},
               {4, "cannot read the system registers of vCPU 0"},
               {5, "cannot read the registers of vCPU 0"}};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    CHECK_OK(luna_vm_create(&vm));
    fake_fail(calls[i].nth, ENOMEM);
    vcpu = NULL;
    CHECK_FAILS(luna_vcpu_create(vm, NULL, &vcpu), LUNA_ERROR_MEMORY, calls[i].part);
    CHECK(!vcpu);
    luna_vm_release(vm);
  }
}

static void vcpu_limit(void) {
  fake_config config = fake_defaults();
  config.vcpus_max = 2;
  begin_with(&config);
  luna_vcpu *second;
  luna_vcpu *third = NULL;
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  int status = luna_vcpu_create(vm, NULL, &third);
  luna_vcpu_release(second);
  end();
  CHECK_EQ(status, LUNA_ERROR_LIMIT);
  CHECK_TEXT(luna_error_message(), "cannot create vCPU 2: this host's KVM allows 2 in a VM");
}

int main(void) {
  RUN(passing_errors);
  RUN(lasting_errors);
  RUN(no_page_tables);
  RUN(deadline_while_retrying);
  RUN(host_fault);
  RUN(refused_state);
  RUN(refusal_keeps_the_guests_registers);
  RUN(vcpu_holds_the_vm);
  RUN(create_fails);
  RUN(create_messages);
  RUN(vcpu_limit);
  return test_end();
}
