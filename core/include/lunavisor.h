/* SPDX-License-Identifier: MIT
 * lunavisor: guest-physical address spaces, EPT slots and vCPUs over Linux/KVM on x86-64. With the
 * files that it includes, this is the whole public C API. It is also, preprocessed, what
 * LuaJIT's ffi.cdef reads, so it holds only opaque handles, fixed-width integers, enums and plain
 * structs passed by pointer.
 *
 * Conventions. A function that can fail returns LUNA_OK (0) or a negative luna_status; the sentence
 * that says what was tried, with which values, why it failed and what to do is
 * luna_error_message(). A failed call changes nothing. Handles are reference counted: create gives
 * one reference, release drops one, and an object that others still need (a buffer that is mapped,
 * a VM that has vCPUs) lives until they are gone. Addresses, sizes and offsets are in bytes.
 * Guest-physical addresses are called gpa.
 *
 * Threads. Different VMs are independent. The calls on one VM may come from any thread and are
 * serialized inside. The calls on one vCPU must not overlap in time, but for those that any thread
 * may make at any moment: luna_vcpu_interrupt (signal handlers too), luna_vcpu_interrupt_vector,
 * luna_vcpu_nmi, luna_vcpu_smi, and what lunavisor/thread.h has. A vCPU runs on the thread that
 * calls luna_vcpu_run, which may be another each time; or, once luna_vcpu_start was called, on one
 * of its own. That thread then has the vCPU, and the other calls on it fail with _STATE, unless it
 * is paused or its exit has been taken from the VM's queue. KVM ties a VM to the process that made
 * it: not usable after fork. */
#ifndef LUNAVISOR_H
#define LUNAVISOR_H

#ifndef LUNA_CDEF
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define LUNA_API __attribute__((visibility("default")))
#else
#define LUNA_API
#endif

/* ---- Errors ---------------------------------------------------------------------------------- */

typedef enum luna_status {
  LUNA_OK = 0,
  LUNA_ERROR_ARGUMENT = -1,  /* a value that is never right: unaligned, zero, unknown flag, null */
  LUNA_ERROR_RANGE = -2,     /* beyond the end of a buffer, a port range or the address width */
  LUNA_ERROR_OVERLAP = -3,   /* something is already mapped or registered there */
  LUNA_ERROR_NOT_FOUND = -4, /* nothing is mapped or registered there; no such space */
  LUNA_ERROR_STATE = -5,     /* not now: the vCPU is running or started, or has no exit to answer */
  LUNA_ERROR_BUSY = -6,      /* in use by someone else */
  LUNA_ERROR_LIMIT = -7,     /* a limit of this host's KVM: slots, vCPUs */
  LUNA_ERROR_MEMORY = -8,    /* the host has no memory for it */
  LUNA_ERROR_UNSUPPORTED = -9, /* this host's KVM cannot do it */
  LUNA_ERROR_NO_KVM = -10,     /* /dev/kvm is missing or is not KVM */
  LUNA_ERROR_ACCESS = -11,     /* no permission */
  LUNA_ERROR_SYSTEM = -12      /* the kernel refuses: luna_error_number(); or the guest did: 0 */
} luna_status;

/* The message of the calling thread's last failed call, never NULL, good until its next failure. */
LUNA_API const char *luna_error_message(void);
/* Copies it, cut to `size` bytes (1 or more) with its zero, where another call may fail before a
 * pointer is followed: in the finalizer of a script. Returns the length of the copy. */
LUNA_API int luna_error_copy(char *text, size_t size);
/* The errno behind the calling thread's last failed call; 0 where no system call was involved. */
LUNA_API int luna_error_number(void);
/* The name of a status in lower case ("overlap", "no_kvm"), or NULL for a number that is none. */
LUNA_API const char *luna_status_name(int status);

/* ---- Library and host ------------------------------------------------------------------------ */

/* The library's version, "MAJOR.MINOR.PATCH". */
LUNA_API const char *luna_version(void);
/* CLOCK_MONOTONIC in nanoseconds: the clock of luna_vcpu_run's deadline. */
LUNA_API uint64_t luna_clock(void);

