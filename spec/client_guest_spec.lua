-- SPDX-License-Identifier: MIT
-- Programs of others on the software CPU, where Debian's packages of them are installed or unpacked
-- (LUNA_CLIENTS): firmware, to a boot sector and to a shell, a test of memory, Linux, and Linux in
-- Xen.

local helper = require "spec.support.helper"

local DIRECTORY = "scripts/clients.d"
local SECONDS = 300 -- on a loaded machine

local function client_of(name)
  local before = package.path
  package.path = DIRECTORY .. "/?.lua;" .. before
  local client = require(name)
  package.path = before
  return client
end

-- The clients run this engine.
local function with_engine(fn)
  local before = arg
  _G.arg = { [-1] = helper.engine }
  local ok, result = pcall(fn)
  _G.arg = before
  if not ok then error(result, 0) end
  return result
end

describe("a client", function()
  for _, name in ipairs { "seabios", "ovmf", "memtest", "linux", "xen" } do
    local client = client_of(name)
    local missing = client.missing()
    for _, test in ipairs(missing and {} or client.tests()) do
      it(("%s, %s, does what it is to do"):format(name, test.name), function()
        if test.long then pending "it takes long: scripts/clients runs it" end
        local result = with_engine(function()
          return client.ours(test, { directory = DIRECTORY, accel = "soft", seconds = SECONDS })
        end)
        if result.text:find "without Zydis" then pending "this build has no software CPU" end
        assert.equal("PASS", result.verdict, result.text)
      end)
    end
    if missing then it(name, function() pending(missing) end) end
  end
end)

describe("the tables of ACPI", function()
  local function check_tables(pci)
    local acpi = require "lunavisor.machine.acpi"
    local bytes = acpi.tables(2, 0x600, 0xe0000, pci)
    local function sum(first, last)
      local total = 0
      for i = first, last do total = total + bytes:byte(i) end
      return total % 256
    end
    local function u32(at)
      local a, b, c, d = bytes:byte(at + 1, at + 4)
      return a + b * 0x100 + c * 0x10000 + d * 0x1000000
    end
    assert.equal("RSD PTR ", bytes:sub(1, 8))
    assert.equal(0, sum(1, 20))
    local root = u32(16) - 0xe0000
    assert.equal("RSDT", bytes:sub(root + 1, root + 4))
    local names = {}
    for at = root + 36, root + u32(root + 4) - 4, 4 do
      local first = u32(at) - 0xe0000
      names[#names + 1] = bytes:sub(first + 1, first + 4)
      assert.equal(0, sum(first + 1, first + u32(first + 4)))
    end
    assert.equal(0, sum(root + 1, root + u32(root + 4)))
    assert.same({ "FACP", "APIC" }, names)
    return bytes
  end

  it("have the right sums and lengths", function()
    assert.is_nil(check_tables():find("PCI0", 1, true))
  end)

  it("have a host bridge, whose packages are as long as they say", function()
    local bytes = check_tables { [0] = 11, 10, 10, 11, low = 0xc0000000 }
    local function length(at) -- of a package, and how many bytes that takes
      local first, second = bytes:byte(at, at + 1)
      if first < 64 then return first, 1 end
      return first % 16 + 16 * second, 2
    end
    local scope = bytes:find "\16..\\_SB_"
    local device = bytes:find("\91\130", scope, true)
    local size = length(scope + 1)
    assert.equal(scope + 1 + size, device + 2 + length(device + 2))
    local _, routes = bytes:find("_PRT\18", device, true)
    local all, head = length(routes + 1)
    assert.equal(scope + 1 + size, routes + 1 + all)
    assert.equal(128, bytes:byte(routes + 1 + head))
    local at, count, irqs = routes + 2 + head, 0, ""
    while at < routes + 1 + all do
      assert.equal(18, bytes:byte(at))
      if count < 8 then irqs = irqs .. bytes:byte(at + length(at + 1)) .. " " end
      at, count = at + 1 + length(at + 1), count + 1
    end
    assert.equal(128, count)
    assert.equal("11 10 10 11 10 10 11 11 ", irqs)
  end)
end)

describe("an archive for Linux", function()
  it("is read by cpio", function()
    local _, status = helper.sh "command -v cpio"
    if status ~= 0 then pending "cpio is not installed" end
    local archive = client_of "cpio" { { "bin" }, { "bin/sh", "abc" }, { "dev" },
      { "dev/null", major = 1, minor = 3 } }
    local output = helper.sh("cpio -tv --quiet <" .. helper.file(archive))
    assert.matches("drwxr%-xr%-x.- bin\n", output)
    assert.matches("%-rwxr%-xr%-x.- 3 .- bin/sh\n", output)
    assert.matches("crw%-%-%-%-%-%-%-.- 1, +3 .- dev/null", output)
  end)
end)
