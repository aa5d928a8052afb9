/* SPDX-License-Identifier: MIT
 * Registers: every one of them, when writes take effect and what they cost, with and without the
 * run page's registers, and around kicks and refusals. */
#include "fixture/vcpu_fixture.h"

#include "kvm/kvm.h"
#include "vcpu/vcpu.h"

/* ---- Registers
 * ---------------------------------------------------------------------------------- */

/* A value that differs from register to register and that KVM takes. */
static uint64_t sample(int reg) {
  switch (reg) {
    case LUNA_CR0:
    case LUNA_CR4:
    case LUNA_CR8:
    case LUNA_EFER:
      return 0;
    case LUNA_GDTR_LIMIT:
    case LUNA_IDTR_LIMIT:
      return 0x1200u + (unsigned)reg;
    case LUNA_CS_ACCESS:
      return 0x1d09b; /* L is clear */
    case LUNA_MXCSR:
      return 0x1f80;
    default:
      break;
  }
  bool wide = reg < LUNA_CS_SELECTOR || (reg >= LUNA_DR0 && reg <= LUNA_DR3) ||
              (reg < LUNA_DR0 && (reg - LUNA_CS_SELECTOR) % 4 == 1);
  return wide ? (uint64_t)reg << 33 | (uint64_t)reg : (uint64_t)reg + 1;
}

static void check_every_register(bool sync) {
  for (int reg = 0; reg < LUNA_REGISTER_COUNT; reg++) {
    test_note("sync %d, %s", sync, luna_register_name(reg));
    CHECK_EQ(get(reg), sample(reg));
  }
}

static void every_register(void) {
  for (int sync = 0; sync < 2; sync++) {
    if (sync) {
      begin();
    } else {
      begin_without_sync();
    }
    for (int reg = 0; reg < LUNA_REGISTER_COUNT; reg++) {
      set(reg, sample(reg));
    }
    check_every_register(sync);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_every_register(sync);
    CHECK_EQ(fake_regs()->r9, sample(LUNA_R9));
    CHECK_EQ(fake_regs()->rbx, sample(LUNA_RBX));
    CHECK_EQ(fake_regs()->rflags, sample(LUNA_RFLAGS));
    CHECK_EQ(fake_sregs()->cr3, sample(LUNA_CR3));
    CHECK_EQ(fake_sregs()->gdt.limit, sample(LUNA_GDTR_LIMIT));
    CHECK_EQ(fake_sregs()->ldt.selector, sample(LUNA_LDTR_SELECTOR));
    CHECK_EQ(fake_sregs()->gs.base, sample(LUNA_GS_BASE));
    CHECK_EQ(fake_sregs()->ss.limit, sample(LUNA_SS_LIMIT));
    CHECK_EQ(fake_sregs()->cs.unusable, 1);
    CHECK_EQ(fake_sregs()->cs.type, 11);
    CHECK_EQ(fake_sregs()->cs.avl, 1);
    end();
  }
}

static void register_errors(void) {
  begin();
  uint64_t value;
  CHECK_FAILS(luna_vcpu_get(vcpu, -1, &value), LUNA_ERROR_ARGUMENT, "there is no register -1");
  CHECK_FAILS(luna_vcpu_get(vcpu, LUNA_REGISTER_COUNT, &value), LUNA_ERROR_ARGUMENT, "no register");
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_REGISTER_COUNT, 0), LUNA_ERROR_ARGUMENT, "no register");
  static const struct {
    int reg;
    uint64_t widest;
  } narrow[] = {{LUNA_CR8, 15},
                {LUNA_GDTR_LIMIT, 0xffff},
                {LUNA_IDTR_LIMIT, 0xffff},
                {LUNA_SS_SELECTOR, 0xffff},
                {LUNA_TR_LIMIT, 0xffffffff},
                {LUNA_LDTR_ACCESS, 0x1ffff}};
  for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
    set(narrow[i].reg, narrow[i].widest & ~UINT64_C(0xf00));
    CHECK_FAILS(luna_vcpu_set(vcpu, narrow[i].reg, narrow[i].widest + 1), LUNA_ERROR_RANGE,
                "it holds at most 0x");
    CHECK_EQ(get(narrow[i].reg), narrow[i].widest & ~UINT64_C(0xf00));
  }
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_CR8, 16), LUNA_ERROR_RANGE,
              "cannot set cr8 to 0x10: it holds at most 0xf");
  end();
}

/* KVM without an interrupt controller takes CR8 from its own field of the run page. */
static void cr8(void) {
  begin();
  set(LUNA_CR8, 5);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_CR8), 5);
  CHECK_EQ(fake_sregs()->cr8, 5);
  end();
}

static void write_during_read(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x100);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x1111));
  set(LUNA_RAX, 0x2222); /* counts as made after the IN */
  set(LUNA_RBX, 0x3333);
  CHECK_EQ(get(LUNA_RAX), 0x2222);
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 3);
  CHECK_EQ(fake_calls(0), 3);
  check_answer("\x11\x11\0\0", 4);
  CHECK_EQ(fake_regs()->rax, 0x2222);
  CHECK_EQ(fake_regs()->rbx, 0x3333);
  CHECK_EQ(fake_regs()->rip, 0x102);
  end();
}

