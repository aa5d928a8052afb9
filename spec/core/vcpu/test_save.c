/* SPDX-License-Identifier: MIT
 * Saved states: what is in them, what is refused, and that a restore that fails at any call leaves
 * everything as it was. */
#include "fixture/save_fixture.h"

static void round_trip(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    for (int runs = 0; runs < 2; runs++) {
      test_note("variant %d, runs %d", variant, runs);
      begin_variant(variant);
      put_all(1000);
      save();
      put_all(2000);
      if (runs) {
        halt();
      }
      check_all(2000);
      CHECK_OK(restore());
      check_all(1000);
      if (runs) {
        halt();
        CHECK_EQ(fake_regs()->r15, 1000);
        CHECK_EQ(fake_sregs()->fs.base, 1001);
      }
      check_all(1000);
      end();
    }
  }
}

static void goes_with_a_move(void) {
  begin_variant(0);
  put_all(1000);
  save();
  CHECK_OK(move_to(1));
  put_all(2000);
  halt();
  CHECK_OK(restore());
  check_all(1000);
  CHECK_OK(move_to(0));
  check_all(1000);
  halt();
  check_all(1000);
  end();
}

/* What the guest has changed since its registers were last asked for is in the state. */
static void has_what_the_guest_did(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    run_changing(1 << PART_SREGS | 1 << PART_REGS, 3000);
    save();
    put_all(2000);
    CHECK_OK(restore());
    CHECK_EQ(get(LUNA_FS_BASE), 3000 + PART_SREGS);
    CHECK_EQ(get(LUNA_R15), 3000 + PART_REGS);
    end();
  }
}

/* One of a version that saved CS.L where the processor ignores it. */
static void code_segment_with_l(void) {
  begin_variant(0);
  save();
  struct kvm_sregs *sregs = (void *)(find_section(2) + 2);
  sregs->cs.l = 1;
  mend_checksum();
  CHECK_OK(restore());
  halt();
  end();
}

static void length_is_asked_for(void) {
  begin_variant(0);
  save();
  size_t size = 0;
  CHECK_OK(luna_vcpu_save(vcpu, NULL, &size));
  CHECK_EQ(size, state_size);
  size = state_size - 1;
  CHECK_FAILS(luna_vcpu_save(vcpu, state, &size), LUNA_ERROR_RANGE, "bytes, not");
  CHECK_EQ(size, state_size);
  end();
}

/* ---- Refused ---- */

/* States with a good checksum and bad sections. */
static void forged(void) {
  static const struct {
    uint32_t tag;
    int word; /* of the section that is overwritten: 0 tag, 1 length, from 2 on contents */
    uint32_t value;
    const char *part;
  } cases[] = {
      {1, 0, 99, "section 99 is unknown or there twice"},
      {2, 0, 1, "section 1 is unknown or there twice"},
      {8, 1, 100000, "section 8 is cut off"},
      {4, 1, 390, "section 4 has 390 bytes"},
      {7, 2, 0xdead, "MSR 0xdead is in it, which this vCPU does not have"},
      {7, 1, 60, "its list of MSRs has 60 bytes"},
      {8, 1, 9, "its list of counters has 9 bytes"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("case %zu", i);
    begin_variant(0);
    put_all(1000);
    save();
    put_all(2000);
    uint32_t *head = find_section(cases[i].tag);
    CHECK(head);
    head[cases[i].word] = cases[i].value;
    if (cases[i].value == 0xdead) {
      head[4] = 1; /* its value */
    }
    mend_checksum();
    CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, cases[i].part);
    check_all(2000);
    end();
  }
}

/* Another kernel lists MSRs in another order, and has some that are not here: those that hold what
 * they have after a reset are no loss. */
