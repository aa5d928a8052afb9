-- SPDX-License-Identifier: MIT
-- Programs of others as processes: C programs with the C libraries that are installed, and busybox
-- where it is. What they print and how they end is compared with the same run by the host's kernel.

local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local soft = require "spec.support.soft"

-- ---- Both runs ----

local directory

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- The program by the host: its output, status and errors.
local function by_host(program, args, input)
  local words = { helper.program "env -i A=b", quote(program) }
  for _, one in ipairs(args) do words[#words + 1] = quote(one) end
  files.write(directory .. "/in", input or "")
  local line = ("cd %s; timeout 240 %s <in >out 2>err; echo $?"):format(directory,
    table.concat(words, " "))
  local _, status = helper.sh("sh -c " .. quote(line) .. " >" .. directory .. "/status 2>&1")
  assert.equal(0, status)
  local said = files.read(directory .. "/status")
  return files.read(directory .. "/out"), tonumber(said:match "(%d+)\n$"),
    files.read(directory .. "/err")
end

local function by_luna(program, args, input, accel)
  local output, errors, told = {}, {}, {}
  local process, message, code = luna.process(program, { args = args, env = { A = "b" },
    stdin = input, root = directory, accel = accel,
    stdout = function(text) output[#output + 1] = text end,
    stderr = function(text) errors[#errors + 1] = text end,
    log = function(text) told[#told + 1] = text end })
  if code == "unsupported" then pending(message) end
  helper.keep(process, message)
  local ending = assert(process:run { timeout = 60 })
  assert.same({}, told)
  return table.concat(output), ending.status, table.concat(errors), ending
end

-- Compares them; returns what came.
local function same(program, args, input, accel)
  local output, status, errors = by_host(program, args, input)
  local found, how, said, ending = by_luna(program, args, input, accel)
  assert.equal(output, found, tostring(ending))
  assert.equal(status, how, tostring(ending))
  -- Of one that a signal has ended, the shell says so too.
  if status < 128 then assert.equal(errors, said) end
  return found, how
end

local function begin()
  directory = helper.sh "mktemp -d"
  helper.keep { close = function() os.execute("rm -rf " .. directory) end }
end

-- ---- C programs ----

local INCLUDES = [[
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
]]

local sources = {
  ["arguments, its environment and its status"] = { [[
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) printf("%d: %s\n", i, argv[i]);
  printf("%s %s\n", getenv("A"), getenv("B") ? "yes" : "no");
  fprintf(stderr, "an error\n");
  return 7;
}]], { "one", "two words", "" } },

  ["memory"] = { [[
int main(void) {
  unsigned sum = 0, seed = 1;
  char *list[200] = {0};
  for (int round = 0; round < 5000; round++) {
    seed = seed * 1103515245 + 12345;
    int i = seed >> 16 & 127;
    size_t size = 1 + (seed >> 8) % (round % 50 ? 3000 : 300000);
    list[i] = realloc(list[i], size);
    memset(list[i], round, size);
    sum += (unsigned char)list[i][size / 2];
  }
  char *big = malloc(64 << 20);
  big[50 << 20] = 9;
  printf("%u %d %d\n", sum, big[50 << 20], big[1]);
  free(big);
  for (int i = 0; i < 200; i++) free(list[i]);
  return malloc((size_t)1 << 46) == NULL ? 0 : 1;
}]] },

  ["numbers and strings"] = { [[
static int order(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
int main(void) {
  char text[] = "the quick brown fox jumps over the lazy dog", *words[20], line[4000];
  int count = 0;
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) words[count++] = word;
  qsort(words, count, sizeof *words, order);
  for (int i = 0; i < count; i++) printf("%s ", words[i]);
  printf("%.17g %g %e %a\n", sqrt(2), pow(2, 0.5), exp(100), sin(1));
  printf("%.3f %Lf %lld %zu %x\n", strtod("1e-3x", NULL), 1.5L, -5LL, strlen(words[0]), 0xbeefu);
  for (int size = 0; size < 300; size++) {
    memset(line, 'a', size + 1);
    line[size] = 0;
    if (strlen(line) != (size_t)size || memchr(line, 0, 400) != line + size) return 1;
    memmove(line + 7, line, size);
    if (strchr(line + 7, 'b') || memcmp(line, line + 7, size ? size - 1 : 0)) return 2;
  }
  return 0;
}]] },

  ["files"] = { [[
int main(void) {
  char line[100];
  struct stat st;
  FILE *file = fopen("/nothing", "r");
  printf("%s\n", file ? "there" : strerror(errno));
  while (fgets(line, sizeof line, stdin)) printf("> %s", line);
  printf("%d %d\n", isatty(0), isatty(1));
  struct iovec parts[] = {{"ab", 2}, {"", 0}, {"c\n", 2}};
  fflush(stdout);
  printf("%d\n", (int)writev(1, parts, 3));
  printf("%d %d\n", close(99), errno == EBADF);
  return fstat(0, &st);
}]], {}, "first\nsecond" },

  ["signals"] = { [[
static sigjmp_buf back;
static int count;
static void fault(int number, siginfo_t *info, void *context) {
  (void)context;
  count++;
  printf("signal %d, code %d\n", number, info->si_code);
  siglongjmp(back, 1);
}
static void user(int number) {
  volatile double x = 1.5;
  printf("signal %d, %g\n", number, x * x);
}
int main(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, NULL);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pages[0] = 1;
  mprotect(pages, 4096, PROT_READ);
  if (!sigsetjmp(back, 1)) *(volatile int *)8 = 1;
  if (!sigsetjmp(back, 1)) pages[0] = 2;
  munmap(pages, 4096);
  if (!sigsetjmp(back, 1)) printf("%d\n", pages[0]);
  if (!sigsetjmp(back, 1)) ((void (*)(void))(pages + 4096))();
  if (!sigsetjmp(back, 1)) __asm__ volatile("ud2");
  volatile double root = sqrt(2);
  signal(SIGUSR1, user);
  raise(SIGUSR1);
  printf("%.17g\n", root + count);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  raise(SIGUSR1);
  puts("blocked");
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  fflush(stdout);
  abort();
}]] },

  ["variables of its thread, and functions at its end"] = { [[
static __thread int mine = 5;
static void first(void) { printf("first %d\n", mine); }
static void second(void) { puts("second"); }
__attribute__((constructor)) static void begin(void) { mine = 6; }
int main(void) {
  atexit(first);
  atexit(second);
  time_t now = 86400;
  char text[100];
  strftime(text, sizeof text, "%F %T", gmtime(&now));
  puts(text);
  return clock() == (clock_t)-1;
}]] },
}

local compilers = { "gcc -static", "gcc -static-pie", "musl-gcc -static" }

-- What a compiler makes of a source; pending where it makes no static programs here.
local function compiled(compiler, source)
  begin()
  files.write(directory .. "/program.c", source)
  local line = ("cd %s && %s -O1 -w -o program program.c -lm"):format(directory,
    helper.program(compiler))
  local output, status = helper.sh(line)
  if status ~= 0 then
    files.write(directory .. "/program.c", "int main(void) { return 0; }")
    if select(2, helper.sh(line)) ~= 0 then pending(compiler .. ": it makes no static programs") end
    error(output)
  end
  return directory .. "/program"
end

for _, compiler in ipairs(compilers) do
  helper.kvm("a program of " .. compiler, function()
    for name, one in pairs(sources) do
      it("has " .. name, function()
        same(compiled(compiler, INCLUDES .. one[1]), one[2] or {}, one[3])
      end)
    end
  end)
end

-- What it prints first says whether it has them.
local WIDE = INCLUDES .. [[
typedef float floats __attribute__((vector_size(64)));
typedef int words __attribute__((vector_size(64)));

__attribute__((target("avx512f,avx512bw"), noinline)) static void wide(int rounds) {
  floats x, y = {0};
  words n, sum = {0};
  for (int i = 0; i < 16; i++) x[i] = 1.5f * i, n[i] = i * 0x01234567;
  for (int i = 0; i < rounds; i++) {
    words less = x > y;
    y = y * 0.75f + 3.0f / (x + 1.0f);
    n = (n * 5 + (n >> 3)) ^ sum;
    sum += (less & n) | (~less & -n);
    if (i % 100 == 0) puts("a call in between");
  }
  for (int i = 0; i < 16; i++) printf("%a %08x %08x\n", y[i], n[i], sum[i]);
}

int main(void) {
  int has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  puts(has ? "wide" : "narrow");
  if (has) wide(1000);
}]]

soft.block("a program with vectors of 64 bytes", function()
  it("has them where the host's processor does", function()
    local found = same(compiled(compilers[1], WIDE), {}, nil, "soft")
    if found == "narrow\n" then pending "the host's processor has no AVX-512" end
    assert.equal("wide", found:match "^%l+")
  end)
end)

-- ---- Busybox ----

local busybox = helper.sh "command -v busybox"
local TEXT = ("some lines\nof text, 1 2 3\nand others\n"):rep(200)

-- Applets: arguments, and standard input.
local applets = {
  { { "sha256sum" }, TEXT }, { { "md5sum" }, TEXT }, { { "cksum" }, TEXT },
  { { "gzip", "-c" }, TEXT }, { { "bzip2", "-c" }, TEXT }, { { "base64" }, TEXT },
  { { "sort", "-u" }, TEXT }, { { "wc" }, TEXT }, { { "tr", "a-z", "A-Z" }, TEXT },
  { { "sed", "s/l.n/x&y/;2q" }, TEXT }, { { "grep", "-c", "text" }, TEXT },
  { { "grep", "nothing" }, TEXT }, { { "od", "-c" }, "a\0b\255" }, { { "seq", "1", "1000" } },
  { { "awk", "{ n += NF; s = s substr($1, 1, 1) } END { print n, length(s), sin(1), 2 ^ 0.5 }" },
    TEXT },
  { { "expr", "7", "*", "6" } }, { { "factor", "1234567890" } }, { { "env" } },
  { { "cat", "/no/such/file" } }, { { "no_such_applet" } }, { { "sleep", "0.01" } },
  { { "uname", "-m" } }, { { "dc", "-e", "2 100 ^ p" } }, { { "true" } }, { { "false" } },
  { { "ash", "-c", 'i=0; while [ $i -lt 100 ]; do i=$((i + 1)); done; echo "$i $A" >&2; exit 9' } },
  { { "ash" }, "f() { echo $(($1 * $1)); }\nfor i in 1 2 3; do f $i; done\nread x\na line\n"
    .. "echo $x; trap 'echo bye' EXIT; set -- a b; shift; case $1 in b) exit 3;; esac\n" },
  { { "ash", "-c", "kill -TERM $$; echo not here" } },
  { { "ash", "-c", "trap 'echo caught' USR1; kill -USR1 $$; echo behind" } },
}

helper.kvm("busybox", function()
  before_each(function()
    if busybox == "" then pending "busybox is not installed" end
    begin()
  end)

  for i, one in ipairs(applets) do
    it(("does %d, %s"):format(i, table.concat(one[1], " ", 1, math.min(2, #one[1]))), function()
      same(busybox, one[1], one[2])
    end)
  end

  it("reads files and packs them", function()
    files.write(directory .. "/text", TEXT)
    local packed = by_luna(busybox, { "gzip", "-c", "/text" })
    assert.equal(TEXT, (by_luna(busybox, { "gunzip", "-c" }, packed)))
    local sum = by_luna(busybox, { "sha256sum", "text" })
    assert.equal(helper.sh(("cd %s && sha256sum text"):format(directory)) .. "\n", sum)
  end)
end)