static void write_at_out(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x80, .size = 1, .write = true}, {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x100);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  set(LUNA_RAX, 0x2222);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  CHECK_EQ(fake_calls(0), 2);
  CHECK_EQ(fake_regs()->rax, 0x2222);
  CHECK_EQ(fake_regs()->rip, 0x102);
  end();
}

/* RIP and system registers at any access: KVM finishes the instruction first. */
static void rip_write_completes_first(void) {
  static const fake_step accesses[][2] = {
      {{.kind = FAKE_PIO, .size = 1, .write = true}, {.kind = FAKE_HLT}},
      {{.kind = FAKE_PIO, .size = 4}, {.kind = FAKE_HLT}},
      {{.kind = FAKE_MMIO, .size = 4, .write = true}, {.kind = FAKE_HLT}},
      {{.kind = FAKE_MMIO, .size = 4}, {.kind = FAKE_HLT}},
  };
  for (int i = 0; i < 8; i++) {
    test_note("access %d, %s", i / 2, i % 2 ? "cr3" : "rip");
    begin();
    fake_script(accesses[i / 2], 2);
    set(LUNA_RIP, 0x100);
    CHECK(run() > 0);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    set(i % 2 ? LUNA_CR3 : LUNA_RIP, 0x9000);
    fake_forget();
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(entries(), 2);
    CHECK_EQ(fake_regs()->rip, i % 2 ? 0x102 : 0x9000);
    CHECK_EQ(fake_sregs()->cr3, i % 2 ? 0x9000 : 0);
    end();
  }
}

/* Finishing the instruction can give a further exit of it: it is the script's like any other. */
static void settling_meets_an_exit(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x1ffc, .size = 4, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x2000, .size = 4}, {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x100);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  set(LUNA_RIP, 0x9000);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0x2000, 4, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 2));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, 0x9000);
  CHECK_EQ(entries(), 4);
  end();
}

/* The same where the further part is in memory: nobody hears of it. */
static void settling_meets_memory(void) {
  begin();
  uint8_t *data;
  map_memory(0x2000, PAGE, RWX, &data);
  data[0] = 7;
  SCRIPT({.kind = FAKE_MMIO, .address = 0x1ffc, .size = 4, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x2000, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  set(LUNA_RBX, 5);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_answer("\7\0\0\0", 4);
  CHECK_EQ(fake_regs()->rbx, 5);
  CHECK_EQ(fake_regs()->rax, 7);
  CHECK_EQ(luna_vcpu_exits(vcpu), 2);
  end();
}

static void settling_fails(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  set(LUNA_RAX, 5);
  fake_fail(1, EIO);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM, "cannot finish the instruction of vCPU 0");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rax, 5); /* still counts as made after the IN */
  end();
}

static void without_sync_regs(void) {
  begin_without_sync();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
  set(LUNA_RBX, 0x77);
  set(LUNA_CR3, 0x5000);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(fake_run_page()->kvm_valid_regs | fake_run_page()->kvm_dirty_regs, 0);
  CHECK_EQ(fake_calls(KVM_SET_REGS), 1);
  CHECK_EQ(fake_calls(KVM_SET_SREGS), 1);
  CHECK_EQ(get(LUNA_RBX), 0x77);
  CHECK_EQ(get(LUNA_RCX), 0);
  CHECK_EQ(fake_calls(KVM_GET_REGS), 1); /* once an exit */
  CHECK_EQ(get(LUNA_CR3), 0x5000);
  CHECK_EQ(get(LUNA_CR0), 0x60000010);
  CHECK_EQ(fake_calls(KVM_GET_SREGS), 1);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x1234));
  set(LUNA_RBX, 0x78);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 3);
  CHECK_EQ(get(LUNA_RAX), 0x1234);
  CHECK_EQ(get(LUNA_RBX), 0x78);
  CHECK_EQ(fake_regs()->rbx, 0x78);
  set(LUNA_RBX, 0x79);
  fake_fail(1, EIO);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM, "cannot write the registers of vCPU 0");
  CHECK_EQ(get(LUNA_RBX), 0x79);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rbx, 0x79);
  end();
}

static void only_general_registers_synced(void) {
  fake_config config = fake_defaults();
  config.sync_regs = KVM_SYNC_X86_REGS;
  begin_with(&config);
  set(LUNA_CR3, 0x5000);
  set(LUNA_RBX, 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_calls(KVM_SET_SREGS), 1);
  CHECK_EQ(fake_calls(KVM_SET_REGS), 0);
  CHECK_EQ(get(LUNA_CR3), 0x5000);
  CHECK_EQ(get(LUNA_CR3), 0x5000);
  CHECK_EQ(fake_calls(KVM_GET_SREGS), 1);
  end();
}

