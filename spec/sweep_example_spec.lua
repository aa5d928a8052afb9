-- SPDX-License-Identifier: MIT
-- examples/sweep: its unit gives the same by luna run, in a sweep, as a task of Slurm and as a pod
-- of Kubernetes. The page runs the whole sweep (readme_spec.lua).

local helper = require "spec.support.helper"
local luna = require "lunavisor"
local sweep = require "spec.support.sweep"

local place

-- Shell words in a copy of the example, with luna in the PATH: what they print; status 0.
local function sh(words)
  local output, status = place:sh(("PATH=${luna%%/*}:$PATH; cd sweep; %s"):format(words))
  if status ~= 0 then error(("it ended with %d:\n%s"):format(status, output), 2) end
  return output
end

local function line_of(output)
  local line = output:match '{"arguments"[^\n]*}'
  return (assert(line, output):gsub('"seconds": [%d.e-]+', '"seconds": 0'))
end

local units

helper.block("the example of a sweep", function()
  local soft = luna.probe().accelerators.soft
  if not (soft and soft.available) then
    pending("there is no software CPU: " .. tostring(soft and soft.message))
    return
  end

  before_each(function()
    place = sweep.place()
    helper.sh("cp -r examples/sweep " .. place.path)
    units = tonumber((sh "sh pieces.sh --list | wc -l"))
  end)

  it("measures the same with luna run and as a unit", function()
    local words = sh "sh pieces.sh --list":match "\n28\t([^\n]*)"
    assert.equal("--accel soft --set access=runs --set piece=256 --seed 1 pieces.lua", words)
    local alone = line_of(sh("luna run --json " .. words))
    local unit = line_of(sh "sh pieces.sh --unit 28")
    helper.contains('"results": {"faults": 36, "mapped": 9}', unit)
    assert.equal(alone, (unit:gsub(', "unit": 28', "")))
  end)

  it("says what it wants of its arguments", function()
    local function refused(text, words)
      helper.contains(text, (place:sh("$luna run " .. words .. " sweep/pieces.lua")))
    end
    refused("access: random, runs or stride expected, got none", "--set access=none")
    refused("piece: KiB in whole pages up to 64 MiB expected, got 5", "--set piece=5")
    refused("piece: KiB in whole pages up to 64 MiB expected, got 65540", "--set piece=65540")
  end)

  it("is an array of Slurm", function()
    local text = place:read "sweep/slurm.sh"
    assert.equal("", (sh "sh -n slurm.sh && sh -n pieces.sh"))
    assert.equal(("1-%d"):format(units), text:match "\n#SBATCH %-%-array=(%S+)\n")
    -- sbatch reads options up to the first command.
    assert.is_nil(text:match "\n%l.*#SBATCH")
    sh "for i in 19 54; do SLURM_ARRAY_TASK_ID=$i sh slurm.sh; done"
    assert.equal(line_of(sh "sh pieces.sh --unit 19"), line_of(place:read "sweep/lines/19"))
    local _, status = place:sh [[cd sweep; export PATH=${luna%/*}:$PATH SLURM_ARRAY_TASK_ID=55
      sh slurm.sh]]
    assert.equal(126, status)
    assert.is_nil(place:read "sweep/lines/55")
    local said = place:sh [[cd sweep; PATH=${luna%/*}:$PATH
      cat lines/*[0-9] | sh pieces.sh --take - --plot mapped]]
    helper.contains("2 lines taken\nluna: 2 of 54 units, 0 failed", said)
    assert.equal("19 54", place:column("unit", "sweep/pieces.sweep/results.csv"))
    helper.contains("<svg", place:read "sweep/pieces.sweep/mapped.svg")
  end)

  it("is an indexed job of Kubernetes", function()
    local read = [[perl -MCPAN::Meta::YAML -e '
      my $job = CPAN::Meta::YAML->read("kubernetes.yaml")->[0];
      my $pod = $job->{spec}{template}{spec};
      my $unit = $pod->{containers}[0];
      print join("\n", $job->{apiVersion}, $job->{kind}, $job->{spec}{completionMode},
        $job->{spec}{completions}, $pod->{restartPolicy}, $unit->{volumeMounts}[0]{name},
        $pod->{volumes}[0]{name}, $unit->{workingDir}, $unit->{volumeMounts}[0]{mountPath},
        @{$unit->{command}})']]
    if select(2, helper.sh "perl -MCPAN::Meta::YAML -e 1") ~= 0 then
      pending "perl's CPAN::Meta::YAML is not installed"
    end
    local fields = {}
    for field in (sh(read) .. "\n"):gmatch "([^\n]*)\n" do fields[#fields + 1] = field end
    assert.same({ "batch/v1", "Job", "Indexed", tostring(units), "Never", "scripts", "scripts",
      "/sweep", "/sweep", "sh", "-c" }, { (table.unpack or unpack)(fields, 1, 11) })
    local pod = sh(("export JOB_COMPLETION_INDEX=27; sh -c '%s'"):format(fields[12]))
    assert.equal(line_of(sh "sh pieces.sh --unit 28"), line_of(pod))
    assert.equal(12, #fields)
  end)
end)
