/* SPDX-License-Identifier: MIT
 * Registers that move by ioctl, vectors, MSRs, CPUID tables and the rules of the processor, where
 * they depend on what a host has or refuses. */
#include "fixture/move_fixture.h"

#include "kvm/kvm.h"
#include "vcpu/check.h"
#include "vcpu/vcpu.h"

enum {
  MSR_LSTAR = (int)0xc0000081, /* STAR, which the fake keeps */
  MSR_EFER = (int)0xc0000080,
  MSR_FS = (int)0xc0000100
};

static void halt(void) {
  fake_script(NULL, 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
}

/* ---- Registers ---- */

/* A group is read once after an exit, and a write is one call. */
static void register_costs(void) {
  begin();
  halt();
  fake_forget();
  for (int reg = LUNA_DR0; reg <= LUNA_DR7; reg++) {
    get(reg);
  }
  CHECK_EQ(fake_calls(0), 1);
  set(LUNA_DR0, 5);
  set(LUNA_DR1, 6);
  CHECK_EQ(fake_calls(0), 3);
  CHECK_EQ(get(LUNA_DR0), 5);
  get(LUNA_FCW);
  get(LUNA_MXCSR);
  CHECK_EQ(fake_calls(0), 4);
  fake_forget();
  get(LUNA_RAX);
  set(LUNA_RAX, 1);
  CHECK(fake_calls(0) <= 1);
  end();
}

static void registers_refused(void) {
  begin();
  set(LUNA_XCR0, 3);
  set(LUNA_DR3, 7);
  set(LUNA_MXCSR, 0x1f80);
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_XCR0, FAKE_REFUSED), LUNA_ERROR_RANGE,
              "cannot set xcr0 to 0x8badbadbadbadbad: ");
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_DR3, FAKE_REFUSED), LUNA_ERROR_SYSTEM,
              "cannot write the debug registers of vCPU 0");
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_MXCSR, 0x10000), LUNA_ERROR_RANGE, "bit 16 is reserved");
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_FTW, 0x100), LUNA_ERROR_RANGE, "at most 0xff");
  CHECK_EQ(get(LUNA_XCR0), 3);
  CHECK_EQ(get(LUNA_DR3), 7);
  CHECK_EQ(get(LUNA_MXCSR), 0x1f80);
  end();
}

/* Each ioctl of a read and a write fails once; the register is then old or new, never lost. */
static void registers_fail(void) {
  static const int regs[] = {LUNA_DR1, LUNA_XCR0, LUNA_FIP};
  for (size_t i = 0; i < 3; i++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("%s, call %" PRIu64, luna_register_name(regs[i]), k);
      begin();
      set(regs[i], 1);
      halt();
      fake_fail(k, EIO);
      int status = luna_vcpu_set(vcpu, regs[i], 7);
      failed = fake_failed();
      fake_fail(0, 0);
      CHECK_EQ(status < 0, failed);
      CHECK_EQ(get(regs[i]), failed ? 1 : 7);
      halt();
      CHECK_EQ(get(regs[i]), failed ? 1 : 7);
      end();
    }
  }
}

/* An answered instruction is finished before the write, which it might spoil. */
static void finishes_first(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  uint64_t before = entries();
  set(LUNA_DR0, 1);
  CHECK_EQ(entries(), before);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x55));
  set(LUNA_DR0, 2);
  CHECK_EQ(entries(), before + 1);
  CHECK_EQ(get(LUNA_RAX), 0x55);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_DR0), 2);
  end();
}

/* ---- Vectors ---- */

