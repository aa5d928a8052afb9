/* SPDX-License-Identifier: MIT
 * Events that a program of the Hypervisor framework injects, and the windows for them. */
#include "fixture/hvf_fixture.h"

static void an_exception_can_be_injected(void) {
  BEGIN(0x90, 0xf4);
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  memcpy(ram + 6 * 4, "\x00\x20\x00\x00", 4); /* #UD to 0:2000 */
  ram[0x2000] = 0xf4;
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 6);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 6);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2000);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0); /* once */
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO, 1 << 20), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO,
                               IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 40),
        HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO,
                               IRQ_INFO_VALID | IRQ_INFO_SOFT_IRQ | 40),
        follows() ? HV_SUCCESS : HV_UNSUPPORTED);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_NMI | 3),
        HV_BAD_ARGUMENT);
  end();
}

/* A vector table whose entries lead to a HLT at 0:2000 + vector. */
static void set_vectors(void) {
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  for (unsigned vector = 0; vector < 256; vector++) {
    ram[vector * 4] = (uint8_t)vector;
    ram[vector * 4 + 1] = 0x20;
    ram[0x2000 + vector] = 0xf4;
  }
}

static void interrupts_and_nmis_can_be_injected(void) {
  static const struct {
    uint32_t info, vector;
  } events[] = {{IRQ_INFO_EXT_IRQ | 8, 8}, {IRQ_INFO_EXT_IRQ | 0x70, 0x70}, {IRQ_INFO_NMI | 2, 2}};
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    BEGIN(0x90, 0xf4);
    set_vectors();
    set(HV_X86_RFLAGS, 0x202);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | events[i].info);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), 0x2000 + events[i].vector);
    CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), events[i].vector == 2 ? 8 : 0);
    end();
  }
}

/* Delivery ends what STI or MOV SS block (SDM Vol. 3, 27.7.1), also at an exit in the handler. */
static void an_event_ends_the_shadow(void) {
  for (uint64_t blocked = 1; blocked <= 2; blocked++) {
    BEGIN(0x90, 0xf4);
    set_vectors();
    set(HV_X86_RFLAGS, 0x202);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, blocked);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 6);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), 0x2006);
    CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
    end();
  }
}

/* The pending exit of the monitor trap flag, by which a debugger goes on (SDM Vol. 3, 27.6.2). */
static void a_step_can_be_injected(void) {
  const uint32_t info = IRQ_INFO_VALID | 7 << 8;
  BEGIN(0xe4, 0x10, 0xf4); /* in al, 0x10; hlt */
  CHECK_EQ(run(), VMX_REASON_IO);
  set(HV_X86_RAX, 0x5a);
  skip();
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, info);
  CHECK_EQ(run(), VMX_REASON_MTF);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO, info | 1), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | 1 << 8),
        HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_VMENTRY_IRQ_INFO,
                               IRQ_INFO_VALID | IRQ_INFO_SOFT_EXC | 32),
        HV_BAD_ARGUMENT);
  end();
}

/* Comes out without having entered: a request to stop came before, or the deadline has passed. */
static void stop_at_once(bool interrupted) {
  HV(interrupted ? hv_vcpu_interrupt(&vcpu, 1) : HV_SUCCESS);
  HV(hv_vcpu_run_until(vcpu, interrupted ? HV_DEADLINE_FOREVER : 1));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), interrupted ? VMX_REASON_IRQ : VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK_EQ(get(HV_X86_RIP), CODE);
}

static void an_event_that_the_guest_has_not_taken_stays(void) {
  static const uint32_t events[] = {IRQ_INFO_EXT_IRQ | 0x21, IRQ_INFO_NMI | 2,
                                    IRQ_INFO_HARD_EXC | 6, IRQ_INFO_SOFT_IRQ | 0x21};
  for (size_t i = 0; i < 2 * (sizeof events / sizeof *events - !follows()); i++) {
    const uint32_t info = IRQ_INFO_VALID | events[i / 2];
    test_note("event 0x%x", info);
    BEGIN(0x90, 0xf4);
    set_vectors();
    set(HV_X86_RFLAGS, 0x202);
    set_field(VMCS_CTRL_VMENTRY_INSTR_LEN, 2);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, info);
    stop_at_once(i % 2);
    CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), info);
    stop_at_once(i % 2);
    CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), info);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), 0x2000 + (info & 0xff));
    CHECK_EQ(get(HV_X86_RSP), 0x8000 - 6); /* once */
    CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
    set(HV_X86_RIP, CODE);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, info);
    stop_at_once(i % 2);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, 0); /* the program has changed its mind */
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), CODE + 1);
    end();
  }
}

