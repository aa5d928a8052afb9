# SPDX-License-Identifier: MIT
# Builds, checks and installs lunavisor. Everything that is made goes to $(BUILD); `make help` lists
# the targets. Further choices: CC, CFLAGS, LDFLAGS, WERROR=0, PREFIX, DESTDIR; V=1 shows commands.

VERSION := 0.1.0
SONAME := liblunavisor.so.0
HVF_SONAME := libHypervisor.so.0

ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
WERROR ?= 1
BUILD ?= build
LUA ?= lua5.4
LUAJIT ?= luajit
INSTALL ?= install
export LUA LUAJIT

# A line for each thing that is made, say CC core/vm.c; the whole command with V=1, neither with -s.
ifeq ($(V),1)
say = @:
else
Q := @
say = $(if $(findstring s,$(firstword -$(MAKEFLAGS))),@:,@echo '$(1) $(2)')
endif

# ---- Names that cannot be -----------------------------------------------------------------------

# The checkout may be below any directory, but for what ends a word or a path in the shell, in the
# paths of Lua, of the linker and of pkg-config. Make itself divides all other names at spaces.
mistakes = $(strip $(foreach one,' " ` $$ \ ; ? : *,$(findstring $(one),$(1))))
ifneq ($(call mistakes,$(CURDIR)),)
$(error lunavisor cannot be built in "$(CURDIR)" for the $(call mistakes,$(CURDIR)) in this name: \
  move the checkout to another directory)
endif
$(foreach one,BUILD PREFIX DESTDIR BINDIR INCLUDEDIR LIBDIR PKGCONFIGDIR MANDIR BASH_COMPLETIONS \
  ZSH_COMPLETIONS FISH_COMPLETIONS LUA_LMOD LUAJIT_LMOD LUA_CMOD,$(if \
  $(or $(call mistakes,$($(one))),$(word 2,$($(one)))),\
  $(error $(one) is "$($(one))": a path without spaces and quotes expected)))

# ---- Where things go ----------------------------------------------------------------------------

# The directories of the Lua packages, moved from their own prefix, /usr, to PREFIX.
pkg = $(shell pkg-config $(1) 2>/dev/null)
moved = $(patsubst $(or $(call pkg,--variable=prefix $(1)),/usr)/%,$(PREFIX)/%,$(2))
LUA_PC := $(shell for name in lua5.4 lua-5.4 lua54 lua; do \
  pkg-config --exists $$name && echo $$name && break; done 2>/dev/null)
LUA_LMOD_OF := $(or $(call pkg,--variable=INSTALL_LMOD $(LUA_PC)),/usr/share/lua/5.4)
LUA_CMOD_OF := $(or $(call pkg,--variable=INSTALL_CMOD $(LUA_PC)),/usr/lib/lua/5.4)
LUAJIT_LMOD_OF := $(or $(call pkg,--variable=INSTALL_LMOD luajit),/usr/share/lua/5.1)

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
MANDIR ?= $(PREFIX)/share/man
BASH_COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
LUA_LMOD ?= $(call moved,$(LUA_PC),$(LUA_LMOD_OF))
LUAJIT_LMOD ?= $(call moved,luajit,$(LUAJIT_LMOD_OF))
# Only /usr has a directory per architecture: Lua does not look for one in /usr/local.
LUA_CMOD ?= $(if $(filter /usr,$(PREFIX)),$(LUA_CMOD_OF),$(LIBDIR)/lua/5.4)

# ---- What is made of what -----------------------------------------------------------------------

OUT := $(abspath $(BUILD))
COMMA := ,
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard $(1)))
programs = $(patsubst $(1)/%.c,$(BUILD)/$(2)/%,$(wildcard $(1)/$(3)))

