/* SPDX-License-Identifier: MIT
 * Whose an access is that no memory answered, kept from one access to the next. */
#ifndef LUNA_LOOKUP_H
#define LUNA_LOOKUP_H

#include "base/range.h"
#include "exit/trap.h"
#include "memory/space.h"

/* What an access at an address meets. */
typedef struct luna_owner {
  luna_range range;          /* the answer is the same in this whole range */
  uint64_t base;             /* the trap's first address */
  uint64_t last;             /* and its last */
  uint64_t clear;            /* up to here, from `range` on, no other trap begins */
  uint32_t trap;             /* 0: none */
  uint64_t serial;           /* luna_trap.serial */
  const luna_answer *answer; /* what the core answers with, or NULL */
} luna_owner;

/* In each vCPU. */
typedef struct luna_lookup {
  luna_owner owners[LUNA_TRAP_KINDS]; /* what the last access of the kind met */
  unsigned long generation;           /* of the VM's map and traps then */
  uint8_t collected[8];               /* the data of a collected write that is open */
} luna_lookup;

/* The owner of an access that no memory answered. The lock is taken inside. */
luna_owner luna_lookup_find(luna_vm *vm, const luna_space *space, int kind, uint64_t address);

/* Finds the trap of the exit's address, without the lock where it is the same as last time, and
 * which part of the access is for it: all that is left, unless another trap begins in there. */
void luna_exit_own(luna_vcpu *vcpu, int kind);
/* What the open exit writes, 0 where it reads. */
uint64_t luna_exit_value(const luna_vcpu *vcpu);
/* The kind of the traps that an exit can belong to, or -1. */
int luna_exit_trap_kind(const luna_exit *e);
/* Whether the last answer still holds for the address. */
bool luna_lookup_knows(const luna_vcpu *vcpu, int kind, uint64_t address);
/* The next access is looked up again. */
void luna_lookup_forget(luna_vcpu *vcpu);

#endif
