/* SPDX-License-Identifier: MIT
 * KVM as an oracle: random instructions in ring 3 of a guest on KVM and of one on the software CPU,
 * through the same library. What they leave in registers, flags, extended state, memory and page
 * tables is the same, and so is the exception that comes: its error code, frame and CR2.
 * LUNA_FUZZ_SECONDS is how long it goes on, LUNA_SEED where it begins, and LUNA_BATCH, which a
 * failure names too, the first batch that runs. */
#include "fixture/ring3_case.h"
#include "fixture/ring3_quirks.h"

enum {
  DIFFERENCES_MOST = 20
};

static ring3_guest guests[2]; /* KVM's, the software CPU's */
static ring3_case cases[RING3_BATCH];
static ring3_setting setting;
static bool nested;
static bool telling; /* differences are, not only seen */
static unsigned differences;
static uint64_t seed, batches;
static uint16_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];

/* ---- What differs ---- */

/* One line each; of an instruction the first alone. */
__attribute__((format(printf, 2, 3))) static void differ(const ring3_case *c, const char *format,
                                                         ...) {
  if (!telling) {
    return;
  }
  int mnemonic = c->known ? (int)c->made.all.mnemonic : 0;
  if (seen[mnemonic]++) {
    return;
  }
  differences++;
  printf("# %s (", c->known ? text_of(&c->made) : "no instruction");
  for (size_t i = 0; i < c->size; i++) {
    printf("%02x", c->made.bytes[i]);
  }
  printf(") at 0x%" PRIx64 ": ", c->at);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("; before: flags 0x%" PRIx64, c->in.flags);
  for (int i = 0; i < 16; i++) {
    printf(" %d:0x%" PRIx64, i, c->in.r[i]);
  }
  printf(" fs 0x%" PRIx64 " gs 0x%" PRIx64 " AM %d (seed 0x%" PRIx64 ", batch %" PRIu64 ")\n",
         setting.fs, setting.gs, setting.alignment, seed, batches);
}

static bool compare_exception(const ring3_case *c, const ring3_state *kvm,
                              const ring3_state *soft) {
  uint64_t mask = ring3_frame_flags(c);
  uint64_t address = kvm->vector == 14 ? ring3_address_bits(c) : 0;
  const struct {
    const char *name;
    uint64_t kvm, soft;
  } fields[] = {
      {"vector", kvm->vector, soft->vector},
      {"error code", kvm->error, soft->error},
      {"RIP", kvm->rip, soft->rip},
      {"CS", kvm->cs, soft->cs},
      {"flags", kvm->frame_flags & mask, soft->frame_flags & mask},
      {"RSP", kvm->rsp, soft->rsp},
      {"SS", kvm->ss, soft->ss},
      {"CR2", kvm->cr2 & address, soft->cr2 & address},
      {"DR6", kvm->vector == 1 ? kvm->dr6 : 0, kvm->vector == 1 ? soft->dr6 : 0},
  };
  for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (fields[i].kvm != fields[i].soft) {
      differ(c, "exception %" PRIu64 "'s %s is 0x%" PRIx64 ", not 0x%" PRIx64, kvm->vector,
             fields[i].name, fields[i].soft, fields[i].kvm);
      return false;
    }
  }
  return true;
}

/* Whether the processor has begun to use the x87 registers as MMX's, with TOP at 0, is not the same
 * where the instruction faults. */
static void forget_x87(uint8_t *xsave) {
  memset(xsave, 0, 24);
  memset(xsave + 32, 0, 128);
}

/* Of a gather of 128 bits that faults: whether the upper half of its destination is clear then. */
static void forget_upper(const ring3_case *c, uint8_t *xsave) {
  unsigned number = (unsigned)c->made.operands[0].reg.value - ZYDIS_REGISTER_XMM0;
  if (number < 16) {
    memset(xsave + 576 + 16 * number, 0, 16);
  }
}

