/* SPDX-License-Identifier: MIT
 * Open exits are offered to what has come since: traps, memory, eventfds. */
#include "fixture/vcpu_fixture.h"

static uint32_t trap(int kind, uint64_t first, uint64_t length) {
  uint32_t id = 0;
  CHECK_OK(luna_vm_trap(vm, kind, first, length, &id));
  return id;
}

static void check_exit(int kind, uint32_t owner, uint64_t offset) {
  CHECK_EQ(run(), kind);
  CHECK_EQ(e->kind, kind);
  CHECK_EQ(e->trap, owner);
  CHECK_EQ(e->offset, offset);
}

static void to_a_trap(void) {
  static const fake_step steps[] = {
      {.kind = FAKE_PIO, .address = 0x61, .size = 1},
      {.kind = FAKE_MMIO, .address = 0xd0000001, .size = 1, .write = true, .data = {7}},
      {.kind = FAKE_MSR, .address = 0x10b, .write = true, .value = 9}};
  static const uint64_t firsts[] = {0x60, 0xd0000000, 0x10a};
  static const int kinds[] = {LUNA_EXIT_PIO, LUNA_EXIT_MMIO, LUNA_EXIT_MSR};
  begin();
  fake_script(steps, 3);
  for (int kind = LUNA_TRAP_PIO; kind <= LUNA_TRAP_MSR; kind++) {
    int unowned = kind == LUNA_TRAP_MMIO ? LUNA_EXIT_FAULT : kinds[kind];
    check_exit(unowned, 0, 0);
    uint32_t id = trap(kind, firsts[kind], 2);
    check_exit(kinds[kind], id, 1);
    check_exit(kinds[kind], id, 1);
    CHECK_EQ(e->value, kind == LUNA_TRAP_PIO ? 0 : kind == LUNA_TRAP_MMIO ? 7 : 9);
    CHECK_OK(luna_vm_untrap(vm, id));
    check_exit(unowned, 0, 0);
    CHECK_EQ(entries(), (uint64_t)kind + 1);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
  }
  end();
}

/* The owner of a part of it, too. */
static void to_several(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4, .write = true, .data = {1, 2, 3, 4}});
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_EQ(e->value, 0x04030201);
  uint32_t id = trap(LUNA_TRAP_PIO, 0x62, 1);
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_EQ(e->size, 2);
  CHECK_EQ(e->value, 0x0201);
  CHECK_OK(luna_vm_untrap(vm, id));
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_EQ(e->size, 4);
  CHECK_EQ(e->value, 0x04030201);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void to_memory(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x200010, .size = 4},
         {.kind = FAKE_MMIO, .address = 0x300010, .size = 2, .write = true, .data = {0xcd, 0xab}});
  uint8_t *data;
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  map_memory(0x200000, PAGE, LUNA_READ, &data);
  memcpy(data + 0x10, "\4\3\2\1", 4);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(e->address, 0x300010);
  CHECK_EQ(get(LUNA_RAX), 0x01020304);
  map_memory(0x300000, PAGE, RWX, &data);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(data[0x10] | data[0x11] << 8, 0xabcd);
  CHECK_EQ(entries(), 3);
  end();
}

static void to_the_memory_of_a_fetch(void) {
  begin();
  SCRIPT({.kind = FAKE_INTERNAL, .suberror = KVM_INTERNAL_ERROR_EMULATION}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  trap(LUNA_TRAP_MMIO, 0xfffffff0, 4); /* no device gives code */
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(e->access, LUNA_EXECUTE);
  CHECK_EQ(entries(), 1);
  map_memory(0xffff0000, 0x10000, RWX, NULL);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* In the space that the vCPU moves to. */
static void to_the_memory_of_another_space(void) {
  begin();
  uint32_t space;
  luna_buffer *buffer;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(luna_buffer_create(PAGE, &buffer));
  CHECK_OK(luna_vm_map_space(vm, space, buffer, 0, 0x200000, PAGE, RWX));
  SCRIPT({.kind = FAKE_MMIO, .address = 0x200010, .size = 1, .write = true, .data = {5}});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(((uint8_t *)luna_buffer_data(buffer))[0x10], 5);
  luna_buffer_release(buffer);
  end();
}

static int refuse(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  (void)offset, (void)size, (void)access, (void)value;
  ++*(int *)context;
  return -1;
}

static int accept(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  refuse(context, offset, size, access, value);
  *value = 0x5a;
  return 0;
}

/* A function is asked once for an access, but another that has its number is, too. */
static void to_the_core(void) {
  begin();
  uint32_t id;
  uint32_t other;
  int asked = 0;
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1, .count = 2},
         {.kind = FAKE_PIO, .address = 0x70, .size = 1, .write = true, .data = {8}});
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0x60, 1, refuse, &asked, &id));
  check_exit(LUNA_EXIT_PIO, id, 0);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x100, 1, &other));
  check_exit(LUNA_EXIT_PIO, id, 0);
  CHECK_EQ(asked, 1);
  CHECK_OK(luna_vcpu_answer(vcpu, 0xa5));
  CHECK_EQ(asked, 2); /* the next element is another access */
  CHECK_OK(luna_vm_untrap(vm, id));
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0x60, 1, accept, &asked, &other));
  CHECK_EQ(other, id);
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_EQ(e->address, 0x70);
  CHECK_EQ(asked, 3);
  size_t size;
  CHECK(memcmp(fake_answer(&size), "\xa5\x5a", 2) == 0);
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(PAGE, &buffer));
  CHECK_OK(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0x70, 1, buffer, 4, &id));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(((uint8_t *)luna_buffer_data(buffer))[4], 8);
  CHECK_EQ(entries(), 3);
  luna_buffer_release(buffer);
  end();
}

