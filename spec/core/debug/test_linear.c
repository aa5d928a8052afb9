/* SPDX-License-Identifier: MIT
 * Copies to and from linear addresses, and code read and disassembled there. */
#include "fixture/walk_fixture.h"

#include "kvm/kvm.h"
#include "vcpu/vcpu.h"

#include <pthread.h>

/* ---- Copies ---- */

/* Three pages that follow each other, at gpas that do not; behind them nothing. */
static void begin_copies(void) {
  begin_in(&four);
  next_table = CR3 + PAGE;
  install(&four, 0x5000, 0x200000);
  install(&four, 0x6000, 0x100000);
  install(&four, 0x7000, 0x300000);
}

static void copies_across_pages(void) {
  begin_copies();
  uint8_t bytes[2 * PAGE];
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)(i * 7 + i / PAGE);
  }
  CHECK_OK(luna_vcpu_copy(vcpu, 0x5ffe, bytes, sizeof bytes, LUNA_WRITE));
  CHECK(memcmp(memory + 0x200ffe, bytes, 2) == 0);
  CHECK(memcmp(memory + 0x100000, bytes + 2, PAGE) == 0);
  CHECK(memcmp(memory + 0x300000, bytes + 2 + PAGE, PAGE - 2) == 0);
  CHECK_EQ(memory[0x300ffe], 0);
  uint8_t back[sizeof bytes];
  CHECK_OK(luna_vcpu_copy(vcpu, 0x5ffe, back, sizeof back, LUNA_READ));
  CHECK(memcmp(back, bytes, sizeof back) == 0);
  CHECK_OK(luna_vcpu_copy(vcpu, 0x12345000, NULL, 0, LUNA_READ));
  end();
}

static void copies_all_or_nothing(void) {
  begin_copies();
  uint8_t bytes[PAGE + 2] = {1, 2, 3};
  uint8_t back[PAGE + 2] = {9, 9};
  CHECK_FAILS(luna_vcpu_copy(vcpu, 0x7ffe, bytes, 3, LUNA_WRITE), LUNA_ERROR_NOT_FOUND,
              "linear address 0x8000 leads nowhere: the level 1 entry 0x0");
  CHECK_EQ(memory[0x300ffe], 0);
  CHECK_FAILS(luna_vcpu_copy(vcpu, 0x7000, back, sizeof back, LUNA_READ), LUNA_ERROR_NOT_FOUND,
              "linear address 0x8000");
  CHECK_EQ(back[0], 9);
  install(&four, 0x8000, 0x12345000);
  CHECK_FAILS(luna_vcpu_copy(vcpu, 0x7ffe, bytes, 3, LUNA_WRITE), LUNA_ERROR_NOT_FOUND,
              "linear address 0x8000 leads to gpa 0x12345000, where space 0 has nothing mapped");
  CHECK_EQ(memory[0x300ffe], 0);
  CHECK_FAILS(luna_vcpu_copy(vcpu, UINT64_MAX, bytes, 2, LUNA_READ), LUNA_ERROR_RANGE,
              "go beyond the last address");
  CHECK_FAILS(luna_vcpu_copy(vcpu, 0x5000, bytes, 2, LUNA_EXECUTE), LUNA_ERROR_ARGUMENT,
              "LUNA_READ or LUNA_WRITE");
  CHECK_FAILS(luna_vcpu_copy(vcpu, UINT64_C(0x7fffffffffff), bytes, 2, LUNA_READ),
              LUNA_ERROR_NOT_FOUND, "linear address 0x7fffffffffff leads nowhere");
  end();
}

/* A write to the tables that lead to what is written goes where they led before. */
static void copies_to_tables(void) {
  begin_copies();
  install(&four, 0x8000, CR3 + 3 * PAGE); /* the page table itself, */
  install(&four, 0x9000, 0x201000);       /* and what is behind it */
  uint8_t bytes[PAGE + 4] = {0};
  memset(bytes + PAGE, 0x5a, 4);
  CHECK_OK(luna_vcpu_copy(vcpu, 0x8000, bytes, sizeof bytes, LUNA_WRITE));
  CHECK(memcmp(memory + 0x201000, bytes + PAGE, 4) == 0);
  luna_walk walk;
  CHECK_OK(luna_vcpu_translate(vcpu, 0x5000, &walk));
  CHECK_EQ(walk.missing, 1);
  end();
}

/* As many pieces as pages, none behind the one before. */
static void copies_of_many_parts(void) {
  begin_copies();
  uint8_t bytes[100 * PAGE];
  for (uint64_t i = 0; i < 100; i++) {
    install(&four, (i + 16) * PAGE, 0x300000 - i * PAGE);
    memset(bytes + i * PAGE, (int)i, PAGE);
  }
  CHECK_OK(luna_vcpu_copy(vcpu, 16 * PAGE, bytes, sizeof bytes, LUNA_WRITE));
  for (uint64_t i = 0; i < 100; i++) {
    CHECK_EQ(memory[0x300000 - i * PAGE], i);
  }
  CHECK_FAILS(luna_vcpu_copy(vcpu, 16 * PAGE, bytes, sizeof bytes + 1, LUNA_READ),
              LUNA_ERROR_NOT_FOUND, "linear address 0x74000 leads nowhere");
  end();
}