HEADERS := $(wildcard core/include/lunavisor/*.h)
HVF_HEADERS := $(wildcard core/include/Hypervisor/*.h)
WINGS := base kvm memory seat vcpu interrupt debug exit run
# The disassembler and the software CPU read instructions by Zydis; without it the library has
# neither. The guests' vector state stays in the host's registers, which the software CPU's own code
# then must not use.
ZYDIS := $(shell echo '\#include <Zydis/Zydis.h>' | $(CC) -E -xc - >/dev/null 2>&1 && echo y)
# Source lines are read by libdw, which is looked for at run time too.
DWARF := $(shell echo '\#include <elfutils/libdw.h>' | $(CC) -E -xc - >/dev/null 2>&1 && echo y)
# What there is without Zydis, of a list of files.
of_soft = $(or $(findstring test_soft_,$(1)),\
  $(filter %/soft %/soft.o %/emulator %/emulator.o %/fuzz_soft %/fuzz_soft.o \
    %/fuzz_follow %/fuzz_follow.o,$(1)))
built = $(if $(ZYDIS),$(1),$(foreach one,$(1),$(if $(call of_soft,$(one)),,$(one))))
SOFT := $(if $(ZYDIS),$(call objects,core/soft/*.c core/soft/*/*.c))
CORE := $(call objects,core/*.c $(WINGS:%=core/%/*.c)) $(SOFT)
HVF := $(call objects,core/hvf/*.c core/hvf/*/*.c)
NATIVE := $(call objects,lua/lunavisor/binding/*.c)
HV_NATIVE := $(call objects,lua/lunavisor/hv/*.c)
FAKE := $(filter-out %/fake_module.o,$(call objects,spec/core/fake/*.c))
FAKE_MODULE := $(call objects,spec/core/fake/fake_module.c)
C_TESTS := $(call built,$(patsubst spec/core/%.c,$(BUILD)/spec/%,$(wildcard spec/core/*/test_*.c)))
EXAMPLES := $(call programs,examples,examples,*.c)
BENCHES := $(call built,$(call programs,scripts/bench.d,bench,*.c))
FUZZERS := $(call built,$(patsubst spec/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard spec/fuzz/fuzz_*.c)))
LUA_FILES := $(sort $(patsubst lua/%,%,$(shell find lua -name '*.lua')))
LUA_MADE := lunavisor/binding/cdef.lua lunavisor/binding/library.lua lunavisor/hv/header.lua \
  lunavisor/hv/library.lua

# The modules as the engines have compiled them, with which the program starts faster.
LUA_CODE := $(addprefix lunavisor/program/modules.,lua54 luajit)
COMPILED := $(filter-out lunavisor/meta/%,$(LUA_FILES))
# $(call compile,engine,kind,output,directory,place,files...): none where the engine is not there.
compile = if command -v $(1) >/dev/null; then \
  $(1) lua/lunavisor/program/compile.lua $(2) $(3) '$(strip $(4))' '$(strip $(5))' $(6); else : >$(3); fi

# The C modules are for Lua 5.4; a rock that is made for Lua 5.1, that is LuaJIT, goes without.
LUA_VERSION := $(shell $(LUA) -e 'io.write(_VERSION:sub(5))' 2>/dev/null)
NATIVE_SO := $(if $(filter 5.1,$(LUA_VERSION)),,lunavisor/binding/native.so lunavisor/hv/native.so)

LUA_CFLAGS ?= $(call pkg,--cflags $(LUA_PC))
LUA_LIBS ?= $(call pkg,--libs $(LUA_PC))
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wmissing-prototypes \
  -Wstrict-prototypes $(if $(filter 0,$(WERROR)),,-Werror)
SANITIZERS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
  -fno-omit-frame-pointer)
COMPILE := $(CC) -std=c11 -D_GNU_SOURCE -pthread -fPIC -fvisibility=hidden -Icore/include -Icore \
  $(patsubst -I%,-isystem %,$(LUA_CFLAGS)) $(WARNINGS) $(SANITIZERS) $(CPPFLAGS) $(CFLAGS)
LINK := $(CC) -pthread $(SANITIZERS) $(LDFLAGS)
LIBS := $(if $(ZYDIS),-lZydis -lZycore)
link_native = $(LINK) -shared -Wl,-rpath,'$(2)' -o $(1) $(NATIVE) -L$(BUILD) -llunavisor
link_hv_native = $(LINK) -shared -Wl,-rpath,'$(2)' -o $(1) $(HV_NATIVE) -L$(BUILD) -lHypervisor \
  -llunavisor

all: $(BUILD)/liblunavisor.so $(BUILD)/liblunavisor.a $(BUILD)/lunavisor.pc \
  $(BUILD)/libHypervisor.so $(BUILD)/libHypervisor.a $(BUILD)/Hypervisor.pc \
  $(addprefix $(BUILD)/lua/5.4/,$(NATIVE_SO)) \
  $(addprefix $(BUILD)/lua/,$(LUA_MADE) $(LUA_CODE)) ## Build the libraries and the Lua modules (default)

