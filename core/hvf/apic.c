/* SPDX-License-Identifier: MIT
 * A vCPU's local APIC inside KVM (SDM Vol. 3, chapter 11): its registers, its state as a whole, and
 * what a write to it has as a consequence. */
#include "intr.h"

#include <inttypes.h>
#include <string.h>

enum {
  APIC_ID = 0x20,
  APIC_VERSION = 0x30,
  APIC_TPR = 0x80,
  APIC_APR = 0x90,
  APIC_EOI = 0xb0,
  APIC_LDR = 0xd0,
  APIC_DFR = 0xe0,
  APIC_SVR = 0xf0,
  APIC_ISR = 0x100,
  APIC_TMR = 0x180,
  APIC_IRR = 0x200,
  APIC_ESR = 0x280,
  APIC_CMCI = 0x2f0,
  APIC_ICR = 0x300,
  APIC_ICR_HIGH = 0x310,
  APIC_LVT = 0x320,
  APIC_LVT_LAST = 0x370,
  APIC_COUNT = 0x380,
  APIC_CURRENT = 0x390,
  APIC_DIVIDE = 0x3e0,
  APIC_SELF = 0x3f0,
  STRIDE = 0x10,
  WORDS = 8, /* of ISR, TMR and IRR */
  LVT_COUNT = 7,
  MSR_TSC_DEADLINE = 0x6e0,
  BASE_X2APIC = 1 << 10, /* of IA32_APIC_BASE */
  VECTOR_GP = 13
};
static const uint64_t base_address = 0xffffffffff000;

/* ---- Registers ---- */

hv_return_t hv_vcpu_apic_read(hv_vcpuid_t vcpu, uint32_t offset, uint32_t *data) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return data ? hvf_status(luna_vcpu_read_apic(v->vcpu, offset, data))
              : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the register");
}

static bool is_writable(uint32_t offset) {
  switch (offset) {
    case APIC_ID:
    case APIC_TPR:
    case APIC_LDR:
    case APIC_DFR:
    case APIC_SVR:
    case APIC_ESR:
    case APIC_CMCI:
    case APIC_ICR_HIGH:
    case APIC_COUNT:
    case APIC_DIVIDE:
      return true;
    default:
      return offset >= APIC_LVT && offset <= APIC_LVT_LAST;
  }
}

/* ---- Interprocessor interrupts ---- */

enum {
  MODE_BITS = 7 << 8, /* of ICR */
  MODE_INIT = 5 << 8,
  MODE_STARTUP = 6 << 8,
  LOGICAL = 1 << 11,
  ASSERT = 1 << 14,
  LEVEL = 1 << 15,
  SHORTHAND_SHIFT = 18,
  TO_TARGET = 0,
  TO_SELF = 1,
  TO_ALL = 2,
  BROADCAST = 0xff
};

/* Whether an IPI of `v` goes to the vCPU, by the number that is its APIC ID. Logical destinations
 * are those of the flat model as firmware sets it up. */
static bool goes_to(const hvf_vcpu *v, uint32_t command, uint32_t target, hv_vcpuid_t id) {
  switch (command >> SHORTHAND_SHIFT & 3) {
    case TO_TARGET:
      break;
    case TO_SELF:
      return id == v->id;
    case TO_ALL:
      return true;
    default:
      return id != v->id;
  }
  if (target == BROADCAST) {
    return true;
  }
  return command & LOGICAL ? id < 8 && target >> id & 1 : target == id;
}

static int send_message(uint32_t target, uint32_t command) {
  uint64_t address = 0xfee00000 | (uint64_t)target << 12 | (command & LOGICAL ? 4 : 0);
  const uint32_t kept = 0xff | MODE_BITS | LEVEL | ASSERT;
  int taken = luna_vm_msi(hvf_the_vm.vm, address, command & kept);
  return taken < 0 ? taken : LUNA_OK;
}

/* The lock is held. */
static int send_to_each(const hvf_vcpu *v, uint32_t command) {
  int status = LUNA_OK;
  for (uint32_t id = 0; id < hvf_the_vm.vcpu_room && status == LUNA_OK; id++) {
    if (hvf_the_vm.vcpus[id] && goes_to(v, command, 0, id)) {
      status = send_message(id, command & ~(uint32_t)LOGICAL);
    }
  }
  return status;
}

