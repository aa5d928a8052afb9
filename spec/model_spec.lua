-- SPDX-License-Identifier: MIT
-- Random operations on the maps of a VM against a model that knows each page, and a guest that
-- looks at them. LUNA_SEED chooses another run beside the kept ones, LUNA_OPERATIONS its length.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local PAGE, BASE, PAGES = 0x1000, 0x400000, 48
local ALL = { "---", "r--", "r--", "-w-", "rw-", "rw-", "r-x", "r-x", "rwx", "rwx", "rwx", "rwx",
  "rwx", "rwx", "--x", "-wx" }
local ENFORCED = { ["---"] = "---", ["r--"] = "r-x", ["-w-"] = "rwx", ["rw-"] = "rwx",
  ["r-x"] = "r-x", ["rwx"] = "rwx" }
local STOPS = { r = 0x1000, w = 0x1010, x = 0x1020 }

-- The same numbers on every engine (Park and Miller).
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647
    return math.floor(state / 7) % n
  end
end

-- ---- The model ----

-- A table of pages by index; a page is { buffer, offset, rights, ... } and is never changed.

local function enforced(page)
  return page.strict and page.rights or ENFORCED[page.rights]
end

local function has_slot(page)
  if page.strict then return page.rights == "rwx" or page.rights == "r-x" end
  return page.rights ~= "---"
end

local function with(page, changes)
  local new = {}
  for key, value in pairs(page) do new[key] = value end
  for key, value in pairs(changes) do new[key] = value end
  return new
end

local function joins(lower, upper)
  if not lower or not upper or lower.buffer ~= upper.buffer or lower.offset + 1 ~= upper.offset
    or lower.rights ~= upper.rights or lower.strict ~= upper.strict
    or lower.window ~= upper.window or lower.separate ~= upper.separate then
    return false
  end
  return not lower.separate or lower.piece == upper.piece
end

-- A separate region that is cut stays cut.
local function cut(pages, at)
  local piece = pages[at] and pages[at].piece
  if not piece or not pages[at - 1] or pages[at - 1].piece ~= piece then return end
  local new = {}
  while pages[at] and pages[at].piece == piece do
    pages[at] = with(pages[at], { piece = new })
    at = at + 1
  end
end

local function hole(pages, first, count)
  for i = first, first + count - 1 do
    if not pages[i] then return ("nothing is mapped at 0x%x"):format(BASE + PAGE * i) end
  end
end

-- Each changes `pages` and gives nil, or says how it must fail.
local model = {}

function model.map(pages, c)
  if c.unaligned then return "not a multiple of the page size" end
  if c.offset + c.count > c.buffer.size / PAGE then return "the buffer has" end
  if c.rights == "--x" or c.rights == "-wx" then return "execute without read" end
  if c.window and not c.buffer:fd() then return "only memfd and shared file buffers" end
  for i = c.first, c.first + c.count - 1 do
    if pages[i] then return "is mapped already" end
  end
  local piece, window = {}, c.window and {} or nil
  for i = 0, c.count - 1 do
    pages[c.first + i] = { buffer = c.buffer, offset = c.offset + i, rights = c.rights,
      strict = c.strict, separate = c.separate, window = window, piece = piece }
  end
end

function model.unmap(pages, c)
  if c.unaligned then return "not a multiple of the page size" end
  local missing = hole(pages, c.first, c.count)
  if missing then return missing end
  cut(pages, c.first)
  cut(pages, c.first + c.count)
  for i = c.first, c.first + c.count - 1 do pages[i] = nil end
end

function model.protect(pages, c)
  if c.unaligned then return "not a multiple of the page size" end
  if c.rights == "--x" or c.rights == "-wx" then return "execute without read" end
  local missing = hole(pages, c.first, c.count)
  if missing then return missing end
  cut(pages, c.first)
  cut(pages, c.first + c.count)
  for i = c.first, c.first + c.count - 1 do
    -- not `with`: strict may become nil
    local page = with(pages[i], { rights = c.rights })
    page.strict = c.strict
    pages[i] = page
  end
end

