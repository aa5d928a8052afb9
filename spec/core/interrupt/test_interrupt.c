/* SPDX-License-Identifier: MIT
 * Interrupts and their controllers over the fake: what reaches KVM and when, what a host without
 * them says, and what is left when any call fails. */
#include "fixture/vcpu_fixture.h"

#include <pthread.h>

static const struct kvm_regs open_regs = {.rflags = 0x202, .rip = 0x1000};
static const struct kvm_regs closed_regs = {.rflags = 2, .rip = 0x1000};

static void check_taken(const char *expected) {
  const uint8_t *vectors;
  size_t count = fake_taken(&vectors);
  CHECK_EQ(count, strlen(expected));
  CHECK(memcmp(vectors, expected, count) == 0);
}

static void begin_with_chip(uint32_t irqchip) {
  const luna_vm_options options = {.irqchip = irqchip};
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  e = luna_vcpu_exit(vcpu);
}

/* ---- Vectors ---- */

static void window(void) {
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 1, .write = true, .regs = &closed_regs},
           {.kind = FAKE_PIO, .address = 2, .size = 1, .write = true, .regs = &open_regs},
           {.kind = FAKE_HLT}, {.kind = FAKE_HLT, .regs = &closed_regs});
    CHECK_EQ(luna_vcpu_interrupt_vector(vcpu, 0x31), 1);
    CHECK_EQ(luna_vcpu_interrupt_vector(vcpu, 0x31), 0);
    CHECK_EQ(luna_vcpu_interrupt_vector(vcpu, 0xf2), 1);
    CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0xf2);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    check_taken("");
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(e->address, 2);
    check_taken("");
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_taken("\xf2\x31");
    CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), -1);
    CHECK_EQ(fake_run_page()->request_interrupt_window, 0);
    end();
  }
}

/* HLT is no exit while something waits that ends it. */
static void halt(void) {
  begin();
  static const fake_step steps[] = {{.kind = FAKE_HLT, .regs = &closed_regs},
                                    {.kind = FAKE_HLT, .regs = &open_regs},
                                    {.kind = FAKE_HLT}};
  fake_script(steps, 3);
  luna_vcpu_interrupt_vector(vcpu, 0x40);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_taken("");
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* the second one was not, the third is */
  check_taken("\x40");
  CHECK_OK(luna_vcpu_nmi(vcpu));
  CHECK_OK(luna_vcpu_nmi(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_taken("\x40\x02");
  end();
}

/* A kick between the injection and the entry loses nothing. */
static void kicked(void) {
  begin();
  SCRIPT({.kind = FAKE_HLT, .regs = &open_regs});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  luna_vcpu_interrupt_vector(vcpu, 0x50);
  luna_vcpu_interrupt_vector(vcpu, 0x51);
  for (int i = 0; i < 3; i++) {
    luna_vcpu_interrupt(vcpu);
    CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  }
  set(LUNA_CR2, 5);
  CHECK_OK(luna_vcpu_nmi(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_taken("\x02\x51\x50");
  end();
}

enum {
  VALID = (int)0x80000000, /* interruption information: a vector and a type */
  NMI = 2 << 8 | 2,
  EXCEPTION = 3 << 8
};

static void taken_back(void) {
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    SCRIPT({.kind = FAKE_HLT, .regs = &open_regs});
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    for (int given = 0; given < 2; given++) { /* waiting, and with KVM but not entered */
      luna_vcpu_interrupt_vector(vcpu, 0x50);
      luna_vcpu_interrupt_vector(vcpu, 0x51);
      CHECK_OK(luna_vcpu_nmi(vcpu));
      CHECK_OK(luna_vcpu_inject(vcpu, 6, 0, 0));
      if (given) {
        luna_vcpu_interrupt(vcpu);
        CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
      }
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | 0x52), 0);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | EXCEPTION | 7), 0);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | 0x51), 1);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | 0x51), 0);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | NMI), 1);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | NMI), 0);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | EXCEPTION | 6), 1);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | EXCEPTION | 6), 0);
      CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0x50);
      CHECK_EQ(luna_vcpu_withdraw(vcpu, (uint32_t)VALID | 0x50), 1);
      CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), -1);
    }
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_taken("");
    end();
  }
}

