-- SPDX-License-Identifier: MIT
-- The calls that finalizers.lua lets a finalizer come into, and what they give: those of
-- anywhere_calls.lua, calls that read and set the fields that the annotations name, by their kinds,
-- and calls that fail.

local files = require "spec.support.files"
local luna = require "lunavisor"
local raw = require "lunavisor.binding.backend"

-- The fields of each class of the annotations, in order: name and type.
local function annotated()
  local classes = {}
  local list = assert(io.popen "ls lua/lunavisor/meta/*.lua")
  for path in list:lines() do
    local class
    for line in files.read(path):gmatch "[^\n]+" do
      class = line:match "^%-%-%-@class ([%w_.]+)" or class
      local name, kind = line:match "^%-%-%-@field ([%w_]+)%?? (%S+)"
      if name then
        classes[class] = classes[class] or {}
        table.insert(classes[class], { name = name, kind = kind })
      end
    end
  end
  list:close()
  return classes
end

local classes = annotated()

-- Fields that are not values: something is called, or is there by number.
local function further(calls, world)
  local cpu, spare = world.cpu, world.spare
  for _, name in ipairs { "xmm", "ymm", "zmm", "st" } do
    calls["vcpu." .. name] = function()
      local vector = cpu[name][1]
      vector.u32[0] = 5
      return vector.u8[0], vector.u16[0], vector.u32[0], vector.u64[0], vector.f32[0],
        vector.f64[0], vector:bytes()
    end
  end
  calls["vcpu.st number"] = function() return cpu.st[0]:number() end
  calls["vcpu.k"] = function() return cpu.k[1] end
  calls["vcpu.msr"] = function() return cpu.msr.efer, cpu.msr[0x10a], cpu.msr.star end
  calls["vcpu.msr="] = function()
    cpu.msr.star, cpu.msr[0xc0000082] = 5, luna.u64(7)
    return cpu.msr.lstar
  end
  calls["vcpu.xsave="] = function() cpu.xsave = cpu.xsave end
  calls["vcpu.blocking="] = function() cpu.blocking = { sti = true } end
  calls["vcpu.mp_state="] = function() spare.mp_state = "halted" end
  calls["cpuid.list"] = function() return spare.cpuid:list() end
  calls["cpuid.filter"] = function()
    spare.cpuid:filter(function(answer) answer.eax = answer.eax end)
    return spare.cpuid[1]
  end
  calls["cpuid.set"] = function() spare.cpuid:set(0x40000000, 0, { eax = 5 }) end
  calls["state"] = function() return cpu:state() end
  calls["apic.get"] = function() return spare.apic:get() end
  calls["past exits"] = function() return cpu:last_exits() end
  calls["past exceptions"] = function() return cpu:last_exceptions() end
  calls["raw place"] = function()
    cpu.rip = world.dirty
    return raw.place(cpu, true)
  end
  calls["ram.read"] = function() return world.ram:read(0, 0x2000), world.ram:read(0, 16) end
  calls["dirty"] = function()
    for _ in world.vm.default:dirty(0, 0x10000) do end
    world.ram:mark(world.dirty, world.far / 0x200)
    local list = {}
    for gpa in world.vm.default:dirty(0, 0x10000) do list[#list + 1] = gpa end
    return list
  end
  calls["raw dirty_take"] = function()
    for _ in world.vm.default:dirty(0, 0x10000) do end
    world.ram:mark(world.dirty, world.far / 0x200)
    return raw.dirty_take(world.vm, 0, 0, 0x10000, 0)
  end
end

local function is_closed(problem)
  return tostring(problem):find("closed", 1, true)
end

-- What is made with options that are not those of the other world.
local function making(calls, world)
  local vm, ram = world.vm, world.ram
  calls["made vcpu"] = function()
    local cpu = vm:vcpu { mode = world.mode, rip = world.dirty, rsp = world.far }
    local cr0, rip, rsp = cpu.cr0, cpu.rip, cpu.rsp
    cpu:close()
    return cr0, rip, rsp
  end
  calls["made buffer"] = function()
    local adopted = luna.buffer { pointer = ram:pointer(), size = world.far / 0x100 }
    local size = adopted.size
    adopted:close()
    return size
  end
  calls["made eventfd"] = function()
    local options = { port = world.far / 0x10000, size = 2, match = world.dirty }
    local bell = vm:eventfd(options)
    local ok, problem, message = pcall(vm.eventfd, vm, options) -- refused where the first is
    if not ok and is_closed(problem) then error(problem, 0) end
    bell:close()
    return problem, message
  end
end

local function failing(calls, world)
  local vm, ram, cpu = world.vm, world.ram, world.cpu
  local far = world.far
  calls["fails map"] = function() vm.default:map(ram, 0, { size = far / 0x100 }) end
  calls["fails unmap"] = function() return vm.default:unmap(far, 0x1000) end
  calls["fails linear"] = function() return cpu:u8(far) end
  calls["fails read"] = function() return cpu:read(far, 5) end
  calls["fails space"] = function() return vm.default:read(far, 5) end
  calls["fails copy"] = function() ram:copy(far, ram, 0, 1) end
  calls["fails offset"] = function() return ram:u8(far) end
  calls["fails breakpoint"] = function() return cpu:breakpoint(far, { access = "w", size = 3 }) end
  calls["fails msr"] = function() return cpu.msr[far] end
  calls["fails trap"] = function() return vm:pio(0x10, far / 0x10000, { read = print }) end
  calls["fails load"] = function() return luna.load(vm, { bytes = ("x"):rep(far / 0x10000) }) end
  calls["fails buffer"] = function() return luna.buffer { file = "/nowhere/" .. far } end
end

-- What the fields of a class are read of, made when it is asked for: a function for each.
local function objects_of(world)
  local vm, cpu, other, spare = world.vm, world.cpu, world.other, world.spare
  return {
    vm = function() return vm end,
    space = function() return vm.default end,
    buffer = function() return world.ram end,
    vcpu = function() return cpu end,
    spare = function() return spare end,
    apic = function() return spare.apic end,
    exit = function()
      cpu.rip = 0x1000
      return assert(cpu:run { timeout = 5 })
    end,
    breakpoint = function() return spare:breakpoint(0x4000) end,
    trap = function() return vm.traps[next(vm.traps)] end,
    timer = function() return vm:timer(1000, print) end,
    eventfd = function() return vm:eventfd { port = 0x90, size = 2 } end,
    loaded_image = function()
      return assert(luna.load(other, os.getenv "LUNA_ANYWHERE_ELF", { format = "elf" }))
    end,
  }
end

-- Reads a field, with the parts of a segment; an error that is always there is what it gives. Lists
-- of a VM lose what is closed.
local function read(object, field)
  local ok, value = pcall(function() return object[field.name] end)
  if not ok and is_closed(value) then error(value, 0) end
  local parts = classes[field.kind]
  if not ok or type(value) == "function" then return ok or value end
  if field.name == "fd" then return nil end -- nil when closed, and another for each
  if type(value) ~= "table" or not parts or parts[1].kind ~= "luna.u64" then
    return type(value) == "table" and not getmetatable(value) and "a table" or value
  end
  local list = {}
  for i, part in ipairs(parts) do list[i] = value[part.name] end
  return list
end

-- Calls that read all fields of one kind, and that set them to what they are.
local function add_fields(calls, class, object)
  local kinds = {}
  for _, field in ipairs(classes["luna." .. (class == "spare" and "vcpu" or class)]) do
    local name = class .. "." .. (field.kind:match "^[%w_.]+" or "choice"):gsub("^luna%.", "")
    kinds[name] = kinds[name] or {}
    table.insert(kinds[name], field)
  end
  for name, fields in pairs(kinds) do
    calls[name] = function()
      local values = {}
      for _, field in ipairs(fields) do values[field.name] = read(object(), field) end
      return values
    end
    if name == "vcpu.u64" then
      calls["vcpu.u64="] = function()
        for _, field in ipairs(fields) do
          local value = read(object(), field)
          local ok, problem = pcall(function() object()[field.name] = value end)
          if not ok and is_closed(problem) then error(problem, 0) end
        end
      end
    end
  end
end

--- The calls by name, and a function that makes what the call of a name needs beforehand. world: of
--- anywhere_world.lua; its .far is an address where nothing is, .dirty the offset of a page that is
--- written, and .mode that of a further vCPU.
return function(world)
  local calls = require "spec.support.anywhere_calls"(world)
  calls.asm = nil -- works on no object, and takes its time
  local made = {}
  local objects = objects_of(world)
  for class in pairs(objects) do
    local function object() return made[class] end
    add_fields(calls, class, object)
  end
  further(calls, world)
  making(calls, world)
  failing(calls, world)
  return calls, function(name)
    local class = name:match "^([%w_]+)%."
    if objects[class] then made[class] = objects[class]() end
  end
end