typedef enum luna_object {
  LUNA_OBJECT_VM = 0,
  LUNA_OBJECT_SPACE = 1,
  LUNA_OBJECT_BUFFER = 2,
  LUNA_OBJECT_VCPU = 3,
  LUNA_OBJECT_COUNT = 4
} luna_object;

/* How many objects of a kind (luna_object) exist in this process. Handles that leak show up
 * here. */
LUNA_API uint64_t luna_live(int object);

/* Makes sure that a VM can be made here: opens the KVM device, checks its API version, makes a VM
 * and closes it. LUNA_ERROR_NO_KVM, _ACCESS or _BUSY say which of the usual obstacles is there and
 * the message how to mend it. The device is /dev/kvm, or the path in the environment variable
 * LUNA_KVM_DEVICE. Where the software CPU serves in its place (luna_accelerator_choose), it is
 * that which is asked, here and below. */
LUNA_API int luna_probe(void);
/* The host features that luna_probe_value knows, by index from 0; NULL past the last. */
LUNA_API const char *luna_probe_name(int index);
/* What this host's KVM says of feature `index`: 0 for no, else KVM's number (api.rst,
 * KVM_CHECK_EXTENSION). Returns a negative status if KVM cannot be asked. */
LUNA_API int luna_probe_value(int index, uint64_t *value);

/* A limit: "vcpus_max" (in a VM), "slots_max" (in a space), "spaces_max" (in a process: each takes
 * a descriptor, and one for each vCPU that was in it), "address_bits" (of a gpa), "xsave_size",
 * "dirty_ring_max", "exceptions", "controls" and "shadow_vmcs" (0 or 1). _ARGUMENT for another. */
LUNA_API int luna_capability(const char *name, uint64_t *value);

#include "lunavisor/buffer.h"

/* ---- VMs and their guest-physical address spaces --------------------------------------------- */

typedef struct luna_vm luna_vm;

#include "lunavisor/accelerator.h"

typedef struct luna_vm_options {
  /* Entries of each vCPU's dirty ring in every space, a power of two; 0 to follow written pages by
   * KVM's bitmaps. The ring is better where few pages of much memory are written. */
  uint32_t dirty_ring;
  uint32_t irqchip; /* luna_irqchip */
  /* 1: MSRs that KVM does not know are LUNA_EXIT_MSR too, not only those that are trapped; else
   * the guest gets a #GP. */
  uint32_t unknown_msrs;
  uint32_t pit;   /* 1: a PIT in KVM, with LUNA_IRQCHIP_KERNEL only: KVM_CREATE_PIT2 */
  uint32_t accel; /* luna_accelerator: what runs its vCPUs; for the life of the VM */
} luna_vm_options;

/* Makes a VM with space 0, no memory and no vCPU. */
LUNA_API int luna_vm_create(luna_vm **vm);
/* The same with options; NULL for none. */
LUNA_API int luna_vm_open(const luna_vm_options *options, luna_vm **vm);
LUNA_API void luna_vm_retain(luna_vm *vm);
/* Drops a reference. The VM, its spaces and their hold on buffers go with the last one; each vCPU
 * has one. */
LUNA_API void luna_vm_release(luna_vm *vm);

typedef enum luna_access {
  LUNA_READ = 1,
  LUNA_WRITE = 2,
  LUNA_EXECUTE = 4
} luna_access;

/* Further spaces, as hv_vm_space_create makes them: a map of its own over the same host memory. The
 * number is the lowest that is free; 0 is the default space and lives as long as the VM. _LIMIT
 * where the process has no descriptor left, _UNSUPPORTED with LUNA_IRQCHIP_KERNEL or an irqfd. */
LUNA_API int luna_vm_space_create(luna_vm *vm, uint32_t *space);
/* _BUSY while a vCPU is in the space, _ARGUMENT for space 0. Its regions go with it. */
LUNA_API int luna_vm_space_destroy(luna_vm *vm, uint32_t space);

