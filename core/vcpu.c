/* SPDX-License-Identifier: MIT
 * The vCPU handle: its life, and what is public about it. */
#include "base/error.h"
#include "base/live.h"
#include "debug/breakpoint.h"
#include "exit/lookup.h"
#include "exit/reach.h"
#include "exit/system.h"
#include "interrupt/apic.h"
#include "interrupt/controllers.h"
#include "kvm/host.h"
#include "kvm/kick.h"
#include "memory/space.h"
#include "memory/vm.h"
#include "run/loop.h"
#include "run/move.h"
#include "run/thread.h"
#include "run/trail.h"
#include "seat/fresh.h"
#include "seat/seat.h"
#include "vcpu/check.h"
#include "vcpu/cpuid.h"
#include "vcpu/guard.h"
#include "vcpu/mode.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"
#include "vm.h"

#include <errno.h>
#include <stdlib.h>

static int open_vcpu(luna_vcpu *vcpu, const luna_host *host) {
  luna_seat *seat;
  luna_space *space = vcpu->space;
  int status = luna_controllers_make(vcpu->vm);
  pthread_rwlock_wrlock(&vcpu->vm->lock);
  status = status == LUNA_OK ? luna_seat_take(space, vcpu->id, &seat) : status;
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (status != LUNA_OK) {
    return status;
  }
  luna_move_sit(vcpu, space, seat);
  vcpu->sync_regs = host->sync_regs & (LUNA_DIRTY_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS);
  status = luna_cpuid_begin(vcpu);
  if (status == LUNA_OK && seat->owner) {
    status = luna_seat_reset(seat, vcpu->id);
    if (status == LUNA_OK && vcpu->vm->irqchip) {
      status = luna_apic_reset(vcpu);
    }
  }
  if (status == LUNA_OK && !seat->owner && !vcpu->vm->irqchip) {
    luna_seat_note_fresh(seat);
  }
  seat->owner = vcpu->serial;
  return status == LUNA_OK ? luna_state_begin(vcpu) : status;
}

static void destroy(luna_vcpu *vcpu) {
  luna_thread_end(vcpu);
  luna_move_cancel(vcpu);
  if (vcpu->seat) {
    luna_vcpu_abandon(vcpu);
    luna_debug_end(vcpu);
  }
  luna_system_end(vcpu);
  luna_move_rise(vcpu);
  luna_vm_give_vcpu(vcpu->vm, vcpu->id);
  luna_vm_release(vcpu->vm);
  luna_cpuid_end(vcpu);
  free(vcpu->controls);
  free(vcpu->shadow_vmcs);
  free(vcpu);
}

static int check_host(const luna_host *host) {
  if (!host->immediate_exit) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make a vCPU: this kernel's KVM has no KVM_CAP_IMMEDIATE_EXIT, which "
                     "stopping a guest needs; use Linux 4.13 or newer");
  }
  return LUNA_OK;
}

/* A vCPU with the parts that the floors keep of it, in one piece. */
typedef struct whole {
  luna_vcpu vcpu;
  luna_lookup lookup;
  luna_thread thread;
  luna_trail trail;
} whole;

static luna_vcpu *assemble(void) {
  static atomic_ulong serial;
  whole *made = calloc(1, sizeof *made);
  if (!made) {
    return NULL;
  }
  luna_vcpu *vcpu = &made->vcpu;
  vcpu->serial = atomic_fetch_add(&serial, 1) + 1;
  vcpu->finisher = &luna_loop_finisher;
  vcpu->lookup = &made->lookup;
  vcpu->thread = &made->thread;
  vcpu->trail = &made->trail;
  luna_lookup_forget(vcpu);
  return vcpu;
}

/* The state that the options ask for. All memory is there before KVM's controllers are: see
 * luna_controllers_make. */
static int begin(luna_vcpu *vcpu, const luna_vcpu_options *options, const luna_host *host) {
  const uint8_t *area = NULL;
  int status = luna_mode_check(options->mode);
  status = status == LUNA_OK ? luna_system_begin(vcpu, options, &area) : status;
  status = status == LUNA_OK ? open_vcpu(vcpu, host) : status;
  status = status == LUNA_OK ? luna_mode_set(vcpu, options, area) : status;
  return status == LUNA_OK ? luna_apic_begin(vcpu, options) : status;
}

int luna_vcpu_create(luna_vm *vm, const luna_vcpu_options *options, luna_vcpu **vcpu) {
  const luna_vcpu_options reset = {0};
  const luna_host *host = vm->host;
  int status = check_host(host);
  if (status != LUNA_OK) {
    return status;
  }
  luna_vcpu *made = assemble();
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot make a vCPU");
  }
  status = luna_vm_take_vcpu(vm, &made->id);
  if (status != LUNA_OK) {
    free(made);
    return status;
  }
  made->vm = vm;
  luna_vm_retain(vm);
  pthread_rwlock_rdlock(&vm->lock);
  made->space = vm->spaces[0];
  pthread_rwlock_unlock(&vm->lock);
  status = begin(made, options ? options : &reset, host);
  if (status != LUNA_OK) {
    const luna_failure failure = luna_failure_take();
    destroy(made);
    luna_failure_put(&failure);
    return status;
  }
  luna_reference_start(&made->reference, LUNA_OBJECT_VCPU);
  *vcpu = made;
  return LUNA_OK;
}

void luna_vcpu_retain(luna_vcpu *vcpu) {
  luna_reference_add(&vcpu->reference);
}

void luna_vcpu_release(luna_vcpu *vcpu) {
  if (luna_reference_drop(&vcpu->reference, LUNA_OBJECT_VCPU)) {
    destroy(vcpu);
  }
}

uint32_t luna_vcpu_id(const luna_vcpu *vcpu) {
  return vcpu->id;
}

uint64_t luna_vcpu_exits(const luna_vcpu *vcpu) {
  return atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
}

uint64_t luna_vcpu_system(const luna_vcpu *vcpu) {
  return vcpu->system;
}

void luna_vcpu_interrupt(luna_vcpu *vcpu) {
  luna_kick_request(&vcpu->kick);
}

void luna_vcpu_disarm(luna_vcpu *vcpu) {
  (void)vcpu;
  luna_kick_disarm();
}

int luna_vcpu_check_entry(luna_vcpu *vcpu, uint64_t *qualification) {
  const uint64_t of_pdptes = 2;
  char text[256];
  *qualification = 0;
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int found = luna_check_find(vcpu, false, text, sizeof text);
  *qualification = found == LUNA_CHECK_PDPTES ? of_pdptes : 0;
  return found > 0 ? luna_fail(LUNA_ERROR_STATE, "%s", text) : found;
}

int luna_vcpu_check(luna_vcpu *vcpu) {
  uint64_t qualification;
  int status = luna_vcpu_check_entry(vcpu, &qualification);
  return status == LUNA_OK ? luna_reach_check(vcpu) : status;
}