static void to_an_eventfd(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1, .write = true, .data = {7}},
         {.kind = FAKE_MMIO, .address = 0xd0000000, .size = 4, .write = true, .data = {1}},
         {.kind = FAKE_PIO, .address = 0x60, .size = 1});
  luna_eventfd events[] = {
      {.kind = LUNA_TRAP_PIO, .address = 0x60, .size = 2, .fd = -1},
      {.kind = LUNA_TRAP_PIO, .address = 0x60, .size = 1, .flags = LUNA_EVENT_MATCH, .fd = -1},
      {.kind = LUNA_TRAP_MMIO, .address = 0xd0000000, .flags = LUNA_EVENT_ANY_SIZE, .fd = -1},
      {.kind = LUNA_TRAP_PIO,
       .address = 0x60,
       .size = 1,
       .flags = LUNA_EVENT_MATCH,
       .value = 7,
       .fd = -1}};
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_OK(luna_vm_eventfd_add(vm, &events[0]));
  CHECK_OK(luna_vm_eventfd_add(vm, &events[1]));
  CHECK_OK(luna_vm_eventfd_add(vm, &events[2]));
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_OK(luna_vm_eventfd_add(vm, &events[3]));
  CHECK_EQ(run(), LUNA_EXIT_FAULT); /* the fake does not count itself */
  check_exit(LUNA_EXIT_PIO, 0, 0);
  CHECK_EQ(e->access, LUNA_READ);
  check_exit(LUNA_EXIT_PIO, 0, 0);
  for (int i = 0; i < 4; i++) {
    uint64_t count;
    CHECK_OK(luna_eventfd_read(events[i].fd, &count));
    CHECK_EQ(count, i >= 2);
  }
  end();
}

static void in_a_step(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x200010, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_FAULT);
  map_memory(0x200000, PAGE, RWX, NULL);
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_DEBUG);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* What waits in the queue, too; a trap's function is asked by the vCPU's own thread. */
static void in_the_queue(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x200010, .size = 4},
         {.kind = FAKE_PIO, .address = 0x60, .size = 1},
         {.kind = FAKE_PIO, .address = 0x70, .size = 1});
  luna_vcpu *from;
  uint32_t id;
  int asked = 0;
  luna_vm_fd(vm);
  CHECK_OK(luna_vcpu_start(vcpu));
  while (luna_vcpu_exits(vcpu) < 1) {
  }
  map_memory(0x200000, PAGE, RWX, NULL);
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &from), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_OK(luna_vcpu_go(vcpu));
  while (luna_vcpu_exits(vcpu) < 3) {
  }
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0x70, 1, accept, &asked, &id));
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &from), LUNA_EXIT_HLT);
  CHECK_EQ(asked, 1);
  CHECK_EQ(get(LUNA_RAX) & 0xff, 0x5a);
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

int main(void) {
  RUN(to_a_trap);
  RUN(to_several);
  RUN(to_memory);
  RUN(to_the_memory_of_a_fetch);
  RUN(to_the_memory_of_another_space);
  RUN(to_the_core);
  RUN(to_an_eventfd);
  RUN(in_a_step);
  RUN(in_the_queue);
  return test_end();
}
