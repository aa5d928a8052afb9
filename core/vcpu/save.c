/* SPDX-License-Identifier: MIT
 * The whole state of a vCPU as bytes: a header and sections, each with a tag and a length, whose
 * contents are KVM's own structures: the groups of seat/group.h, in its order. */
#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "seat/group.h"
#include "seat/lapic.h"
#include "vcpu/beside.h"
#include "vcpu/check.h"
#include "vcpu/extended.h"
#include "vcpu/guard.h"
#include "vcpu/msr.h"
#include "vcpu/state.h"
#include "vcpu/timer.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The groups' tags in a state. These numbers do not change. */
static const uint8_t tags[LUNA_GROUP_COUNT] = {
    [LUNA_GROUP_REGS] = 1, [LUNA_GROUP_SREGS] = 2,    [LUNA_GROUP_EVENTS] = 3,
    [LUNA_GROUP_XCRS] = 4, [LUNA_GROUP_XSAVE] = 5,    [LUNA_GROUP_DEBUG] = 6,
    [LUNA_GROUP_MSRS] = 7, [LUNA_GROUP_COUNTERS] = 8, [LUNA_GROUP_LAPIC] = 9,
    [LUNA_GROUP_MP] = 10,
};

enum {
  VERSION = 1,
  ALIGN = 8,
  ENTRY_SIZE = sizeof(struct kvm_msr_entry)
};

typedef struct header {
  char magic[8];
  uint32_t version;
  uint32_t size;     /* of everything */
  uint64_t checksum; /* of what follows the header */
} header;

static const char magic[8] = "lunavcpu";

typedef struct section {
  uint32_t tag;
  uint32_t length; /* of the contents, which are padded to ALIGN */
} section;

static size_t padded(size_t length) {
  return (length + ALIGN - 1) / ALIGN * ALIGN;
}

/* FNV-1a by words. */
static uint64_t checksum(const uint8_t *bytes, size_t size) {
  uint64_t sum = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i + ALIGN <= size; i += ALIGN) {
    uint64_t word;
    memcpy(&word, bytes + i, ALIGN);
    sum = (sum ^ word) * UINT64_C(0x100000001b3);
    sum ^= sum >> 29;
  }
  return sum;
}

/* ---- Save ---- */

typedef struct writer {
  uint8_t *to; /* NULL to count only */
  size_t room;
  size_t used;
} writer;

static void put_bytes(writer *w, const void *bytes, size_t size) {
  if (w->to && w->used + padded(size) <= w->room) {
    memcpy(w->to + w->used, bytes, size);
    memset(w->to + w->used + size, 0, padded(size) - size);
  }
  w->used += padded(size);
}

static void put(writer *w, uint32_t tag, const void *contents, size_t length) {
  const section s = {.tag = tag, .length = (uint32_t)length};
  put_bytes(w, &s, sizeof s);
  put_bytes(w, contents, length);
}

/* The group of a tag, LUNA_GROUP_COUNT for none. */
static luna_group group_of(uint32_t tag) {
  luna_group group = 0;
  while (group < LUNA_GROUP_COUNT && tags[group] != tag) {
    group++;
  }
  return group;
}

/* The groups that a vCPU has. */
static uint32_t groups_of(const luna_vcpu *vcpu) {
  return vcpu->vm->irqchip ? LUNA_GROUPS_ALL : LUNA_GROUPS_ALL & ~LUNA_GROUPS_LAPIC;
}

/* All of the vCPU's state; what lies behind pointers is the seat's own. Asking for the MP state
 * first lets KVM take an INIT that has arrived. `*again`: the counters were known already. */
static int read_state(luna_vcpu *vcpu, luna_held *state, bool *again) {
  int status = LUNA_OK;
  if (vcpu->vm->irqchip) {
    status = luna_seat_fetch(vcpu->seat, 1 << LUNA_GROUP_MP);
    status = status == LUNA_OK ? luna_state_reload(vcpu) : status;
    status = status == LUNA_OK ? luna_timer_fetch(vcpu) : status;
    luna_lapic_date(vcpu->seat);
  }
  *again = luna_seat_knows(vcpu->seat, LUNA_GROUP_COUNTERS);
  const uint32_t others = groups_of(vcpu) & ~(uint32_t)(LUNA_GROUPS_PAGE | LUNA_GROUPS_LAPIC);
  status = status == LUNA_OK ? luna_seat_fetch(vcpu->seat, others) : status;
  *state = vcpu->seat->held;
  return status == LUNA_OK ? luna_state_read(vcpu, state) : status;
}