static void vectors(void) {
  uint8_t bytes[64];
  uint8_t area[4096];
  begin();
  memset(bytes, 0x11, sizeof bytes);
  memset(bytes + 16, 0x22, 16);
  memset(bytes + 32, 0x33, 32);
  CHECK_OK(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_ZMM, 3, bytes, 64));
  CHECK_OK(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_ZMM, 17, bytes, 64));
  CHECK_OK(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_K, 2, bytes, 8));
  CHECK_OK(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_ST, 7, bytes, 10));
  CHECK_EQ(luna_kvm_get_xsave(vcpu->fd, area, sizeof area), 0);
  CHECK_EQ(area[160 + 3 * 16 + 15], 0x11);
  CHECK_EQ(area[576 + 3 * 16], 0x22);
  CHECK_EQ(area[896 + 3 * 32 + 31], 0x33);
  CHECK_EQ(area[1408 + 64], 0x11);
  CHECK_EQ(area[1408 + 64 + 63], 0x33);
  CHECK_EQ(area[832 + 16], 0x11);
  CHECK_EQ(area[32 + 7 * 16 + 9], 0x11);
  CHECK_EQ(area[512], 0xe7);
  CHECK_OK(luna_vcpu_get_vector(vcpu, LUNA_VECTOR_YMM, 3, bytes, 32));
  CHECK_EQ(bytes[31], 0x22);
  CHECK_FAILS(luna_vcpu_get_vector(vcpu, LUNA_VECTOR_YMM, 32, bytes, 32), LUNA_ERROR_ARGUMENT,
              "there is no register ymm32: ymm has 0 to 31");
  CHECK_FAILS(luna_vcpu_get_vector(vcpu, LUNA_VECTOR_YMM, 1, bytes, 16), LUNA_ERROR_ARGUMENT,
              "ymm1 has 32 bytes, not 16");
  CHECK_FAILS(luna_vcpu_get_vector(vcpu, 5, 0, bytes, 16), LUNA_ERROR_ARGUMENT, "no kind");
  end();
}

static void vectors_of_a_small_processor(void) {
  uint8_t bytes[64] = {0};
  fake_config config = fake_defaults();
  config.cpuid_entries = 4; /* too few for leaf 0xd */
  begin_with(&config);
  CHECK_OK(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_XMM, 15, bytes, 16));
  CHECK_FAILS(luna_vcpu_set_vector(vcpu, LUNA_VECTOR_YMM, 0, bytes, 32), LUNA_ERROR_UNSUPPORTED,
              "this host has no register ymm0: CPUID leaf 0xd does not offer state component 2");
  CHECK_FAILS(luna_vcpu_get_vector(vcpu, LUNA_VECTOR_XMM, 16, bytes, 16), LUNA_ERROR_UNSUPPORTED,
              "component 7");
  end();
}

/* ---- MSRs ---- */

static void msrs(void) {
  uint64_t value;
  begin();
  CHECK_OK(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_LSTAR, 5));
  CHECK_EQ(look_msr(vcpu->fd, (uint32_t)MSR_LSTAR), 5);
  CHECK_FAILS(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_LSTAR, FAKE_REFUSED), LUNA_ERROR_RANGE,
              "to MSR 0xc0000081 (IA32_STAR) of vCPU 0: KVM refuses the value; it is 0x5");
  CHECK_FAILS(luna_vcpu_set_msr(vcpu, 0x999, 1), LUNA_ERROR_NOT_FOUND, "has no MSR 0x999");
  CHECK_FAILS(luna_vcpu_get_msr(vcpu, 0x999, &value), LUNA_ERROR_NOT_FOUND, "has no MSR 0x999");
  fake_fail(1, EIO);
  CHECK_FAILS(luna_vcpu_get_msr(vcpu, (uint32_t)MSR_LSTAR, &value), LUNA_ERROR_SYSTEM,
              "cannot read MSR 0xc0000081 (IA32_STAR) of vCPU 0");
  CHECK(strcmp(luna_msr_name(0xc0000082), "IA32_LSTAR") == 0);
  CHECK(!luna_msr_name(0xdead));
  uint32_t index;
  for (uint32_t i = 0; i < 0x1000; i++) {
    if (luna_msr_name(i)) {
      CHECK_OK(luna_msr_find(luna_msr_name(i), &index));
      CHECK_EQ(index, i);
    }
  }
  end();
}

