-- SPDX-License-Identifier: MIT
-- What a subcommand tells argparse of itself, without argparse: its arguments, options and
-- subcommands with all that is said of each.

local M = {}

-- An element keeps what its methods are called with, in `said` by their names.
local Element = {}
function Element.__index(_, key)
  return function(self, value)
    self.said[key] = value
    return self
  end
end

local Node = {}

local function node_of(name, about)
  return setmetatable({ name = name, about = about, arguments = {}, options = {}, commands = {},
    usage_text = false, epilog_text = false }, Node)
end

local methods = {}

function methods.argument(self, name, about, default)
  local element = { name = name, about = about or "", said = { default = default } }
  self.arguments[#self.arguments + 1] = element
  return setmetatable(element, Element)
end

local function option(self, name, about, default, flag)
  local element = { name = name, about = about or "", flag = flag, said = { default = default } }
  self.options[#self.options + 1] = element
  return setmetatable(element, Element)
end

function methods.option(self, name, about, default)
  return option(self, name, about, default, false)
end

function methods.flag(self, name, about)
  return option(self, name, about, nil, true)
end

function methods.command(self, name, about)
  local inner = node_of(name, about)
  self.commands[#self.commands + 1] = inner
  return inner
end

function methods.usage(self, text)
  self.usage_text = text
  return self
end

function methods.epilog(self, text)
  self.epilog_text = text
  return self
end

-- All else says nothing that is of use here.
function Node.__index(_, key)
  return methods[key] or function(self) return self end
end

--- A subcommand { about, describe } as { name, about, arguments, options, commands, usage_text,
--- epilog_text }, the arguments and options as lists of { name, about, flag = (of an option: it has
--- no value), said = { default, argname, choices, args ... } }.
function M.record(name, subcommand)
  local node = node_of(name, subcommand.about)
  subcommand.describe(node)
  return node
end

return M
