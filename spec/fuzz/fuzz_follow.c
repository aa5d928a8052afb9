/* SPDX-License-Identifier: MIT
 * Guests on the software CPU behind the Hypervisor library, with controls, masks, bitmaps, events
 * to inject, fields and a shadow VMCS at random. Each run ends in an exit that the SDM knows, or in
 * an entry that fails and says why; what is read of it changes nothing, a failed entry no register,
 * and a guest no field of its shadow VMCS that it may not write. */
#include "fuzz.h"

#include <Hypervisor/Hypervisor.h>
#include <Hypervisor/hv_linux.h>

enum {
  RAM = 0x10000,
  AT_CODE = 0x1000,
  AT_TABLES = 0x8000, /* PML4, PDPT, PD of 2 MiB pages */
  BUDGET = 200000,    /* nanoseconds of a run */
  RUNS_MOST = 12,
  FIELDS_MOST = 256
};

static uint8_t ram[RAM] __attribute__((aligned(4096)));
static hv_vcpuid_t id;
static uint32_t fields[FIELDS_MOST];
static uint32_t count;
static hv_shadow_flags_t shared[FIELDS_MOST]; /* of `fields`, or their upper halves */

/* Instructions that a control can be for, or that deliver something. */
static const uint8_t pieces[][16] = {
    {2, 0x0f, 0xa2},
    {1, 0xf4},
    {2, 0xcd, 0x21},
    {1, 0xcc},
    {1, 0xf1},
    {1, 0xce},
    {2, 0x0f, 0x0b},
    {3, 0x0f, 0x20, 0xc0},
    {3, 0x0f, 0x22, 0xc0},
    {3, 0x0f, 0x22, 0xd8},
    {3, 0x0f, 0x22, 0xe0},
    {3, 0x0f, 0x20, 0xd8},
    {3, 0x0f, 0x21, 0xf8},
    {3, 0x0f, 0x23, 0xf8},
    {2, 0x0f, 0x31},
    {2, 0x0f, 0x33},
    {2, 0x0f, 0x32},
    {2, 0x0f, 0x30},
    {2, 0xe4, 0x40},
    {2, 0xe6, 0x40},
    {2, 0xf3, 0x6c},
    {2, 0xf3, 0x6e},
    {3, 0x0f, 0x01, 0x10},
    {3, 0x0f, 0x01, 0x18},
    {3, 0x0f, 0x01, 0x00},
    {3, 0x0f, 0x00, 0xd8},
    {3, 0x0f, 0x01, 0x38},
    {2, 0xf3, 0x90},
    {3, 0x0f, 0x01, 0xc1},
    {3, 0x0f, 0x01, 0xc8},
    {3, 0x0f, 0x01, 0xc9},
    {3, 0x0f, 0x01, 0xd1},
    {2, 0x0f, 0x08},
    {2, 0x0f, 0x09},
    {3, 0x0f, 0xc7, 0xf0},
    {12, 0x0f, 0x78, 0xf7, 0x0f, 0x79, 0xf7, 0x0f, 0x78, 0x37, 0x0f, 0x79, 0x37},
    {1, 0x9d},
    {1, 0xcf},
    {1, 0xfa},
    {1, 0xfb},
    {1, 0x17},
    {2, 0x8e, 0xd0},
    {2, 0xff, 0x28},
    {2, 0x0f, 0x06},
    {3, 0x0f, 0x01, 0xf0},
    {2, 0x88, 0x07},
    {2, 0x8a, 0x07},
    {2, 0xf3, 0xaa},
};

static hv_return_t hv(hv_return_t result) {
  FUZZ_CHECK(result == HV_SUCCESS ||
                 ((uint32_t)result >> 4 == 0xfae9400 && result != 0 && hv_ext_error_message()[0]),
             "code 0x%x: %s", (unsigned)result, hv_ext_error_message());
  return result;
}

