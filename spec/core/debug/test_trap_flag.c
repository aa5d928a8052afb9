/* SPDX-License-Identifier: MIT
 * A guest that steps itself by RFLAGS.TF, under breakpoints and steps of the library's: its flag,
 * its #DBs and the flags that it saves are those that it would have alone. */
#include "fixture/debug_fixture.h"

#include "vcpu/vcpu.h"

enum {
  STACK = 0x8000,
  HANDLER = 0x3000,
  TF = 0x100,
  POPF = 0x9d,
  PUSHF = 0x9c,
  IRET = 0xcf
};

static void begin_traps(bool sync, uint64_t rflags) {
  fake_config config = fake_defaults();
  config.sync_regs = sync ? config.sync_regs : 0;
  begin_debug(&config);
  set(LUNA_RIP, CODE);
  set(LUNA_RFLAGS, rflags);
}

static bool flag(void) {
  return get(LUNA_RFLAGS) & TF;
}

/* The #DB of a single step is on its way. */
static bool traps(void) {
  const struct kvm_vcpu_events *events = &vcpu->state.events;
  bool given = vcpu->state.events_known && events->exception.injected && events->exception.nr == 1;
  CHECK(!given || get(LUNA_DR6) == (0xffff0ff0 | BS));
  return given;
}

static void under_a_step(void) {
  for (int sync = 0; sync < 2; sync++) {
    test_note("sync %d", sync);
    begin_traps(sync, TF | 2);
    SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_HLT});
    CHECK_EQ(step(), LUNA_EXIT_DEBUG);
    CHECK(flag());
    CHECK(traps());
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_regs()->rflags, TF | 2);
    end();
  }
}

static void without_one(void) {
  begin_traps(true, 2);
  SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_HLT});
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  CHECK(!flag());
  CHECK(!traps());
  end();
}

static void over_a_breakpoint(void) {
  for (int sync = 0; sync < 2; sync++) {
    for (int kind = LUNA_BREAK_EXECUTE; kind <= LUNA_BREAK_SOFTWARE; kind += 3) {
      test_note("sync %d, kind %d", sync, kind);
      begin_traps(sync, TF | 2);
      set_break(kind, NEXT);
      SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_CODE, .address = NEXT},
             {.kind = FAKE_CODE, .address = LATER}, {.kind = FAKE_SHUTDOWN});
      CHECK_EQ(run(), LUNA_EXIT_DEBUG);
      check_debug(number, NEXT);
      CHECK(flag());
      CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
      CHECK_EQ(fake_regs()->rflags, TF | 2);
      CHECK(flag());
      CHECK_EQ(fake_run_page()->exit_reason, KVM_EXIT_SHUTDOWN);
      CHECK(get(LUNA_DR6) == (0xffff0ff0 | BS));
      end();
    }
  }
}

/* An access ends the step before the instruction is done. */
static void over_another_exit(void) {
  begin_traps(true, TF | 2);
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 1, .write = true}, {.kind = FAKE_HLT});
  CHECK_EQ(step(), LUNA_EXIT_PIO);
  CHECK(flag());
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  CHECK(flag());
  CHECK(traps());
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rflags, TF | 2);
  end();
}

/* What an instruction loads into the flags is seen on the stack. */
static void loaded_flags(void) {
  static const struct {
    uint8_t code[3];
    uint64_t image; /* where the flags are, from SP on */
  } cases[] = {{{POPF}, 0}, {{0x66, POPF}, 0}, {{IRET}, 4}, {{0x2e, 0x66, IRET}, 8}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int before = 0; before < 2; before++) {
      for (int after = 0; after < 2; after++) {
        test_note("case %zu, TF %d, then %d", i, before, after);
        begin_traps(true, before ? TF | 2 : 2);
        memcpy(memory + CODE, cases[i].code, sizeof cases[i].code);
        memory[STACK + cases[i].image + 1] = after ? TF >> 8 : 0;
        SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_HLT});
        CHECK_EQ(step(), LUNA_EXIT_DEBUG);
        CHECK_EQ(flag(), after);
        CHECK_EQ(traps(), before);
        CHECK_EQ(run(), LUNA_EXIT_HLT);
        CHECK_EQ(fake_regs()->rflags & TF, after ? TF : 0);
        end();
      }
    }
  }
}

/* PUSHF saves the flag as KVM has set it for the step. */
static void saved_flags(void) {
  static const struct kvm_regs pushed = {.rsp = STACK - 2, .rflags = TF | 2};
  for (int own = 0; own < 2; own++) {
    test_note("TF %d", own);
    begin_traps(true, own ? TF | 2 : 2);
    memory[CODE] = PUSHF;
    memory[STACK - 2] = 2;
    memory[STACK - 1] = own ? 0x30 : 0x31;
    SCRIPT({.kind = FAKE_CODE, .address = CODE, .regs = &pushed});
    CHECK_EQ(step(), LUNA_EXIT_DEBUG);
    CHECK_EQ(memory[STACK - 1], own ? 0x31 : 0x30);
    CHECK_EQ(memory[STACK - 2], 2);
    CHECK_EQ(traps(), own);
    end();
  }
}

/* An exception that is taken before the instruction: its handler begins without the flag, and finds
 * it as it was. */
static void handler(void) {
  static const struct kvm_regs inside = {.rsp = STACK - 8, .rflags = 2};
  for (int own = 0; own < 2; own++) {
    test_note("TF %d", own);
    begin_traps(true, own ? TF | 2 : 2);
    CHECK_OK(luna_vcpu_inject(vcpu, 6, 0, 0));
    static const uint8_t frame[] = {CODE & 0xff, CODE >> 8, 0, 0, 2, TF >> 8};
    memcpy(memory + STACK - sizeof frame, frame, sizeof frame); /* the handler has pushed a word */
    SCRIPT({.kind = FAKE_CODE, .address = HANDLER, .regs = &inside});
    CHECK_EQ(step(), LUNA_EXIT_DEBUG);
    CHECK_EQ(memory[STACK - 1], own ? TF >> 8 : 0);
    CHECK(!flag());
    CHECK(!traps());
    end();
  }
}

/* A watchpoint of the library's and the guest's trap at one instruction. */
static void with_a_watchpoint(void) {
  begin_traps(true, TF | 2);
  set_break(LUNA_BREAK_WRITE, DATA);
  SCRIPT({.kind = FAKE_CODE, .address = CODE, .value = DATA});
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(number, NEXT);
  CHECK(flag());
  CHECK(traps());
  end();
}

int main(void) {
  RUN(under_a_step);
  RUN(without_one);
  RUN(over_a_breakpoint);
  RUN(over_another_exit);
  RUN(loaded_flags);
  RUN(saved_flags);
  RUN(handler);
  RUN(with_a_watchpoint);
  return test_end();
}
