/* SPDX-License-Identifier: MIT
 * Random guests on the software CPU, in every mode, with damaged tables, while interrupts come,
 * registers are set and slots change. Nothing crashes or hangs, KVM_RUN ends as it may, and no
 * byte changes that is in no slot or in one that cannot be written. */
#include "fuzz.h"

#include "soft/soft.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum {
  PAGE = 4096,
  RAM = 16 * PAGE, /* from gpa 0 */
  MORE = 2 * PAGE, /* a slot that comes and goes */
  ROM = PAGE,      /* one that is not written to */
  HOST = 7 * PAGE + RAM + MORE + ROM,
  AT_CODE = 0x1000,
  AT_HANDLERS = 0x1800,
  AT_DATA = 0x2000,
  AT_GDT = 0x4000,
  AT_IDT = 0x5000,
  AT_TSS = 0x6000,
  AT_TABLES = 0x8000, /* PML4, PDPT, PD, PT, then the two of 32-bit paging */
  AT_STACK = 0xf000,
  GPA_ROM = 0x20000,
  RUN_SIZE = 3 * PAGE,
  BUDGET = 100000, /* nanoseconds of a run */
  CANARY = 0xc5,
  ACTIONS_MOST = 40
};

static uint8_t *host; /* canaries around each of the three */
static uint8_t *ram, *more, *rom;
static int kvm, vm, cpu;
static struct kvm_run *volatile run;
static timer_t timer;
static int64_t more_at; /* gpa of the slot; -1 */
static bool has_chip;

static int call(int fd, unsigned long request, void *argument) {
  return luna_soft_table.ioctl(fd, request, argument);
}

static void must(int fd, unsigned long request, void *argument) {
  FUZZ_CHECK(call(fd, request, argument) >= 0, "request 0x%lx: %s", request, strerror(errno));
}

/* ---- The host ---- */

static void on_timer(int number) {
  (void)number;
  if (run) {
    run->immediate_exit = 1;
  }
}

static void prepare(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_timer;
  sigaction(SIGRTMIN + 6, &action, NULL);
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 6;
  FUZZ_CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "no timer");
  host = mmap(NULL, HOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FUZZ_CHECK(host != MAP_FAILED, "no memory");
  mprotect(host, PAGE, PROT_NONE);
  mprotect(host + HOST - PAGE, PAGE, PROT_NONE);
  ram = host + 2 * PAGE;
  more = ram + RAM + PAGE;
  rom = more + MORE + PAGE;
}

static void check_canary(const uint8_t *from, size_t size, const char *what) {
  for (size_t i = 0; i < size; i++) {
    FUZZ_CHECK(from[i] == CANARY, "byte %zu %s is 0x%x", i, what, from[i]);
  }
}

static void check_memory(void) {
  check_canary(host + PAGE, PAGE, "below the memory");
  check_canary(ram + RAM, PAGE, "above the memory");
  check_canary(more + MORE, PAGE, "above the second slot");
  check_canary(rom, ROM + PAGE, "of read-only memory and above");
  if (more_at < 0) {
    check_canary(more, MORE, "of a slot that is gone");
  }
}

/* ---- The guest ---- */

