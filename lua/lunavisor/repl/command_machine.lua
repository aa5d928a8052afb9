-- SPDX-License-Identifier: MIT
-- Commands of a prompt about the machine: devices, screen, keys, accesses to nothing, gdb, a core.

local unescape = require "lunavisor.text.escape"

local function device(vm, name)
  return vm.attached.entries[name] and vm.devices[name] or nil
end

local function unknown_text(list)
  local lines = {}
  for i, one in ipairs(list) do
    lines[i] = ("%s of %d byte%s at %s 0x%x, %d time%s"):format(one.access == "w" and "write"
      or "read", one.size, one.size == 1 and "" or "s", one.kind == "pio" and "port" or "gpa",
      one.address, one.count, one.count == 1 and "" or "s")
  end
  return #lines > 0 and table.concat(lines, "\n") or "none"
end

-- "dir\n", as Lua or a shell would have it.
local function unquoted(rest)
  return unescape(rest:match '^"(.*)"$' or rest:match "^'(.*)'$" or rest)
end

return function(add)
  add("dev", "[NAME]", "the devices, or the registers of one", function(self, rest)
    local vm = self:need_vm()
    return rest == "" and tostring(vm:devices()) or tostring(vm.devices[rest])
  end)

  add("screen", "[FILE.png]", "the text on the screen, or a picture of it", function(self, rest)
    local vga = device(self:need_vm(), "vga")
    if not vga then error("this VM has no device vga", 0) end
    if rest == "" then return table.concat(vga:text(), "\n") end
    local ok, message = vga:screenshot(rest)
    if not ok then error(message, 0) end
    return ""
  end)

  add("type", '"TEXT\\n"', "type it on the keyboard, or send it to com1", function(self, rest)
    local vm, text = self:need_vm(), unquoted(rest)
    local keyboard, com1 = device(vm, "keyboard"), device(vm, "com1")
    if keyboard then
      keyboard:type(text)
    elseif com1 then
      com1:feed(text)
    else
      error("this VM has neither a device keyboard nor com1", 0)
    end
    return ""
  end)

  add("unknown", "", "what the guest did where no device is", function(self)
    return unknown_text(self:need_vm():unknown())
  end)

  add("gdb", "PORT", "let gdb have the guest: 0 for a port that is free", function(self, rest)
    local port = rest ~= "" and self:numbers(rest) or 0
    local server, message = self:need_vm():gdb { port = port }
    if not server then error(message, 0) end
    self.say(("waiting for gdb: target remote :%d\n"):format(server.port))
    local ok, ending, exit = pcall(server.serve, server)
    server:close()
    if not ok then error(ending, 0) end
    self.exit = exit or self.exit
    self:look()
    return "gdb: " .. ending
  end)

  add("core", "FILE", "write a core file", function(self, rest)
    local ok, message = self:need_vm():core(rest)
    if not ok then error(message, 0) end
    return ""
  end)
end
