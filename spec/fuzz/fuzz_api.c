/* SPDX-License-Identifier: MIT
 * Calls of lunavisor.h in a random order with random arguments, while ioctls fail now and then and
 * the guest does random things: no call may crash, fail without a status and a message, or leave
 * something behind. What maps have to be is fuzz_space.c's. */
#include "fuzz.h"

#include <sys/eventfd.h>
#include <unistd.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  PAGES = 32,
  BUFFERS = 3,
  VCPUS = 3,
  EVENTS = 2,
  STEPS = 8,
  CALLS_MOST = 250,
  ROOM = 8192
};

static luna_vm *vm;
static luna_buffer *buffers[BUFFERS];
static luna_vcpu *vcpus[VCPUS];
static uint32_t vcpu_count;
static int events[EVENTS];
static uint32_t traps[8];
static fake_step steps[STEPS];

/* ---- Arguments: mostly such as exist ---- */

static uint32_t a_space(void) {
  return fuzz_rarely(32) ? (uint32_t)fuzz_number() : fuzz_pick(3);
}

static uint64_t an_address(void) {
  return fuzz_rarely(16) ? fuzz_number() : fuzz_pick(PAGES) * (uint64_t)PAGE;
}

static uint64_t a_size(void) {
  return fuzz_rarely(16) ? fuzz_number() : fuzz_pick(8) * (uint64_t)PAGE;
}

static uint32_t some_rights(void) {
  return fuzz_rarely(16) ? (uint32_t)fuzz_number() : fuzz_pick(64);
}

static luna_buffer *a_buffer(void) {
  return buffers[fuzz_pick(BUFFERS)];
}

static int an_event(void) {
  return fuzz_rarely(8) ? (int)fuzz_pick(3) - 1 : events[fuzz_pick(EVENTS)];
}

static uint32_t a_trap(void) {
  return fuzz_rarely(8) ? (uint32_t)fuzz_number() : traps[fuzz_pick(8)];
}

static uint32_t an_index(uint32_t limit) {
  return fuzz_rarely(16) ? (uint32_t)fuzz_number() : fuzz_pick(limit);
}

/* ---- The VM ---- */

static void call_maps(void) {
  luna_change changes[4];
  uint64_t first, length;
  size_t count = fuzz_pick(5);
  switch (fuzz_pick(8)) {
    case 0:
    case 1:
    case 2:
      fuzz_status(luna_vm_map_space(vm, a_space(), a_buffer(), a_size(), an_address(), a_size(),
                                    some_rights()));
      break;
    case 3:
      fuzz_status(luna_vm_unmap_space(vm, a_space(), an_address(), a_size()));
      break;
    case 4:
      fuzz_status(luna_vm_protect_space(vm, a_space(), an_address(), a_size(), some_rights()));
      break;
    case 5:
      for (size_t i = 0; i < count; i++) {
        changes[i] = (luna_change){.kind = an_index(3),
                                   .rights = some_rights(),
                                   .gpa = an_address(),
                                   .size = a_size(),
                                   .buffer = a_buffer(),
                                   .offset = a_size()};
      }
      fuzz_status(luna_vm_update_space(vm, a_space(), changes, count));
      break;
    case 6:
      fuzz_status(luna_vm_remap_space(vm, a_space(), an_address(), a_buffer(), a_size()));
      break;
    default:
      fuzz_status(luna_vm_dirty_space(vm, 0, an_address(), a_size()));
      for (int i = 0; i < PAGES; i++) {
        if (fuzz_status(luna_vm_dirty_take(vm, 0, 0, PAGES * PAGE, 0, &first, &length)) != 1) {
          break;
        }
      }
      break;
  }
}

static void call_spaces(void) {
  uint32_t number;
  luna_region region;
  fuzz_status(fuzz_rarely(2) ? luna_vm_space_create(vm, &number)
                             : luna_vm_space_destroy(vm, a_space()));
  fuzz_status(luna_space_next(vm, a_space(), fuzz_number(), &region));
}

static void call_copies(void) {
  static uint8_t bytes[ROOM];
  luna_buffer *view;
  fuzz_status(luna_vm_copy_space(vm, a_space(), an_address() + fuzz_byte(), bytes, fuzz_pick(ROOM),
                                 1 + fuzz_pick(2)));
  if (fuzz_status(luna_buffer_view(a_buffer(), fuzz_number(), fuzz_number(), &view)) == LUNA_OK) {
    luna_buffer_mark(view, fuzz_number(), fuzz_number());
    luna_buffer_release(view);
  }
}

