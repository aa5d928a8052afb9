/* SPDX-License-Identifier: MIT
 * The whole state of a vCPU as bytes: a header and sections, each with a tag and a length, whose
 * contents are KVM's own structures. The order of the calls is what KVM asks for: MP state first,
 * XCR0 before what it enables, the LAPIC after the system registers and before its timer's MSR. */
#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "kvm/kvm_interrupt.h"
#include "seat/seat.h"
#include "vcpu/check.h"
#include "vcpu/extended.h"
#include "vcpu/guard.h"
#include "vcpu/msr.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef enum tag {
  TAG_REGS = 1,
  TAG_SREGS,
  TAG_EVENTS,
  TAG_XCRS,
  TAG_XSAVE,
  TAG_DEBUG,
  TAG_MSRS,
  TAG_LATE,  /* MSRs that go last: the time-stamp counter and its deadline */
  TAG_LAPIC, /* from here on only with a LAPIC in KVM */
  TAG_MP,
  TAGS
} tag;

enum {
  VERSION = 1,
  ALIGN = 8,
  LATE_MOST = 2,
  ENTRY_SIZE = sizeof(struct kvm_msr_entry),
  MSR_TSC = 0x10,
  MSR_TSC_DEADLINE = 0x6e0,
  ALL_GROUPS = (1 << LUNA_GROUP_COUNT) - 1
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

/* MSRs apart from those that move with the groups; like struct kvm_msrs. */
typedef struct late_msrs {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entries[LATE_MOST];
} late_msrs;

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

static void put(writer *w, tag name, const void *contents, size_t length) {
  const section s = {.tag = name, .length = (uint32_t)length};
  put_bytes(w, &s, sizeof s);
  put_bytes(w, contents, length);
}

static int read_late(const luna_vcpu *vcpu, late_msrs *late) {
  *late = (late_msrs){.count = vcpu->vm->irqchip ? 2 : 1,
                      .entries = {{.index = MSR_TSC}, {.index = MSR_TSC_DEADLINE}}};
  int done = luna_kvm_get_msrs(vcpu->fd, late);
  if (done < 1) {
    return luna_fail_errno(done < 0 ? errno : EIO, "cannot read the time-stamp counter of vCPU %u",
                           vcpu->id);
  }
  late->count = (uint32_t)done; /* without the deadline where this vCPU has none */
  return LUNA_OK;
}

static int put_lapic(const luna_vcpu *vcpu, writer *w) {
  struct kvm_lapic_state lapic;
  uint32_t mp;
  if (!vcpu->vm->irqchip) {
    return LUNA_OK;
  }
  if (luna_kvm_get_mp_state(vcpu->fd, &mp) != 0 || luna_kvm_get_lapic(vcpu->fd, &lapic) != 0) {
    return luna_fail_errno(errno, "cannot read the LAPIC of vCPU %u", vcpu->id);
  }
  put(w, TAG_LAPIC, &lapic, sizeof lapic);
  put(w, TAG_MP, &mp, sizeof mp);
  return LUNA_OK;
}

static int put_registers(luna_vcpu *vcpu, writer *w) {
  struct kvm_regs regs;
  luna_state_want_all(vcpu);
  int status = luna_state_general(vcpu, &regs);
  const struct kvm_sregs *sregs = status == LUNA_OK ? luna_state_sregs(vcpu) : NULL;
  const struct kvm_vcpu_events *events = sregs ? luna_state_events(vcpu) : NULL;
  if (!events) {
    return luna_error_status();
  }
  put(w, TAG_REGS, &regs, sizeof regs);
  put(w, TAG_SREGS, sregs, sizeof *sregs);
  put(w, TAG_EVENTS, events, sizeof *events);
  return LUNA_OK;
}

static int put_groups(luna_vcpu *vcpu, writer *w) {
  late_msrs late;
  int status = luna_seat_fetch(vcpu->seat, ALL_GROUPS);
  status = status == LUNA_OK ? read_late(vcpu, &late) : status;
  if (status != LUNA_OK) {
    return status;
  }
  const luna_held *held = &vcpu->seat->held;
  put(w, TAG_XCRS, &held->xcrs, sizeof held->xcrs);
  put(w, TAG_XSAVE, held->xsave, luna_host_get()->xsave_size);
  put(w, TAG_DEBUG, &held->debugregs, sizeof held->debugregs);
  put(w, TAG_MSRS, held->msrs->entries, held->msrs->count * ENTRY_SIZE);
  put(w, TAG_LATE, late.entries, late.count * ENTRY_SIZE);
  return LUNA_OK;
}

static int fail_open(const luna_vcpu *vcpu) {
  return luna_fail(LUNA_ERROR_STATE,
                   "cannot save vCPU %u: its %s exit is open, in the middle of an instruction; "
                   "answer it first",
                   vcpu->id, luna_exit_name((int)vcpu->exit.kind));
}

int luna_vcpu_save(luna_vcpu *vcpu, void *state, size_t *size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = vcpu->pending.open ? LUNA_OK : luna_extended_settle(vcpu);
  if (status == LUNA_OK && vcpu->pending.open) {
    status = fail_open(vcpu);
  }
  writer w = {.to = state, .room = *size, .used = sizeof(header)};
  /* Asking for the MP state lets KVM take an INIT that has arrived. */
  status = status == LUNA_OK ? put_lapic(vcpu, &w) : status;
  status = status == LUNA_OK ? put_registers(vcpu, &w) : status;
  status = status == LUNA_OK ? put_groups(vcpu, &w) : status;
  if (status != LUNA_OK) {
    return status;
  }
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
  const uint8_t *contents[TAGS]; /* NULL where there is none */
  uint32_t lengths[TAGS];
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_vcpu_events events;
  luna_msrs msrs;
  late_msrs late;
  luna_held wanted; /* refers to msrs here, and to the state's bytes */
  /* What the vCPU had before. */
  struct kvm_lapic_state lapic;
  struct kvm_lapic_state old_lapic;
  uint32_t old_mp;
  luna_msrs old_msrs;
  luna_held old;
  uint8_t xsave[]; /* of `wanted` and `old` */
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

static int find_sections(parts *p, const uint8_t *state, size_t size) {
  for (size_t at = sizeof(header); at < size;) {
    section s;
    memcpy(&s, state + at, sizeof s); /* both are multiples of ALIGN */
    at += sizeof s;
    if (s.tag == 0 || s.tag >= TAGS || p->contents[s.tag]) {
      return FAIL("its section %u is unknown or there twice", s.tag);
    }
    if (padded(s.length) > size - at) {
      return FAIL("its section %u is cut off", s.tag);
    }
    p->contents[s.tag] = state + at;
    p->lengths[s.tag] = s.length;
    at += padded(s.length);
  }
  return LUNA_OK;
}

/* Sizes of the sections that have just one. 0: looked at elsewhere. */
static size_t size_of(tag name) {
  static const size_t sizes[TAGS] = {
      [TAG_REGS] = sizeof(struct kvm_regs),
      [TAG_SREGS] = sizeof(struct kvm_sregs),
      [TAG_EVENTS] = sizeof(struct kvm_vcpu_events),
      [TAG_XCRS] = sizeof(struct kvm_xcrs),
      [TAG_DEBUG] = sizeof(struct kvm_debugregs),
      [TAG_LAPIC] = sizeof(struct kvm_lapic_state),
      [TAG_MP] = sizeof(uint32_t),
  };
  return name == TAG_XSAVE ? luna_host_get()->xsave_size : sizes[name];
}

static int check_sections(const parts *p, const luna_vcpu *vcpu) {
  for (tag name = TAG_REGS; name < TAGS; name++) {
    bool lapic = name >= TAG_LAPIC;
    if (!p->contents[name] != (lapic && !vcpu->vm->irqchip)) {
      return FAIL("its section %u is %s: it is of a VM %s a LAPIC in KVM", name,
                  p->contents[name] ? "too much" : "missing",
                  p->contents[TAG_LAPIC] ? "with" : "without");
    }
    if (p->contents[name] && size_of(name) && p->lengths[name] != size_of(name)) {
      return FAIL("its section %u has %u bytes, %zu on this host", name, p->lengths[name],
                  size_of(name));
    }
  }
  if (p->lengths[TAG_MSRS] % ENTRY_SIZE || p->lengths[TAG_MSRS] > sizeof p->msrs.entries) {
    return FAIL("its list of MSRs has %u bytes", p->lengths[TAG_MSRS]);
  }
  if (p->lengths[TAG_LATE] % ENTRY_SIZE || p->lengths[TAG_LATE] > sizeof p->late.entries) {
    return FAIL("its list of counters has %u bytes", p->lengths[TAG_LATE]);
  }
  return LUNA_OK;
}

/* The MSRs of the state are a part of this vCPU's, in the same order. */
static int check_msrs(const luna_msrs *wanted, const luna_msrs *here) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < wanted->count; i++, at++) {
    while (at < here->count && here->entries[at].index != wanted->entries[i].index) {
      at++;
    }
    if (at == here->count) {
      return luna_fail(LUNA_ERROR_ARGUMENT,
                       "this state is of another kind of host or CPUID: MSR 0x%x is in it, which "
                       "this vCPU does not have",
                       wanted->entries[i].index);
    }
  }
  return LUNA_OK;
}

