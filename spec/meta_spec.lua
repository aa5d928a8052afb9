-- SPDX-License-Identifier: MIT
-- The annotations in lua/lunavisor/meta name what the classes and options have, and nothing else.

local classes = require "lunavisor.class"
local luna = require "lunavisor"
local annotations = require "spec.support.annotations"
local helper = require "spec.support.helper"
local read = require("spec.support.files").read
local exits = require "lunavisor.exit.record"
local raw = require "lunavisor.binding.backend"

local function read_all(pattern)
  local texts = {}
  for path in helper.sh("ls " .. pattern):gmatch "[^\n]+" do texts[#texts + 1] = read(path) end
  return table.concat(texts, "\n")
end

local meta = read_all "lua/lunavisor/meta/*.lua"

local functions_of = annotations.functions
local function annotated(pattern) return annotations.named(meta, pattern) end

-- vCPUs have registers as fields and hide their methods: those that the source defines count.
local function methods_in(pattern)
  local names = {}
  for name in read_all(pattern):gmatch "\n *function methods%.([%w_]+)" do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- The fields of an annotated class, from all its places.
local function fields_of(class)
  local names = {}
  for body in ("\n" .. meta):gmatch("\n%-%-%-@class luna%." .. class .. "\n(.-)\n%l") do
    body = body:match "^(.-)\n%-%-%-@class" or body
    for name in ("\n" .. body):gmatch "\n%-%-%-@field ([%w_]+)" do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function sorted(list)
  table.sort(list)
  return list
end

-- The options that a call knows, by what it says of one that it does not.
local function options_of(call)
  local _, message = pcall(call, { _ = true })
  local names = {}
  for name in message:match("the options are ([%w_, ]+)"):gmatch "[%w_]+" do
    names[#names + 1] = name
  end
  return names
end

-- The kinds that an alias lists, without the aliases that it takes in.
local function alternatives(alias)
  local names = {}
  local body = (meta .. "\n"):match("%-%-%-@alias luna%." .. alias .. "[ \n](.-)\n%-%-%-[^|]")
  for name in body:gmatch '"([%w_]+)"' do names[#names + 1] = name end
  return sorted(names)
end

describe("the annotations", function()
  it("name every function of the module", function()
    assert.same(functions_of(luna), annotated "function luna%.([%w_]+)%(")
  end)

  it("name every call of the Hypervisor framework", function()
    assert.same(functions_of(require "lunavisor.hv"), annotated "function hv%.([%w_]+)%(")
  end)

  it("name the arguments of those calls", function()
    local calls, found = require("lunavisor.hv.call").calls, {}
    for name, list in meta:gmatch "function hv%.([%w_]+)%((.-)%)" do found[name] = list end
    for name, arguments in pairs(calls) do
      assert.equal(table.concat(arguments, ", "), found[name], name)
    end
  end)

  for class, module in pairs { buffer = "memory.buffer", space = "memory.space", vm = "vm.vm" } do
    it("name every method of a " .. class, function()
      local kind = require("lunavisor." .. module).class
      local _, methods = classes.names(setmetatable({}, kind)) -- those that come later too
      assert.same(functions_of(methods), annotated("function " .. class .. ":([%w_]+)%("))
    end)
  end

  it("name the device kit", function()
    local device = require "lunavisor.device"
    assert.same(functions_of(device), annotated "function device%.([%w_]+)%(")
    assert.same(functions_of(require("lunavisor.device.instance").methods),
      annotated "function dev:([%w_]+)%(")
    for class, module in pairs { line = "line", clock = "clock", fifo = "fifo" } do
      local methods, names = require("lunavisor.device." .. module).methods, {}
      for name in pairs(methods) do names[#names + 1] = name end
      assert.same(sorted(names), annotated("function " .. class .. ":([%w_]+)%("))
    end
  end)

  it("name every method of a process and of its system calls", function()
    for name, class in pairs { process = require("lunavisor.process").class,
      call = require("lunavisor.process.call").class } do
      assert.same(functions_of(class.__index), annotated("function " .. name .. ":([%w_]+)%("))
    end
  end)

  it("name every method of symbols", function()
    assert.same(methods_in "lua/lunavisor/text/symbols.lua",
      annotated "function symbols:([%w_]+)%(")
  end)

  it("name every method of a vcpu", function()
    local files = {}
    for name in ("vcpu debug exit interrupt linear run state thread"):gmatch "%l+" do
      files[#files + 1] = ("lua/lunavisor/vcpu/%s.lua"):format(name)
    end
    assert.same(methods_in(table.concat(files, " ")), annotated "function vcpu:([%w_]+)%(")
  end)

  it("name every kind of exit", function()
    local kinds = {}
    for _, name in ipairs(exits.names) do kinds[#kinds + 1] = name end
    assert.same(sorted(kinds), alternatives "exit_cause")
    assert.same({ "limit", "parked", "stopped" }, alternatives "exit_kind")
  end)

  it("name every answer of a handler", function()
    local source = read_all "lua/lunavisor/exit/dispatch.lua"
    local verdicts = {}
    for name in source:match("local verdicts = (%b{})"):gmatch "\n  (%l+) = function" do
      verdicts[#verdicts + 1] = name
    end
    assert.same(sorted(verdicts), alternatives "answer")
  end)

  it("name every field of an exit", function()
    local known = {}
    for _, name in ipairs(fields_of "exit") do known[name] = true end
    for _, path in ipairs { "exit/record", "vcpu/run", "vcpu/debug", "vm/thread" } do
      for names in read_all("lua/lunavisor/" .. path .. ".lua"):gmatch "\n *(exit%.[%w_., ]+) = " do
        for name in names:gmatch "exit%._?([%w_]+)" do assert.is_true(known[name], name) end
      end
    end
    for name in ("kind rip cpu space serial reason reason_name value"):gmatch "%S+" do
      assert.is_true(known[name], name)
    end
  end)

  it("name every register", function()
    local known, index = {}, 0
    for _, name in ipairs(fields_of "vcpu") do known[name] = true end
    while raw.register_name(index) do
      local name = raw.register_name(index):match "^%w+"
      assert.is_true(known[name], name)
      index = index + 1
    end
  end)

  it("name the options of luna.vm and of luna.buffer", function()
    assert.same(options_of(luna.vm), fields_of "vm_options")
    assert.same(options_of(luna.buffer), fields_of "buffer_options")
    assert.same(options_of(function(o) luna.repl({}, o) end), fields_of "repl_options")
  end)

  it("use types that are there", function()
    assert.same({}, annotations.undefined(meta))
    assert.same({ "luna.none in field x? table<string, fun(a: luna.none): integer|nil> of a none" },
      annotations.undefined "---@field x? table<string, fun(a: luna.none): integer|nil> of a none")
  end)

  it("tell of all parameters of a function, in order", function()
    assert.same({}, annotations.other_parameters(meta))
    local call = "function a.b(c, ...) end"
    assert.same({}, annotations.other_parameters("---@param c any\n---@param ... any\n" .. call))
    assert.same({ call }, annotations.other_parameters("---@param ... any\n" .. call))
  end)

  it("are not to be loaded", function()
    assert.has_error(function() require "lunavisor.meta.lunavisor" end)
  end)
end)

helper.kvm("the annotations of a VM's calls", function()
  local function check(class, call)
    assert.same(options_of(call), fields_of(class), class)
  end

  it("name their options", function()
    local guest = helper.guest { source = "hlt" }
    local vm, cpu, ram = guest.vm, guest.cpu, guest.ram
    check("vcpu_options", function(o) vm:vcpu(o) end)
    check("eventfd_options", function(o) vm:eventfd(o) end)
    check("trap_options", function(o) vm:pio(0, 1, { read = print }, o) end)
    check("map_options", function(o) vm.default:map(ram, 0, o) end)
    check("core_options", function(o) vm:core("x", o) end)
    check("vm_run_options", function(o) vm:run(o) end)
    check("timer_options", function(o) vm:timer(1, print, o) end)
    check("run_options", function(o) cpu:run(o) end)
    check("break_options", function(o) cpu:breakpoint(0, o) end)
    check("step_options", function(o) cpu:step(1, o) end)
    check("trace_options", function(o) cpu:trace(print, o) end)
    check("load_options", function(o) luna.load(vm, "x", o) end)
    check("process_options", function(o) luna.process("x", o) end)
    check("route", function(o) vm:route { o } end)
  end)
end)
