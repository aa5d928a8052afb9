/* SPDX-License-Identifier: MIT
 * Port notifiers of the Hypervisor framework: one or several on a port, and what still exits. */
#include "fixture/hvf_fixture.h"

#include <sys/eventfd.h>

enum {
  EVENTS = 4,
  ANY = HV_ION_ANY_VALUE,
  WHATEVER = HV_ION_ANY_VALUE | HV_ION_ANY_SIZE
};

static int fds[EVENTS];
static mach_port_t ports[EVENTS];

static void open_events(void) {
  for (int i = 0; i < EVENTS; i++) {
    fds[i] = eventfd(0, EFD_NONBLOCK);
    ports[i] = (mach_port_t)fds[i];
  }
}

static void close_events(void) {
  for (int i = 0; i < EVENTS; i++) {
    close(fds[i]);
  }
}

static uint64_t drain(int i) {
  uint64_t value = 0;
  return read(fds[i], &value, sizeof value) == (ssize_t)sizeof value ? value : 0;
}

static void check_counts(uint64_t a, uint64_t b, uint64_t c) {
  CHECK_EQ(drain(0), a);
  CHECK_EQ(drain(1), b);
  CHECK_EQ(drain(2), c);
}

static void again(void) {
  set(HV_X86_RIP, CODE);
}

static void notifiers_swallow_what_they_match(void) {
  /* mov al, 1; out 0x10, al; mov al, 2; out 0x10, al; ax; out 0x11, al; out 0x12, ax; hlt */
  BEGIN(0xb0, 1, 0xe6, 0x10, 0xb0, 2, 0xe6, 0x10, 0xe7, 0x10, 0xe6, 0x11, 0xe7, 0x12, 0xf4);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 1, 1, ports[0], HV_ION_NONE));
  HV(hv_vm_add_pio_notifier(0x11, 1, 0, ports[0], ANY));
  HV(hv_vm_add_pio_notifier(0x12, 1, 0, ports[0], WHATEVER));
  CHECK_EQ(run(), VMX_REASON_IO); /* the value 2 */
  CHECK_EQ(get(HV_X86_RIP), CODE + 6);
  CHECK_EQ(drain(0), 1);
  skip();
  CHECK_EQ(run(), VMX_REASON_IO); /* the size 2 */
  CHECK_EQ(get(HV_X86_RIP), CODE + 8);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(drain(0), 2);
  HV(hv_vm_remove_pio_notifier(0x10, 1, 1, ports[0], HV_ION_NONE));
  again();
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  end();
  close_events();
}

/* mov ax, 0x102; out 0x10, ax; al; mov al, 3; out 0x10, al; in al, 0x10; hlt */
#define SEVERAL 0xb8, 0x02, 0x01, 0xe7, 0x10, 0xe6, 0x10, 0xb0, 0x03, 0xe6, 0x10, 0xe4, 0x10, 0xf4

static void check_several(void) {
  CHECK_EQ(run(), VMX_REASON_IO); /* a read is nothing to them */
  CHECK_EQ(get(HV_X86_RIP), CODE + 11);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
}

static void a_port_can_have_notifiers_of_several_sizes(void) {
  BEGIN(SEVERAL);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 1, 2, ports[0], HV_ION_NONE));
  HV(hv_vm_add_pio_notifier(0x10, 1, 3, ports[1], HV_ION_NONE));
  HV(hv_vm_add_pio_notifier(0x10, 2, 0, ports[2], ANY));
  check_several();
  check_counts(1, 1, 1);
  end();
  close_events();
}

static void a_write_signals_all_that_it_matches(void) {
  BEGIN(SEVERAL);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 1, 2, ports[0], HV_ION_NONE));
  HV(hv_vm_add_pio_notifier(0x10, 1, 0, ports[1], ANY));
  HV(hv_vm_add_pio_notifier(0x10, 0, 0, ports[2], WHATEVER));
  check_several();
  check_counts(1, 2, 3);
  HV(hv_vm_remove_pio_notifier(0x10, 0, 0, ports[2], WHATEVER));
  again();
  CHECK_EQ(run(), VMX_REASON_IO); /* of 2 bytes */
  CHECK_EQ(get(HV_X86_RIP), CODE + 3);
  skip();
  check_several();
  check_counts(1, 2, 0);
  HV(hv_vm_remove_pio_notifier(0x10, 1, 2, ports[0], HV_ION_NONE));
  HV(hv_vm_remove_pio_notifier(0x10, 1, 0, ports[1], ANY));
  again();
  for (uint64_t rip = CODE + 3; rip < CODE + 10; rip += rip == CODE + 5 ? 4 : 2) {
    CHECK_EQ(run(), VMX_REASON_IO);
    CHECK_EQ(get(HV_X86_RIP), rip);
    skip();
  }
  check_counts(0, 0, 0);
  HV(hv_vm_add_pio_notifier(0x10, 1, 3, ports[0], HV_ION_NONE)); /* as if there had been none */
  end();
  close_events();
}

static void any_size_can_want_a_value(void) {
  BEGIN(SEVERAL);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 4, 3, ports[0], HV_ION_ANY_SIZE));
  HV(hv_vm_add_pio_notifier(0x10, 1, 0x102, ports[1], HV_ION_ANY_SIZE));
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE + 5); /* 2 of 1 byte */
  skip();
  check_several();
  check_counts(1, 1, 0);
  end();
  close_events();
}

