/* SPDX-License-Identifier: MIT
 * How the costs of the C API grow with the number of spaces, of slots and with the size of a map:
 * growth prints tables. One process, single rounds: to see the shape, not to judge by. */
#include "common.h"
#include "lunavisor.h"

#include <stdbool.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE,
  CODE = 0x1000,
  LOW = 0x10000, /* memory for code */
  PORT = 0x10,
  SAMPLE = 1024 /* pages that are touched at most */
};

static int luna(int status) {
  if (status < 0) {
    fprintf(stderr, "growth: %s\n", luna_error_message());
    exit(2);
  }
  return status;
}

static double microseconds_since(uint64_t begin) {
  return (double)(now() - begin) / 1000;
}

static luna_buffer *make_buffer(uint64_t size) {
  luna_buffer *buffer;
  luna(luna_buffer_create(size, &buffer));
  return buffer;
}

static luna_buffer *make_code(const uint8_t *code, size_t size) {
  luna_buffer *buffer = make_buffer(LOW);
  memcpy((uint8_t *)luna_buffer_data(buffer) + CODE, code, size);
  return buffer;
}

/* Runs to the next port access. */
static void run_to_exit(luna_vcpu *vcpu) {
  int kind = luna(luna_vcpu_run(vcpu, 0));
  if (kind != LUNA_EXIT_PIO) {
    fprintf(stderr, "growth: the guest stops with %s\n", luna_exit_name(kind));
    exit(2);
  }
  luna(luna_vcpu_answer(vcpu, 0));
}

/* ---- Spaces ---- */

/* KiB of this process's memory that is in RAM. */
static long resident(void) {
  long total;
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%ld %ld", &total, &pages) != 2) {
    die("/proc/self/statm");
  }
  fclose(file);
  return pages * (PAGE / 1024);
}

/* Microseconds of an exit and a move, on a round through all spaces. */
static double visit(luna_vcpu *vcpu, uint32_t spaces, int rounds) {
  uint64_t begin = now();
  for (int round = 0; round < rounds; round++) {
    for (uint32_t i = 1; i <= spaces; i++) {
      run_to_exit(vcpu);
      luna(luna_vcpu_set_space(vcpu, i % spaces, 0));
    }
  }
  return microseconds_since(begin) / (rounds * (double)spaces);
}

typedef struct space_costs {
  double create, memory, first, next, close; /* each; KiB, microseconds */
} space_costs;

static space_costs cost_spaces(uint32_t spaces, luna_buffer *code) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE};
  space_costs each;
  luna_vm *vm;
  luna_vcpu *vcpu;
  uint32_t space;
  long before = resident();
  uint64_t begin = now();
  luna(luna_vm_create(&vm));
  for (uint32_t i = 1; i < spaces; i++) {
    luna(luna_vm_space_create(vm, &space));
  }
  each.create = microseconds_since(begin) / spaces;
  for (uint32_t i = 0; i < spaces; i++) {
    luna(luna_vm_map_space(vm, i, code, 0, 0, LOW, RWX));
  }
  luna(luna_vcpu_create(vm, &options, &vcpu));
  each.first = visit(vcpu, spaces, 1);
  each.next = visit(vcpu, spaces, (int)(512 / spaces));
  each.memory = (double)(resident() - before) / spaces;
  begin = now();
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  each.close = microseconds_since(begin) / spaces;
  return each;
}

static void print_spaces(void) {
  static const uint8_t code[] = {0xba, PORT, 0x00, 0xee, 0xeb, 0xfd}; /* next: out dx, al; jmp */
  luna_buffer *memory = make_code(code, sizeof code);
  cost_spaces(1, memory); /* warms up */
  puts("\nspaces    create us   RSS KiB   first exit + move us   exit + move us   close us");
  for (uint32_t spaces = 1; spaces <= 256; spaces *= 4) {
    space_costs each = cost_spaces(spaces, memory);
    printf("%-8u %10.0f %9.1f %22.0f %16.1f %10.0f\n", spaces, each.create, each.memory, each.first,
           each.next, each.close);
  }
  luna_buffer_release(memory);
}

/* ---- Slots ---- */

static double map_and_unmap(luna_vm *vm, luna_buffer *page, uint64_t gpa) {
  enum {
    TIMES = 100
  };
  uint64_t begin = now();
  for (int i = 0; i < TIMES; i++) {
    luna(luna_vm_map_space(vm, 0, page, 0, gpa, PAGE, RWX));
    luna(luna_vm_unmap_space(vm, 0, gpa, PAGE));
  }
  return microseconds_since(begin) / TIMES;
}

