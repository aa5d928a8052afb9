/* SPDX-License-Identifier: MIT
 * #AC on the software CPU: ring 3 with CR0.AM and RFLAGS.AC, and nobody else (SDM volume 3, 6.15,
 * interrupt 17). */
#include "fixture/soft_system.h"

enum {
  CR0_AM = 1 << 18,
  FLAG_AC = 1 << 18,
  AT = SYSTEM_DATA
};

static system_end try(const soft_system *system, unsigned ring, bool am, bool ac, uint64_t at,
                      const char *code, size_t size) {
  struct kvm_sregs sregs = system->sregs;
  system_enter_ring(system, &sregs, ring);
  sregs.cr0 |= am ? CR0_AM : 0;
  struct kvm_regs regs = {.rflags = SYSTEM_ALL | (ac ? FLAG_AC : 0), .rdi = at, .rsi = AT};
  return system_run(system, &sregs, regs, code, size);
}

/* mov eax, [rdi], at an odd address; the TLB may have the page from the access before. */
static void only_ring_3_with_both_bits_is_checked(void) {
  static const char code[] = "\x8b\x06\x8b\x07";
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    for (unsigned bits = 0; bits < 8; bits++) {
      test_note("mode %d, bits %u", (int)mode, bits);
      bool checked = bits == 7;
      system_end end =
          try(&system, bits & 1 ? 3 : 0, bits & 2, bits & 4, AT + 1, code, sizeof code - 1);
      SYSTEM_CHECK(end, checked ? 17 : SYSTEM_END, 0);
      CHECK_EQ(end.frame[0], checked ? GUEST_CODE + 2 : 0);
    }
    system_close(&system);
  }
}

static void each_size_has_its_alignment(void) {
  static const struct {
    const char *code;
    size_t size;
    unsigned fine; /* the smallest step that is aligned */
  } rows[] = {
      {"\x8a\x07", 2, 1},          /* mov al, [rdi] */
      {"\x66\x8b\x07", 3, 2},      /* mov ax, [rdi] */
      {"\x8b\x07", 2, 4},          /* mov eax, [rdi] */
      {"\x48\x8b\x07", 3, 8},      /* mov rax, [rdi] */
      {"\x66\x89\x07", 3, 2},      /* mov [rdi], ax */
      {"\x89\x07", 2, 4},          /* mov [rdi], eax */
      {"\x48\x89\x07", 3, 8},      /* mov [rdi], rax */
      {"\x48\x01\x07", 3, 8},      /* add [rdi], rax */
      {"\xf0\x01\x07", 3, 4},      /* lock add [rdi], eax */
      {"\x87\x07", 2, 4},          /* xchg [rdi], eax */
      {"\x48\xa5", 2, 8},          /* movsq */
      {"\xd9\x07", 2, 4},          /* fld dword [rdi] */
      {"\xdd\x07", 2, 8},          /* fld qword [rdi] */
      {"\x66\x0f\xd6\x07", 4, 8},  /* movq [rdi], xmm0 */
      {"\x0f\x0d\x0f", 3, 1},      /* prefetchw [rdi] */
      {"\x8d\x47\x01", 3, 1},      /* lea eax, [rdi + 1] */
      {"\x48\x89\xfc\x50", 4, 8},  /* mov rsp, rdi; push rax */
      {"\x48\x89\xfc\x58", 4, 8},  /* mov rsp, rdi; pop rax */
      {"\x48\x0f\xc7\x0f", 4, 16}, /* cmpxchg16b [rdi]: #GP first */
      {"\x0f\xc7\x0f", 3, 8},      /* cmpxchg8b [rdi] */
      {"\x0f\xae\x5f\x00", 4, 4},  /* stmxcsr [rdi] */
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (unsigned off = 0; off < 16; off++) {
      test_note("row %u, offset %u", i, off);
      system_end end = try(&system, 3, true, true, AT + 64 + off, rows[i].code, rows[i].size);
      bool fine = off % rows[i].fine == 0;
      SYSTEM_CHECK(end, fine ? SYSTEM_END : rows[i].fine == 16 ? 13 : 17, 0);
    }
  }
  system_close(&system);
}

/* POPF sets AC and takes it away; what was let before is looked at again. */
static void popf_counts_at_once(void) {
  /* mov eax, [rdi]; push 0x43002; popfq; mov eax, [rdi] */
  static const char on[] = "\x8b\x07\x68\x02\x30\x04\x00\x9d\x8b\x07";
  static const char off[] = "\x68\x02\x30\x00\x00\x9d\x8b\x07";
  soft_system system = system_open(SYSTEM_64);
  system_end end = try(&system, 3, true, false, AT + 1, on, sizeof on - 1);
  SYSTEM_CHECK(end, 17, 0);
  CHECK_EQ(end.frame[0], GUEST_CODE + 8);
  SYSTEM_CHECK(try(&system, 3, true, true, AT + 1, off, sizeof off - 1), SYSTEM_END, 0);
  system_close(&system);
}

/* The frame that an interrupt of ring 3 makes is the system's. */
static void deliveries_are_not_checked(void) {
  soft_system system = system_open(SYSTEM_32);
  system_put(&system, SYSTEM_TSS + 4, SYSTEM_INNER - 1, 4);
  SYSTEM_CHECK(try(&system, 3, true, true, AT, "\xcd\x40", 2), 0x40, 0);
  system_close(&system);
}

int main(void) {
  RUN(only_ring_3_with_both_bits_is_checked);
  RUN(each_size_has_its_alignment);
  RUN(popf_counts_at_once);
  RUN(deliveries_are_not_checked);
  return test_end();
}
