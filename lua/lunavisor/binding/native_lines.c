/* SPDX-License-Identifier: MIT
 * Raw calls for Lua 5.4: source lines. */
#include "native.h"

static luna_lines *check_lines(lua_State *L) {
  return luna_check(L, 1, HANDLE_LINES)->object;
}

static int push_made(lua_State *L, luna_handle *h, int status, luna_lines *lines) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  h->object = lines;
  return 1;
}

/* path: a handle */
static int raw_lines_create(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luna_handle *h = luna_new_handle(L, HANDLE_LINES);
  luna_lines *lines = NULL;
  int status = luna_lines_create(path, &lines);
  return push_made(L, h, status, lines);
}

/* string: a handle */
static int raw_lines_copy(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  luna_handle *h = luna_new_handle(L, HANDLE_LINES);
  luna_lines *lines = NULL;
  int status = luna_lines_copy(bytes, size, &lines);
  return push_made(L, h, status, lines);
}

static int push_line(lua_State *L, int status, const luna_line *line) {
  if (status < 0) {
    return luna_push_failure(L, status);
  }
  lua_pushinteger(L, (lua_Integer)line->address);
  lua_pushstring(L, line->path);
  lua_pushinteger(L, line->directory);
  lua_pushinteger(L, line->line);
  lua_pushinteger(L, line->column);
  return 5;
}

/* address: address, path, length of the directory, line, column */
static int raw_lines_at(lua_State *L) {
  luna_line line;
  int status = luna_lines_at(check_lines(L), (uint64_t)luaL_checkinteger(L, 2), &line);
  return push_line(L, status, &line);
}

/* file, line: the same */
static int raw_lines_find(lua_State *L) {
  luna_line line;
  const char *file = luaL_checkstring(L, 2);
  int status = luna_lines_find(check_lines(L), file, (uint32_t)luaL_checkinteger(L, 3), &line);
  return push_line(L, status, &line);
}

const luaL_Reg luna_lines_functions[] = {
    {"lines_create", raw_lines_create},
    {"lines_copy", raw_lines_copy},
    {"lines_at", raw_lines_at},
    {"lines_find", raw_lines_find},
    {NULL, NULL},
};
