/* SPDX-License-Identifier: MIT
 * KVM's hypercalls (Documentation/virt/kvm/x86/hypercalls.rst): those about interrupts of other
 * vCPUs. CPUID leaf 0x40000001 names them. */
#include "soft/execute/execute.h"
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"
#include "soft/vmx/vmx.h"

#include <errno.h>
#include <linux/kvm_para.h>

enum {
  HC_KICK_CPU = 5,
  HC_SEND_IPI = 10,
  HC_SCHED_YIELD = 11
};

static soft_cpu *find(soft_vm *vm, uint64_t id) {
  return id < SOFT_CPUS_MAX ? atomic_load(&vm->cpus[id]) : NULL;
}

/* Wakes a vCPU that is halted, whatever its IF. */
static uint64_t kick(soft_vm *vm, uint64_t id) {
  soft_cpu *cpu = find(vm, id);
  if (cpu) {
    atomic_store(&cpu->kicked, true);
    soft_wake(cpu, SOFT_ATTEND_EVENT);
  }
  return 0;
}

/* The interrupt of an ICR, to the vCPUs of a bitmap of two words that begins with `first`: how many
 * took it. */
static uint64_t send(soft_vm *vm, const uint64_t *bitmap, unsigned bits, uint64_t first,
                     uint64_t command) {
  soft_message message = {.vector = (uint8_t)command, .delivery = command >> 8 & 7, .wide = true};
  uint64_t taken = 0;
  for (unsigned i = 0; i < 2 * bits; i++) {
    if (bitmap[i / bits] >> i % bits & 1 && find(vm, first + i)) {
      message.destination = (uint32_t)(first + i);
      taken += soft_message_send(vm, message);
    }
  }
  return taken;
}

static uint64_t call(soft_cpu *cpu, uint64_t number, const uint64_t *arguments, unsigned bits) {
  if (cpu->vm->chip.kind == SOFT_CHIP_NONE) {
    return (uint64_t)-KVM_ENOSYS;
  }
  soft_park(cpu);
  switch (number) {
    case HC_KICK_CPU:
      return kick(cpu->vm, arguments[1]);
    case HC_SEND_IPI:
      return send(cpu->vm, arguments, bits, arguments[2], arguments[3]);
    case HC_SCHED_YIELD: /* the host's scheduler sees to it */
      return 0;
    default:
      return (uint64_t)-KVM_ENOSYS;
  }
}

/* Outside of 64-bit mode all is 32 bits. */
SOFT_OP(vmcall) {
  static const uint8_t registers[] = {RBX, RCX, RDX, RSI};
  int bits = soft_is_64(cpu) ? 64 : 32;
  uint64_t arguments[4];
  cpu->current = insn;
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_VMCALL, 0);
  }
  for (unsigned i = 0; i < 4; i++) {
    arguments[i] = soft_gpr(cpu, registers[i], bits);
  }
  uint64_t result = cpu->cpl ? (uint64_t)-KVM_EPERM
                             : call(cpu, soft_gpr(cpu, RAX, bits), arguments, (unsigned)bits);
  soft_set_gpr(cpu, RAX, result, bits);
  SOFT_END;
}

/* AMD's, which a monitor of Intel's does not know. */
SOFT_OP(vmmcall) {
  soft_need(cpu, insn, !cpu->controlled);
  return soft_op_vmcall(cpu, insn, 0);
}
