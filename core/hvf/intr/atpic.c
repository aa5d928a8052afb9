/* SPDX-License-Identifier: MIT
 * The two PICs (8259A), the second at line 2 of the first. Their output goes to LINT0 of vCPU 0's
 * local APIC: see extint.c. The lock of the VM is held in all functions that are not of the
 * framework. */
#include "hvf/intr/atpic.h"

#include <Hypervisor/hv_intr.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/intr/accelerated.h"

#include <string.h>

enum {
  LINES = 8,
  CASCADE = 2, /* the line of the first at which the second is */
  SPURIOUS = 7
};

typedef struct hv_atpic_state pic;

static pic pics[2]; /* primary, secondary */

/* Levels stay; an edge-triggered line has to fall and rise again. */
static void begin(pic *p) {
  const pic before = *p;
  *p = (pic){.icw_num = 1,
             .lowprio = LINES - 1,
             .last_request = before.last_request,
             .request = before.last_request & before.elc,
             .elc = before.elc};
}

void hvf_atpic_reset(void) {
  memset(pics, 0, sizeof pics);
  begin(&pics[0]);
  begin(&pics[1]);
}

/* ---- Requests ---- */

/* Line `step` of the order of priorities, from the highest, 0. */
static int line_at(const pic *p, int step) {
  return (p->lowprio + 1 + step) % LINES;
}

/* The line of highest priority that may interrupt now, or -1: one above all that are in service. In
 * special mask mode those are passed over; special fully nested, the second PIC may interrupt
 * itself. */
static int requested(const pic *p) {
  uint8_t open = p->request & (uint8_t)~p->mask;
  for (int step = 0; step < LINES && p->ready; step++) {
    int line = line_at(p, step);
    bool serviced = p->service >> line & 1;
    bool nested = p->sfn && p == &pics[0] && line == CASCADE;
    if (open >> line & 1 && (!serviced || nested)) {
      return line;
    }
    if (serviced && !p->smm && !nested) {
      return -1;
    }
  }
  return -1;
}

static void set_request(pic *p, int line, bool level) {
  const uint8_t bit = (uint8_t)(1u << line);
  bool rises = level && !(p->last_request & bit);
  p->last_request = level ? p->last_request | bit : p->last_request & (uint8_t)~bit;
  if (p->elc & bit) {
    p->request = level ? p->request | bit : p->request & (uint8_t)~bit;
  } else if (rises) {
    p->request |= bit;
  } else if (!level && p == &pics[0] && line == CASCADE) {
    p->request &= (uint8_t)~bit; /* the second chip has withdrawn it */
  }
}

/* Outputs follow requests; the first's goes to the processor. */
static void update(void) {
  pics[1].intr_raised = requested(&pics[1]) >= 0;
  set_request(&pics[0], CASCADE, pics[1].intr_raised);
  bool was = pics[0].intr_raised;
  pics[0].intr_raised = requested(&pics[0]) >= 0;
  if (pics[0].intr_raised && !was) {
    hvf_signal_first();
  }
}

/* ---- Acknowledging ---- */

static void end(pic *p, int line) {
  p->service &= (uint8_t) ~(1u << line);
}

static int highest_in_service(const pic *p) {
  for (int step = 0; step < LINES; step++) {
    int line = line_at(p, step);
    if (p->service >> line & 1 && !(p->smm && p->mask >> line & 1)) {
      return line;
    }
  }
  return -1;
}

/* The processor takes the line's interrupt. */
static void accept(pic *p, int line) {
  const uint8_t bit = (uint8_t)(1u << line);
  p->service |= bit;
  if (!(p->elc & bit)) {
    p->request &= (uint8_t)~bit;
  }
  if (p->aeoi) {
    end(p, line);
    p->lowprio = p->rotate ? (uint8_t)line : p->lowprio;
  }
}

/* A request that is gone by now is line 7's. */
static int acknowledge(pic *p, bool take) {
  int line = requested(p);
  if (line < 0) {
    return SPURIOUS;
  }
  if (take) {
    accept(p, line);
  }
  return line;
}

bool hvf_atpic_raised(void) {
  return pics[0].intr_raised;
}

static uint8_t vector(bool take) {
  int line = acknowledge(&pics[0], take);
  if (line != CASCADE) {
    return (uint8_t)(pics[0].irq_base + line);
  }
  return (uint8_t)(pics[1].irq_base + acknowledge(&pics[1], take));
}

uint8_t hvf_atpic_vector(void) {
  return vector(false);
}

void hvf_atpic_acknowledge(void) {
  vector(true);
  set_request(&pics[0], CASCADE, false); /* whatever is requested next rises anew */
  pics[0].intr_raised = false;
  update();
}

/* ---- Commands ---- */

/* OCW2: ends of interrupts, and rotation of the priorities. */
static void command(pic *p, uint8_t value) {
  const bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
  int line = specific ? value & 7 : highest_in_service(p);
  if (!eoi && !specific) {
    p->rotate = rotate; /* in automatic EOI mode */
    return;
  }
  if (line < 0) {
    return;
  }
  if (eoi) {
    end(p, line);
  }
  if (rotate) {
    p->lowprio = (uint8_t)line;
  }
}

