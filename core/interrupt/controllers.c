/* SPDX-License-Identifier: MIT
 * Interrupt controllers inside KVM (api.rst, KVM_CREATE_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP): making
 * them, their lines, messages, routes and state. A space is a KVM VM of its own and has its own
 * LAPICs: what is sent to the VM is sent to every space in which a vCPU is. */
#include "interrupt/controllers.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "kvm/kvm_interrupt.h"
#include "memory/space.h"
#include "memory/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS /* Linux 6.11 */
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

enum {
  PINS = 24, /* of an IOAPIC */
  PIC_PINS = 8,
  LINES_ENDING = 255, /* KVM tells the end of a level interrupt of the first so many: it keeps their
                         number, KVM_CAP_SPLIT_IRQCHIP's argument, in 8 bits */
  ROUTES_MOST = 4096, /* KVM_MAX_IRQ_ROUTES */
  CHIP_SIZE = 512
};

/* ---- Making them ---- */

void luna_controllers_begin(luna_controllers *controllers, const luna_vm_options *options) {
  controllers->pit = options->pit;
  controllers->made = false;
  pthread_mutex_init(&controllers->moving, NULL);
}

void luna_controllers_end(luna_controllers *controllers) {
  pthread_mutex_destroy(&controllers->moving);
  free(controllers->routing);
  free(controllers->irqfds);
}

int luna_controllers_check(const luna_vm_options *options) {
  if (options->irqchip > LUNA_IRQCHIP_KERNEL) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a VM with irqchip %u: there is none",
                     options->irqchip);
  }
  if (options->pit && options->irqchip != LUNA_IRQCHIP_KERNEL) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a VM with a PIT in KVM: that needs KVM's own IOAPIC, irqchip "
                     "'kernel'");
  }
  return LUNA_OK;
}

/* KVM says in several ways that it does not know a thing. */
static int fail_make(int number, const char *name) {
  if (number == EINVAL || number == ENOTTY || number == ENXIO || number == EOPNOTSUPP) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED, "cannot make a VM with %s: this host's KVM has none",
                     name);
  }
  return luna_fail_errno(number, "cannot make a VM with %s", name);
}

static const char whole_chip[] = "an interrupt controller (KVM_CREATE_IRQCHIP)";
static const char pit_chip[] = "a PIT (KVM_CREATE_PIT2)";

static int begin_chip(const luna_vm *vm, const luna_space *space) {
  int result = 0;
  const char *name = whole_chip;
  if (vm->irqchip == LUNA_IRQCHIP_SPLIT) {
    name = "a split interrupt controller (KVM_CAP_SPLIT_IRQCHIP)";
    result = luna_kvm_enable_cap(space->vm_fd, KVM_CAP_SPLIT_IRQCHIP, LINES_ENDING);
  } else if (vm->irqchip == LUNA_IRQCHIP_KERNEL) {
    result = luna_kvm_create_irqchip(space->vm_fd);
    result = result != 0 && errno == EEXIST ? 0 : result; /* it was the PIT that failed */
  }
  if (result == 0 && vm->controllers->pit) {
    name = pit_chip;
    result = luna_kvm_create_pit(space->vm_fd);
  }
  return result == 0 ? LUNA_OK : fail_make(errno, name);
}

static int set_bus_cycle(const luna_space *space, uint32_t nanoseconds) {
  if (luna_kvm_enable_cap(space->vm_fd, KVM_CAP_X86_APIC_BUS_CYCLES_NS, nanoseconds) == 0) {
    return LUNA_OK;
  }
  return luna_fail_errno(errno, "cannot give the LAPIC timers of space %u a cycle of %u ns",
                         space->id, nanoseconds);
}

static int set_routing(const luna_space *space, const struct kvm_irq_routing *routing) {
  if (luna_kvm_set_routing(space->vm_fd, routing) == 0) {
    return LUNA_OK;
  }
  return luna_fail_errno(errno, "cannot set the %u routes of interrupt lines in space %u",
                         routing->nr, space->id);
}

/* Since Linux 6.18 KVM_CREATE_IRQCHIP begins a grace period, for which the next change of the
 * memory waits: 6 ms at 250 Hz. So memory that is mapped before the first vCPU comes first. */
static bool is_late(const luna_vm *vm) {
  return vm->irqchip == LUNA_IRQCHIP_KERNEL;
}

