/* SPDX-License-Identifier: MIT
 * The code of a stub. It begins as a handler (cpu in rdi, instruction in rsi), where it can be one:
 * unless the kind is ready, it goes to soft_op_vector. Behind that is what soft_vector_code is:
 * memory in rdi, instruction in rsi, cpu in rdx. */
#include "soft/execute/execute.h"
#include "soft/vector/stub.h"

#include <stddef.h>
#include <string.h>

static void put(soft_stub_code *code, const void *bytes, size_t size) {
  memcpy(code->bytes + code->size, bytes, size);
  code->size = (uint8_t)(code->size + size);
}
#define PUT(code, ...)                                                                             \
  put((code), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put_32(soft_stub_code *code, size_t value) {
  uint32_t field = (uint32_t)value;
  put(code, &field, sizeof field);
}

/* mov rax, target; jmp rax */
static void put_jump(soft_stub_code *code, const void *target, size_t size) {
  PUT(code, 0x48, 0xb8);
  put(code, target, size);
  PUT(code, 0xff, 0xe0);
}

/* jnz or jz forwards; where its distance is. */
static unsigned put_branch(soft_stub_code *code, uint8_t opcode) {
  PUT(code, opcode, 0);
  return code->size - 1u;
}

static void set_target(soft_stub_code *code, unsigned branch) {
  if (branch) {
    code->bytes[branch] = (uint8_t)(code->size - branch - 1u);
  }
}

/* mov between rax, rcx or rdx and the guest's register behind r8. */
static void put_moves(soft_stub_code *code, const soft_stub_key *key, bool out) {
  for (unsigned i = 0; i < 3; i++) {
    if (key->gpr[i] >= 0 && (!out || key->written[i])) {
      PUT(code, 0x49, out ? 0x89 : 0x8b, (uint8_t)(0x40 | i << 3), (uint8_t)(key->gpr[i] * 8));
    }
  }
}

static void put_end(soft_stub_code *code, const soft_stub_key *key) {
  const soft_insn *(*end)(soft_cpu *, const soft_insn *, uint64_t) =
      key->flags_out ? soft_vector_flags : soft_vector_done;
#ifdef SOFT_SANITIZED
  bool direct = false;
#else
  bool direct = !key->flags_out;
#endif
  PUT(code, 0x4c, 0x89, 0xc7); /* mov rdi, r8 */
  if (direct) {
    PUT(code, 0x48, 0x83, 0xc6, sizeof(soft_insn), 0xff, 0x26); /* add rsi, 1 insn; jmp [rsi] */
  } else {
    PUT(code, 0x4c, 0x89, 0xca); /* mov rdx, r9 */
    put_jump(code, &end, sizeof end);
  }
}

void soft_stub_assemble(soft_stub_code *code, const soft_stub_key *key) {
  const soft_handler slow = soft_op_vector;
  unsigned unready = 0, pending = 0;
  _Static_assert(offsetof(soft_cpu, r) == 0 && sizeof(soft_insn) < 128, "as the code has it");
  code->size = 0;
  if (key->alone) {
    PUT(code, 0xf6, 0x87); /* test byte [rdi + vector_ready], kind */
    put_32(code, offsetof(soft_cpu, vector_ready));
    PUT(code, (uint8_t)(1u << key->kind));
    unready = put_branch(code, 0x74);
    if (key->waits) {
      PUT(code, 0xdf, 0xe0, 0xa8, 0x80); /* fnstsw ax; test al, 80h */
      pending = put_branch(code, 0x75);
    }
    PUT(code, 0x48, 0x89, 0xb7); /* mov [rdi + current], rsi */
    put_32(code, offsetof(soft_cpu, current));
    if (key->points) {
      PUT(code, 0x48, 0x89, 0xb7); /* mov [rdi + x87_at], rsi */
      put_32(code, offsetof(soft_cpu, x87_at));
      PUT(code, 0x48, 0x8b, 0x87); /* mov rax, [rdi + R_BLOCK] */
      put_32(code, R_BLOCK * sizeof(uint64_t));
      PUT(code, 0x48, 0x89, 0x87); /* mov [rdi + x87_base], rax */
      put_32(code, offsetof(soft_cpu, x87_base));
    }
    PUT(code, 0x48, 0x89, 0xfa); /* mov rdx, rdi */
  }
  code->entry = code->size;
  PUT(code, 0x49, 0x89, 0xd0); /* mov r8, rdx */
  if (key->flags_in) {
    PUT(code, 0x41, 0xff, 0xb0); /* push qword [r8 + vector_flags]; popfq */
    put_32(code, offsetof(soft_cpu, vector_flags));
    PUT(code, 0x9d);
  }
  put_moves(code, key, false);
  put(code, key->bytes, key->size);
  if (key->flags_out) {
    PUT(code, 0x9c, 0x41, 0x59); /* pushfq; pop r9 */
  }
  put_moves(code, key, true);
  put_end(code, key);
  if (key->alone) {
    set_target(code, unready);
    set_target(code, pending);
    put_jump(code, &slow, sizeof slow);
  }
}