static void set_slot(uint32_t id, uint64_t gpa, uint8_t *at, uint64_t size, uint32_t flags) {
  struct kvm_userspace_memory_region region = {.slot = id,
                                               .guest_phys_addr = gpa,
                                               .memory_size = size,
                                               .userspace_addr = (uintptr_t)at,
                                               .flags = flags};
  must(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static const uint64_t descriptors[] = {
    0,
    UINT64_C(0x00af9b000000ffff), /* 0x08: code of 64 bits, */
    UINT64_C(0x00cf93000000ffff), /* data, */
    UINT64_C(0x00cf9b000000ffff), /* 0x18: code of 32 bits, */
    UINT64_C(0x00009b000000ffff), /* of 16 bits, */
    UINT64_C(0x000093000000ffff), /* 0x28: data of 16 bits, */
    UINT64_C(0x00affb000000ffff), /* 0x30: the user's code of 64, */
    UINT64_C(0x00cffb000000ffff), /* of 32 bits, */
    UINT64_C(0x00cff3000000ffff), /* 0x40: data, */
    UINT64_C(0x00008b0060000067), /* 0x48: a TSS, */
    0,
    UINT64_C(0x0000ec0000081800), /* 0x58: a call gate, */
    UINT64_C(0x0000e50000480000), /* a task gate, */
    UINT64_C(0x00008900600800ff), /* 0x68: another TSS */
};

static void put(uint64_t at, uint64_t value, unsigned size) {
  memcpy(ram + at, &value, size);
}

static void make_tables(bool wide) {
  for (unsigned i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
    put(AT_GDT + i * 8, descriptors[i], 8);
  }
  for (unsigned i = 0; i < 256 && i * (wide ? 16 : 8) < PAGE; i++) {
    uint64_t gate = AT_HANDLERS | (wide ? 0x08u : 0x18u) << 16 | UINT64_C(0xee00) << 32;
    put(AT_IDT + i * (wide ? 16 : 8), gate, 8);
  }
  put(AT_HANDLERS, 0xcff4, 2); /* hlt; iret */
  put(AT_TSS + 4, AT_STACK, 4);
  put(AT_TSS + 8, 0x10, 4);
  put(AT_TSS + 0x66, 0x68, 2);
  put(AT_TABLES, AT_TABLES + 0x1007, 8);
  put(AT_TABLES + 0x1000, AT_TABLES + 0x2007, 8);
  put(AT_TABLES + 0x2000, AT_TABLES + 0x3007, 8);
  put(AT_TABLES + 0x2008, 0x87, 8);
  put(AT_TABLES + 0x4000, AT_TABLES + 0x5007, 4);
  for (unsigned i = 0; i < 64; i++) {
    put(AT_TABLES + 0x3000 + i * 8, i * PAGE | 7, 8);
    put(AT_TABLES + 0x5000 + i * 4, i * PAGE | 7, 4);
  }
}

static struct kvm_segment segment(unsigned selector) {
  uint64_t raw = descriptors[selector / 8];
  bool pages = raw >> 55 & 1;
  uint32_t limit = (uint32_t)(raw & 0xffff) | (uint32_t)(raw >> 48 & 15) << 16;
  return (struct kvm_segment){.base = (raw >> 16 & 0xffffff) | (raw >> 56) << 24,
                              .limit = pages ? limit << 12 | 0xfff : limit,
                              .selector = (uint16_t)selector,
                              .type = raw >> 40 & 15,
                              .s = raw >> 44 & 1,
                              .dpl = raw >> 45 & 3,
                              .present = 1,
                              .l = raw >> 53 & 1,
                              .db = raw >> 54 & 1,
                              .g = pages};
}

static struct kvm_segment flat_16(unsigned ring) {
  return (struct kvm_segment){
      .limit = 0xffff, .type = 3, .s = 1, .dpl = (uint8_t)ring, .present = 1};
}

enum {
  REAL,
  PROTECTED_16,
  PROTECTED_32,
  PAGED_32,
  PAE,
  VM86,
  COMPATIBLE,
  LONG,
  USER_32,
  USER_64,
  MODES
};

static void enter(unsigned mode) {
  static const uint8_t code[] = {0, 0x20, 0x18, 0x18, 0x18, 0, 0x18, 0x08, 0x3b, 0x33};
  struct kvm_sregs s;
  must(cpu, KVM_GET_SREGS, &s);
  bool wide = mode == COMPATIBLE || mode == LONG || mode == USER_64;
  bool user = mode == USER_32 || mode == USER_64;
  make_tables(wide);
  s.gdt = (struct kvm_dtable){.base = AT_GDT, .limit = sizeof descriptors - 1};
  s.idt = (struct kvm_dtable){.base = AT_IDT, .limit = 0xfff};
  s.cr0 = mode == REAL ? 0x10 : mode <= PROTECTED_32 ? 0x11 : 0x80010031;
  s.cr4 = 0x40600 | (wide || mode == PAE ? 0x20 : 0x10);
  s.efer = wide ? 0xd01 : 0x801;
  s.cr3 = wide ? AT_TABLES : mode == PAE ? AT_TABLES + 0x1000 : AT_TABLES + 0x4000;
  s.tr = segment(0x48);
  if (mode == REAL || mode == VM86) {
    s.cs = s.ds = s.es = s.fs = s.gs = s.ss = flat_16(mode == VM86 ? 3 : 0);
    s.idt.base = mode == REAL ? 0 : AT_IDT;
  } else {
    s.cs = segment(code[mode] & ~7u);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(user ? 0x40 : mode == PROTECTED_16 ? 0x28 : 0x10);
    s.cs.selector |= code[mode] & 3;
    s.ss.selector |= code[mode] & 3;
  }
  must(cpu, KVM_SET_SREGS, &s);
  struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = 7};
  must(cpu, KVM_SET_XCRS, &xcrs);
  struct kvm_regs regs = {
      .rip = AT_CODE, .rsp = AT_STACK, .rbx = AT_DATA, .rsi = AT_DATA, .rdi = AT_DATA + 0x800};
  regs.rflags = mode == VM86 ? 0x23202 : 0x3202;
  must(cpu, KVM_SET_REGS, &regs);
}

static void open_guest(void) {
  memset(ram, 0, RAM);
  for (const uint8_t *const *at =
           (const uint8_t *const[]){host + PAGE, ram + RAM, more + MORE, rom, rom + ROM, NULL};
       *at; at++) {
    memset((uint8_t *)(uintptr_t)*at, CANARY, PAGE);
  }
  memset(more, CANARY, MORE);
  more_at = -1;
  kvm = luna_soft_table.open("");
  vm = call(kvm, KVM_CREATE_VM, NULL);
  FUZZ_CHECK(kvm >= 0 && vm >= 0, "no VM: %s", strerror(errno));
  uint8_t chip = fuzz_byte() % 4;
  has_chip = chip == 1;
  if (chip == 1) {
    must(vm, KVM_CREATE_IRQCHIP, NULL);
    struct kvm_pit_config pit = {0};
    must(vm, KVM_CREATE_PIT2, &pit);
  } else if (chip == 2) {
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    must(vm, KVM_ENABLE_CAP, &split);
  }
  set_slot(0, 0, ram, RAM, 0);
  set_slot(2, GPA_ROM, rom, ROM, KVM_MEM_READONLY);
  cpu = call(vm, KVM_CREATE_VCPU, NULL);
  FUZZ_CHECK(cpu >= 0, "no vCPU: %s", strerror(errno));
  run = luna_soft_table.map(RUN_SIZE, cpu, 0);
  FUZZ_CHECK(run != MAP_FAILED, "no run page");
  static _Alignas(8)
      uint8_t room[sizeof(struct kvm_cpuid2) + 100 * sizeof(struct kvm_cpuid_entry2)];
  struct kvm_cpuid2 *table = (void *)room;
  table->nent = 100;
  must(kvm, KVM_GET_SUPPORTED_CPUID, table);
  must(cpu, KVM_SET_CPUID2, table);
  enter(fuzz_byte() % MODES);
}

static void close_guest(void) {
  struct kvm_run *page = run;
  run = NULL;
  luna_soft_table.unmap(page, RUN_SIZE);
  luna_soft_table.close(cpu);
  luna_soft_table.close(vm);
  luna_soft_table.close(kvm);
}

/* ---- What happens to it ---- */

static void write_code(void) {
  struct kvm_regs regs;
  must(cpu, KVM_GET_REGS, &regs);
  uint64_t at = fuzz_rarely(4) ? fuzz_bytes(2) % RAM : regs.rip;
  for (unsigned i = 0, size = 1 + fuzz_pick(40); i < size; i++) {
    ram[(at + i) % RAM] = fuzz_byte();
  }
}

static void damage(void) {
  static const uint16_t places[] = {AT_GDT,
                                    AT_IDT,
                                    AT_TSS,
                                    AT_TABLES,
                                    AT_TABLES + 0x1000,
                                    AT_TABLES + 0x2000,
                                    AT_TABLES + 0x3000,
                                    AT_TABLES + 0x4000,
                                    AT_TABLES + 0x5000,
                                    0};
  uint64_t at = places[fuzz_pick(10)] + fuzz_pick(32) * 8u;
  uint64_t value;
  memcpy(&value, ram + at, 8);
  put(at, fuzz_rarely(4) ? fuzz_number() : value ^ UINT64_C(1) << fuzz_pick(64), 8);
}

static uint64_t *a_register(struct kvm_regs *regs) {
  return (uint64_t *)(void *)regs + fuzz_pick(16);
}

static void set_registers(void) {
  struct kvm_regs regs;
  must(cpu, KVM_GET_REGS, &regs);
  FUZZ_CHECK(regs.rflags & 2 && !(regs.rflags & 0x8028), "rflags is 0x%llx", regs.rflags);
  for (unsigned i = 0, count = fuzz_pick(4); i < count; i++) {
    *a_register(&regs) = fuzz_rarely(2) ? fuzz_number() : fuzz_bytes(2) % RAM;
  }
  regs.rflags ^= fuzz_rarely(2) ? fuzz_number() : 0;
  regs.rip = fuzz_rarely(4) ? fuzz_number() : AT_CODE + (uint64_t)fuzz_byte();
  call(cpu, KVM_SET_REGS, &regs);
}

/* Bits of the control registers and of a segment; what is wrong is refused. */
static void set_system(void) {
  struct kvm_sregs s;
  must(cpu, KVM_GET_SREGS, &s);
  struct kvm_segment *const segments[] = {&s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss, &s.tr, &s.ldt};
  struct kvm_segment *one = segments[fuzz_pick(8)];
  switch (fuzz_pick(8)) {
    case 0:
      s.cr0 ^= UINT64_C(1) << fuzz_pick(32);
      break;
    case 1:
      s.cr4 ^= UINT64_C(1) << fuzz_pick(24);
      break;
    case 2:
      s.efer ^= UINT64_C(1) << fuzz_pick(12);
      break;
    case 3:
      s.cr3 = fuzz_number();
      break;
    case 4:
      s.idt.limit = (uint16_t)fuzz_number();
      s.gdt.base = fuzz_rarely(4) ? fuzz_number() : s.gdt.base;
      break;
    case 5:
      s.apic_base = fuzz_number();
      break;
    default:
      one->base = fuzz_number();
      one->limit = (uint32_t)fuzz_number();
      one->type = fuzz_byte() & 15;
      one->dpl = fuzz_byte() & 3;
      one->present = fuzz_byte() & 1;
      one->s = fuzz_byte() & 1;
      one->db = fuzz_byte() & 1;
      one->l = fuzz_byte() & 1;
      break;
  }
  call(cpu, KVM_SET_SREGS, &s);
}

static void set_events(void) {
  struct kvm_vcpu_events events;
  must(cpu, KVM_GET_VCPU_EVENTS, &events);
  fuzz_fill(&events, sizeof events);
  call(cpu, KVM_SET_VCPU_EVENTS, &events);
}

static void set_more_state(void) {
  static uint8_t area[PAGE];
  struct kvm_debugregs debug;
  struct kvm_guest_debug guest_debug = {.control = fuzz_byte() | fuzz_pick(4) << 16};
  static _Alignas(8) uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
  struct kvm_msrs *msrs = (void *)room;
  msrs->nmsrs = 1;
  switch (fuzz_pick(4)) {
    case 0:
      must(cpu, KVM_GET_XSAVE, area);
      fuzz_fill(area, 832);
      call(cpu, KVM_SET_XSAVE, area);
      break;
    case 1:
      must(cpu, KVM_GET_DEBUGREGS, &debug);
      fuzz_fill(&debug, sizeof debug);
      call(cpu, KVM_SET_DEBUGREGS, &debug);
      break;
    case 2:
      guest_debug.arch.debugreg[0] = fuzz_bytes(2);
      guest_debug.arch.debugreg[7] = fuzz_number();
      call(cpu, KVM_SET_GUEST_DEBUG, &guest_debug);
      break;
    default:
      msrs->entries[0].index = fuzz_rarely(2) ? (uint32_t)fuzz_number() : 0xc0000080 + fuzz_pick(8);
      msrs->entries[0].data = fuzz_number();
      call(cpu, KVM_SET_MSRS, msrs);
      break;
  }
}

static void interrupt(void) {
  struct kvm_interrupt one = {.irq = fuzz_byte()};
  struct kvm_irq_level level = {.irq = fuzz_pick(24), .level = fuzz_byte() & 1};
  struct kvm_msi msi = {.address_lo = 0xfee00000 | fuzz_pick(4) << 12, .data = fuzz_byte()};
  switch (fuzz_pick(4)) {
    case 0:
      call(cpu, KVM_NMI, NULL);
      break;
    case 1:
      call(vm, KVM_IRQ_LINE, &level);
      break;
    case 2:
      call(vm, KVM_SIGNAL_MSI, &msi);
      break;
    default:
      call(cpu, KVM_INTERRUPT, &one);
      break;
  }
}

/* The second slot goes, comes, moves, and is logged. */
static void change_slots(void) {
  if (more_at >= 0) {
    set_slot(1, (uint64_t)more_at, more, 0, 0);
    more_at = -1;
    memset(more, CANARY, MORE);
  }
  if (!fuzz_rarely(3)) {
    static const uint32_t places[] = {0x10000, 0x18000, 0x22000, 0x30000};
    more_at = places[fuzz_pick(4)];
    set_slot(1, (uint64_t)more_at, more, MORE, fuzz_rarely(2) ? KVM_MEM_LOG_DIRTY_PAGES : 0);
  }
}

static void check_exit(void) {
  switch (run->exit_reason) {
    case KVM_EXIT_IO:
      FUZZ_CHECK(run->io.data_offset + (uint64_t)run->io.size * run->io.count <= 2 * PAGE &&
                     run->io.size <= 4 && run->io.count > 0,
                 "%u times %u bytes at %llu", run->io.count, run->io.size, run->io.data_offset);
      fuzz_fill((uint8_t *)run + run->io.data_offset, run->io.size * run->io.count);
      break;
    case KVM_EXIT_MMIO:
      FUZZ_CHECK(run->mmio.len > 0 && run->mmio.len <= 8, "MMIO of %u bytes", run->mmio.len);
      if (fuzz_rarely(2)) {
        fuzz_fill(run->mmio.data, 8);
      }
      break;
    case KVM_EXIT_HLT:
    case KVM_EXIT_SHUTDOWN:
    case KVM_EXIT_INTERNAL_ERROR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_DEBUG:
    case KVM_EXIT_IOAPIC_EOI:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_HYPERCALL:
      break;
    default:
      FUZZ_FAIL("exit %u", run->exit_reason);
  }
}

static void run_it(void) {
  struct itimerspec soon = {.it_value.tv_nsec = BUDGET}, never = {0};
  run->immediate_exit = fuzz_rarely(16);
  run->request_interrupt_window = fuzz_rarely(16);
  timer_settime(timer, 0, &soon, NULL);
  int status = call(cpu, KVM_RUN, NULL);
  int number = errno;
  timer_settime(timer, 0, &never, NULL);
  run->immediate_exit = 0;
  if (status < 0) {
    FUZZ_CHECK(number == EINTR || number == EAGAIN, "KVM_RUN: %s", strerror(number));
  } else {
    check_exit();
  }
  check_memory();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const actions[])(void) = {run_it,     run_it,         run_it,     write_code,
                                          write_code, damage,         interrupt,  set_registers,
                                          set_system, set_more_state, set_events, change_slots};
  if (!host) {
    prepare();
  }
  fuzz_begin(data, size, NULL);
  open_guest();
  write_code();
  run_it();
  for (unsigned i = 0; fuzz_more() && i < ACTIONS_MOST; i++) {
    actions[fuzz_pick(sizeof actions / sizeof *actions)]();
  }
  run_it();
  close_guest();
  fuzz_end();
  return 0;
}
