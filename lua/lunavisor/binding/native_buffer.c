/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: buffers. The accessors and buffer:write are methods as they stand, since a
 * call through a Lua function would double their cost. */
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
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  luna_handle *h = luna_new_handle(L, HANDLE_BUFFER);
  luna_buffer *buffer = NULL;
  int status = luna_buffer_view(luna_check(L, 1, HANDLE_BUFFER)->object, offset, size, &buffer);
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

/* Refuses a range that is not inside the buffer. */
static void check_inside(lua_State *L, const luna_handle *h, uint64_t offset, uint64_t size) {
  uint64_t length = h->memory->size;
  if (offset > length || size > length - offset) {
    fail_outside(L, "", (int64_t)offset, size, length);
  }
}

static void check_writable(lua_State *L, const luna_handle *h) {
  if (!h->memory->writable) {
    luaL_error(L, "the buffer is read-only");
  }
}

/* Tells the core of a write, if somebody follows. */
static void mark(const luna_handle *h, uint64_t offset, uint64_t size) {
  if (*(const volatile uint8_t *)h->memory->logged) {
    luna_buffer_mark(h->object, offset, size);
  }
}

/* ---- Methods ---- */

/* The open buffer whose method runs; the function in the first upvalue raises for what is none. */
static luna_handle *check_self(lua_State *L) {
  luna_handle *h = luna_find(L, 1, HANDLE_BUFFER);
  if (!h) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_call(L, 1, 0);
  }
  return h;
}

/* The offset in argument 2; numbers only, and whole ones. */
static uint64_t check_offset(lua_State *L) {
  int whole = 0;
  lua_Integer offset = lua_type(L, 2) == LUA_TNUMBER ? lua_tointegerx(L, 2, &whole) : 0;
  if (!whole) {
    luaL_error(L, "bad offset (a whole number expected, got %s)", luaL_tolstring(L, 2, NULL));
  }
  return (uint64_t)offset;
}

/* The value in argument 3: an integer, or a float that is one exactly. */
static uint64_t check_value(lua_State *L, unsigned bits) {
  lua_Integer value;
  if (!luna_exact(L, 3, &value)) {
    luaL_error(L,
               bits == 64 ? "value %s is not an exact 64-bit integer"
                          : "value %s does not fit in %d bits",
               luaL_tolstring(L, 3, NULL), (int)bits);
  }
  if (bits < 64 && (uint64_t)value >> bits % 64) {
    luaL_error(L, "value %I does not fit in %d bits", (LUAI_UACINT)value, (int)bits);
  }
  return (uint64_t)value;
}

/* Whether the memory may go away: then the core touches it. */
static bool vanishes(const luna_handle *h) {
  return *(const volatile uint8_t *)h->memory->vanishes;
}

/* The results of a call that has none. */
static int push_nothing(lua_State *L, int status) {
  return status < 0 ? luna_push_failure(L, status) : 0;
}

/* An integer of `size` bytes in memory that may go away. */
static int get_integer(lua_State *L, const luna_handle *h, uint64_t offset, uint64_t size) {
  uint64_t value = 0;
  int status = luna_buffer_copy(h->object, offset, &value, size, LUNA_READ);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)value);
  return 1;
}

/* buffer:uN(offset) reads, buffer:uN(offset, value) writes; little endian, any alignment. */
#define ACCESSOR(bits)                                                                             \
  static int method_u##bits(lua_State *L) {                                                        \
    const luna_handle *h = check_self(L);                                                          \
    uint64_t offset = check_offset(L);                                                             \
    uint##bits##_t value;                                                                          \
    check_inside(L, h, offset, sizeof value);                                                      \
    if (lua_isnoneornil(L, 3)) {                                                                   \
      if (vanishes(h)) {                                                                           \
        return get_integer(L, h, offset, sizeof value);                                            \
      }                                                                                            \
      memcpy(&value, h->memory->data + offset, sizeof value);                                      \
      lua_pushinteger(L, (lua_Integer)value);                                                      \
      return 1;                                                                                    \
    }                                                                                              \
    value = (uint##bits##_t)check_value(L, bits);                                                  \
    check_writable(L, h);                                                                          \
    if (vanishes(h)) {                                                                             \
      return push_nothing(L,                                                                       \
                          luna_buffer_copy(h->object, offset, &value, sizeof value, LUNA_WRITE));  \
    }                                                                                              \
    memcpy(h->memory->data + offset, &value, sizeof value);                                        \
    mark(h, offset, sizeof value);                                                                 \
    return 0;                                                                                      \
  }

ACCESSOR(8)
ACCESSOR(16)
ACCESSOR(32)
ACCESSOR(64)

