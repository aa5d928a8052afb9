-- SPDX-License-Identifier: MIT
-- Misuse of every method and field at random: what the library raises blames the caller's line, and
-- wrong arguments do no more than that. LUNA_SEED (1) gives another run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local misuse = require "spec.support.misuse"

local random, seed = misuse.random, misuse.seed

helper.kvm("misuse", function()
  local found

  local function try(what, fn, list)
    local message = misuse.wrong(fn, list)
    if message then
      found[what] = ("%s(%s), LUNA_SEED=%d: %s"):format(what, misuse.show(list), seed, message)
    end
  end

  local text = misuse.quiet(tostring)

  local function round(all, before)
    for _, one in ipairs(all) do
      local name, object = one.name, one.object
      local methods = misuse.methods_of(object)
      for _, method in ipairs(misuse.names_of(methods, "function")) do
        for _ = 1, method == "close" and 0 or 2 do
          local list = misuse.arguments(all, method)
          table.insert(list, 1, object)
          list.n = list.n + 1
          before()
          try(name .. ":" .. method, methods[method], list)
        end
      end
      for _ = 1, 4 do
        local key = misuse.fields[random(#misuse.fields)]
        try(("%s[%s]"):format(name, tostring(key)), misuse.get, { object, key, n = 2 })
        if getmetatable(object).__newindex and rawget(object, key) == nil then
          try(("%s[%s] = x"):format(name, tostring(key)), misuse.set,
            { object, key, misuse.value(all), n = 3 })
        end
      end
      try("tostring of " .. name, text, { object, n = 1 })
    end
  end

  before_each(function() found = {} end)

  local function chance(name, body)
    it(name, function()
      if helper.stressed then pending "a round takes minutes with the collector always at work" end
      body()
    end)
  end

  local function check()
    local texts = {}
    for _, message in pairs(found) do texts[#texts + 1] = message end
    table.sort(texts)
    assert.equal("", table.concat(texts, "\n"))
  end

  chance("of methods and fields raises at the caller's line", function()
    for _ = 1, 15 do
      round(misuse.objects(), function() end)
      helper.clean()
    end
    check()
  end)

  chance("of the library's functions does too", function()
    for _ = 1, 15 do
      local all = misuse.objects()
      for _, name in ipairs { "vm", "buffer", "disasm", "hex", "capability", "u64" } do
        try("luna." .. name, luna[name], misuse.arguments(all))
      end
      helper.clean()
    end
    check()
  end)

  chance("of a vCPU that is started does too", function()
    for _ = 1, 8 do
      local all, cpu = misuse.objects()
      for _, one in ipairs(all) do
        if one.name == "cpu" then cpu = one.object end
      end
      round(all, function()
        if not cpu.started then cpu:start() end
      end)
      helper.clean()
    end
    check()
  end)
end)
