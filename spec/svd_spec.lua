-- SPDX-License-Identifier: MIT
-- CMSIS-SVD files as tables of the device kit: what of them is in a table and what is noted, that
-- the tables pass the tests which they derive, and files that are damaged or made to do harm.

local device = require "lunavisor.device"
local files = require "spec.support.files"
local helper = require "spec.support.helper"
local program = require "spec.support.program"
local svd = require "lunavisor.svd"
local t = require "lunavisor.testing"
local contains = helper.contains

if not pcall(require, "lxp") then
  describe("luna device import", function() pending "lua-expat is not installed" end)
  return
end

local HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<device schemaVersion="1.3">'

-- A file with these peripherals.
local function file_of(peripherals, more)
  return helper.file(("%s<name>CHIP</name>%s\n<peripherals>%s</peripherals></device>\n"):format(
    HEAD,
    more or "<size>32</size><access>read-write</access>", peripherals))
end

local function peripheral(registers, more)
  return ("<peripheral><name>P</name><baseAddress>0x1000</baseAddress>%s<registers>%s</registers>"
    .. "</peripheral>"):format(more or "", registers)
end

local function register(name, at, more)
  return ("<register><name>%s</name><addressOffset>%s</addressOffset>%s</register>"):format(name,
    at,
    more or "")
end

local function field(name, range, more)
  return ("<field><name>%s</name><bitRange>%s</bitRange>%s</field>"):format(name, range, more or "")
end

local function draft(path, name)
  local made = assert(svd.open(path))
  return assert(made:draft(name))
end

-- The device and what is returned with it, of a file with one peripheral P; and the notes as text.
local function import(registers, more)
  local made = draft(file_of(peripheral(registers, more)), "P")
  local notes = {}
  for i, note in ipairs(made.notes) do notes[i] = note.where .. ": " .. note.text end
  local list = assert((loadstring or load)(made.text, "=P"), made.text)()
  return list[1], table.concat(notes, "\n"), made.text, list
end

-- The registers of a device's layout by name, with their fields by name.
local function by_name(dev)
  local set = {}
  for _, one in ipairs(device.layout(dev).registers) do
    set[one.name] = one
    for _, inner in ipairs(one.fields) do one.fields[inner.name] = inner end
  end
  return set
end

local function refused(text, peripherals, more)
  local made, message = svd.open(file_of(peripherals, more))
  if made then made, message = made:draft() end
  assert.is_nil(made)
  contains(text, message)
  assert.matches("^[^:]+:%d+: ", message)
end