static bool compare_extended(const ring3_case *c, unsigned number, bool raised) {
  uint8_t *kvm = guests[0].ram + ring3_case_at(number) + RING3_CASE_LEFT;
  uint8_t *soft = guests[1].ram + ring3_case_at(number) + RING3_CASE_LEFT;
  normalize(kvm);
  normalize(soft);
  if (raised && c->known && c->made.all.meta.isa_ext == ZYDIS_ISA_EXT_MMX) {
    forget_x87(kvm);
    forget_x87(soft);
  }
  if (raised && c->known && c->made.all.meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER) {
    forget_upper(c, kvm);
    forget_upper(c, soft);
  }
  for (int i = 0; i < EXTENDED; i++) {
    if (kvm[i] != soft[i]) {
      differ(c, "byte %d of the extended state is 0x%x, not 0x%x", i, soft[i], kvm[i]);
      return false;
    }
  }
  return true;
}

/* What a case left, on both. */
static bool compare_case(unsigned number) {
  const ring3_case *c = &cases[number];
  ring3_state kvm, soft;
  memcpy(&kvm, guests[0].ram + ring3_case_at(number) + RING3_CASE_OUT, sizeof kvm);
  memcpy(&soft, guests[1].ram + ring3_case_at(number) + RING3_CASE_OUT, sizeof soft);
  if (ring3_alignment_is_open(c) &&
      (kvm.site != soft.site || (kvm.vector == VECTOR_AC) != (soft.vector == VECTOR_AC))) {
    return true;
  }
  if (!soft.site && ring3_quirk(c, &setting, &kvm, &soft)) {
    return true;
  }
  if (!kvm.site && !soft.site &&
      (ring3_order_is_open(c) || ring3_page_is_open(c, &kvm, &soft) ||
       ring3_fetch_is_open(c, &kvm, &soft))) {
    return true;
  }
  if (kvm.site != soft.site) {
    static const char *const ways[] = {"raised exception", "went on", "branched"};
    differ(c,
           "it %s (%" PRIu64 ", error 0x%" PRIx64 ", RIP 0x%" PRIx64 "); on KVM it %s (%" PRIu64
           ", error 0x%" PRIx64 ", RIP 0x%" PRIx64 ")",
           ways[soft.site], soft.site ? 0 : soft.vector, soft.error, soft.rip, ways[kvm.site],
           kvm.site ? 0 : kvm.vector, kvm.error, kvm.rip);
    return false;
  }
  if (!kvm.site && !compare_exception(c, &kvm, &soft)) {
    return false;
  }
  for (int i = 0; i < 16; i++) {
    uint64_t same = !kvm.site && i == 4 ? 0 : ring3_register_bits(c, i, !kvm.site);
    if ((kvm.r[i] ^ soft.r[i]) & same) {
      differ(c, "register %d is 0x%" PRIx64 ", not 0x%" PRIx64, i, soft.r[i], kvm.r[i]);
      return false;
    }
  }
  uint64_t mask = ~(uint64_t)FLAGS | (c->known ? defined_flags(&c->made, c->in.r[1]) : FLAGS);
  if (kvm.site && (kvm.flags ^ soft.flags) & mask) {
    differ(c, "flags are 0x%" PRIx64 ", not 0x%" PRIx64, soft.flags, kvm.flags);
    return false;
  }
  return compare_extended(c, number, !kvm.site);
}

/* Whether a case may leave memory and pages otherwise than the other. */
static bool memory_is_open(unsigned number) {
  const ring3_case *c = &cases[number];
  ring3_state kvm;
  memcpy(&kvm, guests[0].ram + ring3_case_at(number) + RING3_CASE_OUT, sizeof kvm);
  bool parts = !kvm.site && (ring3_parts_are_open(c) || ring3_order_is_open(c));
  return parts || ring3_copies_are_open(c) || ring3_memory_quirk(c, &setting, &kvm);
}