/* One page of the guest's tables, or all of memory without paging, can be many regions. */
static void copies_across_regions(void) {
  begin_in(&none);
  uint8_t *more;
  map_memory(MEMORY, PAGE, RWX, &more);
  CHECK_OK(luna_vcpu_copy(vcpu, MEMORY - 1, (uint8_t[]){1, 2, 3}, 3, LUNA_WRITE));
  CHECK_EQ(memory[MEMORY - 1], 1);
  CHECK(memcmp(more, "\2\3", 2) == 0);
  CHECK_FAILS(luna_vcpu_copy(vcpu, MEMORY + PAGE - 2, (uint8_t[]){7, 8, 9}, 3, LUNA_WRITE),
              LUNA_ERROR_NOT_FOUND, "linear address 0x401000 leads to gpa 0x401000");
  CHECK_EQ(more[PAGE - 2], 0);
  end();
}

static void copies_to_read_only_memory(void) {
  begin_copies();
  luna_buffer_options options = {.kind = LUNA_BUFFER_MEMFD, .size = PAGE};
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_open(&options, &buffer));
  options = (luna_buffer_options){
      .kind = LUNA_BUFFER_FILE, .fd = luna_buffer_fd(buffer), .flags = LUNA_BUFFER_READ_ONLY};
  luna_buffer *view;
  CHECK_OK(luna_buffer_open(&options, &view));
  CHECK_OK(luna_vm_map_space(vm, 0, view, 0, 0x10000000, PAGE, LUNA_READ | LUNA_EXECUTE));
  install(&four, 0x8000, 0x10000000);
  CHECK_FAILS(luna_vcpu_copy(vcpu, 0x7fff, (uint8_t[2]){1, 2}, 2, LUNA_WRITE), LUNA_ERROR_SYSTEM,
              "linear address 0x8000 leads to gpa 0x10000000, whose host memory is read-only");
  CHECK_EQ(memory[0x300fff], 0);
  uint8_t bytes[2];
  CHECK_OK(luna_vcpu_copy(vcpu, 0x7fff, bytes, 2, LUNA_READ));
  luna_buffer_release(view);
  luna_buffer_release(buffer);
  end();
}

/* ---- Code ---- */

static void check_code(uint64_t rip, uint32_t size, uint32_t bits, const char *bytes) {
  luna_code code;
  test_note("rip 0x%" PRIx64, rip);
  CHECK_OK(luna_vcpu_code(vcpu, rip, &code));
  CHECK_EQ(code.size, size);
  CHECK_EQ(code.bits, bits);
  CHECK(memcmp(code.bytes, bytes, strlen(bytes)) == 0);
}

static void code_with_paging(void) {
  begin_copies();
  memcpy(memory + 0x200ffe, "\x66\x0f", 2);
  memcpy(memory + 0x100000, "\x1f\x44\x01\x02", 4);
  memcpy(memory + 0x300ffd, "\x90\x91\x92", 3);
  check_code(0x5ffe, 15, 64, "\x66\x0f\x1f\x44\x01\x02");
  check_code(0x7ffd, 3, 64, "\x90\x91\x92"); /* behind it is nothing */
  luna_code code;
  CHECK_FAILS(luna_vcpu_code(vcpu, 0x8000, &code), LUNA_ERROR_NOT_FOUND,
              "linear address 0x8000 leads nowhere");
  set(LUNA_CS_BASE, 0x1000); /* not in 64-bit code */
  check_code(0x5ffe, 15, 64, "\x66\x0f\x1f\x44\x01\x02");
  end();
}

static void code_in_segments(void) {
  begin_in(&none);
  memcpy(memory + 0x20010, "\xb8\x34\x12\x90", 4);
  set(LUNA_CS_BASE, 0x20000);
  set(LUNA_CS_ACCESS, 0x9b);
  check_code(0x10, 15, 16, "\xb8\x34\x12\x90");
  set(LUNA_CS_ACCESS, 0x409b);
  check_code(0x10, 15, 32, "\xb8\x34\x12\x90");
  set(LUNA_CS_BASE, 0xffff0000); /* wraps at 4 GiB */
  check_code(0x30010, 15, 32, "\xb8\x34\x12\x90");
  end();
}

