/* SPDX-License-Identifier: MIT
 * Accesses to addresses without memory. A read leaves to user space and its instruction runs again
 * with the answer; a write is posted, and handed out when its instruction is done. Under controls
 * it leaves as a read does. */
#include "soft/access.h"
#include "soft/flags.h"
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"
#include "soft/vmx/vmx.h"

static uint64_t key_of(soft_spot place, bool write) {
  return place.gpa << 1 | write;
}

/* What user space said of the access when it was asked; NULL if it was not. It may be memory by
 * now that another access of the instruction was asked for. */
static const uint8_t *answer_of(soft_cpu *cpu, soft_spot place, bool write) {
  for (unsigned i = cpu->answers_used; i < cpu->answers_made; i++) {
    if (cpu->answer_keys[i] == key_of(place, write)) {
      cpu->answers_used = i + 1;
      return cpu->answers[i];
    }
  }
  return NULL;
}

/* Leaves with the access; the instruction runs again with the answer. `walks`: of an entry of a
 * page table. */
__attribute__((noreturn)) static void ask(soft_cpu *cpu, soft_spot place, uint64_t value,
                                          unsigned size, bool write, bool walks) {
  struct kvm_run *run = cpu->run;
  if (cpu->answers_made == SOFT_ANSWERS_MAX) {
    soft_leave(cpu, SOFT_ESCAPE_HOST);
  }
  run->exit_reason = KVM_EXIT_MMIO;
  run->mmio.phys_addr = place.gpa;
  run->mmio.len = size;
  run->mmio.is_write = write;
  soft_poke(run->mmio.data, value, 64);
  if (cpu->controlled) {
    soft_vmx_tell_access(cpu, place.linear, walks);
  }
  cpu->asked = SOFT_ASKED_MMIO;
  cpu->asked_key = key_of(place, write);
  soft_leave(cpu, SOFT_ESCAPE_EXIT);
}

uint64_t soft_device_read(soft_cpu *cpu, soft_spot place, unsigned size) {
  uint64_t value = 0;
  if (soft_chip_read(cpu, place.gpa, size, &value)) {
    return value;
  }
  const uint8_t *answer = answer_of(cpu, place, false);
  if (answer) {
    return soft_trim(soft_peek(answer, 64), (int)size * 8);
  }
  ask(cpu, place, 0, size, false, false);
}

uint64_t soft_device_entry(soft_cpu *cpu, soft_spot place, unsigned size) {
  const uint8_t *answer = answer_of(cpu, place, false);
  if (answer) {
    return soft_trim(soft_peek(answer, 64), (int)size * 8);
  }
  ask(cpu, place, 0, size, false, true);
}

void soft_device_mark(soft_cpu *cpu, soft_spot place, uint64_t entry, unsigned size) {
  if (!answer_of(cpu, place, true)) {
    ask(cpu, place, entry, size, true, true);
  }
}

static soft_post post_of(soft_spot place, uint64_t value, unsigned size) {
  soft_post post = {.address = place.gpa, .size = (uint8_t)size};
  soft_poke(post.data, value, 64);
  return post;
}

/* Under controls the exit comes before the instruction, as a processor's does: it runs again, and
 * what user space was told of is done then. */
static void offer(soft_cpu *cpu, soft_spot place, uint64_t value, unsigned size) {
  const soft_post post = post_of(place, value, size);
  if (!answer_of(cpu, place, true) && !soft_write_taken(cpu, &post)) {
    ask(cpu, place, value, size, true, false);
  }
}

void soft_device_write(soft_cpu *cpu, soft_spot place, uint64_t value, unsigned size) {
  if (soft_chip_write(cpu, place.gpa, size, value)) {
    return;
  }
  if (cpu->controlled) {
    offer(cpu, place, value, size);
    return;
  }
  if (cpu->posts_made == SOFT_POSTS_MAX) {
    soft_leave(cpu, SOFT_ESCAPE_HOST);
  }
  cpu->posts[cpu->posts_made++] = post_of(place, value, size);
}
