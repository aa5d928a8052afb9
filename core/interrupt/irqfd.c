/* SPDX-License-Identifier: MIT
 * eventfds that raise interrupt lines without an exit (api.rst, KVM_IRQFD), in one space only. */
#include "base/error.h"
#include "interrupt/controllers.h"
#include "kvm/kvm_interrupt.h"
#include "memory/space.h"
#include "memory/vm.h"

#include <errno.h>
#include <stdlib.h>

typedef struct luna_line_event {
  uint32_t line;
  int fd;
} luna_line_event;

static int check_irqfd(const luna_vm *vm, uint32_t line, int resample) {
  if (resample >= 0 && vm->irqchip != LUNA_IRQCHIP_KERNEL) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot let an eventfd raise line %u as a level interrupt: KVM resamples only "
                     "with its own IOAPIC (irqchip 'kernel')",
                     line);
  }
  for (uint32_t i = 1; i < vm->space_count; i++) {
    if (vm->spaces[i]) {
      return luna_fail(LUNA_ERROR_UNSUPPORTED,
                       "cannot let an eventfd raise line %u: the VM has several spaces, and KVM "
                       "lets an eventfd raise lines in one only",
                       line);
    }
  }
  return LUNA_OK;
}

/* KVM does not say whether there was one to take away. */
static int note_event(luna_vm *vm, uint32_t line, int fd, uint32_t on) {
  luna_line_event *events = vm->controllers->irqfds;
  if (on) {
    events = realloc(events, (vm->controllers->irqfd_count + 1) * sizeof *events);
    if (!events) {
      return luna_fail_errno(ENOMEM, "cannot let descriptor %d raise line %u", fd, line);
    }
    events[vm->controllers->irqfd_count++] = (luna_line_event){line, fd};
    vm->controllers->irqfds = events;
    return LUNA_OK;
  }
  for (uint32_t i = 0; i < vm->controllers->irqfd_count; i++) {
    if (events[i].line == line && events[i].fd == fd) {
      events[i] = events[--vm->controllers->irqfd_count];
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND, "descriptor %d does not raise interrupt line %u", fd,
                   line);
}

int luna_vm_irqfd(luna_vm *vm, uint32_t line, int fd, int resample, uint32_t on) {
  int status = luna_controllers_needed(vm, "let an eventfd raise an interrupt line");
  if (status != LUNA_OK) {
    return status;
  }
  struct kvm_irqfd event = {.fd = (uint32_t)fd, .gsi = line};
  if (!on) {
    event.flags = KVM_IRQFD_FLAG_DEASSIGN;
  } else if (resample >= 0) {
    event.flags = KVM_IRQFD_FLAG_RESAMPLE;
    event.resamplefd = (uint32_t)resample;
  }
  pthread_rwlock_wrlock(&vm->lock);
  status = on ? check_irqfd(vm, line, resample) : LUNA_OK;
  status = status == LUNA_OK ? note_event(vm, line, fd, on) : status;
  if (status == LUNA_OK && luna_kvm_irqfd(vm->spaces[0]->vm_fd, &event) != 0) {
    status = luna_fail_errno(errno, "cannot %s descriptor %d raise interrupt line %u",
                             on ? "let" : "no longer let", fd, line);
    vm->controllers->irqfd_count -= on ? 1 : 0;
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}
