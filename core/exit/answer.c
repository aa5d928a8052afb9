/* SPDX-License-Identifier: MIT
 * Traps that the core answers. A vCPU uses one without a lock: it says in its own kick that it
 * does, then looks whether the trap is still what it found before. Whoever takes a trap away does
 * these two in the other order (claim.c) and waits for those who were faster. */
#include "exit/answer.h"

#include "exit/lookup.h"
#include "exit/reply.h"
#include "memory/buffer.h"
#include "vcpu/vcpu.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local bool inside;

bool luna_answer_inside(void) {
  return inside;
}

luna_answer *luna_answer_copy(const luna_answer *answer) {
  luna_answer *made = malloc(sizeof *made);
  if (made) {
    *made = *answer;
    if (made->buffer) {
      luna_buffer_retain(made->buffer);
    }
  }
  return made;
}

void luna_answer_free(luna_answer *answer) {
  if (answer && answer->buffer) {
    luna_buffer_release(answer->buffer);
  }
  free(answer);
}

/* An aligned access is one access of the host's too, as a device's register would have it. */
#define MOVE_WORD(type)                                                                            \
  do {                                                                                             \
    type word;                                                                                     \
    if (write) {                                                                                   \
      memcpy(&word, bytes, sizeof word);                                                           \
      __atomic_store_n((type *)(void *)host, word, __ATOMIC_RELEASE);                              \
    } else {                                                                                       \
      word = __atomic_load_n((type *)(void *)host, __ATOMIC_ACQUIRE);                              \
      memcpy(bytes, &word, sizeof word);                                                           \
    }                                                                                              \
    return;                                                                                        \
  } while (0)

static void move_word(uint8_t *host, uint8_t *bytes, uint32_t size, bool write) {
  switch ((uintptr_t)host % size == 0 ? size : 0) {
    case 8:
      MOVE_WORD(uint64_t);
    case 4:
      MOVE_WORD(uint32_t);
    case 2:
      MOVE_WORD(uint16_t);
    case 1:
      MOVE_WORD(uint8_t);
    default:
      memcpy(write ? host : bytes, write ? bytes : host, size);
  }
}

/* An MSR takes 8 bytes of the memory. */
static bool answer_memory(const luna_answer *answer, const luna_exit *e, uint8_t *data) {
  luna_buffer *buffer = answer->buffer;
  bool write = e->access == LUNA_WRITE;
  uint64_t unit = e->kind == LUNA_EXIT_MSR ? 8 : 1;
  uint64_t at = answer->offset + e->offset * unit;
  uint8_t *host = buffer->memory.data + at;
  if (write && !buffer->memory.writable) {
    return false;
  }
  if (!luna_buffer_can_vanish(buffer)) {
    move_word(host, data, e->size, write);
  } else if (!luna_buffer_move(buffer->root, host, data, e->size, write)) {
    return false;
  }
  if (write) {
    luna_buffer_mark(buffer, at, e->size);
  }
  return true;
}

static bool answer_function(luna_vcpu *vcpu, const luna_answer *answer, uint64_t serial) {
  const luna_exit *e = &vcpu->exit;
  uint8_t *data = vcpu->pending.data;
  uint64_t value = e->value;
  vcpu->pending.asked = serial;
  inside = true;
  int result = answer->function(answer->context, e->offset, e->size, e->access, &value);
  inside = false;
  if (result == 0 && e->access == LUNA_READ) {
    memcpy(data, &value, e->size);
  }
  return result == 0;
}

/* What answers the exit, NULL if the script does; held until release. */
static const luna_answer *hold(luna_vcpu *vcpu, int kind) {
  const luna_answer *answer;
  while ((answer = vcpu->lookup->owners[kind].answer) != NULL) {
    atomic_store(&vcpu->kick.answering, true);
    if (atomic_load(&vcpu->vm->generation) == vcpu->lookup->generation) {
      return answer;
    }
    atomic_store_explicit(&vcpu->kick.answering, false, memory_order_release);
    luna_exit_own(vcpu, kind);
  }
  return NULL;
}

static void release(luna_vcpu *vcpu) {
  atomic_store_explicit(&vcpu->kick.answering, false, memory_order_release);
}

/* An access that runs past the end of the trap is not the trap's alone. */
static bool fits(const luna_vcpu *vcpu, int kind) {
  const luna_exit *e = &vcpu->exit;
  return kind == LUNA_TRAP_MSR || e->size - 1 <= vcpu->lookup->owners[kind].last - e->address;
}

static bool answer_element(luna_vcpu *vcpu, int kind) {
  const luna_answer *answer = hold(vcpu, kind);
  if (!answer) {
    return false;
  }
  bool done = fits(vcpu, kind) &&
              (answer->function ? answer_function(vcpu, answer, vcpu->lookup->owners[kind].serial)
                                : answer_memory(answer, &vcpu->exit, vcpu->pending.data));
  release(vcpu);
  return done;
}

int luna_answer_exit(luna_vcpu *vcpu, int kind) {
  while (vcpu->pending.open) {
    if (!answer_element(vcpu, kind)) {
      return vcpu->pending.open ? (int)vcpu->exit.kind : 0;
    }
    if (vcpu->pending.open) { /* its function may have set rip */
      luna_exit_next(vcpu);
    }
  }
  return 0;
}