/* A level-triggered INIT that is not asserted starts nothing. */
static hv_return_t send_ipi(hvf_vcpu *v, uint32_t command, uint32_t target) {
  const uint32_t mode = command & MODE_BITS;
  if (mode == MODE_INIT && command & LEVEL && !(command & ASSERT)) {
    return HV_SUCCESS;
  }
  pthread_mutex_lock(&hvf_the_vm.lock);
  int status =
      command >> SHORTHAND_SHIFT & 3 ? send_to_each(v, command) : send_message(target, command);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  if (status == LUNA_OK && (mode == MODE_INIT || mode == MODE_STARTUP)) {
    v->info =
        (hvf_info){.code = mode == MODE_INIT ? HV_VM_EXITINFO_INIT_AP : HV_VM_EXITINFO_STARTUP_AP,
                   .command = command,
                   .target = target};
  }
  return hvf_status(status);
}

static hv_return_t write_command(hvf_vcpu *v, uint32_t command) {
  uint32_t high = 0;
  int status = luna_vcpu_read_apic(v->vcpu, APIC_ICR_HIGH, &high);
  status = status == LUNA_OK ? luna_vcpu_write_apic(v->vcpu, APIC_ICR, command) : status;
  return status == LUNA_OK ? send_ipi(v, command, high >> 24) : hvf_status(status);
}

/* ---- The end of an interrupt ---- */

bool hvf_apic_note_eoi(hvf_vcpu *v, uint8_t vector) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  hvf_ioapic_eoi(vector);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  if (!(v->apic_ctrl & HV_APIC_CTRL_IOAPIC_EOI)) {
    return false;
  }
  v->info = (hvf_info){.code = HV_VM_EXITINFO_IOAPIC_EOI, .vector = vector};
  return true;
}

static uint32_t load(const uint8_t *registers, uint32_t offset) {
  uint32_t value;
  memcpy(&value, registers + offset, sizeof value);
  return value;
}

static void store(uint8_t *registers, uint32_t offset, uint32_t value) {
  memcpy(registers + offset, &value, sizeof value);
}

/* Takes the highest vector out of service. */
static hv_return_t write_eoi(hvf_vcpu *v) {
  uint8_t registers[LUNA_APIC_SIZE];
  int status = luna_vcpu_get_apic(v->vcpu, registers);
  uint32_t word = WORDS;
  while (status == LUNA_OK && word > 0 && load(registers, APIC_ISR + (word - 1) * STRIDE) == 0) {
    word--;
  }
  if (status != LUNA_OK || word == 0) {
    return hvf_status(status);
  }
  const uint32_t place = (word - 1) * STRIDE;
  uint32_t served = load(registers, APIC_ISR + place);
  const uint32_t bit = UINT32_C(1) << (31 - __builtin_clz(served));
  store(registers, APIC_ISR + place, served & ~bit);
  status = luna_vcpu_set_apic(v->vcpu, registers);
  if (status == LUNA_OK && load(registers, APIC_TMR + place) & bit) {
    hvf_apic_note_eoi(v, (uint8_t)((word - 1) * 32 + (uint32_t)__builtin_ctz(bit)));
  }
  return hvf_status(status);
}

/* ---- Writing ---- */

/* In x2APIC mode a write to what is no writable register is a #GP; in xAPIC mode it is nothing. */
static hv_return_t write_other(hvf_vcpu *v) {
  uint64_t base;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_APIC_BASE, &base));
  if (result == HV_SUCCESS && base & BASE_X2APIC) {
    v->info = (hvf_info){.code = HV_VM_EXITINFO_INJECT_EXCP, .vector = VECTOR_GP};
  }
  return result;
}

static hv_return_t write_register(hvf_vcpu *v, uint32_t offset, uint32_t data) {
  switch (offset) {
    case APIC_ICR:
      return write_command(v, data);
    case APIC_SELF:
      return send_ipi(v, (data & 0xff) | TO_SELF << SHORTHAND_SHIFT, 0);
    case APIC_EOI:
      return write_eoi(v);
    default:
      return is_writable(offset) ? hvf_status(luna_vcpu_write_apic(v->vcpu, offset, data))
                                 : write_other(v);
  }
}