# What the tests need on top of `all`.
tests: all $(C_TESTS) $(EXAMPLES) $(BENCHES) $(if $(FAKE_MODULE),$(BUILD)/spec/fake.so) \
  $(if $(NATIVE_SO),$(BUILD)/spec/alloc.so)

# Only the objects, for the warnings of a second compiler.
objects: $(CORE) $(HVF) $(NATIVE) $(HV_NATIVE) \
  $(call built,$(call objects,spec/core/*/*.c spec/support/*.c scripts/bench.d/*.c spec/fuzz/*.c)) \
  $(call objects,examples/*.c examples/hvf/*.c)

# The targets of libFuzzer: scripts/fuzz builds them with clang, and what they call too.
fuzzers: $(FUZZERS)

# Changes when the way of compiling does, so that everything is made anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(OUT) $(COMPILE) $(LINK) $(LIBS) $(DWARF)' | cmp -s - $@ || \
	  echo '$(OUT) $(COMPILE) $(LINK) $(LIBS) $(DWARF)' >$@

# The C tests and benchmarks share the fake KVM and the fixtures of spec/core.
$(BUILD)/obj/spec/core/%.o $(BUILD)/obj/spec/fuzz/%.o $(BUILD)/obj/scripts/bench.d/%.o: \
  EXTRA := -Ispec/core

# Calls to Lua go through the table of addresses, without the detour over a stub.
$(NATIVE) $(HV_NATIVE): EXTRA := -fno-plt
$(SOFT): EXTRA := -mgeneral-regs-only $(if $(findstring clang,$(CC)),-fno-builtin,\
  -fno-tree-loop-distribute-patterns)
# The thread sanitizer's calls would change the guest's vector registers.
$(BUILD)/obj/core/soft/vector/vector.o: EXTRA += $(if $(findstring thread,$(SANITIZE)),\
  -fno-sanitize=thread -DSOFT_SANITIZED)
$(BUILD)/obj/core/accelerator.o: EXTRA := $(if $(ZYDIS),-DLUNA_SOFT)
$(BUILD)/obj/core/debug/disasm.o: EXTRA := $(if $(ZYDIS),-DLUNA_ZYDIS)
$(BUILD)/obj/core/debug/lines.o $(BUILD)/obj/core/debug/lines_library.o: \
  EXTRA := $(if $(DWARF),-DLUNA_DWARF)

# The framework's declarations, for both engines.
$(BUILD)/hv/header.h: core/include/Hypervisor/Hypervisor.h $(HVF_HEADERS) $(BUILD)/flags
	@mkdir -p $(@D)
	@$(CC) -E -P -DHV_CDEF= -Icore/include $< >$@

$(BUILD)/hv/hv_calls.h: $(BUILD)/hv/header.h lua/lunavisor/hv/calls.awk
	@awk -f lua/lunavisor/hv/calls.awk $< >$@

$(HV_NATIVE): $(BUILD)/hv/hv_calls.h
$(HV_NATIVE): EXTRA += -I$(BUILD)/hv

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) $(EXTRA) -MMD -MP -c -o $@ $<

$(BUILD)/$(SONAME): $(CORE)
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,-z,now,-z,relro,-z,nodelete -o $@ $^ $(LIBS)

$(BUILD)/liblunavisor.so: $(BUILD)/$(SONAME)
	@ln -sf $(SONAME) $@

$(BUILD)/liblunavisor.a: $(CORE)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

# Apple's Hypervisor framework: a library of its own over lunavisor.h.
$(BUILD)/$(HVF_SONAME): $(HVF) $(BUILD)/liblunavisor.so
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(HVF_SONAME) -Wl,-z,now,-z,relro,-z,nodelete,-z,defs \
	  -Wl,-rpath,'$$ORIGIN' -o $@ $(HVF) -L$(BUILD) -llunavisor

$(BUILD)/libHypervisor.so: $(BUILD)/$(HVF_SONAME)
	@ln -sf $(HVF_SONAME) $@

$(BUILD)/libHypervisor.a: $(HVF)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

$(BUILD)/lua/5.4/lunavisor/binding/native.so: $(NATIVE) $(BUILD)/liblunavisor.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(call link_native,$@,$$ORIGIN/../../../..)

$(BUILD)/lua/5.4/lunavisor/hv/native.so: $(HV_NATIVE) $(BUILD)/libHypervisor.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(call link_hv_native,$@,$$ORIGIN/../../../..)

$(BUILD)/lua/lunavisor/hv/header.lua: $(BUILD)/hv/header.h
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	@{ printf '%s\n' '-- Made from the headers of the Hypervisor framework.' 'return [==[' && \
	  cat $< && echo ']==]'; } >$@

$(BUILD)/lua/lunavisor/binding/cdef.lua: core/include/lunavisor.h $(HEADERS) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	@{ printf '%s\n' '-- Made from lunavisor.h for ffi.cdef.' 'return [==[' && \
	  $(CC) -E -P -DLUNA_CDEF $< && echo ']==]'; } >$@

library = printf '%s\n' '-- Made by make: the file that the LuaJIT binding loads.' 'return "$(1)"'
$(BUILD)/lua/lunavisor/binding/library.lua: $(BUILD)/flags
	@mkdir -p $(@D)
	@$(call library,$(OUT)/$(SONAME)) >$@

$(BUILD)/lua/lunavisor/hv/library.lua: $(BUILD)/flags
	@mkdir -p $(@D)
	@$(call library,$(OUT)/$(HVF_SONAME)) >$@

$(BUILD)/lua/lunavisor/program/modules.lua54: ENGINE := $(LUA)
$(BUILD)/lua/lunavisor/program/modules.luajit: ENGINE := $(LUAJIT)
$(addprefix $(BUILD)/lua/,$(LUA_CODE)): $(addprefix lua/,$(COMPILED)) \
  $(addprefix $(BUILD)/lua/,$(LUA_MADE)) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	@$(call compile,$(ENGINE),checked,$@,$(CURDIR)/lua,$(CURDIR)/lua,$(COMPILED) -- '$(OUT)/lua' '$(OUT)/lua' \
	  $(LUA_MADE))

pc = printf '%s\n' 'includedir=$(1)' 'libdir=$(2)' '' 'Name: $(3)' 'Description: $(4)' \
  'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -l$(3)'
luna_pc = $(call pc,$(1),$(2),lunavisor,Guest-physical address spaces$(COMMA) EPT slots and vCPUs \
  over Linux/KVM) 'Libs.private: -pthread $(LIBS)'
hvf_pc = $(call pc,$(1),$(2),Hypervisor,The Hypervisor framework of macOS over Linux/KVM) \
  'Requires.private: lunavisor'
$(BUILD)/lunavisor.pc: $(BUILD)/flags Makefile
	@$(call luna_pc,$(CURDIR)/core/include,$(OUT)) >$@
$(BUILD)/Hypervisor.pc: $(BUILD)/flags Makefile
	@$(call hvf_pc,$(CURDIR)/core/include,$(OUT)) >$@

# The C unit tests reach hidden functions: they link the objects.
$(BUILD)/spec/%: $(BUILD)/obj/spec/core/%.o $(FAKE) $(CORE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(LIBS)

$(BUILD)/spec/hvf%: $(BUILD)/obj/spec/core/hvf%.o $(FAKE) $(HVF) $(CORE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(LIBS)

$(BUILD)/spec/fake.so: $(FAKE_MODULE) $(FAKE) $(BUILD)/liblunavisor.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-rpath,'$$ORIGIN/..',-z,nodelete -o $@ $(FAKE_MODULE) $(FAKE) \
	  -L$(BUILD) -llunavisor

$(BUILD)/fuzz/%: $(BUILD)/obj/spec/fuzz/%.o $(FAKE) $(HVF) $(CORE)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)

# A module for Lua that watches allocations, and lets them fail.
$(BUILD)/spec/alloc.so: $(BUILD)/obj/spec/support/alloc.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-z,nodelete -o $@ $<

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(BUILD)/liblunavisor.so
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -Wl,--as-needed,-rpath,'$$ORIGIN/..' -o $@ $< -L$(BUILD) -llunavisor $(LUA_LIBS)

$(BUILD)/bench/hvf: $(BUILD)/obj/scripts/bench.d/hvf.o $(BUILD)/libHypervisor.a \
  $(BUILD)/liblunavisor.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(LIBS)

$(BUILD)/bench/%: $(BUILD)/obj/scripts/bench.d/%.o $(FAKE) $(BUILD)/liblunavisor.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(LIBS)

# ---- Running and checking -----------------------------------------------------------------------

MAKE_HERE = $(MAKE) --no-print-directory
in_env = eval "$$($(MAKE_HERE) -s env)" &&

# With all processors, unless make was told how many.
jobs = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

run: ## Install what is missing, build, and run the first example
	@scripts/setup
	@echo 'Building in $(BUILD)'
	+@$(MAKE_HERE) $(if $(V),,-s) $(jobs) all
	@$(in_env) $(LUA) examples/hello.lua

test: ## Run every check; the last line has the counts
	+@MAKE='$(MAKE_HERE)' BUILD='$(BUILD)' scripts/test

# The search for leaks ends by a signal where a library that was loaded late has memory of threads.
asan: ## Run the C and Lua tests with the address and undefined behaviour sanitizers
	+@MAKE='$(MAKE_HERE) CC=gcc SANITIZE=address,undefined' CFLAGS='-O1 -g' BUILD=build/asan \
	  LUNA_SKIP=packaging LUNA_SUITE_SECONDS=1800 LUNA_TORTURE_SECONDS=2 \
	  LUNA_FUZZ_SECONDS=20 LUNA_STRESS_EVERY=4000 \
	  CORE_PREFIX='env ASAN_OPTIONS=intercept_tls_get_addr=0' \
	  LUA_PREFIX="env LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0" \
	  scripts/test build core lua luajit stress

tsan: ## Run the C tests with the thread sanitizer
	+@MAKE='$(MAKE_HERE) CC=gcc SANITIZE=thread' CFLAGS='-O1 -g' BUILD=build/tsan \
	  CORE_PREFIX="$$(setarch -R true 2>/dev/null && echo setarch -R)" scripts/test build core

fuzz: ## Try out random inputs: SECONDS=n of each target (60), TARGET=name for one
	+@MAKE='$(MAKE_HERE)' scripts/fuzz $(or $(SECONDS),60) $(TARGET)

soak: all ## Make, run, move, kick and destroy for SECONDS=n (60), and see that nothing is left
	+@$(in_env) $(LUAJIT) scripts/soak $(or $(SECONDS),60) --every $(or $(EVERY),10)

bench: all $(BENCHES) $(BUILD)/spec/fake.so ## Measure; ONLY=pattern, JSON=file, COMPARE=file
	+@$(MAKE_HERE) -s install-files PREFIX='$(OUT)/bench/installed' DESTDIR= >/dev/null
	+@$(in_env) LUNA_INSTALLED='$(OUT)/bench/installed/bin/luna' $(LUAJIT) scripts/bench $(if $(JSON),--json '$(JSON)') $(if $(ONLY),--only '$(ONLY)') \
	  $(if $(COMPARE),--compare '$(COMPARE)')

lint: ## Check the form of all sources
	@scripts/lint

format: ## Format the C sources
	@scripts/lint --format

env: ## Print the variables that make a checkout usable: eval "$(make -s env)"
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;$(OUT)/lua/?.lua;$${LUA_PATH:-;}"'
	@echo 'export LUA_CPATH="$(OUT)/lua/5.4/?.so;$${LUA_CPATH:-;}"'
	@echo '[ -z "$${LUA_PATH_5_4:-}" ] || export LUA_PATH_5_4="$$LUA_PATH"' # it goes first
	@echo '[ -z "$${LUA_CPATH_5_4:-}" ] || export LUA_CPATH_5_4="$$LUA_CPATH"'
	@echo 'export LUNAVISOR_LIBRARY="$(OUT)/$(SONAME)"'
	@echo 'export LUNAVISOR_HYPERVISOR_LIBRARY="$(OUT)/$(HVF_SONAME)"'
	@echo 'export PKG_CONFIG_PATH="$(OUT)$${PKG_CONFIG_PATH:+:$$PKG_CONFIG_PATH}"'
	@echo 'export LD_LIBRARY_PATH="$(OUT)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"'

# ---- Installing ---------------------------------------------------------------------------------

LMODS := $(sort $(LUA_LMOD) $(LUAJIT_LMOD))
LIBRARIES := liblunavisor.a liblunavisor.so.$(VERSION) $(SONAME) liblunavisor.so \
  libHypervisor.a libHypervisor.so.$(VERSION) $(HVF_SONAME) libHypervisor.so
C_HEADERS := lunavisor.h $(patsubst core/include/%,%,$(HEADERS) $(HVF_HEADERS))
# What goes with the program: its manual page, and what lets shells complete its options.
BESIDE := $(MANDIR)/man1/luna.1 $(BASH_COMPLETIONS)/luna $(ZSH_COMPLETIONS)/_luna \
  $(FISH_COMPLETIONS)/luna.fish
INSTALLED := $(if $(BINDIR),$(BINDIR)/luna $(BESIDE)) $(addprefix $(INCLUDEDIR)/,$(C_HEADERS)) \
  $(addprefix $(PKGCONFIGDIR)/,lunavisor.pc Hypervisor.pc) \
  $(addprefix $(LIBDIR)/,$(LIBRARIES)) $(addprefix $(LUA_CMOD)/,$(NATIVE_SO)) \
  $(foreach dir,$(LMODS),$(addprefix $(dir)/,$(LUA_FILES) $(LUA_MADE) $(LUA_CODE)))

# Says so if the path of an engine lacks a directory: $(call hint,engine,path or cpath,directory,files)
hint = @$(1) -e 'if not package.$(2):find("$(3)/?.", 1, true) then \
  print("$(1) does not search $(3): set LUA_$(2) to \"$(4);;\".") end' 2>/dev/null | \
  sed 's/LUA_path/LUA_PATH/; s/LUA_cpath/LUA_CPATH/'

install: install-files ## Install to PREFIX (default /usr/local), below DESTDIR if that is set
	$(call hint,$(LUA),path,$(LUA_LMOD),$(LUA_LMOD)/?.lua;$(LUA_LMOD)/?/init.lua)
	$(call hint,$(LUA),cpath,$(LUA_CMOD),$(LUA_CMOD)/?.so)
	$(call hint,$(LUAJIT),path,$(LUAJIT_LMOD),$(LUAJIT_LMOD)/?.lua;$(LUAJIT_LMOD)/?/init.lua)

# install -D of files with a mode: $(call put,mode,from,to).
put = $(Q)$(INSTALL) -D -m $(1) $(2) $(DESTDIR)$(3)
link = $(Q)ln -sf $(1) $(DESTDIR)$(2)

# What luna prints, to a file; there is none where it cannot, such as without argparse.
tell = $(INSTALL) -d $(DESTDIR)$(dir $(2)) && { LUNA_LUA='$(LUA) $(LUAJIT)' \
  LUNAVISOR_LIBRARY='$(OUT)/$(SONAME)' scripts/luna $(1) >$(DESTDIR)$(2) || rm -f $(DESTDIR)$(2); }

install-files: all
ifneq ($(BINDIR),)
	$(call say,INSTALL,$(DESTDIR)$(BINDIR))
	$(Q)$(INSTALL) -d $(DESTDIR)$(BINDIR)
	$(Q)sed -e 's|^lmod=$$|lmod=$(LUA_LMOD)|' -e 's|^jit_lmod=$$|jit_lmod=$(LUAJIT_LMOD)|' \
	  -e 's|^cmod=$$|cmod=$(LUA_CMOD)|' scripts/luna >$(DESTDIR)$(BINDIR)/luna
	$(Q)chmod 755 $(DESTDIR)$(BINDIR)/luna
	$(call say,INSTALL,$(patsubst %,$(DESTDIR)%,$(dir $(BESIDE))))
	$(Q)$(call tell,man,$(MANDIR)/man1/luna.1)
	$(Q)$(call tell,completion bash,$(BASH_COMPLETIONS)/luna)
	$(Q)$(call tell,completion zsh,$(ZSH_COMPLETIONS)/_luna)
	$(Q)$(call tell,completion fish,$(FISH_COMPLETIONS)/luna.fish)
endif
	$(call say,INSTALL,$(DESTDIR)$(INCLUDEDIR))
	$(Q)for file in $(C_HEADERS); do \
	  $(INSTALL) -D -m 644 core/include/$$file $(DESTDIR)$(INCLUDEDIR)/$$file || exit; \
	done
	$(call say,INSTALL,$(DESTDIR)$(LIBDIR))
	$(call put,644,$(BUILD)/liblunavisor.a,$(LIBDIR)/liblunavisor.a)
	$(call put,755,$(BUILD)/$(SONAME),$(LIBDIR)/liblunavisor.so.$(VERSION))
	$(call link,liblunavisor.so.$(VERSION),$(LIBDIR)/$(SONAME))
	$(call link,$(SONAME),$(LIBDIR)/liblunavisor.so)
	$(call put,644,$(BUILD)/libHypervisor.a,$(LIBDIR)/libHypervisor.a)
	$(call put,755,$(BUILD)/$(HVF_SONAME),$(LIBDIR)/libHypervisor.so.$(VERSION))
	$(call link,libHypervisor.so.$(VERSION),$(LIBDIR)/$(HVF_SONAME))
	$(call link,$(HVF_SONAME),$(LIBDIR)/libHypervisor.so)
	$(call say,INSTALL,$(DESTDIR)$(PKGCONFIGDIR))
	$(Q)$(INSTALL) -d $(DESTDIR)$(PKGCONFIGDIR)
	@$(call luna_pc,$(INCLUDEDIR),$(LIBDIR)) >$(DESTDIR)$(PKGCONFIGDIR)/lunavisor.pc
	@$(call hvf_pc,$(INCLUDEDIR),$(LIBDIR)) >$(DESTDIR)$(PKGCONFIGDIR)/Hypervisor.pc
ifneq ($(NATIVE_SO),)
	$(call say,INSTALL,$(DESTDIR)$(LUA_CMOD))
	$(Q)$(INSTALL) -d $(DESTDIR)$(LUA_CMOD)/lunavisor/binding $(DESTDIR)$(LUA_CMOD)/lunavisor/hv
	$(Q)$(call link_native,$(DESTDIR)$(LUA_CMOD)/lunavisor/binding/native.so,$(LIBDIR))
	$(Q)$(call link_hv_native,$(DESTDIR)$(LUA_CMOD)/lunavisor/hv/native.so,$(LIBDIR))
endif
	$(call say,INSTALL,$(LMODS:%=$(DESTDIR)%))
	$(Q)for dir in $(LMODS:%=$(DESTDIR)%); do \
	  rm -f $(LUA_CODE:%=$$dir/%); \
	  for file in $(LUA_FILES); do \
	    $(INSTALL) -D -m 644 lua/$$file $$dir/$$file || exit; \
	  done; \
	  $(INSTALL) -D -m 644 $(BUILD)/lua/lunavisor/binding/cdef.lua \
	    $$dir/lunavisor/binding/cdef.lua || exit; \
	  $(INSTALL) -D -m 644 $(BUILD)/lua/lunavisor/hv/header.lua \
	    $$dir/lunavisor/hv/header.lua || exit; \
	  $(call library,$(LIBDIR)/$(SONAME)) >$$dir/lunavisor/binding/library.lua || exit; \
	  $(call library,$(LIBDIR)/$(HVF_SONAME)) >$$dir/lunavisor/hv/library.lua || exit; \
	done
ifneq ($(BINDIR),)
	@$(call compile,$(LUA),sealed,$(DESTDIR)$(LUA_LMOD)/$(filter %.lua54,$(LUA_CODE)),\
	  $(DESTDIR)$(LUA_LMOD),$(LUA_LMOD),$(COMPILED) $(LUA_MADE))
	@$(call compile,$(LUAJIT),sealed,$(DESTDIR)$(LUAJIT_LMOD)/$(filter %.luajit,$(LUA_CODE)),\
	  $(DESTDIR)$(LUAJIT_LMOD),$(LUAJIT_LMOD),$(COMPILED) $(LUA_MADE))
endif

uninstall: ## Remove what install put there, with the same PREFIX and DESTDIR
	$(call say,RM,$(addprefix $(DESTDIR),$(BINDIR) $(INCLUDEDIR) $(LIBDIR) $(PKGCONFIGDIR) $(LUA_CMOD) $(LMODS)))
	$(Q)rm -f $(INSTALLED:%=$(DESTDIR)%)
	$(Q)for dir in $(sort $(LMODS) $(LUA_CMOD)); do \
	  test ! -d $(DESTDIR)$$dir/lunavisor || \
	    find $(DESTDIR)$$dir/lunavisor -depth -type d -empty -delete; \
	done

clean: ## Remove everything that was built
	$(call say,RM,$(BUILD))
	$(Q)rm -rf $(BUILD)

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p; s/^  .*) ## \(.*(default)\)$$/all\t\1/p' Makefile | \
	  expand -t 12

FORCE:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: FORCE all tests objects fuzzers run test asan tsan fuzz soak bench lint format env install \
  install-files uninstall clean help

-include $(shell test ! -d $(BUILD)/obj || find $(BUILD)/obj -name '*.d' -type f)