static void a_full_eventfd_is_an_exit_where_it_is_asked_for(void) {
  const uint64_t most = UINT64_MAX - 1;
  /* out 0x10, al; out 0x11, al; hlt */
  BEGIN(0xe6, 0x10, 0xe6, 0x11, 0xf4);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 1, 0, ports[0], ANY | HV_ION_EXIT_FULL));
  HV(hv_vm_add_pio_notifier(0x11, 1, 0, ports[0], ANY));
  HV(hv_vm_add_pio_notifier(0x11, 0, 0, ports[0], WHATEVER)); /* comes to the library too */
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(drain(0), 3);
  CHECK_EQ(write(fds[0], &most, sizeof most), (ssize_t)sizeof most);
  again();
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT); /* the other is lost */
  CHECK_EQ(drain(0), most);
  end();
  close_events();
}

static void a_full_eventfd_keeps_the_write_from_older_ones(void) {
  const uint64_t most = UINT64_MAX - 1;
  /* out 0x10, al; hlt */
  BEGIN(0xe6, 0x10, 0xf4);
  open_events();
  HV(hv_vm_add_pio_notifier(0x20, 1, 0, ports[0], ANY)); /* taken away: the order stays */
  HV(hv_vm_add_pio_notifier(0x10, 1, 0, ports[0], ANY));
  HV(hv_vm_add_pio_notifier(0x10, 1, 0, ports[1], ANY | HV_ION_EXIT_FULL));
  HV(hv_vm_add_pio_notifier(0x10, 1, 0, ports[2], ANY));
  HV(hv_vm_remove_pio_notifier(0x20, 1, 0, ports[0], ANY));
  CHECK_EQ(write(fds[1], &most, sizeof most), (ssize_t)sizeof most);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  check_counts(0, most, 1);
  CHECK_EQ(run(), VMX_REASON_HLT);
  check_counts(1, 1, 1);
  end();
  close_events();
}

static void ports_side_by_side_have_their_own(void) {
  /* out 0x10, ax; out 0x12, al; out 0x11, al; out 0x13, al; hlt */
  BEGIN(0xe7, 0x10, 0xe6, 0x12, 0xe6, 0x11, 0xe6, 0x13, 0xf4);
  open_events();
  HV(hv_vm_add_pio_notifier(0x10, 2, 0, ports[0], HV_ION_ANY_SIZE));
  HV(hv_vm_add_pio_notifier(0x12, 1, 0, ports[1], HV_ION_ANY_SIZE));
  HV(hv_vm_add_pio_notifier(0x0e, 1, 0, ports[2], HV_ION_ANY_SIZE));
  set(HV_X86_RAX, 0);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE + 4);
  skip();
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE + 6);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  check_counts(1, 1, 0);
  end();
  close_events();
}

static void notifiers_are_checked(void) {
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, 0, HV_ION_NONE), HV_NO_DEVICE);
  HV_IS(hv_vm_remove_pio_notifier(0x10, 1, 1, 0, HV_ION_NONE), HV_NO_DEVICE);
  BEGIN(0xf4);
  open_events();
  const mach_port_t port = ports[0];
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, ~0u, HV_ION_NONE), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, 1, HV_ION_NONE), HV_BAD_ARGUMENT); /* no eventfd */
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, 1, HV_ION_EXIT_FULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_add_pio_notifier(0x10, 3, 1, port, HV_ION_NONE), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, port, 1), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_add_pio_notifier(0x10, 1, 0x100, port, HV_ION_NONE), HV_BAD_ARGUMENT);
  CHECK(strstr(hv_ext_error_message(), "no write of 1 byte has the value 0x100"));
  HV_IS(hv_vm_add_pio_notifier(0x10, 2, 0x10000, port, HV_ION_NONE), HV_BAD_ARGUMENT);
  for (int i = 0; i < 2; i++) { /* alone, and beside one that it meets */
    HV(hv_vm_add_pio_notifier(0x10, 1, 1, port, HV_ION_NONE));
    HV_IS(hv_vm_add_pio_notifier(0x10, 1, 1, port, HV_ION_NONE), HV_BUSY);
    HV_IS(hv_vm_remove_pio_notifier(0x10, 2, 1, port, HV_ION_NONE), HV_BAD_ARGUMENT);
    HV_IS(hv_vm_remove_pio_notifier(0x10, 1, 2, port, HV_ION_NONE), HV_BAD_ARGUMENT);
    HV_IS(hv_vm_remove_pio_notifier(0x10, 1, 1, port, ANY), HV_BAD_ARGUMENT);
    HV(hv_vm_remove_pio_notifier(0x10, 1, 1, port, HV_ION_NONE));
    HV_IS(hv_vm_remove_pio_notifier(0x10, 1, 1, port, HV_ION_NONE), HV_BAD_ARGUMENT);
    HV(i ? HV_SUCCESS : hv_vm_add_pio_notifier(0x10, 1, 0, port, WHATEVER));
  }
  end();
  HV(hv_vm_create(HV_VM_DEFAULT)); /* a new VM has none */
  HV(hv_vm_add_pio_notifier(0x10, 1, 1, port, HV_ION_NONE));
  HV(hv_vm_destroy());
  close_events();
}

int main(void) {
  RUN_KVM(notifiers_swallow_what_they_match);
  RUN_KVM(a_port_can_have_notifiers_of_several_sizes);
  RUN_KVM(a_write_signals_all_that_it_matches);
  RUN_KVM(any_size_can_want_a_value);
  RUN_KVM(a_full_eventfd_is_an_exit_where_it_is_asked_for);
  RUN_KVM(a_full_eventfd_keeps_the_write_from_older_ones);
  RUN_KVM(ports_side_by_side_have_their_own);
  RUN_KVM(notifiers_are_checked);
  return test_end();
}