hv_return_t hv_vcpu_apic_write(hv_vcpuid_t vcpu, uint32_t offset, uint32_t data,
                               bool *no_side_effect) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!no_side_effect || offset >= LUNA_APIC_SIZE || offset % STRIDE != 0) {
    return hvf_fail(HV_BAD_ARGUMENT, "a local APIC has no register at 0x%x", offset);
  }
  v->info = (hvf_info){.code = HV_VM_EXITINFO_VMX};
  result = write_register(v, offset, data);
  if (result == HV_SUCCESS) {
    *no_side_effect = v->info.code == HV_VM_EXITINFO_VMX;
  }
  return result;
}

hv_return_t hv_vcpu_apic_trigger_lvt(hv_vcpuid_t vcpu, hv_apic_lvt_flavor_t flavor) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return flavor == HV_APIC_LVT_FLAVOR_TIMER
             ? hvf_status(luna_vcpu_fire_timer(v->vcpu))
             : hvf_fail(HV_BAD_ARGUMENT, "there is no entry %u to trigger", flavor);
}

hv_return_t hv_vcpu_apic_ctrl(hv_vcpuid_t vcpu, hv_apic_ctrl_t ctrls) {
  const hv_apic_ctrl_t known = HV_APIC_CTRL_EOI_ICR_TPR | HV_APIC_CTRL_GUEST_IDLE |
                               HV_APIC_CTRL_NO_TIMER | HV_APIC_CTRL_IOAPIC_EOI;
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (ctrls & ~known) {
    return hvf_fail(HV_BAD_ARGUMENT, "unknown controls 0x%" PRIx64, ctrls & ~known);
  }
  if (ctrls & ~HV_APIC_CTRL_IOAPIC_EOI) {
    return hvf_fail(HV_UNSUPPORTED,
                    "KVM cannot do 0x%" PRIx64 ": of the controls of a local APIC it has "
                    "IOAPIC_EOI",
                    ctrls & ~HV_APIC_CTRL_IOAPIC_EOI);
  }
  v->apic_ctrl = ctrls;
  return HV_SUCCESS;
}

/* ---- The load-store cache ---- */

static hv_return_t check_entry(hv_vcpuid_t vcpu, unsigned int ilen, const uint64_t *uva,
                               unsigned int count) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return ilen < 1 || ilen > 15 || count > 2 || (count > 0 && !uva)
             ? hvf_fail(HV_BAD_ARGUMENT, "no instruction has %u bytes that lie in %u pages", ilen,
                        count)
             : HV_SUCCESS;
}

hv_return_t hv_vcpu_apic_lsc_enter_r32(hv_vcpuid_t vcpu, bool is_load, uint64_t rip,
                                       unsigned int ilen, uint16_t cs, hv_x86_reg_t reg,
                                       uint64_t uva[], unsigned int count) {
  (void)is_load;
  (void)rip;
  (void)cs;
  hv_return_t result = check_entry(vcpu, ilen, uva, count);
  if (result == HV_SUCCESS && ((unsigned)reg < HV_X86_RAX || (unsigned)reg > HV_X86_R15)) {
    return hvf_fail(HV_BAD_ARGUMENT, "register %u is no general one", (unsigned)reg);
  }
  return result;
}

hv_return_t hv_vcpu_apic_lsc_enter_imm32(hv_vcpuid_t vcpu, uint64_t rip, unsigned int ilen,
                                         uint16_t cs, uint32_t imm32, uint64_t uva[],
                                         unsigned int count) {
  (void)rip;
  (void)cs;
  (void)imm32;
  return check_entry(vcpu, ilen, uva, count);
}

hv_return_t hv_vcpu_apic_lsc_invalidate(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  return hvf_owned_accelerated(vcpu, &v);
}

/* ---- The whole state ---- */

/* The entries of the local vector table, in the framework's order. */
static const uint16_t lvt_offsets[LVT_COUNT] = {0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x2f0};

typedef struct word_place {
  uint16_t offset;
  uint16_t member;
} word_place;

