-- SPDX-License-Identifier: MIT
-- The client kvm-unit-tests: small kernels that test a processor and its interrupt controllers from
-- within. What there is to run is in its x86/unittests.cfg; its machine is made in
-- kvm_unit_tests_vm.lua. LUNA_KVM_UNIT_TESTS: directories where it was built, with ':' between
-- them; tests for 32 bits come from one that was configured with --arch=i386.

local process = require "process"

local quote, read_line = process.quote, process.read_line

local M = { about = "kernels that test a processor from within (LUNA_KVM_UNIT_TESTS)" }

-- Set up by firmware that these VMs do not have.
local FIRMWARE = { s3 = "it wakes up through firmware" }

local function read_file(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

local function directories()
  local list = {}
  for path in (os.getenv "LUNA_KVM_UNIT_TESTS" or ""):gmatch "[^:]+" do
    local config = read_file(path .. "/config.mak")
    list[#list + 1] = { path = path, arch = config and config:match "\nARCH=(%S+)" }
  end
  return list
end

function M.missing()
  local list = directories()
  if #list == 0 then
    return "LUNA_KVM_UNIT_TESTS does not say where it was built (by ./configure and make there)"
  end
  for _, directory in ipairs(list) do
    if not directory.arch or not read_file(directory.path .. "/x86/unittests.cfg") then
      return directory.path .. " is no directory where it was configured"
    end
  end
end

-- The sections of x86/unittests.cfg: tables of their keys, with the name.
local function sections(path)
  local list = {}
  for line in (read_file(path) .. "\n"):gmatch "(.-)\n" do
    local name, key, value = line:match "^%[(.-)%]", line:match "^([%w_]+)%s*=%s*(.-)%s*$"
    if name then
      list[#list + 1] = { name = name }
    elseif key and #list > 0 then
      list[#list][key] = value
    end
  end
  return list
end

-- Why a test is not for this host or this machine; nil.
local function reason(test, directory)
  if test.arch and test.arch ~= directory.arch then return "for " .. test.arch .. " alone" end
  if not read_file(test.path) then return "not built" end
  local with = (test.qemu_params or ""):match "%-device (%S+)"
  if with then return "needs the device " .. with end
  for path, value in (test.check or ""):gmatch "(%S+)=(%S+)" do
    if (read_file(path) or ""):match "^%s*(.-)%s*$" ~= value then
      return path .. " is not " .. value
    end
  end
  return FIRMWARE[test.name]
end

function M.tests()
  local all = {}
  local list = directories()
  for _, directory in ipairs(list) do
    for _, test in ipairs(sections(directory.path .. "/x86/unittests.cfg")) do
      test.path = directory.path .. "/x86/" .. test.file
      test.skip = reason(test, directory)
      test.nodefault = (test.groups or ""):find "nodefault"
      if #list > 1 and directory.arch == "i386" then test.name = test.name .. "-i386" end
      local foreign = test.skip and test.skip:find "alone$" and #list > 1
      if not test.nodefault and not foreign then all[#all + 1] = test end
    end
  end
  return all
end

-- ---- Running one ----

local function count(text, word)
  local _, number = ("\n" .. text):gsub("\n%s*" .. word .. ": ", "")
  return number
end

local VERDICTS = { [1] = "PASS", [3] = "FAIL", [77] = "SKIP", [124] = "TIME" }

-- Exit status as QEMU's isa-debug-exit makes it of what the test says; a test that ends in another
-- way has none of these.
local function run(command, seconds)
  local from = tonumber(read_line "date +%s.%N")
  local pipe = io.popen(("timeout -k 2 %d %s </dev/null 2>&1; status=$?; echo; "
    .. "echo status $status"):format(seconds, command))
  local text = pipe:read "*a":gsub("\r", "")
  pipe:close()
  local status = tonumber(text:match "status (%d+)\n$")
  text = text:gsub("\nstatus %d+\n$", "")
  return { verdict = VERDICTS[status] or "END", text = text,
    passed = count(text, "PASS"), failed = count(text, "FAIL"), skipped = count(text, "SKIP"),
    seconds = tonumber(read_line "date +%s.%N") - from }
end

local function seconds_of(test, options)
  return math.max(tonumber((test.timeout or ""):match "%d+") or 0, options.seconds)
end

function M.ours(test, options)
  local params = test.qemu_params or ""
  local engine = arg[-1] or "luajit"
  return run(("%s %s %s %s %s %s %s %s %s"):format(engine,
    quote(options.directory .. "/kvm_unit_tests_vm.lua"), quote(test.path), options.accel,
    test.smp or "1", params:match "%-m (%S+)" or "128", quote(params:match "%-cpu (%S+)" or "-"),
    params:find "pit=off" and "nopit" or "pit", test.test_args or ""), seconds_of(test, options))
end

local qemu

local function find_qemu()
  qemu = qemu or { read_line "command -v qemu-system-x86_64" }
  return qemu[1]
end

function M.other(test, options)
  local program = find_qemu()
  if not program then return nil end
  local params = (test.qemu_params or ""):gsub("%-enable%-kvm", ""):gsub("%-cpu host", "-cpu max")
    :gsub(",migratable=no", ""):gsub(",hv_passthrough", ""):gsub("host%-phys%-bits=?o?f?f?,?", "")
    :gsub(",(%s)", "%1"):gsub(",$", "")
  return run(("%s -no-reboot -nodefaults -device pc-testdev -display none -serial stdio "
    .. "-device isa-debug-exit,iobase=0xf4,iosize=0x4 -device pci-testdev -machine accel=tcg "
    .. "-kernel %s -smp %s -append %s %s"):format(program, quote(test.path), test.smp or "1",
    test.test_args or "''", params), seconds_of(test, options))
end

return M
