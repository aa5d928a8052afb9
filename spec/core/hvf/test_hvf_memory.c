/* SPDX-License-Identifier: MIT
 * The VM of the process, its spaces and its memory, as the Hypervisor framework has them. */
#include "fixture/hvf_fixture.h"

#include <sys/mman.h>

#include <stdatomic.h>
#include <sys/wait.h>

static void begin_vm(void) {
  HV(hv_vm_create(HV_VM_DEFAULT));
}

static void end_vm(void) {
  HV(hv_vm_destroy());
}

/* ---- Without a VM ---- */

static void check_no_vm(void) {
  hv_vm_space_t space;
  hv_vcpuid_t id = 0;
  HV_IS(hv_vm_destroy(), HV_NO_DEVICE);
  HV_IS(hv_vm_space_create(&space), HV_NO_DEVICE);
  HV_IS(hv_vm_space_destroy(1), HV_NO_DEVICE);
  HV_IS(hv_vm_map(page, 0, sizeof page, RWX), HV_NO_DEVICE);
  HV_IS(hv_vm_map_space(0, page, 0, sizeof page, RWX), HV_NO_DEVICE);
  HV_IS(hv_vm_unmap(0, sizeof page), HV_NO_DEVICE);
  HV_IS(hv_vm_unmap_space(0, 0, sizeof page), HV_NO_DEVICE);
  HV_IS(hv_vm_protect(0, sizeof page, RWX), HV_NO_DEVICE);
  HV_IS(hv_vm_protect_space(0, 0, sizeof page, RWX), HV_NO_DEVICE);
  HV_IS(hv_vcpu_create(&id, HV_VCPU_DEFAULT), HV_NO_DEVICE);
  HV_IS(hv_vcpu_interrupt(&id, 1), HV_NO_DEVICE);
}

static void calls_need_a_vm(void) {
  check_no_vm();
  begin_vm();
  end_vm();
  check_no_vm();
}

static void capabilities_need_none(void) {
  uint64_t vcpus = 0, spaces = 0;
  HV(hv_capability(HV_CAP_VCPUMAX, &vcpus));
  HV(hv_capability(HV_CAP_ADDRSPACEMAX, &spaces));
  CHECK(vcpus >= 1);
  CHECK(spaces >= 2);
  HV_IS(hv_capability(2, &vcpus), HV_BAD_ARGUMENT);
  HV_IS(hv_capability(HV_CAP_VCPUMAX, NULL), HV_BAD_ARGUMENT);
}

/* ---- One VM ---- */

static void a_process_has_one_vm(void) {
  begin_vm();
  HV_IS(hv_vm_create(HV_VM_DEFAULT), HV_BUSY);
  end_vm(); /* macOS 10.15 crashed here */
  begin_vm();
  end_vm();
}

static void options_are_checked(void) {
  HV_IS(hv_vm_create(UINT64_C(1) << 5), HV_BAD_ARGUMENT);
  HV(hv_vm_create(HV_VM_SPECIFY_MITIGATIONS | HV_VM_MITIGATION_E_ENABLE | HV_VM_STRICT_EXEC));
  end_vm();
}

static void a_vm_with_a_vcpu_stays(void) {
  begin_vm();
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  HV_IS(hv_vm_destroy(), HV_BUSY);
  HV(hv_vcpu_destroy(vcpu));
  end_vm();
}

/* In the child: 0 if all is as it should be. */
static int child(void) {
  hv_vcpuid_t id;
  uint64_t value;
  if (hv_vm_destroy() != HV_NO_DEVICE ||
      hv_vcpu_read_register(vcpu, HV_X86_RIP, &value) != HV_NO_DEVICE) {
    return 1;
  }
  if (hv_vm_create(HV_VM_DEFAULT) != HV_SUCCESS || hv_vcpu_create(&id, 0) != HV_SUCCESS) {
    return 2;
  }
  return hv_vcpu_destroy(id) == HV_SUCCESS && hv_vm_destroy() == HV_SUCCESS ? 0 : 3;
}

static void a_child_after_fork_makes_its_own(void) {
  int status;
  begin_vm();
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    _exit(child());
  }
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 0);
  CHECK_EQ(get(HV_X86_RIP), 0xfff0); /* the parent's is as it was */
  HV(hv_vcpu_destroy(vcpu));
  end_vm();
}

