/* SPDX-License-Identifier: MIT
 * Changing and searching the map of a space through the C API, against the fewest raw ioctls that
 * do the same in a VM beside it: spaces FIGURE [NUMBER] prints the samples of a figure, ratios or
 * nanoseconds. */
#include "common.h"
#include "kvm/kvm.h"
#include "lunavisor.h"

#include <sys/mman.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE,
  ADDRESSES = 4096 /* random ones, a power of two */
};

typedef struct scene {
  luna_vm *vm;
  luna_buffer *buffer;
  uint8_t *memory; /* the buffer's */
  int raw;         /* the raw VM */
  uint8_t *window; /* its */
  uint32_t slots;
  uint64_t offset; /* remap: where the window is */
  uint64_t addresses[ADDRESSES];
} scene;

static scene here;

static void luna(int status) {
  if (status < 0) {
    fprintf(stderr, "spaces: %s\n", luna_error_message());
    exit(2);
  }
}

static void open_scene(uint64_t size) {
  luna(luna_vm_create(&here.vm));
  luna(luna_buffer_create(size, &here.buffer));
  here.memory = luna_buffer_data(here.buffer);
}

static void map(uint64_t gpa, uint64_t size) {
  luna(luna_vm_map_space(here.vm, 0, here.buffer, 0, gpa, size, RWX));
}

/* Every second page has a slot of its own, all of them with the same memory. */
static void fill(uint32_t slots, bool raw) {
  here.slots = slots;
  for (uint32_t i = 0; i < slots; i++) {
    uint64_t gpa = (uint64_t)i * 2 * PAGE;
    map(gpa, PAGE);
    if (raw) {
      set_slot(here.raw, i, gpa, PAGE, here.memory, 0);
    }
  }
}

/* Page `offset` behind a random one of the mapped pages. */
static void choose_addresses(uint64_t offset) {
  uint64_t random = 88172645463325252u;
  for (size_t i = 0; i < ADDRESSES; i++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    here.addresses[i] = (random % here.slots * 2 + offset) * PAGE;
  }
}

/* ---- map_unmap N ---- */

enum {
  MAPS = 4
};

static uint64_t hole(void) {
  return ((uint64_t)here.slots | 1) * PAGE; /* between two pages in the middle */
}

static void luna_map_unmap(void *context) {
  (void)context;
  for (int i = 0; i < MAPS; i++) {
    map(hole(), PAGE);
    luna(luna_vm_unmap_space(here.vm, 0, hole(), PAGE));
  }
}

static void raw_map_unmap(void *context) {
  (void)context;
  for (int i = 0; i < MAPS; i++) {
    set_slot(here.raw, here.slots, hole(), PAGE, here.memory, 0);
    set_slot(here.raw, here.slots, 0, 0, NULL, 0);
  }
}

static void print_map_unmap(uint32_t slots) {
  open_scene(PAGE);
  here.raw = make_vm();
  fill(slots, true);
  print_ratios(luna_map_unmap, raw_map_unmap, NULL, 80);
}

/* ---- find N, map_cost N: the library's own time, with slots that cost nothing ---- */

static int quiet_open(const char *path) {
  return open(path, O_RDWR | O_CLOEXEC);
}

static int quiet_ioctl(int fd, unsigned long request, void *argument) {
  return request == KVM_SET_USER_MEMORY_REGION ? 0 : ioctl(fd, request, argument);
}