static int answer(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  (void)context, (void)size, (void)access;
  *value += offset;
  return (int)(offset & 1);
}

static void call_traps(void) {
  uint32_t *trap = &traps[fuzz_pick(8)];
  int kind = (int)fuzz_pick(3);
  uint64_t first = fuzz_rarely(2) ? fuzz_byte() : an_address();
  uint64_t length = fuzz_rarely(8) ? fuzz_number() : 1 + fuzz_pick(64);
  switch (fuzz_pick(5)) {
    case 0:
      fuzz_status(luna_vm_trap(vm, kind, first, length, trap));
      break;
    case 1:
      fuzz_status(luna_vm_trap_memory(vm, kind, first, length, a_buffer(), fuzz_pick(ROOM), trap));
      break;
    case 2:
      fuzz_status(luna_vm_trap_function(vm, kind, first, length, answer, NULL, trap));
      break;
    case 3:
      fuzz_status(luna_vm_coalesce(vm, a_trap()));
      break;
    default:
      fuzz_status(luna_vm_untrap(vm, a_trap()));
      break;
  }
}

static void call_events(void) {
  static const uint32_t sizes[] = {1, 2, 4, 8, 3, 0};
  luna_eventfd event = {.kind = fuzz_pick(3),
                        .flags = fuzz_pick(5),
                        .address = fuzz_rarely(2) ? fuzz_byte() : an_address(),
                        .value = fuzz_number(),
                        .size = sizes[fuzz_pick(6)],
                        .fd = an_event()};
  fuzz_status(luna_vm_eventfd_add(vm, &event));
  if (fuzz_rarely(2)) {
    fuzz_status(luna_vm_eventfd_remove(vm, &event));
  }
}

static void call_lines(void) {
  luna_route routes[8];
  uint8_t chip[512];
  size_t count = fuzz_pick(9);
  for (size_t i = 0; i < count; i++) {
    routes[i] = (luna_route){.line = an_index(32),
                             .is_message = fuzz_pick(3),
                             .chip = fuzz_pick(4),
                             .pin = an_index(26),
                             .address = fuzz_number(),
                             .data = (uint32_t)fuzz_number()};
  }
  fuzz_status(luna_vm_route(vm, routes, count));
  fuzz_status(luna_vm_irq(vm, an_index(32), fuzz_pick(3)));
  fuzz_status(luna_vm_msi(vm, fuzz_number(), (uint32_t)fuzz_number()));
  fuzz_status(
      luna_vm_irqfd(vm, fuzz_pick(32), an_event(), fuzz_rarely(4) ? an_event() : -1, fuzz_pick(2)));
  if (fuzz_status(luna_vm_get_chip(vm, (int)fuzz_pick(4), chip)) == LUNA_OK) {
    fuzz_fill(chip, sizeof chip);
    fuzz_status(luna_vm_set_chip(vm, (int)fuzz_pick(4), chip));
  }
}

static void call_clocks(void) {
  luna_vcpu *from;
  fuzz_status(luna_vm_set_apic_frequency(vm, fuzz_number()));
  fuzz_status(luna_vm_sync_tsc(vm, fuzz_number()));
  fuzz_status(luna_vm_hypercalls(vm));
  luna_vm_wake(vm);
  fuzz_status(luna_vm_alarm(vm, fuzz_number()));
  fuzz_status(luna_vm_next(vm, 1, &from));
}

static void call_vcpus(void) {
  luna_vcpu_options options = {.mode = an_index(5),
                               .wait = fuzz_rarely(8),
                               .rip = fuzz_number(),
                               .rsp = fuzz_number(),
                               .system = fuzz_rarely(4) ? an_address() : LUNA_SYSTEM_ALLOCATE};
  if (vcpu_count < VCPUS && !fuzz_rarely(4)) {
    if (fuzz_status(luna_vcpu_create(vm, &options, &vcpus[vcpu_count])) == LUNA_OK) {
      vcpu_count++;
    }
  } else if (vcpu_count > 0) {
    luna_vcpu_release(vcpus[--vcpu_count]);
  }
}

/* ---- What the guest does ---- */

