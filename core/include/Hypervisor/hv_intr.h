/* SPDX-License-Identifier: MIT
 * Interrupt controllers. With HV_VM_ACCEL_APIC each vCPU has a local APIC inside KVM, and the VM an
 * I/O APIC of 32 pins and two 8259A PICs here, whose registers the guest reaches through the
 * program: accesses to the page at 0xfec00000 are EPT violations, those to the PICs' ports are IO
 * exits, to be handed to hv_vm_ioapic_read and _write, hv_vm_atpic_port_read and _write. A vCPU
 * that halts waits inside KVM. Without HV_VM_ACCEL_APIC all of that is the program's, and the calls
 * here are HV_UNSUPPORTED, but for those that say otherwise. Further errors and the meaning of
 * "owner": see hv.h. The calls that are not the owner's may come from any thread at any time.
 *
 * A new vCPU runs, whatever its number; hv_vcpu_apic_put_state (boot_state) makes one wait in
 * hv_vcpu_run for INIT and SIPI. What these do to a vCPU is done here: a program that does it again
 * at their exits finds it done. vCPU 0 is the bootstrap processor, which an INIT has begin anew.
 *
 * What the accelerator does with a local APIC does not exit: the guest's accesses, its timer, IPIs;
 * on KVM also INIT and SIPI, which on the software CPU exit behind the instruction (INIT_AP,
 * STARTUP_AP; a SIPI only if a vCPU waits for it). */
#ifndef HYPERVISOR_HV_INTR_H
#define HYPERVISOR_HV_INTR_H

#include <Hypervisor/hv_arch_x86.h>
#include <Hypervisor/hv_types.h>

HV_BEGIN

/* ---- Types ---- */

enum hv_boot_state {
  HV_BS_INIT = 0,   /* waits for INIT */
  HV_BS_SIPI = 1,   /* waits for SIPI */
  HV_BS_RUNNING = 2 /* runs, or is halted */
};

/* A local APIC. `lvt` is in the order of the registers: timer, thermal, performance counters,
 * LINT0, LINT1, error, CMCI. KVM does not tell esr_pending and aeoi, which are 0. */
struct hv_apic_state {
  uint64_t apic_gpa;
  uint64_t apic_controls; /* HV_APIC_CTRL_* */
  uint64_t tsc_deadline;
  uint32_t apic_id;
  uint32_t ver;
  uint32_t tpr;
  uint32_t apr;
  uint32_t ldr;
  uint32_t dfr;
  uint32_t svr;
  uint32_t isr[8];
  uint32_t tmr[8];
  uint32_t irr[8];
  uint32_t esr;
  uint32_t lvt[7];
  uint32_t icr[2];
  uint32_t icr_timer; /* initial count */
  uint32_t dcr_timer; /* divide configuration */
  uint32_t ccr_timer; /* current count */
  uint32_t esr_pending;
  enum hv_boot_state boot_state;
  uint32_t aeoi[8];
};

enum {
  HV_APIC_STATE_EXT_VER = 100
};
typedef struct {
  uint32_t version; /* HV_APIC_STATE_EXT_VER, also before get_state */
  struct hv_apic_state state;
} hv_apic_state_ext_t;

/* One of the two PICs. */
struct hv_atpic_state {
  bool ready;           /* has been initialized */
  uint8_t icw_num;      /* initialization command word that is next, 1 to 4 */
  uint8_t rd_cmd_reg;   /* what a read of the command port gives: bit 0 ISR, else IRR */
  bool aeoi;            /* automatic EOI */
  bool poll;            /* the next read polls */
  bool rotate;          /* at an automatic EOI */
  bool sfn;             /* special fully nested mode */
  uint8_t irq_base;     /* the vector of line 0 */
  uint8_t request;      /* IRR */
  uint8_t service;      /* ISR */
  uint8_t mask;         /* IMR */
  bool smm;             /* special mask mode */
  uint8_t last_request; /* levels of the lines */
  uint8_t lowprio;      /* the line of lowest priority */
  bool intr_raised;     /* its output */
  uint8_t elc;          /* lines that are level-triggered */
};

enum {
  HV_ATPIC_STATE_EXT_VER = 100
};
typedef struct {
  uint32_t version; /* HV_ATPIC_STATE_EXT_VER, also before get_state */
  struct hv_atpic_state state;
} hv_atpic_state_ext_t;

/* The I/O APIC. */
struct hv_ioapic_state {
  uint64_t rtbl[32];
  uint32_t irr; /* levels of the lines */
  uint32_t ioa_id;
  uint32_t ioregsel;
};

enum {
  HV_IOAPIC_STATE_EXT_VER = 100
};
typedef struct {
  uint32_t version; /* HV_IOAPIC_STATE_EXT_VER, also before get_state */
  struct hv_ioapic_state state;
} hv_ioapic_state_ext_t;