#define MEMBER(name) offsetof(struct hv_apic_state, name)
static const word_place places[] = {
    {APIC_ID, MEMBER(apic_id)},       {APIC_VERSION, MEMBER(ver)},
    {APIC_TPR, MEMBER(tpr)},          {APIC_APR, MEMBER(apr)},
    {APIC_LDR, MEMBER(ldr)},          {APIC_DFR, MEMBER(dfr)},
    {APIC_SVR, MEMBER(svr)},          {APIC_ESR, MEMBER(esr)},
    {APIC_ICR, MEMBER(icr[0])},       {APIC_ICR_HIGH, MEMBER(icr[1])},
    {APIC_COUNT, MEMBER(icr_timer)},  {APIC_CURRENT, MEMBER(ccr_timer)},
    {APIC_DIVIDE, MEMBER(dcr_timer)},
};

/* Copies every word, from the page to the state or the other way. */
static void copy_words(uint8_t *registers, struct hv_apic_state *s, bool to_state) {
  struct {
    uint32_t offset;
    uint32_t *word;
  } all[sizeof places / sizeof *places + LVT_COUNT + 3 * WORDS];
  size_t count = 0;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++, count++) {
    all[count].offset = places[i].offset;
    all[count].word = (uint32_t *)(void *)((uint8_t *)s + places[i].member);
  }
  for (size_t i = 0; i < LVT_COUNT; i++, count++) {
    all[count].offset = lvt_offsets[i];
    all[count].word = &s->lvt[i];
  }
  for (uint32_t i = 0; i < 3 * WORDS; i++, count++) {
    uint32_t *const rows[] = {s->isr, s->tmr, s->irr};
    all[count].offset = APIC_ISR + i * STRIDE;
    all[count].word = &rows[i / WORDS][i % WORDS];
  }
  for (size_t i = 0; i < count; i++) {
    if (to_state) {
      *all[i].word = load(registers, all[i].offset);
    } else {
      store(registers, all[i].offset, *all[i].word);
    }
  }
}

static enum hv_boot_state boot_state(uint32_t mp_state) {
  switch (mp_state) {
    case LUNA_MP_UNINITIALIZED:
      return HV_BS_INIT;
    case LUNA_MP_INIT_RECEIVED:
    case LUNA_MP_SIPI_RECEIVED:
      return HV_BS_SIPI;
    default:
      return HV_BS_RUNNING;
  }
}

static int get_state(hvf_vcpu *v, struct hv_apic_state *s) {
  uint8_t registers[LUNA_APIC_SIZE];
  uint64_t base;
  uint64_t deadline = 0;
  uint32_t mp_state;
  int status = luna_vcpu_get_apic(v->vcpu, registers);
  status = status == LUNA_OK ? luna_vcpu_get(v->vcpu, LUNA_APIC_BASE, &base) : status;
  status = status == LUNA_OK ? luna_vcpu_get_mp_state(v->vcpu, &mp_state) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_vcpu_get_msr(v->vcpu, MSR_TSC_DEADLINE, &deadline); /* 0 where there is none */
  memset(s, 0, sizeof *s);
  copy_words(registers, s, true);
  s->apic_gpa = base & base_address;
  s->apic_controls = v->apic_ctrl;
  s->tsc_deadline = deadline;
  s->boot_state = boot_state(mp_state);
  return LUNA_OK;
}

static hv_return_t check_state(const hv_apic_state_ext_t *state) {
  return state && state->version == HV_APIC_STATE_EXT_VER
             ? HV_SUCCESS
             : hvf_fail(HV_BAD_ARGUMENT, "a state of a local APIC has version %d",
                        HV_APIC_STATE_EXT_VER);
}

hv_return_t hv_vcpu_apic_get_state(hv_vcpuid_t vcpu, hv_apic_state_ext_t *state) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  result = result == HV_SUCCESS ? check_state(state) : result;
  return result == HV_SUCCESS ? hvf_status(get_state(v, &state->state)) : result;
}

