/* SPDX-License-Identifier: MIT
 * Which vCPUs run at first where there are interrupt controllers, and how INIT and SIPI stop and
 * start them, as the Hypervisor framework has it. */
#include "fixture/hvf_intr_fixture.h"

enum {
  AP_CODE = 0x8000,
  READY = 0x91,   /* a processor is up */
  STARTED = 0x92, /* the first processor has started the others */
  DONE = 0x93
};

/* One processor beside the first: what it is to do, and what came of it. Threads meet at the
 * barrier; checks do not work on this one's. */
typedef struct processor {
  pthread_t thread;
  pthread_barrier_t met;
  uint32_t boot_state;
  bool late; /* it runs only when its starter comes to the barrier again */
  hv_vcpuid_t id;
  hv_return_t result;
  uint64_t reason, code, qualification, told;
  uint64_t began; /* `code` of the first exit, for the starter to look at while it goes on */
} processor;

static void note_exit(processor *p) {
  hv_return_t results[] = {
      p->result,
      hv_vcpu_run_until(p->id, luna_clock() + UINT64_C(60000000000)),
      hv_vmx_vcpu_read_vmcs(p->id, VMCS_RO_EXIT_REASON, &p->reason),
      hv_vmx_vcpu_read_vmcs(p->id, VMCS_RO_EXIT_QUALIFIC, &p->qualification),
      hv_vmx_vcpu_read_vmcs(p->id, VMCS_GUEST_CS_BASE, &p->code),
      hv_vcpu_read_register(p->id, HV_X86_RAX, &p->told),
  };
  for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
    p->result = p->result == HV_SUCCESS ? results[i] : p->result;
  }
}

static hv_return_t skip_it(const processor *p) {
  uint64_t rip = 0, length = 0;
  hv_vcpu_read_register(p->id, HV_X86_RIP, &rip);
  hv_vmx_vcpu_read_vmcs(p->id, VMCS_RO_VMEXIT_INSTR_LEN, &length);
  return hv_vcpu_write_register(p->id, HV_X86_RIP, rip + length);
}

static hv_return_t set_boot_state(hv_vcpuid_t id, uint32_t boot_state) {
  hv_apic_state_ext_t state = {.version = HV_APIC_STATE_EXT_VER};
  hv_return_t result = hv_vcpu_apic_get_state(id, &state);
  state.state.boot_state = boot_state;
  return result == HV_SUCCESS ? hv_vcpu_apic_put_state(id, &state) : result;
}

static void *make_processor(void *argument) {
  processor *p = argument;
  p->result = hv_vcpu_create(&p->id, HV_VCPU_DEFAULT);
  if (p->result == HV_SUCCESS && p->boot_state != HV_BS_RUNNING) {
    p->result = set_boot_state(p->id, p->boot_state);
  }
  if (p->boot_state == HV_BS_RUNNING) {
    hv_vmx_vcpu_write_vmcs(p->id, VMCS_GUEST_CS, AP_CODE >> 4);
    hv_vmx_vcpu_write_vmcs(p->id, VMCS_GUEST_CS_BASE, AP_CODE);
    hv_vcpu_write_register(p->id, HV_X86_RIP, 0);
  }
  pthread_barrier_wait(&p->met);
  if (p->late) {
    pthread_barrier_wait(&p->met);
  }
  note_exit(p);
  return NULL;
}

static void *run_processor(void *argument) {
  processor *p = argument;
  make_processor(p);
  pthread_barrier_wait(&p->met);
  hv_vcpu_destroy(p->id);
  return NULL;
}

/* It halts, and tells of the NMI that wakes it. */
static void *run_and_halt(void *argument) {
  processor *p = argument;
  make_processor(p);
  bool is_up = p->reason == VMX_REASON_IO && p->qualification >> 16 == READY;
  p->result = p->result == HV_SUCCESS && !is_up ? HV_ERROR : p->result;
  p->result = p->result == HV_SUCCESS ? skip_it(p) : p->result;
  p->began = p->code;
  pthread_barrier_wait(&p->met);
  note_exit(p);
  pthread_barrier_wait(&p->met);
  hv_vcpu_destroy(p->id);
  return NULL;
}

/* Ends when the processor is made. */
static void begin_processor(processor *p, void *(*function)(void *)) {
  pthread_barrier_init(&p->met, NULL, 2);
  CHECK_EQ(pthread_create(&p->thread, NULL, function, p), 0);
  pthread_barrier_wait(&p->met);
}

static void end_processor(processor *p) {
  pthread_barrier_wait(&p->met);
  CHECK_EQ(pthread_join(p->thread, NULL), 0);
  pthread_barrier_destroy(&p->met);
  HV(p->result);
}