/* buffer:write(offset, data), with the checks and messages of the shared one. */
static int method_write(lua_State *L) {
  const luna_handle *h = check_self(L);
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
  check_writable(L, h);
  if (vanishes(h)) {
    return push_nothing(L, luna_buffer_copy(h->object, (uint64_t)offset, (char *)(uintptr_t)bytes,
                                            size, LUNA_WRITE));
  }
  memcpy(h->memory->data + offset, bytes, size);
  mark(h, (uint64_t)offset, size);
  return 0;
}

/* class, complain: the methods that are raw calls as they stand, by name; `complain` raises for
 * what is no open buffer, at the method's caller. */
static int raw_buffer_methods(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"u8", method_u8},   {"u16", method_u16},     {"u32", method_u32},
      {"u64", method_u64}, {"write", method_write}, {NULL, NULL},
  };
  luaL_newlibtable(L, methods);
  lua_pushvalue(L, 2);
  luaL_setfuncs(L, methods, 1);
  return 1;
}

/* ---- Raw calls ---- */

/* The memory of the buffer at `index`, of which [offset, offset + size) is inside. */
static const luna_handle *check_range(lua_State *L, int index, uint64_t offset, uint64_t size) {
  const luna_handle *h = luna_check(L, index, HANDLE_BUFFER);
  check_inside(L, h, offset, size);
  return h;
}

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

/* Lua looks at a short string several times: a guest must not change the bytes meanwhile. */
static int raw_buffer_read(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  const luna_handle *h = check_range(L, 1, offset, size);
  const char *place = (const char *)h->memory->data + offset;
  char few[256];
  if (vanishes(h)) {
    luaL_Buffer b;
    char *bytes = size <= sizeof few ? few : luna_room(L, &b, size);
    h = luna_check(L, 1, HANDLE_BUFFER); /* making room may have run a finalizer that closed it */
    int status = luna_buffer_copy(h->object, offset, bytes, size, LUNA_READ);
    if (status < 0) {
      return luna_push_failure(L, status);
    }
    if (bytes != few) {
      luaL_pushresultsize(&b, size);
      return 1;
    }
  } else if (size > sizeof few) {
    lua_pushlstring(L, place, size); /* copies before it collects */
    return 1;
  } else {
    memcpy(few, place, size);
  }
  lua_pushlstring(L, few, size);
  return 1;
}

static int raw_buffer_write(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  size_t size;
  const char *bytes = luaL_checklstring(L, 3, &size);
  const luna_handle *h = check_range(L, 1, offset, size);
  check_writable(L, h);
  return push_nothing(
      L, luna_buffer_copy(h->object, offset, (char *)(uintptr_t)bytes, size, LUNA_WRITE));
}

static int raw_buffer_fill(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  int byte = (int)luaL_checkinteger(L, 4);
  const luna_handle *h = check_range(L, 1, offset, size);
  check_writable(L, h);
  return push_nothing(L, luna_buffer_fill(h->object, offset, size, (uint8_t)byte));
}

/* target, offset, source, offset, size */
static int raw_buffer_copy(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  const luna_handle *source = check_range(L, 3, from, size);
  const luna_handle *target = check_range(L, 1, offset, size);
  check_writable(L, target);
  return push_nothing(L, luna_buffer_transfer(target->object, offset, source->object, from, size));
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
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t from = (uint64_t)luaL_checkinteger(L, 4);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 5);
  const luna_handle *other = check_range(L, 3, from, size);
  const luna_handle *h = check_range(L, 1, offset, size);
  uint64_t at = 0;
  int found = luna_buffer_compare(h->object, offset, other->object, from, size, &at);
  return push_found(L, found, at);
}

static int raw_buffer_find(lua_State *L) {
  uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
  uint64_t size = (uint64_t)luaL_checkinteger(L, 3);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  const luna_handle *h = check_range(L, 1, offset, size);
  uint64_t at = 0;
  int found = luna_buffer_find(h->object, offset, size, bytes, length, &at);
  return push_found(L, found, offset + at);
}

const luaL_Reg luna_buffer_functions[] = {
    {"buffer_open", raw_buffer_open},       {"buffer_view", raw_buffer_view},
    {"buffer_fd", raw_buffer_fd},           {"buffer_pointer", raw_buffer_pointer},
    {"buffer_object", raw_buffer_object},   {"buffer_writable", raw_buffer_writable},
    {"buffer_mark", raw_buffer_mark},       {"buffer_page_size", raw_buffer_page_size},
    {"buffer_size", raw_buffer_size},       {"buffer_copy", raw_buffer_copy},
    {"buffer_compare", raw_buffer_compare}, {"buffer_id", raw_buffer_id},
    {"buffer_methods", raw_buffer_methods}, {"buffer_read", raw_buffer_read},
    {"buffer_write", raw_buffer_write},     {"buffer_fill", raw_buffer_fill},
    {"buffer_find", raw_buffer_find},       {NULL, NULL},
};
