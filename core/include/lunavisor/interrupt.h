/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: interrupts, interrupt controllers inside KVM, and the time-stamp counter. */
#ifndef LUNAVISOR_INTERRUPT_H
#define LUNAVISOR_INTERRUPT_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef enum luna_irqchip {
  LUNA_IRQCHIP_NONE = 0,  /* no controller: the script is it */
  LUNA_IRQCHIP_SPLIT = 1, /* LAPICs in KVM; the IOAPIC is the script's: KVM_CAP_SPLIT_IRQCHIP */
  LUNA_IRQCHIP_KERNEL = 2 /* LAPICs, IOAPIC and PICs in KVM: KVM_CREATE_IRQCHIP */
} luna_irqchip;

/* ---- To one vCPU; any thread ---- */

/* Delivers an external interrupt: without a controller in KVM, when the guest next accepts one (IF
 * set, no interrupt shadow), of several the highest vector first; it also ends a HLT, before that
 * becomes an exit. With one, as a fixed edge interrupt at the vCPU's LAPIC, by its number as APIC
 * ID. 1 if it waits now; 0 if it waited already (without a controller), or the LAPIC is disabled
 * (bit 8 of SVR). _RANGE above 255, and below 16 with a controller in KVM; _UNSUPPORTED with a
 * controller for vCPUs from number 255 on. In the modes with a system area whose IDT the guest has
 * kept, the interrupt is a LUNA_EXIT_EXCEPTION with that vector, at the instruction that it came
 * before. */
LUNA_API int luna_vcpu_interrupt_vector(luna_vcpu *vcpu, uint32_t vector);
/* Lets luna_vcpu_run end as soon as the guest accepts an interrupt, for a controller that is the
 * embedder's: LUNA_EXIT_OTHER, whose reason is KVM_EXIT_IRQ_WINDOW_OPEN (7); at once, behind an
 * instruction whose exit was answered, if it accepts one now. Until `on` is 0. _STATE while the
 * vCPU runs on another thread. */
LUNA_API int luna_vcpu_window(luna_vcpu *vcpu, uint32_t on);
/* Hands KVM the vector of a PIC that is the embedder's, with LUNA_IRQCHIP_SPLIT (_STATE): the guest
 * takes it when it accepts interrupts and LINT0 of its LAPIC is open for them. One at a time: _BUSY
 * while one waits. _STATE while the vCPU runs or is started. */
LUNA_API int luna_vcpu_extint(luna_vcpu *vcpu, uint32_t vector);
/* What keeps events from the guest, in the form of the VMCS (SDM Vol. 3, 25.4.2): for one
 * instruction, STI (bit 0) or a load of SS (bit 1); NMIs until IRET (bit 3). Setting LUNA_RIP to
 * another instruction ends the first two, unless they were set here since the vCPU ran. _STATE
 * while the vCPU runs on another thread. */
LUNA_API int luna_vcpu_get_blocking(luna_vcpu *vcpu, uint32_t *blocking);
LUNA_API int luna_vcpu_set_blocking(luna_vcpu *vcpu, uint32_t blocking);
/* Which vector waits, without a controller in KVM: the highest, or -1. */
LUNA_API int luna_vcpu_interrupt_waiting(luna_vcpu *vcpu);
/* A non-maskable interrupt; a system management interrupt (_UNSUPPORTED without KVM_CAP_X86_SMM).
 * The vCPU gets them when it is entered next; one that waits already is not doubled. */
LUNA_API int luna_vcpu_nmi(luna_vcpu *vcpu);
LUNA_API int luna_vcpu_smi(luna_vcpu *vcpu);

/* ---- Through the VM's controllers ---- */

/* The calls of this part need a controller in KVM (_STATE). Every space has LAPICs of its own, and
 * what is sent goes to each space in which a vCPU is; what a guest sends (ICR) stays in its space.
 */

/* Sets the level of an interrupt line: a GSI of the routing table (_NOT_FOUND without a route). A
 * line that is routed as a message sends it whenever it is set to 1. Any thread. */
LUNA_API int luna_vm_irq(luna_vm *vm, uint32_t line, uint32_t level);
/* Sends a message-signalled interrupt (SDM Vol. 3, 11.11). 1 if a LAPIC took it, 0 if none did: it
 * is disabled or not there. The end of a level-triggered one is told where a route leads to the
 * same vector and destination. Any thread. */
LUNA_API int luna_vm_msi(luna_vm *vm, uint64_t address, uint32_t data);

typedef enum luna_chip {
  LUNA_CHIP_PIC_PRIMARY = 0,
  LUNA_CHIP_PIC_SECONDARY = 1,
  LUNA_CHIP_IOAPIC = 2
} luna_chip;

/* Where a line (GSI) leads: to a pin of a controller in KVM, or to a message. */
typedef struct luna_route {
  uint32_t line;
  uint32_t is_message;
  uint32_t chip; /* luna_chip */
  uint32_t pin;
  uint64_t address;
  uint32_t data;
  uint32_t reserved;
} luna_route;

