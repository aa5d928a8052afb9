-- SPDX-License-Identifier: MIT
-- The first file system of Linux in clients: busybox, and an /init that does what a test asks for.

local cpio = require "cpio"
local process = require "process"

local M = { BUSYBOX = "bin/busybox" }

--- The path of a new file with an initramfs whose /init says that it is there, runs the script and
--- turns the power off. `files` are more of cpio's list.
function M.make(script, files)
  local init = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc none /proc\n"
    .. "echo init of $(uname -sr)\n" .. script .. "\necho done\npoweroff -f\n"
  local list = { { "bin" }, { "dev" }, { "proc" },
    { "dev/console", major = 5, minor = 1 }, { "dev/null", major = 1, minor = 3 },
    { "dev/zero", major = 1, minor = 5 }, { "dev/ttyS1", major = 4, minor = 65 },
    { "bin/busybox", process.read(process.find(M.BUSYBOX)) }, { "init", init } }
  for _, one in ipairs(files or {}) do list[#list + 1] = one end
  return process.make_file(cpio(list))
end

return M
