/* SPDX-License-Identifier: MIT
 * A KVM without a processor, behind luna_kvm_table: it keeps KVM's rules on memory slots,
 * registers and the run page, and KVM_RUN follows a script. The functions are exported for
 * LuaJIT's ffi. */
#ifndef LUNA_FAKE_H
#define LUNA_FAKE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_API __attribute__((visibility("default")))

enum {
  FAKE_DATA_SIZE = 64,
  FAKE_BATCH = 1024,           /* the most elements of a port access */
  FAKE_INSTRUCTION_LENGTH = 2, /* what completing an access adds to RIP */
  FAKE_EXIT_MEMORY_FAULT = 39  /* KVM_EXIT_MEMORY_FAULT, which older headers do not name */
};

/* The host that the fake plays. */
typedef struct fake_config {
  int open_error;   /* errno of every open, 0 for success */
  int create_error; /* errno of every KVM_CREATE_VM */
  int api_version;
  uint32_t slots_max;
  uint32_t vcpus_max;
  uint32_t sync_regs;
  uint32_t immediate_exit; /* what KVM_CHECK_EXTENSION says */
  uint32_t address_bits;
  uint32_t memory_attributes; /* the attributes that KVM_SET_MEMORY_ATTRIBUTES takes */
  uint32_t manual_protect;    /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
  uint32_t coalesced_page;    /* KVM_CAP_COALESCED_MMIO */
  uint32_t coalesced_pio;     /* KVM_CAP_COALESCED_PIO */
  uint32_t msr_exits;         /* KVM_CAP_X86_USER_SPACE_MSR and KVM_CAP_X86_MSR_FILTER */
  uint32_t cpuid_entries;
  uint64_t exit_hypercall; /* the hypercalls that KVM_CAP_EXIT_HYPERCALL takes */
  bool no_stats;           /* KVM_GET_STATS_FD is unknown, as before Linux 5.14 */
  bool controllers;        /* interrupt controllers can be made */
  bool pit;
  bool smm;
  bool tsc_control;
  bool no_tsc_offset; /* KVM_VCPU_TSC_OFFSET is unknown, as before Linux 5.16 */
  bool host_tsc;      /* guests read the host's counter, which stands at 0 */
  bool bus_cycles;    /* KVM_CAP_X86_APIC_BUS_CYCLES_NS */
  bool translate_fails;
  uint32_t stops;            /* FAKE_STOP_*: what the guest stops at */
  uint64_t translate_offset; /* KVM_TRANSLATE: physical minus linear */
} fake_config;

/* What a guest with KVM_SET_GUEST_DEBUG stops at. */
enum {
  FAKE_STOP_HARDWARE = 1,
  FAKE_STOP_WATCH = 2,
  FAKE_STOP_INT3 = 4, /* as KVM_EXIT_DEBUG */
  FAKE_FAIL_INT3 = 8  /* as an instruction that KVM cannot emulate */
};

/* struct kvm_memory_attributes of Linux 6.8. */
typedef struct fake_attributes {
  uint64_t address;
  uint64_t size;
  uint64_t attributes;
  uint64_t flags;
} fake_attributes;

/* A value that no MSR, DR3 or XCR0 of the fake takes. */
#define FAKE_REFUSED UINT64_C(0x8badbadbadbadbad)

FAKE_API fake_config fake_defaults(void);
/* Puts the fake in KVM's place, as after a start of the process. NULL for the defaults. */
FAKE_API void fake_install(const fake_config *config);
/* The fake's table, for tests that have several kernels. */
struct luna_kvm_table;
FAKE_API const struct luna_kvm_table *fake_table(void);
/* Puts the real KVM back. */
FAKE_API void fake_remove(void);

typedef enum fake_kind {
  FAKE_HLT,
  FAKE_PIO,
  FAKE_MMIO,
  FAKE_SHUTDOWN,
  FAKE_INTERNAL,
  FAKE_FAIL_ENTRY,
  FAKE_OTHER,  /* an exit with `reason`, and `words` as what the run page says of it */
  FAKE_CODE,   /* one instruction at `address`, which may touch `value`; see fake_debug.c */
  FAKE_ERRNO,  /* KVM_RUN fails with `number` */
  FAKE_SPIN,   /* the guest loops: KVM_RUN returns only for immediate_exit, a signal, `limit` */
  FAKE_MSR,    /* RDMSR or WRMSR of the MSR `address`, `value` written */
  FAKE_COLLECT /* a write to `address`, `pio` or not, that KVM collects while there is room */
} fake_kind;