static void other_kernel(void) {
  static const struct {
    uint32_t index;
    uint64_t value;
  } lost[] = {{0xdead, 0},     {0xce, UINT64_C(1) << 31},
              {0x4b564d05, 1}, {0x10a, 0xd6b},
              {0x345, 0x33},   {0x48c, 1},
              {0x8b, 1}};
  for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
    test_note("case %zu", i);
    begin_variant(0);
    put_all(1000);
    save();
    put_all(2000);
    uint32_t *head = find_section(7);
    CHECK(head);
    struct kvm_msr_entry *entries = (struct kvm_msr_entry *)(void *)&head[2];
    size_t count = head[1] / sizeof *entries;
    size_t spare = 0; /* one that put_all leaves alone */
    while (spare < count && entries[spare].data != 0) {
      spare++;
    }
    CHECK(count > 1 && spare < count);
    entries[spare].index = lost[i].index;
    entries[spare].data = lost[i].value;
    struct kvm_msr_entry last = entries[count - 1];
    memmove(&entries[1], &entries[0], (count - 1) * sizeof *entries);
    entries[0] = last;
    mend_checksum();
    CHECK_OK(restore());
    check_all(1000);
    end();
  }
}

static void section_missing(void) {
  begin_variant(0);
  save();
  put_all(2000);
  state_size = (size_t)((uint8_t *)find_section(8) - state);
  mend_checksum();
  CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, "section 8 is missing");
  check_all(2000);
  end();
}

/* KVM refuses one group: those before it are put back. */
static void refused_by_kvm(void) {
  static const struct {
    uint32_t tag;
    size_t offset; /* in the contents */
  } cases[] = {{4, 16}, {6, 24}, {7, 8}, {5, 24}};
  const uint64_t refused = FAKE_REFUSED;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int runs = 0; runs < 2; runs++) {
      test_note("section %u, runs %d", cases[i].tag, runs);
      begin_variant(0);
      put_all(1000);
      save();
      put_all(2000);
      if (runs) {
        halt();
      }
      memcpy((uint8_t *)find_section(cases[i].tag) + 8 + cases[i].offset, &refused, sizeof refused);
      mend_checksum();
      CHECK(restore() < 0);
      check_all(2000);
      CHECK_EQ(look(vcpu->fd, PART_DEBUG), 0);
      halt();
      check_all(2000);
      end();
    }
  }
}

static void bad_system_registers(void) {
  begin_variant(0);
  uint64_t good = get(LUNA_CR0);
  set(LUNA_CR0, 0x80000010);
  save();
  set(LUNA_CR0, good);
  put_all(2000);
  CHECK_FAILS(restore(), LUNA_ERROR_STATE, "cr0 bit 31 (PG) is set while bit 0 (PE) is clear");
  check_all(2000);
  CHECK_EQ(get(LUNA_CR0), good);
  halt();
  check_all(2000);
  end();
}

/* Each call fails once. Then either everything is restored or nothing is. */
static void fails_at_every_call(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("variant %d, call %" PRIu64, variant, k);
      begin_variant(variant);
      put_all(1000);
      save();
      put_all(2000);
      halt();
      fake_fail(k, EIO);
      int status = restore();
      failed = fake_failed();
      fake_fail(0, 0);
      CHECK_EQ(status < 0, failed);
      check_all(failed ? 2000 : 1000);
      halt();
      check_all(failed ? 2000 : 1000);
      CHECK_OK(restore());
      check_all(1000);
      end();
    }
  }
}

static void save_fails_at_every_call(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_variant(1);
    put_all(1000);
    halt();
    fake_fail(k, EIO);
    state_size = sizeof state;
    int status = luna_vcpu_save(vcpu, state, &state_size);
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    save();
    put_all(2000);
    CHECK_OK(restore());
    check_all(1000);
    end();
  }
}

/* ---- Exits ---- */

static void open_exit(void) {
  begin_variant(0);
  save();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x5000);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  size_t size = ROOM;
  uint8_t *other = malloc(ROOM);
  int status = luna_vcpu_save(vcpu, other, &size);
  free(other);
  CHECK_EQ(status, LUNA_ERROR_STATE);
  CHECK_TEXT(luna_error_message(), "its pio exit is open");
  CHECK_OK(restore());
  CHECK_EQ(get(LUNA_RIP), 0xfff0);
  CHECK_FAILS(luna_vcpu_answer(vcpu, 1), LUNA_ERROR_STATE, "no open exit");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, 0xfff0);
  CHECK_EQ(fake_regs()->rax, 0);
  end();
}