/* What KVM does not take now waits on. */
static void failing(void) {
  begin_without_sync();
  SCRIPT({.kind = FAKE_HLT, .regs = &open_regs});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  luna_vcpu_interrupt_vector(vcpu, 0x50);
  CHECK_OK(luna_vcpu_nmi(vcpu));
  for (uint64_t nth = 1; nth <= 2; nth++) { /* reading the events, writing them */
    fake_fail(nth, ENOMEM);
    CHECK_FAILS(run(), LUNA_ERROR_MEMORY, "the events of vCPU 0");
  }
  CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0x50);
  check_taken("");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_taken("\x02\x50");
  end();
}

/* And ends the run when they have been taken, or never will be. */
static void *send_all(void *unused) {
  (void)unused;
  for (uint32_t vector = 32; vector < 64; vector++) {
    luna_vcpu_interrupt_vector(vcpu, vector);
  }
  const uint8_t *vectors;
  uint64_t patience = luna_clock() + 20000 * (uint64_t)MILLISECOND;
  while (fake_taken(&vectors) < 32 && luna_clock() < patience) {
    sched_yield();
  }
  luna_vcpu_interrupt(vcpu);
  return NULL;
}

static pthread_t sender;

static void start_sender(void *unused) {
  pthread_create(&sender, NULL, send_all, unused);
}

/* From another thread, while the guest loops: it comes out, takes them, and loops again. */
static void from_a_thread(void) {
  begin();
  static const fake_step steps[] = {
      {.kind = FAKE_SPIN, .regs = &open_regs, .hook = start_sender, .limit = 0}};
  fake_script(steps, 1);
  const uint8_t *vectors;
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  pthread_join(sender, NULL);
  CHECK_EQ(fake_taken(&vectors), 32);
  CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), -1);
  end();
}