/* What the guest does next. Fields that a kind does not name are ignored. */
typedef struct fake_step {
  fake_kind kind;
  uint64_t address; /* pio: port; mmio, errno with a memory fault: gpa */
  uint32_t size;    /* pio, mmio: bytes of an element */
  uint32_t count;   /* pio: elements, 0 is 1 */
  bool write;       /* pio, mmio, msr; true for collect */
  bool pio;         /* collect */
  bool continues;   /* pio, mmio: the next step is a further part of the same instruction */
  uint8_t data[FAKE_DATA_SIZE]; /* pio, mmio: what a write carries */
  int number;                   /* errno */
  uint32_t reason;              /* errno, other: exit_reason */
  uint64_t value;          /* fail_entry: the hardware's reason; memory fault: its flags; msr */
  uint32_t suberror;       /* internal */
  uint32_t ndata;          /* internal */
  uint64_t words[16];      /* other, internal; words[0] are the flags of an emulation failure */
  uint8_t instruction[15]; /* internal: there where the flags say so */
  uint8_t instruction_size;
  uint64_t limit;                /* spin: nanoseconds after which the guest goes on, 0 for never */
  const struct kvm_regs *regs;   /* the guest's registers from here on, or NULL */
  const struct kvm_sregs *sregs; /* the same */
  bool early; /* spin: the hook comes before KVM looks at immediate_exit and at signals */
  void (*hook)(void *context); /* called, once, when KVM_RUN comes to the step */
  void *context;
} fake_step;

/* The steps of every vCPU from now on; they stay the caller's. Behind the last the guest halts, or
 * begins again. */
FAKE_API void fake_script(const fake_step *steps, size_t count);
FAKE_API void fake_script_endless(const fake_step *steps, size_t count);
/* The next exit is one with this reason, and these words on the run page; then the guest halts. */
FAKE_API void fake_exit(uint32_t reason, const uint64_t *words, size_t count);
/* Every KVM_RUN gives this one exit, at little cost. Size 0 ends that. */
FAKE_API void fake_endless_pio(uint16_t port, uint32_t size, bool in);
/* The same with reads of `count` bytes at once, up to FAKE_BATCH. */
FAKE_API void fake_endless_batch(uint16_t port, uint32_t count);
FAKE_API void fake_endless_mmio(uint64_t gpa, uint32_t size, bool write);

/* The nth open, ioctl or map from now on, counted from 1, fails with the errno `number`. 0 takes
 * it back. */
FAKE_API void fake_fail(uint64_t nth, int number);
/* Whether that has happened since fake_fail. */
FAKE_API bool fake_failed(void);

/* How many ioctls with the request there were since fake_install or fake_forget; 0 for all. */
FAKE_API uint64_t fake_calls(unsigned long request);
FAKE_API void fake_forget(void);
/* The descriptor of the last ioctl with the request, -1 if there was none. */
FAKE_API int fake_last_fd(unsigned long request);

/* How many descriptors and run pages are open. */
FAKE_API unsigned fake_open(void);
/* How often the caller did what no caller should: a descriptor or mapping that is not there. */
FAKE_API unsigned fake_mistakes(void);
/* The path of the last open. */
FAKE_API const char *fake_path(void);

/* The hypercalls that the youngest open VM hands on. */
FAKE_API uint64_t fake_hypercalls(void);
/* The youngest open vCPU was halted for so long, in nanoseconds, says KVM: poll_success, poll_fail
 * and wait. */
FAKE_API void fake_halted(uint64_t poll_success, uint64_t poll_fail, uint64_t wait);

/* The last memory attributes that the youngest open VM was given. */
FAKE_API fake_attributes fake_last_attributes(void);

/* Copies the slots of the youngest open VM, in the order of their numbers; returns how many there
 * are. */
FAKE_API size_t fake_slots(struct kvm_userspace_memory_region *slots, size_t room);
/* The guest writes to the page through a slot of the youngest open VM, as the slot's log then says.
 * False where no slot lets it. */
FAKE_API bool fake_write(uint64_t gpa);
/* The registers and the run page of the youngest open vCPU, NULL where there is none. */
FAKE_API struct kvm_regs *fake_regs(void);
FAKE_API struct kvm_sregs *fake_sregs(void);
FAKE_API struct kvm_run *fake_run_page(void);
/* What KVM_SET_GUEST_DEBUG last said to the youngest open vCPU, NULL where there is none. */
FAKE_API const struct kvm_guest_debug *fake_guest_debug(void);
/* fake_event.c, over all open VMs: eventfds, zones of collected writes, and how many make an exit
 * of the MSR. */
FAKE_API unsigned fake_eventfds(void);
FAKE_API unsigned fake_zones(void);
FAKE_API unsigned fake_msr_exits(uint32_t msr);
/* The ranges of the youngest VM's filter. */
FAKE_API unsigned fake_msr_ranges(void);
/* How many accesses to MSRs have ended in a #GP. */
FAKE_API unsigned fake_refused(void);
/* The vectors that guests took since fake_install, of interrupts and exceptions, in their order;
 * how many. */
FAKE_API size_t fake_taken(const uint8_t **vectors);
/* The one-shot timer of the youngest open vCPU's LAPIC runs out now. */
FAKE_API void fake_timer(void);
/* How many messages the youngest open VM got, and how many routes it has. */
FAKE_API uint64_t fake_messages(void);
FAKE_API uint32_t fake_routes(void);
/* Of how many lines, from 0, it is told where a level interrupt ends. */
FAKE_API uint32_t fake_ending(void);
/* What KVM took as the answer of the last read on this thread: bytes and their number. */
FAKE_API const uint8_t *fake_answer(size_t *size);

#endif