static void *make_vms(void *stop) {
  while (!atomic_load((atomic_bool *)stop)) {
    if (hv_vm_create(HV_VM_DEFAULT) != HV_SUCCESS || hv_vm_destroy() != HV_SUCCESS) {
      return "a VM was refused";
    }
  }
  return NULL;
}

/* The locks of the framework and of the core are taken in one order, by a fork too. */
static void forks_go_on_while_vms_are_made(void) {
  static atomic_bool stop;
  pthread_t thread;
  void *problem;
  int status = 0;
  fflush(stdout);
  CHECK_EQ(pthread_create(&thread, NULL, make_vms, &stop), 0);
  for (int i = 0; i < 200 && status == 0; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      _exit(0);
    }
    status = pid < 0 || waitpid(pid, &status, 0) != pid ? -1 : status;
  }
  atomic_store(&stop, true);
  pthread_join(thread, &problem);
  CHECK_EQ(status, 0);
  CHECK_TEXT(problem ? problem : "none", "none");
}

static void failures_are_said_in_words(void) {
  HV_IS(hv_vm_unmap(0, 1), HV_NO_DEVICE);
  CHECK_TEXT(hv_ext_error_message(), "hv_vm_create first");
}

/* ---- Spaces ---- */

static void space_numbers_are_given_out_again(void) {
  hv_vm_space_t first, second, again;
  begin_vm();
  HV(hv_vm_space_create(&first));
  HV(hv_vm_space_create(&second));
  CHECK_EQ(first, 1);
  CHECK_EQ(second, 2);
  HV(hv_vm_space_destroy(first));
  HV_IS(hv_vm_space_destroy(first), HV_BAD_ARGUMENT);
  HV(hv_vm_space_create(&again));
  CHECK_EQ(again, first);
  HV_IS(hv_vm_space_destroy(HV_VM_SPACE_DEFAULT), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_space_destroy(77), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_space_create(NULL), HV_BAD_ARGUMENT);
  end_vm();
}

static void a_space_in_use_is_busy(void) {
  hv_vm_space_t space;
  begin_vm();
  HV(hv_vm_space_create(&space));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  HV(hv_vcpu_set_space(vcpu, space));
  HV(hv_vcpu_set_space(vcpu, space)); /* counts once */
  HV_IS(hv_vm_space_destroy(space), HV_BUSY);
  HV(hv_vcpu_set_space(vcpu, HV_VM_SPACE_DEFAULT));
  HV(hv_vm_space_destroy(space));
  HV_IS(hv_vcpu_set_space(vcpu, space), HV_BAD_ARGUMENT);
  HV(hv_vcpu_destroy(vcpu));
  end_vm();
}

/* macOS 10.15. */
static void a_space_stays_busy_when_its_vcpu_is_destroyed_there(void) {
  hv_vm_space_t space;
  begin_vm();
  HV(hv_vm_space_create(&space));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  HV(hv_vcpu_set_space(vcpu, space));
  HV(hv_vcpu_destroy(vcpu));
  HV_IS(hv_vm_space_destroy(space), HV_BUSY);
  end_vm();
  begin_vm();
  HV(hv_vm_space_create(&space));
  HV(hv_vm_space_destroy(space)); /* a new VM's */
  end_vm();
}

/* ---- Memory ---- */

static void the_default_space_is_space_0(void) {
  begin_vm();
  HV(hv_vm_map(page, 0, sizeof page, RWX));
  HV_IS(hv_vm_map_space(HV_VM_SPACE_DEFAULT, page, 0, sizeof page, RWX), HV_BUSY);
  HV(hv_vm_protect_space(HV_VM_SPACE_DEFAULT, 0, sizeof page, RX));
  HV(hv_vm_unmap_space(HV_VM_SPACE_DEFAULT, 0, sizeof page));
  HV(hv_vm_map_space(HV_VM_SPACE_DEFAULT, page, 0, sizeof page, RWX));
  HV_IS(hv_vm_map(page, 0, sizeof page, RWX), HV_BUSY);
  HV(hv_vm_protect(0, sizeof page, RX));
  HV(hv_vm_unmap(0, sizeof page));
  end_vm();
}

