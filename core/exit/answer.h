/* SPDX-License-Identifier: MIT
 * Traps that the core answers on the vCPU's own thread: memory, or a function of the embedder. */
#ifndef LUNA_ANSWER_H
#define LUNA_ANSWER_H

#include "lunavisor.h"

#include <stdbool.h>

typedef struct luna_answer {
  luna_trap_function function; /* NULL for memory */
  void *context;
  luna_buffer *buffer;
  uint64_t offset;
} luna_answer;

/* A copy on the heap, with a reference to the buffer; NULL without memory. */
luna_answer *luna_answer_copy(const luna_answer *answer);
void luna_answer_free(luna_answer *answer);
/* Answers what is left of the open exit, which a trap of the kind owns, as far as the core can. 0
 * when that was all, else the exit's kind. */
int luna_answer_exit(luna_vcpu *vcpu, int kind);
/* Whether the calling thread is inside a trap's function. */
bool luna_answer_inside(void);

#endif
