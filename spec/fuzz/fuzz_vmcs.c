/* SPDX-License-Identifier: MIT
 * Reads and writes of the VMCS that the Hypervisor library shows, between calls that write
 * registers and run: a write that is refused changes no field, also when KVM fails in it; what was
 * read can be written back and changes nothing; registers are the same by both ways. */
#include "fuzz.h"

#include <Hypervisor/Hypervisor.h>

enum {
  FIELDS_MOST = 256,
  TYPES = 16,   /* width and type: bits 10 and 11, 13 and 14 of an encoding (SDM Vol. 3, 25.11.2) */
  INDICES = 32, /* bits 1 to 9 */
  CALLS_MOST = 24
};

typedef struct view {
  bool there[FIELDS_MOST];
  uint64_t values[FIELDS_MOST];
} view;

static hv_vcpuid_t id;
static uint32_t fields[FIELDS_MOST];
static uint32_t count;

/* A call fails by a code of the framework's, with a message. */
static hv_return_t hv(hv_return_t result) {
  FUZZ_CHECK(result == HV_SUCCESS ||
                 ((uint32_t)result >> 4 == 0xfae9400 && result != 0 && hv_ext_error_message()[0]),
             "code 0x%x: %s", (unsigned)result, hv_ext_error_message());
  return result;
}

static uint32_t encoding(uint32_t type, uint32_t index) {
  return type % 4 << 10 | type / 4 << 13 | index << 1;
}

static void learn_fields(void) {
  uint64_t value;
  for (uint32_t i = 0; i < TYPES * INDICES && count < FIELDS_MOST; i++) {
    uint32_t field = encoding(i / INDICES, i % INDICES);
    if (hv_vmx_vcpu_read_vmcs(id, field, &value) == HV_SUCCESS) {
      fields[count++] = field;
    }
  }
}

static void look(view *v) {
  for (uint32_t i = 0; i < count; i++) {
    v->values[i] = 0;
    v->there[i] = hv(hv_vmx_vcpu_read_vmcs(id, fields[i], &v->values[i])) == HV_SUCCESS;
  }
}

static void check_same(const view *one, const view *other, const char *what, uint32_t field) {
  for (uint32_t i = 0; i < count; i++) {
    FUZZ_CHECK(one->there[i] == other->there[i] && one->values[i] == other->values[i],
               "%s of field 0x%x (%s) changed field 0x%x from 0x%" PRIx64 " to 0x%" PRIx64, what,
               field, hv_ext_error_message(), fields[i], one->values[i], other->values[i]);
  }
}

/* ---- What is done ---- */

static void write_field(uint32_t field, bool failing) {
  static view before, after;
  uint64_t allowed_0, allowed_1, value;
  uint64_t wanted = fuzz_number();
  look(&before);
  if (failing) {
    fake_fail(1 + fuzz_pick(6), EIO);
  }
  hv_return_t result = hv(hv_vmx_vcpu_write_vmcs(id, field, wanted));
  fake_fail(0, 0);
  look(&after);
  if (result != HV_SUCCESS) {
    check_same(&before, &after, "a refused write", field);
    return;
  }
  FUZZ_CHECK(hv(hv_vmx_vcpu_read_vmcs(id, field, &value)) == HV_SUCCESS,
             "field 0x%x was written and cannot be read", field);
  if (hv(hv_vmx_vcpu_get_cap_write_vmcs(id, field, &allowed_0, &allowed_1)) == HV_SUCCESS) {
    FUZZ_CHECK((value & allowed_0) == allowed_0 && (value & ~allowed_1) == 0,
               "field 0x%x has 0x%" PRIx64 ", beyond its capability", field, value);
  }
}

static void write_back(uint32_t which) {
  static view before, after;
  look(&before);
  if (before.there[which]) {
    hv(hv_vmx_vcpu_write_vmcs(id, fields[which], before.values[which]));
    look(&after);
    check_same(&before, &after, "writing back", fields[which]);
  }
}

static void write_register(void) {
  uint32_t number = fuzz_rarely(8) ? (uint32_t)fuzz_number() : fuzz_pick(64);
  hv(hv_vcpu_write_register(id, (hv_x86_reg_t)number, fuzz_number()));
}