typedef enum luna_map_flag {
  /* The rights are exactly those asked for. Where KVM's slots cannot do that (r--, rw-, -w-), the
   * range has no slot and the core answers each access itself, without leaving luna_vcpu_run:
   * a device's speed, and no code runs from there. */
  LUNA_MAP_STRICT = 8,
  /* Keeps the region and its slot apart from neighbours that continue it. For maps that grow page
   * by page: joining them would make KVM drop what it has mapped so far. */
  LUNA_MAP_SEPARATE = 16,
  /* Makes the range a window: luna_vm_remap_space can let it show another part of a memfd or file
   * buffer without touching its slot. */
  LUNA_MAP_WINDOW = 32
} luna_map_flag;

/* A mapped range of a space, as luna_space_next gives it. */
typedef struct luna_region {
  uint64_t gpa;        /* first guest-physical address */
  uint64_t size;       /* bytes */
  luna_buffer *buffer; /* borrowed: retain it to keep it */
  uint64_t offset;     /* of the first byte in the buffer */
  uint32_t rights;     /* luna_access bits that were asked for */
  uint32_t enforced;   /* luna_access bits that the guest really has */
  int32_t slot;        /* KVM memory slot, or -1 where no slot is needed */
  uint32_t flags;      /* luna_map_flag bits */
} luna_region;

/* Maps `size` bytes of `buffer` from `offset` at `gpa` of the space `space` (0 is the default one),
 * as Apple's hv_vm_map_space does. gpa, offset and size are multiples of LUNA_PAGE_SIZE, size is
 * not 0. `rights` is a set of luna_access bits, with luna_map_flag bits. KVM's slots can hold rwx,
 * r-x and nothing; other rights get the nearest that allows what was asked, and
 * luna_region.enforced tells which, or with LUNA_MAP_STRICT are exact. No rights: every access is a
 * fault. A range that goes over a multiple of 4 GiB (of 4 TiB where KVM has few slots) becomes
 * several regions, a slot each. Fails with _ARGUMENT, _RANGE (past the buffer, past the guest's
 * address width), _OVERLAP, _NOT_FOUND (no such space), _UNSUPPORTED (execute without read; a
 * window on memory without a descriptor), _LIMIT (no slot left), _MEMORY. */
LUNA_API int luna_vm_map_space(luna_vm *vm, uint32_t space, luna_buffer *buffer, uint64_t offset,
                               uint64_t gpa, uint64_t size, uint32_t rights);
/* Unmaps the pages of [gpa, gpa + size), all of which must be mapped. Regions are split where
 * needed. */
LUNA_API int luna_vm_unmap_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size);
/* Gives the pages of [gpa, gpa + size), all of which must be mapped, other rights: luna_access bits
 * and LUNA_MAP_STRICT. Regions are split and joined where needed. */
LUNA_API int luna_vm_protect_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size,
                                   uint32_t rights);

typedef enum luna_change_kind {
  LUNA_CHANGE_MAP = 0,
  LUNA_CHANGE_UNMAP = 1,
  LUNA_CHANGE_PROTECT = 2
} luna_change_kind;

/* One map, unmap or protect of luna_vm_update_space; the fields are the arguments of those
 * calls. */
typedef struct luna_change {
  uint32_t kind;   /* luna_change_kind */
  uint32_t rights; /* map, protect */
  uint64_t gpa;
  uint64_t size;
  luna_buffer *buffer; /* map */
  uint64_t offset;     /* map */
} luna_change;

/* Makes `count` changes, in their order, as one: all of them or none, with the fewest slot
 * operations that lead to the result. */
LUNA_API int luna_vm_update_space(luna_vm *vm, uint32_t space, const luna_change *changes,
                                  size_t count);
/* Lets the window (LUNA_MAP_WINDOW) that begins at `gpa` show its size of bytes of `buffer` from
 * `offset`, by mapping them under the live slot: a guest that runs meanwhile sees the old or the
 * new page. _NOT_FOUND where no window begins there. */
LUNA_API int luna_vm_remap_space(luna_vm *vm, uint32_t space, uint64_t gpa, luna_buffer *buffer,
                                 uint64_t offset);
/* Copies between `bytes` and the memory of a space, whatever regions it spans and whatever rights
 * the guest has there (`access`: LUNA_READ or LUNA_WRITE); _NOT_FOUND names the first address that
 * is not mapped, and nothing was copied; _SYSTEM if host memory behind a region is gone. NULL for
 * `bytes` only asks whether the rest is there. */
