-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: buffers. The accessors are methods as they stand.

local floor, tonumber, type, error = math.floor, tonumber, type, error
local getmetatable = getmetatable

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, new_box, filled, OPEN = shared.fail, shared.new_box, shared.filled, shared.OPEN
  local buffer_of = shared.buffer_of
  local u64_out, room = shared.u64_out, shared.room
  local buffer_in = ffi.new "luna_buffer_options[1]"
  local READ, WRITE = 1, 2 -- luna_access

  local function adopt(status, box)
    if status < 0 then return fail(status) end
    local _, pointer = filled("buffer", box)
    local memory = C.luna_buffer_memory(pointer)
    box.data, box.logged, box.vanishes = memory.data, memory.logged, memory.vanishes
    box.writable = memory.writable
    box.size = tonumber(memory.size)
    return box, pointer
  end

  function M.buffer_open(kind, flags, size, offset, path, fd, pointer)
    local box, place = new_box "buffer"
    local options, memory = buffer_in[0], pointer and ffi.cast("void *", pointer)
    options.kind, options.flags, options.size, options.offset = kind, flags, size, offset
    options.path, options.fd = path, fd or -1
    options.pointer = memory
    return adopt(C.luna_buffer_open(buffer_in, place), box)
  end

  function M.buffer_view(object, offset, size)
    local box, place = new_box "buffer"
    return adopt(C.luna_buffer_view(buffer_of(object), offset, size, place), box)
  end

  function M.buffer_id(object)
    return tonumber(C.luna_buffer_id(buffer_of(object)))
  end

  function M.buffer_fd(object)
    return C.luna_buffer_fd(buffer_of(object))
  end

  function M.buffer_page_size(object)
    return tonumber(C.luna_buffer_page_size(buffer_of(object)))
  end

  function M.buffer_size(object)
    buffer_of(object)
    return object[1].size
  end

  local function outside(box, offset, size, level)
    if type(offset) ~= "number" or floor(offset) ~= offset then
      error(("bad offset (a whole number expected, got %s)"):format(tostring(offset)), level + 1)
    end
    error(("offset %s0x%x and size %d are outside the buffer, which has 0x%x bytes")
      :format(offset < 0 and "-" or "", math.abs(offset), size, box.size), level + 1)
  end

  -- The memory at `offset`, of `size` bytes that the buffer has, the box, and box.vanishes, which
  -- would allocate behind the look at whether the buffer is open. `level` blames the caller.
  local function bytes(object, offset, size, level)
    buffer_of(object)
    local box = object[1]
    if type(offset) ~= "number" or not (offset >= 0 and offset <= box.size - size)
      or floor(offset) ~= offset then
      outside(box, offset, size, (level or 3) + 1)
    end
    local place, vanishes = box.data + offset, box.vanishes
    buffer_of(object)
    return place, box, vanishes
  end

  local function writable(box, level)
    if box.writable == 0 then error("the buffer is read-only", (level or 3) + 1) end
  end

  local function mark(object, box, offset, size)
    local logged = box.logged
    buffer_of(object)
    if logged[0] ~= 0 then C.luna_buffer_mark(buffer_of(object), offset, size) end
  end

  function M.buffer_writable(object)
    buffer_of(object)
    return object[1].writable ~= 0
  end

  function M.buffer_mark(object, offset, size)
    C.luna_buffer_mark(buffer_of(object), offset, size)
  end

  -- The status of copying between `data` and a buffer whose memory may go away.
  local function copy_safely(object, offset, data, size, access)
    return C.luna_buffer_copy(buffer_of(object), offset, data, size, access)
  end

  -- The results of a method that has none.
  local function nothing(status)
    if status < 0 then return fail(status) end
  end

  -- The same for an integer of `size` bytes.
  local function get_integer(object, offset, size)
    u64_out[0] = 0
    local status = copy_safely(object, offset, u64_out, size, READ)
    if status < 0 then return fail(status) end
    if size <= 4 then return tonumber(u64_out[0]) end
    return u64_out[0]
  end

  local function set_integer(object, offset, size, value)
    u64_out[0] = value
    return nothing(copy_safely(object, offset, u64_out, size, WRITE))
  end

  -- A u64 as the number it is; anything else as it is.
  local function plain(value)
    local exact = to_u64(value)
    return exact and exact <= 2 ^ 53 and tonumber(exact) or value
  end

  local function accessor(bits, class, complain)
    local pointer = ffi.typeof("uint" .. bits .. "_t *")
    local size, limit = bits / 8, 2 ^ bits
    return function(object, offset, value)
      if getmetatable(object) ~= class then complain(object) end
      local box = object[1] or complain(object)
      if type(offset) ~= "number" then offset = plain(offset) end
      if type(offset) ~= "number" or not (offset >= 0 and offset <= box.size - size)
        or floor(offset) ~= offset then
        outside(box, offset, size, 2)
      end
      local place, vanishes = ffi.cast(pointer, box.data + offset), box.vanishes
      if value == nil then
        if box.state ~= OPEN then complain(object) end
        if vanishes[0] ~= 0 then return get_integer(object, offset, size) end
        return place[0]
      end
      if type(value) ~= "number" then
        local exact = to_u64(value)
        value = exact and tonumber(exact)
      end
      if not value or value < 0 or value >= limit or floor(value) ~= value then
        error(("value %s does not fit in %d bits"):format(tostring(value), bits), 2)
      end
      if box.state ~= OPEN then complain(object) end
      writable(box, 2)
      if vanishes[0] ~= 0 then return set_integer(object, offset, size, value) end
      place[0] = value
      mark(object, box, offset, size)
    end
  end

  -- The methods that are raw calls as they stand, by name. `complain` raises for what is no open
  -- buffer, at the method's caller.
  function M.buffer_methods(class, complain)
    local methods = {}
    for _, bits in ipairs { 8, 16, 32 } do
      methods["u" .. bits] = accessor(bits, class, complain)
    end

    function methods.u64(object, offset, value)
      if getmetatable(object) ~= class then complain(object) end
      local box = object[1] or complain(object)
      if type(offset) ~= "number" then offset = plain(offset) end
      if type(offset) ~= "number" or not (offset >= 0 and offset <= box.size - 8)
        or floor(offset) ~= offset then
        outside(box, offset, 8, 2)
      end
      local place, vanishes = ffi.cast("uint64_t *", box.data + offset), box.vanishes
      if value == nil then
        if box.state ~= OPEN then complain(object) end
        if vanishes[0] ~= 0 then return get_integer(object, offset, 8) end
        return place[0]
      end
      local exact = to_u64(value)
      if not exact then
        error(("value %s is not an exact 64-bit integer"):format(tostring(value)), 2)
      end
      if box.state ~= OPEN then complain(object) end
      writable(box, 2)
      if vanishes[0] ~= 0 then return set_integer(object, offset, 8, exact) end
      place[0] = exact
      mark(object, box, offset, 8)
    end

    return methods
  end

  local SPARE = 2 ^ 20
  local spare -- room of that size, unless somebody has it: a finalizer may read in between

  -- As a string, or appended to a string.buffer. LuaJIT looks at the bytes of a string several
  -- times: a guest must not change them meanwhile.
  function M.buffer_read(object, offset, size, into)
    local place, _, vanishes = bytes(object, offset, size)
    local safely = vanishes[0] ~= 0
    if into and not safely then return into:putcdata(place, size) end
    local small = size <= SPARE
    local data = small and spare or room(small and SPARE or size)
    spare = nil
    local status = 0
    if safely then
      status = copy_safely(object, offset, data, size, READ)
    else
      place = bytes(object, offset, size) -- making room may have run a finalizer that closed it
      ffi.copy(data, place, size)
    end
    local result = status == 0 and (into and into:putcdata(data, size) or ffi.string(data, size))
    if small then spare = data end
    if status < 0 then return fail(status) end
    return result
  end

  -- From a string or a string.buffer, which is not consumed.
  function M.buffer_write(object, offset, data)
    local size, source = #data, data
    if type(data) ~= "string" then source = data:ref() end
    local place, box, vanishes = bytes(object, offset, size)
    writable(box)
    if vanishes[0] ~= 0 then
      return nothing(copy_safely(object, offset, ffi.cast("uint8_t *", source), size, WRITE))
    end
    ffi.copy(place, source, size)
    mark(object, box, offset, size)
  end

  function M.buffer_fill(object, offset, size, byte)
    local _, box = bytes(object, offset, size)
    writable(box)
    return nothing(C.luna_buffer_fill(buffer_of(object), offset, size, byte))
  end

  -- A distance that the core has found (1), or that it has not (0), or a failure.
  local function found_at(status, from)
    if status < 0 then return fail(status) end
    if status == 0 then return nil end
    return from + tonumber(u64_out[0])
  end

  function M.buffer_find(object, offset, size, pattern)
    bytes(object, offset, size)
    local status = C.luna_buffer_find(buffer_of(object), offset, size, pattern, #pattern, u64_out)
    return found_at(status, offset)
  end

  function M.buffer_copy(object, offset, source, from, size)
    bytes(source, from, size)
    local _, box = bytes(object, offset, size)
    writable(box)
    return nothing(C.luna_buffer_transfer(buffer_of(object), offset, buffer_of(source), from,
      size))
  end

  -- The distance of the first difference between two ranges, nil if they are equal.
  function M.buffer_compare(object, offset, other, from, size)
    bytes(other, from, size)
    bytes(object, offset, size)
    local status = C.luna_buffer_compare(buffer_of(object), offset, buffer_of(other), from, size,
      u64_out)
    return found_at(status, 0)
  end

  -- The memory as a uint8_t pointer that keeps the buffer alive: LuaJIT only.
  function M.buffer_pointer(object)
    local held = false
    local pointer = ffi.gc(object[1].data, function()
      if held then C.luna_buffer_release(held) end
    end)
    C.luna_buffer_retain(buffer_of(object))
    held = object[2]
    return pointer
  end

  --- The luna_buffer, for other libraries; good while the buffer is open.
  function M.buffer_object(object)
    return buffer_of(object)
  end
end