/* A vCPU that is halted runs, too. */
static int put_boot_state(hvf_vcpu *v, enum hv_boot_state wanted) {
  static const uint32_t states[] = {LUNA_MP_UNINITIALIZED, LUNA_MP_INIT_RECEIVED, LUNA_MP_RUNNABLE};
  uint32_t now;
  int status = luna_vcpu_get_mp_state(v->vcpu, &now);
  if (status != LUNA_OK || boot_state(now) == wanted) {
    return status;
  }
  return luna_vcpu_set_mp_state(v->vcpu, states[wanted]);
}

/* The base first: the mode in it says what the page means. The deadline after the timer's mode. */
static int put_state(hvf_vcpu *v, const struct hv_apic_state *s) {
  uint8_t registers[LUNA_APIC_SIZE];
  uint64_t base;
  struct hv_apic_state copy = *s;
  int status = luna_vcpu_get(v->vcpu, LUNA_APIC_BASE, &base);
  status = status == LUNA_OK
               ? luna_vcpu_set(v->vcpu, LUNA_APIC_BASE, (base & ~base_address) | s->apic_gpa)
               : status;
  status = status == LUNA_OK ? luna_vcpu_get_apic(v->vcpu, registers) : status;
  if (status != LUNA_OK) {
    return status;
  }
  copy_words(registers, &copy, false);
  status = luna_vcpu_set_apic(v->vcpu, registers);
  if (status == LUNA_OK && s->tsc_deadline) {
    status = luna_vcpu_set_msr(v->vcpu, MSR_TSC_DEADLINE, s->tsc_deadline);
  }
  return status == LUNA_OK ? put_boot_state(v, s->boot_state) : status;
}

hv_return_t hv_vcpu_apic_put_state(hv_vcpuid_t vcpu, const hv_apic_state_ext_t *state) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  result = result == HV_SUCCESS ? check_state(state) : result;
  if (result != HV_SUCCESS) {
    return result;
  }
  const struct hv_apic_state *s = &state->state;
  if (s->apic_gpa & ~base_address || (unsigned)s->boot_state > HV_BS_RUNNING ||
      s->apic_controls & ~HV_APIC_CTRL_IOAPIC_EOI) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "no local APIC is at gpa 0x%" PRIx64 ", has controls 0x%" PRIx64
                    " and boot state %u",
                    s->apic_gpa, s->apic_controls, (unsigned)s->boot_state);
  }
  result = hvf_status(put_state(v, s));
  if (result == HV_SUCCESS) {
    v->apic_ctrl = s->apic_controls;
  }
  return result;
}

/* ---- Where it is ---- */

static const hvf_apic_page *page_of(const hvf_vcpu *v, hv_vm_space_t space) {
  for (uint32_t i = 0; i < v->apic_page_count; i++) {
    if (v->apic_pages[i].space == space) {
      return &v->apic_pages[i];
    }
  }
  return NULL;
}

int hvf_apic_offset(const hvf_vcpu *v, const luna_exit *e) {
  const hvf_apic_page *page = v->apic_page_count ? page_of(v, e->space) : NULL;
  return page && e->address >= page->gpa && e->address - page->gpa < LUNA_PAGE_SIZE
             ? (int)(e->address - page->gpa)
             : -1;
}

/* A register is the first word of its 16 bytes. */
hv_return_t hvf_apic_note_read(hvf_vcpu *v, uint32_t offset) {
  uint32_t value = 0;
  int status = offset < LUNA_APIC_SIZE
                   ? luna_vcpu_read_apic(v->vcpu, offset & ~(uint32_t)(STRIDE - 1), &value)
                   : LUNA_OK;
  v->info = (hvf_info){.code = HV_VM_EXITINFO_APIC_ACCESS_READ, .value = value};
  return hvf_status(status);
}

static hv_return_t set_page(hvf_vcpu *v, hv_vm_space_t asid, uint64_t gpa) {
  hvf_apic_page *page = (hvf_apic_page *)page_of(v, asid);
  if (!page) {
    if (!hvf_room((void **)&v->apic_pages, &v->apic_page_room, v->apic_page_count,
                  sizeof *v->apic_pages)) {
      return hvf_fail(HV_NO_RESOURCES, "no memory for the place of a local APIC");
    }
    page = &v->apic_pages[v->apic_page_count++];
  }
  *page = (hvf_apic_page){asid, gpa};
  return HV_SUCCESS;
}