LUNA_API int luna_vm_copy_space(luna_vm *vm, uint32_t space, uint64_t gpa, void *bytes,
                                uint64_t size, uint32_t access);
/* Collects which pages of [gpa, gpa + size) were written since the last call, by the guest and by
 * the host side (luna_buffer_mark). The first call begins to follow the space and finds nothing. */
LUNA_API int luna_vm_dirty_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size);
typedef enum luna_dirty_flag {
  LUNA_DIRTY_GUEST = 1, /* leave out what only the host side wrote; it stays for other calls */
  LUNA_DIRTY_PAGE = 2   /* one page, not the whole run */
} luna_dirty_flag;

/* Takes the first run of the pages collected in the range (`flags`: luna_dirty_flag bits): 1 with
 * `first` and `length`, 0 when there are no more. What is not taken stays. */
LUNA_API int luna_vm_dirty_take(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size,
                                uint32_t flags, uint64_t *first, uint64_t *length);
/* Gives the first region of the space that ends above `gpa`; _NOT_FOUND behind the last. To walk a
 * space, begin with 0 and go on with region.gpa + region.size. */
LUNA_API int luna_space_next(luna_vm *vm, uint32_t space, uint64_t gpa, luna_region *region);

/* ---- Traps: which accesses belong to which handler ------------------------------------------- */

typedef enum luna_trap_kind {
  LUNA_TRAP_PIO = 0,  /* I/O ports 0 to 0xffff */
  LUNA_TRAP_MMIO = 1, /* guest-physical addresses, in every space of the VM */
  LUNA_TRAP_MSR = 2   /* model-specific registers, by number; KVM_CAP_X86_MSR_FILTER */
} luna_trap_kind;

/* Claims [first, first + length) for a handler. Exits for an access that begins there carry
 * `*trap`, a small positive number, and the offset from `first`. Memory goes before a trap: an
 * access that a region allows never exits. One in which another trap begins too is split as a bus
 * does it: an exit for each part, in the order of addresses, aligned and with one owner, or none.
 * One that only runs past the end of its trap comes whole. Fails with _ARGUMENT (length 0), _RANGE
 * (past port 0xffff, the address width or 32 bits), _OVERLAP (names the other trap); for MSRs also
 * with _UNSUPPORTED (before Linux 5.10; 0x800 to 0x8ff but with LUNA_IRQCHIP_NONE and unknown_msrs)
 * and _LIMIT (KVM's filter has 16 ranges of 0x3000 MSRs). The filter is set at once where a vCPU is
 * in the guest, else by the next that enters: what KVM refuses then ends that run.
 * lunavisor/event.h has traps that are answered without an exit. */
LUNA_API int luna_vm_trap(luna_vm *vm, int kind, uint64_t first, uint64_t length, uint32_t *trap);
/* Gives the range of a trap back. _NOT_FOUND if there is none of that number. Where KVM refuses to
 * take an MSR out of its filter while a vCPU is in the guest, the trap stays. Numbers are used
 * again. */
LUNA_API int luna_vm_untrap(luna_vm *vm, uint32_t trap);

/* ---- vCPUs ----------------------------------------------------------------------------------- */

typedef struct luna_vcpu luna_vcpu;

typedef enum luna_mode {
  LUNA_MODE_RESET =
      0, /* as the SDM says after RESET: real mode at 0xfffffff0; rip and rsp are not used */
  LUNA_MODE_REAL = 1,   /* real mode, all segments with base 0 and limit 0xffff */
  LUNA_MODE_PROT32 = 2, /* 32-bit protected mode, flat 4 GiB segments, no paging */
  LUNA_MODE_LONG64 = 3, /* 64-bit, ring 0, the first 4 GiB mapped one to one */
  LUNA_MODE_USER64 = 4  /* 64-bit, ring 3, the same, all ports allowed */
} luna_mode;

enum {
  LUNA_SYSTEM_SIZE = 0x10000
};
/* For luna_vcpu_options.system: let the library allocate and map the system area. */
#define LUNA_SYSTEM_ALLOCATE UINT64_MAX