/* What there is to know of the last exit beside the VMCS. 0 before the first run. */
typedef uint32_t hv_vm_exitinfo_t;
enum {
  HV_VM_EXITINFO_VMX = 1,
  HV_VM_EXITINFO_INIT_AP = 2,
  HV_VM_EXITINFO_STARTUP_AP = 3,
  HV_VM_EXITINFO_IOAPIC_EOI = 4,
  HV_VM_EXITINFO_INJECT_EXCP = 5,
  HV_VM_EXITINFO_SMI = 6, /* KVM makes no such exit */
  HV_VM_EXITINFO_APIC_ACCESS_READ = 7
};

typedef uint64_t hv_apic_ctrl_t;
enum {
  HV_APIC_CTRL_DEFAULT = 0,
  HV_APIC_CTRL_EOI_ICR_TPR = 1 << 0,
  HV_APIC_CTRL_GUEST_IDLE = 1 << 1,
  HV_APIC_CTRL_NO_TIMER = 1 << 2,
  HV_APIC_CTRL_IOAPIC_EOI = 1 << 3 /* ends of level interrupts exit */
};

typedef uint32_t hv_apic_lvt_flavor_t;
enum {
  HV_APIC_LVT_FLAVOR_TIMER = 1
};

typedef uint32_t hv_apic_intr_trigger_t;
enum {
  HV_APIC_EDGE_TRIGGER = 0,
  HV_APIC_EDGE_TRIGGER_AEOI = 1,
  HV_APIC_LEVEL_TRIGGER = 2
};

/* ---- Interrupts ---- */

/* Sends a fixed interrupt, vector 16 to 255, to the local APIC of a vCPU. HV_UNSUPPORTED for
 * HV_APIC_EDGE_TRIGGER_AEOI. */
HV_API hv_return_t hv_vm_lapic_set_intr(hv_vcpuid_t vcpu, uint8_t vector,
                                        hv_apic_intr_trigger_t trig);
/* Sends a message-signalled interrupt (SDM Vol. 3, 11.11): `addr` is the whole address, from
 * 0xfee00000 on. That no local APIC takes it is no error. */
HV_API hv_return_t hv_vm_lapic_msi(uint64_t addr, uint64_t data);
/* Sends what a redirection entry of an I/O APIC that is the program's says. For level interrupts
 * whose end shall be an exit, here and in the two calls above, see hv_vcpu_apic_ctrl: of 223
 * destinations and vectors the end can be outstanding, HV_NO_RESOURCES for one more. */
HV_API hv_return_t hv_vm_send_ioapic_intr(uint64_t data);
/* Lets the vCPU take an interrupt of the PICs as soon as it accepts one, if they request one: as
 * LINT0 of vCPU 0 does by itself where its entry says so. HV_BUSY while one is queued. Owner. */
HV_API hv_return_t hv_vcpu_inject_extint(hv_vcpuid_t vcpu);
/* The frequency of the local APICs' timers, 16 MHz to 2 GHz, to which KVM comes as near as whole
 * nanoseconds can. HV_BUSY while the VM has vCPUs; HV_UNSUPPORTED where KVM cannot (Linux 6.11). */
HV_API hv_return_t hv_vm_set_apic_bus_freq(uint64_t hz);

/* ---- The I/O APIC ---- */

/* Sets the level of pin `intin`, 0 to 31; a pulse is both, one after the other. */
HV_API hv_return_t hv_vm_ioapic_assert_irq(int intin);
HV_API hv_return_t hv_vm_ioapic_deassert_irq(int intin);
HV_API hv_return_t hv_vm_ioapic_pulse_irq(int intin);
/* An access to its page, at 0xfec00000 (HV_BAD_ARGUMENT for another address). */
HV_API hv_return_t hv_vm_ioapic_read(hv_gpaddr_t gpa, uint32_t *datap);
HV_API hv_return_t hv_vm_ioapic_write(hv_gpaddr_t gpa, uint32_t data);
/* Its whole state. HV_BAD_ARGUMENT if `version` is another. Nothing is sent by putting it. */
HV_API hv_return_t hv_vm_ioapic_get_state(hv_ioapic_state_ext_t *state);
HV_API hv_return_t hv_vm_ioapic_put_state(const hv_ioapic_state_ext_t *state);

/* ---- The PICs ---- */

/* Sets the level of line `irq`, 0 to 15 without 2. */
HV_API hv_return_t hv_vm_atpic_assert_irq(int irq);
HV_API hv_return_t hv_vm_atpic_deassert_irq(int irq);
/* An access to one of their ports: 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 (HV_BAD_ARGUMENT for
 * another). */
