/* SPDX-License-Identifier: MIT
 * The I/O APIC (82093AA, with 32 pins). KVM has the local APICs only: what a pin sends is a message
 * to them, and where a level interrupt ends, KVM tells by the routes of the VM. The lock of the VM
 * is held in all functions that are not of the framework. */
#include "hvf/intr/ioapic.h"

#include <Hypervisor/hv_intr.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/intr/accelerated.h"

#include <inttypes.h>
#include <string.h>

enum {
  PINS = 32,
  ROUTES = 255, /* of which KVM tells the end */
  SENT = ROUTES - PINS,
  REGISTER_ID = 0,
  REGISTER_VERSION = 1,
  REGISTER_ARBITRATION = 2,
  REGISTER_TABLE = 0x10,
  OFFSET_SELECT = 0,
  OFFSET_WINDOW = 0x10,
  VERSION = 0x11 | (PINS - 1) << 16,
  ID_BITS = 0x0f000000
};
static const uint64_t page_gpa = 0xfec00000;

/* Of a redirection entry (82093AA, 3.2.4). */
static const uint64_t rte_vector = 0xff;
static const uint64_t rte_status = 1 << 12; /* read-only */
static const uint64_t rte_remote = 1 << 14; /* read-only: a level interrupt that has not ended */
static const uint64_t rte_level = 1 << 15;
static const uint64_t rte_masked = 1 << 16;
static const uint64_t rte_writable = 0xff0000000001afff;

static struct hv_ioapic_state chip;

/* Level interrupts that the program has sent itself, the latest last, as long as there is room; and
 * whether one of the vector has ended since. */
typedef struct message {
  uint64_t route;
  bool ended;
} message;

static message sent[SENT];
static uint32_t sent_count;
static uint64_t routed[ROUTES];
static uint32_t routed_count;

void hvf_ioapic_reset(void) {
  memset(&chip, 0, sizeof chip);
  for (int pin = 0; pin < PINS; pin++) {
    chip.rtbl[pin] = rte_masked;
  }
  sent_count = routed_count = 0;
}

/* ---- Messages and routes ---- */

/* SDM Vol. 3, 11.11: destination, its mode; vector, delivery mode, trigger. */
static uint64_t message_address(uint64_t rte) {
  return 0xfee00000 | rte >> 56 << 12 | (rte >> 11 & 1) << 2;
}

static uint32_t message_data(uint64_t rte) {
  const uint32_t asserted = 1 << 14;
  return (uint32_t)(rte & 0x7ff) | (uint32_t)(rte & rte_level) | asserted;
}

/* Pins that are connected to the PICs leave it to them. */
static hv_return_t send(uint64_t rte) {
  const uint64_t delivery = 7 << 8; /* ExtINT */
  if ((rte & delivery) == delivery) {
    hvf_signal_first();
    return HV_SUCCESS;
  }
  return hvf_status(luna_vm_msi(hvf_the_vm.vm, message_address(rte), message_data(rte)));
}

/* What of an entry decides who ends it. */
static uint64_t route_of(uint64_t rte) {
  return rte & (rte_vector | 0xff00000000000f00 | rte_level);
}

static void collect(uint64_t *entries, uint32_t *count, uint64_t rte) {
  for (uint32_t i = 0; i < *count; i++) {
    if (entries[i] == route_of(rte)) {
      return;
    }
  }
  entries[(*count)++] = route_of(rte);
}

/* KVM tells the end of the level interrupts that routes lead to; one that is under way ends, too,
 * where its pin has been masked since. */
static hv_return_t update_routes(void) {
  uint64_t wanted[ROUTES];
  uint32_t count = 0;
  luna_route routes[ROUTES];
  for (int pin = 0; pin < PINS; pin++) {
    const uint64_t rte = chip.rtbl[pin];
    if (rte & rte_level && (!(rte & rte_masked) || rte & rte_remote)) {
      collect(wanted, &count, rte);
    }
  }
  for (uint32_t i = 0; i < sent_count; i++) {
    collect(wanted, &count, sent[i].route);
  }
  if (count == routed_count && memcmp(wanted, routed, count * sizeof *wanted) == 0) {
    return HV_SUCCESS;
  }
  for (uint32_t i = 0; i < count; i++) {
    routes[i] = (luna_route){.line = i,
                             .is_message = 1,
                             .address = message_address(wanted[i]),
                             .data = message_data(wanted[i])};
  }
  hv_return_t result = hvf_status(luna_vm_route(hvf_the_vm.vm, routes, count));
  if (result == HV_SUCCESS) {
    memcpy(routed, wanted, count * sizeof *wanted);
    routed_count = count;
  }
  return result;
}