/* How a new vCPU begins. All zero is LUNA_MODE_RESET. */
typedef struct luna_vcpu_options {
  uint32_t mode; /* luna_mode */
  /* 1: waits for INIT and SIPI; needs a LAPIC in KVM. Else a vCPU begins at once, but for one of
   * LUNA_MODE_RESET with a LAPIC in KVM and a number above 0. */
  uint32_t wait;
  uint64_t rip;
  uint64_t rsp;
  /* Guest-physical address of the LUNA_SYSTEM_SIZE bytes, so aligned, that hold the GDT, the IDT,
   * the TSS with its I/O bitmap, a ring-0 stack, the exception stubs and the page tables of the
   * modes from LUNA_MODE_PROT32 on. The pages must be mapped writable and below 4 GiB.
   * LUNA_SYSTEM_ALLOCATE takes memory of the library's own, at the highest free place below
   * 0xfec00000; it is unmapped with the vCPU. */
  uint64_t system;
} luna_vcpu_options;

/* Makes a vCPU in space 0; `options` NULL is all zero. It holds a reference to the VM. Its number
 * is the lowest that is free. */
LUNA_API int luna_vcpu_create(luna_vm *vm, const luna_vcpu_options *options, luna_vcpu **vcpu);
LUNA_API void luna_vcpu_retain(luna_vcpu *vcpu);
/* Drops a reference. With the last one the vCPU's thread ends and its instruction under way is
 * finished. */
LUNA_API void luna_vcpu_release(luna_vcpu *vcpu);
/* The number of the vCPU in its VM, from 0. */
LUNA_API uint32_t luna_vcpu_id(const luna_vcpu *vcpu);
/* The space that the vCPU is in, or is about to move to. Any thread. */
LUNA_API uint32_t luna_vcpu_space(const luna_vcpu *vcpu);

typedef enum luna_move_flag {
  LUNA_MOVE_NO_FPU = 1, /* leave x87, SSE and AVX state and XCR0 behind */
  LUNA_MOVE_NO_MSRS = 2 /* leave MSRs and debug registers behind */
} luna_move_flag;

/* Moves the vCPU to another space of its VM, as hv_vcpu_set_space does: the same processor, another
 * map. Its whole state goes with it, its LAPIC and the interrupts that wait too, unless `flags`
 * (luna_move_flag bits) leave groups behind, which then keep the values that they last had in that
 * space. An instruction whose port or memory
 * access is under way finishes in the old space first: with an exit open, the move takes place in a
 * later luna_vcpu_run. A system area that the library allocated is mapped in the new space where it
 * is free there. _STATE while the vCPU runs on another thread, _NOT_FOUND without such a space. */
LUNA_API int luna_vcpu_set_space(luna_vcpu *vcpu, uint32_t space, uint32_t flags);
/* The system area of the vCPU: its gpa, or 0 where the mode has none. */
LUNA_API uint64_t luna_vcpu_system(const luna_vcpu *vcpu);

typedef enum luna_exit_kind {
  LUNA_EXIT_HLT = 1,  /* the guest executed HLT */
  LUNA_EXIT_PIO = 2,  /* port access: answer it */
  LUNA_EXIT_MMIO = 3, /* access in the range of an MMIO trap: answer it */
  LUNA_EXIT_FAULT =
      4, /* access that no region allows and no trap owns: answer it, or map and retry */
  LUNA_EXIT_EXCEPTION = 5, /* an exception, or an interrupt, in the modes that have a system area;
                              registers are as at the instruction */
  LUNA_EXIT_SHUTDOWN = 6,  /* triple fault */
  LUNA_EXIT_INTERNAL = 7,  /* KVM could not go on: suberror, instruction bytes */
  LUNA_EXIT_FAIL_ENTRY =
      8, /* the processor refused the guest state: value is the hardware's reason */
  LUNA_EXIT_HOST_FAULT = 9, /* the host memory behind a region is gone; open where size is not 0 */
  LUNA_EXIT_TIMEOUT = 10,   /* the deadline passed */
  LUNA_EXIT_INTERRUPTED = 11, /* luna_vcpu_interrupt */
  LUNA_EXIT_SIGNAL =
      12, /* a signal that is not the library's arrived: run again when it is dealt with */
  LUNA_EXIT_OTHER = 13,     /* any other KVM exit: reason is its number (KVM_EXIT_*), data the first
                           words of what the run page says of it */
  LUNA_EXIT_DEBUG = 14,     /* a breakpoint, or a single step is done */
  LUNA_EXIT_MSR = 15,       /* RDMSR or WRMSR of a trapped MSR: answer or refuse it */
  LUNA_EXIT_HYPERCALL = 16, /* VMCALL or VMMCALL that KVM hands on (luna_vm_hypercalls): answer it,
                               the value is RAX */
  LUNA_EXIT_INSTRUCTION = 17,  /* an instruction that this host's KVM cannot emulate: do its work,
                                  set rip behind it, and run on */
  LUNA_EXIT_SYSTEM_EVENT = 18, /* the guest asks for a reset or to be switched off */
  LUNA_EXIT_EOI = 19,          /* split irqchip: the end of a level interrupt */
  LUNA_EXIT_TPR = 20           /* the guest changed or accessed its task priority */
} luna_exit_kind;