static uint64_t get(uint32_t field) {
  uint64_t value = 0;
  FUZZ_CHECK(hv(hv_vmx_vcpu_read_vmcs(id, field, &value)) == HV_SUCCESS, "field 0x%x: %s", field,
             hv_ext_error_message());
  return value;
}

static void set(uint32_t field, uint64_t value) {
  hv(hv_vmx_vcpu_write_vmcs(id, field, value));
}

/* ---- The guest ---- */

static void put_code(void) {
  size_t at = AT_CODE;
  for (uint32_t i = 0; i < 8; i++) {
    if (fuzz_rarely(3)) {
      ram[at++] = fuzz_byte();
    } else {
      const uint8_t *piece = pieces[fuzz_pick(sizeof pieces / sizeof *pieces)];
      memcpy(ram + at, piece + 1, piece[0]);
      at += piece[0];
    }
  }
}

static void put_entry(size_t at, uint64_t value) {
  memcpy(ram + at, &value, sizeof value);
}

static void choose_segments(uint32_t code, uint32_t data) {
  static const uint32_t rights[] = {VMCS_GUEST_DS_AR, VMCS_GUEST_ES_AR, VMCS_GUEST_SS_AR};
  static const uint32_t limits[] = {VMCS_GUEST_DS_LIMIT, VMCS_GUEST_ES_LIMIT, VMCS_GUEST_SS_LIMIT,
                                    VMCS_GUEST_CS_LIMIT};
  set(VMCS_GUEST_CS_AR, code);
  for (size_t i = 0; i < sizeof rights / sizeof *rights; i++) {
    set(rights[i], data);
  }
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    set(limits[i], UINT32_MAX);
  }
}

static void choose_mode(uint32_t mode) {
  set(VMCS_GUEST_CS, 0);
  set(VMCS_GUEST_CS_BASE, 0);
  set(VMCS_GUEST_RIP, AT_CODE);
  set(VMCS_GUEST_RSP, 0xf000);
  set(VMCS_GUEST_CR4, 0x2000);
  if (mode > 0) {
    choose_segments(mode == 2 ? 0xa09b : 0xc09b, 0xc093);
    set(VMCS_GUEST_CR0, 0x31);
  }
  if (mode == 2) {
    put_entry(AT_TABLES, AT_TABLES + 0x1003);
    put_entry(AT_TABLES + 0x1000, AT_TABLES + 0x2003);
    put_entry(AT_TABLES + 0x2000, 0x83);
    set(VMCS_GUEST_CR3, AT_TABLES);
    set(VMCS_GUEST_CR4, 0x2020);
    set(VMCS_GUEST_IA32_EFER, 0x500);
    set(VMCS_GUEST_CR0, 0x80000031);
  }
}

static void choose_controls(void) {
  static const struct {
    uint32_t field;
    hv_vmx_capability_t capability;
  } all[] = {{VMCS_CTRL_PIN_BASED, HV_VMX_CAP_PINBASED},
             {VMCS_CTRL_CPU_BASED, HV_VMX_CAP_PROCBASED},
             {VMCS_CTRL_CPU_BASED2, HV_VMX_CAP_PROCBASED2}};
  static const uint32_t free_fields[] = {
      VMCS_CTRL_EXC_BITMAP, VMCS_CTRL_PF_ERROR_MASK, VMCS_CTRL_PF_ERROR_MATCH,  VMCS_CTRL_CR0_MASK,
      VMCS_CTRL_CR0_SHADOW, VMCS_CTRL_CR4_MASK,      VMCS_CTRL_CR4_SHADOW,      VMCS_CTRL_CR3_COUNT,
      VMCS_CTRL_CR3_VALUE0, VMCS_CTRL_TPR_THRESHOLD, VMCS_GUEST_VMX_TIMER_VALUE};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    uint64_t bits = 0;
    hv(hv_vmx_read_capability(all[i].capability, &bits));
    set(all[i].field, (uint32_t)bits | (fuzz_bytes(4) & bits >> 32));
  }
  for (size_t i = 0; i < sizeof free_fields / sizeof *free_fields; i++) {
    if (fuzz_rarely(2)) {
      set(free_fields[i], fuzz_number());
    }
  }
}

