/* SPDX-License-Identifier: MIT
 * The registers of a vCPU's local APIC inside KVM (SDM Vol. 3, chapter 11), and what a write to one
 * has as a consequence. */
#include "hvf/intr/apic.h"

#include <Hypervisor/hv_intr.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/intr/accelerated.h"
#include "hvf/intr/ioapic.h"
#include "hvf/intr/registers.h"

#include <inttypes.h>

enum {
  VECTOR_GP = 13
};

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

/* A vCPU's number is its APIC ID; logical destinations are those of the flat model as firmware sets
 * it up. */
bool hvf_apic_goes_to(const hvf_vcpu *v, uint32_t command, uint32_t target, hv_vcpuid_t id) {
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
    if (hvf_the_vm.vcpus[id] && hvf_apic_goes_to(v, command, 0, id)) {
      status = send_message(id, command & ~(uint32_t)LOGICAL);
    }
  }
  return status;
}

static hv_vm_exitinfo_t start_of(uint32_t command) {
  return (command & MODE_BITS) == MODE_INIT ? HV_VM_EXITINFO_INIT_AP : HV_VM_EXITINFO_STARTUP_AP;
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
    v->info = (hvf_info){.code = start_of(command), .command = command, .target = target};
  }
  return hvf_status(status);
}

hv_return_t hvf_apic_note_start(hvf_vcpu *v, uint64_t targets) {
  uint32_t command = 0;
  int status = luna_vcpu_read_apic(v->vcpu, APIC_ICR, &command);
  v->info =
      (hvf_info){.code = start_of(command), .command = command, .told = true, .targets = targets};
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

/* Takes the highest vector out of service. */
static hv_return_t write_eoi(hvf_vcpu *v) {
  uint8_t registers[LUNA_APIC_SIZE];
  int status = luna_vcpu_get_apic(v->vcpu, registers);
  uint32_t word = WORDS;
  while (status == LUNA_OK && word > 0 &&
         hvf_apic_load(registers, APIC_ISR + (word - 1) * STRIDE) == 0) {
    word--;
  }
  if (status != LUNA_OK || word == 0) {
    return hvf_status(status);
  }
  const uint32_t place = (word - 1) * STRIDE;
  uint32_t served = hvf_apic_load(registers, APIC_ISR + place);
  const uint32_t bit = UINT32_C(1) << (31 - __builtin_clz(served));
  hvf_apic_store(registers, APIC_ISR + place, served & ~bit);
  status = luna_vcpu_set_apic(v->vcpu, registers);
  if (status == LUNA_OK && hvf_apic_load(registers, APIC_TMR + place) & bit) {
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
    return hvf_fail(HV_BAD_ARGUMENT, "there are no controls 0x%" PRIx64, ctrls & ~known);
  }
  if (ctrls & ~(hv_apic_ctrl_t)HV_APIC_CTRL_IOAPIC_EOI) {
    return hvf_fail(HV_UNSUPPORTED,
                    "KVM cannot do 0x%" PRIx64 ": of the controls of a local APIC it has "
                    "IOAPIC_EOI",
                    ctrls & ~(hv_apic_ctrl_t)HV_APIC_CTRL_IOAPIC_EOI);
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