int luna_controllers_make(luna_vm *vm) {
  luna_controllers *controllers = vm->controllers;
  if (!is_late(vm) || atomic_load(&controllers->made)) {
    return LUNA_OK;
  }
  pthread_rwlock_wrlock(&vm->lock);
  bool made = atomic_load(&controllers->made);
  int status = made ? LUNA_OK : begin_chip(vm, vm->spaces[0]); /* there is no other */
  atomic_store(&controllers->made, status == LUNA_OK);
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

/* KVM waits for that grace period at the end too, and longer: a change of the memory hastens it. */
void luna_controllers_leave(const luna_vm *vm) {
  const luna_space *space = vm->spaces[0];
  if (!atomic_load(&vm->controllers->made)) {
    return;
  }
  for (uint32_t slot = 0; slot < space->next_slot; slot++) {
    if (space->by_slot[slot]) {
      const struct kvm_userspace_memory_region none = {.slot = slot};
      luna_kvm_set_region(space->vm_fd, &none);
      return;
    }
  }
}

int luna_controllers_join(const luna_vm *vm, const luna_space *space) {
  if (is_late(vm)) {
    const luna_host *host = vm->host;
    bool can = host->irqchip && (!vm->controllers->pit || host->pit);
    return can ? LUNA_OK : fail_make(ENXIO, host->irqchip ? pit_chip : whole_chip);
  }
  int status = begin_chip(vm, space);
  if (status == LUNA_OK && vm->controllers->bus_cycle) {
    status = set_bus_cycle(space, vm->controllers->bus_cycle);
  }
  return status == LUNA_OK && vm->controllers->routing
             ? set_routing(space, vm->controllers->routing)
             : status;
}

int luna_controllers_check_space(const luna_vm *vm) {
  if (vm->irqchip == LUNA_IRQCHIP_KERNEL) {
    return luna_fail(
        LUNA_ERROR_UNSUPPORTED,
        "cannot make a further space: the VM's IOAPIC and PICs are in KVM, which keeps "
        "them for each space apart; make the VM with a split interrupt controller");
  }
  if (vm->controllers->irqfd_count) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make a further space: %u eventfd%s lines of the VM, and KVM lets an "
                     "eventfd raise lines in one space only",
                     vm->controllers->irqfd_count,
                     vm->controllers->irqfd_count == 1 ? " raises" : "s raise");
  }
  return LUNA_OK;
}

int luna_controllers_needed(luna_vm *vm, const char *what) {
  return vm->irqchip ? luna_controllers_make(vm)
                     : luna_fail(LUNA_ERROR_STATE,
                                 "cannot %s: the VM was made without an interrupt controller in "
                                 "KVM (irqchip 'split' or 'kernel')",
                                 what);
}

/* ---- Lines and messages ---- */

static bool is_routed(const luna_vm *vm, uint32_t line) {
  if (!vm->controllers->routing) {
    return vm->irqchip == LUNA_IRQCHIP_KERNEL && line < PINS;
  }
  for (uint32_t i = 0; i < vm->controllers->routing->nr; i++) {
    if (vm->controllers->routing->entries[i].gsi == line) {
      return true;
    }
  }
  return false;
}

/* Calls KVM for each space in which a vCPU is; the IOAPIC's lines are there without one. The
 * highest answer, -1 if all fail. No LAPIC moves meanwhile. */
static int each_space(luna_vm *vm, int (*call)(const luna_space *, const void *),
                      const void *context) {
  int most = -1;
  uint32_t calls = 0;
  pthread_mutex_lock(&vm->controllers->moving);
  pthread_rwlock_rdlock(&vm->lock);
  for (uint32_t i = 0; i < vm->space_count; i++) {
    const luna_space *space = vm->spaces[i];
    if (space && (vm->irqchip == LUNA_IRQCHIP_KERNEL || atomic_load(&space->vcpus) > 0)) {
      int result = call(space, context);
      most = result > most ? result : most;
      calls++;
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  pthread_mutex_unlock(&vm->controllers->moving);
  return calls > 0 ? most : 0;
}

typedef struct line_level {
  uint32_t line;
  uint32_t level;
} line_level;

static int set_line(const luna_space *space, const void *context) {
  const line_level *change = context;
  return luna_kvm_irq_line(space->vm_fd, change->line, change->level);
}

int luna_vm_irq(luna_vm *vm, uint32_t line, uint32_t level) {
  int status = luna_controllers_needed(vm, "set an interrupt line");
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_rdlock(&vm->lock);
  bool routed = is_routed(vm, line);
  pthread_rwlock_unlock(&vm->lock);
  if (!routed) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "cannot set interrupt line %u: it has no route; give the VM routes first",
                     line);
  }
  const line_level change = {line, level != 0};
  return each_space(vm, set_line, &change) < 0
             ? luna_fail_errno(errno, "cannot set interrupt line %u to %u", line, level)
             : LUNA_OK;
}

