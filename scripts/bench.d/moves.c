/* SPDX-License-Identifier: MIT
 * Moving a vCPU between two spaces through the C API, against the same by raw ioctls: moves FIGURE
 * prints ratios. Before each move the guest has one exit, a port access, which the time of both
 * sides has in it, as well as the entry that finishes the access. */
#include "common.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "lunavisor.h"

#include <stdbool.h>
#include <sys/mman.h>

enum {
  CODE = 0x1000,
  MEMORY = 0x8000,
  MSRS_MOST = 512,
  MSR_TSC = 0x10,
  MSR_TSC_DEADLINE = 0x6e0,
  MOVES = 4, /* a part of a round; even, so that each ends where it began */
  ALL_REGS = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS
};

static const uint8_t code[] = {0xba, 0x10, 0x00, 0xee, 0xeb, 0xfd}; /* next: out dx, al; jmp next */

/* struct kvm_msrs, with room for its entries. */
typedef struct msr_list {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entries[MSRS_MOST];
} msr_list;

/* A KVM vCPU and what is read from it. */
typedef struct place {
  int vm;
  int vcpu;
  struct kvm_run *run;
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_xcrs xcrs;
  struct kvm_debugregs debugregs;
  struct kvm_vcpu_events events;
  void *xsave;
  msr_list msrs;
} place;

static struct {
  luna_vm *vm;
  luna_vcpu *vcpu;
  uint32_t space; /* where it is */
  uint32_t flags; /* of its moves */
  place places[2];
  int at; /* which the raw vCPU is in */
} here;

static int luna(int status) {
  if (status < 0) {
    fprintf(stderr, "moves: %s\n", luna_error_message());
    exit(2);
  }
  return status;
}

/* ---- The library ---- */

static void move_ours(void *context) {
  (void)context;
  for (int i = 0; i < MOVES; i++) {
    if (luna(luna_vcpu_run(here.vcpu, 0)) != LUNA_EXIT_PIO) {
      die("not the exit of the guest");
    }
    here.space ^= 1;
    luna(luna_vcpu_answer(here.vcpu, 0));
    luna(luna_vcpu_set_space(here.vcpu, here.space, here.flags));
  }
}

static void open_ours(luna_buffer *memory) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE};
  const uint32_t rwx = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
  uint32_t second;
  luna(luna_vm_create(&here.vm));
  luna(luna_vm_space_create(here.vm, &second));
  for (uint32_t space = 0; space <= second; space++) {
    luna(luna_vm_map_space(here.vm, space, memory, 0, 0, MEMORY, rwx));
  }
  luna(luna_vcpu_create(here.vm, &options, &here.vcpu));
}

/* ---- Raw ioctls ---- */

static void call(int fd, unsigned long request, void *argument) {
  check(ioctl(fd, request, argument), "an ioctl of a vCPU");
}

