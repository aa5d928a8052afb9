/* SPDX-License-Identifier: MIT
 * The calls of the software CPU beside KVM's: controls, and events that user space wants delivered
 * (SDM volume 3, 25.8.3). */
#include "soft/vmx/vmx.h"

#include "soft/kernel/kernel.h"

#include <errno.h>

enum {
  NMI = IRQ_INFO_NMI >> 8, /* the event's type */
  HARD = IRQ_INFO_HARD_EXC >> 8,
  SOFT = IRQ_INFO_SOFT_EXC >> 8,
  INT1 = IRQ_INFO_PRIV_SOFT_EXC >> 8,
  LONGEST = 15 /* bytes of an instruction */
};

void soft_controls_set(soft_cpu *cpu, const luna_controls *controls) {
  cpu->controlled = controls;
  if (controls) {
    cpu->controls = *controls;
  } else {
    cpu->due = 0;
  }
}

/* By the type of the event. */
static const struct {
  bool known;
  bool software; /* of an instruction, which has a length */
  soft_source source;
} types[8] = {[IRQ_INFO_EXT_IRQ >> 8] = {true, false, SOFT_FROM_INTERRUPT},
              [NMI] = {true, false, SOFT_FROM_INTERRUPT},
              [HARD] = {true, false, SOFT_FROM_FAULT},
              [IRQ_INFO_SOFT_IRQ >> 8] = {true, true, SOFT_FROM_INT},
              [INT1] = {true, true, SOFT_FROM_INT1},
              [SOFT] = {true, true, SOFT_FROM_INT3}};

static int take_back(soft_cpu *cpu) {
  int due = cpu->due & SOFT_DUE_EVENT;
  cpu->due &= ~(unsigned)SOFT_DUE_EVENT;
  return due != 0;
}

int soft_deliver_next(soft_cpu *cpu, uint32_t info, uint32_t error, uint32_t length) {
  if (info == 0) {
    return take_back(cpu);
  }
  unsigned type = (info & IRQ_INFO_TYPE_MASK) >> 8, vector = info & 0xff;
  bool exception = type == HARD || type == INT1 || type == SOFT;
  bool wrong_length = types[type].software && (length == 0 || length > LONGEST);
  if (!(info >> 31) || !types[type].known || wrong_length || (exception && vector > 31) ||
      (type == NMI && vector != VECTOR_NMI) || (type == HARD && vector == VECTOR_NMI)) {
    return soft_refuse(EINVAL);
  }
  cpu->entry = (soft_event){.vector = (uint8_t)vector,
                            .has_error = info & IRQ_INFO_ERROR_VALID,
                            .error = error,
                            .source = types[type].source,
                            .length = types[type].software ? (uint8_t)length : 0};
  cpu->due |= SOFT_DUE_EVENT;
  return 0;
}