/* A field of the shadow VMCS, and what the guest may do to it. */
static void share(uint32_t field, uint64_t value, hv_shadow_flags_t flags) {
  hv(hv_vmx_vcpu_write_shadow_vmcs(id, field, value));
  if (hv(hv_vmx_vcpu_set_shadow_access(id, field, flags)) != HV_SUCCESS) {
    return;
  }
  for (uint32_t i = 0; i < count; i++) {
    if (fields[i] == field) {
      shared[i] = flags;
    } else if (fields[i] == (field & ~UINT32_C(1))) {
      shared[i] |= flags;
    }
  }
}

/* RSI has the field that the guest's VMREAD and VMWRITE are for. */
static void choose_shadow(uint32_t choice) {
  static const uint32_t some[] = {
      VMCS_GUEST_ES,         VMCS_GUEST_IA32_EFER, VMCS_GUEST_IA32_EFER + 1, VMCS_GUEST_ES_AR,
      VMCS_RO_EXIT_QUALIFIC, VMCS_GUEST_RIP,       VMCS_CTRL_EPTP,           VMCS_MAX};
  memset(shared, 0, sizeof shared);
  share(some[choice % 8], 0x1234, choice / 8);
  hv(hv_vcpu_write_register(id, HV_X86_RSI, some[choice % 8]));
}

/* ---- What has to hold ---- */

typedef struct view {
  bool there[FIELDS_MOST];
  uint64_t values[FIELDS_MOST];
  uint64_t shadow[FIELDS_MOST];
} view;

static void look(view *v) {
  for (uint32_t i = 0; i < count; i++) {
    v->values[i] = 0;
    v->there[i] = hv(hv_vmx_vcpu_read_vmcs(id, fields[i], &v->values[i])) == HV_SUCCESS;
    FUZZ_CHECK(hv(hv_vmx_vcpu_read_shadow_vmcs(id, fields[i], &v->shadow[i])) == HV_SUCCESS,
               "field 0x%x of the shadow VMCS: %s", fields[i], hv_ext_error_message());
  }
}

static void learn_fields(void) {
  uint64_t value;
  for (uint32_t field = 0; field < VMCS_MAX && count < FIELDS_MOST; field += 2) {
    if (hv_vmx_vcpu_read_vmcs(id, field, &value) == HV_SUCCESS) {
      fields[count++] = field;
    }
  }
}

static void check_event(uint64_t info) {
  const uint64_t type = (info & IRQ_INFO_TYPE_MASK) >> 8;
  FUZZ_CHECK(!(info & IRQ_INFO_VALID) || (type != 1 && type != 7), "an event 0x%" PRIx64, info);
}

static void check_shadow(const view *before, const view *after) {
  for (uint32_t i = 0; i < count; i++) {
    FUZZ_CHECK(shared[i] & HV_SHADOW_VMCS_WRITE || before->shadow[i] == after->shadow[i],
               "the guest has changed field 0x%x of the shadow VMCS", fields[i]);
    FUZZ_CHECK(hv(hv_vmx_vcpu_write_shadow_vmcs(id, fields[i], after->shadow[i])) == HV_SUCCESS,
               "field 0x%x of the shadow VMCS is 0x%" PRIx64, fields[i], after->shadow[i]);
  }
}

static void check_exit(void) {
  const uint64_t reason = get(VMCS_RO_EXIT_REASON);
  const bool failed = reason & VMX_REASON_ENTRY_FAILURE;
  FUZZ_CHECK((reason & 0xffff) <= VMX_REASON_TPAUSE, "an exit for 0x%" PRIx64, reason);
  FUZZ_CHECK(!failed || hv_ext_error_message()[0], "a failed entry says nothing");
  FUZZ_CHECK(get(VMCS_RO_VMEXIT_INSTR_LEN) <= 15, "an instruction of %" PRIu64 " bytes",
             get(VMCS_RO_VMEXIT_INSTR_LEN));
  FUZZ_CHECK(reason != VMX_REASON_EPT_VIOLATION || get(VMCS_RO_EXIT_QUALIFIC) & 7,
             "a violation by no access");
  check_event(get(VMCS_RO_VMEXIT_IRQ_INFO));
  check_event(get(VMCS_RO_IDT_VECTOR_INFO));
}

