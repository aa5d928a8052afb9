/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: accesses that are answered without leaving the kernel or the C core, blocks
 * of string I/O, and exits for MSRs. */
#ifndef LUNAVISOR_EVENT_H
#define LUNAVISOR_EVENT_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

enum {
  LUNA_EVENT_MATCH = 1,   /* only writes of `value` */
  LUNA_EVENT_ANY_SIZE = 2 /* writes of any size; not with LUNA_EVENT_MATCH */
};

/* A write of `size` bytes (1, 2, 4, for memory also 8) to a port or guest-physical address (`kind`:
 * luna_trap_kind) that makes an eventfd readable instead of leaving the guest (api.rst,
 * KVM_IOEVENTFD). */
typedef struct luna_eventfd {
  uint32_t kind;
  uint32_t flags; /* LUNA_EVENT_* */
  uint64_t address;
  uint64_t value;
  uint32_t size;
  int32_t fd;
} luna_eventfd;

/* Adds it in every space of the VM, also in those made later. A descriptor of 0 or more stays the
 * caller's; with -1 the VM makes a non-blocking eventfd, puts its number there, and closes it when
 * it is removed or with the VM. _OVERLAP where the same is there already, _SYSTEM for a descriptor
 * that is no eventfd, _UNSUPPORTED for writes of one byte to port 0xf4, which the exception stubs
 * of the modes with a system area use. */
LUNA_API int luna_vm_eventfd_add(luna_vm *vm, luna_eventfd *event);
/* Takes away what was added with the same fields. _NOT_FOUND if it was not. */
LUNA_API int luna_vm_eventfd_remove(luna_vm *vm, const luna_eventfd *event);
/* How many writes there were since the last call. A descriptor that blocks waits for the first. */
LUNA_API int luna_eventfd_read(int32_t fd, uint64_t *count);
/* Adds to the counter, as the guest's writes do: wakes who waits for it, and raises the line of
 * luna_vm_irqfd. */
LUNA_API int luna_eventfd_write(int32_t fd, uint64_t count);

/* Lets KVM collect the writes to a trapped range of ports or addresses and give them, in order, at
 * the next exit that comes for another reason, before that (api.rst, KVM_REGISTER_COALESCED_MMIO):
 * for devices that do not mind to hear late. Registers are then as at that other exit. Several
 * vCPUs in a space share what is collected: it goes to whichever leaves the guest first. It ends
 * with the trap; doing it twice is fine. _NOT_FOUND without such a trap, _ARGUMENT for MSRs, _RANGE
 * for 4 GiB or more, _UNSUPPORTED where KVM cannot. */
LUNA_API int luna_vm_coalesce(luna_vm *vm, uint32_t trap);

/* A trap that the core answers on the vCPU's own thread: reads and writes go to `buffer`, the byte
 * at `first` being the one at `offset`; an MSR takes 8 bytes. The trap holds a reference. An
 * aligned access is one access of the host's, and writes are marked (luna_buffer_mark). One that
 * runs past the end of the trap, writes to read-only memory, or meets memory that is gone is an
 * ordinary exit. luna_vm_untrap takes the trap away: when it returns, no vCPU uses the memory any
 * more. Errors as for luna_vm_trap; _RANGE also past the end of the buffer. */
LUNA_API int luna_vm_trap_memory(luna_vm *vm, int kind, uint64_t first, uint64_t length,
                                 luna_buffer *buffer, uint64_t offset, uint32_t *trap);
/* A function of the embedder that answers a trap on the thread that runs the vCPU: `access` is
 * LUNA_READ or LUNA_WRITE, `*value` the value read or written. 0 when the access is done; anything
 * else makes it an exit. When luna_vm_untrap returns, it is not called any more; it must not call
 * that itself (_STATE), and not luna_vcpu_stop, luna_vcpu_pause or the last luna_vcpu_release for
 * the vCPU that it is called for: they would wait for it. */
typedef int (*luna_trap_function)(void *context, uint64_t offset, uint32_t size, uint32_t access,
                                  uint64_t *value);
LUNA_API int luna_vm_trap_function(luna_vm *vm, int kind, uint64_t first, uint64_t length,
                                   luna_trap_function function, void *context, uint32_t *trap);

/* The elements of the open string I/O exit that are left, as one block: how many bytes
 * (luna_exit.size times luna_exit.count), and where they are until it is answered; what a read
 * gives goes there. 0 where no port access is open, and where each comes in parts to several
 * traps. */
LUNA_API uint32_t luna_vcpu_block(luna_vcpu *vcpu, uint8_t **data);
/* Answers all of them at once. _STATE where no port access is open. */
LUNA_API int luna_vcpu_answer_block(luna_vcpu *vcpu);

/* Refuses the open MSR exit: the guest gets a #GP at the instruction. */
LUNA_API int luna_vcpu_refuse(luna_vcpu *vcpu);

/* The name of a KVM_EXIT_* number in lower case ("io", "hyperv"), NULL for one that this library
 * does not know; and what it means, as a few words. */
LUNA_API const char *luna_reason_name(uint32_t reason);
LUNA_API const char *luna_reason_text(uint32_t reason);

/* Lets KVM hand on hypercalls as LUNA_EXIT_HYPERCALL, in every space of the VM: it does that for
 * KVM_HC_MAP_GPA_RANGE (12) alone, by which a guest says that it encrypts memory or shares it
 * (KVM_CAP_EXIT_HYPERCALL); all others it answers by itself. _UNSUPPORTED where it cannot. */
LUNA_API int luna_vm_hypercalls(luna_vm *vm);

/* Begins to count, from 0, or ends it: what luna_vcpu_time gives costs two looks at the clock at
 * every entry, and a descriptor in each space where the vCPU is counted, until that is destroyed.
 * _STATE while the vCPU runs. */
LUNA_API int luna_vcpu_account(luna_vcpu *vcpu, uint32_t on);
/* Nanoseconds that the vCPU has spent in the guest since luna_vcpu_account, up to its last exit,
 * and of these, those in which it was halted inside KVM (with a LAPIC there; else 0, and so where
 * KVM keeps no statistics: before Linux 5.14). While another thread moves it to another space,
 * idle_time may miss what it has just been halted. */
LUNA_API int luna_vcpu_time(luna_vcpu *vcpu, uint64_t *exec_time, uint64_t *idle_time);

#endif