typedef struct message {
  uint64_t address;
  uint32_t data;
} message;

/* KVM answers EPERM where no LAPIC is the destination. */
static int send(const luna_space *space, const void *context) {
  const message *msi = context;
  int taken = luna_kvm_signal_msi(space->vm_fd, msi->address, msi->data);
  return taken < 0 && errno == EPERM ? 0 : taken;
}

int luna_vm_msi(luna_vm *vm, uint64_t address, uint32_t data) {
  int status = luna_controllers_needed(vm, "send a message-signalled interrupt");
  if (status != LUNA_OK) {
    return status;
  }
  const message msi = {address, data};
  int taken = each_space(vm, send, &msi);
  if (taken < 0) {
    return luna_fail_errno(errno, "cannot send the message 0x%x to 0x%" PRIx64, data, address);
  }
  return taken > 0;
}

/* ---- Routes ---- */

/* A level interrupt whose end nobody is told would never come again. */
static int check_message(const luna_vm *vm, const luna_route *route) {
  const uint32_t level = 1 << 15; /* SDM Vol. 3, 11.11.2 */
  if (vm->irqchip == LUNA_IRQCHIP_SPLIT && route->data & level && route->line >= LINES_ENDING) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot route interrupt line %u to the level-triggered message 0x%x: KVM "
                     "tells the end of such interrupts for lines 0 to %d only; take one of these",
                     route->line, route->data, LINES_ENDING - 1);
  }
  return LUNA_OK;
}

static int check_route(const luna_vm *vm, const luna_route *route) {
  if (route->line >= ROUTES_MOST) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot route interrupt line %u: the last is %d",
                     route->line, ROUTES_MOST - 1);
  }
  if (route->is_message) {
    return check_message(vm, route);
  }
  uint32_t pins = route->chip == LUNA_CHIP_IOAPIC ? PINS : PIC_PINS;
  if (route->chip > LUNA_CHIP_IOAPIC || route->pin >= pins) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot route interrupt line %u to pin %u of controller %u: there is none",
                     route->line, route->pin, route->chip);
  }
  if (vm->irqchip != LUNA_IRQCHIP_KERNEL) {
    return luna_fail(
        LUNA_ERROR_STATE,
        "cannot route interrupt line %u to a pin: the VM's controllers are not in KVM; "
        "route it to a message",
        route->line);
  }
  return LUNA_OK;
}

static struct kvm_irq_routing_entry entry_of(const luna_route *route) {
  struct kvm_irq_routing_entry entry = {.gsi = route->line, .type = KVM_IRQ_ROUTING_IRQCHIP};
  if (route->is_message) {
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = (uint32_t)route->address;
    entry.u.msi.address_hi = (uint32_t)(route->address >> 32);
    entry.u.msi.data = route->data;
  } else {
    entry.u.irqchip.irqchip = route->chip;
    entry.u.irqchip.pin = route->pin;
  }
  return entry;
}

static int make_routing(const luna_vm *vm, const luna_route *routes, size_t count,
                        struct kvm_irq_routing **routing) {
  if (count > ROUTES_MOST) {
    return luna_fail(LUNA_ERROR_LIMIT,
                     "cannot set %zu routes of interrupt lines: KVM has room for %d", count,
                     ROUTES_MOST);
  }
  for (size_t i = 0; i < count; i++) {
    int status = check_route(vm, &routes[i]);
    if (status != LUNA_OK) {
      return status;
    }
  }
  struct kvm_irq_routing *made =
      calloc(1, sizeof *made + count * sizeof(struct kvm_irq_routing_entry));
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot set %zu routes of interrupt lines", count);
  }
  made->nr = (uint32_t)count;
  for (size_t i = 0; i < count; i++) {
    made->entries[i] = entry_of(&routes[i]);
  }
  *routing = made;
  return LUNA_OK;
}

/* In every space or in none. KVM's own routes cannot be put back, but with those there is one
 * space. */
static int apply_routing(const luna_vm *vm, const struct kvm_irq_routing *routing) {
  static const struct kvm_irq_routing none = {0};
  int status = LUNA_OK;
  uint32_t done = 0;
  while (done < vm->space_count && status == LUNA_OK) {
    status = vm->spaces[done] ? set_routing(vm->spaces[done], routing) : LUNA_OK;
    done += status == LUNA_OK;
  }
  while (status != LUNA_OK && done-- > 0) {
    if (vm->spaces[done]) {
      luna_kvm_set_routing(vm->spaces[done]->vm_fd,
                           vm->controllers->routing ? vm->controllers->routing : &none);
    }
  }
  return status;
}