static void refused_vectors(void) {
  begin();
  CHECK_FAILS(luna_vcpu_interrupt_vector(vcpu, 256), LUNA_ERROR_RANGE, "with vector 256");
  CHECK_FAILS(luna_vcpu_smi(vcpu), LUNA_ERROR_UNSUPPORTED, "KVM_CAP_X86_SMM");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_taken("");
  end();
  fake_config config = fake_defaults();
  config.smm = true;
  begin_with(&config);
  CHECK_OK(luna_vcpu_smi(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  struct kvm_vcpu_events events = fake_run_page()->s.regs.events;
  CHECK_EQ(events.smi.pending, 1);
  CHECK(events.flags & KVM_VCPUEVENT_VALID_SMM);
  end();
}

/* ---- Controllers ---- */

static void without_controllers(void) {
  fake_config config = fake_defaults();
  config.controllers = false;
  fake_install(&config);
  luna_vm_options options = {.irqchip = LUNA_IRQCHIP_SPLIT};
  CHECK_FAILS(luna_vm_open(&options, &vm), LUNA_ERROR_UNSUPPORTED, "KVM_CAP_SPLIT_IRQCHIP");
  options.irqchip = LUNA_IRQCHIP_KERNEL;
  CHECK_FAILS(luna_vm_open(&options, &vm), LUNA_ERROR_UNSUPPORTED, "KVM_CREATE_IRQCHIP");
  options.irqchip = 3;
  CHECK_FAILS(luna_vm_open(&options, &vm), LUNA_ERROR_ARGUMENT, "irqchip 3");
  config.controllers = true;
  config.pit = false;
  config.bus_cycles = false;
  fake_install(&config);
  options = (luna_vm_options){.irqchip = LUNA_IRQCHIP_KERNEL, .pit = 1};
  CHECK_FAILS(luna_vm_open(&options, &vm), LUNA_ERROR_UNSUPPORTED, "a PIT (KVM_CREATE_PIT2)");
  options.pit = 0;
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_FAILS(luna_vm_set_apic_frequency(vm, 0), LUNA_ERROR_RANGE, "at 0 Hz");
  CHECK_FAILS(luna_vm_set_apic_frequency(vm, 25000000), LUNA_ERROR_UNSUPPORTED,
              "KVM_CAP_X86_APIC_BUS_CYCLES_NS");
  luna_vm_release(vm);
}

/* Whichever call fails, a VM with a vCPU in two spaces is made whole or not at all. */
static void making_fails(void) {
  static const luna_route route = {.line = 3, .is_message = 1, .address = 0xfee00000, .data = 50};
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_SPLIT};
  uint64_t live = test_live();
  unsigned refused = 0;
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    fake_install(NULL);
    CHECK_OK(luna_probe());
    fake_fail(nth, ENOMEM);
    uint32_t space;
    vcpu = NULL;
    int status = luna_vm_open(&options, &vm);
    if (status == LUNA_OK) {
      status = luna_vm_set_apic_frequency(vm, 25000000);
      status = status == LUNA_OK ? luna_vm_route(vm, &route, 1) : status;
      status = status == LUNA_OK ? luna_vm_space_create(vm, &space) : status;
      status = status == LUNA_OK ? luna_vcpu_create(vm, NULL, &vcpu) : status;
      status = status == LUNA_OK ? luna_vcpu_set_space(vcpu, space, 0) : status;
      if (vcpu) {
        luna_vcpu_release(vcpu);
      }
      luna_vm_release(vm);
    }
    refused += status < 0;
    CHECK_EQ(test_live(), live);
    CHECK_EQ(fake_open(), 0);
    CHECK_EQ(fake_mistakes(), 0);
    if (!fake_failed()) {
      CHECK_EQ(status, LUNA_OK);
      break;
    }
  }
  CHECK(refused >= 20);
}

/* KVM makes its own controllers when they are needed: the memory that a vCPU begins with is there
 * by then, and what fails on the way leaves nothing. */
static void after_the_memory(void) {
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_KERNEL, .pit = 1};
  const luna_vcpu_options mode = {.mode = LUNA_MODE_PROT32, .system = LUNA_SYSTEM_ALLOCATE};
  uint64_t live = test_live(), refused = 0;
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    fake_install(NULL);
    CHECK_OK(luna_vm_open(&options, &vm));
    CHECK_EQ(fake_calls(KVM_CREATE_IRQCHIP), 0);
    fake_fail(nth, ENOMEM);
    int status = luna_vcpu_create(vm, &mode, &vcpu);
    if (status != LUNA_OK && strstr(luna_error_message(), "(KVM_CREATE_")) {
      CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 2); /* its system area came and went */
      refused++;
    }
    if (status != LUNA_OK) {
      CHECK_OK(luna_vcpu_create(vm, &mode, &vcpu));
    }
    CHECK(fake_calls(KVM_CREATE_IRQCHIP) > 0);
    luna_vcpu_release(vcpu);
    luna_vm_release(vm);
    CHECK_EQ(test_live(), live);
    CHECK_EQ(fake_open(), 0);
    CHECK_EQ(fake_mistakes(), 0);
    if (!fake_failed()) {
      CHECK_EQ(status, LUNA_OK);
      break;
    }
  }
  CHECK_EQ(refused, 2);
}

/* Whatever else asks for them comes first too; KVM's VM is closed with a change of the memory
 * behind them. */