static fake_step random_step(void) {
  static const fake_kind kinds[] = {FAKE_HLT,      FAKE_PIO,        FAKE_PIO,   FAKE_MMIO,
                                    FAKE_SHUTDOWN, FAKE_INTERNAL,   FAKE_OTHER, FAKE_CODE,
                                    FAKE_ERRNO,    FAKE_FAIL_ENTRY, FAKE_SPIN,  FAKE_MSR};
  static const int numbers[] = {EINTR, EAGAIN, EFAULT, EINVAL, ENOMEM, EIO};
  fake_step step = {.kind = kinds[fuzz_pick(sizeof kinds / sizeof *kinds)],
                    .address = fuzz_rarely(2) ? fuzz_byte() : an_address(),
                    .size = 1u << fuzz_pick(3),
                    .count = fuzz_rarely(4) ? 1 + fuzz_pick(16) : 1,
                    .write = fuzz_rarely(2),
                    .number = numbers[fuzz_pick(6)],
                    .reason = KVM_EXIT_HYPERV,
                    .value = fuzz_number(),
                    .suberror = fuzz_pick(6),
                    .ndata = fuzz_pick(17),
                    .instruction_size = (uint8_t)fuzz_pick(16),
                    .limit = 1000};
  if (step.kind == FAKE_PIO) {
    step.address &= 0xffff;
  }
  fuzz_fill(step.data, sizeof step.data);
  fuzz_fill(step.instruction, sizeof step.instruction);
  return step;
}

static void check_exit(const luna_vcpu *vcpu, int kind) {
  const luna_exit *exit = luna_vcpu_exit(vcpu);
  FUZZ_CHECK((int)exit->kind == kind && luna_exit_name(kind), "an exit of kind %u, not %d",
             exit->kind, kind);
  FUZZ_CHECK(exit->data_count <= 16 && exit->instruction_size <= 16, "%u words, %u bytes",
             exit->data_count, exit->instruction_size);
  luna_reason_name(exit->reason);
}

static int run_somehow(luna_vcpu *vcpu, uint64_t deadline) {
  uint32_t how = fuzz_pick(8);
  if (how > 1) {
    return luna_vcpu_run(vcpu, deadline);
  }
  if (how == 1 || luna_vcpu_start_here(vcpu) != LUNA_OK) {
    return luna_vcpu_step(vcpu, deadline);
  }
  int kind = luna_vcpu_run_here(vcpu, deadline);
  fuzz_status(luna_vcpu_stop(vcpu));
  return kind;
}

static void call_run(luna_vcpu *vcpu) {
  if (fuzz_rarely(2)) {
    uint32_t count = 1 + fuzz_pick(STEPS);
    for (uint32_t i = 0; i < count; i++) {
      steps[i] = random_step();
    }
    fake_script(steps, count);
  }
  int kind = fuzz_status(run_somehow(vcpu, luna_clock() + 20000));
  if (kind > 0) {
    check_exit(vcpu, kind);
  }
}

static void call_answer(luna_vcpu *vcpu) {
  uint8_t *data;
  uint32_t size;
  switch (fuzz_pick(7)) {
    case 0:
    case 1:
      fuzz_status(luna_vcpu_answer(vcpu, fuzz_number()));
      break;
    case 2:
      fuzz_status(luna_vcpu_retry(vcpu));
      break;
    case 3:
      fuzz_status(luna_vcpu_refuse(vcpu));
      break;
    case 4:
      fuzz_status(luna_vcpu_inject(vcpu, an_index(33), (uint32_t)fuzz_number(), fuzz_number()));
      break;
    case 5:
      size = luna_vcpu_block(vcpu, &data);
      if (size > 0) {
        memset(data, 0x5a, size);
      }
      fuzz_status(luna_vcpu_answer_block(vcpu));
      break;
    default:
      fuzz_status(luna_vcpu_finish(vcpu));
      break;
  }
}

/* ---- A vCPU ---- */

static void call_registers(luna_vcpu *vcpu) {
  uint8_t bytes[64] = {0};
  uint64_t value;
  int reg = (int)an_index(LUNA_REGISTER_COUNT);
  static const size_t sizes[] = {10, 16, 32, 64, 8};
  uint32_t kind = fuzz_pick(5);
  fuzz_status(luna_vcpu_get(vcpu, reg, &value));
  fuzz_status(luna_vcpu_set(vcpu, reg, fuzz_number()));
  fuzz_status(luna_vcpu_get_vector(vcpu, (int)kind, an_index(34), bytes, sizes[kind]));
  fuzz_fill(bytes, sizeof bytes);
  fuzz_status(luna_vcpu_set_vector(vcpu, (int)kind, an_index(34), bytes, sizes[kind]));
}

static void call_msrs(luna_vcpu *vcpu) {
  uint64_t value;
  uint32_t index = fuzz_rarely(2) ? 0xc0000080 + fuzz_pick(8) : (uint32_t)fuzz_number();
  char name[12] = {0};
  fuzz_status(luna_vcpu_get_msr(vcpu, index, &value));
  fuzz_status(luna_vcpu_set_msr(vcpu, index, fuzz_number()));
  fuzz_fill(name, sizeof name - 1);
  fuzz_status(luna_msr_find(name, &index));
}

