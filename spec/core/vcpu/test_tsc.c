/* SPDX-License-Identifier: MIT
 * The time-stamp counter over the fake: its frequency and offset, values that KVM would take for
 * something else, all counters of a VM at one moment, and what is left when a call fails. */
#include "fixture/vcpu_fixture.h"

enum {
  TSC = 0x10,
  STATE_ROOM = 65536
};

static int64_t offset_of(luna_vcpu *which) {
  int64_t offset;
  CHECK_OK(luna_vcpu_get_tsc_offset(which, &offset));
  return offset;
}

static uint64_t counter(void) {
  uint64_t value;
  CHECK_OK(luna_vcpu_get_msr(vcpu, TSC, &value));
  return value;
}

static void frequency_and_offset(void) {
  fake_config config = fake_defaults();
  uint32_t kilohertz;
  begin_with(&config);
  CHECK_OK(luna_vcpu_get_tsc_frequency(vcpu, &kilohertz));
  CHECK_EQ(kilohertz, 2000000);
  CHECK_FAILS(luna_vcpu_set_tsc_frequency(vcpu, 1), LUNA_ERROR_UNSUPPORTED, "KVM_CAP_TSC_CONTROL");
  CHECK_EQ(fake_calls(KVM_SET_TSC_KHZ), 0);
  CHECK_OK(luna_vcpu_set_tsc_frequency(vcpu, 2000000));
  end();
  config.tsc_control = true;
  begin_with(&config);
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  CHECK_OK(luna_vcpu_set_tsc_frequency(vcpu, 1000000));
  CHECK_OK(luna_vcpu_set_tsc_offset(vcpu, -77));
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  int64_t offset;
  CHECK_OK(luna_vcpu_get_tsc_frequency(vcpu, &kilohertz));
  CHECK_OK(luna_vcpu_get_tsc_offset(vcpu, &offset));
  CHECK_EQ(kilohertz, 1000000);
  CHECK_EQ(offset, -77);
  end();
}

/* The fake's host counter stands at 0, so that the counters show their offsets. */
static void synchronized(void) {
  begin();
  luna_vcpu *second;
  uint32_t space;
  int64_t offset;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  CHECK_OK(luna_vcpu_set_space(second, space, 0));
  CHECK_OK(luna_vcpu_set_tsc_offset(vcpu, -77));
  CHECK_OK(luna_vm_sync_tsc(vm, 1000));
  CHECK_OK(luna_vcpu_get_tsc_offset(vcpu, &offset));
  CHECK_EQ(offset, 1000);
  CHECK_OK(luna_vcpu_set_space(second, 0, 0));
  CHECK_OK(luna_vcpu_get_tsc_offset(second, &offset));
  CHECK_EQ(offset, 1000);
  fake_fail(1, ENXIO);
  CHECK_FAILS(luna_vm_sync_tsc(vm, 5), LUNA_ERROR_UNSUPPORTED, "cannot synchronize the TSCs");
  luna_vcpu_release(second);
  end();
}

/* ---- Setting it ---- */

/* What KVM takes for a wish to go with the VM's other counters is set all the same. */
static void exact_values(void) {
  static const uint64_t values[] = {1000000, 0, 1, 1000001, UINT64_C(1) << 60, 500, 0};
  for (int offset = 0; offset < 2; offset++) {
    fake_config config = fake_defaults();
    config.no_tsc_offset = !offset;
    begin_with(&config);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
      test_note("offset %d, value %zu", offset, i);
      CHECK_OK(luna_vcpu_set_msr(vcpu, TSC, values[i]));
      CHECK_EQ(counter(), values[i] || offset ? values[i] : 1); /* as near as KVM can */
    }
    end();
  }
}

static void exact_state(void) {
  static uint8_t state[STATE_ROOM];
  size_t size = sizeof state;
  begin();
  CHECK_OK(luna_vcpu_set_msr(vcpu, TSC, 5));
  CHECK_OK(luna_vcpu_save(vcpu, state, &size));
  CHECK_OK(luna_vcpu_set_msr(vcpu, TSC, 77));
  CHECK_OK(luna_vcpu_restore(vcpu, state, size));
  CHECK_EQ(counter(), 5);
  end();
}

static void the_hosts(void) {
  fake_config config = fake_defaults();
  config.host_tsc = true;
  static uint8_t state[STATE_ROOM];
  size_t size = sizeof state;
  begin_with(&config);
  CHECK_FAILS(luna_vcpu_set_msr(vcpu, TSC, UINT64_C(1) << 60), LUNA_ERROR_UNSUPPORTED,
              "lets guests read the host's");
  CHECK_FAILS(luna_vcpu_set_tsc_offset(vcpu, 5), LUNA_ERROR_UNSUPPORTED, "keeps none");
  CHECK_OK(luna_vcpu_save(vcpu, state, &size));
  CHECK_OK(luna_vcpu_restore(vcpu, state, size));
  end();
}

/* ---- Failing ---- */

static void set_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin();
    CHECK_OK(luna_vcpu_set_tsc_offset(vcpu, 77));
    fake_fail(k, EIO);
    int status = luna_vcpu_set_tsc_offset(vcpu, 1000);
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    CHECK_EQ(offset_of(vcpu), failed ? 77 : 1000);
    fake_fail(k, EIO);
    status = luna_vcpu_set_msr(vcpu, TSC, 2000);
    bool again = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, again);
    CHECK_EQ(counter(), again ? failed ? 77 : 1000 : 2000);
    end();
  }
}

static void sync_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin();
    luna_vcpu *second;
    CHECK_OK(luna_vcpu_create(vm, NULL, &second));
    CHECK_OK(luna_vcpu_set_tsc_offset(vcpu, 77));
    CHECK_OK(luna_vcpu_set_tsc_offset(second, 88));
    fake_fail(k, EIO);
    int status = luna_vm_sync_tsc(vm, 1000);
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    CHECK_EQ(offset_of(vcpu), failed ? 77 : 1000);
    CHECK_EQ(offset_of(second), failed ? 88 : 1000);
    luna_vcpu_release(second);
    end();
  }
}

int main(void) {
  RUN(frequency_and_offset);
  RUN(synchronized);
  RUN(exact_values);
  RUN(exact_state);
  RUN(the_hosts);
  RUN(set_fails);
  RUN(sync_fails);
  return test_end();
}