static void open_place(place *p, void *memory) {
  const luna_host *host = luna_host_get(LUNA_ACCEL_KVM);
  p->vm = make_vm();
  set_slot(p->vm, 0, 0, MEMORY, memory, 0);
  p->vcpu = check(ioctl(p->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  p->run = mmap(NULL, host->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
  p->xsave = calloc(1, host->xsave_size);
  if (p->run == MAP_FAILED || !p->xsave) {
    die("memory of a vCPU");
  }
  call(p->vcpu, KVM_SET_CPUID2, host->cpuid);
  call(p->vcpu, KVM_GET_SREGS, &p->sregs);
  p->sregs.cs.base = p->sregs.cs.selector = 0;
  p->regs.rip = CODE;
  p->regs.rflags = 2;
  call(p->vcpu, KVM_SET_SREGS, &p->sregs);
  call(p->vcpu, KVM_SET_REGS, &p->regs);
}

static void call_msrs(int vcpu, unsigned long request, msr_list *msrs) {
  if (ioctl(vcpu, request, msrs) != (int)msrs->count) {
    die("MSRs of a vCPU");
  }
}

/* The MSRs that the library moves: those of KVM's list that can be read and written back. The time
 * moves once and for all, as an offset. */
static void find_msrs(place *p) {
  luna_fd kvm = luna_kvm_open(LUNA_ACCEL_KVM);
  struct kvm_msr_list *list = kvm.number < 0 ? NULL : luna_kvm_msr_list(kvm);
  if (!list) {
    die("KVM_GET_MSR_INDEX_LIST");
  }
  for (uint32_t i = 0; i < list->nmsrs && p->msrs.count < MSRS_MOST; i++) {
    uint32_t index = list->indices[i];
    msr_list one = {.count = 1, .entries = {{.index = index}}};
    if (index != MSR_TSC && index != MSR_TSC_DEADLINE && ioctl(p->vcpu, KVM_GET_MSRS, &one) == 1 &&
        ioctl(p->vcpu, KVM_SET_MSRS, &one) == 1) {
      p->msrs.entries[p->msrs.count++].index = index;
    }
  }
  free(list);
  luna_kvm_close(kvm);
}

/* Runs to the exit of the guest and lets KVM finish the access, so that the state is whole. */
static place *run_place(uint64_t valid_regs) {
  place *p = &here.places[here.at];
  p->run->kvm_valid_regs = 0;
  call(p->vcpu, KVM_RUN, NULL);
  if (p->run->exit_reason != KVM_EXIT_IO) {
    die("not the exit of the guest");
  }
  p->run->immediate_exit = 1;
  p->run->kvm_valid_regs = valid_regs;
  if (ioctl(p->vcpu, KVM_RUN, 0) == 0 || errno != EINTR) {
    die("KVM_RUN with immediate_exit");
  }
  p->run->immediate_exit = 0;
  return p;
}

static void get_all(place *p) {
  bool large = luna_host_get(LUNA_ACCEL_KVM)->xsave_size > sizeof(struct kvm_xsave);
  call(p->vcpu, KVM_GET_REGS, &p->regs);
  call(p->vcpu, KVM_GET_SREGS, &p->sregs);
  call(p->vcpu, KVM_GET_XCRS, &p->xcrs);
  call(p->vcpu, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, p->xsave);
  call(p->vcpu, KVM_GET_DEBUGREGS, &p->debugregs);
  call_msrs(p->vcpu, KVM_GET_MSRS, &p->msrs);
  call(p->vcpu, KVM_GET_VCPU_EVENTS, &p->events);
}

static void set_all(int vcpu, place *from) {
  call(vcpu, KVM_SET_REGS, &from->regs);
  call(vcpu, KVM_SET_SREGS, &from->sregs);
  call(vcpu, KVM_SET_XCRS, &from->xcrs);
  call(vcpu, KVM_SET_XSAVE, from->xsave);
  call(vcpu, KVM_SET_DEBUGREGS, &from->debugregs);
  call_msrs(vcpu, KVM_SET_MSRS, &from->msrs);
  call(vcpu, KVM_SET_VCPU_EVENTS, &from->events);
}

static void move_all(void *context) {
  (void)context;
  for (int i = 0; i < MOVES; i++) {
    place *from = run_place(0);
    here.at ^= 1;
    get_all(from);
    set_all(here.places[here.at].vcpu, from);
  }
}

static void move_registers(void *context) {
  (void)context;
  for (int i = 0; i < MOVES; i++) {
    const place *from = run_place(ALL_REGS);
    here.at ^= 1;
    struct kvm_run *to = here.places[here.at].run;
    to->s.regs = from->run->s.regs;
    to->kvm_dirty_regs = ALL_REGS;
  }
}

static void open_all(void) {
  luna_buffer *memory;
  luna(luna_buffer_create(MEMORY, &memory));
  memcpy((uint8_t *)luna_buffer_data(memory) + CODE, code, sizeof code);
  open_ours(memory);
  for (int i = 0; i < 2; i++) {
    open_place(&here.places[i], luna_buffer_data(memory));
    find_msrs(&here.places[i]);
  }
}

static void print_full(uint32_t number) {
  (void)number;
  open_all();
  print_ratios(move_ours, move_all, NULL, 80);
}

static void print_registers(uint32_t number) {
  (void)number;
  open_all();
  here.flags = LUNA_MOVE_NO_FPU | LUNA_MOVE_NO_MSRS;
  print_ratios(move_ours, move_registers, NULL, 120);
}

int main(int argc, char **argv) {
  static const figure figures[] = {{"full", print_full}, {"registers", print_registers}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
