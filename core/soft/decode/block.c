/* SPDX-License-Identifier: MIT
 * The cache of decoded blocks, by the host address of their code. A block is compared with memory
 * at its first use in each epoch. An epoch ends when the vCPU enters the guest, when it writes to a
 * line that code was made of, when another vCPU may have written, and after a million instructions:
 * so whoever changes code, the change is seen. */
#include "soft/access.h"
#include "soft/decode/decode.h"
#include "soft/vector/stub.h"

enum {
  BLOCK_ROOM = 1 << 16 /* the most that a block and its stubs take */
};

/* Of the compiler's own memcmp nothing is known: it may use vector registers. */
SOFT_INLINE bool same(const uint8_t *a, const uint8_t *b, unsigned size) {
  if (size < 8 && ((uintptr_t)b & (SOFT_PAGE - 1)) <= SOFT_PAGE - 8) {
    return !((soft_peek(a, 64) ^ soft_peek(b, 64)) << (64 - 8 * size));
  }
  for (; size >= 8; size -= 8, a += 8, b += 8) {
    if (soft_peek(a, 64) != soft_peek(b, 64)) {
      return false;
    }
  }
  for (; size; size--) {
    if (*a++ != *b++) {
      return false;
    }
  }
  return true;
}

/* Worlds come back: the kernel's behind a program's, those of the segments of real mode. */
void soft_links_select(soft_cpu *cpu) {
  cpu->generation =
      cpu->flushes << 3 | (uint64_t)soft_code_kind(cpu) | (uint64_t)(cpu->cpl == 3) << 2;
  soft_world *world = &cpu->worlds[(cpu->generation ^ cpu->cs_base >> 4) % SOFT_WORLDS];
  if (world->generation != cpu->generation || world->epoch != cpu->epoch ||
      world->cs_base != cpu->cs_base || world->rip_last != cpu->rip_last || !world->stamp) {
    *world = (soft_world){cpu->generation, cpu->epoch, cpu->cs_base, cpu->rip_last, ++cpu->stamps};
  }
  cpu->world = world;
  cpu->stamp = world->stamp;
}

/* Every entry does: nothing else of the world changes. */
void soft_epoch_end(soft_cpu *cpu) {
  soft_world *world = cpu->world;
  world->epoch = ++cpu->epoch;
  world->stamp = cpu->stamp = ++cpu->stamps;
}

void soft_links_drop(soft_cpu *cpu) {
  cpu->flushes++;
  soft_links_select(cpu);
}

void *soft_arena_take(soft_cpu *cpu, size_t size) {
  cpu->arena_end = (cpu->arena_end - size) & ~(size_t)63;
  return cpu->arena + cpu->arena_end;
}

void soft_blocks_drop(soft_cpu *cpu) {
  soft_settle_pointers(cpu);
  for (unsigned i = 0; i < SOFT_BLOCK_HASH; i++) {
    cpu->hash[i] = NULL;
  }
  for (unsigned i = 0; i < SOFT_MARKS; i++) {
    cpu->marks[i] = 0;
  }
  for (unsigned i = 0; i < SOFT_MARKS / 64; i++) {
    cpu->coded[i] = 0;
  }
  cpu->arena_used = 0;
  cpu->arena_end = SOFT_ARENA_SIZE;
  cpu->drops++;
  soft_stubs_drop(cpu);
  soft_tlb_flush(cpu);
}

SOFT_INLINE uint64_t lines(const uint8_t *host, size_t size) {
  unsigned first = (unsigned)((uintptr_t)host >> 6 & 63);
  unsigned last = (unsigned)(((uintptr_t)host + size - 1) >> 6 & 63);
  return last < first ? ~UINT64_C(0) << first
                      : (~UINT64_C(0) << first) & (~UINT64_C(0) >> (63 - last));
}

static SOFT_COLD void mark_more(soft_cpu *cpu, const uint8_t *host, uint64_t bits) {
  if (!soft_coded(cpu, host)) {
    soft_set_coded(cpu, host, true);
    soft_tlb_drop_writes(cpu, host);
  }
  *soft_mark(cpu, host) |= bits;
}

SOFT_INLINE void mark(soft_cpu *cpu, const soft_block *block) {
  if (soft_unlikely(block->lines & ~*soft_mark(cpu, block->host))) {
    mark_more(cpu, block->host, block->lines);
  }
}

void soft_code_written(soft_cpu *cpu, const uint8_t *host, size_t size) {
  *soft_mark(cpu, host) &= ~lines(host, size);
  soft_epoch_end(cpu);
  soft_look_around(cpu);
}

/* Whether memory still has the block's bytes, and its lines are marked. It calls nothing: what
 * takes more is soft_block_find's. */
SOFT_INLINE bool is_true(const soft_cpu *cpu, soft_block *block) {
  if (block->verified != cpu->epoch) {
    if (soft_unlikely(!same(block->copy, block->host, block->bytes) ||
                      block->lines & ~*soft_mark(cpu, block->host))) {
      return false;
    }
    block->verified = cpu->epoch;
  }
  return true;
}

static bool has_room(const soft_cpu *cpu) {
  return cpu->arena_end - cpu->arena_used > BLOCK_ROOM && soft_stubs_have_room(cpu);
}

/* Programs that change code change an immediate or a jump, most of them: that one instruction is
 * decoded anew. */
static bool mend(soft_cpu *cpu, soft_block *block, const uint8_t *bytes) {
  if (block->key & (SOFT_BLOCK_SINGLE | SOFT_BLOCK_CROSSES) || !has_room(cpu)) {
    return false;
  }
  soft_park(cpu);
  return soft_decode_change(cpu, block, bytes);
}

/* The block that is known, compared with the bytes. One that is not true any more, and cannot be
 * mended, leaves the table; its memory stays, for links that are not followed. */
