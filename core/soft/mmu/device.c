/* SPDX-License-Identifier: MIT
 * Accesses to addresses without memory. A read leaves to user space and its instruction runs again
 * with the answer; a write is posted, and handed out when its instruction is done. */
#include "soft/access.h"
#include "soft/flags.h"
#include "soft/irqchip/irqchip.h"

uint64_t soft_device_read(soft_cpu *cpu, uint64_t gpa, unsigned size) {
  uint64_t value = 0;
  if (soft_chip_read(cpu, gpa, size, &value)) {
    return value;
  }
  if (cpu->answers_used < cpu->answers_made) {
    const uint8_t *answer = cpu->answers[cpu->answers_used++];
    return soft_trim(soft_peek(answer, 64), (int)size * 8);
  }
  struct kvm_run *run = cpu->run;
  run->exit_reason = KVM_EXIT_MMIO;
  run->mmio.phys_addr = gpa;
  run->mmio.len = size;
  run->mmio.is_write = 0;
  soft_poke(run->mmio.data, 0, 64);
  cpu->asked = SOFT_ASKED_MMIO;
  soft_leave(cpu, SOFT_ESCAPE_EXIT);
}

void soft_device_write(soft_cpu *cpu, uint64_t gpa, uint64_t value, unsigned size) {
  if (soft_chip_write(cpu, gpa, size, value)) {
    return;
  }
  if (cpu->posts_made == SOFT_POSTS_MAX) {
    soft_leave(cpu, SOFT_ESCAPE_HOST);
  }
  soft_post *post = &cpu->posts[cpu->posts_made++];
  post->address = gpa;
  post->port = false;
  post->size = (uint8_t)size;
  soft_poke(post->data, value, 64);
}