static void put_ap_code(void) {
  static const uint8_t code[] = {0xe6, READY, 0xf4, 0xeb, 0xfd}; /* out; hlt; jmp back */
  memcpy(ram + AP_CODE, code, sizeof code);
}

/* ---- Without INIT and SIPI ---- */

static void every_new_vcpu_runs(void) {
  processor others[] = {{.boot_state = HV_BS_RUNNING}, {.boot_state = HV_BS_RUNNING}};
  const uint8_t code[] = {0xe6, READY, 0xf4};
  begin_with(code, sizeof code, HV_VM_ACCEL_APIC);
  put_ap_code();
  begin_processor(&others[0], run_processor);
  begin_processor(&others[1], run_processor);
  CHECK_EQ(run(), VMX_REASON_IO);
  for (int i = 0; i < 2; i++) {
    end_processor(&others[i]);
    CHECK_EQ(others[i].reason, VMX_REASON_IO);
    CHECK_EQ(others[i].qualification >> 16, READY);
  }
  end();
}

static void one_that_is_to_wait_waits(void) {
  const uint8_t code[] = {0xe6, READY, 0xf4};
  hv_apic_state_ext_t state = {.version = HV_APIC_STATE_EXT_VER};
  begin_with(code, sizeof code, HV_VM_ACCEL_APIC);
  HV(hv_vcpu_apic_get_state(vcpu, &state));
  CHECK_EQ(state.state.boot_state, HV_BS_RUNNING);
  for (uint32_t waits = HV_BS_INIT; waits < HV_BS_RUNNING; waits++) {
    HV(set_boot_state(vcpu, waits));
    HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
    CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
    HV(hv_vcpu_apic_get_state(vcpu, &state));
    CHECK_EQ(state.state.boot_state, waits);
  }
  HV(set_boot_state(vcpu, HV_BS_RUNNING));
  CHECK_EQ(run(), VMX_REASON_IO);
  end();
}

/* ---- By the program ---- */

static void check_targets(uint32_t command, uint32_t target, bool self, bool other) {
  bool active[3] = {true, true, true}, done = true;
  uint64_t rip = 0;
  HV(hv_vcpu_apic_write(vcpu, ICR_HIGH, target << 24, &done));
  CHECK(done);
  HV(hv_vcpu_apic_write(vcpu, ICR, command, &done));
  CHECK(!done);
  if ((command & 0x700) == 0x500) {
    CHECK_EQ(info(), HV_VM_EXITINFO_INIT_AP);
    HV(hv_vcpu_exit_init_ap(vcpu, active, 3));
  } else {
    CHECK_EQ(info(), HV_VM_EXITINFO_STARTUP_AP);
    HV(hv_vcpu_exit_startup_ap(vcpu, active, 3, &rip));
    CHECK_EQ(rip, (command & 0xff) << 12);
  }
  CHECK_EQ(active[0], self);
  CHECK_EQ(active[1], other);
  CHECK_EQ(active[2], false);
}

static void the_program_starts_a_processor(void) {
  processor other = {.boot_state = HV_BS_INIT};
  begin_halting();
  put_ap_code();
  begin_processor(&other, run_processor);
  check_targets(0x4500, 1, false, true);  /* INIT to APIC 1 */
  check_targets(0xc4500, 0, false, true); /* INIT to all others */
  check_targets(0x4608, 1, false, true);  /* SIPI, 0x8000 */
  bool done = false;
  HV(hv_vcpu_apic_write(vcpu, ICR, 0x8500, &done)); /* INIT that is not asserted */
  CHECK(done);
  end_processor(&other);
  CHECK_EQ(other.code, AP_CODE);
  CHECK_EQ(other.reason, VMX_REASON_IO);
  end();
}

/* ---- By the guest ---- */

/* mov dword [register], value, with DS at the local APIC. */
static size_t put_write(uint8_t *code, uint16_t offset, uint32_t value) {
  const uint8_t bytes[] = {0x66,
                           0xc7,
                           0x06,
                           (uint8_t)offset,
                           (uint8_t)(offset >> 8),
                           (uint8_t)value,
                           (uint8_t)(value >> 8),
                           (uint8_t)(value >> 16),
                           (uint8_t)(value >> 24)};
  memcpy(code, bytes, sizeof bytes);
  return sizeof bytes;
}

/* mov ecx, 0x830; mov edx, target; mov eax, command; wrmsr */
static size_t put_write_x2(uint8_t *code, uint32_t target, uint32_t command) {
  const uint8_t bytes[] = {0x66,
                           0xb9,
                           0x30,
                           0x08,
                           0,
                           0,
                           0x66,
                           0xba,
                           (uint8_t)target,
                           0,
                           0,
                           0,
                           0x66,
                           0xb8,
                           (uint8_t)command,
                           (uint8_t)(command >> 8),
                           (uint8_t)(command >> 16),
                           (uint8_t)(command >> 24),
                           0x0f,
                           0x30};
  memcpy(code, bytes, sizeof bytes);
  return sizeof bytes;
}