static void take_msrs(parts *p, tag name, struct kvm_msr_entry *entries, uint32_t *count) {
  memcpy(entries, p->contents[name], p->lengths[name]);
  *count = p->lengths[name] / ENTRY_SIZE;
}

static void take_contents(parts *p) {
  memcpy(&p->regs, p->contents[TAG_REGS], sizeof p->regs);
  memcpy(&p->sregs, p->contents[TAG_SREGS], sizeof p->sregs);
  memcpy(&p->events, p->contents[TAG_EVENTS], sizeof p->events);
  memcpy(&p->wanted.xcrs, p->contents[TAG_XCRS], sizeof p->wanted.xcrs);
  memcpy(&p->wanted.debugregs, p->contents[TAG_DEBUG], sizeof p->wanted.debugregs);
  memcpy(p->xsave, p->contents[TAG_XSAVE], p->lengths[TAG_XSAVE]);
  take_msrs(p, TAG_MSRS, p->msrs.entries, &p->msrs.count);
  take_msrs(p, TAG_LATE, p->late.entries, &p->late.count);
  p->wanted.msrs = &p->msrs;
  p->wanted.xsave = p->xsave;
}

static int parse(parts *p, const luna_vcpu *vcpu, const uint8_t *state, size_t size) {
  int status = check_header(state, size);
  status = status == LUNA_OK ? find_sections(p, state, size) : status;
  status = status == LUNA_OK ? check_sections(p, vcpu) : status;
  if (status == LUNA_OK) {
    take_contents(p);
  }
  return status;
}