/* The name of an exit kind in lower case ("hlt", "fail_entry"), or NULL for a number that is
 * none. */
LUNA_API const char *luna_exit_name(int kind);

/* Why the guest stopped. Fields that a kind does not name are 0. */
typedef struct luna_exit {
  uint32_t kind;             /* luna_exit_kind */
  uint32_t trap;             /* pio, mmio, msr: the trap that owns the address, or 0 */
  uint64_t address;          /* pio: port; mmio, fault, host_fault: gpa; exception 14: CR2; msr:
                                its number; debug: the linear address of the instruction; tpr:
                                RIP of the access */
  uint64_t offset;           /* pio, mmio, msr with a trap: address - first address of the trap */
  uint64_t value;            /* a write's data, zero extended; fail_entry: the hardware's reason;
                                hypercall: its number; system_event: KVM_SYSTEM_EVENT_*; tpr: the
                                priority (CR8) that was set */
  uint32_t size;             /* pio, mmio, fault, host_fault, msr: bytes of the access, 1 to 8; 0
                                for a fetch; hypercall: 8, those of the answer */
  uint32_t access;           /* the same: LUNA_READ, LUNA_WRITE or LUNA_EXECUTE; hypercall:
                                LUNA_READ; tpr: how the guest accessed it, or 0 where it lowered
                                it */
  uint32_t reason;           /* KVM_EXIT_* as the kernel gave it */
  uint32_t suberror;         /* internal, instruction: KVM_INTERNAL_ERROR_* */
  uint32_t vector;           /* exception: 0 to 31, or that of an interrupt; eoi: of the interrupt
                                that ended */
  uint32_t error_code;       /* exception: as the processor pushed it, or 0 */
  uint32_t instruction_size; /* instruction, internal: how many of `instruction` are there */
  uint32_t data_count;       /* how many of `data` are there */
  uint32_t space;            /* the space that the vCPU was in */
  uint32_t count;            /* pio: elements of a string instruction that are left, with this */
  uint32_t breakpoint;       /* debug: its number, 0 for a single step */
  uint32_t dr6;              /* debug: as the processor would set it */
  uint8_t instruction[16];   /* instruction, internal: the bytes that KVM could not emulate, and
                                what follows them */
  uint64_t data[16];         /* internal, instruction, system_event: further words; hypercall: six
                                arguments, and 1 if it came in 64-bit mode; other: what the run page
                                says of it */
} luna_exit;

