/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: descriptors for the characters of devices. */
#include "native.h"

static int32_t check_fd(lua_State *L) {
  return (int32_t)luaL_checkinteger(L, 1);
}

static int push_made(lua_State *L, int status, int32_t fd) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  luna_made = fd;
  lua_pushinteger(L, fd);
  return 1;
}

/* address, port: the descriptor */
static int raw_stream_tcp(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_tcp(luaL_checkstring(L, 1), (uint16_t)luaL_checkinteger(L, 2), &fd);
  return push_made(L, status, fd);
}

static int raw_stream_port(lua_State *L) {
  uint32_t port;
  int status = luna_stream_port(check_fd(L), &port);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, port);
  return 1;
}

/* path: the descriptor */
static int raw_stream_unix(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_unix(luaL_checkstring(L, 1), &fd);
  return push_made(L, status, fd);
}

static int raw_stream_pty(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_pty(&fd);
  return push_made(L, status, fd);
}

static int raw_stream_terminal(lua_State *L) {
  char name[128];
  int status = luna_stream_terminal(check_fd(L), name, sizeof name);
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushstring(L, name);
  return 1;
}

/* listener: the descriptor of a client, -1 for none */
static int raw_stream_accept(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_accept(check_fd(L), &fd);
  return push_made(L, status, fd);
}

/* the descriptor */
static int raw_stream_share(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_share(check_fd(L), &fd);
  return push_made(L, status, fd);
}

/* path, luna_stream_way: the descriptor */
static int raw_stream_open(lua_State *L) {
  int32_t fd = -1;
  int status = luna_stream_open(luaL_checkstring(L, 1), (int)luaL_checkinteger(L, 2), &fd);
  return push_made(L, status, fd);
}

/* descriptor, most: a string, "" at the end; false where nothing is there now */
static int raw_stream_read(lua_State *L) {
  int32_t fd = check_fd(L);
  size_t size = (size_t)luaL_checkinteger(L, 2);
  luaL_Buffer buffer;
  char *data = luna_room(L, &buffer, size);
  int status = luna_stream_read(fd, data, size);
  luaL_pushresultsize(&buffer, status < 0 ? 0 : (size_t)status);
  if (status == LUNA_ERROR_BUSY) {
    lua_pushboolean(L, 0);
  } else if (status < 0) {
    return luna_push_failure(L, status);
  }
  return 1;
}

/* descriptor, string: how many bytes of it */
static int raw_stream_write(lua_State *L) {
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  int status = luna_stream_write(check_fd(L), data, size);
  if (status == LUNA_ERROR_BUSY) {
    status = 0;
  }
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, status);
  return 1;
}

static int raw_stream_close(lua_State *L) {
  luna_stream_close(check_fd(L));
  return 0;
}

/* descriptor, nanoseconds: whether there is something to read */
static int raw_stream_wait(lua_State *L) {
  int status = luna_stream_wait(check_fd(L), (uint64_t)luaL_checknumber(L, 2));
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushboolean(L, status);
  return 1;
}

static int raw_stream_is_terminal(lua_State *L) {
  lua_pushboolean(L, luna_stream_is_terminal(check_fd(L)));
  return 1;
}

/* descriptor, and what it is to be: true */
static int raw_stream_replace(lua_State *L) {
  int status = luna_stream_replace(check_fd(L), (int32_t)luaL_checkinteger(L, 2));
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* open file of io: whether something that was written to it is lost */
static int raw_stream_failed(lua_State *L) {
  const luaL_Stream *stream = (const luaL_Stream *)luaL_checkudata(L, 1, LUA_FILEHANDLE);
  lua_pushboolean(L, ferror(stream->f));
  return 1;
}

static int raw_interrupt_renew(lua_State *L) {
  (void)L;
  luna_interrupt_renew();
  return 0;
}

static int raw_interrupt_guard(lua_State *L) {
  (void)L;
  luna_interrupt_guard();
  return 0;
}

const luaL_Reg luna_stream_functions[] = {
    {"stream_tcp", raw_stream_tcp},
    {"stream_unix", raw_stream_unix},
    {"stream_accept", raw_stream_accept},
    {"stream_pty", raw_stream_pty},
    {"stream_port", raw_stream_port},
    {"stream_terminal", raw_stream_terminal},
    {"stream_share", raw_stream_share},
    {"stream_read", raw_stream_read},
    {"stream_write", raw_stream_write},
    {"stream_close", raw_stream_close},
    {"stream_open", raw_stream_open},
    {"stream_wait", raw_stream_wait},
    {"stream_is_terminal", raw_stream_is_terminal},
    {"stream_replace", raw_stream_replace},
    {"stream_failed", raw_stream_failed},
    {"interrupt_renew", raw_interrupt_renew},
    {"interrupt_guard", raw_interrupt_guard},
    {NULL, NULL},
};
