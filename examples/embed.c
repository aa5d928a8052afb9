/* SPDX-License-Identifier: MIT
 * lunavisor from C alone: a 16-bit guest sends a text to port 0x3f8 and halts.
 *   cc embed.c $(pkg-config --cflags --libs lunavisor) */
#include <lunavisor.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* mov si, text; next: lodsb; or al, al; jz done; mov dx, 0x3f8; out dx, al; jmp next; done: hlt */
static const unsigned char code[] = {0xbe, 0x0f, 0x10, 0xac, 0x08, 0xc0, 0x74, 0x06,
                                     0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, 0xf4};
static const char text[] = "hello from a guest run by C\n";

static void check(int status) {
  if (status < 0) {
    fprintf(stderr, "embed: %s\n", luna_error_message());
    exit(1);
  }
}

/* Answers the guest until it halts; how many exits that took. */
static int serve(luna_vcpu *vcpu) {
  const luna_exit *e = luna_vcpu_exit(vcpu);
  int exits = 0;
  for (;;) {
    int kind = luna_vcpu_run(vcpu, luna_clock() + 5000000000u);
    check(kind);
    exits++;
    if (kind == LUNA_EXIT_HLT) {
      return exits;
    }
    if (kind != LUNA_EXIT_PIO || e->trap == 0 || e->access != LUNA_WRITE) {
      fprintf(stderr, "embed: unexpected exit %s\n", luna_exit_name(kind));
      exit(1);
    }
    putchar((int)e->value);
    check(luna_vcpu_answer(vcpu, 0));
  }
}

int main(void) {
  luna_vm *vm;
  luna_buffer *ram;
  luna_vcpu *vcpu;
  uint32_t uart;

  check(luna_vm_create(&vm));
  check(luna_buffer_create(2 << 20, &ram));
  memcpy((char *)luna_buffer_data(ram) + 0x1000, code, sizeof code);
  memcpy((char *)luna_buffer_data(ram) + 0x1000 + sizeof code, text, sizeof text);
  check(luna_vm_map_space(vm, 0, ram, 0, 0, luna_buffer_size(ram),
                          LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  check(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x3f8, 8, &uart));

  luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = 0x1000};
  check(luna_vcpu_create(vm, &options, &vcpu));
  printf("%d exits\n", serve(vcpu));

  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  luna_buffer_release(ram);
  return luna_live(LUNA_OBJECT_VM) + luna_live(LUNA_OBJECT_BUFFER) == 0 ? 0 : 1;
}