static void answered_exit(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x77));
  save();
  CHECK_EQ(get(LUNA_RAX), 0x77);
  set(LUNA_RAX, 1);
  CHECK_OK(restore());
  CHECK_EQ(get(LUNA_RAX), 0x77);
  CHECK_EQ(get(LUNA_RIP), 0xfff2);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* A read-modify-write whose read was answered: the write is the vCPU's next exit, and the state is
 * that before the instruction. */
static void further_access(void) {
  static const struct kvm_regs behind = {.rip = 0x5003, .rflags = 2};
  begin_variant(0);
  SCRIPT({.kind = FAKE_MMIO, .address = 0x7000, .size = 4, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x7000, .size = 4, .write = true, .regs = &behind},
         {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x5000);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  save();
  CHECK_EQ(((struct kvm_regs *)(void *)(find_section(1) + 2))->rip, 0x5000);
  CHECK(same()); /* though the next exit is open now */
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(e->access, LUNA_WRITE);
  size_t size = 0;
  CHECK_FAILS(luna_vcpu_save(vcpu, NULL, &size), LUNA_ERROR_STATE, "its fault exit is open");
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  halt();
  CHECK_OK(restore());
  CHECK_EQ(get(LUNA_RIP), 0x5000);
  end();
}

static void costs(void) {
  begin_variant(0);
  put_all(1000);
  save();
  halt();
  save(); /* from now on the run page brings registers and events */
  halt();
  fake_forget();
  save();
  CHECK_EQ(fake_calls(KVM_GET_REGS) + fake_calls(KVM_GET_SREGS) + fake_calls(KVM_GET_VCPU_EVENTS),
           0);
  CHECK_EQ(fake_calls(0), 6);
  fake_forget();
  CHECK_OK(restore());
  CHECK_EQ(fake_calls(KVM_SET_XSAVE) + fake_calls(KVM_SET_XCRS) + fake_calls(KVM_SET_DEBUGREGS), 0);
  CHECK_EQ(fake_calls(KVM_SET_MSRS), 0);
  CHECK_EQ(fake_calls(KVM_SET_DEVICE_ATTR), 0); /* the counter is as it was */
  CHECK_OK(luna_vcpu_set_msr(vcpu, 0x10, 5));
  fake_forget();
  CHECK_OK(restore());
  CHECK_EQ(fake_calls(KVM_SET_DEVICE_ATTR), 1);
  end();
}

/* ---- Twice ---- */

/* The counters run on, and the state is that of one moment until somebody sets them. */
static void twice(void) {
  begin_variant(0);
  put_all(1000);
  halt();
  save();
  put_msr(vcpu->fd, 0x10, UINT64_C(1) << 50); /* time passes */
  CHECK(same());
  CHECK_OK(restore());
  CHECK(same());
  CHECK_OK(move_to(1));
  put_msr(vcpu->fd, 0x10, UINT64_C(1) << 51);
  CHECK(same());
  CHECK_OK(luna_vm_sync_tsc(vm, 1006));
  CHECK(same()); /* by chance; but it was looked at */
  CHECK_OK(luna_vm_sync_tsc(vm, 1007));
  CHECK(!same());
  CHECK_OK(restore());
  CHECK_OK(luna_vcpu_set_tsc_offset(vcpu, 9));
  CHECK(!same());
  CHECK_OK(restore());
  CHECK_OK(luna_vcpu_set_msr(vcpu, 0x10, 10));
  CHECK(!same());
  CHECK_OK(restore());
  halt();
  put_msr(vcpu->fd, 0x10, UINT64_C(1) << 52);
  CHECK(!same());
  end();
}

int main(void) {
  RUN(round_trip);
  RUN(goes_with_a_move);
  RUN(has_what_the_guest_did);
  RUN(code_segment_with_l);
  RUN(length_is_asked_for);
  RUN(forged);
  RUN(other_kernel);
  RUN(section_missing);
  RUN(refused_by_kvm);
  RUN(bad_system_registers);
  RUN(fails_at_every_call);
  RUN(save_fails_at_every_call);
  RUN(open_exit);
  RUN(answered_exit);
  RUN(further_access);
  RUN(costs);
  RUN(twice);
  return test_end();
}