/* ---- Pins ---- */

/* Sends the pin's interrupt, unless it is masked or one that has not ended is under way. */
static hv_return_t service(int pin) {
  uint64_t *rte = &chip.rtbl[pin];
  if (*rte & rte_masked || (*rte & rte_level && *rte & rte_remote)) {
    return HV_SUCCESS;
  }
  if (*rte & rte_level) {
    *rte |= rte_remote;
  }
  return send(*rte);
}

static hv_return_t set_pin(int pin, bool level) {
  const uint32_t bit = UINT32_C(1) << pin;
  bool was = chip.irr & bit;
  chip.irr = level ? chip.irr | bit : chip.irr & ~bit;
  return level && !was ? service(pin) : HV_SUCCESS;
}

void hvf_ioapic_eoi(uint8_t vector) {
  for (uint32_t i = 0; i < sent_count; i++) {
    sent[i].ended = sent[i].ended || (sent[i].route & rte_vector) == vector;
  }
  for (int pin = 0; pin < PINS; pin++) {
    uint64_t *rte = &chip.rtbl[pin];
    if (*rte & rte_remote && (*rte & rte_vector) == vector) {
      *rte &= ~rte_remote;
      if (chip.irr >> pin & 1) {
        service(pin);
      }
    }
  }
}

/* ---- Registers ---- */

static uint32_t read_register(uint32_t number) {
  switch (number) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION:
      return chip.ioa_id;
    case REGISTER_VERSION:
      return VERSION;
    default:
      break;
  }
  uint32_t index = number - REGISTER_TABLE;
  if (number < REGISTER_TABLE || index >= 2 * PINS) {
    return 0;
  }
  return (uint32_t)(chip.rtbl[index / 2] >> (index % 2 * 32));
}

/* An edge interrupt has no end to wait for; a level interrupt that waits is sent when the entry
 * allows it. */
static hv_return_t write_entry(int pin, uint32_t half, uint32_t data) {
  const uint64_t mask = UINT64_C(0xffffffff) << half * 32;
  uint64_t *rte = &chip.rtbl[pin];
  const uint64_t before = *rte;
  uint64_t value = (before & ~mask) | (uint64_t)data << half * 32;
  *rte = (value & rte_writable) | (before & (rte_status | rte_remote));
  if (!(*rte & rte_level)) {
    *rte &= ~rte_remote;
  }
  hv_return_t result = update_routes();
  if (result != HV_SUCCESS) {
    *rte = before;
    return result;
  }
  return *rte & rte_level && chip.irr >> pin & 1 ? service(pin) : HV_SUCCESS;
}

static hv_return_t write_register(uint32_t number, uint32_t data) {
  uint32_t index = number - REGISTER_TABLE;
  if (number == REGISTER_ID) {
    chip.ioa_id = data & ID_BITS;
  }
  if (number < REGISTER_TABLE || index >= 2 * PINS) {
    return HV_SUCCESS;
  }
  return write_entry((int)(index / 2), index % 2, data);
}

/* ---- The framework's ---- */

static hv_return_t enter_pin(int pin) {
  hv_return_t result = hvf_enter_accelerated();
  if (result == HV_SUCCESS && (pin < 0 || pin >= PINS)) {
    hvf_leave();
    return hvf_fail(HV_BAD_ARGUMENT, "the I/O APIC has no pin %d: they are 0 to %d", pin, PINS - 1);
  }
  return result;
}

static hv_return_t change_pin(int pin, bool high, bool low) {
  hv_return_t result = enter_pin(pin);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (high) {
    result = set_pin(pin, true);
  }
  if (low) {
    set_pin(pin, false);
  }
  hvf_leave();
  return result;
}

hv_return_t hv_vm_ioapic_assert_irq(int intin) {
  return change_pin(intin, true, false);
}

hv_return_t hv_vm_ioapic_deassert_irq(int intin) {
  return change_pin(intin, false, true);
}

