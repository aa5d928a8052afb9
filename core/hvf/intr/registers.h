/* SPDX-License-Identifier: MIT
 * A local APIC: offsets in its register page (SDM Vol. 3, table 11-1). */
#ifndef HVF_REGISTERS_H
#define HVF_REGISTERS_H

#include <stdint.h>
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
  WORDS = 8,             /* of ISR, TMR and IRR */
  BASE_X2APIC = 1 << 10, /* of IA32_APIC_BASE */
};
/* The bits of IA32_APIC_BASE that are the address of the page. */
#define HVF_APIC_ADDRESS UINT64_C(0xffffffffff000)

static inline uint32_t hvf_apic_load(const uint8_t *registers, uint32_t offset) {
  uint32_t value;
  memcpy(&value, registers + offset, sizeof value);
  return value;
}

static inline void hvf_apic_store(uint8_t *registers, uint32_t offset, uint32_t value) {
  memcpy(registers + offset, &value, sizeof value);
}

#endif
