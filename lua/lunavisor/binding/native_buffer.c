/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: buffers. The accessors are methods as they stand, since on 5.4 a call
 * through a Lua function would double their cost. */
#include "native.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int own_buffer(lua_State *L, luna_handle *h, int status, luna_buffer *buffer) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  h->object = buffer;
  h->memory = luna_buffer_memory(buffer);
  return 1;
}

/* kind, flags, size, offset, path, descriptor, pointer */
static int raw_buffer_open(lua_State *L) {
  luna_buffer_options options = {
      .kind = (uint32_t)luaL_checkinteger(L, 1),
      .flags = (uint32_t)luaL_checkinteger(L, 2),
      .size = (uint64_t)luaL_checkinteger(L, 3),
      .offset = (uint64_t)luaL_checkinteger(L, 4),
      .path = luaL_optstring(L, 5, NULL),
      .fd = (int32_t)luaL_optinteger(L, 6, -1),
      .pointer = lua_touserdata(L, 7),
  };
  luna_handle *h = luna_new_handle(L, HANDLE_BUFFER);
  luna_buffer *buffer = NULL;
  int status = luna_buffer_open(&options, &buffer);
  return own_buffer(L, h, status, buffer);
}

static int raw_buffer_view(lua_State *L) {
  luna_buffer *whole = luna_check(L, 1, HANDLE_BUFFER)->object;
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  luna_handle *h = luna_new_handle(L, HANDLE_BUFFER);
  luna_buffer *buffer = NULL;
  int status = luna_buffer_view(whole, offset, size, &buffer);
  return own_buffer(L, h, status, buffer);
}

static int raw_buffer_fd(lua_State *L) {
  lua_pushinteger(L, luna_buffer_fd(luna_check(L, 1, HANDLE_BUFFER)->object));
  return 1;
}

/* The address, as a light userdata that keeps nothing alive. */
static int raw_buffer_pointer(lua_State *L) {
  lua_pushlightuserdata(L, luna_check(L, 1, HANDLE_BUFFER)->memory->data);
  return 1;
}

/* The luna_buffer as a light userdata, for other libraries; good while the buffer is open. */
static int raw_buffer_object(lua_State *L) {
  lua_pushlightuserdata(L, luna_check(L, 1, HANDLE_BUFFER)->object);
  return 1;
}

static int raw_buffer_page_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_buffer_page_size(luna_check(L, 1, HANDLE_BUFFER)->object));
  return 1;
}

static int raw_buffer_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_check(L, 1, HANDLE_BUFFER)->memory->size);
  return 1;
}

static int raw_buffer_id(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)luna_buffer_id(luna_check(L, 1, HANDLE_BUFFER)->object));
  return 1;
}

static int fail_outside(lua_State *L, const char *who, int64_t offset, uint64_t size,
                        uint64_t length) {
  char text[160];
  snprintf(text, sizeof text,
           "%soffset %s0x%" PRIx64 " and size %" PRIu64
           " are outside the buffer, which has 0x%" PRIx64 " bytes",
           who, offset < 0 ? "-" : "", offset < 0 ? -(uint64_t)offset : (uint64_t)offset, size,
           length);
  return luaL_error(L, "%s", text);
}

/* The buffer at `index`, of which [offset, offset + size) is inside. */
static luna_handle *check_inside(lua_State *L, int index, uint64_t offset, uint64_t size) {
  luna_handle *h = luna_check(L, index, HANDLE_BUFFER);
  uint64_t length = h->memory->size;
  if (offset > length || size > length - offset) {
    fail_outside(L, "", (int64_t)offset, size, length);
  }
  return h;
}

/* The memory at the offset in argument 2, of `size` bytes that the buffer has. */
static const uint8_t *check_bytes(lua_State *L, uint64_t size) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  return check_inside(L, 1, offset, size)->memory->data + offset;
}

/* The same to be written to. */
static uint8_t *check_target(lua_State *L, uint64_t size) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  const luna_handle *h = check_inside(L, 1, offset, size);
  if (!h->memory->writable) {
    luaL_error(L, "the buffer is read-only");
  }
  return h->memory->data + offset;
}

/* Tells the core of a write, if somebody follows. */
static void mark(lua_State *L, uint64_t size) {
  const luna_handle *h = luna_check(L, 1, HANDLE_BUFFER);
  if (*(const volatile uint8_t *)h->memory->logged) {
    luna_buffer_mark(h->object, (uint64_t)lua_tointeger(L, 2), size);
  }
}

static void check_fits(lua_State *L, lua_Integer value, unsigned bits) {
  if ((uint64_t)value >> bits) {
    luaL_error(L, "value %I does not fit in %d bits", (LUAI_UACINT)value, (int)bits);
  }
}

