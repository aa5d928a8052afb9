/* SPDX-License-Identifier: MIT
 * One group of state: the LAPIC's register page. When it is written, KVM starts the timer anew,
 * from the current count (kvm_apic_set_state): at 0, it fires at once. */
#include "seat/lapic.h"

#include "base/error.h"
#include "kvm/kvm_interrupt.h"
#include "seat/group.h"
#include "seat/seat.h"

#include <errno.h>
#include <string.h>

uint32_t luna_lapic_get(const struct kvm_lapic_state *page, uint32_t offset) {
  uint32_t value;
  memcpy(&value, page->regs + offset, sizeof value);
  return value;
}

void luna_lapic_set(struct kvm_lapic_state *page, uint32_t offset, uint32_t value) {
  memcpy(page->regs + offset, &value, sizeof value);
}

/* One-shot is mode 0. */
static bool has_run_out(const struct kvm_lapic_state *page) {
  return (luna_lapic_get(page, LUNA_LAPIC_LVT_TIMER) & LUNA_LVT_MODE) == 0 &&
         luna_lapic_get(page, LUNA_LAPIC_INITIAL_COUNT) != 0 &&
         luna_lapic_get(page, LUNA_LAPIC_CURRENT_COUNT) == 0;
}

int luna_lapic_read(const luna_seat *seat, struct kvm_lapic_state *page) {
  if (luna_kvm_get_lapic(seat->fd, page) != 0) {
    return -1;
  }
  if (luna_lapic_get(page, LUNA_LAPIC_INITIAL_COUNT) == 0) {
    luna_lapic_set(page, LUNA_LAPIC_INITIAL_COUNT, seat->timer_count);
  }
  return 0;
}

/* KVM does not start a timer whose initial count is 0. */
int luna_lapic_write(luna_seat *seat, const struct kvm_lapic_state *page) {
  struct kvm_lapic_state written = *page;
  uint32_t hidden = 0;
  if (has_run_out(page)) {
    hidden = luna_lapic_get(page, LUNA_LAPIC_INITIAL_COUNT);
    luna_lapic_set(&written, LUNA_LAPIC_INITIAL_COUNT, 0);
  }
  if (luna_kvm_set_lapic(seat->fd, &written) != 0) {
    return -1;
  }
  seat->timer_count = hidden;
  seat->held.known &= ~(1u << LUNA_GROUP_COUNTERS); /* the timer counts from now */
  seat->count_then = luna_lapic_get(page, LUNA_LAPIC_CURRENT_COUNT);
  return 0;
}

void luna_lapic_date(luna_seat *seat) {
  if (luna_seat_knows(seat, LUNA_GROUP_COUNTERS)) {
    luna_lapic_set(&seat->held.lapic, LUNA_LAPIC_CURRENT_COUNT, seat->count_then);
  } else {
    seat->count_then = luna_lapic_get(&seat->held.lapic, LUNA_LAPIC_CURRENT_COUNT);
  }
}

/* One that is masked is lost anyway; an interrupt that waits in the IRR takes a second one with
 * it. */
bool luna_lapic_may_be_due(const luna_seat *seat, const struct kvm_lapic_state *page) {
  uint32_t entry = luna_lapic_get(page, LUNA_LAPIC_LVT_TIMER);
  uint32_t vector = entry & 0xff;
  uint32_t waiting = luna_lapic_get(page, LUNA_LAPIC_IRR + vector / 32 * 0x10);
  return has_run_out(page) && seat->timer_count == 0 && !(entry & LUNA_LVT_MASKED) &&
         !(waiting >> vector % 32 & 1);
}

void luna_lapic_keep_due(struct kvm_lapic_state *page, const struct kvm_lapic_state *before) {
  if (has_run_out(page) && !has_run_out(before)) {
    luna_lapic_set(page, LUNA_LAPIC_CURRENT_COUNT, 1);
  }
}

int luna_seat_fetch_lapic(luna_seat *seat) {
  return luna_lapic_read(seat, &seat->held.lapic) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot read the LAPIC of vCPU %u", seat->id);
}

int luna_seat_write_lapic(luna_seat *seat, const luna_held *wanted) {
  return luna_lapic_write(seat, &wanted->lapic) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot write the LAPIC of vCPU %u", seat->id);
}