static void call_cpuid(luna_vcpu *vcpu) {
  luna_cpuid answers[16];
  size_t count = fuzz_pick(17);
  for (uint32_t i = 0; i < count; i++) {
    if (fuzz_rarely(2) || luna_vcpu_cpuid_next(vcpu, i, &answers[i]) < 0) {
      answers[i] = (luna_cpuid){.leaf = (uint32_t)fuzz_number(),
                                .subleaf = (uint32_t)fuzz_number(),
                                .indexed = fuzz_pick(3),
                                .eax = (uint32_t)fuzz_number()};
    }
  }
  fuzz_status(luna_vcpu_set_cpuid(vcpu, answers, count));
}

static void call_state(luna_vcpu *vcpu) {
  size_t size = 0;
  FUZZ_CHECK(fuzz_status(luna_vcpu_save(vcpu, NULL, &size)) != LUNA_OK || size > 0, "no state");
  uint8_t *state = malloc(size + 1);
  if (state && fuzz_status(luna_vcpu_save(vcpu, state, &size)) == LUNA_OK) {
    fuzz_status(luna_vcpu_restore(vcpus[fuzz_pick(vcpu_count)], state, size));
  }
  free(state);
  fuzz_status(luna_vcpu_check(vcpu));
}

static void call_apic(luna_vcpu *vcpu) {
  uint8_t page[LUNA_APIC_SIZE];
  uint32_t value;
  if (fuzz_status(luna_vcpu_get_apic(vcpu, page)) == LUNA_OK) {
    fuzz_fill(page, sizeof page);
    fuzz_status(luna_vcpu_set_apic(vcpu, page));
  }
  fuzz_status(luna_vcpu_read_apic(vcpu, fuzz_pick(64) * 16, &value));
  fuzz_status(luna_vcpu_write_apic(vcpu, fuzz_pick(64) * 16, (uint32_t)fuzz_number()));
  fuzz_status(luna_vcpu_fire_timer(vcpu));
}

static void call_interrupts(luna_vcpu *vcpu) {
  uint32_t value;
  fuzz_status(luna_vcpu_interrupt_vector(vcpu, an_index(256)));
  fuzz_status(luna_vcpu_window(vcpu, fuzz_pick(2)));
  luna_vcpu_interrupt_waiting(vcpu);
  fuzz_status(luna_vcpu_extint(vcpu, fuzz_byte()));
  fuzz_status(luna_vcpu_nmi(vcpu));
  fuzz_status(luna_vcpu_withdraw(vcpu, (uint32_t)fuzz_byte() << 8 | fuzz_byte()));
  fuzz_status(luna_vcpu_smi(vcpu));
  fuzz_status(luna_vcpu_get_blocking(vcpu, &value));
  fuzz_status(luna_vcpu_set_blocking(vcpu, an_index(16)));
  fuzz_status(luna_vcpu_get_mp_state(vcpu, &value));
  fuzz_status(luna_vcpu_set_mp_state(vcpu, an_index(6)));
  fuzz_status(luna_vcpu_sipi(vcpu, an_index(256)));
}

static void call_debug(luna_vcpu *vcpu) {
  uint64_t gva, gpa;
  uint32_t breakpoint;
  luna_walk walk;
  luna_code code;
  uint8_t bytes[64] = {0};
  fuzz_status(
      luna_vcpu_break(vcpu, (int)fuzz_pick(5), an_address(), 1u << fuzz_pick(4), &breakpoint));
  fuzz_status(luna_vcpu_unbreak(vcpu, fuzz_pick(8)));
  fuzz_status(luna_vcpu_place(vcpu, &gva, fuzz_rarely(2) ? NULL : &gpa));
  fuzz_status(luna_vcpu_translate(vcpu, fuzz_number(), &walk));
  fuzz_status(luna_vcpu_code(vcpu, fuzz_number(), &code));
  fuzz_status(luna_vcpu_copy(vcpu, an_address(), bytes, fuzz_pick(64), 1 + fuzz_pick(2)));
}

