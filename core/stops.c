/* SPDX-License-Identifier: MIT
 * Where this host's KVM stops a guest, and setting breakpoints there. It is tried out with a small
 * guest in real mode, in ring 0 and in ring 3, since a KVM that runs nested or emulates may stop in
 * one and not in the other. */
#include "stops.h"

#include "base/error.h"
#include "debug/breakpoint.h"
#include "debug/software.h"
#include "kvm/host.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <string.h>

enum {
  CODE = 0x1000,
  WATCHING = 0x1010, /* code that writes to DATA */
  HALT = 0x1020,
  DATA = 0x800,
  STACK = 0x2000,
  MEMORY = 0x10000,
  MODES = 3
};
static const uint64_t patience = 2000000000; /* nanoseconds; two instructions need thousands */

static pthread_mutex_t probe_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  uint64_t host; /* which one the answers are of */
  int answers[LUNA_DEBUG_FEATURES];
} probed[LUNA_ACCEL_COUNT];

/* Two NOPs and HLT; a write and HLT; and in real mode a vector for INT3 that leads to a HLT. */
static void write_guest(uint8_t *memory, bool real) {
  static const uint8_t code[] = {0x90, 0x90, 0xf4};
  static const uint8_t write16[] = {0xc6, 0x06, 0x00, 0x08, 0x01, 0xf4};
  static const uint8_t write64[] = {0xc6, 0x04, 0x25, 0x00, 0x08, 0x00, 0x00, 0x01, 0xf4};
  static const uint8_t vector[] = {HALT & 0xff, HALT >> 8, 0, 0};
  memcpy(memory + CODE, code, sizeof code);
  memcpy(memory + WATCHING, real ? write16 : write64, real ? sizeof write16 : sizeof write64);
  memory[HALT] = 0xf4;
  if (real) {
    memcpy(memory + 3 * sizeof vector, vector, sizeof vector);
  }
}

/* The exit that comes from `rip` on: its kind, or a negative status. A guest that does not come
 * back says nothing of this KVM: the machine may be busy. */
static int run_from(luna_vcpu *vcpu, uint64_t rip) {
  uint64_t deadline = luna_clock() + patience;
  int kind = luna_vcpu_set(vcpu, LUNA_RIP, rip);
  while (kind == LUNA_OK || kind == LUNA_EXIT_SIGNAL) {
    kind = luna_vcpu_run(vcpu, deadline);
  }
  return kind != LUNA_EXIT_TIMEOUT
             ? kind
             : luna_fail(LUNA_ERROR_BUSY,
                         "cannot try out where this host's KVM stops a guest: one of two "
                         "instructions took longer than 2 s; try again when the host is less busy");
}

/* Whether the guest stops at a breakpoint of the kind: KVM_EXIT_* of how, 0 for not. */
static int stops(luna_vcpu *vcpu, int kind) {
  uint32_t number;
  bool data = kind == LUNA_BREAK_WRITE;
  int status = luna_debug_add(vcpu, kind, data ? DATA : CODE + 1, 1, &number);
  if (status != LUNA_OK) {
    return status;
  }
  int kind_of_exit = run_from(vcpu, data ? WATCHING : CODE);
  luna_vcpu_unbreak(vcpu, number);
  if (kind_of_exit < 0) {
    return kind_of_exit;
  }
  const luna_exit *e = luna_vcpu_exit(vcpu);
  return kind_of_exit == LUNA_EXIT_DEBUG && e->breakpoint == number ? (int)e->reason : 0;
}

static int try_kinds(luna_vcpu *vcpu, int bit) {
  int *answers = probed[vcpu->vm->host->accel].answers;
  static const int kinds[LUNA_DEBUG_FEATURES] = {LUNA_BREAK_EXECUTE, LUNA_BREAK_WRITE,
                                                 LUNA_BREAK_SOFTWARE};
  for (int i = 0; i < LUNA_DEBUG_FEATURES; i++) {
    int reason = stops(vcpu, kinds[i]);
    if (reason < 0) {
      return reason;
    }
    if (reason > 0) {
      answers[i] |= reason == KVM_EXIT_IO ? bit | bit * LUNA_DEBUG_AREA : bit;
    }
  }
  return LUNA_OK;
}

static int try_mode(luna_vm *vm, uint32_t mode, int bit) {
  const luna_vcpu_options options = {
      .mode = mode, .rip = CODE, .rsp = STACK, .system = LUNA_SYSTEM_ALLOCATE};
  luna_vcpu *vcpu;
  int status = luna_vcpu_create(vm, &options, &vcpu);
  if (status == LUNA_OK) {
    status = try_kinds(vcpu, bit);
    luna_vcpu_release(vcpu);
  }
  return status;
}