/* Of all of a batch, where `c` is NULL, or of one; which marks in its page tables are the
 * processor's own. */
static bool compare_memory(const ring3_case *c, uint64_t open) {
  const uint8_t *kvm = guests[0].ram + RING3_DATA, *soft = guests[1].ram + RING3_DATA;
  for (unsigned i = 0; i < RING3_DATA_PAGES * 4096; i++) {
    if (kvm[i] != soft[i]) {
      if (c) {
        differ(c, "byte 0x%x of memory is 0x%x, not 0x%x", i, soft[i], kvm[i]);
      }
      return false;
    }
  }
  for (unsigned page = 0; page < RING3_DATA_PAGES; page++) {
    uint64_t at = ring3_data_entry_at(page);
    uint64_t left[2] = {ring3_get(guests[0].ram, at), ring3_get(guests[1].ram, at)};
    if ((left[0] ^ left[1]) & ~open) {
      if (c) {
        differ(c, "the entry of page %u is 0x%" PRIx64 ", not 0x%" PRIx64, page, left[1], left[0]);
      }
      return false;
    }
  }
  return true;
}

/* ---- Running ---- */

static void set_up(void) {
  for (int i = 0; i < 2; i++) {
    ring3_set(&guests[i], LUNA_FS_BASE, setting.fs);
    ring3_set(&guests[i], LUNA_GS_BASE, setting.gs);
    ring3_set(&guests[i], LUNA_CR0, 0x80010033 | (setting.alignment ? 0x40000u : 0));
  }
}

static void run_both(unsigned first, unsigned count) {
  for (int i = 0; i < 2; i++) {
    if (!ring3_run(&guests[i], first, count)) {
      const luna_exit *e = luna_vcpu_exit(guests[i].cpu);
      uint64_t rip, at = ring3_get(guests[i].ram, RING3_VARS);
      CHECK_OK(luna_vcpu_get(guests[i].cpu, LUNA_RIP, &rip));
      unsigned number = (unsigned)((at - RING3_CASES) / RING3_CASE_SIZE) % RING3_BATCH;
      test_fail(__FILE__, __LINE__,
                "the guest %s leaves with exit %u (reason %u, vector %u, error 0x%x, address "
                "0x%" PRIx64 ") at 0x%" PRIx64 " in case %u: %s",
                i ? "of the software CPU" : "on KVM", e->kind, e->reason, e->vector, e->error_code,
                e->address, rip, number,
                cases[number].known ? text_of(&cases[number].made) : "no instruction");
    }
  }
}

static uint64_t open_marks(unsigned number) {
  const ring3_case *c = &cases[number];
  bool raised = !ring3_get(guests[0].ram, ring3_case_at(number) + RING3_CASE_OUT + 0x88);
  bool open = (raised && ring3_marks_are_open(c)) || ring3_order_is_open(c) || ring3_masks(c) ||
              ring3_alignment_is_open(c);
  return open ? PTE_MARKS : ring3_writing_is_open(c) ? PTE_DIRTY : 0;
}

/* One after the other, so that what differs in memory has a cause. Behind one that may, both have
 * the same again. */
static void run_apart(const uint8_t *before, unsigned count) {
  for (int i = 0; i < 2; i++) {
    memcpy(guests[i].ram + RING3_CODE, before, RING3_SIZE - RING3_CODE);
  }
  set_up();
  telling = true;
  for (unsigned i = 0; i < count; i++) {
    run_both(i, 1);
    if (!compare_case(i)) {
      break;
    }
    if (!compare_memory(NULL, 0) && memory_is_open(i)) {
      memcpy(guests[1].ram + RING3_DATA, guests[0].ram + RING3_DATA, RING3_DATA_PAGES * 4096);
    } else if (!compare_memory(&cases[i], open_marks(i))) {
      break;
    }
  }
  telling = false;
}

