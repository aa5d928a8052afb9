/* SPDX-License-Identifier: MIT
 * The host's timer interrupts. On a Mac each that the processor takes while it is in the guest ends
 * hv_vcpu_run, and programs rely on it: it is when they look for an interrupt that their devices
 * have for the guest. KVM goes back in by itself, so a thread interrupts whoever is in hv_vcpu_run,
 * as often as a timer would. While nobody is, it sleeps. */
#include "hvf/base/tick.h"

#include "hvf/base/error.h"
#include "hvf/base/process.h"

#include <signal.h>
#include <time.h>

enum {
  PERIOD = 1000000, /* nanoseconds */
  PATIENCE = 16     /* ticks for nobody */
};

atomic_bool hvf_tick_asleep = true;
static bool started; /* this and what follows: by the lock of the VM */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

/* The lock is held. Whether anybody was there. */
static bool tick(void) {
  bool any = false;
  for (hv_vcpuid_t id = 0; id < hvf_the_vm.vcpu_room; id++) {
    hvf_vcpu *v = hvf_the_vm.vcpus[id];
    if (v && atomic_load_explicit(&v->ticking, memory_order_relaxed)) {
      atomic_store(&v->ticked, true);
      luna_vcpu_interrupt(v->vcpu);
      any = true;
    }
  }
  return any;
}

/* Whoever begins a run looks whether this is asleep without a barrier between, so after it has said
 * that it is going to there is one more look, a tick later. */
static void *beat(void *unused) {
  const struct timespec period = {.tv_nsec = PERIOD};
  (void)unused;
  pthread_mutex_lock(&hvf_the_vm.lock);
  for (int idle = 0;; idle++) {
    if (tick()) {
      idle = 0;
      atomic_store(&hvf_tick_asleep, false);
    } else if (idle == PATIENCE) {
      atomic_store(&hvf_tick_asleep, true);
    } else if (idle > PATIENCE) {
      while (atomic_load(&hvf_tick_asleep)) {
        pthread_cond_wait(&wake, &hvf_the_vm.lock);
      }
      idle = 0;
    }
    pthread_mutex_unlock(&hvf_the_vm.lock);
    nanosleep(&period, NULL);
    pthread_mutex_lock(&hvf_the_vm.lock);
  }
  return NULL;
}

/* The lock is held. None of the program's signals is for this thread. */
static int start(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  int number = pthread_attr_init(&attributes);
  if (number != 0) {
    return number;
  }
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  number = pthread_create(&thread, &attributes, beat, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  started = number == 0;
  return number;
}

hv_return_t hvf_tick_wake(void) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  const int number = started ? 0 : start();
  if (number == 0) {
    atomic_store(&hvf_tick_asleep, false);
    pthread_cond_signal(&wake);
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return number == 0 ? HV_SUCCESS
                     : hvf_fail(HV_NO_RESOURCES,
                                "no thread for the ticks of hv_vcpu_run (pthread_create: %d); "
                                "hv_vcpu_run_until needs none",
                                number);
}

void hvf_tick_forget(void) {
  started = false;
  wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  atomic_store(&hvf_tick_asleep, true);
}
