/* SPDX-License-Identifier: MIT
 * Signals while a vCPU runs. KVM_RUN ends with EINTR for any signal; a program of user space is
 * told of none, so after a while they are blocked and looked for. The first instructions run
 * without a system call: most entries end before. A fault in guest memory that the host has taken
 * away ends KVM_RUN with EFAULT. */
#include "soft/execute/control.h"
#include "soft/insn.h"
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum {
  FIRST_LOOK = 20000, /* instructions */
  LATER_LOOKS = 100000,
  FRAME_LEGACY = 416, /* bytes of the frame's x87 and SSE state */
  AT_MXCSR = 24,
  AT_X87 = 32,
  AT_XMM = 160,
  EXTENDED_SIZE = 256,
  AT_COMPONENTS = 512,
  AT_EXTENDED = 576,
  AT_FRAME_SIZE = 480 /* struct _fpx_sw_bytes.xstate_size */
};

static _Thread_local soft_cpu *guarded __attribute__((tls_model("initial-exec")));
static _Thread_local sigset_t before;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static sigset_t held;
static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction old[4];

/* ---- Faults ---- */

/* What is live of the guest's vector state was in the registers: it is in the signal's frame, as
 * the host's own control registers are where they are not the guest's. The handler has others, and
 * leaves by longjmp. */
static void park_from_frame(soft_cpu *cpu, const ucontext_t *context) {
  const uint8_t *frame = (const uint8_t *)context->uc_mcontext.fpregs;
  uint32_t size;
  uint64_t components;
  memcpy(&size, frame + AT_FRAME_SIZE, sizeof size);
  memcpy(&components, frame + AT_COMPONENTS, sizeof components);
  if (!(cpu->vector_live & SOFT_LIVE_X87)) {
    memcpy(&cpu->host_fcw, frame, sizeof cpu->host_fcw);
  }
  if (!(cpu->vector_live & SOFT_LIVE_SSE)) {
    memcpy(&cpu->host_mxcsr, frame + AT_MXCSR, sizeof cpu->host_mxcsr);
  }
  if (cpu->vector_live & SOFT_LIVE_X87) {
    soft_pointer_set pointers = soft_get_pointers(cpu);
    memcpy(cpu->xsave, frame, AT_MXCSR);
    memcpy(cpu->xsave + AT_X87, frame + AT_X87, AT_XMM - AT_X87);
    soft_set_pointers(cpu, pointers);
  }
  if (cpu->vector_live & SOFT_LIVE_SSE) {
    memcpy(cpu->xsave + AT_MXCSR, frame + AT_MXCSR, 4);
    memcpy(cpu->xsave + AT_XMM, frame + AT_XMM, FRAME_LEGACY - AT_XMM);
  }
  if (cpu->vector_live & SOFT_LIVE_AVX && size > AT_EXTENDED) {
    memcpy(cpu->xsave + AT_EXTENDED, frame + AT_EXTENDED, EXTENDED_SIZE);
  }
  for (unsigned i = SOFT_AREA_OPMASK; cpu->vector_live >> i & 1; i++) {
    uint32_t at = soft_component_at(i), end = at + soft_component_size(i);
    if (end <= size) {
      memcpy(cpu->xsave + at, frame + at, end - at);
    }
  }
  uint64_t image;
  memcpy(&image, cpu->xsave + AT_COMPONENTS, sizeof image);
  image = (image & ~(uint64_t)cpu->vector_live) | (components & cpu->vector_live);
  memcpy(cpu->xsave + AT_COMPONENTS, &image, sizeof image);
  soft_vector_abandon(cpu);
}

static bool is_guest_memory(const soft_cpu *cpu, const void *address) {
  for (uint32_t i = 0; i < cpu->map->count; i++) {
    const soft_slot *slot = &cpu->map->slots[i];
    if ((uintptr_t)address - (uintptr_t)slot->hva < slot->size) {
      return true;
    }
  }
  return false;
}

static void pass_on(int number, siginfo_t *info, void *context) {
  for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
    if (faults[i] != number) {
      continue;
    }
    if (old[i].sa_flags & SA_SIGINFO) {
      old[i].sa_sigaction(number, info, context);
    } else if (old[i].sa_handler != SIG_DFL && old[i].sa_handler != SIG_IGN) {
      old[i].sa_handler(number);
    } else {
      signal(number, SIG_DFL); /* it comes again, and ends the process */
    }
  }
}