-- The regions of a model: the first page, how many.
local function regions_of(pages)
  local list, i = {}, 0
  while i < PAGES do
    local count = 1
    if pages[i] then
      while joins(pages[i + count - 1], pages[i + count]) do count = count + 1 end
      list[#list + 1] = { first = i, count = count, page = pages[i] }
    end
    i = i + count
  end
  return list
end

local function line(first, count, id, offset, rights, given, flags, slot)
  return ("%d+%d %d:%d %s %s%s%s%s%s"):format(first, count, id, offset, rights, given,
    flags.strict and " strict" or "", flags.separate and " separate" or "",
    flags.window and " window" or "", slot and " slot" or "")
end

-- ---- The run ----

local Run = {}
Run.__index = Run

local function new_run(seed)
  local vm = helper.keep(luna.vm())
  local run = setmetatable({ vm = vm, roll = generator(seed), spaces = {}, slots = {} }, Run)
  run.buffers = {
    helper.keep(luna.buffer { size = PAGES * PAGE, memfd = true }),
    helper.keep(luna.buffer(PAGES * PAGE)),
    helper.keep(luna.buffer { size = PAGES * PAGE, memfd = true }),
  }
  for i, buffer in ipairs(run.buffers) do
    for page = 0, PAGES - 1 do
      buffer:u8(page * PAGE, 60 * i + page)
      buffer:u8(page * PAGE + 0x800, 0xf4) -- hlt
    end
  end
  run.code = helper.keep(luna.buffer "64K")
  -- mov al, [ebx]; hlt     mov [ebx], al; hlt     jmp ebx
  run.code:write(STOPS.r, "\x8a\x03\xf4")
  run.code:write(STOPS.w, "\x88\x03\xf4")
  run.code:write(STOPS.x, "\xff\xe3")
  run:add_space(vm.default)
  run.cpu = helper.keep(vm:vcpu { mode = "protected", rsp = 0x8000 })
  return run
end

function Run.add_space(self, space)
  assert(space:map(self.code, 0))
  self.spaces[#self.spaces + 1] = { space = space, pages = {} }
end

function Run.pick(self, list)
  return list[1 + self.roll(#list)]
end

function Run.range(self)
  local first = self.roll(PAGES)
  local most = self.roll(4) == 0 and PAGES - first or math.min(6, PAGES - first)
  return first, 1 + self.roll(most)
end

-- A range where nothing is mapped, mostly.
function Run.free_range(self, pages)
  local first, count = self:range()
  if self.roll(5) == 0 then return first, count end
  for i = 0, PAGES - 1 do
    local at, size = (first + i) % PAGES, 0
    while size < count and at + size < PAGES and not pages[at + size] do size = size + 1 end
    if size > 0 then return at, size end
  end
  return first, count
end

-- A range that is mapped, mostly.
function Run.mapped_range(self, pages)
  local first, count = self:range()
  local regions = regions_of(pages)
  if #regions == 0 or self.roll(8) == 0 then return first, count end
  local region = self:pick(regions)
  first = region.first + self.roll(region.count)
  return first, self.roll(3) == 0 and count or 1 + self.roll(region.first + region.count - first)
end

function Run.change(self, pages)
  local kind = self:pick { "map", "map", "map", "unmap", "protect", "protect" }
  local c = { kind = kind, unaligned = self.roll(40) == 0 or nil, rights = self:pick(ALL),
    strict = self.roll(4) == 0 or nil }
  if kind == "map" then
    c.first, c.count = self:free_range(pages)
    c.buffer = self:pick(self.buffers)
    -- mostly what continues a neighbour at the same place
    c.offset = self.roll(3) > 0 and c.first or self.roll(PAGES)
    c.separate = self.roll(6) == 0 or nil
    c.window = self.roll(4) == 0 or nil
    if c.window and self.roll(3) > 0 then -- of windows that could be one but must not
      c.buffer, c.offset, c.rights, c.strict = self.buffers[1], c.first, "rwx", nil
    end
  else
    c.first, c.count = self:mapped_range(pages)
  end
  return c
end

-- Calls the method of a space or an update.
local function carry_out(target, c)
  local gpa, size = BASE + PAGE * c.first + (c.unaligned and 8 or 0), PAGE * c.count
  if c.kind == "map" then
    return target:map(c.buffer, PAGE * c.offset, gpa, size, c.rights,
      { strict = c.strict, separate = c.separate, window = c.window })
  elseif c.kind == "unmap" then
    return target:unmap(gpa, size)
  end
  return target:protect(gpa, size, c.rights, { strict = c.strict })
end

-- Checks how a call went: fn must fail with the text, or else succeed.
local function expect(text, fn)
  local ok, value, message = pcall(fn)
  if not ok then message = value elseif value then message = nil end
  if text == nil then
    if message then error("it should have been allowed: " .. message, 0) end
  elseif not message or not message:find(text, 1, true) then
    error(("%q expected, got %s"):format(text, tostring(message)), 0)
  end
end

local function copy(pages)
  local new = {}
  for i, page in pairs(pages) do new[i] = page end
  return new
end

local operations = {}

function operations.one(run, entry)
  local c = run:change(entry.pages)
  local after = copy(entry.pages)
  local failure = model[c.kind](after, c)
  expect(failure, function() return carry_out(entry.space, c) end)
  if not failure then entry.pages = after end
end

function operations.update(run, entry)
  local after, changes, failure = copy(entry.pages), {}, nil
  for i = 1, 1 + run.roll(4) do
    changes[i] = run:change(after)
    failure = failure or model[changes[i].kind](after, changes[i])
  end
  expect(failure, function()
    return entry.space:update(function(update)
      for _, c in ipairs(changes) do carry_out(update, c) end
    end)
  end)
  if not failure then entry.pages = after end
end

function operations.remap(run, entry)
  local first = run.roll(PAGES)
  local windows = {}
  for _, region in ipairs(regions_of(entry.pages)) do
    if region.page.window then windows[#windows + 1] = region.first end
  end
  if #windows > 0 and run.roll(8) > 0 then first = run:pick(windows) end
  local buffer, offset = run:pick(run.buffers), run.roll(PAGES)
  local failure, found = "no window begins there", nil
  for _, region in ipairs(regions_of(entry.pages)) do
    if region.first == first and region.page.window then
      found = region
      failure = offset + region.count > PAGES and "the buffer has"
        or not buffer:fd() and "only memfd and shared file buffers" or nil
    end
  end
  expect(failure, function()
    return entry.space:remap(BASE + PAGE * first, buffer, PAGE * offset)
  end)
  if failure then return end
  for i = 0, found.count - 1 do
    entry.pages[first + i] = with(entry.pages[first + i], { buffer = buffer, offset = offset + i })
  end
end

function operations.space(run)
  if #run.spaces < 4 and run.roll(2) == 0 then
    return run:add_space(assert(run.vm:space()))
  end
  local i = 1 + run.roll(#run.spaces)
  local entry = run.spaces[i]
  local busy = run.cpu.space == entry.space
  expect(entry.space.id == 0 and "default space" or busy and "is in it" or nil,
    function() return entry.space:close() end)
  if entry.space.id ~= 0 and not busy then
    table.remove(run.spaces, i)
    run.slots[entry] = nil
  end
end

function operations.move(run, entry)
  run.cpu:set_space(entry.space)
  assert(run.cpu.space == entry.space)
end

-- What must stay: the slot number of a region that is as it was, however its neighbours changed.
local function check_slots(run, entry, regions, expected)
  local numbers, seen = {}, {}
  for i, region in ipairs(regions) do
    if region.slot then
      assert(not seen[region.slot], "a slot number is used twice")
      seen[region.slot] = true
      local page = expected[i].page
      local what = page.window or ("%d:%d"):format(page.buffer.id, page.offset)
      local key = ("%d+%d %s %s"):format(region.gpa, region.size, tostring(what), region.enforced)
      numbers[key] = region.slot
      local before = run.slots[entry] and run.slots[entry][key]
      if before and before ~= region.slot and not page.window then
        error(("slot %d of an unchanged region became %d"):format(before, region.slot), 0)
      end
    end
  end
  run.slots[entry] = numbers
  local listed = 0
  for _, slot in ipairs(entry.space:slots()) do
    if slot.gpa >= BASE and slot.gpa < BASE + PAGES * PAGE then
      listed = listed + 1
      local region = entry.space:find(slot.gpa)
      assert(region.slot == slot.slot and region.size == slot.size
        and slot.read_only == (region.enforced == "r-x"), "slots() and regions() differ")
    end
  end
  local wanted = 0
  for _ in pairs(seen) do wanted = wanted + 1 end
  assert(listed == wanted, "slots() and regions() differ in number")
end

function Run.check(self)
  for _, entry in ipairs(self.spaces) do
    local is, should, regions = {}, {}, {}
    for _, region in ipairs(entry.space:regions()) do
      if region.gpa >= BASE and region.gpa < BASE + PAGES * PAGE then
        regions[#regions + 1] = region
        is[#is + 1] = line((region.gpa - BASE) / PAGE, region.size / PAGE, region.buffer_id,
          region.offset / PAGE, region.rights, region.enforced, region, region.slot)
      end
    end
    local expected = regions_of(entry.pages)
    for i, region in ipairs(expected) do
      local page = region.page
      should[i] = line(region.first, region.count, page.buffer.id, page.offset, page.rights,
        enforced(page), page, has_slot(page))
    end
    is, should = table.concat(is, "\n"), table.concat(should, "\n")
    if is ~= should then
      error(("space %d is\n%s\nand should be\n%s"):format(entry.space.id, is, should), 0)
    end
    check_slots(self, entry, regions, expected)
  end
end

-- Lets the guest touch a page, in the space where it is.
function Run.probe(self)
  local entry
  for _, candidate in ipairs(self.spaces) do
    if candidate.space == self.cpu.space then entry = candidate end
  end
  local cpu, i, access = self.cpu, self.roll(PAGES), self:pick { "r", "r", "w", "w", "x" }
  local page = entry.pages[i]
  local gpa = BASE + PAGE * i + (access == "x" and 0x800 or 0)
  local byte, value = page and page.buffer:u8(PAGE * page.offset), self.roll(256)
  cpu.rip, cpu.rbx, cpu.rax = STOPS[access], gpa, value
  local exit = assert(cpu:run { timeout = 60 })
  local what = ("%s at page %d of space %d: "):format(access, i, entry.space.id)
  if not page or not enforced(page):find(access, 1, true) then
    if exit.kind ~= "fault" or exit.gpa ~= gpa or exit.access ~= access then
      error(what .. "a fault expected, got " .. tostring(exit), 0)
    end
    if access == "x" then
      cpu:inject "#UD"
      exit = assert(cpu:run { timeout = 60 })
      assert(exit.kind == "exception" and luna.hex(exit.rip) == luna.hex(gpa), tostring(exit))
    else
      cpu:answer(access == "r" and 0 or nil)
      exit = assert(cpu:run { timeout = 60 })
      assert(exit.kind == "hlt", tostring(exit))
    end
    return
  end
  if exit.kind ~= "hlt" then error(what .. "hlt expected, got " .. tostring(exit), 0) end
  if access == "r" and luna.u64.tonumber(cpu.rax) ~= byte then
    error(("%sread %s, not 0x%x"):format(what, luna.hex(cpu.rax), byte), 0)
  elseif access == "w" and page.buffer:u8(PAGE * page.offset) ~= value then
    error(what .. "the write is not in the buffer", 0)
  elseif access == "x" and luna.hex(exit.rip) ~= luna.hex(gpa + 1) then
    error(what .. "ended elsewhere: " .. tostring(exit), 0)
  end
end

local weights = { "one", "one", "one", "one", "one", "one", "update", "update", "remap", "move",
  "space" }

local function play(seed, count)
  local run = new_run(seed)
  for i = 1, count do
    local name = run.roll(12) == 0 and "space" or run:pick(weights)
    if name == "space" and run.roll(4) > 0 then name = "one" end
    local ok, message = pcall(function()
      operations[name](run, run:pick(run.spaces))
      run:check()
      if i % 4 == 0 then run:probe() end
    end)
    if not ok then
      error(("LUNA_SEED=%d LUNA_OPERATIONS=%d (%s): %s"):format(seed, i, name, tostring(message)),
        0)
    end
  end
end

helper.kvm("a VM's maps", function()
  local usual = helper.stressed and 150 or 2500
  local count = tonumber(os.getenv "LUNA_OPERATIONS") or usual
  for _, seed in ipairs { 7, 99, tonumber(os.getenv "LUNA_SEED" or "") } do
    it(("are as the model says over %d operations, seed %d"):format(count, seed), function()
      play(seed, count)
    end)
  end
end)