/* OCW3: what is read, polling, special mask mode. */
static void choose(pic *p, uint8_t value) {
  p->poll = value & 4;
  if (value & 2) {
    p->rd_cmd_reg = value & 1;
  }
  if (value & 0x40) {
    p->smm = value & 0x20;
  }
}

static void write_command(pic *p, uint8_t value) {
  if (value & 0x10) { /* ICW1: the others follow */
    begin(p);
    p->icw_num = 2;
  } else if (value & 8) {
    choose(p, value);
  } else {
    command(p, value);
  }
}

/* ICW2 to ICW4 while it is being initialized, else OCW1. A PC has both chips and ICW4. */
static void write_data(pic *p, uint8_t value) {
  switch (p->icw_num) {
    case 2:
      p->irq_base = value & 0xf8;
      p->icw_num = 3;
      break;
    case 3: /* how they are connected, which is given */
      p->icw_num = 4;
      break;
    case 4:
      p->aeoi = value & 2;
      p->sfn = value & 0x10;
      p->icw_num = 1;
      p->ready = true;
      break;
    default:
      p->mask = value;
  }
}

static uint8_t read_port(pic *p, bool data) {
  if (p->poll) {
    p->poll = false;
    int line = requested(p);
    if (line >= 0) {
      accept(p, line);
    }
    return line >= 0 ? (uint8_t)(0x80 | line) : 0;
  }
  if (data) {
    return p->mask;
  }
  return p->rd_cmd_reg & 1 ? p->service : p->request;
}

/* ---- The framework's ---- */

typedef enum place {
  PLACE_COMMAND,
  PLACE_DATA,
  PLACE_TRIGGER,
  PLACE_NONE
} place;

static place place_of(int port, pic **p) {
  *p = &pics[port >= 0xa0 && port != 0x4d0];
  switch (port) {
    case 0x20:
    case 0xa0:
      return PLACE_COMMAND;
    case 0x21:
    case 0xa1:
      return PLACE_DATA;
    case 0x4d0:
    case 0x4d1:
      return PLACE_TRIGGER;
    default:
      return PLACE_NONE;
  }
}

static hv_return_t enter_port(int port, pic **p, place *where) {
  hv_return_t result = hvf_enter_accelerated();
  *where = place_of(port, p);
  if (result == HV_SUCCESS && *where == PLACE_NONE) {
    hvf_leave();
    return hvf_fail(HV_BAD_ARGUMENT, "the PICs have no port 0x%x", (unsigned)port);
  }
  return result;
}

hv_return_t hv_vm_atpic_port_read(int port, uint8_t *valuep) {
  pic *p;
  place where;
  if (!valuep) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put what port 0x%x has", (unsigned)port);
  }
  hv_return_t result = enter_port(port, &p, &where);
  if (result != HV_SUCCESS) {
    return result;
  }
  *valuep = where == PLACE_TRIGGER ? p->elc : read_port(p, where == PLACE_DATA);
  update();
  hvf_leave();
  return HV_SUCCESS;
}

/* Lines 0 to 2, 8 and 13 of a PC are edge-triggered. */
static uint8_t trigger_bits(const pic *p) {
  return p == &pics[0] ? 0xf8 : 0xde;
}

hv_return_t hv_vm_atpic_port_write(int port, uint8_t value) {
  pic *p;
  place where;
  hv_return_t result = enter_port(port, &p, &where);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (where == PLACE_TRIGGER) {
    p->elc = value & trigger_bits(p);
  } else if (where == PLACE_DATA) {
    write_data(p, value);
  } else {
    write_command(p, value);
  }
  update();
  hvf_leave();
  return HV_SUCCESS;
}

static hv_return_t set_line(int irq, bool level) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  if (irq < 0 || irq >= 2 * LINES || irq == CASCADE) {
    hvf_leave();
    return hvf_fail(HV_BAD_ARGUMENT, "the PICs have no line %d to set", irq);
  }
  set_request(&pics[irq / LINES], irq % LINES, level);
  update();
  hvf_leave();
  return HV_SUCCESS;
}

hv_return_t hv_vm_atpic_assert_irq(int irq) {
  return set_line(irq, true);
}

hv_return_t hv_vm_atpic_deassert_irq(int irq) {
  return set_line(irq, false);
}

static hv_return_t enter_state(const hv_atpic_state_ext_t *state) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hvf_check_version("a PIC", state ? &state->version : NULL, HV_ATPIC_STATE_EXT_VER);
  if (result != HV_SUCCESS) {
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_atpic_get_state(hv_atpic_state_ext_t *state, bool is_primary) {
  hv_return_t result = enter_state(state);
  if (result == HV_SUCCESS) {
    state->state = pics[!is_primary];
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_atpic_put_state(const hv_atpic_state_ext_t *state, bool is_primary) {
  hv_return_t result = enter_state(state);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (state->state.lowprio >= LINES || state->state.icw_num < 1 || state->state.icw_num > 4) {
    result = hvf_fail(HV_BAD_ARGUMENT, "lowprio cannot be %u, or icw_num cannot be %u",
                      state->state.lowprio, state->state.icw_num);
  } else {
    pics[!is_primary] = state->state;
    if (pics[0].intr_raised) {
      hvf_signal_first();
    }
  }
  hvf_leave();
  return result;
}
