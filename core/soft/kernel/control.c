/* SPDX-License-Identifier: MIT
 * The calls of the software CPU beside KVM's: controls, and events that user space wants delivered
 * (SDM volume 3, 25.8.3). */
#include "soft/vmx/vmx.h"

#include "soft/kernel/kernel.h"

#include <errno.h>

enum {
  ERROR_VALID = 1 << 11,
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
} types[8] = {[0] = {true, false, SOFT_FROM_INTERRUPT}, [2] = {true, false, SOFT_FROM_INTERRUPT},
              [3] = {true, false, SOFT_FROM_FAULT},     [4] = {true, true, SOFT_FROM_INT},
              [5] = {true, true, SOFT_FROM_INT1},       [6] = {true, true, SOFT_FROM_INT3}};

int soft_deliver_next(soft_cpu *cpu, uint32_t info, uint32_t error, uint32_t length) {
  unsigned type = info >> 8 & 7, vector = info & 0xff;
  bool exception = type == 3 || type == 5 || type == 6;
  bool wrong_length = types[type].software && (length == 0 || length > LONGEST);
  if (!(info >> 31) || !types[type].known || wrong_length || (exception && vector > 31) ||
      (type == 2 && vector != VECTOR_NMI) || (type == 3 && vector == VECTOR_NMI)) {
    return soft_refuse(EINVAL);
  }
  cpu->entry = (soft_event){.vector = (uint8_t)vector,
                            .has_error = info & ERROR_VALID,
                            .error = error,
                            .source = types[type].source,
                            .length = types[type].software ? (uint8_t)length : 0};
  cpu->due |= SOFT_DUE_EVENT;
  return 0;
}
