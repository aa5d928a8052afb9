-- SPDX-License-Identifier: MIT
-- The target description: which registers there are, as XML for gdb.

local M = {}

local architectures = { [64] = "i386:x86-64", [32] = "i386", [16] = "i8086" }

-- SDM Vol. 1, 3.4.3
local flags = { CF = 0, PF = 2, AF = 4, ZF = 6, SF = 7, TF = 8, IF = 9, DF = 10, OF = 11, NT = 14,
  RF = 16, VM = 17, AC = 18, VIF = 19, VIP = 20, ID = 21 }

local function flags_xml()
  local names, lines = {}, {}
  for name in pairs(flags) do names[#names + 1] = name end
  table.sort(names, function(a, b) return flags[a] < flags[b] end)
  for i, name in ipairs(names) do
    lines[i] = ('<field name="%s" start="%d" end="%d"/>'):format(name, flags[name], flags[name])
  end
  return '<flags id="i386_eflags" size="4">' .. table.concat(lines) .. "</flags>"
end

local views = {
  { "v4_float", "ieee_single", 4 }, { "v2_double", "ieee_double", 2 }, { "v16_int8", "int8", 16 },
  { "v8_int16", "int16", 8 }, { "v4_int32", "int32", 4 }, { "v2_int64", "int64", 2 },
}

local function vector_xml()
  local kinds, fields = {}, {}
  for i, view in ipairs(views) do
    kinds[i] = ('<vector id="of_%s" type="%s" count="%d"/>'):format(view[1], view[2], view[3])
    fields[i] = ('<field name="%s" type="of_%s"/>'):format(view[1], view[1])
  end
  return table.concat(kinds) .. '<union id="vec128">' .. table.concat(fields)
    .. '<field name="uint128" type="uint128"/></union>'
end

local types = {
  ["org.gnu.gdb.i386.core"] = flags_xml, ["org.gnu.gdb.i386.sse"] = vector_xml,
}

--- The description of the registers that registers.lua gives for code of so many bits.
function M.xml(features, bits)
  local parts, number = {}, 0
  for _, feature in ipairs(features) do
    parts[#parts + 1] = ('<feature name="%s">'):format(feature.name)
    if types[feature.name] then parts[#parts + 1] = types[feature.name]() end
    for _, one in ipairs(feature) do
      parts[#parts + 1] = ('<reg name="%s" bitsize="%d" type="%s" regnum="%d"%s/>'):format(one.name,
        one.bits, one.type, number, one.group and (' group="%s"'):format(one.group) or "")
      number = number + 1
    end
    parts[#parts + 1] = "</feature>"
  end
  return ('<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
    .. "<architecture>%s</architecture>%s</target>"):format(architectures[bits],
    table.concat(parts))
end

return M
