/* SPDX-License-Identifier: MIT
 * The state of a vCPU's local APIC as a whole. */
#include <Hypervisor/hv_intr.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/intr/accelerated.h"
#include "hvf/intr/registers.h"

#include <inttypes.h>

enum {
  LVT_COUNT = 7,
  MSR_TSC_DEADLINE = 0x6e0
};

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
      *all[i].word = hvf_apic_load(registers, all[i].offset);
    } else {
      hvf_apic_store(registers, all[i].offset, *all[i].word);
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
  s->apic_gpa = base & HVF_APIC_ADDRESS;
  s->apic_controls = v->apic_ctrl;
  s->tsc_deadline = deadline;
  s->boot_state = boot_state(mp_state);
  return LUNA_OK;
}

static hv_return_t check_state(const hv_apic_state_ext_t *state) {
  return hvf_check_version("a local APIC", state ? &state->version : NULL, HV_APIC_STATE_EXT_VER);
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
               ? luna_vcpu_set(v->vcpu, LUNA_APIC_BASE, (base & ~HVF_APIC_ADDRESS) | s->apic_gpa)
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

static hv_return_t check_values(const struct hv_apic_state *s) {
  if (s->apic_gpa & ~HVF_APIC_ADDRESS) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "no local APIC is at gpa 0x%" PRIx64 ": a multiple of 4096 below 2^52 expected",
                    s->apic_gpa);
  }
  if (s->apic_controls & ~(hv_apic_ctrl_t)HV_APIC_CTRL_IOAPIC_EOI) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "a local APIC has no controls 0x%" PRIx64 ": 0 or HV_APIC_CTRL_IOAPIC_EOI",
                    s->apic_controls);
  }
  return (unsigned)s->boot_state <= HV_BS_RUNNING
             ? HV_SUCCESS
             : hvf_fail(HV_BAD_ARGUMENT,
                        "a local APIC has no boot_state %u: HV_BS_INIT, HV_BS_SIPI or "
                        "HV_BS_RUNNING (0 to 2) expected",
                        (unsigned)s->boot_state);
}

hv_return_t hv_vcpu_apic_put_state(hv_vcpuid_t vcpu, const hv_apic_state_ext_t *state) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  result = result == HV_SUCCESS ? check_state(state) : result;
  if (result != HV_SUCCESS) {
    return result;
  }
  const struct hv_apic_state *s = &state->state;
  result = check_values(s);
  result = result == HV_SUCCESS ? hvf_status(put_state(v, s)) : result;
  if (result == HV_SUCCESS) {
    v->apic_ctrl = s->apic_controls;
  }
  return result;
}