static void run(void) {
  fake_step steps[] = {{.kind = fuzz_rarely(2) ? FAKE_HLT : FAKE_PIO,
                        .address = fuzz_byte(),
                        .size = 1,
                        .write = fuzz_rarely(2)},
                       {.kind = FAKE_HLT}};
  fake_script(steps, 2);
  hv(hv_vcpu_run_until(id, 0));
  fake_script(NULL, 0);
}

static void check_ways(void) {
  static const struct {
    hv_x86_reg_t number;
    uint32_t field;
  } both[] = {{HV_X86_RIP, VMCS_GUEST_RIP},       {HV_X86_RSP, VMCS_GUEST_RSP},
              {HV_X86_RFLAGS, VMCS_GUEST_RFLAGS}, {HV_X86_CR3, VMCS_GUEST_CR3},
              {HV_X86_CS, VMCS_GUEST_CS},         {HV_X86_GDT_BASE, VMCS_GUEST_GDTR_BASE},
              {HV_X86_DR7, VMCS_GUEST_DR7}};
  for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
    uint64_t one = 0;
    uint64_t other = 0;
    if (hv(hv_vcpu_read_register(id, both[i].number, &one)) == HV_SUCCESS &&
        hv(hv_vmx_vcpu_read_vmcs(id, both[i].field, &other)) == HV_SUCCESS) {
      FUZZ_CHECK(one == other, "register %d is 0x%" PRIx64 ", field 0x%x is 0x%" PRIx64,
                 (int)both[i].number, one, both[i].field, other);
    }
  }
}

/* KVM has no shadow VMCS, whatever the field. */
static void check_shadow(uint32_t field) {
  uint64_t value;
  FUZZ_CHECK(hv(hv_vmx_vcpu_read_shadow_vmcs(id, field, &value)) == HV_UNSUPPORTED &&
                 hv(hv_vmx_vcpu_write_shadow_vmcs(id, field, 0)) == HV_UNSUPPORTED &&
                 hv(hv_vmx_vcpu_set_shadow_access(id, field, HV_SHADOW_VMCS_READ)) ==
                     HV_UNSUPPORTED,
             "field 0x%x of a shadow VMCS", field);
}

static void random_call(void) {
  switch (fuzz_pick(8)) {
    case 0:
    case 1:
    case 2:
      write_field(fields[fuzz_pick(count)], false);
      break;
    case 3:
      write_field(fields[fuzz_pick(count)], true);
      break;
    case 4:
      write_field(fuzz_rarely(4) ? (uint32_t)fuzz_number()
                                 : encoding(fuzz_pick(TYPES), fuzz_pick(INDICES)),
                  false);
      break;
    case 5:
      write_back(fuzz_pick(count));
      break;
    case 6:
      write_register();
      break;
    default:
      run();
      break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const hv_vm_options_t options[] = {HV_VM_DEFAULT, HV_VM_ACCEL_APIC};
  fake_config config = fake_defaults();
  uint8_t choice = size > 0 ? data[0] : 0;
  config.controllers = true;
  config.sync_regs = choice & 1 ? 0 : config.sync_regs;
  fuzz_begin(data, size, &config);
  fuzz_byte();
  if (hv(hv_vm_create(options[choice >> 1 & 1])) != HV_SUCCESS) {
    FUZZ_FAIL("%s", hv_ext_error_message());
  }
  if (hv(hv_vcpu_create(&id, HV_VCPU_DEFAULT)) != HV_SUCCESS) {
    FUZZ_FAIL("%s", hv_ext_error_message());
  }
  if (count == 0) {
    learn_fields();
  }
  for (int calls = 0; fuzz_more() && calls < CALLS_MOST; calls++) {
    random_call();
    check_ways();
    check_shadow(fields[(unsigned)calls * 37 % count]);
  }
  FUZZ_CHECK(hv_vcpu_destroy(id) == HV_SUCCESS, "%s", hv_ext_error_message());
  FUZZ_CHECK(hv_vm_destroy() == HV_SUCCESS, "%s", hv_ext_error_message());
  fuzz_end();
  return 0;
}