static void print_slots(void) {
  luna_vm *vm;
  luna_buffer *page = make_buffer(PAGE);
  luna(luna_vm_create(&vm));
  puts("\nslots     map + unmap us   map us, since the line above");
  uint32_t slots = 0;
  static const uint32_t sizes[] = {1, 10, 100, 1000, 10000, 32000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t begin = now();
    uint32_t more = sizes[i] - slots;
    for (; slots < sizes[i]; slots++) {
      luna(luna_vm_map_space(vm, 0, page, 0, (uint64_t)slots * 2 * PAGE, PAGE, RWX));
    }
    double each = microseconds_since(begin) / more;
    printf("%-8u %15.1f %10.1f\n", slots, map_and_unmap(vm, page, (slots | 1u) * (uint64_t)PAGE),
           each);
  }
  luna_vm_release(vm);
  luna_buffer_release(page);
}

/* ---- Sizes ---- */

enum {
  PLACE = 0x40000000, /* where the memory is mapped that the guest touches */
  OUT = 14,           /* the offset of the port access in the code */
  REPEATS = 5
};

/* Ring 3: writes to a byte of each of RCX pages from RDI on, then to the port. */
static const uint8_t toucher[] = {
    0x88, 0x07,                               /* next: mov [rdi], al */
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, /* add rdi, 0x1000 */
    0x48, 0xff, 0xc9,                         /* dec rcx */
    0x75, 0xf2,                               /* jnz next */
    0xee,                                     /* end: out dx, al */
    0xeb, 0xfd                                /* jmp end */
};

static double host_touches(luna_buffer *buffer, uint64_t pages) {
  volatile uint8_t *data = luna_buffer_data(buffer);
  uint64_t begin = now();
  for (uint64_t i = 0; i < pages; i++) {
    data[i * PAGE] = 1;
  }
  return microseconds_since(begin) / (double)pages;
}

static double run_toucher(luna_vcpu *vcpu, uint64_t pages) {
  luna(luna_vcpu_set(vcpu, LUNA_RIP, pages ? CODE : CODE + OUT));
  luna(luna_vcpu_set(vcpu, LUNA_RDI, PLACE));
  luna(luna_vcpu_set(vcpu, LUNA_RCX, pages));
  luna(luna_vcpu_set(vcpu, LUNA_RDX, PORT));
  uint64_t begin = now();
  run_to_exit(vcpu);
  return microseconds_since(begin);
}

/* Microseconds a page; what a run costs anyhow goes off by running it again. */
static double guest_touches(luna_vm *vm, uint64_t pages) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_USER64, .rip = CODE, .system = LUNA_SYSTEM_ALLOCATE};
  luna_vcpu *vcpu;
  luna(luna_vcpu_create(vm, &options, &vcpu));
  run_toucher(vcpu, 0);
  double first = run_toucher(vcpu, pages);
  double again = run_toucher(vcpu, pages);
  luna_vcpu_release(vcpu);
  return (first - again) / (double)pages;
}

enum {
  MAP,
  UNMAP,
  HOST,      /* the host touches first */
  GUEST,     /* the guest does */
  POPULATED, /* the guest does where the host was before */
  COLUMNS
};

static void touch(uint64_t size, bool populated, luna_buffer *code, double *times) {
  uint64_t pages = size / PAGE < SAMPLE ? size / PAGE : SAMPLE;
  luna_vm *vm;
  luna_buffer *buffer = make_buffer(size);
  luna(luna_vm_create(&vm));
  luna(luna_vm_map_space(vm, 0, code, 0, 0, LOW, RWX));
  if (populated) {
    times[HOST] = host_touches(buffer, pages);
  }
  uint64_t begin = now();
  luna(luna_vm_map_space(vm, 0, buffer, 0, PLACE, size, RWX));
  times[MAP] = microseconds_since(begin);
  times[populated ? POPULATED : GUEST] = guest_touches(vm, pages);
  begin = now();
  luna(luna_vm_unmap_space(vm, 0, PLACE, size));
  times[UNMAP] = microseconds_since(begin);
  luna_vm_release(vm);
  luna_buffer_release(buffer);
}

static void grow_size(uint64_t size, luna_buffer *code) {
  double times[COLUMNS][REPEATS];
  for (int i = 0; i < REPEATS; i++) {
    double columns[COLUMNS];
    touch(size, false, code, columns);
    touch(size, true, code, columns);
    for (int column = 0; column < COLUMNS; column++) {
      times[column][i] = columns[column];
    }
  }
  printf("%-8llu", (unsigned long long)(size >> 10));
  for (int column = 0; column < COLUMNS; column++) {
    printf(column < HOST ? " %10.0f" : " %11.2f", median(times[column], REPEATS));
  }
  puts("");
}

static void print_sizes(void) {
  luna_buffer *code = make_code(toucher, sizeof toucher);
  puts("\n                               first touch, us a page, by the"
       "\nKiB           map us   unmap us        host       guest   guest after host");
  for (unsigned bits = 12; bits <= 33; bits += 3) {
    grow_size((uint64_t)1 << bits, code);
  }
  luna_buffer_release(code);
}

int main(void) {
  print_spaces();
  print_slots();
  print_sizes();
  return 0;
}