int luna_vm_route(luna_vm *vm, const luna_route *routes, size_t count) {
  struct kvm_irq_routing *routing = NULL;
  int status = luna_controllers_needed(vm, "route interrupt lines");
  status = status == LUNA_OK ? make_routing(vm, routes, count, &routing) : status;
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_wrlock(&vm->lock);
  status = apply_routing(vm, routing);
  if (status == LUNA_OK) {
    struct kvm_irq_routing *old = vm->controllers->routing;
    vm->controllers->routing = routing;
    routing = old;
  }
  pthread_rwlock_unlock(&vm->lock);
  free(routing);
  return status;
}

/* ---- State ---- */

static int check_chip(luna_vm *vm, int chip) {
  if (chip < LUNA_CHIP_PIC_PRIMARY || chip > LUNA_CHIP_IOAPIC) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no interrupt controller %d", chip);
  }
  if (vm->irqchip != LUNA_IRQCHIP_KERNEL) {
    return luna_fail(LUNA_ERROR_STATE,
                     "the VM's IOAPIC and PICs are not in KVM: it was not made with irqchip "
                     "'kernel'");
  }
  return luna_controllers_make(vm);
}

int luna_vm_get_chip(luna_vm *vm, int chip, void *state) {
  int status = check_chip(vm, chip);
  if (status != LUNA_OK) {
    return status;
  }
  struct kvm_irqchip form = {.chip_id = (uint32_t)chip};
  if (luna_kvm_get_irqchip(vm->spaces[0]->vm_fd, &form) != 0) {
    return luna_fail_errno(errno, "cannot read the state of interrupt controller %d", chip);
  }
  memcpy(state, form.chip.dummy, CHIP_SIZE);
  return LUNA_OK;
}

int luna_vm_set_chip(luna_vm *vm, int chip, const void *state) {
  int status = check_chip(vm, chip);
  if (status != LUNA_OK) {
    return status;
  }
  struct kvm_irqchip form = {.chip_id = (uint32_t)chip};
  memcpy(form.chip.dummy, state, CHIP_SIZE);
  return luna_kvm_set_irqchip(vm->spaces[0]->vm_fd, &form) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot write the state of interrupt controller %d", chip);
}

/* ---- The LAPIC timers' frequency ---- */

static int check_frequency(const luna_vm *vm, uint64_t hertz) {
  if (hertz < 16000000 || hertz > 2000000000) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot run the LAPIC timers at %" PRIu64 " Hz: 16 MHz to 2 GHz are possible",
                     hertz);
  }
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i] && vm->spaces[i]->resident_count) {
      return luna_fail(LUNA_ERROR_STATE,
                       "cannot change the frequency of the LAPIC timers: KVM takes it only before "
                       "the VM's first vCPU");
    }
  }
  if (!luna_kvm_has(vm->host->accel, KVM_CAP_X86_APIC_BUS_CYCLES_NS)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot change the frequency of the LAPIC timers: this host's KVM has no "
                     "KVM_CAP_X86_APIC_BUS_CYCLES_NS (Linux 6.11)");
  }
  return LUNA_OK;
}

/* KVM counts in whole nanoseconds. The same cycle can be set again, so that a failure in a later
 * space leaves nothing but a cycle that the next call changes. */
int luna_vm_set_apic_frequency(luna_vm *vm, uint64_t hertz) {
  int status = luna_controllers_needed(vm, "change the frequency of the LAPIC timers");
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_wrlock(&vm->lock);
  status = check_frequency(vm, hertz);
  uint32_t cycle = status == LUNA_OK ? (uint32_t)((1000000000 + hertz / 2) / hertz) : 0;
  for (uint32_t i = 0; i < vm->space_count && status == LUNA_OK; i++) {
    status = vm->spaces[i] ? set_bus_cycle(vm->spaces[i], cycle) : LUNA_OK;
  }
  if (status == LUNA_OK) {
    vm->controllers->bus_cycle = cycle;
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

uint64_t luna_vm_apic_frequency(const luna_vm *vm) {
  if (!vm->irqchip) {
    return 0;
  }
  return 1000000000 / (vm->controllers->bus_cycle ? vm->controllers->bus_cycle : 1);
}
