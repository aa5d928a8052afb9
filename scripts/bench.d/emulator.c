/* SPDX-License-Identifier: MIT
 * The software CPU against QEMU's translator, where that is installed: prints the ratio of their
 * speeds in a loop of soft_loops.h, or of their times in the program of soft_user.h, by the time
 * that each has had of the processors. QEMU runs the code from a firmware of 64 KiB, once for long
 * and once for nothing. */
#include "soft_user.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum {
  SAMPLES = 3,
  FIRMWARE = 0x10000,
  LOOP_AT = 0x8000,
  RESET_AT = 0xfff0,
  ROUNDS = 40000000,
  USER_ROUNDS = 4000
};

/* From the reset in real mode to the mode whose bits are behind it, with ESP = 8000h, ESI = 4000h,
 * ECX the rounds (behind the mode), no IDT, the first 2 MiB mapped in 64-bit mode; then F8000h. */
static const uint8_t start[] = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x66, 0xbc, 0x00, 0x80, 0x00, 0x00, 0x66,
    0xbe, 0x00, 0x40, 0x00, 0x00, 0x2e, 0x66, 0x8b, 0x0e, 0xd5, 0x00, 0x2e, 0x0f, 0x01, 0x1e, 0xce,
    0x00, 0x2e, 0x80, 0x3e, 0xd4, 0x00, 0x10, 0x75, 0x03, 0xe9, 0xd4, 0x7f, 0x2e, 0x0f, 0x01, 0x16,
    0xc8, 0x00, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x42, 0x00, 0x0f, 0x00,
    0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x80, 0x3d, 0xd4, 0x00,
    0x0f, 0x00, 0x20, 0x75, 0x05, 0xe9, 0xa6, 0x7f, 0x00, 0x00, 0xc7, 0x05, 0x00, 0x00, 0x01, 0x00,
    0x03, 0x10, 0x01, 0x00, 0xc7, 0x05, 0x00, 0x10, 0x01, 0x00, 0x03, 0x20, 0x01, 0x00, 0xc7, 0x05,
    0x00, 0x20, 0x01, 0x00, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x20, 0xe0, 0x0c, 0x20, 0x0f, 0x22, 0xe0,
    0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xd8, 0x51, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,
    0x80, 0xcc, 0x01, 0x0f, 0x30, 0x59, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22,
    0xc0, 0xea, 0x00, 0x80, 0x0f, 0x00, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00, 0x1f, 0x00, 0xa8, 0x00, 0x0f, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00,
};

static const uint8_t reset[] = {0xea, 0x00, 0x00, 0x00, 0xf0}; /* jmp F000h:0 */

static void write_firmware(const char *path, const soft_loop *loop, uint32_t rounds) {
  static uint8_t image[FIRMWARE];
  memset(image, 0, sizeof image);
  memcpy(image, start, sizeof start);
  image[sizeof start] = (uint8_t)loop->bits;
  memcpy(image + sizeof start + 1, &rounds, sizeof rounds);
  memcpy(image + LOOP_AT, loop->code, loop->size);
  *(uint8_t *)memchr(image + LOOP_AT, 0xf4, loop->size) = 0xcc; /* INT3 for HLT: a triple fault */
  memcpy(image + RESET_AT, reset, sizeof reset);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(image, sizeof image, 1, file) != 1 || fclose(file) != 0) {
    die(path);
  }
}

static double seconds(struct timeval time) {
  return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* Seconds of the processors that it takes until the guest ends. */
static double run_emulator(const char *path) {
  struct rusage usage;
  int status;
  pid_t child = check(fork(), "fork");
  if (child == 0) {
    alarm(120);
    quiet_errors();
    execlp("qemu-system-x86_64", "qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-bios", path,
           "-display", "none", "-no-reboot", "-nodefaults", "-m", "16", (char *)NULL);
    die("qemu-system-x86_64");
  }
  check(wait4(child, &status, 0, &usage), "wait4");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    errno = ECHILD;
    die("qemu-system-x86_64 has not come to the end of the loop");
  }
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/* Seconds for so many rounds. */
static double emulator_time(const soft_loop *loop, uint32_t rounds) {
  char path[] = "/tmp/luna-bench-XXXXXX";
  close(check(mkstemp(path), "mkstemp"));
  write_firmware(path, loop, 1);
  double none = run_emulator(path);
  write_firmware(path, loop, rounds);
  double time = run_emulator(path) - none;
  unlink(path);
  return time;
}

static void print_ratio(const soft_loop *loop) {
  for (int i = 0; i < SAMPLES; i++) {
    double theirs = loop->instructions * (ROUNDS / 1e6) / emulator_time(loop, ROUNDS);
    printf("%.6g\n", loop_speed(loop) / theirs);
  }
}

static void print_alu(uint32_t bits) {
  print_ratio(find_loop("alu", bits));
}

static void print_memory(uint32_t bits) {
  print_ratio(find_loop("memory", bits));
}

static void print_user(uint32_t unused) {
  (void)unused;
  soft_loop loop = user_loop();
  for (int i = 0; i < SAMPLES; i++) {
    double theirs = emulator_time(&loop, USER_ROUNDS);
    soft_guest guest = guest_open(0);
    double ours = time_loop(&guest, loop.code, loop.size, USER_ROUNDS, 1) * USER_ROUNDS / 1e9;
    guest_close(&guest);
    printf("%.6g\n", ours / theirs);
  }
}

int main(int argc, char **argv) {
  static const figure figures[] = {
      {"alu", print_alu}, {"memory", print_memory}, {"user", print_user}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
