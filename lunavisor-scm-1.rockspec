-- SPDX-License-Identifier: MIT
-- The rock of the current sources. The C library goes to clib/ of the rock's own directory, which
-- stays where it is; LuaRocks moves the Lua files and, for Lua 5.4, the C module to the tree.
rockspec_format = "3.0"
package = "lunavisor"
version = "scm-1"
source = {
  url = "git+https://github.com/lunavisor/lunavisor.git",
}
description = {
  summary = "Guest-physical address spaces, EPT slots and vCPUs over Linux/KVM",
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.1, < 5.5",
}
build = {
  type = "make",
  build_target = "all",
  install_target = "install-files",
  variables = {
    BUILD = "build/rock",
    WERROR = "0",
    CFLAGS = "$(CFLAGS)",
    LUA = "$(LUA)",
    LUA_CFLAGS = "-I$(LUA_INCDIR)",
  },
  install_variables = {
    PREFIX = "$(PREFIX)",
    BINDIR = "", -- the program knows where the library is; LuaRocks moves it
    LIBDIR = "$(PREFIX)/clib",
    LUA_LMOD = "$(LUADIR)",
    LUAJIT_LMOD = "$(LUADIR)",
    LUA_CMOD = "$(LIBDIR)",
  },
}
test = {
  type = "busted",
}