HV_API hv_return_t hv_vm_atpic_port_read(int port, uint8_t *valuep);
HV_API hv_return_t hv_vm_atpic_port_write(int port, uint8_t value);
/* The whole state of one. HV_BAD_ARGUMENT if `version` is another. */
HV_API hv_return_t hv_vm_atpic_get_state(hv_atpic_state_ext_t *state, bool is_primary);
HV_API hv_return_t hv_vm_atpic_put_state(const hv_atpic_state_ext_t *state, bool is_primary);

/* ---- A vCPU's local APIC: owner ---- */

/* The register at an offset of its page (SDM Vol. 3, table 11-1), a multiple of 16 below 0x400
 * (HV_BAD_ARGUMENT). */
HV_API hv_return_t hv_vcpu_apic_read(hv_vcpuid_t vcpu, uint32_t offset, uint32_t *data);
/* Writes it, with all that this has as a consequence. `*no_side_effect` is false if there is
 * something left for the program: hv_vcpu_exit_info says what, INIT_AP, STARTUP_AP, IOAPIC_EOI or
 * INJECT_EXCP. */
HV_API hv_return_t hv_vcpu_apic_write(hv_vcpuid_t vcpu, uint32_t offset, uint32_t data,
                                      bool *no_side_effect);
/* Its whole state. HV_BAD_ARGUMENT if `version` is another, or a field has a value that it cannot
 * have. */
HV_API hv_return_t hv_vcpu_apic_get_state(hv_vcpuid_t vcpu, hv_apic_state_ext_t *state);
HV_API hv_return_t hv_vcpu_apic_put_state(hv_vcpuid_t vcpu, const hv_apic_state_ext_t *state);
/* Fires the entry of the local vector table, unless it is masked. HV_APIC_LVT_FLAVOR_TIMER is the
 * only one. */
HV_API hv_return_t hv_vcpu_apic_trigger_lvt(hv_vcpuid_t vcpu, hv_apic_lvt_flavor_t flavor);
/* How the local APIC behaves. IOAPIC_EOI: the end of a level interrupt is an exit. HV_UNSUPPORTED
 * for the others: KVM's timer cannot be switched off, and it has no such MSRs. */
HV_API hv_return_t hv_vcpu_apic_ctrl(hv_vcpuid_t vcpu, hv_apic_ctrl_t ctrls);

/* The load-store cache: tells of an instruction (its RIP, length and CS, and up to two pages of the
 * program that the translation depends on) which moves a register or a constant to or from the
 * local APIC, so that it need not exit again. KVM does these by itself, and none exits: the
 * arguments are checked, and that is all. */
HV_API hv_return_t hv_vcpu_apic_lsc_enter_r32(hv_vcpuid_t vcpu, bool is_load, uint64_t rip,
                                              unsigned int ilen, uint16_t cs, hv_x86_reg_t reg,
                                              uint64_t uva[], unsigned int count);
HV_API hv_return_t hv_vcpu_apic_lsc_enter_imm32(hv_vcpuid_t vcpu, uint64_t rip, unsigned int ilen,
                                                uint16_t cs, uint32_t imm32, uint64_t uva[],
                                                unsigned int count);
HV_API hv_return_t hv_vcpu_apic_lsc_invalidate(hv_vcpuid_t vcpu);

/* ---- After an exit, or hv_vcpu_apic_write: owner ---- */

/* What else there is to know: HV_VM_EXITINFO_*. Not only with HV_VM_ACCEL_APIC. */
HV_API hv_return_t hv_vcpu_exit_info(hv_vcpuid_t vcpu, hv_vm_exitinfo_t *code);
/* The details of that. HV_ERROR if the last exit was of another kind.
 * init_ap, startup_ap: `is_actv[id]` is true for each vCPU that INIT or SIPI was sent to, or that
 * the guest's SIPI starts; `count` elements are written. `*ap_rip` is where they start. */
HV_API hv_return_t hv_vcpu_exit_init_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count);
HV_API hv_return_t hv_vcpu_exit_startup_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count,
                                           uint64_t *ap_rip);
/* The vector of the level interrupt that has ended. */
HV_API hv_return_t hv_vcpu_exit_ioapic_eoi(hv_vcpuid_t vcpu, uint8_t *vec);
/* The value that the guest reads. */
HV_API hv_return_t hv_vcpu_exit_apic_access_read(hv_vcpuid_t vcpu, uint32_t *value);
/* The exception that the guest is to take for an access which the local APIC's mode does not have:
 * its vector, whether it has an error code and which; `*restart` is true if it is a fault. */
HV_API hv_return_t hv_vcpu_exit_inject_excp(hv_vcpuid_t vcpu, uint8_t *vec, bool *valid,
                                            uint32_t *code, bool *restart);

HV_END

#endif