static void before_a_vcpu(void) {
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_KERNEL};
  uint8_t state[512];
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(0x1000, &buffer));
  for (int use = 0; use < 4; use++) {
    fake_install(NULL);
    CHECK_OK(luna_vm_open(&options, &vm));
    CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 0, 0x1000, LUNA_READ | LUNA_WRITE));
    CHECK_OK(use == 0   ? luna_vm_irq(vm, 4, 1)
             : use == 1 ? luna_vm_get_chip(vm, LUNA_CHIP_IOAPIC, state)
             : use == 2 ? luna_vm_set_apic_frequency(vm, 25000000)
                        : LUNA_OK);
    CHECK_EQ(fake_calls(KVM_CREATE_IRQCHIP), use < 3);
    CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 1);
    luna_vm_release(vm);
    CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), use < 3 ? 2 : 1);
  }
  luna_buffer_release(buffer);
}

/* A further space has the routes and the timers' cycle, and messages go to where vCPUs are. */
static void spaces(void) {
  begin_with_chip(LUNA_IRQCHIP_SPLIT);
  const luna_route route = {.line = 3, .is_message = 1, .address = 0xfee00000, .data = 50};
  CHECK_OK(luna_vm_route(vm, &route, 1));
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(fake_routes(), 1);
  CHECK_EQ(luna_vm_msi(vm, 0xfee00000, 50), 1);
  CHECK_EQ(fake_messages(), 0);
  CHECK_OK(luna_vcpu_write_apic(vcpu, 0x80, 0x70));
  CHECK_OK(luna_vcpu_set_mp_state(vcpu, LUNA_MP_HALTED));
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  uint32_t value;
  CHECK_OK(luna_vcpu_read_apic(vcpu, 0x80, &value));
  CHECK_EQ(value, 0x70);
  CHECK_OK(luna_vcpu_get_mp_state(vcpu, &value));
  CHECK_EQ(value, LUNA_MP_HALTED);
  CHECK_EQ(luna_vm_msi(vm, 0xfee00000, 50), 1);
  CHECK_EQ(luna_vm_msi(vm, 0x1000, 50), 0);
  CHECK_OK(luna_vm_irq(vm, 3, 1));
  CHECK_EQ(fake_messages(), 2);
  CHECK_FAILS(luna_vm_irq(vm, 4, 1), LUNA_ERROR_NOT_FOUND, "line 4: it has no route");
  CHECK_FAILS(luna_vcpu_read_apic(vcpu, 0x81, &value), LUNA_ERROR_ARGUMENT, "offset 0x81");
  CHECK_FAILS(luna_vcpu_write_apic(vcpu, 0x400, 0), LUNA_ERROR_ARGUMENT, "offset 0x400");
  end();
}

/* A table that one space refuses is in none. */
static void routing_fails(void) {
  begin_with_chip(LUNA_IRQCHIP_SPLIT);
  luna_route routes[2] = {{.line = 3, .is_message = 1}, {.line = 4, .is_message = 1}};
  uint32_t space;
  CHECK_OK(luna_vm_route(vm, routes, 1));
  CHECK_OK(luna_vm_space_create(vm, &space));
  fake_fail(2, EINVAL);
  CHECK_FAILS(luna_vm_route(vm, routes, 2), LUNA_ERROR_SYSTEM, "2 routes of interrupt lines");
  CHECK_EQ(fake_routes(), 1);
  CHECK_EQ(luna_vm_irq(vm, 4, 1), LUNA_ERROR_NOT_FOUND);
  CHECK_OK(luna_vm_irq(vm, 3, 1));
  routes[0] = (luna_route){.line = 3, .chip = LUNA_CHIP_IOAPIC, .pin = 3};
  CHECK_FAILS(luna_vm_route(vm, routes, 1), LUNA_ERROR_STATE, "to a pin");
  routes[0].pin = 24;
  CHECK_FAILS(luna_vm_route(vm, routes, 1), LUNA_ERROR_ARGUMENT, "pin 24 of controller 2");
  routes[0].line = 4096;
  CHECK_FAILS(luna_vm_route(vm, routes, 1), LUNA_ERROR_RANGE, "line 4096");
  end();
}