static void an_address_stands_for_its_page(void) {
  BEGIN(0xa0, 0x04, 0x20, 0xf4); /* mov al, [0x2004]; hlt */
  HV(hv_vm_unmap(0x2000, sizeof page));
  page[4] = 0x5a;
  HV(hv_vm_map(page + 0x123, 0x2000, sizeof page, RX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  end();
}

static void a_size_stands_for_its_pages(void) {
  begin_vm();
  HV(hv_vm_map(page, 0, 24, RWX));
  HV_IS(hv_vm_map(page, 0, sizeof page, RWX), HV_BUSY);
  HV(hv_vm_protect(0, 1, RX));
  HV_IS(hv_vm_protect(0, sizeof page + 1, RX), HV_BAD_ARGUMENT); /* the second is not mapped */
  HV(hv_vm_unmap(0, 24));
  HV(hv_vm_map(page, 0, sizeof page, RWX));
  HV(hv_vm_unmap(0, sizeof page));
  end_vm();
}

static void maps_are_checked(void) {
  begin_vm();
  HV_IS(hv_vm_map(page, 1, sizeof page, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map((void *)8, 0, sizeof page, RWX), HV_BAD_ARGUMENT); /* of page 0 */
  HV_IS(hv_vm_map(NULL, 0, sizeof page, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map(page, 0, SIZE_MAX - 4000, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map((void *)-(uintptr_t)4096, 0, 8192, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map(page, 0, 0, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map(page, UINT64_C(1) << 60, sizeof page, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map_space(3, page, 0, sizeof page, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map(page, 0, sizeof page, UINT64_C(1) << 9), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_map(page, 0, sizeof page, HV_MEMORY_EXEC), HV_UNSUPPORTED);
  HV_IS(hv_vm_map(page, 0, sizeof page, HV_MEMORY_READ | HV_MEMORY_UEXEC), HV_UNSUPPORTED);
  HV_IS(hv_vm_map(page, 0, sizeof page, RWX | HV_MEMORY_MAXPROT_READ), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_unmap(1, sizeof page), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_unmap(0, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_unmap_space(3, 0, sizeof page), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_protect(0, sizeof page, RX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_protect_space(3, 0, sizeof page, RX), HV_BAD_ARGUMENT);
  HV(hv_vm_map(page, 0, sizeof page, RWX | HV_MEMORY_UEXEC)); /* nothing is there yet */
  end_vm();
}

static void unmapping_passes_over_what_is_not_mapped(void) {
  begin_vm();
  HV(hv_vm_unmap(0, RAM_SIZE));
  for (uint64_t gpa = 0; gpa < RAM_SIZE; gpa += 0x2000) {
    HV(hv_vm_map(ram + gpa, gpa, 0x1000, RWX));
  }
  HV(hv_vm_unmap(0x1000, RAM_SIZE));
  HV(hv_vm_map(ram + 0x1000, 0x1000, RAM_SIZE - 0x1000, RWX)); /* all but the first page */
  HV_IS(hv_vm_map(ram, 0, 0x1000, RWX), HV_BUSY);
  HV(hv_vm_unmap(0x3000, 0x1000)); /* out of the middle */
  HV(hv_vm_map(page, 0x3000, 0x1000, RX));
  end_vm();
}

/* More pieces than one change of the map takes. */
static void unmapping_takes_any_number_of_pieces(void) {
  begin_vm();
  for (uint64_t i = 0; i < 300; i++) {
    HV(hv_vm_map(page, i * 0x2000, 0x1000, 0)); /* without rights: no slot */
  }
  HV(hv_vm_unmap(0, 300 * 0x2000));
  for (uint64_t i = 0; i < 300; i += 299) {
    HV(hv_vm_map(page, i * 0x2000, 0x1000, 0));
  }
  end_vm();
}

static void maxprot_caps_what_protect_gives(void) {
  const hv_memory_flags_t most =
      HV_MEMORY_MAXPROT | HV_MEMORY_MAXPROT_READ | HV_MEMORY_MAXPROT_EXEC;
  begin_vm();
  HV_IS(hv_vm_map(ram, 0, 0x4000, RWX | most), HV_DENIED);
  HV(hv_vm_map(ram, 0, 0x4000, RX | most));
  HV_IS(hv_vm_protect(0, 0x4000, RWX), HV_DENIED);
  HV_IS(hv_vm_protect(0x3000, 0x1000, RWX), HV_DENIED);
  HV(hv_vm_protect(0, 0x4000, 0));
  HV(hv_vm_protect(0, 0x4000, RX));
  HV(hv_vm_unmap(0x1000, 0x1000)); /* splits it */
  HV(hv_vm_map(ram, 0x1000, 0x1000, RX));
  HV(hv_vm_protect(0x1000, 0x1000, RWX)); /* this page is another */
  HV_IS(hv_vm_protect(0, 0x1000, RWX), HV_DENIED);
  HV_IS(hv_vm_protect(0x2000, 0x2000, RWX), HV_DENIED);
  HV_IS(hv_vm_protect(0, 0x4000, RWX), HV_DENIED);
  HV(hv_vm_protect(0x1000, 0x1000, HV_MEMORY_MAXPROT)); /* from now on nothing */
  HV_IS(hv_vm_protect(0x1000, 0x1000, HV_MEMORY_READ), HV_DENIED);
  end_vm();
}

static void maxprot_is_of_one_space(void) {
  hv_vm_space_t space;
  const hv_memory_flags_t most = HV_MEMORY_MAXPROT | HV_MEMORY_MAXPROT_READ;
  begin_vm();
  HV(hv_vm_space_create(&space));
  HV(hv_vm_map_space(space, page, 0, sizeof page, HV_MEMORY_READ | most));
  HV(hv_vm_map(page, 0, sizeof page, HV_MEMORY_READ));
  HV(hv_vm_protect(0, sizeof page, RWX));
  HV_IS(hv_vm_protect_space(space, 0, sizeof page, RWX), HV_DENIED);
  HV(hv_vm_space_destroy(space));
  HV(hv_vm_space_create(&space));
  HV(hv_vm_map_space(space, page, 0, sizeof page, HV_MEMORY_READ));
  HV(hv_vm_protect_space(space, 0, sizeof page, RWX));
  end_vm();
}

/* mov [0x4000], al; hlt, on a page that can be read and executed, or only read. */
static uint64_t run_from_page(hv_vm_options_t options, hv_memory_flags_t flags) {
  static const uint8_t code[] = {0xf4};
  begin_with(code, sizeof code, options);
  page[0] = 0xf4;
  HV(hv_vm_map(page, 0x20000, sizeof page, flags));
  set_field(VMCS_GUEST_CS_BASE, 0x20000);
  set(HV_X86_RIP, 0);
  uint64_t reason = run();
  end();
  return reason;
}

static void exec_is_exact_if_that_is_asked_for(void) {
  CHECK_EQ(run_from_page(HV_VM_DEFAULT, RX), VMX_REASON_HLT);
  CHECK_EQ(run_from_page(HV_VM_DEFAULT, HV_MEMORY_READ), VMX_REASON_HLT);
  CHECK_EQ(run_from_page(HV_VM_STRICT_EXEC, RX), VMX_REASON_HLT);
  CHECK_EQ(run_from_page(HV_VM_STRICT_EXEC, HV_MEMORY_READ), VMX_REASON_EPT_VIOLATION);
}

static void allocated_memory_is_given_back_whole(void) {
  void *memory, *large;
  HV(hv_vm_allocate(&memory, 0x3000, HV_ALLOCATE_DEFAULT));
  HV(hv_vm_allocate(&large, 4 << 20, HV_ALLOCATE_DEFAULT));
  CHECK_EQ((uintptr_t)memory % 4096, 0);
  CHECK_EQ((uintptr_t)large % (2 << 20), 0);
  CHECK_EQ(((uint8_t *)memory)[0x2fff], 0);
  memset(memory, 1, 0x3000);
  HV_IS(hv_vm_deallocate(memory, 0x2000), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_deallocate(page, sizeof page), HV_BAD_ARGUMENT);
  HV(hv_vm_deallocate(memory, 0x3000));
  HV_IS(hv_vm_deallocate(memory, 0x3000), HV_BAD_ARGUMENT);
  HV(hv_vm_deallocate(large, 4 << 20));
  HV_IS(hv_vm_allocate(&memory, 0, HV_ALLOCATE_DEFAULT), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_allocate(&memory, 100, HV_ALLOCATE_DEFAULT), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_allocate(&memory, 0x1000, 1), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_allocate(NULL, 0x1000, HV_ALLOCATE_DEFAULT), HV_BAD_ARGUMENT);
}

/* The second page of a buffer, which nobody but the map holds when the guest runs from it. */
static void a_buffer_lives_while_it_is_mapped(void) {
  luna_buffer *buffer;
  BEGIN(0xf4);
  CHECK_EQ(luna_buffer_create(0x3000, &buffer), LUNA_OK);
  HV_IS(hv_ext_vm_map_buffer(0, NULL, 0, 0x20000, 0x1000, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vm_map_buffer(0, buffer, 0x2000, 0x20000, 0x2000, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vm_map_buffer(0, buffer, 0x800, 0x20000, 0x1000, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vm_map_buffer(9, buffer, 0, 0x20000, 0x1000, RWX), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vm_map_buffer(0, buffer, 0, 0x20000, 0x1000, 0x200), HV_BAD_ARGUMENT);
  ((uint8_t *)luna_buffer_data(buffer))[0x1000] = 0xf4;
  HV(hv_ext_vm_map_buffer(0, buffer, 0x1000, 0x20000, 0x1000, RWX));
  HV_IS(hv_vm_map(page, 0x20000, sizeof page, RWX), HV_BUSY);
  luna_buffer_release(buffer);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), 2);
  set_field(VMCS_GUEST_CS_BASE, 0x20000);
  set(HV_X86_RIP, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  HV(hv_vm_unmap(0x20000, 0x1000));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), 1);
  end();
}

/* By the program, below the guest: a kernel that emulates has the library access it. */
static void memory_that_is_gone_is_an_error(void) {
  for (int writes = 0; writes < 2; writes++) {
    uint8_t *own =
        mmap(NULL, LUNA_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(own != MAP_FAILED);
    BEGIN(writes ? 0xa2 : 0xa0, 0, 0, 0xf4); /* mov [0], al, or mov al, [0]; hlt */
    HV(hv_vm_map(own, RAM_SIZE, LUNA_PAGE_SIZE, RWX));
    set_field(VMCS_GUEST_DS_BASE, RAM_SIZE);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(munmap(own, LUNA_PAGE_SIZE), 0);
    set(HV_X86_RIP, CODE);
    HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_FAULT);
    CHECK_TEXT(hv_ext_error_message(), "cannot be used");
    end();
  }
}

int main(void) {
  RUN_KVM(calls_need_a_vm);
  RUN_KVM(capabilities_need_none);
  RUN_KVM(a_process_has_one_vm);
  RUN_KVM(options_are_checked);
  RUN_KVM(a_vm_with_a_vcpu_stays);
  RUN_KVM(a_child_after_fork_makes_its_own);
  RUN_KVM(forks_go_on_while_vms_are_made);
  RUN_KVM(failures_are_said_in_words);
  RUN_KVM(space_numbers_are_given_out_again);
  RUN_KVM(a_space_in_use_is_busy);
  RUN_KVM(a_space_stays_busy_when_its_vcpu_is_destroyed_there);
  RUN_KVM(the_default_space_is_space_0);
  RUN_KVM(an_address_stands_for_its_page);
  RUN_KVM(a_size_stands_for_its_pages);
  RUN_KVM(maps_are_checked);
  RUN_KVM(unmapping_passes_over_what_is_not_mapped);
  RUN_KVM(unmapping_takes_any_number_of_pieces);
  RUN_KVM(maxprot_caps_what_protect_gives);
  RUN_KVM(maxprot_is_of_one_space);
  RUN_KVM(exec_is_exact_if_that_is_asked_for);
  RUN_KVM(a_buffer_lives_while_it_is_mapped);
  RUN_KVM(allocated_memory_is_given_back_whole);
  RUN_KVM(memory_that_is_gone_is_an_error);
  return test_end();
}