static void instruction_at_rip(void) {
  begin_copies();
  luna_instruction found;
  int status = luna_disassemble("\x90", 1, 0, 64, &found);
  if (status == LUNA_ERROR_UNSUPPORTED) {
    end();
    test_skip(luna_error_message());
  }
  memcpy(memory + 0x200ffe, "\x48\x8b", 2);
  memcpy(memory + 0x100000, "\x43\x08", 2);
  set(LUNA_RIP, 0x5ffe);
  CHECK_OK(luna_vcpu_instruction(vcpu, &found));
  CHECK_EQ(found.address, 0x5ffe);
  CHECK_EQ(found.size, 4);
  CHECK(memcmp(found.bytes, "\x48\x8b\x43\x08", 5) == 0);
  CHECK_TEXT(found.text, "mov rax, [rbx + 8]");
  set(LUNA_RIP, 0x8000);
  CHECK_FAILS(luna_vcpu_instruction(vcpu, &found), LUNA_ERROR_NOT_FOUND, "0x8000 leads nowhere");
  set(LUNA_RIP, 0x7fff);
  memory[0x300fff] = 0x48; /* its end is on a page that is not there */
  CHECK_FAILS(luna_vcpu_instruction(vcpu, &found), LUNA_ERROR_NOT_FOUND,
              "the bytes at 0x7fff are no instruction of 64-bit code");
  CHECK_FAILS(luna_disassemble("\x90", 1, 0, 8, &found), LUNA_ERROR_ARGUMENT,
              "code of 8 bits: 16, 32 or 64");
  end();
}

/* ---- The real KVM ---- */

static void check_with_kvm(uint64_t gva) {
  struct kvm_translation kvm = {.linear_address = gva};
  luna_walk walk;
  test_note("gva 0x%" PRIx64, gva);
  CHECK_EQ(luna_kvm_translate(vcpu->fd, &kvm), 0);
  CHECK_OK(luna_vcpu_translate(vcpu, gva, &walk));
  CHECK_EQ(walk.present, kvm.valid);
  if (walk.present) {
    CHECK_EQ(walk.gpa, kvm.physical_address);
  }
}

/* KVM_TRANSLATE and the library walk the same tables to the same places. */
static void same_as_kvm(void) {
  fake_remove();
  if (luna_probe() != LUNA_OK) {
    test_skip(luna_error_message());
  }
  CHECK_OK(luna_vm_create(&vm));
  map_memory(0, MEMORY, RWX, &memory);
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .rsp = 0x8000, .system = LUNA_SYSTEM_ALLOCATE};
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  memory[0x1000] = 0xf4; /* hlt */
  next_table = CR3 + PAGE;
  install(&four, 0x1000, 0x1000);
  uint64_t seed = test_seed();
  uint64_t gva[50];
  for (uint64_t i = 0; i < 50; i++) {
    gva[i] = (uint64_t)((int64_t)(test_random(&seed) << 16) >> 16) & ~UINT64_C(0x1fff);
    install(&four, gva[i], 0x300000 + i * PAGE);
  }
  set(LUNA_CR3, CR3);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 10 * UINT64_C(1000000000)), LUNA_EXIT_HLT);
  for (uint64_t i = 0; i < 50; i++) {
    check_with_kvm(gva[i] + (test_random(&seed) & 0xfff));
    check_with_kvm(gva[i] + PAGE);
    check_with_kvm(gva[i] ^ UINT64_C(1) << 40);
  }
  end();
}

/* ---- Threads ---- */

enum {
  ROUNDS = 2000
};

static void *disassemble_often(void *argument) {
  static const char *const texts[] = {"mov ax, 0x1234", "mov eax, 0x1234", "mov eax, 0x1234"};
  const uint32_t which = *(const uint32_t *)argument;
  uintptr_t right = 0;
  for (int i = 0; i < ROUNDS; i++) {
    luna_instruction found;
    right += luna_disassemble("\xb8\x34\x12\0\0", 5, 0, 16u << which, &found) == LUNA_OK &&
             strcmp(found.text, texts[which]) == 0;
  }
  return (void *)right;
}

static void threads_disassemble(void) {
  luna_instruction found;
  if (luna_disassemble("\x90", 1, 0, 64, &found) == LUNA_ERROR_UNSUPPORTED) {
    test_skip(luna_error_message());
  }
  pthread_t threads[6];
  uint32_t which[6];
  for (uint32_t i = 0; i < 6; i++) {
    which[i] = i % 3;
    CHECK_EQ(pthread_create(&threads[i], NULL, disassemble_often, &which[i]), 0);
  }
  uintptr_t right = 0;
  for (uint32_t i = 0; i < 6; i++) {
    void *result;
    pthread_join(threads[i], &result);
    right += (uintptr_t)result;
  }
  CHECK_EQ(right, 6 * ROUNDS);
}

int main(void) {
  RUN(copies_across_pages);
  RUN(copies_all_or_nothing);
  RUN(copies_to_tables);
  RUN(copies_of_many_parts);
  RUN(copies_across_regions);
  RUN(copies_to_read_only_memory);
  RUN(code_with_paging);
  RUN(code_in_segments);
  RUN(instruction_at_rip);
  RUN(same_as_kvm);
  RUN(threads_disassemble);
  return test_end();
}