static hv_return_t set_base(hvf_vcpu *v, uint64_t gpa) {
  uint64_t base;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_APIC_BASE, &base));
  return result == HV_SUCCESS
             ? hvf_status(luna_vcpu_set(v->vcpu, LUNA_APIC_BASE, (base & ~base_address) | gpa))
             : result;
}

static bool has_space(hv_vm_space_t asid) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  bool has = hvf_has_space(asid);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return has;
}

hv_return_t hv_vmx_vcpu_set_apic_address_space(hv_vcpuid_t vcpu, hv_vm_space_t asid,
                                               hv_gpaddr_t gpa) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (gpa & ~base_address || !has_space(asid)) {
    return hvf_fail(HV_BAD_ARGUMENT, "no local APIC is at gpa 0x%" PRIx64 " of space %u", gpa,
                    asid);
  }
  bool kvm = hvf_the_vm.options & HV_VM_ACCEL_APIC && asid == HV_VM_SPACE_DEFAULT;
  return kvm ? set_base(v, gpa) : set_page(v, asid, gpa);
}

hv_return_t hv_vmx_vcpu_set_apic_address(hv_vcpuid_t vcpu, hv_gpaddr_t gpa) {
  return hv_vmx_vcpu_set_apic_address_space(vcpu, HV_VM_SPACE_DEFAULT, gpa);
}

/* ---- What there is to know of the last exit ---- */

hv_return_t hv_vcpu_exit_info(hv_vcpuid_t vcpu, hv_vm_exitinfo_t *code) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!code) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the kind of exit");
  }
  *code = v->info.code;
  return HV_SUCCESS;
}

/* The vCPU, if its last exit was of the kind and there is a place for the details. */
static hv_return_t check_info(hv_vcpuid_t vcpu, hv_vm_exitinfo_t code, bool place, hvf_vcpu **v) {
  hv_return_t result = hvf_owned_accelerated(vcpu, v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!place) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the details of the exit");
  }
  return (*v)->info.code == code
             ? HV_SUCCESS
             : hvf_fail(HV_ERROR, "the last exit of vCPU %u is of kind %u, not %u", vcpu,
                        (*v)->info.code, code);
}

static void fill_targets(const hvf_vcpu *v, bool *is_actv, unsigned int count) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  for (unsigned int id = 0; id < count; id++) {
    bool exists = id < hvf_the_vm.vcpu_room && hvf_the_vm.vcpus[id];
    is_actv[id] = exists && goes_to(v, v->info.command, v->info.target, id);
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
}

hv_return_t hv_vcpu_exit_init_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_INIT_AP, is_actv, &v);
  if (result == HV_SUCCESS) {
    fill_targets(v, is_actv, count);
  }
  return result;
}

hv_return_t hv_vcpu_exit_startup_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count,
                                    uint64_t *ap_rip) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_STARTUP_AP, is_actv && ap_rip, &v);
  if (result == HV_SUCCESS) {
    fill_targets(v, is_actv, count);
    *ap_rip = (uint64_t)(v->info.command & 0xff) << 12;
  }
  return result;
}

hv_return_t hv_vcpu_exit_ioapic_eoi(hv_vcpuid_t vcpu, uint8_t *vec) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_IOAPIC_EOI, vec, &v);
  if (result == HV_SUCCESS) {
    *vec = v->info.vector;
  }
  return result;
}

hv_return_t hv_vcpu_exit_apic_access_read(hv_vcpuid_t vcpu, uint32_t *value) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_APIC_ACCESS_READ, value, &v);
  if (result == HV_SUCCESS) {
    *value = v->info.value;
  }
  return result;
}

hv_return_t hv_vcpu_exit_inject_excp(hv_vcpuid_t vcpu, uint8_t *vec, bool *valid, uint32_t *code,
                                     bool *restart) {
  hvf_vcpu *v;
  hv_return_t result =
      check_info(vcpu, HV_VM_EXITINFO_INJECT_EXCP, vec && valid && code && restart, &v);
  if (result == HV_SUCCESS) {
    *vec = v->info.vector;
    *valid = true; /* #GP with error code 0, at the instruction */
    *code = 0;
    *restart = true;
  }
  return result;
}