static void *quiet_map(size_t size, int fd, off_t offset) {
  return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

static const luna_kvm_table quiet = {quiet_open, quiet_ioctl, quiet_map, munmap, close};

static void find_all(void *context) {
  luna_region region;
  (void)context;
  for (size_t i = 0; i < ADDRESSES; i++) {
    luna(luna_space_next(here.vm, 0, here.addresses[i], &region));
  }
}

static void find_nothing(void *context) {
  const volatile uint64_t *addresses = here.addresses;
  (void)context;
  for (size_t i = 0; i < ADDRESSES; i++) {
    (void)addresses[i];
  }
}

static void print_find(uint32_t slots) {
  luna_kvm_replace(&quiet);
  open_scene(PAGE);
  fill(slots, false);
  choose_addresses(0);
  print_differences(find_all, find_nothing, NULL, 200, ADDRESSES);
}

static void map_all(void *context) {
  (void)context;
  for (size_t i = 0; i < ADDRESSES; i++) {
    map(here.addresses[i], PAGE);
    luna(luna_vm_unmap_space(here.vm, 0, here.addresses[i], PAGE));
  }
}

static void call_quiet(void *context) {
  static int (*volatile call)(int, unsigned long, void *) = quiet_ioctl;
  (void)context;
  for (size_t i = 0; i < 2 * ADDRESSES; i++) {
    call(0, KVM_SET_USER_MEMORY_REGION, NULL);
  }
}

static void print_map_cost(uint32_t slots) {
  luna_kvm_replace(&quiet);
  open_scene(PAGE);
  fill(slots, false);
  choose_addresses(1);
  print_differences(map_all, call_quiet, NULL, 30, ADDRESSES);
}

/* ---- protect: a page of a region of 64, there and back ---- */

enum {
  REGION = 64 * PAGE,
  INSIDE = 20 * PAGE
};

static void luna_protect(void *context) {
  (void)context;
  luna(luna_vm_protect_space(here.vm, 0, INSIDE, PAGE, LUNA_READ | LUNA_EXECUTE));
  luna(luna_vm_protect_space(here.vm, 0, INSIDE, PAGE, RWX));
}

static void raw_protect(void *context) {
  const uint64_t behind = INSIDE + PAGE;
  (void)context;
  set_slot(here.raw, 0, 0, 0, NULL, 0);
  set_slot(here.raw, 0, 0, INSIDE, here.memory, 0);
  set_slot(here.raw, 1, INSIDE, PAGE, here.memory + INSIDE, KVM_MEM_READONLY);
  set_slot(here.raw, 2, behind, REGION - behind, here.memory + behind, 0);
  for (uint32_t slot = 0; slot < 3; slot++) {
    set_slot(here.raw, slot, 0, 0, NULL, 0);
  }
  set_slot(here.raw, 0, 0, REGION, here.memory, 0);
}

static void print_protect(uint32_t number) {
  (void)number;
  open_scene(REGION);
  here.raw = make_vm();
  map(0, REGION);
  set_slot(here.raw, 0, 0, REGION, here.memory, 0);
  print_ratios(luna_protect, raw_protect, NULL, 80);
}

/* ---- remap: 64 KiB of a memfd into a window with a slot ---- */

enum {
  WINDOW = 16 * PAGE,
  REMAPS = 50
};

static void luna_remap(void *context) {
  (void)context;
  for (int i = 0; i < REMAPS; i++) {
    here.offset ^= WINDOW;
    luna(luna_vm_remap_space(here.vm, 0, 0, here.buffer, here.offset));
  }
}

static void raw_remap(void *context) {
  int fd = luna_buffer_fd(here.buffer);
  (void)context;
  for (int i = 0; i < REMAPS; i++) {
    here.offset ^= WINDOW;
    if (mmap(here.window, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
             (off_t)here.offset) == MAP_FAILED) {
      die("mmap of the window");
    }
  }
}

/* So that the kernel does not join what is mapped on its two sides: that would cost one of them. */
static uint8_t *reserve(uint64_t size) {
  uint8_t *place = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) {
    die("mmap");
  }
  return place;
}

static void print_remap(uint32_t number) {
  const luna_buffer_options memfd = {.kind = LUNA_BUFFER_MEMFD, .size = 2 * WINDOW};
  (void)number;
  luna(luna_vm_create(&here.vm));
  luna(luna_buffer_open(&memfd, &here.buffer));
  reserve(PAGE);
  luna(luna_vm_map_space(here.vm, 0, here.buffer, 0, 0, WINDOW, RWX | LUNA_MAP_WINDOW));
  here.raw = make_vm();
  here.window = reserve(WINDOW + 2 * PAGE) + PAGE;
  raw_remap(NULL);
  set_slot(here.raw, 0, 0, WINDOW, here.window, 0);
  print_ratios(luna_remap, raw_remap, NULL, 100);
}

int main(int argc, char **argv) {
  static const figure figures[] = {{"map_unmap", print_map_unmap},
                                   {"find", print_find},
                                   {"map_cost", print_map_cost},
                                   {"protect", print_protect},
                                   {"remap", print_remap}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
