/* SPDX-License-Identifier: MIT
 * Port accesses: permission, the answers of user space, and writes, which are posted. */
#include "soft/execute/execute.h"
#include "soft/kernel/kernel.h"
#include "soft/vmx/instruction.h"

enum {
  TSS_IO_MAP = 0x66 /* offset of the permission map's offset in a TSS */
};

/* Against IOPL and the permission map of the TSS (SDM volume 1, 19.5). */
static void check_rights(soft_cpu *cpu, uint16_t port, unsigned size) {
  if (soft_is_real(cpu) || (!soft_is_vm86(cpu) && cpu->cpl <= soft_iopl(cpu))) {
    return;
  }
  if (cpu->tr.unusable || cpu->tr.limit < 0x67 || !(cpu->tr.type & 8)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t map = soft_load_system(cpu, cpu->tr.base + TSS_IO_MAP, 2);
  if (map + port / 8 + 1 > cpu->tr.limit) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t bits = soft_load_system(cpu, cpu->tr.base + map + port / 8, 2) >> (port & 7);
  if (bits & ((1u << size) - 1)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static void check_port(soft_cpu *cpu, const soft_insn *insn, uint16_t port, unsigned size) {
  cpu->current = insn;
  check_rights(cpu, port, size);
  if (soft_unlikely(cpu->no_links)) {
    soft_watch_port(cpu, port, size);
  }
}

/* Leaves; the instruction runs again with what user space puts on the run page. */
__attribute__((noreturn)) static void ask(soft_cpu *cpu, uint16_t port, unsigned size,
                                          unsigned count) {
  struct kvm_run *run = cpu->run;
  run->exit_reason = KVM_EXIT_IO;
  run->io.direction = KVM_EXIT_IO_IN;
  run->io.size = (uint8_t)size;
  run->io.port = port;
  run->io.count = count;
  run->io.data_offset = SOFT_RUN_PIO;
  uint8_t *data = (uint8_t *)run + SOFT_RUN_PIO;
  for (unsigned i = 0; i < size * count; i++) {
    data[i] = 0;
  }
  cpu->asked = SOFT_ASKED_PORT;
  cpu->asked_size = size * count;
  soft_leave(cpu, SOFT_ESCAPE_EXIT);
}

static uint64_t read_port(soft_cpu *cpu, uint16_t port, unsigned size, unsigned count) {
  uint64_t value = 0;
  if (soft_chip_in(cpu, port, size, &value)) {
    return value;
  }
  if (cpu->batch_used < cpu->batch_size) {
    value = soft_trim(soft_peek(cpu->batch + cpu->batch_used, 64), (int)size * 8);
    cpu->batch_used += size;
    return value;
  }
  ask(cpu, port, size, count);
}

static void write_port(soft_cpu *cpu, uint16_t port, uint64_t value, unsigned size) {
  if (soft_chip_out(cpu, port, size, value)) {
    return;
  }
  soft_post *post = &cpu->posts[cpu->posts_made++];
  post->address = port;
  post->port = true;
  post->size = (uint8_t)size;
  soft_poke(post->data, value, 64);
}

SOFT_INLINE uint16_t port_of(const soft_cpu *cpu, const soft_insn *insn) {
  return (uint16_t)(insn->from_kind == SOFT_IMMEDIATE ? insn->immediate : cpu->r[RDX]);
}

/* ---- Exits that a control asks for ---- */

/* A write that an eventfd takes is none, and done. */
static bool write_taken(soft_cpu *cpu, uint16_t port, unsigned size) {
  if (!soft_takes_writes(cpu->vm)) {
    return false;
  }
  soft_post post = {.address = port, .port = true, .size = (uint8_t)size};
  soft_poke(post.data, soft_trim(cpu->r[RAX], (int)size * 8), 64);
  return soft_write_taken(cpu, &post);
}

/* Of the exits the most frequent: it leaves by returns, which the processor foresees. */
static const soft_insn *exit_port(soft_cpu *cpu, const soft_insn *insn, uint16_t port,
                                  unsigned size, bool in) {
  soft_vmx_tell_port(cpu, insn, port, size, (soft_port_form){.in = in}, 0);
  return soft_vmx_return(cpu);
}

static void offer_string(soft_cpu *cpu, const soft_insn *insn, uint16_t port, unsigned size,
                         bool in) {
  if (soft_asks(cpu, CPU_BASED_UNCOND_IO)) {
    unsigned segment = in ? SEG_ES : insn->segment;
    uint64_t offset = soft_trim(cpu->r[in ? RDI : RSI], insn->address_size * 8);
    bool based = !soft_is_64(cpu) || segment >= SEG_FS;
    uint64_t linear = (based ? cpu->seg[segment].base : 0) + offset;
    soft_vmx_tell_port(cpu, insn, port, size, (soft_port_form){.in = in, .string = true},
                       soft_is_64(cpu) ? linear : (uint32_t)linear);
    soft_vmx_leave(cpu);
  }
}

/* ---- Instructions ---- */

SOFT_INLINE const soft_insn *in(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint16_t port = port_of(cpu, insn);
  check_port(cpu, insn, port, (unsigned)bits / 8);
  if (soft_asks(cpu, CPU_BASED_UNCOND_IO)) {
    return exit_port(cpu, insn, port, (unsigned)bits / 8, true);
  }
  soft_set_gpr(cpu, RAX, read_port(cpu, port, (unsigned)bits / 8, 1), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(in)

SOFT_INLINE const soft_insn *out(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint16_t port = port_of(cpu, insn);
  check_port(cpu, insn, port, (unsigned)bits / 8);
  if (soft_asks(cpu, CPU_BASED_UNCOND_IO)) {
    if (!write_taken(cpu, port, (unsigned)bits / 8)) {
      return exit_port(cpu, insn, port, (unsigned)bits / 8, false);
    }
    SOFT_END;
  }
  write_port(cpu, port, soft_gpr(cpu, RAX, bits), (unsigned)bits / 8);
  SOFT_END;
}
SOFT_BY_SIZE(out)

SOFT_INLINE void advance(soft_cpu *cpu, const soft_insn *insn, int number, int bits) {
  uint64_t by = (uint64_t)(bits / 8);
  soft_set_gpr(cpu, number, cpu->r[number] + (cpu->rflags & FLAG_DF ? -by : by),
               insn->address_size * 8);
}

/* How many elements REP INS asks for at once: as many as fit before the end of the page that it
 * writes to, as KVM does it. */
static unsigned batch_of(const soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  if (insn->repeat == SOFT_ONCE) {
    return 1;
  }
  uint64_t in_page = cpu->r[RDI] & (SOFT_PAGE - 1);
  uint64_t room = (cpu->rflags & FLAG_DF ? in_page : SOFT_PAGE - in_page) / size;
  uint64_t count = soft_trim(cpu->r[RCX], insn->address_size * 8);
  room = room < SOFT_BATCH_MAX / size ? room : SOFT_BATCH_MAX / size;
  return (unsigned)(count < room ? count : room ? room : 1);
}

static void ins_once(soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  uint16_t port = (uint16_t)cpu->r[RDX];
  check_port(cpu, insn, port, size);
  offer_string(cpu, insn, port, size, true);
  uint64_t linear =
      soft_linear(cpu, SEG_ES, soft_trim(cpu->r[RDI], insn->address_size * 8), size, SOFT_WRITE);
  bool plain = soft_reach(cpu, linear, size, SOFT_WRITE); /* before the device is read */
  unsigned count = plain ? batch_of(cpu, insn, size) : 1;
  soft_store_slow(cpu, linear, read_port(cpu, port, size, count), size);
  advance(cpu, insn, RDI, (int)size * 8);
}

static void outs_once(soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  uint16_t port = (uint16_t)cpu->r[RDX];
  check_port(cpu, insn, port, size);
  offer_string(cpu, insn, port, size, false);
  uint64_t linear = soft_linear(cpu, insn->segment, soft_trim(cpu->r[RSI], insn->address_size * 8),
                                size, SOFT_READ);
  write_port(cpu, port, soft_load_slow(cpu, linear, size), size);
  advance(cpu, insn, RSI, (int)size * 8);
}

/* Both run alone: an exit comes behind each iteration. Not one is as forbidden as some. */
static const soft_insn *string(soft_cpu *cpu, const soft_insn *insn, unsigned size,
                               void (*once)(soft_cpu *, const soft_insn *, unsigned)) {
  int width = insn->address_size * 8;
  cpu->current = insn;
  if (!cpu->single) {
    soft_leave(cpu, SOFT_ESCAPE_STEP);
  }
  if (insn->repeat == SOFT_ONCE) {
    once(cpu, insn, size);
    return insn + 1;
  }
  if (!soft_gpr(cpu, RCX, width)) {
    check_rights(cpu, (uint16_t)cpu->r[RDX], size);
  }
  while (soft_gpr(cpu, RCX, width)) {
    once(cpu, insn, size);
    soft_set_gpr(cpu, RCX, cpu->r[RCX] - 1, width);
    if (cpu->batch_used < cpu->batch_size) {
      continue;
    }
    if (soft_gpr(cpu, RCX, width)) {
      cpu->rip = soft_rip_at(cpu, insn);
      return NULL;
    }
  }
  return insn + 1;
}

SOFT_INLINE const soft_insn *ins(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return string(cpu, insn, (unsigned)bits / 8, ins_once);
}
SOFT_BY_SIZE(ins)

SOFT_INLINE const soft_insn *outs(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return string(cpu, insn, (unsigned)bits / 8, outs_once);
}
SOFT_BY_SIZE(outs)