static soft_block *known(soft_cpu *cpu, soft_block **chain, const uint8_t *host, uint32_t key,
                         const uint8_t *bytes) {
  for (soft_block *block; (block = *chain); chain = &block->next) {
    if (block->host == host && block->key == key) {
      if (soft_unlikely(block->verified != cpu->epoch || key & SOFT_BLOCK_CROSSES)) {
        if (!same(block->copy, bytes, block->bytes) && !mend(cpu, block, bytes)) {
          *chain = block->next;
          return NULL;
        }
        mark(cpu, block);
        block->verified = cpu->epoch;
      }
      return block;
    }
  }
  return NULL;
}

static soft_block **bucket(const soft_cpu *cpu, const uint8_t *host, uint32_t key) {
  uint64_t hash = (uint64_t)(uintptr_t)host;
  return &cpu->hash[(hash ^ hash >> 13 ^ key << 9) & (SOFT_BLOCK_HASH - 1)];
}

static size_t size_of(const soft_block *block) {
  size_t used = sizeof *block + (block->count + 1u) * sizeof(soft_insn);
  return (used + 63) & ~(size_t)63;
}

void soft_blocks_clear(soft_cpu *cpu) {
  for (size_t at = 0; at < cpu->arena_used;) {
    const soft_block *block = (const soft_block *)(const void *)(cpu->arena + at);
    *bucket(cpu, block->host, block->key) = NULL;
    *soft_mark(cpu, block->host) = 0;
    at += size_of(block);
  }
}

/* NULL where the bytes end within the first instruction. */
static soft_block *make(soft_cpu *cpu, const uint8_t *host, uint32_t key, const uint8_t *bytes,
                        size_t size, unsigned page_offset) {
  unsigned most = key & (SOFT_BLOCK_SINGLE | SOFT_BLOCK_CROSSES) ? 1 : SOFT_BLOCK_INSNS;
  soft_park(cpu);
  soft_block *block = (soft_block *)(void *)(cpu->arena + cpu->arena_used);
  block->host = host;
  block->key = key;
  block->heat = 0;
  block->verified = cpu->epoch;
  if (!soft_decode(cpu, block, bytes, size, most, page_offset)) {
    return NULL;
  }
  cpu->arena_used += size_of(block);
  block->lines = lines(host, key & SOFT_BLOCK_CROSSES ? 1 : block->bytes);
  mark(cpu, block);
  soft_block **at = bucket(cpu, host, key);
  block->next = *at;
  *at = block;
  return block;
}

void soft_block_heat(soft_cpu *cpu, soft_block *block) {
  if (block->heat < SOFT_BLOCK_HOT && ++block->heat == SOFT_BLOCK_HOT && has_room(cpu)) {
    soft_park(cpu);
    soft_make_runs(cpu, block);
  }
}

/* One instruction over the end of a page: its bytes are put together, and compared at each use, for
 * the second page is nobody's that has a mark. */
static soft_block *find_crossing(soft_cpu *cpu, const uint8_t *host, unsigned page_offset,
                                 uint32_t key) {
  uint8_t bytes[16];
  unsigned first = SOFT_PAGE - page_offset;
  for (unsigned i = 0; i < first; i++) {
    bytes[i] = cpu->fetched[i] = host[i];
  }
  cpu->fetched_size = first;
  uint64_t linear;
  const uint8_t *rest = soft_fetch(cpu, (cpu->rip + first) & cpu->ip_mask, &linear);
  cpu->fetched_size = 0;
  for (unsigned i = first; i < 15; i++) {
    bytes[i] = rest[i - first];
  }
  key |= SOFT_BLOCK_CROSSES;
  soft_block *block = known(cpu, bucket(cpu, host, key), host, key, bytes);
  return block ? block : make(cpu, host, key, bytes, 15, page_offset);
}

static __attribute__((noinline)) soft_block *find_for(soft_cpu *cpu, soft_jump *jump,
                                                      uint64_t linear) {
  soft_block *block = soft_block_find(cpu, false);
  if (!(block->key & SOFT_BLOCK_CROSSES)) {
    *jump = (soft_jump){linear, cpu->stamp, cpu->generation, block};
  }
  return block;
}

soft_block *soft_block_next(soft_cpu *cpu) {
  uint64_t linear = cpu->cs_base + cpu->rip;
  soft_jump *jump = soft_jump_of(cpu, linear);
  soft_block *block = jump->block;
  if (jump->linear == linear && jump->generation == cpu->generation && !cpu->no_links &&
      cpu->rip <= cpu->rip_last && is_true(cpu, block)) {
    jump->stamp = cpu->stamp;
    return block;
  }
  return find_for(cpu, jump, linear);
}

soft_block *soft_block_find(soft_cpu *cpu, bool single) {
  uint64_t linear;
  cpu->current = NULL;
  cpu->fetched_size = 0;
  const uint8_t *host = soft_fetch(cpu, cpu->rip, &linear);
  uint32_t key = soft_code_kind(cpu) | (single ? SOFT_BLOCK_SINGLE : 0);
  soft_block *block = known(cpu, bucket(cpu, host, key), host, key, host);
  if (soft_unlikely(!block)) {
    if (!has_room(cpu)) {
      soft_blocks_drop(cpu);
      soft_fetch(cpu, cpu->rip, &linear);
    }
    unsigned page_offset = (unsigned)(linear & (SOFT_PAGE - 1));
    block = make(cpu, host, key, host, SOFT_PAGE - page_offset, page_offset);
    if (!block) {
      block = find_crossing(cpu, host, page_offset, key & 3);
    }
  }
  cpu->r[R_BLOCK] = cpu->rip - block->insns[0].offset;
  return block;
}