describe("luna device import", function()
  it("takes registers with their widths, resets and descriptions", function()
    local dev, notes, text, list = import(register("CTRL", "0x10",
      "<description>The\n  control.</description><resetValue>0x12345678</resetValue>")
      .. register("BYTE", "#101", "<size>8</size><resetValue>0xfff</resetValue>")
      .. register("WIDE", "1k", "<size>64</size><resetValue>0x8000000000000001</resetValue>"),
      "<addressBlock><offset>0</offset><size>0x800</size><usage>registers</usage></addressBlock>"
      .. "<interrupt><name>P_IRQ</name><value>7</value></interrupt>")
    assert.equal("", notes)
    local found = by_name(dev)
    assert.equal("The control.", found.CTRL.doc)
    assert.equal(0x12345678, found.CTRL.reset)
    assert.same({ 5, 1, 255 }, { found.BYTE.at, found.BYTE.width, found.BYTE.reset })
    assert.same({ 1024, 8 }, { found.WIDE.at, found.WIDE.width })
    contains('reset = u64 "0x8000000000000001"', text)
    contains("P_IRQ = true, -- interrupt 7", text)
    assert.equal("P_IRQ", device.layout(dev).lines[1].name)
    assert.equal(0x1000, list.mmio)
    assert.equal(0x800, device.layout(dev).regions[1].size)
  end)

  it("takes fields in the three ways in which they can be said, and arrays of them", function()
    local found = by_name((import(register("R", "0", "<fields>" .. field("a", "[3:0]")
      .. "<field><name>b</name><lsb>4</lsb><msb>7</msb></field>"
      .. "<field><name>c</name><bitOffset>8</bitOffset><bitWidth>3</bitWidth></field>"
      .. "<field><name>d</name><bitOffset>11</bitOffset></field>"
      .. "<field><dim>2</dim><dimIncrement>4</dimIncrement><dimIndex>X,Y</dimIndex><name>e%s</name>"
      .. "<bitRange>[18:16]</bitRange></field></fields>"))))
    local bits = {}
    for _, one in ipairs(found.R.fields) do bits[one.name] = { one.high, one.low } end
    assert.same({ a = { 3, 0 }, b = { 7, 4 }, c = { 10, 8 }, d = { 11, 11 }, eX = { 18, 16 },
      eY = { 22, 20 } }, bits)
  end)

  it("maps access, readAction and modifiedWriteValues, and notes what has no kind", function()
    local KINDS = {
      { "read-only", "ro" }, { "write-only", "wo" }, { "read-write", "rw" },
      { "read-only", "rc", read = "clear" }, { "read-only", "rs", read = "set" },
      { "read-write", "w1c", modified = "oneToClear" },
      { "read-write", "w1s", modified = "oneToSet" },
      { "read-write", "toggle", modified = "oneToToggle" },
      { "read-write", "w0c", modified = "zeroToClear" }, { "read-write", "wc", modified = "clear" },
      { "read-write", "rw", modified = "modify" },
      { "read-write", "rw", modified = "zeroToSet", note = "zeroToSet has no access kind" },
      { "read-write", "rw", modified = "zeroToToggle", note = "zeroToToggle has no" },
      { "read-write", "rw", modified = "set", note = "set has no access kind" },
      { "read-only", "ro", read = "modify", note = "readAction modify: which way" },
      { "read-write", "rw", read = "clear", note = "readAction clear is not for" },
      { "write-only", "wo", modified = "oneToSet", note = "oneToSet of what cannot be read" },
      { "writeOnce", "wo", note = "writeOnce: here" },
      { "read-writeonce", "rw", note = "read-writeOnce: here" },
      { "write", "rw", note = '<access> is "write", and is left out: one of read-only' },
    }
    local parts = {}
    for i, one in ipairs(KINDS) do
      local more = "<access>" .. one[1] .. "</access>"
      if one.modified then
        more = ("%s<modifiedWriteValues>%s</modifiedWriteValues>"):format(more, one.modified)
      end
      if one.read then more = ("%s<readAction>%s</readAction>"):format(more, one.read) end
      parts[#parts + 1] = register("R" .. i, 8 * i, more)
      parts[#parts + 1] = register("F" .. i, 8 * i + 4, "<fields>" .. field("a", "[1:1]", more)
        .. field("b", "[2:2]") .. "</fields>")
    end
    local dev, notes = import(table.concat(parts))
    local found = by_name(dev)
    for i, one in ipairs(KINDS) do
      assert.equal(one[2], found["R" .. i].access, one[1])
      assert.equal(one[2], found["F" .. i].fields.a.access, one[1])
      assert.equal("rw", found["F" .. i].fields.b.access)
      local place = one[1] == "write" and "\nP: " or ("\nP.R%d: "):format(i)
      local said = ("\n" .. notes):match(place .. "([^\n]*)")
      if one.note then contains(one.note, said) else assert.is_nil(said) end
    end
  end)

  it("takes enumerated values, by derivedFrom too, and notes what is none for one value", function()
    local values = "<enumeratedValues><name>E</name>"
      .. "<enumeratedValue><name>off</name><value>0</value></enumeratedValue>"
      .. "<enumeratedValue><name>end</name><value>#01</value></enumeratedValue>"
      .. "<enumeratedValue><name>all</name><value>#1x</value></enumeratedValue>"
      .. "<enumeratedValue><name>more</name><value>9</value></enumeratedValue>"
      .. "<enumeratedValue><name>other</name><isDefault>true</isDefault></enumeratedValue>"
      .. "<enumeratedValue><name>again</name><value>0b1</value></enumeratedValue>"
      .. "</enumeratedValues>"
    local dev, notes = import(register("R", "0", "<fields>" .. field("a", "[1:0]", values)
      .. field("b", "[3:2]", '<enumeratedValues derivedFrom="E"/>')
      .. field("c", "[5:4]", '<enumeratedValues derivedFrom="none"/>')
      .. field("d", "[7:6]", "<enumeratedValues><usage>write</usage></enumeratedValues>"
        .. "<enumeratedValues><usage>read</usage><enumeratedValue><name>r</name><value>2</value>"
        .. "</enumeratedValue></enumeratedValues>") .. "</fields>"))
    local fields = by_name(dev).R.fields
    assert.same({ off = 0, ["end"] = 1 }, fields.a.enum)
    assert.same(fields.a.enum, fields.b.enum)
    assert.is_nil(fields.c.enum)
    assert.same({ r = 2 }, fields.d.enum)
    for _, text in ipairs { "P.R.a: its value all is for all values #1x: not in the table",
      "P.R.a: its value more is 0x9, more than 2 bits have",
      "its value other is for all other values",
      "its value again is 0x1, as end is", "P.R.c: no enumerated values: there are none",
      "P.R.d: a second set of enumerated values" } do
      contains(text, notes)
    end
  end)

  it("takes arrays and lists of registers", function()
    local found = by_name((import(
      "<register><dim>4</dim><dimIncrement>8</dimIncrement><name>A[%s]</name>"
      .. "<addressOffset>0</addressOffset><resetValue>3</resetValue></register>"
      .. "<register><dim>3</dim><dimIncrement>4</dimIncrement><dimIndex>A-C</dimIndex>"
      .. "<name>L%sX</name><addressOffset>0x100</addressOffset></register>")))
    assert.same({ 0, 4, 8, 3 }, { found.A.at, found.A.count, found.A.stride, found.A.reset })
    assert.same({ 0x100, 0x104, 0x108 }, { found.LAX.at, found.LBX.at, found.LCX.at })
  end)

  it("takes clusters, in arrays and in one another", function()
    local found = by_name((import(
      "<cluster><name>C</name><addressOffset>0x10</addressOffset>" .. register("X", 4)
      .. "<cluster><name>D</name><addressOffset>8</addressOffset>" .. register("Y", 0)
      .. "</cluster></cluster>"
      .. "<cluster><dim>4</dim><dimIncrement>0x10</dimIncrement><name>CH[%s]</name>"
      .. "<addressOffset>0x100</addressOffset>" .. register("X", 0) .. register("Y", 4)
      .. "</cluster><cluster><dim>2</dim><dimIncrement>0x20</dimIncrement><name>G[%s]</name>"
      .. "<addressOffset>0x200</addressOffset><register><dim>3</dim><dimIncrement>4</dimIncrement>"
      .. "<name>Z[%s]</name><addressOffset>4</addressOffset></register></cluster>")))
    assert.same({ 0x14, 0x18 }, { found.C_X.at, found.C_D_Y.at })
    assert.same({ 0x104, 4, 16 }, { found.CH_Y.at, found.CH_Y.count, found.CH_Y.stride })
    assert.same({ 0x204, 3, 4 }, { found.G0_Z.at, found.G0_Z.count, found.G0_Z.stride })
    assert.equal(0x224, found.G1_Z.at)
  end)

  it("takes what is derived: peripherals, clusters, registers, fields", function()
    local text = draft(file_of(peripheral(
      register("A", 0, "<resetValue>5</resetValue><fields>"
        .. field("x", "[0:0]", "<access>read-only</access>")
        .. '<field derivedFrom="x"><name>y</name><bitRange>[2:2]</bitRange></field>'
        .. "</fields>")
      .. '<register derivedFrom="A"><name>B</name><addressOffset>4</addressOffset></register>'
      .. "<register><dim>2</dim><dimIncrement>4</dimIncrement><name>N%s</name><size>16</size>"
      .. "<addressOffset>8</addressOffset></register>"
      .. '<register derivedFrom="N1"><name>M</name><addressOffset>0x10</addressOffset></register>'
      .. "<cluster><name>C</name><addressOffset>0x20</addressOffset>" .. register("X", 0)
      .. '</cluster><cluster derivedFrom="C"><name>D</name><addressOffset>0x30</addressOffset>'
      .. register("Z", 4) .. "</cluster>")
      .. '<peripheral derivedFrom="P"><name>Q</name><baseAddress>0x2000</baseAddress><registers>'
      .. register("A", 0, "<size>8</size>") .. '<register derivedFrom="P.C.X"><name>V</name>'
      .. "<addressOffset>0x40</addressOffset></register></registers></peripheral>"
      .. "<peripheral><dim>2</dim><dimIncrement>0x100</dimIncrement><name>T%s</name>"
      .. "<baseAddress>0x3000</baseAddress></peripheral>")).text
    local made = assert((loadstring or load)(text))()
    local p, q = by_name(made.P()[1]), by_name(made.Q()[1])
    assert.same({ "ro", 2 }, { p.A.fields.y.access, p.A.fields.y.low })
    assert.same({ 4, 5 }, { p.B.at, p.B.reset })
    assert.equal("ro", p.B.fields.x.access)
    assert.same({ 0x10, 2 }, { p.M.at, p.M.width })
    assert.same({ 0x20, 0x30, 0x34 }, { p.C_X.at, p.D_X.at, p.D_Z.at })
    assert.same({ 1, 0x20, 0x40 }, { q.A.width, q.C_X.at, q.V.at })
    assert.equal(0x2000, made.Q().mmio)
    assert.equal(0x3100, made.T1().mmio)
  end)

  it("has one register at a place, where one is not read and the other written", function()
    local dev, notes, text = import(register("IN", 0, "<access>read-only</access>")
      .. register("OUT", 0, "<access>write-only</access>") .. register("A", 4)
      .. register("B", 6, "<size>16</size>") .. register("ODD", 8, "<size>24</size>"))
    local found = by_name(dev)
    assert.truthy(found.IN and found.OUT and found.A)
    assert.is_nil(found.B or found.ODD)
    assert.equal("P.ODD: it has 24 bits: 8, 16, 32 or 64 expected\n"
      .. "P.B: A is at its place, 0x6: give both a when", notes)
    contains("    -- not in the table: A is at its place, 0x6: give both a when\n"
      .. "    -- B = { at = 0x06, width = 2 },\n", text)
  end)

  it("has one field in each bit, and the names that there can be", function()
    local dev, notes = import(register("read", 0, "<resetValue>0x80</resetValue><fields>"
      .. field("a", "[3:0]") .. field("b", "[2:2]") .. field("a", "[4:4]")
      .. field("value", "[5:5]")
      .. "</fields>") .. register("A-B", 4) .. register("A-B", 8))
    local found = by_name(dev)
    local fields = found.read_2.fields
    assert.same({ "a", "a_2", "value_2" }, { fields[1].name, fields[2].name, fields[3].name })
    assert.truthy(found.A_B and found.A_B_2)
    assert.equal(0x80, found.read_2.reset)
    contains("P.read.b: a has its bits: one of them expected", notes)
    contains("P.read: it is called read_2 here", notes)
  end)

  it("lets nothing of the file be more than a string, a name or a line of comment", function()
    local evil = "]] \"..os.exit(9)..\"\n--[[ \\\" os.exit(9)"
    local dev, _, text = import(register("R" .. evil, 0, "<description>" .. evil .. "</description>"
      .. "<fields>" .. field(evil, "[0:0]", "<enumeratedValues><enumeratedValue><name>" .. evil
        .. "</name><value>1</value></enumeratedValue></enumeratedValues>")
        .. field(evil .. "2", "[0:0]") .. "</fields>"),
      "<description>" .. evil .. "</description><access>" .. evil .. "</access><interrupt><name>"
      .. evil .. "</name><value>1</value></interrupt>")
    assert.equal(1, #device.layout(dev).registers)
    for line in text:gmatch "[^\n]+" do assert.is_nil(line:find "^%s*%-%-%[") end
  end)

  it("says which line is wrong, and what is expected there", function()
    refused(":3: <field> a: bitRange, lsb and msb, or bitOffset expected",
      peripheral(register("A", 0, "<fields><field><name>a</name></field></fields>")), "")
    refused('<addressOffset> is "x": a number below 2^64 such as 16, 0x10 or #10000 expected',
      peripheral(register("A", "x")))
    refused("<register> A without <addressOffset>",
      peripheral "<register><name>A</name></register>")
    refused("<register> without a name", peripheral "<register></register>")
    refused("<peripheral> Q without <baseAddress>", "<peripheral><name>Q</name></peripheral>")
    refused('<register> is derived from "NONE": there is no such <register>',
      peripheral '<register derivedFrom="NONE"><name>A</name></register>')
    refused('<bitRange> is "3": bits such as [7:0] expected',
      peripheral(register("A", 0, "<fields>" .. field("a", "3") .. "</fields>")))
    refused("has bits 3 to 1: from the lowest to the highest expected",
      peripheral(register("A", 0, "<fields>" .. field("a", "[1:3]") .. "</fields>")))
    refused('<dim> of "A": a name with %s or [%s] in it expected', peripheral(register("A", 0,
      "<dim>2</dim><dimIncrement>4</dimIncrement>")))
    refused("<dim> without <dimIncrement>", peripheral(register("A%s", 0, "<dim>2</dim>")))
    refused('<dimIndex> is "0-2": 2 names such as 0-1 or A,B expected', peripheral(register("A%s",
      0, "<dim>2</dim><dimIncrement>4</dimIncrement><dimIndex>0-2</dimIndex>")))
    local made, message = svd.open(helper.file "<package></package>")
    assert.is_nil(made)
    contains(":1: <package>: <device> expected", message)
    made, message = svd.open(helper.file(HEAD .. "\n<name>A</nam></device>"))
    assert.is_nil(made)
    contains(":3: not well-formed XML: mismatched tag", message)
    contains("No such file", select(2, svd.open "/none.svd"))
    made, message = assert(svd.open(file_of(peripheral(register("A", 0))))):draft "PP"
    assert.is_nil(made)
    contains("has no peripheral PP; did you mean 'P'?", message)
  end)

  it("is not led round in circles, nor made to grow without bound", function()
    refused("and that in the end from itself: no circle expected", peripheral(
      '<register derivedFrom="B"><name>A</name></register>'
      .. '<register derivedFrom="A"><name>B</name></register>'))
    refused("more than 16 clusters within one another", peripheral(
      "<cluster><name>A</name><addressOffset>0</addressOffset>"
      .. '<cluster derivedFrom="A"><name>B</name><addressOffset>0</addressOffset></cluster>'
      .. "</cluster>"))
    refused("<dim> is 0x10000000: at most 0x10000 expected", peripheral(register("A[%s]", 0,
      "<dim>0x10000000</dim><dimIncrement>4</dimIncrement>")))
    refused("<dim> is 60000: at most 4096 that have names of their own expected",
      peripheral(register("A%s", 0, "<dim>60000</dim><dimIncrement>4</dimIncrement>")))
    local inner = register("A", 0)
    for i = 1, 4 do
      inner = ("<cluster><name>C%d_%%s</name><dim>4000</dim><dimIncrement>4</dimIncrement>"
        .. "<addressOffset>0</addressOffset>%s</cluster>"):format(i, inner)
    end
    refused("the file comes to more than 262144 registers, fields and values", peripheral(inner))
    local began = os.clock() -- a name that is there again and again: half a second
    assert(svd.open(file_of(peripheral(register("A", 0):rep(20000))))):draft()
    assert.is_true(os.clock() - began < 20)
    local chain = register("A0", 0)
    for i = 1, 40 do
      chain = ('%s<register derivedFrom="A%d"><name>A%d</name></register>'):format(chain, i - 1, i)
    end
    refused("over more than 32 others", peripheral(chain))
    local function unread(text, whole)
      local made, message = svd.open(helper.file(whole))
      assert.is_nil(made)
      contains(text, message)
    end
    unread(":1: a document type declaration, where none is expected",
      '<!DOCTYPE device [<!ENTITY a "aaaa">]><device>&a;</device>')
    unread(":2: <a> is the 65th element within another: at most 64 expected",
      "<device>\n" .. ("<a>"):rep(100))
    unread(":1: more than 1048576 elements", "<device>" .. ("<a/>"):rep(2 ^ 20 + 9))
    unread(":1: <a> has more than 65536 bytes of text", "<device><a>" .. ("x"):rep(70000) .. "</a>")
  end)

  it("passes, or is refused by a message, however it is damaged", function()
    local whole = files.read(file_of(peripheral(register("A", 0,
      "<resetValue>1</resetValue><fields>"
      .. field("a", "[3:0]", "<enumeratedValues><enumeratedValue><name>e</name><value>1</value>"
      .. "</enumeratedValue></enumeratedValues>") .. "</fields>")
      .. "<cluster><dim>2</dim><dimIncrement>8</dimIncrement><name>C[%s]</name>"
      .. "<addressOffset>0x10</addressOffset>" .. register("X", 0) .. "</cluster>")
      .. '<peripheral derivedFrom="P"><name>Q</name><baseAddress>8</baseAddress></peripheral>'))
    local WORDS = { "0", "#1", "0xffffffffffffffff", "%s", "[%s]", "A", "P", "C[%s]", "65536", "" }
    math.randomseed(5)
    local passed = 0
    for _ = 1, 400 do
      local text = whole
      for _ = 1, math.random(2) do
        local from = math.random(#text)
        if math.random(2) == 1 then
          text = text:sub(1, from - 1) .. string.char(math.random(32, 126)) .. text:sub(from + 1)
        else -- the text of an element
          local first, last = text:find(">[^<]*</", from)
          if first then
            text = text:sub(1, first) .. WORDS[math.random(#WORDS)] .. text:sub(last - 1)
          end
        end
      end
      local made, message = svd.open(helper.file(text))
      if made then made, message = made:draft() end
      if made then
        local all = assert((loadstring or load)(made.text), made.text)()
        for _, make in pairs(all) do make() end
        passed = passed + 1
      else
        assert.equal("string", type(message))
      end
    end
    assert.is_true(passed > 50 and passed < 390, tostring(passed))
  end)
end)

-- A UART as a file has it.
local UART = peripheral(register("DATA", 0, "<size>8</size><readAction>modify</readAction>")
  .. register("STATUS", 4, "<access>read-only</access><resetValue>0x90</resetValue><fields>"
    .. field("full", "[4:4]") .. field("empty", "[7:7]") .. "</fields>")
  .. register("ISR", 8, "<modifiedWriteValues>oneToClear</modifiedWriteValues>")
  .. register("ERROR", 12, "<access>read-only</access><readAction>clear</readAction>")
  .. "<register><dim>4</dim><dimIncrement>8</dimIncrement><name>CH[%s]</name>"
  .. "<addressOffset>0x20</addressOffset><fields>" .. field("on", "[0:0]")
  .. "</fields></register>")

describe("an imported device", function()
  t.registers((import(UART)))
  local big = draft(file_of(UART, "<cpu><endian>big</endian></cpu>"), "P")
  t.registers(assert((loadstring or load)(big.text))()[1])
end)

describe("the program luna device import", function()
  local directory
  setup(function()
    directory = helper.sh "mktemp -d"
    files.write(directory .. "/chip.svd", files.read(file_of((UART:gsub(">P<", ">UART0<")))))
  end)
  teardown(function() helper.sh("rm -r " .. directory) end)

  local function ends(status, text, words)
    local output, found = program.luna(directory, words)
    assert.equal(status, found, words .. "\n" .. output)
    contains(text, output)
    return output
  end

  it("lists peripherals, prints tables, and says what is not in them", function()
    assert.equal("0x00001000  UART0", ends(0, "", "device import chip.svd --list"))
    assert.equal("luna: chip.svd:3: UART0.DATA: readAction modify is not for what can be written "
      .. "too",
      ends(0, "", "device import chip.svd --peripheral UART0 -o uart0.lua"))
    ends(0, "# UART0", "device describe uart0.lua")
    ends(126, "luna: --output: uart0.lua is there already",
      "device import chip.svd --peripheral UART0 -o uart0.lua 2>&1")
    local text = ends(0, "function peripherals.UART0()", "device import chip.svd 2>/dev/null")
    assert((loadstring or load)(text))
    ends(126, "luna: device import: none.svd: No such file", "device import none.svd")
    ends(126, "has no peripheral UART; did you mean 'UART0'?",
      "device import chip.svd --peripheral UART")
  end)

  it("has a help that fits 80 columns, whose examples do what they say", function()
    local text, count = ends(0, "Usage: luna device import", "device import --help"), 0
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    helper.sh(("rm -f %s/uart0.lua"):format(directory))
    for example in text:gmatch "\n  luna ([^\n]+)" do
      ends(0, "", example)
      count = count + 1
    end
    assert.equal(3, count)
  end)

  it("says what is missing where there is no LuaExpat", function()
    local output, status = program.luna(directory, "device import chip.svd",
      "printf 'error()' >lxp.lua; export LUA_PATH=\"./?.lua;$LUA_PATH\";")
    assert.equal(126, status)
    assert.equal("luna: device import: this Lua has no LuaExpat (Debian: apt-get install "
      .. "lua-expat)", output)
  end)
end)