/* Enters the guest until something happens; the kind (positive) or a negative status. The details
 * are in luna_vcpu_exit(vcpu) until the next call. `deadline` is on luna_clock()'s time line, 0 for
 * none; one that has passed gives LUNA_EXIT_TIMEOUT, at the latest before the guest is entered
 * again. The timer behind it stays armed over open exits, so that answering them costs no system
 * call: a caller that stops running there calls luna_vcpu_disarm.
 *
 * pio, mmio, msr, fault and hypercall exits, and a host_fault of an access, are open until
 * luna_vcpu_answer, luna_vcpu_retry, luna_vcpu_refuse (msr) or luna_vcpu_inject: without one of
 * these, run gives them again, unless the access has an owner by then: memory that allows it (of
 * the space to which the vCPU moves), an eventfd or a trap that was made since is asked first, and
 * the exit is what it would be now. String I/O (REP INS, REP OUTS) comes element by element, each
 * an exit of its own, without another entry between those that KVM brings at once; luna_vcpu_block
 * has them together. Accesses that a trap answers in the core are no exits, and writes that KVM has
 * collected come before the exit that it left the guest for (lunavisor/event.h).
 *
 * _STATE while another thread runs it, after luna_vcpu_start, and in a child of the process that
 * made the VM. _SYSTEM where KVM refuses to go on: the message names the rule that the registers
 * break, if that is why. */
LUNA_API int luna_vcpu_run(luna_vcpu *vcpu, uint64_t deadline);
/* How many exits luna_vcpu_run has given so far. */
LUNA_API uint64_t luna_vcpu_exits(const luna_vcpu *vcpu);
/* The last exit of the vCPU; the same address for its whole life. */
LUNA_API const luna_exit *luna_vcpu_exit(const luna_vcpu *vcpu);
/* Answers an open exit: `value` is what a read gives to the guest (its low `size` bytes), and RAX
 * for a hypercall; a write ignores it. Of string I/O, the next element is the open exit then.
 * _STATE if no exit is open, _UNSUPPORTED for a fetch (map memory and retry). */
LUNA_API int luna_vcpu_answer(luna_vcpu *vcpu, uint64_t value);
/* Closes an open mmio exit, fault or host_fault by doing the access again, after memory was mapped
 * there or the vCPU was moved (luna_vcpu_set_space): then it is done in the new space. _NOT_FOUND
 * while no region allows it; the exit then stays open. _UNSUPPORTED for a port, an MSR and a
 * hypercall. */
LUNA_API int luna_vcpu_retry(luna_vcpu *vcpu);
/* Drops an open exit: its access is not made. KVM finishes the instruction whatever happens; a
 * read, an access to an MSR or a hypercall is taken back, and the vCPU is at the instruction, its
 * general and system registers as before it. (KVM has read zeroes: vector registers, and memory
 * that the instruction fills from a port or an address, keep these.) A write has been finished by
 * KVM, and the vCPU is behind the instruction. _STATE if no exit is open. */
LUNA_API int luna_vcpu_drop(luna_vcpu *vcpu);
/* Whether the last exit is open: 1 while it waits for an answer. */
LUNA_API uint32_t luna_vcpu_open(const luna_vcpu *vcpu);
/* Lets KVM finish the instruction whose exit has been answered, without running the guest further:
 * then registers and memory are as behind it. 0; or the kind of a further exit that it made, open
 * as from luna_vcpu_run (the next element of string I/O, the other part of an access); _STATE while
 * an exit is open or the vCPU runs. */
LUNA_API int luna_vcpu_finish(luna_vcpu *vcpu);
/* Lets the guest take an exception (vectors 0 to 31 without 2) before its next instruction.
 * `error_code` is used by the vectors that have one, `address` (CR2) by #PF. An open exit is
 * closed: a read, a fetch, an access to an MSR or a hypercall is taken back, so that the exception
 * is at the instruction that failed; a write has been finished by KVM, and the exception is at the
 * instruction behind it. */
LUNA_API int luna_vcpu_inject(luna_vcpu *vcpu, uint32_t vector, uint32_t error_code,
                              uint64_t address);
/* Makes the run under way, or else the next, end with LUNA_EXIT_INTERRUPTED. Never lost, never seen
 * twice, also if asked for anew before luna_vm_next gives it. Any thread; async-signal-safe. */
LUNA_API void luna_vcpu_interrupt(luna_vcpu *vcpu);
/* Stops the calling thread's deadline timer. */
LUNA_API void luna_vcpu_disarm(luna_vcpu *vcpu);