static void call_rest(luna_vcpu *vcpu) {
  uint64_t one, other;
  int64_t offset;
  luna_last_exit last[LUNA_LAST_EXITS];
  uint32_t count;
  luna_last_exception past[LUNA_LAST_EXCEPTIONS];
  uint32_t most = (uint32_t)fuzz_pick(LUNA_LAST_EXCEPTIONS + 1);
  fuzz_status(luna_vcpu_last_exits(vcpu, last, (uint32_t)fuzz_pick(LUNA_LAST_EXITS + 1), &count));
  fuzz_status(luna_vcpu_last_exceptions(vcpu, past, most, &count));
  fuzz_status(luna_vcpu_triple_fault(vcpu, past, most, &count));
  fuzz_status(luna_vcpu_set_space(vcpu, a_space(), fuzz_rarely(4) ? (uint32_t)fuzz_number() : 0));
  fuzz_status(luna_vcpu_account(vcpu, fuzz_pick(2)));
  fuzz_status(luna_vcpu_time(vcpu, &one, &other));
  fuzz_status(luna_vcpu_get_tsc_offset(vcpu, &offset));
  fuzz_status(luna_vcpu_set_tsc_offset(vcpu, (int64_t)fuzz_number()));
  fuzz_status(luna_vcpu_set_tsc_frequency(vcpu, (uint32_t)fuzz_number()));
  fuzz_status(luna_vcpu_pause(vcpu));
  fuzz_status(luna_vcpu_resume(vcpu));
  if (fuzz_rarely(4)) {
    luna_vcpu_interrupt(vcpu);
  }
}

static void random_call(void) {
  static void (*const of_vm[])(void) = {call_maps,   call_maps,   call_spaces,
                                        call_copies, call_traps,  call_lines,
                                        call_events, call_clocks, call_vcpus};
  static void (*const of_vcpu[])(luna_vcpu *) = {
      call_run,   call_run,   call_run,  call_answer,     call_answer, call_registers, call_msrs,
      call_cpuid, call_state, call_apic, call_interrupts, call_debug,  call_rest};
  if (fuzz_rarely(16)) {
    fake_fail(1 + fuzz_pick(12), fuzz_rarely(2) ? ENOMEM : EIO);
  }
  if (vcpu_count == 0 || fuzz_rarely(3)) {
    of_vm[fuzz_pick(sizeof of_vm / sizeof *of_vm)]();
  } else {
    of_vcpu[fuzz_pick(sizeof of_vcpu / sizeof *of_vcpu)](vcpus[fuzz_pick(vcpu_count)]);
  }
  if (fuzz_rarely(4)) {
    fake_fail(0, 0);
  }
}

static fake_config choose_host(uint32_t choice) {
  fake_config config = fake_defaults();
  config.controllers = config.pit = true;
  config.smm = choice & 1;
  config.tsc_control = choice & 2;
  config.bus_cycles = choice & 4;
  config.sync_regs = choice & 8 ? 0 : config.sync_regs;
  config.slots_max = choice & 16 ? 8 : config.slots_max;
  config.memory_attributes = choice & 32 ? 7 : 0;
  config.stops = choice & 64 ? 7 : 0;
  config.coalesced_page = choice & 128 ? 0 : config.coalesced_page;
  return config;
}

static void open_all(uint32_t choice) {
  const luna_vm_options options = {.irqchip = choice % 3,
                                   .unknown_msrs = choice >> 2 & 1,
                                   .pit = choice % 3 == LUNA_IRQCHIP_KERNEL && choice & 16};
  const luna_buffer_options memfd = {.kind = LUNA_BUFFER_MEMFD, .size = PAGES * PAGE};
  if (luna_vm_open(&options, &vm) < 0 || luna_buffer_create(PAGES * PAGE, &buffers[0]) < 0 ||
      luna_buffer_open(&memfd, &buffers[1]) < 0 ||
      luna_buffer_view(buffers[0], PAGE, 4 * PAGE, &buffers[2]) < 0) {
    FUZZ_FAIL("%s", luna_error_message());
  }
  for (int i = 0; i < EVENTS; i++) {
    events[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  }
  vcpu_count = 0;
  memset(traps, 0, sizeof traps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_begin(data, size, NULL);
  const fake_config config = choose_host(fuzz_byte());
  fake_install(&config);
  open_all(fuzz_byte());
  for (int calls = 0; fuzz_more() && calls < CALLS_MOST; calls++) {
    random_call();
  }
  fake_fail(0, 0);
  while (vcpu_count > 0) {
    luna_vcpu_release(vcpus[--vcpu_count]);
  }
  luna_vm_release(vm);
  for (int i = 0; i < BUFFERS; i++) {
    luna_buffer_release(buffers[i]);
  }
  for (int i = 0; i < EVENTS; i++) {
    close(events[i]);
  }
  fake_script(NULL, 0);
  fuzz_end();
  return 0;
}