static const void *instruction_of(const ucontext_t *context) {
  return (const void *)(uintptr_t)context->uc_mcontext.gregs[REG_RIP];
}

/* What the host's processor says of an instruction that it does for the guest. */
__attribute__((noreturn)) static void raise_in_guest(soft_cpu *cpu, int number) {
  if (number == SIGSEGV || number == SIGBUS) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  bool numeric = number == SIGFPE && cpu->cr4 & CR4_OSXMMEXCPT;
  soft_raise(cpu, numeric ? VECTOR_XM : VECTOR_UD);
}

static void on_fault(int number, siginfo_t *info, void *context) {
  soft_cpu *cpu = guarded;
  bool in_memory =
      cpu && (number == SIGSEGV || number == SIGBUS) && is_guest_memory(cpu, info->si_addr);
  if (!in_memory && !(cpu && soft_in_stub(cpu, instruction_of(context)))) {
    pass_on(number, info, context);
    return;
  }
  park_from_frame(cpu, context);
#ifdef __SANITIZE_THREAD__ /* its own handler holds all signals until this one returns */
  pthread_sigmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
#endif
  if (in_memory) {
    soft_leave(cpu, SOFT_ESCAPE_HOST);
  }
  raise_in_guest(cpu, number);
}

static void install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  sigfillset(&held);
  sigdelset(&held, SIGTRAP);
  sigdelset(&held, SIGABRT);
  for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
    sigaction(faults[i], &action, &old[i]);
    sigdelset(&held, faults[i]);
  }
  for (int number = SIGRTMIN; number <= SIGRTMAX; number++) {
    sigdelset(&held, number); /* the library's own kick is one of them */
  }
}

void soft_guard_begin(soft_cpu *cpu) {
  if (soft_unlikely(!cpu->ran)) {
    pthread_once(&once, install);
    cpu->ran = true;
  }
  cpu->poll_at = cpu->retired + FIRST_LOOK;
  guarded = cpu;
}

static void release(soft_cpu *cpu) {
  if (cpu->signals_held) {
    cpu->signals_held = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
}

void soft_guard_end(soft_cpu *cpu) {
  guarded = NULL;
  release(cpu);
}

/* ---- Looking ---- */

static void hold(soft_cpu *cpu) {
  if (!cpu->signals_held) {
    cpu->signals_held = true;
    pthread_sigmask(SIG_BLOCK, &held, &before);
  }
}

static bool is_signalled(void) {
  sigset_t pending;
  sigpending(&pending);
  for (int number = 1; number < 32; number++) {
    if (sigismember(&pending, number) && sigismember(&held, number) &&
        !sigismember(&before, number)) {
      return true;
    }
  }
  return false;
}

int soft_poll(soft_cpu *cpu) {
  if (cpu->vm->chip.kind != SOFT_CHIP_NONE) {
    soft_park(cpu);
    soft_chip_poll(cpu);
  }
  if (cpu->retired < cpu->poll_at) {
    return 0;
  }
  soft_park(cpu);
  hold(cpu);
  cpu->poll_at = cpu->retired + LATER_LOOKS;
  return is_signalled() ? EINTR : 0;
}

/* Signals are let in by ppoll alone, so that none comes between the last look and the wait. */
int soft_sleep(soft_cpu *cpu, uint64_t moment) {
  sigset_t all, mine;
  struct timespec wait = {0, 0};
  sigfillset(&all);
  for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
    sigdelset(&all, faults[i]);
  }
  pthread_sigmask(SIG_BLOCK, &all, &mine);
  int number = 0;
  if (cpu->run->immediate_exit) {
    number = EINTR;
  } else {
    uint64_t now = soft_now();
    uint64_t left = moment > now ? moment - now : 0;
    wait.tv_sec = (time_t)(left / 1000000000u);
    wait.tv_nsec = (long)(left % 1000000000u);
    struct pollfd polled = {.fd = cpu->fd, .events = POLLIN};
    const sigset_t *open = cpu->signals_held ? &before : &mine;
    if (ppoll(&polled, 1, moment ? &wait : NULL, open) < 0) {
      number = errno == EINTR ? EINTR : 0;
    }
  }
  uint64_t count;
  if (read(cpu->fd, &count, sizeof count) < 0) {
    count = 0; /* nobody has written */
  }
  pthread_sigmask(SIG_SETMASK, &mine, NULL);
  return number;
}
