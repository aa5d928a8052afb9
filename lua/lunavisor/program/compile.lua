-- SPDX-License-Identifier: MIT
-- What make runs: compile.lua KIND OUTPUT DIRECTORY PLACE FILE... [-- DIRECTORY PLACE FILE...]...
-- compiles FILEs of DIRECTORY that are going to be in PLACE for the engine that runs this
-- (compiled.lua), and the modules of others that the program begins with, where they are there.
-- KIND: "checked", or "sealed" where the sources of PLACE are not to be looked at.

local FOREIGN = { "argparse" }

local compiled = dofile(arg[0]:match "^(.*)/" .. "/compiled.lua")

local function name_of(file)
  return (file:gsub("/init%.lua$", ""):gsub("%.lua$", ""):gsub("/", "."))
end

local sealed, output = arg[1] == "sealed", arg[2]
local modules, i = {}, 3
while arg[i] do
  local directory, place = arg[i], arg[i + 1]
  i = i + 2
  while arg[i] and arg[i] ~= "--" do
    modules[#modules + 1] = { name = name_of(arg[i]), file = directory .. "/" .. arg[i],
      path = place .. "/" .. arg[i], sealed = sealed }
    i = i + 1
  end
  i = i + 1
end
for _, name in ipairs(FOREIGN) do
  local path = package.searchpath and package.searchpath(name, package.path)
  if path then modules[#modules + 1] = { name = name, file = path, path = path } end
end

local file = assert(io.open(output, "wb"))
file:write(compiled.make(modules))
assert(file:close())