static void put_state(const luna_vcpu *vcpu, luna_held *state, writer *w) {
  for (uint32_t tag = 1; tag <= LUNA_GROUP_COUNT; tag++) {
    luna_group group = group_of(tag);
    if (groups_of(vcpu) >> group & 1) {
      size_t size;
      const void *bytes = luna_group_bytes(state, group, &size);
      put(w, tag, bytes, size);
    }
  }
}

static void put_beside(luna_beside *beside, writer *w) {
  for (uint32_t tag = LUNA_BESIDE_WAITING; tag <= LUNA_BESIDE_CLOCK; tag++) {
    size_t size;
    const void *bytes = luna_beside_bytes(beside, tag, &size);
    put(w, tag, bytes, size);
  }
}

static int fail_open(const luna_vcpu *vcpu) {
  return luna_fail(LUNA_ERROR_STATE,
                   "cannot save vCPU %u: its %s exit is open, in the middle of an instruction; "
                   "answer it first",
                   vcpu->id, luna_exit_name((int)vcpu->exit.kind));
}

/* Behind the instruction whose exit was answered. One that then makes a further access is dropped
 * from the state; for the vCPU itself, that is its next exit. */
static int finish(luna_vcpu *vcpu) {
  if (!vcpu->pending.open && vcpu->pending.incomplete) {
    int status = luna_state_general(vcpu, &vcpu->before);
    status = status == LUNA_OK ? luna_extended_settle(vcpu) : status;
    vcpu->pending.met = vcpu->pending.open;
    return status;
  }
  return vcpu->pending.open && !vcpu->pending.met ? fail_open(vcpu) : LUNA_OK;
}

/* At a read, KVM has the registers from before the instruction, or its next element; at a write,
 * from behind it. */
static int read_finished(luna_vcpu *vcpu, luna_held *state, luna_beside *beside) {
  int status = finish(vcpu);
  bool again = false;
  status = status == LUNA_OK ? read_state(vcpu, state, &again) : status;
  status = status == LUNA_OK ? luna_beside_read(vcpu, beside, again) : status;
  if (status == LUNA_OK && vcpu->pending.met && !vcpu->pending.reads) {
    state->regs = vcpu->before;
  }
  return status;
}

int luna_vcpu_save(luna_vcpu *vcpu, void *state, size_t *size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_held held;
  luna_beside beside;
  int status = read_finished(vcpu, &held, &beside);
  if (status != LUNA_OK) {
    return status;
  }
  writer w = {.to = state, .room = *size, .used = sizeof(header)};
  put_state(vcpu, &held, &w);
  put_beside(&beside, &w);
  *size = w.used;
  if (!state) {
    return LUNA_OK;
  }
  if (w.used > w.room) {
    return luna_fail(LUNA_ERROR_RANGE, "the state of vCPU %u has %zu bytes, not %zu", vcpu->id,
                     w.used, w.room);
  }
  header h = {.version = VERSION, .size = (uint32_t)w.used};
  memcpy(h.magic, magic, sizeof magic);
  h.checksum = checksum(w.to + sizeof h, w.used - sizeof h);
  memcpy(state, &h, sizeof h);
  return LUNA_OK;
}

/* ---- Restore: reading ---- */

/* A state taken apart. */
typedef struct parts {
  const uint8_t *contents[LUNA_GROUP_COUNT]; /* NULL where there is none */
  uint32_t lengths[LUNA_GROUP_COUNT];
  luna_held wanted;   /* refers to the memory behind */
  luna_held old;      /* what the vCPU had before; likewise */
  luna_beside beside; /* nothing where the state has no such section */
  bool counted;       /* the counters had been written when it failed */
  luna_msrs msrs[2];
  uint8_t xsave[];
} parts;

#define FAIL(...) luna_fail(LUNA_ERROR_ARGUMENT, "not the state of a vCPU: " __VA_ARGS__)

static int check_header(const uint8_t *state, size_t size) {
  header h;
  if (size < sizeof h) {
    return FAIL("it has only %zu bytes", size);
  }
  memcpy(&h, state, sizeof h);
  if (memcmp(h.magic, magic, sizeof magic) != 0) {
    return FAIL("it does not begin with '%.8s'", magic);
  }
  if (h.version != VERSION) {
    return FAIL("its version is %u, this library reads version %d", h.version, VERSION);
  }
  if (h.size != size || size % ALIGN != 0) {
    return FAIL("it has %zu bytes and says %u", size, h.size);
  }
  if (h.checksum != checksum(state + sizeof h, size - sizeof h)) {
    return FAIL("its checksum is wrong");
  }
  return LUNA_OK;
}