static void run(void) {
  static view before, first, second;
  const uint64_t rip = get(VMCS_GUEST_RIP);
  const uint64_t rsp = get(VMCS_GUEST_RSP);
  look(&before);
  if (hv(hv_vcpu_run_until(id, luna_clock() + BUDGET)) != HV_SUCCESS) {
    return;
  }
  check_exit();
  look(&first);
  look(&second);
  FUZZ_CHECK(memcmp(&first, &second, sizeof first) == 0, "reading the exit has changed a field");
  check_shadow(&before, &first);
  if (get(VMCS_RO_EXIT_REASON) & VMX_REASON_ENTRY_FAILURE) {
    FUZZ_CHECK(get(VMCS_GUEST_RIP) == rip && get(VMCS_GUEST_RSP) == rsp,
               "a failed entry has changed a register");
  }
}

static void go_on(void) {
  uint32_t field;
  uint64_t value;
  switch (fuzz_pick(6)) {
    case 0:
      field = fields[fuzz_pick(count)];
      value = fuzz_number();
      set(field, value);
      share(field, value, value & 3);
      break;
    case 1:
      set(VMCS_CTRL_VMENTRY_EXC_ERROR, fuzz_number());
      set(VMCS_CTRL_VMENTRY_INSTR_LEN, fuzz_pick(16));
      set(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | fuzz_bytes(2));
      break;
    case 2:
      choose_controls();
      break;
    case 3:
      hv(hv_vcpu_write_register(id, (hv_x86_reg_t)fuzz_pick(HV_X86_REGISTERS_MAX), fuzz_number()));
      break;
    case 4:
      hv(hv_ext_vcpu_complete(id, fuzz_number()));
      break;
    default:
      set(VMCS_GUEST_RIP, get(VMCS_GUEST_RIP) + get(VMCS_RO_VMEXIT_INSTR_LEN));
      break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  setenv("LUNA_ACCEL", "soft", 1);
  input = (fuzz_input){data, size};
  memset(ram, 0, sizeof ram);
  const uint8_t choice = fuzz_byte();
  put_code();
  fuzz_fill(ram, sizeof ram);
  const hv_memory_flags_t rights = HV_MEMORY_READ | HV_MEMORY_EXEC;
  FUZZ_CHECK(hv(hv_vm_create(choice & 4 ? HV_VM_ACCEL_APIC : HV_VM_DEFAULT)) == HV_SUCCESS &&
                 hv(hv_vm_map(ram, 0, RAM - 0x1000, rights | HV_MEMORY_WRITE)) == HV_SUCCESS &&
                 hv(hv_vm_map(ram + RAM - 0x1000, RAM - 0x1000, 0x1000, rights)) == HV_SUCCESS &&
                 hv(hv_vcpu_create(&id, HV_VCPU_DEFAULT)) == HV_SUCCESS,
             "%s", hv_ext_error_message());
  if (count == 0) {
    learn_fields();
  }
  choose_mode(choice % 4 % 3);
  choose_controls();
  choose_shadow(choice >> 3);
  for (int runs = 0; runs < RUNS_MOST && (runs == 0 || fuzz_more()); runs++) {
    run();
    go_on();
  }
  FUZZ_CHECK(hv_vcpu_destroy(id) == HV_SUCCESS, "%s", hv_ext_error_message());
  FUZZ_CHECK(hv_vm_destroy() == HV_SUCCESS, "%s", hv_ext_error_message());
  for (int kind = 0; kind < LUNA_OBJECT_COUNT; kind++) {
    FUZZ_CHECK(luna_live(kind) == 0, "%" PRIu64 " objects of kind %d are left", luna_live(kind),
               kind);
  }
  return 0;
}
