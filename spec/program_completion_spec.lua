-- SPDX-License-Identifier: MIT
-- What bash, fish and zsh complete with what luna completion prints: the shells themselves are
-- asked, those that are installed.

local files = require "spec.support.files"
local helper = require "spec.support.helper"
local program = require "spec.support.program"

local SCRIPTS = "adder.lua board.lua guest.lua hello.lua loop.lua note.lua stands.lua unit.lua"
local COMMANDS = "boot completion device gdb init man map probe repl report run sweep test"

-- Lines, and all that completes their last words.
local LINES = {
  ["luna "] = COMMANDS .. " sub " .. SCRIPTS,
  ["luna bo"] = "board.lua boot",
  ["luna --v"] = "--version",
  ["luna boot ker"] = "kernel.elf",
  ["luna boot --ac"] = "--accel",
  ["luna boot --wat"] = "--watch",
  ["luna boot --accel "] = "auto kvm soft",
  ["luna boot --machine=m"] = "microvm",
  ["luna boot -m 64M --machine p"] = "pc",
  ["luna boot --format multi"] = "multiboot multiboot2",
  ["luna boot --disk di"] = "disk.img",
  ["luna boot --disk disk.img ker"] = "kernel.elf",
  ["luna boot --timeout "] = "",
  ["luna boot --console st"] = "stands.lua status.elf stay stdio",
  ["luna boot -- kern"] = "kernel.elf",
  ["luna gdb --"] = "--accel --bits --help",
  ["luna gdb --bits "] = "16 32 64",
  ["luna gdb h"] = "hello.lua",
  ["luna run --seed 7 --json hel"] = "hello.lua",
  ["luna run hello.lua --"] = "",
  ["luna run hello.lua ker"] = "kernel.elf",
  ["luna hello.lua ker"] = "kernel.elf",
  ["luna report run.html --accel soft hel"] = "hello.lua",
  ["luna run --root s"] = "sub",
  ["luna init "] = "sub",
  ["luna device "] = "coverage describe import new",
  ["luna device describe --format s"] = "svg",
  ["luna device describe ua"] = "uart16550",
  ["luna device coverage uart16550 piix3_"] = "piix3_ide",
  ["luna device import --per"] = "--peripheral",
  ["luna device new "] = "",
  ["luna sweep --output s"] = "sub",
  ["luna test --engine lua5"] = "lua5.4",
  ["luna completion "] = "bash fish zsh",
}

local order = {}
for line in pairs(LINES) do order[#order + 1] = line end
table.sort(order)

-- Each has a script that prints, for each line of the file `lines`, the words, a line each, and
-- END; luna is what completes it.
local SHELLS = {}

SHELLS.bash = [==[
eval "$("$luna" completion bash)"
while IFS= read -r line; do
  read -ra COMP_WORDS <<<"${line//=/ = }" # readline divides words there too
  [[ $line != *' ' ]] || COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _luna
  printf '%s\n' "${COMPREPLY[@]}" END
done <lines
]==]

SHELLS.fish = [[
$luna completion fish | source
while read -l line
  complete -C "$line" | string replace -r '\t.*' '' | string replace -r '^--machine=' ''
  echo END
end <lines
]]

-- In a shell at a terminal, whose compadd notes what is found.
SHELLS.zsh = [==[
zmodload zsh/zpty
setopt extended_glob
: >found
mkdir .functions && "$luna" completion zsh >.functions/_luna
zpty shell zsh -f -i
zpty -w shell 'PROMPT= ; unsetopt beep; fpath=($PWD/.functions $fpath); autoload -U compinit
compinit -u -D
compadd() {
  if [[ ${(M)@[1,(i)(-|--)]:#-*[OAD]*} != "" ]]; then builtin compadd "$@"; return; fi
  local -a kept
  builtin compadd -O kept "$@"
  print -rl -- $kept >>found
  builtin compadd "$@"
}
found-word() { zle complete-word; print END >>found; zle kill-whole-line }
zle -N found-word; bindkey "^I" found-word; LISTMAX=10000; print START >>found'
wait_for() { repeat 400; do [ "$(grep -c "$1" found)" -ge $2 ] && return; sleep 0.05; done }
wait_for START 1
count=0
while IFS= read -r line; do
  zpty -w -n shell "$line"$'\t'
  wait_for END $((++count))
done <lines
zpty -d shell
grep -v '^START$' found
]==]

describe("luna completion", function()
  local directory
  setup(function()
    directory = program.directory()
    helper.sh("mkdir " .. directory .. "/sub")
    files.write(directory .. "/lines", table.concat(order, "\n") .. "\n")
  end)
  teardown(function() helper.sh("rm -rf " .. directory) end)

  for name, script in pairs(SHELLS) do
    it("completes commands, options and values in " .. name, function()
      if select(2, helper.sh("command -v " .. name)) ~= 0 then
        pending(name .. " is not installed")
      end
      local path = helper.file(script)
      -- What readline and the terminal are told is nobody's here.
      local said = helper.sh(("luna=$PWD/scripts/luna; export luna; cd %s; export LUNA_LUA=%s; "
        .. "HOME=$PWD TERM=dumb %s %s; rm -rf .functions found .config .local .zcompdump*")
        :format(directory, helper.engine, name, path))
      local at = 0
      for block in (said .. "\n"):gmatch "(.-)END\n" do
        at = at + 1
        local words = {}
        local seen = {} -- zsh may find one twice, and shows it once
        for word in block:gmatch "[^\n]+" do
          word = word:gsub("[/ ]$", "")
          if not seen[word] then words[#words + 1] = word end
          seen[word] = true
        end
        table.sort(words)
        local wanted = {}
        for word in (LINES[order[at]] or "no line"):gmatch "%S+" do wanted[#wanted + 1] = word end
        table.sort(wanted)
        assert.same(wanted, words, order[at])
      end
      assert.equal(#order, at, said)
    end)
  end

  it("knows no other shell, and needs no argparse to know all commands", function()
    program.ends(directory, 126, "must be one of 'bash', 'fish', 'zsh'", "completion ksh")
    for command in COMMANDS:gmatch "%S+" do
      helper.contains(command, (program.luna(directory, "--help")))
    end
  end)
end)