/* ---- Restore: writing ---- */

/* Notes what the vCPU has, to put it back. */
static int keep_old(parts *p, luna_vcpu *vcpu) {
  const luna_held *held = &vcpu->seat->held;
  if (!luna_state_sregs(vcpu)) {
    return luna_error_status();
  }
  int status = luna_seat_fetch(vcpu->seat, ALL_GROUPS);
  status = status == LUNA_OK ? check_msrs(&p->msrs, held->msrs) : status;
  if (status != LUNA_OK) {
    return status;
  }
  if (vcpu->vm->irqchip && (luna_kvm_get_mp_state(vcpu->fd, &p->old_mp) != 0 ||
                            luna_kvm_get_lapic(vcpu->fd, &p->old_lapic) != 0)) {
    return luna_fail_errno(errno, "cannot read the LAPIC of vCPU %u", vcpu->id);
  }
  p->old = *held;
  p->old_msrs.count = held->msrs->count;
  memcpy(p->old_msrs.entries, held->msrs->entries, held->msrs->count * ENTRY_SIZE);
  p->old.msrs = &p->old_msrs;
  p->old.xsave = p->xsave + luna_host_get()->xsave_size;
  memcpy(p->old.xsave, held->xsave, luna_host_get()->xsave_size);
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
    const uint64_t bsp = vcpu->state.sregs.apic_base & BASE_BSP;
    p->sregs.apic_base = (p->sregs.apic_base & ~(uint64_t)BASE_BSP) | bsp;
    memcpy(&p->lapic, p->contents[TAG_LAPIC], sizeof p->lapic);
    memcpy(p->lapic.regs + APIC_ID, p->old_lapic.regs + APIC_ID, sizeof(uint32_t));
  }
}