static void an_interrupt_that_waits_is_in_its_field(void) {
  const uint32_t info = IRQ_INFO_VALID | IRQ_INFO_EXT_IRQ | 0x21;
  BEGIN(0xe6, 0x10, 0xfb, 0x90, 0xf4); /* out 0x10, al; sti; nop; hlt */
  set_vectors();
  set(HV_X86_RFLAGS, 2);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, info);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), info);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2021);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
  end();
}

/* A KVM that emulates looks for the window only now and then: the guest waits for it. */
static void an_interrupt_window_is_an_exit(void) {
  BEGIN(0x90, 0xfb, 0x90, 0xeb, 0xfe); /* nop; sti; nop; for ever */
  set_vectors();
  uint64_t controls = field(VMCS_CTRL_CPU_BASED);
  set_field(VMCS_CTRL_CPU_BASED, controls | CPU_BASED_IRQ_WND);
  set(HV_X86_RFLAGS, 2);
  CHECK_EQ(run(), VMX_REASON_IRQ_WND);
  CHECK(get(HV_X86_RIP) >= CODE + 2);
  CHECK_EQ(get(HV_X86_RFLAGS) & 0x200, 0x200);
  uint64_t rip = get(HV_X86_RIP);
  CHECK_EQ(run(), VMX_REASON_IRQ_WND); /* it is open still */
  CHECK_EQ(get(HV_X86_RIP), rip);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  set_field(VMCS_CTRL_CPU_BASED, controls);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_EXT_IRQ | 0x21);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2021);
  end();
}

/* The handler of an NMI: what is there until its IRET is done. */
static void an_nmi_window_is_an_exit(void) {
  BEGIN(0x90, 0xf4); /* nop; hlt */
  set_vectors();
  ram[0x2002] = 0x43; /* inc bx; iret */
  ram[0x2003] = 0xcf;
  uint64_t controls = field(VMCS_CTRL_CPU_BASED);
  set_field(VMCS_CTRL_PIN_BASED, field(VMCS_CTRL_PIN_BASED) | PIN_BASED_VIRTUAL_NMI);
  set_field(VMCS_CTRL_CPU_BASED, controls | CPU_BASED_VIRTUAL_NMI_WND);
  CHECK_EQ(run(), VMX_REASON_VIRTUAL_NMI_WND); /* it is open */
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  set(HV_X86_RBX, 0);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_NMI | 2);
  CHECK_EQ(run(), VMX_REASON_VIRTUAL_NMI_WND); /* behind the IRET */
  CHECK_EQ(get(HV_X86_RBX), 1);
  CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
  set_field(VMCS_CTRL_CPU_BASED, controls);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void an_nmi_window_waits_for_what_was_answered(void) {
  BEGIN(0xe4, 0x10, 0xf4); /* in al, 0x10; hlt */
  CHECK_EQ(run(), VMX_REASON_IO);
  set(HV_X86_RAX, 0x5a);
  skip();
  uint64_t controls = field(VMCS_CTRL_CPU_BASED);
  set_field(VMCS_CTRL_PIN_BASED, field(VMCS_CTRL_PIN_BASED) | PIN_BASED_VIRTUAL_NMI);
  set_field(VMCS_CTRL_CPU_BASED, controls | CPU_BASED_VIRTUAL_NMI_WND);
  CHECK_EQ(run(), VMX_REASON_VIRTUAL_NMI_WND);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  set_field(VMCS_CTRL_CPU_BASED, controls);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  end();
}

int main(void) {
  RUN_KVM(an_exception_can_be_injected);
  RUN_KVM(interrupts_and_nmis_can_be_injected);
  RUN_KVM(an_event_ends_the_shadow);
  RUN_KVM(a_step_can_be_injected);
  RUN_KVM(an_event_that_the_guest_has_not_taken_stays);
  RUN_KVM(an_interrupt_that_waits_is_in_its_field);
  RUN_KVM(an_interrupt_window_is_an_exit);
  RUN_KVM(an_nmi_window_is_an_exit);
  RUN_KVM(an_nmi_window_waits_for_what_was_answered);
  return test_end();
}