/* Replaces the whole routing table, in every space (api.rst, KVM_SET_GSI_ROUTING). Pins are for
 * LUNA_IRQCHIP_KERNEL, where lines 0 to 23 lead to the IOAPIC and 0 to 15 to the PICs at first;
 * split: no line has a route at first, and a level interrupt ends with LUNA_EXIT_EOI on lines 0 to
 * 254; on the others a level-triggered message is _UNSUPPORTED. _RANGE from line 4096 on, _LIMIT
 * for more than 4096 routes, _ARGUMENT for a pin that is none, _STATE for one with another
 * irqchip. */
LUNA_API int luna_vm_route(luna_vm *vm, const luna_route *routes, size_t count);
/* Lets an eventfd raise a line; `resample` is another that KVM signals at the end of a level
 * interrupt (LUNA_IRQCHIP_KERNEL only), or -1 for edge. `on` 0 takes it away (_NOT_FOUND). The
 * descriptors stay the caller's. _UNSUPPORTED with several spaces, and further spaces are, while
 * there are some. */
LUNA_API int luna_vm_irqfd(luna_vm *vm, uint32_t line, int fd, int resample, uint32_t on);
/* The state of a controller (luna_chip) in the form of struct kvm_irqchip.chip, 512 bytes.
 * LUNA_IRQCHIP_KERNEL only (_STATE). */
LUNA_API int luna_vm_get_chip(luna_vm *vm, int chip, void *state);
LUNA_API int luna_vm_set_chip(luna_vm *vm, int chip, const void *state);
/* The frequency of the LAPIC timers, 16 MHz to 2 GHz (_RANGE); before the first vCPU (_STATE).
 * KVM's cycles are whole nanoseconds, so that it becomes the nearest of those, at most 1 GHz:
 * luna_vm_apic_frequency tells. _UNSUPPORTED without KVM_CAP_X86_APIC_BUS_CYCLES_NS. */
LUNA_API int luna_vm_set_apic_frequency(luna_vm *vm, uint64_t hertz);
/* 1 GHz where it was not set; 0 without LAPICs in KVM. */
LUNA_API uint64_t luna_vm_apic_frequency(const luna_vm *vm);

/* ---- A vCPU's LAPIC; _STATE without one in KVM, and while the vCPU runs on another thread ---- */

enum {
  LUNA_APIC_SIZE = 1024 /* of the register page, struct kvm_lapic_state */
};

LUNA_API int luna_vcpu_get_apic(luna_vcpu *vcpu, void *registers);
LUNA_API int luna_vcpu_set_apic(luna_vcpu *vcpu, const void *registers);
/* One register by its offset in the page (SDM Vol. 3, table 11-1). Writing has no effect beyond the
 * register: ICR sends nothing; but for the initial count, with which the timer starts anew. Where a
 * one-shot timer may have run out while an exit is open, and its interrupt has not reached the IRR,
 * a write lets it come once more rather than lose it. */
LUNA_API int luna_vcpu_read_apic(luna_vcpu *vcpu, uint32_t offset, uint32_t *value);
LUNA_API int luna_vcpu_write_apic(luna_vcpu *vcpu, uint32_t offset, uint32_t value);
/* Fires the timer's entry of the local vector table, as if it had run out: 1, or 0 if masked. */
LUNA_API int luna_vcpu_fire_timer(luna_vcpu *vcpu);

typedef enum luna_mp_state {
  LUNA_MP_RUNNABLE = 0,
  LUNA_MP_UNINITIALIZED = 1, /* waits for INIT */
  LUNA_MP_INIT_RECEIVED = 2, /* waits for SIPI */
  LUNA_MP_HALTED = 3,
  LUNA_MP_SIPI_RECEIVED = 4
} luna_mp_state;

/* Without a LAPIC in KVM a vCPU is always runnable. */
LUNA_API int luna_vcpu_get_mp_state(luna_vcpu *vcpu, uint32_t *state);
LUNA_API int luna_vcpu_set_mp_state(luna_vcpu *vcpu, uint32_t state);
/* What INIT and SIPI do (SDM Vol. 3, 9.4): real mode at vector << 12, general registers 0,
 * runnable. For start-up by hand, with any controller. _STATE while an exit is open. */
LUNA_API int luna_vcpu_sipi(luna_vcpu *vcpu, uint32_t vector);

/* ---- The time-stamp counter ---- */

/* Its frequency in kHz; setting needs KVM_CAP_TSC_CONTROL (_UNSUPPORTED), except to the same. None
 * of these while the vCPU runs on another thread (_STATE). */
LUNA_API int luna_vcpu_get_tsc_frequency(luna_vcpu *vcpu, uint32_t *kilohertz);
LUNA_API int luna_vcpu_set_tsc_frequency(luna_vcpu *vcpu, uint32_t kilohertz);
/* Its distance to the host's, in ticks; _UNSUPPORTED where KVM keeps none (before Linux 5.16, or
 * where guests read the host's counter as it is). */
LUNA_API int luna_vcpu_get_tsc_offset(luna_vcpu *vcpu, int64_t *offset);
LUNA_API int luna_vcpu_set_tsc_offset(luna_vcpu *vcpu, int64_t offset);
/* Makes the counters of all vCPUs of the VM show `tsc` at one and the same moment. Gets those that
 * run out of the guest for it. */
LUNA_API int luna_vm_sync_tsc(luna_vm *vm, uint64_t tsc);

#endif