static int take_section(parts *p, const section *s, const uint8_t *contents) {
  size_t size;
  void *bytes = luna_beside_bytes(&p->beside, s->tag, &size);
  if (bytes) {
    if (p->beside.there >> s->tag & 1 || s->length != size) {
      return FAIL("its section %u has %u bytes, or is there twice", s->tag, s->length);
    }
    p->beside.there |= 1u << s->tag;
    memcpy(bytes, contents, size);
    return LUNA_OK;
  }
  luna_group group = group_of(s->tag);
  if (group == LUNA_GROUP_COUNT || p->contents[group]) {
    return FAIL("its section %u is unknown or there twice", s->tag);
  }
  p->contents[group] = contents;
  p->lengths[group] = s->length;
  return LUNA_OK;
}

static int find_sections(parts *p, const uint8_t *state, size_t size) {
  int status = LUNA_OK;
  for (size_t at = sizeof(header); at < size && status == LUNA_OK;) {
    section s;
    memcpy(&s, state + at, sizeof s); /* both are multiples of ALIGN */
    at += sizeof s;
    if (padded(s.length) > size - at) {
      return FAIL("its section %u is cut off", s.tag);
    }
    status = take_section(p, &s, state + at);
    at += padded(s.length);
  }
  return status;
}

/* A list of MSRs has any length that there is room for. */
static int check_list(uint32_t length, size_t room, const char *what) {
  return length % ENTRY_SIZE == 0 && length <= room
             ? LUNA_OK
             : FAIL("its list of %s has %u bytes", what, length);
}

static int check_section(const parts *p, luna_group group) {
  size_t size;
  switch (group) {
    case LUNA_GROUP_MSRS:
      return check_list(p->lengths[group], sizeof p->msrs->entries, "MSRs");
    case LUNA_GROUP_COUNTERS:
      return check_list(p->lengths[group], sizeof p->wanted.counters.entries, "counters");
    default:
      luna_group_bytes((luna_held *)&p->wanted, group, &size);
      return p->lengths[group] == size ? LUNA_OK
                                       : FAIL("its section %u has %u bytes, %zu on this host",
                                              tags[group], p->lengths[group], size);
  }
}

static int check_sections(const parts *p, const luna_vcpu *vcpu) {
  int status = LUNA_OK;
  for (uint32_t tag = 1; tag <= LUNA_GROUP_COUNT && status == LUNA_OK; tag++) {
    luna_group group = group_of(tag);
    bool wanted = groups_of(vcpu) >> group & 1;
    if (!p->contents[group] == wanted) {
      return FAIL("its section %u is %s: it is of a VM %s a LAPIC in KVM", tag,
                  p->contents[group] ? "too much" : "missing",
                  p->contents[LUNA_GROUP_LAPIC] ? "with" : "without");
    }
    status = wanted ? check_section(p, group) : LUNA_OK;
  }
  return status;
}

static void take_contents(parts *p) {
  p->wanted.msrs->count = p->lengths[LUNA_GROUP_MSRS] / ENTRY_SIZE;
  p->wanted.counters.count = p->lengths[LUNA_GROUP_COUNTERS] / ENTRY_SIZE;
  for (luna_group group = 0; group < LUNA_GROUP_COUNT; group++) {
    if (p->contents[group]) {
      size_t size;
      memcpy(luna_group_bytes(&p->wanted, group, &size), p->contents[group], p->lengths[group]);
    }
  }
  luna_kvm_mend_sregs(&p->wanted.sregs); /* a state may be of a version that did not */
}

static int parse(parts *p, const luna_vcpu *vcpu, const uint8_t *state, size_t size) {
  int status = check_header(state, size);
  status = status == LUNA_OK ? find_sections(p, state, size) : status;
  status = status == LUNA_OK ? check_sections(p, vcpu) : status;
  status = status == LUNA_OK ? luna_beside_check(vcpu, &p->beside) : status;
  if (status == LUNA_OK) {
    take_contents(p);
  }
  return status;
}

/* ---- Restore: writing ---- */

/* Notes what the vCPU has, to put it back. */
static int keep_old(parts *p, luna_vcpu *vcpu) {
  luna_held held;
  bool again;
  int status = read_state(vcpu, &held, &again);
  status = status == LUNA_OK ? luna_msrs_match(p->wanted.msrs, held.msrs) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_msrs *msrs = p->old.msrs;
  void *xsave = p->old.xsave;
  memcpy(msrs, held.msrs, sizeof *msrs);
  memcpy(xsave, held.xsave, held.xsave_size);
  p->old = held;
  p->old.msrs = msrs;
  p->old.xsave = xsave;
  return LUNA_OK;
}

/* Which LAPIC it is, and whether the bootstrap processor's, belongs to the vCPU: messages to it
 * would go astray with another's number. */
