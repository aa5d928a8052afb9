-- SPDX-License-Identifier: MIT
-- The pages of the project keep their word: every block of Lua and C and every command on them
-- runs and prints what it says, and every link leads somewhere. spec/README.md tells how.

local luna = require "lunavisor"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local markdown = require "spec.support.markdown"

local WHOLE = 'local luna = require "lunavisor"\n'

-- What a piece of Lua that is no whole program finds around it.
local PRELUDE = WHOLE .. [[
local vm = assert(luna.vm())
local ram, disk = assert(luna.buffer "2M"), assert(luna.buffer { size = "4M", memfd = true })
local fd, p = disk:fd(), ram:pointer()
local space = vm.default
if not MAPS then assert(space:map(ram, 0)) end
ram:write(0x1000, "\xeb\xfe") -- jmp $
local cpu = assert(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
local device = { read = function() return 0 end, write = function() end }
local bell = assert(assert(luna.vm()):eventfd { port = 0x98, size = 1 })
]]

-- The same for C: the piece is in a function, behind these.
local C_PRELUDE = [[
#include <lunavisor.h>
#include <stdio.h>
#include <string.h>
#define CHECK(call) ((call) < 0 ? (puts(luna_error_message()), 0) : 1)
]]
local C_MAIN = [[
int main(void) {
  luna_vm *vm;
  luna_buffer *ram;
  luna_vcpu *vcpu;
  luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = 0x1000};
  if (!CHECK(luna_vm_create(&vm)) || !CHECK(luna_buffer_create(2 << 20, &ram)) ||
      !CHECK(luna_vm_map_space(vm, 0, ram, 0, 0, 2 << 20, 7)) ||
      !CHECK(luna_vcpu_create(vm, &options, &vcpu))) {
    return 1;
  }
  {
]]
local C_END = "  }\n  luna_vcpu_release(vcpu);\n  luna_vm_release(vm);\n}\n"

-- The targets of make that take minutes, and run this spec themselves, are only looked up; what is
-- installed goes to a place of its own.
local SHELL = [[
set -eu
luna() { "$CHECKOUT/scripts/luna" "$@"; }
make() {
  case $1 in
    test | asan | tsan | bench | fuzz | soak) command make -s -C "$CHECKOUT" help | grep "^$1 " ;;
    install | uninstall) command make -s -C "$CHECKOUT" "$@" DESTDIR="$PWD/root" ;;
    *) command make -C "$CHECKOUT" "$@" ;;
  esac
}
]]

local root = helper.sh "pwd"
local library = os.getenv "LUNAVISOR_LIBRARY"
local build = library and library:match "^(.*)/" or root .. "/build"
local pages = {}
for _, path in ipairs(markdown.pages()) do pages[path] = markdown.page(path) end

local function words(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""):gsub("%s+", " "))
end

