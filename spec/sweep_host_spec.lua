-- SPDX-License-Identifier: MIT
-- luna sweep --on: units on other machines over ssh. What stands in for ssh here runs the command
-- as a server does, with a shell, at home and with an environment of its own.

local helper = require "spec.support.helper"
local sweep = require "spec.support.sweep"

-- The hosts named dead cannot be reached; those named lost are, and go away in the middle.
local SSH = [[#!/bin/sh
while :; do
  case $1 in
    -l | -o | -p | -S | -i) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
host=$1
shift
[ "$1" != -- ] || shift
echo "$host" >>@/hosts
case $host in
  dead) echo "ssh: connect to host dead port 22: No route to host" >&2; exit 255 ;;
  lost) kill -9 $$ ;;
esac
mkdir -p "@/home"
cd "@/home" || exit
exec env -i HOME="@/home" USER=someone SHELL=/bin/sh LD_PRELOAD="$LD_PRELOAD" \
  ASAN_OPTIONS="$ASAN_OPTIONS" LUNA_LUA="$LUNA_LUA" LUNAVISOR_LIBRARY="$LUNAVISOR_LIBRARY" \
  PATH="@/far:/usr/local/bin:/usr/bin:/bin" sh -c "$*"
]]

local place

local function hosts()
  local found = {}
  for host in (place:read "hosts" or ""):gmatch "[^\n]+" do found[host] = (found[host] or 0) + 1 end
  return found
end

-- luna sweep with that ssh; the far luna is the same program.
local function run(status, said, words)
  return place:sweep(status, said, words, "export PATH=$PWD/bin:$PATH;")
end

helper.block("luna sweep on hosts", function()
  if not sweep.parallel then
    pending(sweep.reason)
    return
  end

  before_each(function()
    place = sweep.place()
    helper.sh(("mkdir %s/bin %s/far"):format(place.path, place.path))
    place:write("bin/ssh", (SSH:gsub("@", place.path)))
    place:sh [[chmod +x bin/ssh
      printf '#!/bin/sh\nexec "%s" "$@"\n' "$luna" >far/luna; chmod +x far/luna]]
  end)

  it("runs units there, and says where", function()
    run(0, "luna: 6 of 6 units, 0 failed", "unit.lua --set n=1..6 --on one,someone@two --jobs 1")
    local rows, head = place:rows()
    assert.equal("2 4 6 8 10 12", place:column "double")
    assert.equal(helper.sh "cat /proc/sys/kernel/hostname", rows[1].host)
    assert.equal("host", head[5])
    local found = hosts()
    assert.is_true(found.one >= 1 and (found["someone@two"] or found.two) >= 1)
    assert.equal(6, select(2, place:read "ran":gsub("\n", "")))
  end)

  it("takes a file of hosts, and values that shells would read", function()
    place:write("hosts.txt", "1/one\n:\n")
    place:write("say.lua", "return { v = require('lunavisor').arguments.v }")
    place:write("values", "v=a b,$HOME,`id`,it's,\",{},%41,-x,a\nb,*,~,\\\\,#,&,;,\r\t,x|y,>f")
    run(0, "18 of 18", [[say.lua --set "$(cat values)" --on hosts.txt --jobs 2 -- '$x {}']])
    for _, row in ipairs((place:rows "say.sweep/results.csv")) do
      assert.equal(row.v, row.v_result)
    end
  end)

  it("runs on another host what one that is away was to run", function()
    run(0, "luna: 4 of 4 units, 0 failed", "unit.lua --set n=1..4 --on dead,one --jobs 1")
    assert.is_true(hosts().dead >= 1)
    assert.equal("2 4 6 8", place:column "double")
  end)

  it("tells of units whose host went away, and runs them the next time", function()
    run(1, "luna: 2 of 2 units, 2 failed", "unit.lua --set n=1,2 --on dead --jobs 1")
    local rows = place:rows()
    assert.equal("255", rows[1].status)
    assert.equal("it ended with status 255 and no result on dead: the log may tell", rows[1].error)
    helper.contains("No route to host", place:read "unit.sweep/log")
    run(1, "luna: 2 of 2 units, 2 failed", "unit.lua --set n=1,2 --on lost --jobs 1")
    assert.matches("^killed by SIGKILL", place:rows()[1].error)
    run(0, "luna: 2 of 2 units, 0 failed", "unit.lua --set n=1,2 --on one")
    assert.equal("2 4", place:column "double")
  end)

  it("tells of a host whose script is another one, or none", function()
    place:write("far/luna", ([[#!/bin/sh
      cd %s/home
      exec "%s/scripts/luna" "$@"]]):format(place.path, helper.sh "pwd"))
    run(1, "luna: 2 of 2 units, 2 failed", "unit.lua --set n=1,2 --on one")
    assert.equal("126 126", place:column "status")
    assert.equal("unit.lua: No such file or directory", place:rows()[1].error)
    place:write("home/unit.lua", "return { double = 0 }")
    run(1, "2 failed", "unit.lua --set n=1,2 --on one --retry")
    assert.equal("unit.lua is not the script that the sweep began with", place:rows()[1].error)
    place:write("home/unit.lua", place:read "unit.lua")
    run(0, "0 failed", "unit.lua --set n=1,2 --on one --retry")
  end)
end)
