-- SPDX-License-Identifier: MIT
-- Modules that few programs come to use: loaded when something of them is asked for, as most of a
-- program's start is loading.

local meta = {}

function meta.__index(stand_in, key)
  local value = require(rawget(stand_in, meta))[key]
  rawset(stand_in, key, value)
  return value
end

--- What stands for the module of that name: the functions in it, each fetched once.
return function(name)
  return setmetatable({ [meta] = name }, meta)
end
