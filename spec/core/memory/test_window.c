/* SPDX-License-Identifier: MIT
 * What a region can show: read-only buffers, views, windows. */
#include "fixture/space_fixture.h"

#include "memory/buffer.h"

/* ---- Read-only buffers and views ---- */

static void read_only_buffer(void) {
  const luna_buffer_options options = {.size = 8 * PAGE, .flags = LUNA_BUFFER_READ_ONLY};
  luna_buffer *fixed;
  begin();
  CHECK_OK(luna_buffer_open(&options, &fixed));
  CHECK_FAILS(luna_vm_map_space(vm, 0, fixed, 0, 10 * PAGE, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map gpa 0xa000 in space 0 with write: the buffer is read-only");
  CHECK_FAILS(luna_vm_map_space(vm, 0, fixed, 0, 10 * PAGE, PAGE, RWX | STRICT),
              LUNA_ERROR_ARGUMENT, "with write: the buffer is read-only");
  CHECK_OK(luna_vm_map_space(vm, 0, fixed, 0, 10 * PAGE, 4 * PAGE, RX));
  CHECK_OK(map(0, 9, 1, RX));
  CHECK_FAILS(protect(9, 3, RW), LUNA_ERROR_ARGUMENT,
              "cannot give write to gpa 0xa000..0xbfff in space 0: its buffer is read-only");
  check_now(2, 2);
  CHECK_OK(protect(11, 1, LUNA_READ | STRICT));
  CHECK_OK(protect(12, 1, 0));
  CHECK_OK(protect(9, 1, RW));
  check_now(5, 3);
  luna_buffer *view;
  CHECK_OK(luna_buffer_view(fixed, PAGE, PAGE, &view));
  CHECK_FAILS(luna_vm_map_space(vm, 0, view, 0, 60 * PAGE, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "the buffer is read-only");
  uint8_t byte = 1;
  CHECK_FAILS(luna_vm_copy_space(vm, 0, 10 * PAGE, &byte, 1, LUNA_WRITE), LUNA_ERROR_SYSTEM,
              "read-only");
  luna_buffer_release(view);
  luna_buffer_release(fixed);
  end();
}

/* A region of a view is one of its buffer, and joins with such. */
static void views_map_as_their_buffer(void) {
  luna_buffer *view;
  luna_buffer *inner;
  begin();
  CHECK_OK(luna_buffer_view(buffer, 4 * PAGE, 16 * PAGE, &view));
  CHECK_OK(luna_buffer_view(view, 2 * PAGE, 4 * PAGE, &inner));
  CHECK_OK(map(0, 10, 4, RW));
  CHECK_OK(luna_vm_map_space(vm, 0, view, 0, 14 * PAGE, 2 * PAGE, RW));
  CHECK_OK(luna_vm_map_space(vm, 0, inner, PAGE, 17 * PAGE, 3 * PAGE, RW));
  check_region(10, 10, 6, 0, RW);
  check_region(17, 17, 3, 7, RW);
  CHECK_OK(luna_vm_map_space(vm, 0, inner, 0, 16 * PAGE, PAGE, RW));
  check_region(10, 10, 10, 0, RW);
  check_now(1, 1);
  CHECK_FAILS(luna_vm_map_space(vm, 0, inner, 0, 30 * PAGE, 5 * PAGE, RW), LUNA_ERROR_RANGE,
              "cannot map 0x5000 bytes from offset 0x0: the buffer has 0x4000");
  luna_buffer_release(inner);
  luna_buffer_release(view);
  check_region(10, 10, 10, 0, RW);
  end();
}

static void unaligned_views(void) {
  luna_buffer *view;
  begin();
  CHECK_OK(luna_buffer_view(buffer, PAGE + 0x10, 8 * PAGE, &view));
  CHECK_FAILS(luna_vm_map_space(vm, 0, view, PAGE, 10 * PAGE, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map offset 0x1000 of a view that begins at 0x1010 of its buffer: together "
              "they are not a multiple of the page size 0x1000");
  CHECK_FAILS(luna_vm_map_space(vm, 0, view, PAGE - 0x10, 10 * PAGE, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map from offset 0xff0 of a buffer");
  check_now(0, 0);
  luna_buffer_release(view);
  end();
}

/* ---- Windows ---- */

static int map_window(uint64_t offset, uint64_t gpa, uint64_t pages, uint32_t rights) {
  return luna_vm_map_space(vm, 0, shared, offset * PAGE, gpa * PAGE, pages * PAGE, rights | WINDOW);
}

static uint8_t byte_at(uint64_t gpa) {
  uint8_t byte;
  CHECK_OK(luna_vm_copy_space(vm, 0, gpa * PAGE, &byte, 1, LUNA_READ));
  return byte;
}

static void number_pages(void) {
  for (uint8_t i = 0; i < 16; i++) {
    ((uint8_t *)luna_buffer_data(shared))[i * PAGE] = i;
  }
}

static void remap_touches_no_slot(void) {
  begin_shared();
  number_pages();
  unsigned maps = memfd_maps();
  CHECK_OK(map_window(2, 10, 2, RW));
  CHECK_EQ(memfd_maps(), maps + 1);
  CHECK_EQ(byte_at(11), 3);
  fake_forget();
  CHECK_OK(luna_vm_remap_space(vm, 0, 10 * PAGE, shared, 8 * PAGE));
  CHECK_EQ(fake_calls(0), 0);
  CHECK_EQ(byte_at(10), 8);
  CHECK_EQ(byte_at(11), 9);
  luna_region region;
  CHECK_OK(luna_space_next(vm, 0, 0, &region));
  CHECK(region.buffer == shared);
  CHECK_EQ(region.offset, 8 * PAGE);
  CHECK_EQ(region.flags, WINDOW);
  CHECK_EQ(atomic_load(&shared->reference.count), 2);
  CHECK_OK(unmap(10, 2));
  CHECK_EQ(memfd_maps(), maps);
  CHECK_EQ(atomic_load(&shared->reference.count), 1);
  end_shared();
}

/* Parts of a window share its place until the last one goes. */
static void window_in_pieces(void) {
  begin_shared();
  number_pages();
  unsigned maps = memfd_maps();
  CHECK_OK(map_window(0, 10, 6, RW));
  CHECK_OK(protect(12, 2, RX));
  check_now(3, 3);
  CHECK_OK(luna_vm_remap_space(vm, 0, 12 * PAGE, shared, 9 * PAGE));
  CHECK_FAILS(luna_vm_remap_space(vm, 0, 13 * PAGE, shared, 0), LUNA_ERROR_NOT_FOUND,
              "cannot remap gpa 0xd000 of space 0: no window begins there");
  CHECK_EQ(byte_at(11), 1);
  CHECK_EQ(byte_at(12), 9);
  CHECK_EQ(byte_at(14), 4);
  CHECK_OK(unmap(10, 2));
  CHECK_EQ(byte_at(13), 10);
  CHECK_OK(protect(12, 2, RW)); /* shows other memory than the rest: no join */
  check_now(2, 2);
  CHECK_OK(luna_vm_remap_space(vm, 0, 12 * PAGE, shared, 2 * PAGE));
  CHECK_OK(protect(12, 4, RX));
  check_now(1, 1);
  CHECK_EQ(byte_at(15), 5);
  CHECK_OK(unmap(12, 4));
  CHECK_EQ(memfd_maps(), maps);
  end_shared();
}

/* Though their memory continues, and perhaps their places in this process. */
static void windows_do_not_join(void) {
  begin_shared();
  number_pages();
  for (uint64_t i = 4; i-- > 0;) {
    CHECK_OK(map_window(i, 10 + i, 1, RW));
  }
  for (uint64_t i = 4; i < 8; i++) {
    CHECK_OK(map_window(i, 10 + i, 1, RW));
  }
  check_now(8, 8);
  for (uint8_t i = 0; i < 8; i++) {
    CHECK_EQ(byte_at(10 + i), i);
  }
  end_shared();
}

static void window_errors(void) {
  const luna_buffer_options options = {
      .kind = LUNA_BUFFER_MEMFD, .size = 4 * PAGE, .flags = LUNA_BUFFER_READ_ONLY};
  luna_buffer *fixed;
  luna_buffer *view;
  begin_shared();
  CHECK_OK(luna_buffer_open(&options, &fixed));
  CHECK_OK(luna_buffer_view(shared, 0x10, 8 * PAGE, &view));
  CHECK_FAILS(map(0, 10, 1, RW | WINDOW), LUNA_ERROR_UNSUPPORTED,
              "in a window: only memfd and shared file buffers can be mapped a second time");
  CHECK_OK(map_window(0, 10, 2, RW));
  CHECK_OK(map(0, 20, 1, RW));
  unsigned maps = memfd_maps();
  uint64_t gpa = 10 * PAGE;
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, buffer, 0), LUNA_ERROR_UNSUPPORTED, "in a window");
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, fixed, 0), LUNA_ERROR_ARGUMENT,
              "in a window that the guest may write");
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, shared, 0x800), LUNA_ERROR_ARGUMENT,
              "from offset 0x800 of a buffer");
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, view, 0), LUNA_ERROR_ARGUMENT,
              "cannot show offset 0x10 of a buffer: it is not a multiple of 0x1000");
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, shared, 15 * PAGE), LUNA_ERROR_RANGE,
              "cannot map 0x2000 bytes from offset 0xf000: the buffer has 0x10000");
  CHECK_FAILS(luna_vm_remap_space(vm, 0, gpa, NULL, 0), LUNA_ERROR_ARGUMENT, "without a buffer");
  CHECK_EQ(luna_vm_remap_space(vm, 0, 20 * PAGE, shared, 0), LUNA_ERROR_NOT_FOUND);
  CHECK_EQ(luna_vm_remap_space(vm, 0, 30 * PAGE, shared, 0), LUNA_ERROR_NOT_FOUND);
  CHECK_EQ(luna_vm_remap_space(vm, 3, gpa, shared, 0), LUNA_ERROR_NOT_FOUND);
  CHECK_EQ(memfd_maps(), maps);
  CHECK_EQ(atomic_load(&shared->reference.count), 3); /* ours, the view's, the window's */
  luna_buffer_release(view);
  luna_buffer_release(fixed);
  end_shared();
}

int main(void) {
  RUN(read_only_buffer);
  RUN(views_map_as_their_buffer);
  RUN(unaligned_views);
  RUN(remap_touches_no_slot);
  RUN(window_in_pieces);
  RUN(windows_do_not_join);
  RUN(window_errors);
  return test_end();
}