/* Registers are numbered from 0; their names come from luna_register_name. First the sixteen
 * general registers in encoding order, RIP and RFLAGS; then control registers, EFER and APIC_BASE;
 * GDTR and IDTR; then the segments. A segment's access rights have the layout of the VMCS field
 * (SDM Vol. 3, 25.4.1, table "Format of Access Rights"): type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13,
 * D/B 14, G 15, unusable 16. The last are the debug registers, XCR0 and the control registers of
 * x87 and SSE as FXSAVE orders them (FTW is its abridged tag word); KVM has them apart from the
 * others: reading the first of a group after an exit, and each write, is a system call. */
/* clang-format off */
typedef enum luna_register {
  LUNA_RAX, LUNA_RCX, LUNA_RDX, LUNA_RBX, LUNA_RSP, LUNA_RBP, LUNA_RSI, LUNA_RDI,
  LUNA_R8, LUNA_R9, LUNA_R10, LUNA_R11, LUNA_R12, LUNA_R13, LUNA_R14, LUNA_R15,
  LUNA_RIP, LUNA_RFLAGS,
  LUNA_CR0, LUNA_CR2, LUNA_CR3, LUNA_CR4, LUNA_CR8, LUNA_EFER, LUNA_APIC_BASE,
  LUNA_GDTR_BASE, LUNA_GDTR_LIMIT, LUNA_IDTR_BASE, LUNA_IDTR_LIMIT,
  LUNA_CS_SELECTOR, LUNA_CS_BASE, LUNA_CS_LIMIT, LUNA_CS_ACCESS,
  LUNA_DS_SELECTOR, LUNA_DS_BASE, LUNA_DS_LIMIT, LUNA_DS_ACCESS,
  LUNA_ES_SELECTOR, LUNA_ES_BASE, LUNA_ES_LIMIT, LUNA_ES_ACCESS,
  LUNA_FS_SELECTOR, LUNA_FS_BASE, LUNA_FS_LIMIT, LUNA_FS_ACCESS,
  LUNA_GS_SELECTOR, LUNA_GS_BASE, LUNA_GS_LIMIT, LUNA_GS_ACCESS,
  LUNA_SS_SELECTOR, LUNA_SS_BASE, LUNA_SS_LIMIT, LUNA_SS_ACCESS,
  LUNA_TR_SELECTOR, LUNA_TR_BASE, LUNA_TR_LIMIT, LUNA_TR_ACCESS,
  LUNA_LDTR_SELECTOR, LUNA_LDTR_BASE, LUNA_LDTR_LIMIT, LUNA_LDTR_ACCESS,
  LUNA_DR0, LUNA_DR1, LUNA_DR2, LUNA_DR3, LUNA_DR6, LUNA_DR7,
  LUNA_XCR0,
  LUNA_FCW, LUNA_FSW, LUNA_FTW, LUNA_FOP, LUNA_FIP, LUNA_FDP, LUNA_MXCSR,
  LUNA_REGISTER_COUNT
} luna_register;
/* clang-format on */

/* The name of a register in lower case, segments as "cs.base"; NULL for a number that is none. */
LUNA_API const char *luna_register_name(int reg);
/* Reads a register. While a read exit is open the destination register still has its old value. */
LUNA_API int luna_vcpu_get(luna_vcpu *vcpu, int reg, uint64_t *value);
/* Writes a register. Between an exit and the next run a write counts as made after the instruction
 * that exited. A write of rip drops an open exit (luna_vcpu_drop) and one that nobody was given
 * yet: the vCPU goes on there. After an answer it says where to go on behind the instruction.
 * _RANGE for a value that is too wide, and for one of XCR0 or MXCSR that a processor refuses. The
 * rules of system registers are checked by luna_vcpu_run, which fails then and names the rule. */
LUNA_API int luna_vcpu_set(luna_vcpu *vcpu, int reg, uint64_t value);

#include "lunavisor/control.h"
#include "lunavisor/debug.h"
#include "lunavisor/event.h"
#include "lunavisor/interrupt.h"
#include "lunavisor/linear.h"
#include "lunavisor/lines.h"
#include "lunavisor/memory.h"
#include "lunavisor/state.h"
#include "lunavisor/stream.h"
#include "lunavisor/thread.h"
#if !defined(LUNA_CDEF) && defined(__cplusplus)
}
#endif
#endif