-- Each "--> text" of a program is a line of its output, in this order; "..." stands for any rest.
local function check_output(program, output)
  local lines = {}
  for line in (output .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = words(line) end
  local at = 0
  for text in program:gmatch "%-%->([^\n]*)" do
    text = words((text:gsub("%*/%s*$", "")))
    local begin = text:match "^(.*)%.%.%.$"
    repeat
      at = at + 1
    until at > #lines or lines[at] == text or begin and lines[at]:sub(1, #begin) == begin
    if at > #lines then error(("no line %q in:\n%s"):format(text, output), 2) end
  end
end

-- Leaves a test out where this host lacks what the block needs.
local function need(block)
  local value = not block.needs or assert(luna.probe().features[block.needs], block.name)
  if value == 0 then pending("this host's KVM has no " .. block.needs) end
end

-- A directory with links to all that is in the checkout, and the files of the page: the blocks that
-- begin with a comment that is nothing but a name.
local function directory(page)
  local path = helper.sh "mktemp -d"
  helper.keep { close = function() os.execute("rm -rf " .. path) end }
  helper.sh(("ln -s %s/* %s && ln -sfn %s %s/build"):format(root, path, build, path))
  for _, block in ipairs(page.blocks) do
    local name = block.text:match "^%-%- ([%w_/.]+)\n" or block.text:match "^/%* ([%w_/.]+) %*/\n"
    if name then
      files.write(path .. "/" .. name, block.text)
    end
  end
  return path
end

-- Runs shell words in such a directory, with the library of this process.
local function shell(page, script)
  local lines = {
    "cd " .. directory(page), "export HOME=$PWD CHECKOUT=" .. root,
    "unset MAKEFLAGS MAKELEVEL MAKEOVERRIDES MFLAGS BUILD",
    ("export LD_LIBRARY_PATH=%s PKG_CONFIG_PATH=%s LUNAVISOR_LIBRARY=%s/liblunavisor.so.0")
      :format(build, build, build),
    ("export LUA_PATH='%s/lua/?.lua;%s/lua/?/init.lua;%s/lua/?.lua;;'"):format(root, root, build),
    ("export LUA_CPATH='%s/lua/5.4/?.so;;'"):format(build), SHELL, script,
  }
  local path = helper.file(table.concat(lines, "\n"))
  local output, status = helper.sh("sh " .. path)
  if status ~= 0 then error(("it ended with %d:\n%s"):format(status, output), 2) end
  return output
end

local function run_lua(block)
  local text = block.text
  if text:find "describe%(" then
    local file = text:match "^%-%- ([%w_/.]+)\n"
    return shell(pages[block.page], ("busted --lua='%s' %s"):format(helper.engine, file))
  elseif not (text:find(WHOLE, 1, true) or text:find 'require "lunavisor%.hv"') then
    local maps = text:find("map(ram, 0x0", 1, true) ~= nil
    text = ("local MAPS = %s\n%sdo\n%send"):format(maps, PRELUDE, text)
  end
  -- A file that it names is there.
  local image = helper.file(("\0"):rep(65536))
  return (helper.child((text:gsub('"disk%.img"', function() return ("%q"):format(image) end))))
end

local function run_c(block)
  local text = block.text
  if not text:find "int main%(" then
    local outside, inside = text:match "^(.*\n}\n)\n(.*)$"
    text = C_PRELUDE .. (outside or "") .. C_MAIN .. (inside or text) .. C_END
  end
  local package = text:find("<Hypervisor/", 1, true) and "Hypervisor" or "lunavisor"
  return shell(pages[block.page], ([[cat >piece.c <<'EOF'
%sEOF
${CC:-gcc} -std=c11 -Wall -Wextra -Werror -o piece piece.c $(pkg-config --cflags --libs %s)
./piece]]):format(text, package))
end

local runners = { lua = run_lua, c = run_c, sh = function(block)
  return shell(pages[block.page], block.text)
end }

local function blocks_of(language)
  local found = {}
  for _, path in ipairs(markdown.pages()) do
    for _, block in ipairs(pages[path].blocks) do
      block.page = path
      if block.language == language then found[#found + 1] = block end
    end
  end
  return found
end

describe("the pages", function()
  it("have blocks of known languages alone", function()
    for _, page in pairs(pages) do
      for _, block in ipairs(page.blocks) do
        assert.truthy(runners[block.language] or block.language == "text",
          ("%s: a block in %q"):format(block.name, block.language))
      end
    end
    for language, least in pairs { lua = 40, c = 3, sh = 6 } do
      assert.is_true(#blocks_of(language) >= least, language)
    end
  end)

  it("have pieces of Lua that both engines can parse", function()
    for _, block in ipairs(blocks_of "lua") do
      assert((loadstring or load)(block.text), block.name)
    end
  end)

  it("link to what is there", function()
    for path, page in pairs(pages) do
      for _, link in ipairs(page.links) do
        local target, anchor = link:match "^([^#]*)#?(.*)$"
        local full = target == "" and path or (path:match "^(.*/)" or "") .. target
        while full:find "[^/]+/%.%./" do full = full:gsub("[^/]+/%.%./", "", 1) end
        if not link:find "^%a+:" then
          local where = path .. " links to " .. link
          local there = io.open(full, "rb")
          assert(there, where)
          there:close()
          assert.truthy(anchor == "" or pages[full].anchors[anchor], where)
        end
      end
    end
  end)
end)

helper.kvm("the page's Lua", function()
  for _, block in ipairs(blocks_of "lua") do
    it(block.name, function()
      need(block)
      check_output(block.text, run_lua(block))
    end)
  end

  it("prints no more than it says where a reader begins", function()
    assert.equal("A\nhlt\t0x1007", run_lua(blocks_of "lua"[1]))
  end)
end)

-- These have nothing to do with the engine: one of them is enough.
if not helper.jit then
  for _, language in ipairs { "c", "sh" } do
    helper.kvm("the page's " .. language, function()
      for _, block in ipairs(blocks_of(language)) do
        it(block.name, function()
          need(block)
          if language == "sh" and (os.getenv "LUNA_SKIP" or ""):find "packaging" then
            pending "LUNA_SKIP says so: it builds"
          end
          check_output(block.text, runners[language](block))
        end)
      end
    end)
  end
end

describe("the README", function()
  it("can be read in one go", function()
    assert.is_true(pages["README.md"].lines <= 150)
  end)
end)

describe("the manual", function()
  it("names every kind of exit", function()
    local exits = require "lunavisor.exit.record"
    local text = pages["lua/manual/running.md"].text
    for _, kind in ipairs(exits.names) do
      -- cpu:run deals with foreign signals by itself
      if kind ~= "signal" then helper.contains("`" .. kind .. "`", text) end
    end
    for kind in ("limit stopped parked"):gmatch "%a+" do
      helper.contains("`" .. kind .. "`", text)
    end
  end)

  it("has a chapter for every page of the index, and the other way round", function()
    local index = pages["lua/manual/README.md"].text
    for path in pairs(pages) do
      local name = path:match "^lua/manual/(.*)$"
      if name and name ~= "README.md" then helper.contains("](" .. name .. ")", index) end
    end
  end)

  it("names every method and option of the annotations", function()
    local text, missing = {}, {}
    for path, page in pairs(pages) do
      if path:match "^lua/manual/" then text[#text + 1] = page.text end
    end
    text = table.concat(text)
    for name in helper.sh("cat lua/lunavisor/meta/*.lua"):gmatch "\nfunction ([%l]+[:.][%w_]+)%(" do
      local object, method = name:match "^(%l+)[:.](.*)$"
      if object ~= "hv" and not text:find("%f[%w_]" .. method .. "%f[^%w_]") then
        missing[#missing + 1] = name
      end
    end
    assert.same({}, missing)
  end)
end)