/* What is a register too waits for the entry with the other registers. */
static void msrs_that_are_registers(void) {
  uint64_t value;
  begin();
  fake_forget();
  set(LUNA_FS_BASE, 0x1000);
  CHECK_OK(luna_vcpu_get_msr(vcpu, (uint32_t)MSR_FS, &value));
  CHECK_EQ(value, 0x1000);
  CHECK_OK(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_FS, 0x2000));
  CHECK_OK(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_EFER, 1));
  CHECK_EQ(get(LUNA_FS_BASE), 0x2000);
  CHECK_EQ(fake_calls(0), 0);
  halt();
  CHECK_EQ(fake_sregs()->fs.base, 0x2000);
  CHECK_EQ(fake_sregs()->efer, 1);
  CHECK_FAILS(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_EFER, 2), LUNA_ERROR_RANGE,
              "efer bit 1 is reserved");
  CHECK_FAILS(luna_vcpu_set_msr(vcpu, (uint32_t)MSR_FS, UINT64_C(1) << 63), LUNA_ERROR_RANGE,
              "is not canonical");
  end();
}

/* The x2APIC registers depend on APIC_BASE: it is handed over before one is looked for. */
static void x2apic_registers(void) {
  for (int sync = 0; sync < 2; sync++) {
    uint64_t value;
    if (sync) {
      begin();
    } else {
      begin_without_sync();
    }
    set(LUNA_APIC_BASE, 0xfee00d00);
    CHECK_FAILS(luna_vcpu_get_msr(vcpu, 0x808, &value), LUNA_ERROR_NOT_FOUND,
                "has no MSR 0x808 (IA32_X2APIC_TPR)");
    CHECK_EQ(fake_sregs()->apic_base, 0xfee00d00);
    set(LUNA_CR0, 0x80000010);
    CHECK_FAILS(luna_vcpu_get_msr(vcpu, 0x808, &value), LUNA_ERROR_SYSTEM,
                "KVM refuses its system registers");
    CHECK_EQ(get(LUNA_CR0), 0x80000010);
    end();
  }
}

/* After the counter was set it goes to the other spaces again. */
static void counter(void) {
  begin_variant(0);
  CHECK_OK(move_to(1));
  CHECK_OK(move_to(0));
  uint64_t offset = 77;
  CHECK_OK(luna_vcpu_set_msr(vcpu, 0x10, 5));
  CHECK_EQ(luna_kvm_set_tsc_offset(vcpu->fd, offset), 0);
  CHECK_OK(move_to(1));
  offset = 0;
  CHECK_EQ(luna_kvm_get_tsc_offset(vcpu->fd, &offset), 0);
  CHECK_EQ(offset, 77);
  end();
}

/* ---- CPUID ---- */

static luna_cpuid table[64];

static size_t read_table(void) {
  size_t count = 0;
  while (count < 64 && luna_vcpu_cpuid_next(vcpu, (uint32_t)count, &table[count]) == LUNA_OK) {
    count++;
  }
  return count;
}

static void next_vcpu(void) {
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
}

static void cpuid(void) {
  luna_cpuid answer;
  begin_variant(0);
  size_t count = read_table();
  CHECK_EQ(count, 40);
  CHECK_EQ(table[1].ebx, 0x800); /* the APIC ID is this vCPU's, not that of the host's processor */
  CHECK_EQ(table[3].leaf, 0xd);
  CHECK_EQ(table[3].subleaf, 2);
  CHECK(table[3].indexed);
  CHECK_FAILS(luna_vcpu_cpuid_next(vcpu, 40, &answer), LUNA_ERROR_NOT_FOUND, "none of index 40");
  CHECK_FAILS(luna_vcpu_set_cpuid(vcpu, table, 257), LUNA_ERROR_ARGUMENT, "at most 256");
  CHECK_OK(move_to(1)); /* the old table is in both spaces */
  table[5].eax = 0x1234;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, table, count));
  CHECK_EQ(fake_calls(KVM_SET_CPUID2), 3);
  halt();
  CHECK_OK(move_to(0));
  CHECK_OK(luna_vcpu_cpuid_next(vcpu, 5, &answer));
  CHECK_EQ(answer.eax, 0x1234);
  CHECK_FAILS(luna_vcpu_set_cpuid(vcpu, table, count), LUNA_ERROR_STATE, "it has run");
  end();
}