static int try_all(luna_vm *vm) {
  static const struct {
    uint32_t mode;
    int bit;
  } modes[MODES] = {{LUNA_MODE_REAL, LUNA_DEBUG_REAL},
                    {LUNA_MODE_LONG64, LUNA_DEBUG_RING0},
                    {LUNA_MODE_USER64, LUNA_DEBUG_RING3}};
  luna_buffer *memory;
  int status = luna_buffer_create(MEMORY, &memory);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_vm_map_space(vm, 0, memory, 0, 0, MEMORY, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE);
  for (int i = 0; i < MODES && status == LUNA_OK; i++) {
    write_guest(luna_buffer_data(memory), modes[i].mode == LUNA_MODE_REAL);
    status = try_mode(vm, modes[i].mode, modes[i].bit);
  }
  luna_buffer_release(memory);
  return status;
}

static int find_answers(const luna_host *host) {
  const luna_vm_options options = {.accel = host->accel};
  luna_vm *vm;
  memset(&probed[host->accel], 0, sizeof probed[host->accel]);
  int status = luna_vm_open(&options, &vm);
  if (status == LUNA_OK) {
    status = try_all(vm);
    luna_vm_release(vm);
  }
  probed[host->accel].host = status == LUNA_OK ? host->serial : 0;
  return status;
}

int luna_stops_probe(uint32_t accel, luna_stops_feature feature) {
  const luna_host *host = luna_host_get(accel);
  if (!host) {
    return luna_error_status();
  }
  pthread_mutex_lock(&probe_lock);
  int status = probed[accel].host == host->serial ? LUNA_OK : find_answers(host);
  int answer = status == LUNA_OK ? probed[accel].answers[feature] : status;
  pthread_mutex_unlock(&probe_lock);
  return answer;
}

/* Where the vCPU is, as a bit; 0 with an error. */
static int place_of(luna_vcpu *vcpu) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return 0;
  }
  if (!(sregs->cr0 & 1)) {
    return LUNA_DEBUG_REAL;
  }
  return sregs->ss.dpl == 3 ? LUNA_DEBUG_RING3 : LUNA_DEBUG_RING0;
}

static const char *name_of(int place) {
  return place == LUNA_DEBUG_REAL ? "real mode" : place == LUNA_DEBUG_RING3 ? "ring 3" : "ring 0";
}

static int check(luna_vcpu *vcpu, int kind) {
  static const struct {
    luna_stops_feature feature;
    const char *name;
    const char *advice;
  } kinds[] = {
      {LUNA_DEBUG_HARDWARE, "hardware breakpoint", "use a software breakpoint"},
      {LUNA_DEBUG_WATCH, "watchpoint", "take write rights away from the memory instead"},
      {LUNA_DEBUG_WATCH, "watchpoint", "take the rights away from the memory instead"},
      {LUNA_DEBUG_SOFTWARE, "software breakpoint", "use a hardware breakpoint"},
  };
  int answer = luna_stops_probe(vcpu->vm->host->accel, kinds[kind].feature);
  int place = answer < 0 ? 0 : place_of(vcpu);
  if (place == 0) {
    return luna_error_status();
  }
  if (!(answer & place)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot set a %s on vCPU %u: this host's KVM does not stop a guest there in "
                     "%s; %s",
                     kinds[kind].name, vcpu->id, name_of(place), kinds[kind].advice);
  }
  if (answer & place * LUNA_DEBUG_AREA && !vcpu->system) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot set a %s on vCPU %u: this host's KVM gives the guest its #BP in %s, "
                     "and only the system area of the modes from protected on takes that",
                     kinds[kind].name, vcpu->id, name_of(place));
  }
  return LUNA_OK;
}

int luna_vcpu_catchable(luna_vcpu *vcpu, uint32_t *vectors) {
  const int everywhere = LUNA_DEBUG_REAL | LUNA_DEBUG_RING0 | LUNA_DEBUG_RING3;
  *vectors = 0;
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int answer = luna_stops_probe(vcpu->vm->host->accel, LUNA_DEBUG_SOFTWARE);
  *vectors = answer == everywhere ? 1 << 3 : 0;
  return answer < 0 ? answer : LUNA_OK;
}

int luna_vcpu_catch(luna_vcpu *vcpu, uint32_t vectors) {
  uint32_t known = 0;
  int status = vectors ? luna_vcpu_catchable(vcpu, &known) : luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (vectors & ~known) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make exits of the exceptions 0x%x of vCPU %u: this host's KVM tells "
                     "of 0x%x (#BP is 0x8: it has to stop at INT3 in every mode by itself)",
                     vectors, vcpu->id, known);
  }
  status = vectors ? luna_debug_open(vcpu) : LUNA_OK;
  if (status == LUNA_OK && vcpu->debug) {
    vcpu->debug->catches = vectors;
    luna_debug_attend(vcpu);
  }
  return status;
}

int luna_vcpu_break(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  size = size ? size : 1;
  int status = luna_debug_check_shape(kind, gva, size);
  status = status == LUNA_OK ? check(vcpu, kind) : status;
  if (status == LUNA_OK && kind == LUNA_BREAK_SOFTWARE) {
    status = luna_software_check(vcpu, gva);
  }
  return status == LUNA_OK ? luna_debug_add(vcpu, kind, gva, size, breakpoint) : status;
}
