-- SPDX-License-Identifier: MIT
-- What the library says of misuse of luna.machine.
-- message_spec.lua compares.

return function(o)
  local luna = o.luna

  return {
    { "luna.machine: the name of a kind expected, got nil", function() luna.machine() end },
    { "luna.machine: there is no kind \"pcc\"; did you mean 'pc'?",
      function() luna.machine "pcc" end },
    { "luna.machine pc: a table of options expected, got number",
      function() luna.machine("pc", 5) end },
    { "luna.machine bare: unknown option 'memroy'; did you mean 'memory'?",
      function() luna.machine("bare", { memroy = 1 }) end },
    { "luna.machine microvm: unknown option 'disk'",
      function() luna.machine("microvm", { disk = "" }) end },
  }
end
