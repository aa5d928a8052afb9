/* SPDX-License-Identifier: MIT
 * Time: the host's time-stamp counter is the guest's clock, for kvmclock too. What a guest reads is
 * the host's by a ratio, and an offset behind that. */
#include "base/tick.h"
#include "soft/access.h"
#include "soft/execute/control.h"
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"

#include <time.h>

__extension__ typedef unsigned __int128 wide;

enum {
  SPAN_NS = 4000000, /* between two moments whose distance is measured, at least */
  RATIO_MOST = 256   /* of the guest's frequency to the host's */
};

static luna_moment loaded;
static uint32_t khz;
static uint64_t ns_per_tick; /* times 2^32 */
static pthread_once_t once = PTHREAD_ONCE_INIT;

uint64_t soft_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint32_t cpuid(uint32_t leaf, uint32_t *ebx, uint32_t *ecx) {
  uint32_t eax = leaf, edx;
  *ecx = 0;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(*ebx), "+c"(*ecx), "=d"(edx));
  return eax;
}

/* Who makes a VM mostly does so some time after the library is loaded, and then need not wait. */
__attribute__((constructor)) static void note_loading(void) {
  loaded = luna_tick_moment();
}

/* As a hypervisor says it (leaf 0x40000010), as the processor does (0x15), or by the clock. */
static uint32_t measure(void) {
  uint32_t ebx, ecx;
  uint32_t said = cpuid(0x40000000, &ebx, &ecx) >= 0x40000010 ? cpuid(0x40000010, &ebx, &ecx) : 0;
  if (said > 100000 && said < 10000000) {
    return said;
  }
  if (cpuid(0, &ebx, &ecx) >= 0x15) {
    uint32_t divisor = cpuid(0x15, &ebx, &ecx);
    if (divisor && ebx && ecx) {
      return (uint32_t)((uint64_t)ecx * ebx / divisor / 1000);
    }
  }
  while (soft_now() - loaded.ns < SPAN_NS) {
  }
  luna_moment here = luna_tick_moment();
  return (uint32_t)((wide)(here.ticks - loaded.ticks) * 1000000 / (here.ns - loaded.ns));
}

/* Times 2^32. */
static uint64_t tick_of(uint32_t kilohertz) {
  return (UINT64_C(1000000) << 32) / kilohertz;
}

static void prepare(void) {
  khz = measure();
  ns_per_tick = tick_of(khz);
}

uint32_t soft_tsc_khz(void) {
  pthread_once(&once, prepare);
  return khz;
}

/* A product of 128 bits is the compiler's own, not a library's. */
static uint64_t times(uint64_t count, uint64_t factor) {
  return (uint64_t)((wide)count * factor >> 32);
}

static uint64_t host_ns(void) {
  pthread_once(&once, prepare);
  return times(luna_tick(), ns_per_tick);
}

bool soft_tsc_scale(soft_cpu *cpu, uint32_t kilohertz) {
  uint64_t ratio = ((uint64_t)kilohertz << 32) / soft_tsc_khz();
  if (ratio == 0 || ratio >> 32 >= RATIO_MOST) {
    return false;
  }
  cpu->tsc_khz = kilohertz;
  cpu->tsc_ratio = ratio;
  atomic_fetch_or(&cpu->attention, SOFT_ATTEND_CLOCK);
  return true;
}

uint64_t soft_tsc_to_ns(const soft_cpu *cpu, uint64_t ticks) {
  return times(ticks, tick_of(cpu->tsc_khz));
}

uint64_t soft_tsc(const soft_cpu *cpu) {
  return times(luna_tick(), cpu->tsc_ratio) + cpu->tsc_offset;
}

uint64_t soft_vm_clock(soft_vm *vm) {
  return host_ns() + atomic_load(&vm->clock_offset);
}

void soft_vm_set_clock(soft_vm *vm, uint64_t nanoseconds) {
  atomic_store(&vm->clock_offset, nanoseconds - host_ns());
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&vm->cpus[i]);
    if (cpu) {
      soft_wake(cpu, SOFT_ATTEND_CLOCK);
    }
  }
}

/* struct pvclock_vcpu_time_info: version, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift,
 * flags (Documentation/virt/kvm/x86/msr.rst). The version is odd while it changes. */
void soft_clock_update(soft_cpu *cpu) {
  if (!(cpu->clock_gpa & 1)) {
    return;
  }
  soft_park(cpu);
  uint8_t *page = soft_host(cpu, cpu->clock_gpa & ~UINT64_C(1), true);
  if (!page) {
    return;
  }
  uint64_t now = soft_tsc(cpu), ns = soft_vm_clock(cpu->vm), version = soft_peek(page, 32) + 1;
  soft_poke(page, version | 1, 32);
  soft_poke(page + 8, now, 64);
  soft_poke(page + 16, ns, 64);
  unsigned shift = 0; /* of the ticks, so that one of them is less than a nanosecond */
  while (tick_of(cpu->tsc_khz) >> shift >> 32) {
    shift++;
  }
  soft_poke(page + 24, (UINT64_C(1000000) << 32 >> shift) / cpu->tsc_khz, 32);
  soft_poke(page + 28, 0x0100 | shift, 16); /* the same on all vCPUs */
  soft_poke(page, (version | 1) + 1, 32);
}

/* struct pvclock_wall_clock: version, seconds, nanoseconds at the clock's zero. */
void soft_wall_clock(soft_cpu *cpu, uint64_t gpa) {
  uint8_t *page = soft_host(cpu, gpa & ~UINT64_C(3), true);
  if (!page) {
    return;
  }
  struct timespec time;
  soft_park(cpu);
  clock_gettime(CLOCK_REALTIME, &time);
  uint64_t boot =
      (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec - soft_vm_clock(cpu->vm);
  soft_poke(page + 4, boot / 1000000000u, 32);
  soft_poke(page + 8, boot % 1000000000u, 32);
  soft_poke(page, 2, 32);
}