static size_t put_command(uint8_t *code, bool x2, uint32_t command) {
  return x2 ? put_write_x2(code, 1, command) : put_write(code, ICR, command);
}

/* INIT, SIPI twice, tell; NMI, tell. */
static void begin_starter(bool x2, uint32_t shorthand) {
  uint8_t code[256];
  size_t size = x2 ? 0 : put_write(code, ICR_HIGH, 1 << 24);
  size += put_command(code + size, x2, 0x4500 | shorthand);
  size += put_command(code + size, x2, 0x4608 | shorthand);
  size += put_command(code + size, x2, 0x4608 | shorthand);
  const uint8_t tell[] = {0xe6, STARTED}, end_code[] = {0xe6, DONE, 0xf4};
  memcpy(code + size, tell, sizeof tell);
  size += sizeof tell;
  size += put_command(code + size, x2, 0x4400 | shorthand);
  memcpy(code + size, end_code, sizeof end_code);
  size += sizeof end_code;
  begin_with(code, size, HV_VM_ACCEL_APIC);
  set_handlers();
  put_ap_code();
  set_field(VMCS_GUEST_DS_BASE, 0xfee00000);
  if (x2) {
    HV(hv_vcpu_write_msr(vcpu, 0x1b, 0xfee00d00));
  }
}

/* The exit of an INIT or a SIPI stands behind the instruction. */
static void check_start(hv_vm_exitinfo_t want, size_t behind) {
  bool active[4] = {true, true, true, true};
  uint64_t rip = 0;
  CHECK_EQ(run(), VMX_REASON_APIC_WRITE);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), ICR);
  CHECK_EQ(info(), want);
  if (want == HV_VM_EXITINFO_INIT_AP) {
    HV(hv_vcpu_exit_init_ap(vcpu, active, 4));
    HV_IS(hv_vcpu_exit_startup_ap(vcpu, active, 4, &rip), HV_ERROR);
  } else {
    HV(hv_vcpu_exit_startup_ap(vcpu, active, 4, &rip));
    CHECK_EQ(rip, AP_CODE);
    HV_IS(hv_vcpu_exit_init_ap(vcpu, active, 4), HV_ERROR);
  }
  CHECK_EQ(active[0], false);
  CHECK_EQ(active[1], true);
  CHECK_EQ(active[2] || active[3], false);
  CHECK_EQ(get(HV_X86_RIP), CODE + behind);
}

/* The second SIPI finds nobody who waits for it. */
static void check_starts(bool x2) {
  const size_t first = x2 ? 0 : 9, step = x2 ? 20 : 9;
  if (follows()) {
    check_start(HV_VM_EXITINFO_INIT_AP, first + step);
    check_start(HV_VM_EXITINFO_STARTUP_AP, first + 2 * step);
  }
}

/* The processor is in its run when it is started, or, with `late`, not yet. */
static void start_by_guest(uint32_t boot_state, bool late, bool x2, uint32_t shorthand) {
  processor other = {.boot_state = boot_state, .late = late};
  begin_starter(x2, shorthand);
  begin_processor(&other, run_and_halt);
  check_starts(x2);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) >> 16, STARTED);
  skip();
  if (late) {
    pthread_barrier_wait(&other.met);
  }
  pthread_barrier_wait(&other.met); /* it is up */
  CHECK_EQ(other.began, AP_CODE);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) >> 16, DONE);
  end_processor(&other);
  CHECK_EQ(other.reason, VMX_REASON_IO);
  CHECK_EQ(other.qualification >> 16, REPORT);
  CHECK_EQ(other.told & 0xff, 2);
  end();
}

static void the_guest_starts_a_processor(void) {
  start_by_guest(HV_BS_INIT, false, false, 0);
  start_by_guest(HV_BS_SIPI, false, false, 3 << 18); /* all others */
}

static void the_program_may_run_it_only_then(void) {
  start_by_guest(HV_BS_RUNNING, true, false, 0);
}

static void the_x2apic_starts_one_too(void) {
  start_by_guest(HV_BS_INIT, false, true, 0);
}

int main(void) {
  RUN_KVM(every_new_vcpu_runs);
  RUN_KVM(one_that_is_to_wait_waits);
  RUN_KVM(the_program_starts_a_processor);
  RUN_KVM(the_guest_starts_a_processor);
  RUN_KVM(the_program_may_run_it_only_then);
  RUN_KVM(the_x2apic_starts_one_too);
  return test_end();
}