static void keep_identity(parts *p, const luna_vcpu *vcpu) {
  enum {
    APIC_ID = 0x20,
    BASE_BSP = 0x100 /* of IA32_APIC_BASE */
  };
  if (vcpu->vm->irqchip) {
    struct kvm_sregs *sregs = &p->wanted.sregs;
    const uint64_t bsp = p->old.sregs.apic_base & BASE_BSP;
    sregs->apic_base = (sregs->apic_base & ~(uint64_t)BASE_BSP) | bsp;
    memcpy(p->wanted.lapic.regs + APIC_ID, p->old.lapic.regs + APIC_ID, sizeof(uint32_t));
  }
}

/* System registers wait for the next entry, unless the LAPIC depends on them, or they look as if
 * KVM would refuse them then. */
static int try_sregs(parts *p, luna_vcpu *vcpu) {
  char rule[256];
  bool doubtful = luna_check_registers(vcpu, &p->wanted.regs, &p->wanted.sregs, rule, sizeof rule);
  if (!doubtful && !vcpu->vm->irqchip) {
    return LUNA_OK;
  }
  vcpu->state.sregs_written = true; /* the old ones are to be written again if this goes wrong */
  if (luna_kvm_set_sregs(vcpu->fd, &p->wanted.sregs) == 0) {
    return LUNA_OK;
  }
  return errno == EINVAL
             ? luna_fail(LUNA_ERROR_STATE,
                         "cannot restore vCPU %u: KVM refuses the system registers: %s", vcpu->id,
                         doubtful ? rule : "see SDM Vol. 3, 27.3.1")
             : luna_fail_errno(errno, "cannot restore the system registers of vCPU %u", vcpu->id);
}

/* The system registers in their turn, the others of the run page's with the next entry. */
static int write_all(parts *p, luna_vcpu *vcpu) {
  const uint32_t groups = groups_of(vcpu) & ~(uint32_t)LUNA_GROUPS_PAGE;
  const uint32_t before = groups & ((1u << LUNA_GROUP_SREGS) - 1);
  int status = luna_seat_write(vcpu->seat, &p->wanted, before);
  status = status == LUNA_OK ? try_sregs(p, vcpu) : status;
  if (status == LUNA_OK) {
    luna_msr_part_counters(vcpu);
    status = luna_seat_write(vcpu->seat, &p->wanted, groups & ~before);
  }
  if (status == LUNA_OK) {
    status = luna_beside_write_clock(vcpu, &p->beside);
    p->counted = status != LUNA_OK;
  }
  return status;
}

/* The time-stamp counter is the last of the groups: where that fails, it has not changed. */
static void put_back(const parts *p, luna_vcpu *vcpu) {
  const uint32_t kept = LUNA_GROUPS_PAGE | (p->counted ? 0 : 1u << LUNA_GROUP_COUNTERS);
  luna_failure failure = luna_failure_take();
  luna_seat_write(vcpu->seat, &p->old,
                  (groups_of(vcpu) & ~kept) | (vcpu->vm->irqchip ? 1 << LUNA_GROUP_SREGS : 0));
  vcpu->seat->held.counters = p->old.counters;
  vcpu->seat->held.known |= 1u << LUNA_GROUP_COUNTERS;
  luna_failure_put(&failure);
}

/* What KVM has under way would spoil registers that are put back. */
static int drop_exit(luna_vcpu *vcpu) {
  luna_vcpu_abandon(vcpu);
  return vcpu->pending.incomplete ? luna_error_status() : LUNA_OK;
}

static int restore(parts *p, luna_vcpu *vcpu) {
  int status = keep_old(p, vcpu);
  status = status == LUNA_OK ? drop_exit(vcpu) : status;
  if (status != LUNA_OK) {
    return status;
  }
  keep_identity(p, vcpu);
  status = write_all(p, vcpu);
  if (status != LUNA_OK) {
    put_back(p, vcpu);
    return status;
  }
  luna_state_adopt(vcpu, &p->wanted);
  luna_beside_write_waiting(vcpu, &p->beside);
  return LUNA_OK;
}

int luna_vcpu_restore(luna_vcpu *vcpu, const void *state, size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint32_t xsave = vcpu->vm->host->xsave_size;
  parts *p = calloc(1, sizeof *p + 2 * (size_t)xsave);
  if (!p) {
    return luna_fail_errno(ENOMEM, "cannot restore vCPU %u", vcpu->id);
  }
  p->wanted.msrs = &p->msrs[0];
  p->wanted.xsave = p->xsave;
  p->old.msrs = &p->msrs[1];
  p->old.xsave = p->xsave + xsave;
  p->wanted.xsave_size = p->old.xsave_size = xsave;
  int status = parse(p, vcpu, state, size);
  status = status == LUNA_OK ? restore(p, vcpu) : status;
  free(p);
  return status;
}
