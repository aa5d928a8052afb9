/* SPDX-License-Identifier: MIT
 * What programs of users do, as the compiler makes it: a hash, matches in a buffer, a sort, calls
 * through pointers. It has its own section, from which it is copied into a guest; it calls nothing
 * else, has its data on the stack and at `memory`, and uses general registers alone. */
#ifndef LUNA_BENCH_SOFT_USER_H
#define LUNA_BENCH_SOFT_USER_H

#include "soft_loops.h"

#ifdef __clang__
#define USER __attribute__((section("soft_user"), noinline))
#else
#define USER                                                                                       \
  __attribute__((section("soft_user"), noinline, target("general-regs-only"),                      \
                 optimize("O2,no-tree-loop-distribute-patterns,no-stack-protector")))
#endif

enum {
  USER_BYTES = 1024, /* of the buffer that is hashed and searched */
  USER_NUMBERS = 128 /* that are sorted, behind it */
};

extern const uint8_t __start_soft_user[], __stop_soft_user[];

USER static uint32_t user_next(uint32_t *state) {
  *state = *state * 1664525 + 1013904223;
  return *state >> 8;
}

USER static uint32_t user_hash(const uint8_t *bytes, uint32_t size) {
  uint32_t a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe;
  for (uint32_t i = 0; i + 4 <= size; i += 4) {
    uint32_t word = bytes[i] | (uint32_t)bytes[i + 1] << 8 | (uint32_t)bytes[i + 2] << 16 |
                    (uint32_t)bytes[i + 3] << 24;
    uint32_t sum = a + ((b & c) | (~b & word)) + word;
    a = c ^ (sum << 7 | sum >> 25);
    c = b + (word << 13 | word >> 19);
    b = sum;
  }
  return a ^ b ^ c;
}

/* How far two places agree. */
USER static uint32_t user_match(const uint8_t *a, const uint8_t *b, const uint8_t *end) {
  const uint8_t *from = a;
  while (a < end && *a == *b) {
    a++;
    b++;
  }
  return (uint32_t)(a - from);
}

USER static uint32_t user_search(const uint8_t *bytes, uint32_t size) {
  uint32_t found = 0;
  for (uint32_t i = 64; i < size; i += 16) {
    uint32_t best = 0;
    for (uint32_t back = 1; back < 64; back += 3) {
      uint32_t length = user_match(bytes + i, bytes + i - back, bytes + size);
      best = length > best ? length : best;
    }
    found += best;
  }
  return found;
}

USER static void user_sort(uint32_t *numbers, int64_t first, int64_t last) {
  while (first < last) {
    int64_t low = first, high = last;
    uint32_t middle = numbers[(first + last) / 2];
    while (low <= high) {
      while (numbers[low] < middle) {
        low++;
      }
      while (numbers[high] > middle) {
        high--;
      }
      if (low <= high) {
        uint32_t number = numbers[low];
        numbers[low++] = numbers[high];
        numbers[high--] = number;
      }
    }
    user_sort(numbers, first, high);
    first = low;
  }
}

USER static uint64_t user_add(uint64_t value, uint32_t by) {
  return value + by;
}
USER static uint64_t user_turn(uint64_t value, uint32_t by) {
  return value << (by & 31) | value >> 32;
}
USER static uint64_t user_scale(uint64_t value, uint32_t by) {
  return (value * 10 + by % 10) ^ value >> 7;
}

USER static uint64_t user_interpret(const uint8_t *bytes, uint32_t size, uint64_t value) {
  uint64_t (*const operations[])(uint64_t, uint32_t) = {user_add, user_turn, user_scale, user_add};
  for (uint32_t i = 0; i < size; i++) {
    value = operations[bytes[i] & 3](value, bytes[i]);
  }
  return value;
}

/* As time_loop begins it: ESI and ECX are the second and the fourth argument. */
USER static void user_program(uint64_t unused, uint8_t *memory, uint64_t unused_too,
                              uint64_t rounds) {
  uint32_t state = 1, *numbers = (uint32_t *)(void *)(memory + USER_BYTES);
  uint64_t value = unused & unused_too & 1;
  for (; (uint32_t)rounds; rounds--) {
    for (uint32_t i = 0; i < USER_BYTES; i++) {
      memory[i] = (uint8_t)(user_next(&state) & 3);
    }
    for (uint32_t i = 0; i < USER_NUMBERS; i++) {
      numbers[i] = user_next(&state);
    }
    value += user_hash(memory, USER_BYTES) + user_search(memory, USER_BYTES);
    user_sort(numbers, 0, USER_NUMBERS - 1);
    value = user_interpret(memory, USER_BYTES, value + numbers[3]);
    *(uint64_t *)(void *)(memory + USER_BYTES + sizeof(uint32_t) * USER_NUMBERS) = value;
  }
}

/* A call of the program, and HLT behind it. */
static inline soft_loop user_loop(void) {
  static uint8_t code[0x2000] = {0xeb, 0x01, 0xf4, 0xe8, 0, 0, 0, 0, 0xeb, 0xf8};
  size_t size = (size_t)(__stop_soft_user - __start_soft_user);
  uint32_t entry = (uint32_t)((uintptr_t)user_program - (uintptr_t)__start_soft_user) + 2;
  memcpy(code + 4, &entry, sizeof entry);
  if (size + 10 > sizeof code) {
    errno = E2BIG;
    die("the program of users");
  }
  memcpy(code + 10, __start_soft_user, size);
  return (soft_loop){"user", 64, 1, code, size + 10};
}

#endif
