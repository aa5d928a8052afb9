/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: vCPUs on threads of their own. A started vCPU enters the guest on its thread
 * again and again; an exit that the core does not answer waits in the VM's queue for whoever calls
 * luna_vm_next, and its vCPU with it, until luna_vcpu_go. */
#ifndef LUNAVISOR_THREAD_H
#define LUNAVISOR_THREAD_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

/* Starts the vCPU on a thread of its own; from now on its other calls fail with _STATE, unless it
 * is paused or its exit has been taken from the queue; luna_vcpu_run fails then too. An exit that
 * is open is queued at once. The thread blocks all signals but the library's own. _STATE if it is
 * started already, is run by another thread, or in a child of the process that made the VM. */
LUNA_API int luna_vcpu_start(luna_vcpu *vcpu);
/* Ends the thread: gets the vCPU out of the guest, and waits until it is out. The vCPU can be used,
 * run and started again. An exit that waited in the queue is its last exit, and the next run or
 * start gives it again; one that luna_vm_next gave is given again if it is open. Releasing the last
 * reference stops too. */
LUNA_API int luna_vcpu_stop(luna_vcpu *vcpu);
/* Gets a started vCPU out of the guest, waits until it is, and keeps it out. Pauses count. An exit
 * that it came out with stays in the queue. */
LUNA_API int luna_vcpu_pause(luna_vcpu *vcpu);
/* Takes one pause back. _STATE if there is none. */
LUNA_API int luna_vcpu_resume(luna_vcpu *vcpu);
/* Whether it is started. */
LUNA_API uint32_t luna_vcpu_started(const luna_vcpu *vcpu);

/* As luna_vcpu_start, but with no thread while no other vCPU of the VM is started: then
 * luna_vcpu_run_here runs it, and no exit has to be handed from one thread to another. It gets its
 * thread when another vCPU is started, and by a luna_vm_next that does not wait. */
LUNA_API int luna_vcpu_start_here(luna_vcpu *vcpu);
/* Whether it is started and has no thread. */
LUNA_API uint32_t luna_vcpu_here(const luna_vcpu *vcpu);
/* Runs a vCPU that is started and has no thread in the calling one, as luna_vcpu_run does with the
 * same `deadline` and results. What it gives counts as taken from the queue, but for
 * LUNA_EXIT_TIMEOUT and LUNA_EXIT_SIGNAL, which are no exits of the vCPU; the next call does what
 * luna_vcpu_go does. 0 where it cannot be run here now: luna_vm_next waits for what there is to do
 * then, and returns 0 when a pause that kept it out is over. One thread at a time. */
LUNA_API int luna_vcpu_run_here(luna_vcpu *vcpu, uint64_t deadline);

/* Takes the next exit from the queue: the kind (its details are luna_vcpu_exit(*vcpu)), or a
 * negative status of the run that failed, with *vcpu; 0 and NULL if there was none up to `deadline`
 * (luna_clock(); 0: does not wait; LUNA_FOREVER), after luna_vm_wake, or when a signal handler ran
 * in this thread while it slept. Several threads may wait. An open exit that has found an owner
 * while it waited (luna_vcpu_run) is not given. Who waits or answers may look at the queue for up
 * to 0.1 ms before it sleeps, where a processor is free for that. */
#define LUNA_FOREVER UINT64_MAX
LUNA_API int luna_vm_next(luna_vm *vm, uint64_t deadline, luna_vcpu **vcpu);
/* Lets a vCPU go on whose exit was taken from the queue and dealt with; an open exit that was not
 * answered comes again. _STATE if none was taken. */
LUNA_API int luna_vcpu_go(luna_vcpu *vcpu);
/* A descriptor that can be polled: readable while an exit waits in the queue, or once the moment of
 * luna_vm_alarm has come. It is the VM's and lives as long. */
LUNA_API int luna_vm_fd(luna_vm *vm);
/* Makes luna_vm_fd readable at that moment of luna_clock(); 0 takes it back. */
LUNA_API int luna_vm_alarm(luna_vm *vm, uint64_t moment);
/* Makes a luna_vm_next that waits return 0, or else the next one. Any thread, signal handlers. */
LUNA_API void luna_vm_wake(luna_vm *vm);

#endif