/* buffer:uN(offset) reads, buffer:uN(offset, value) writes; little endian, any alignment. */
#define ACCESSOR(bits)                                                                             \
  static int raw_u##bits(lua_State *L) {                                                           \
    uint##bits##_t value;                                                                          \
    if (lua_isnoneornil(L, 3)) {                                                                   \
      memcpy(&value, check_bytes(L, (bits) / 8), sizeof value);                                    \
      lua_pushinteger(L, (lua_Integer)value);                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    lua_Integer given = luaL_checkinteger(L, 3);                                                   \
    if ((bits) < 64) {                                                                             \
      check_fits(L, given, (bits) % 64);                                                           \
    }                                                                                              \
    value = (uint##bits##_t)given;                                                                 \
    memcpy(check_target(L, (bits) / 8), &value, sizeof value);                                     \
    mark(L, sizeof value);                                                                         \
    return 0;                                                                                      \
  }

ACCESSOR(8)
ACCESSOR(16)
ACCESSOR(32)
ACCESSOR(64)

static int raw_buffer_writable(lua_State *L) {
  lua_pushboolean(L, luna_check(L, 1, HANDLE_BUFFER)->memory->writable);
  return 1;
}

/* offset, size */
static int raw_buffer_mark(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  luna_buffer_mark(luna_check(L, 1, HANDLE_BUFFER)->object, offset,
                   (uint64_t)luaL_checkinteger(L, 3));
  return 0;
}

static int raw_buffer_read(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  const uint8_t *place = check_bytes(L, size);
  lua_pushlstring(L, (const char *)place, size);
  return 1;
}

/* The method buffer:write(offset, data) as it stands, with the checks and messages of the shared
 * one: a Lua function around it would take longer than copying some kilobytes. */
static int raw_buffer_write(lua_State *L) {
  const luna_handle *h = luna_check(L, 1, HANDLE_BUFFER);
  if (lua_type(L, 3) != LUA_TSTRING) {
    return luaL_error(L, "buffer:write: a string expected, got %s",
                      lua_isnone(L, 3) ? "nil" : luaL_typename(L, 3));
  }
  int whole = 0;
  lua_Integer offset = lua_type(L, 2) == LUA_TNUMBER ? lua_tointegerx(L, 2, &whole) : 0;
  if (!whole && !lua_isnoneornil(L, 2)) {
    return luaL_error(L, "buffer:write: offset: a whole number expected, got %s",
                      luaL_tolstring(L, 2, NULL));
  }
  size_t size;
  const char *bytes = lua_tolstring(L, 3, &size);
  uint64_t length = h->memory->size;
  if (offset < 0 || (uint64_t)offset > length || size > length - (uint64_t)offset) {
    return fail_outside(L, "buffer:write: ", offset, size, length);
  }
  if (!h->memory->writable) {
    return luaL_error(L, "the buffer is read-only");
  }
  memcpy(h->memory->data + offset, bytes, size);
  if (*(const volatile uint8_t *)h->memory->logged) {
    luna_buffer_mark(h->object, (uint64_t)offset, size);
  }
  return 0;
}

static int raw_buffer_fill(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  lua_Integer byte = luaL_checkinteger(L, 4);
  check_fits(L, byte, 8);
  memset(check_target(L, size), (int)byte, size);
  mark(L, size);
  return 0;
}

/* target, offset, source, offset, size */
static int raw_buffer_copy(lua_State *L) {
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  const uint8_t *source = check_inside(L, 3, from, size)->memory->data + from;
  memmove(check_target(L, size), source, size);
  mark(L, size);
  return 0;
}

/* The distance of the first difference between two ranges, nil if they are equal. */
static int raw_buffer_compare(lua_State *L) {
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  const uint8_t *other = check_inside(L, 3, from, size)->memory->data + from;
  const uint8_t *bytes = check_bytes(L, size);
  uint64_t at = 0;
  if (memcmp(bytes, other, size) == 0) {
    luaL_pushfail(L);
    return 1;
  }
  while (bytes[at] == other[at]) {
    at++;
  }
  lua_pushinteger(L, (lua_Integer)at);
  return 1;
}

static int raw_buffer_find(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  const uint8_t *from = check_bytes(L, size);
  const uint8_t *found = memmem(from, size, bytes, length);
  if (!found) {
    luaL_pushfail(L);
    return 1;
  }
  lua_pushinteger(L, luaL_checkinteger(L, 2) + (found - from));
  return 1;
}

const luaL_Reg luna_buffer_functions[] = {
    {"buffer_open", raw_buffer_open},
    {"buffer_view", raw_buffer_view},
    {"buffer_fd", raw_buffer_fd},
    {"buffer_pointer", raw_buffer_pointer},
    {"buffer_object", raw_buffer_object},
    {"buffer_writable", raw_buffer_writable},
    {"buffer_mark", raw_buffer_mark},
    {"buffer_page_size", raw_buffer_page_size},
    {"buffer_size", raw_buffer_size},
    {"buffer_copy", raw_buffer_copy},
    {"buffer_compare", raw_buffer_compare},
    {"buffer_id", raw_buffer_id},
    {"u8", raw_u8},
    {"u16", raw_u16},
    {"u32", raw_u32},
    {"u64", raw_u64},
    {"buffer_read", raw_buffer_read},
    {"buffer_write", raw_buffer_write},
    {"buffer_fill", raw_buffer_fill},
    {"buffer_find", raw_buffer_find},
    {NULL, NULL},
};
