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

/* The buffer in argument 1, which has `size` bytes from the offset in argument 2. */
static luna_handle *check_bytes(lua_State *L, uint64_t size) {
  return check_inside(L, 1, (uint64_t)luaL_checkinteger(L, 2), size);
}

/* The same to be written to. */
static luna_handle *check_target(lua_State *L, uint64_t size) {
  luna_handle *h = check_bytes(L, size);
  if (!h->memory->writable) {
    luaL_error(L, "the buffer is read-only");
  }
  return h;
}

/* The memory at the offset in argument 2. */
static uint8_t *place_of(lua_State *L, const luna_handle *h) {
  return h->memory->data + lua_tointeger(L, 2);
}

/* Tells the core of a write, if somebody follows. */
static void mark(lua_State *L, const luna_handle *h, uint64_t size) {
  if (*(const volatile uint8_t *)h->memory->logged) {
    luna_buffer_mark(h->object, (uint64_t)lua_tointeger(L, 2), size);
  }
}

static void check_fits(lua_State *L, lua_Integer value, unsigned bits) {
  if ((uint64_t)value >> bits) {
    luaL_error(L, "value %I does not fit in %d bits", (LUAI_UACINT)value, (int)bits);
  }
}

/* Whether the memory may go away: then the core touches it. */
static bool vanishes(const luna_handle *h) {
  return *(const volatile uint8_t *)h->memory->vanishes;
}

/* The status of copying between `bytes` and the buffer from the offset in argument 2. */
static int copy(lua_State *L, const luna_handle *h, void *bytes, uint64_t size, uint32_t access) {
  return luna_buffer_copy(h->object, (uint64_t)lua_tointeger(L, 2), bytes, size, access);
}

/* The results of a method that has none. */
static int push_nothing(lua_State *L, int status) {
  return status < 0 ? luna_push_failure(L, status) : 0;
}

/* An integer of `size` bytes in memory that may go away. */
static int get_integer(lua_State *L, const luna_handle *h, uint64_t size) {
  uint64_t value = 0;
  int status = copy(L, h, &value, size, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

/* buffer:uN(offset) reads, buffer:uN(offset, value) writes; little endian, any alignment. */
#define ACCESSOR(bits)                                                                             \
  static int raw_u##bits(lua_State *L) {                                                           \
    uint##bits##_t value;                                                                          \
    const luna_handle *h;                                                                          \
    if (lua_isnoneornil(L, 3)) {                                                                   \
      h = check_bytes(L, sizeof value);                                                            \
      if (vanishes(h)) {                                                                           \
        return get_integer(L, h, sizeof value);                                                    \
      }                                                                                            \
      memcpy(&value, place_of(L, h), sizeof value);                                                \
      lua_pushinteger(L, (lua_Integer)value);                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    lua_Integer given = luaL_checkinteger(L, 3);                                                   \
    if ((bits) < 64) {                                                                             \
      check_fits(L, given, (bits) % 64);                                                           \
    }                                                                                              \
    value = (uint##bits##_t)given;                                                                 \
    h = check_target(L, sizeof value);                                                             \
    if (vanishes(h)) {                                                                             \
      return push_nothing(L, copy(L, h, &value, sizeof value, LUNA_WRITE));                        \
    }                                                                                              \
    memcpy(place_of(L, h), &value, sizeof value);                                                  \
    mark(L, h, sizeof value);                                                                      \
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

/* Lua looks at the bytes of a short string several times: a guest must not change them meanwhile. */
static int raw_buffer_read(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  const luna_handle *h = check_bytes(L, size);
  const char *place = (const char *)place_of(L, h);
  char few[256];
  if (vanishes(h)) {
    luaL_Buffer b;
    char *bytes = size <= sizeof few ? few : luna_room(L, &b, size);
    int status = copy(L, h, bytes, size, LUNA_READ);
    if (status < 0) {
      return luna_push_failure(L, status);
    }
    if (bytes != few) {
      luaL_pushresultsize(&b, size);
      return 1;
    }
  } else if (size > sizeof few) {
    lua_pushlstring(L, place, size);
    return 1;
  } else {
    memcpy(few, place, size);
  }
  lua_pushlstring(L, few, size);
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
  if (vanishes(h)) {
    return push_nothing(L, luna_buffer_copy(h->object, (uint64_t)offset, (char *)(uintptr_t)bytes,
                                            size, LUNA_WRITE));
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
  luna_buffer *buffer = check_target(L, size)->object;
  return push_nothing(L,
                      luna_buffer_fill(buffer, (uint64_t)lua_tointeger(L, 2), size, (uint8_t)byte));
}

/* target, offset, source, offset, size */
static int raw_buffer_copy(lua_State *L) {
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  luna_buffer *source = check_inside(L, 3, from, size)->object;
  luna_buffer *target = check_target(L, size)->object;
  return push_nothing(
      L, luna_buffer_transfer(target, (uint64_t)lua_tointeger(L, 2), source, from, size));
}

/* A distance that the core has found (1), or that it has not (0), or a failure. */
static int push_found(lua_State *L, int found, uint64_t at) {
  if (found < 0) {
    return luna_push_failure(L, found);
  }
  if (found) {
    lua_pushinteger(L, (lua_Integer)at);
  } else {
    luaL_pushfail(L);
  }
  return 1;
}

/* The distance of the first difference between two ranges, nil if they are equal. */
static int raw_buffer_compare(lua_State *L) {
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  luna_buffer *other = check_inside(L, 3, from, size)->object;
  luna_buffer *buffer = check_bytes(L, size)->object;
  uint64_t at = 0;
  int found = luna_buffer_compare(buffer, (uint64_t)lua_tointeger(L, 2), other, from, size, &at);
  return push_found(L, found, at);
}

static int raw_buffer_find(lua_State *L) {
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  luna_buffer *buffer = check_inside(L, 1, offset, size)->object;
  uint64_t at = 0;
  int found = luna_buffer_find(buffer, offset, size, bytes, length, &at);
  return push_found(L, found, offset + at);
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