static uint64_t segment_base(void) {
  static const uint64_t bases[] = {0, 0, 0x1000, 0x12345, 0xfffffffffffff000, 0x7fffffff0000};
  return bases[pick(sizeof bases / sizeof *bases)];
}

static unsigned make_batch(void) {
  unsigned count = pick(4) ? RING3_BATCH : 1 + (unsigned)pick(3);
  setting = (ring3_setting){.fs = segment_base(),
                            .gs = segment_base(),
                            .nested = nested,
                            .alignment = nested || pick(4) == 0};
  for (uint64_t at = RING3_DATA; at < RING3_DATA + RING3_DATA_PAGES * 4096; at += 8) {
    ring3_put(guests[0].ram, at, value());
  }
  for (unsigned i = 0; i < count; i++) {
    ring3_make(&guests[0], &cases[i], i, &setting);
    memset(guests[0].ram + ring3_case_at(i) + RING3_CASE_OUT, 0, 0x800);
  }
  return count;
}

static uint64_t first_batch(void) {
  const char *text = getenv("LUNA_BATCH");
  return text && *text ? strtoull(text, NULL, 0) : 0;
}

static void ring_3_comes_out_as_on_kvm(void) {
  static uint8_t before[RING3_SIZE - RING3_CODE];
  static uint8_t tried[ZYDIS_MNEMONIC_MAX_VALUE + 1];
  uint64_t until = UINT64_MAX, first = first_batch(), count = 0, exceptions[32] = {0};
  unsigned kinds = 0;
  fake_remove();
  if (luna_accelerator_probe(LUNA_ACCEL_KVM) != LUNA_OK) {
    test_skip(luna_error_message());
  }
  state = seed = test_seed();
  guests[0] = ring3_open(LUNA_ACCEL_KVM);
  guests[1] = ring3_open(LUNA_ACCEL_SOFT);
  nested = ring3_is_nested(&guests[0]);
  for (; luna_clock() < until && differences < DIFFERENCES_MOST; batches++) {
    test_note("seed 0x%" PRIx64 ", batch %" PRIu64, seed, batches);
    unsigned size = make_batch();
    if (batches < first) {
      continue;
    }
    until = batches == first ? luna_clock() + (uint64_t)(oracle_seconds(3) * 1e9) : until;
    memcpy(before, guests[0].ram + RING3_CODE, sizeof before);
    memcpy(guests[1].ram + RING3_CODE, before, sizeof before);
    set_up();
    run_both(0, size);
    bool same = true;
    for (unsigned i = 0; i < size; i++) {
      same = same && compare_case(i);
      uint64_t vector = ring3_get(guests[0].ram, ring3_case_at(i) + RING3_CASE_OUT + 0x100);
      bool raised = !ring3_get(guests[0].ram, ring3_case_at(i) + RING3_CASE_OUT + 0x88);
      exceptions[vector & 31] += raised;
      kinds += cases[i].known && tried[cases[i].made.all.mnemonic]++ == 0;
    }
    if (!same || !compare_memory(NULL, 0)) {
      run_apart(before, size);
    }
    count += size;
  }
  ring3_close(&guests[0]);
  ring3_close(&guests[1]);
  printf("# seed 0x%" PRIx64 ": %" PRIu64 " instructions in %" PRIu64 " batches, %u kinds\n#", seed,
         count, batches, kinds);
  for (int i = 0; i < 32; i++) {
    if (exceptions[i]) {
      printf(" %d:%" PRIu64, i, exceptions[i]);
    }
  }
  printf("\n");
  ring3_tell_quirks();
  CHECK_EQ(differences, 0);
#ifndef __SANITIZE_THREAD__
  CHECK(count > 1000 && kinds > 300 && exceptions[6] && exceptions[13] && exceptions[14]);
#endif
}

int main(void) {
  make_decoder();
  RUN(ring_3_comes_out_as_on_kvm);
  return test_end();
}