/* System registers wait for the next entry, unless the LAPIC depends on them, or they look as if
 * KVM would refuse them then. */
static int try_sregs(parts *p, luna_vcpu *vcpu) {
  char rule[256];
  bool doubtful = luna_check_registers(vcpu, &p->regs, &p->sregs, rule, sizeof rule);
  if (!doubtful && !vcpu->vm->irqchip) {
    return LUNA_OK;
  }
  vcpu->state.sregs_written = true; /* the old ones are to be written again if this goes wrong */
  if (luna_kvm_set_sregs(vcpu->fd, &p->sregs) == 0) {
    return LUNA_OK;
  }
  return errno == EINVAL
             ? luna_fail(LUNA_ERROR_STATE,
                         "cannot restore vCPU %u: KVM refuses the system registers: %s", vcpu->id,
                         doubtful ? rule : "see SDM Vol. 3, 27.3.1")
             : luna_fail_errno(errno, "cannot restore the system registers of vCPU %u", vcpu->id);
}

static int write_lapic(const parts *p, const luna_vcpu *vcpu) {
  return !vcpu->vm->irqchip || luna_kvm_set_lapic(vcpu->fd, &p->lapic) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot restore the LAPIC of vCPU %u", vcpu->id);
}

static int write_mp(const parts *p, const luna_vcpu *vcpu) {
  uint32_t mp;
  if (!vcpu->vm->irqchip) {
    return LUNA_OK;
  }
  memcpy(&mp, p->contents[TAG_MP], sizeof mp);
  return luna_kvm_set_mp_state(vcpu->fd, mp) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot restore the MP state of vCPU %u", vcpu->id);
}

static int write_late(const parts *p, luna_vcpu *vcpu) {
  late_msrs late = p->late;
  luna_msr_part_counters(vcpu);
  int done = luna_kvm_set_msrs(vcpu->fd, &late);
  return done == (int)late.count
             ? LUNA_OK
             : luna_fail_errno(done < 0 ? errno : EINVAL,
                               "cannot restore the time-stamp counter of vCPU %u", vcpu->id);
}

static int write_all(parts *p, luna_vcpu *vcpu) {
  int status = write_mp(p, vcpu);
  status = status == LUNA_OK ? try_sregs(p, vcpu) : status;
  status = status == LUNA_OK ? luna_seat_write(vcpu->seat, &p->wanted, ALL_GROUPS) : status;
  status = status == LUNA_OK ? write_lapic(p, vcpu) : status;
  return status == LUNA_OK ? write_late(p, vcpu) : status;
}

/* The time-stamp counter is last: where it fails, it has not changed. */
static void put_back(const parts *p, luna_vcpu *vcpu) {
  luna_failure failure = luna_failure_take();
  if (vcpu->vm->irqchip) {
    luna_kvm_set_mp_state(vcpu->fd, p->old_mp);
    luna_kvm_set_sregs(vcpu->fd, &vcpu->state.sregs);
  }
  luna_seat_write(vcpu->seat, &p->old, ALL_GROUPS);
  if (vcpu->vm->irqchip) {
    luna_kvm_set_lapic(vcpu->fd, &p->old_lapic);
  }
  luna_failure_put(&failure);
}

/* What KVM has under way would spoil registers that are put back. */
static int drop_exit(luna_vcpu *vcpu) {
  vcpu->pending.open = false;
  luna_vcpu_abandon(vcpu);
  vcpu->pending.open = vcpu->pending.untold = false;
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
  luna_state_adopt(vcpu, &p->regs, &p->sregs, &p->events);
  return LUNA_OK;
}

int luna_vcpu_restore(luna_vcpu *vcpu, const void *state, size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  size_t xsave = luna_host_get()->xsave_size;
  parts *p = calloc(1, sizeof *p + 2 * xsave);
  if (!p) {
    return luna_fail_errno(ENOMEM, "cannot restore vCPU %u", vcpu->id);
  }
  int status = parse(p, vcpu, state, size);
  status = status == LUNA_OK ? restore(p, vcpu) : status;
  free(p);
  return status;
}