/* A vCPU that is asked for system registers gets them with each exit, and no other does. */
static void system_registers_on_demand(void) {
  begin();
  static const struct kvm_sregs changed = {.cr3 = 0x7000};
  static const fake_step steps[] = {
      {.kind = FAKE_HLT}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT, .sregs = &changed}};
  fake_script(steps, 3);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_run_page()->kvm_valid_regs, 0);
  CHECK_EQ(get(LUNA_CR3), 0);
  CHECK_EQ(get(LUNA_CR0), 0x60000010);
  CHECK_EQ(fake_calls(KVM_GET_SREGS), 1);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(get(LUNA_CR3), i ? 0x7000 : 0);
  }
  CHECK_EQ(fake_calls(KVM_GET_SREGS), 1);
  CHECK_EQ(fake_calls(KVM_GET_REGS), 0);
  end();
}

/* A kick before the entry: nothing was written to the run page, and nothing has changed. */
static void registers_after_kick_before_entry(void) {
  begin();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_CR0), 0x60000010); /* from now on the run page brings them */
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(entries(), 1);
  CHECK_EQ(get(LUNA_CR0), 0x60000010);
  set(LUNA_CR3, 0x3000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_sregs()->cr0, 0x60000010);
  CHECK_EQ(fake_sregs()->cr3, 0x3000);
  end();
}

/* Writes that were handed over when the kick came are neither lost nor hidden. */
static void writes_survive_kick_before_entry(void) {
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    set(LUNA_RBX, 0x55);
    set(LUNA_CR3, 0x4000);
    luna_vcpu_interrupt(vcpu);
    CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
    CHECK_EQ(get(LUNA_RBX), 0x55);
    CHECK_EQ(get(LUNA_CR3), 0x4000);
    set(LUNA_RCX, 0x66);
    set(LUNA_CR2, 0x77);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_regs()->rbx, 0x55);
    CHECK_EQ(fake_regs()->rcx, 0x66);
    CHECK_EQ(fake_sregs()->cr3, 0x4000);
    CHECK_EQ(fake_sregs()->cr2, 0x77);
    end();
  }
}

/* At another address, the instruction behind STI or a load of SS is not what comes next. */
static void rip_write_ends_the_shadow(void) {
  struct kvm_vcpu_events events = {.interrupt.shadow = KVM_X86_SHADOW_INT_STI,
                                   .flags = KVM_VCPUEVENT_VALID_SHADOW};
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    SCRIPT({.kind = FAKE_SHUTDOWN}, {.kind = FAKE_SHUTDOWN}, {.kind = FAKE_SHUTDOWN});
    CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
    for (int round = 0; round < 2; round++) { /* the events by a call, and by the run page */
      uint32_t blocking;
      CHECK_EQ(luna_kvm_set_events(vcpu->fd, &events), 0);
      fake_run_page()->s.regs.events = events;
      set(LUNA_RIP, get(LUNA_RIP));
      CHECK_OK(luna_vcpu_get_blocking(vcpu, &blocking));
      CHECK_EQ(blocking, 1);
      set(LUNA_RIP, get(LUNA_RIP) + 1);
      CHECK_OK(luna_vcpu_get_blocking(vcpu, &blocking));
      CHECK_EQ(blocking, 0);
      CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
      CHECK_EQ(luna_kvm_get_events(vcpu->fd, &events), 0);
      CHECK_EQ(events.interrupt.shadow, 0);
      events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
    }
    CHECK_OK(luna_vcpu_set_blocking(vcpu, 1)); /* a shadow of the script's own stays */
    set(LUNA_RIP, get(LUNA_RIP) + 1);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(luna_kvm_get_events(vcpu->fd, &events), 0);
    CHECK_EQ(events.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
    end();
  }
}

/* Outside of long mode a guest loads CS from a descriptor with L, which KVM reports and does not
 * take back. */
static void code_segment_with_l(void) {
  static struct kvm_sregs sregs;
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    sregs = *fake_sregs();
    sregs.cs.l = 1;
    SCRIPT({.kind = FAKE_HLT, .sregs = &sregs}, {.kind = FAKE_HLT, .sregs = &sregs});
    for (int i = 0; i < 2; i++) { /* read by a call, and brought by the run page */
      CHECK_EQ(run(), LUNA_EXIT_HLT);
      CHECK_EQ(get(LUNA_CS_ACCESS) >> 13 & 1, 0);
    }
    set(LUNA_CR3, 0x3000);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_sregs()->cr3, 0x3000);
    set(LUNA_CS_ACCESS, 0xa09b); /* a script's own mistake stays one */
    CHECK_FAILS(run(), LUNA_ERROR_SYSTEM, "cs.access bit 13 (L) is set outside of long mode");
    end();
  }
}

int main(void) {
  RUN(every_register);
  RUN(register_errors);
  RUN(cr8);
  RUN(write_during_read);
  RUN(write_at_out);
  RUN(rip_write_completes_first);
  RUN(settling_meets_an_exit);
  RUN(settling_meets_memory);
  RUN(settling_fails);
  RUN(without_sync_regs);
  RUN(only_general_registers_synced);
  RUN(system_registers_on_demand);
  RUN(registers_after_kick_before_entry);
  RUN(writes_survive_kick_before_entry);
  RUN(rip_write_ends_the_shadow);
  RUN(code_segment_with_l);
  return test_end();
}