/* KVM tells the end of a level interrupt for 255 lines; what it cannot tell is no route. */
static void ends_of_level_interrupts(void) {
  begin_with_chip(LUNA_IRQCHIP_SPLIT);
  luna_route routes[2] = {{.line = 254, .is_message = 1, .data = 0xc031},
                          {.line = 255, .is_message = 1, .data = 0xc032}};
  CHECK_EQ(fake_ending(), 255);
  CHECK_OK(luna_vm_route(vm, routes, 1));
  CHECK_FAILS(
      luna_vm_route(vm, routes, 2), LUNA_ERROR_UNSUPPORTED,
      "line 255 to the level-triggered message 0xc032: KVM tells the end of such interrupts "
      "for lines 0 to 254 only");
  CHECK_EQ(fake_routes(), 1);
  routes[1].data = 0x4032; /* edge */
  CHECK_OK(luna_vm_route(vm, routes, 2));
  end();
  begin_with_chip(LUNA_IRQCHIP_KERNEL); /* there, nothing is told */
  routes[1].data = 0xc032;
  CHECK_OK(luna_vm_route(vm, routes, 2));
  end();
}

static void line_events(void) {
  begin_with_chip(LUNA_IRQCHIP_SPLIT);
  uint32_t space;
  CHECK_OK(luna_vm_irqfd(vm, 3, 7, -1, 1));
  CHECK_OK(luna_vm_irqfd(vm, 4, 8, -1, 1));
  CHECK_FAILS(luna_vm_space_create(vm, &space), LUNA_ERROR_UNSUPPORTED, "2 eventfds raise");
  CHECK_FAILS(luna_vm_irqfd(vm, 3, 8, -1, 0), LUNA_ERROR_NOT_FOUND, "descriptor 8 does not raise");
  fake_fail(1, EBUSY);
  CHECK_FAILS(luna_vm_irqfd(vm, 5, 7, -1, 1), LUNA_ERROR_BUSY, "let descriptor 7 raise");
  CHECK_OK(luna_vm_irqfd(vm, 3, 7, -1, 0));
  CHECK_OK(luna_vm_irqfd(vm, 4, 8, -1, 0));
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(luna_vm_irqfd(vm, 3, 7, -1, 1), LUNA_ERROR_UNSUPPORTED);
  CHECK_EQ(luna_vm_irqfd(vm, 3, 7, 8, 1), LUNA_ERROR_UNSUPPORTED);
  end();
}

/* However long a vCPU waits to be started, it is no error. */
static void waiting(void) {
  begin_with_chip(LUNA_IRQCHIP_SPLIT);
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .wait = 1};
  luna_vcpu *second;
  CHECK_OK(luna_vcpu_create(vm, &options, &second));
  static const fake_step again[] = {{.kind = FAKE_ERRNO, .number = EAGAIN}};
  fake_script_endless(again, 1);
  const int more_than_for_errors = 60;
  for (uint64_t time = 60; time < 6000; time *= 2) { /* a loaded machine needs longer */
    fake_forget();
    CHECK_EQ(luna_vcpu_run(second, luna_clock() + time * MILLISECOND), LUNA_EXIT_TIMEOUT);
    if (entries() > more_than_for_errors) {
      break;
    }
  }
  CHECK(entries() > more_than_for_errors);
  CHECK_OK(luna_vcpu_sipi(second, 9));
  CHECK_FAILS(luna_vcpu_run(second, 0), LUNA_ERROR_SYSTEM, "cannot run vCPU 1");
  CHECK_FAILS(luna_vcpu_sipi(second, 256), LUNA_ERROR_RANGE, "vector 0x100");
  luna_vcpu_release(second);
  end();
}

int main(void) {
  RUN(window);
  RUN(halt);
  RUN(kicked);
  RUN(taken_back);
  RUN(failing);
  RUN(from_a_thread);
  RUN(refused_vectors);
  RUN(without_controllers);
  RUN(making_fails);
  RUN(after_the_memory);
  RUN(before_a_vcpu);
  RUN(spaces);
  RUN(routing_fails);
  RUN(ends_of_level_interrupts);
  RUN(line_events);
  RUN(waiting);
  return test_end();
}