hv_return_t hv_vm_ioapic_pulse_irq(int intin) {
  return change_pin(intin, true, true);
}

static hv_return_t enter_page(hv_gpaddr_t gpa) {
  hv_return_t result = hvf_enter_accelerated();
  if (result == HV_SUCCESS && (gpa < page_gpa || gpa - page_gpa >= LUNA_PAGE_SIZE)) {
    hvf_leave();
    return hvf_fail(HV_BAD_ARGUMENT, "the I/O APIC is not at gpa 0x%" PRIx64, gpa);
  }
  return result;
}

hv_return_t hv_vm_ioapic_read(hv_gpaddr_t gpa, uint32_t *datap) {
  hv_return_t result = datap ? enter_page(gpa) : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put it");
  if (result != HV_SUCCESS) {
    return result;
  }
  switch (gpa - page_gpa) {
    case OFFSET_SELECT:
      *datap = chip.ioregsel;
      break;
    case OFFSET_WINDOW:
      *datap = read_register(chip.ioregsel);
      break;
    default:
      *datap = 0;
  }
  hvf_leave();
  return HV_SUCCESS;
}

hv_return_t hv_vm_ioapic_write(hv_gpaddr_t gpa, uint32_t data) {
  hv_return_t result = enter_page(gpa);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (gpa - page_gpa == OFFSET_SELECT) {
    chip.ioregsel = data & 0xff;
  } else if (gpa - page_gpa == OFFSET_WINDOW) {
    result = write_register(chip.ioregsel, data);
  }
  hvf_leave();
  return result;
}

static hv_return_t enter_state(const hv_ioapic_state_ext_t *state) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result =
      hvf_check_version("the I/O APIC", state ? &state->version : NULL, HV_IOAPIC_STATE_EXT_VER);
  if (result != HV_SUCCESS) {
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_ioapic_get_state(hv_ioapic_state_ext_t *state) {
  hv_return_t result = enter_state(state);
  if (result == HV_SUCCESS) {
    state->state = chip;
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_ioapic_put_state(const hv_ioapic_state_ext_t *state) {
  hv_return_t result = enter_state(state);
  if (result != HV_SUCCESS) {
    return result;
  }
  struct hv_ioapic_state before = chip;
  chip = state->state;
  for (int pin = 0; pin < PINS; pin++) {
    chip.rtbl[pin] &= rte_writable | rte_status | rte_remote;
  }
  chip.ioa_id &= ID_BITS;
  chip.ioregsel &= 0xff;
  result = update_routes();
  if (result != HV_SUCCESS) {
    chip = before;
  }
  hvf_leave();
  return result;
}

/* ---- Messages of the program's ---- */

/* The place of the same message, or of the one longest ago that has ended where there is no room
 * for another; SENT if none has. */
static uint32_t place_of(uint64_t rte) {
  uint32_t ended = SENT;
  for (uint32_t i = sent_count; i-- > 0;) {
    if (sent[i].route == route_of(rte)) {
      return i;
    }
    ended = sent[i].ended ? i : ended;
  }
  return sent_count < SENT ? sent_count : ended;
}

hv_return_t hvf_ioapic_expect(uint64_t rte) {
  if (!(rte & rte_level)) {
    return HV_SUCCESS;
  }
  const uint32_t place = place_of(rte);
  if (place == SENT) {
    return hvf_fail(HV_NO_RESOURCES,
                    "%d level interrupts have been sent that have not ended: KVM tells no further "
                    "end; end one first",
                    SENT);
  }
  message before[SENT];
  const uint32_t count = sent_count;
  memcpy(before, sent, sizeof before);
  sent_count += place == sent_count;
  memmove(&sent[place], &sent[place + 1], (sent_count - 1 - place) * sizeof *sent);
  sent[sent_count - 1] = (message){.route = route_of(rte)};
  hv_return_t result = update_routes();
  if (result != HV_SUCCESS) {
    memcpy(sent, before, sizeof before);
    sent_count = count;
  }
  return result;
}

hv_return_t hv_vm_send_ioapic_intr(uint64_t data) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hvf_ioapic_expect(data);
  result = result == HV_SUCCESS ? send(data) : result;
  hvf_leave();
  return result;
}