static void cpuid_of_a_used_seat(void) {
  begin_variant(0);
  size_t count = read_table();
  uint32_t plain = table[5].eax;
  table[5].eax = 0x1234;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, table, count));
  halt();
  next_vcpu();
  for (int i = 0; i < 2; i++) {
    CHECK_FAILS(run(), LUNA_ERROR_STATE, "a former vCPU of that number has run with another");
  }
  table[5].eax = 0x4321;
  CHECK_FAILS(luna_vcpu_set_cpuid(vcpu, table, count), LUNA_ERROR_STATE, "has run with another");
  CHECK_OK(luna_vcpu_cpuid_next(vcpu, 5, &table[5]));
  CHECK_EQ(table[5].eax, plain);
  table[5].eax = 0x1234;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, table, count));
  halt();
  end();
}

/* A seat in another space that has run with another table refuses the move. */
static void cpuid_of_a_used_seat_elsewhere(void) {
  begin_variant(0);
  CHECK_OK(move_to(1));
  halt();
  next_vcpu(); /* in space 0, where nobody has run */
  size_t count = read_table();
  table[5].eax = 0x1234;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, table, count));
  CHECK_FAILS(move_to(1), LUNA_ERROR_STATE, "has run with another");
  check_in(0);
  halt();
  end();
}

static void cpuid_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_variant(0);
    CHECK_OK(move_to(1));
    CHECK_OK(move_to(0));
    size_t count = read_table();
    uint32_t before = table[5].eax;
    table[5].eax = 0x1234;
    fake_fail(k, ENOMEM);
    int status = luna_vcpu_set_cpuid(vcpu, table, count);
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    read_table();
    CHECK_EQ(table[5].eax, failed ? before : 0x1234);
    CHECK_OK(move_to(1));
    halt();
    end();
  }
}

/* ---- Rules ---- */

static void rules(void) {
  char text[256];
  begin();
  CHECK_OK(luna_vcpu_check(vcpu));
  CHECK_EQ(luna_check_find(vcpu, true, text, sizeof text), 0);
  set(LUNA_CR4, 1u << 11); /* UMIP: leaf 7, which the fake's table lacks */
  CHECK_EQ(luna_check_find(vcpu, true, text, sizeof text), 1);
  CHECK_TEXT(text, "cr4 bit 11 (UMIP) is not offered by this vCPU's CPUID (leaf 0x7, ECX bit 2)");
  set(LUNA_CR4, 1u << 19);
  CHECK_FAILS(luna_vcpu_check(vcpu), LUNA_ERROR_STATE, "cr4 bit 19 is reserved");
  set(LUNA_CR4, 0);
  set(LUNA_CR0, 0x80000010);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM,
              "KVM refuses its system registers (cr0=0x80000010 cr3=0x0 cr4=0x0 efer=0x0 "
              "apic_base=0xfee00900 cs=0xf000): cr0 bit 31 (PG) is set while bit 0 (PE) is clear");
  end();
}

int main(void) {
  RUN(register_costs);
  RUN(registers_refused);
  RUN(registers_fail);
  RUN(finishes_first);
  RUN(vectors);
  RUN(vectors_of_a_small_processor);
  RUN(msrs);
  RUN(msrs_that_are_registers);
  RUN(x2apic_registers);
  RUN(counter);
  RUN(cpuid);
  RUN(cpuid_of_a_used_seat);
  RUN(cpuid_of_a_used_seat_elsewhere);
  RUN(cpuid_fails);
  RUN(rules);
  return test_end();
}
