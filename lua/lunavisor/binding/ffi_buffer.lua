-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: buffers. The accessors are methods as they stand.

local floor, tonumber, type, error = math.floor, tonumber, type, error

return function(M, shared)
  local ffi, C, to_u64 = shared.ffi, shared.C, shared.to_u64
  local fail, own, pointer_out = shared.fail, shared.own, shared.pointer_out
  local buffer_of = shared.buffer_of
  local u64_out, room = shared.u64_out, shared.room
  local buffer_in = ffi.new "luna_buffer_options[1]"
  local READ, WRITE = 1, 2 -- luna_access

  function M.buffer_open(kind, flags, size, offset, path, fd, pointer)
    local options = buffer_in[0]
    options.kind, options.flags, options.size, options.offset = kind, flags, size, offset
    options.path, options.fd = path, fd or -1
    options.pointer = pointer and ffi.cast("void *", pointer)
    local status = C.luna_buffer_open(buffer_in, pointer_out.buffer)
    if status < 0 then return fail(status) end
    return own "buffer"
  end

  function M.buffer_view(object, offset, size)
    local status = C.luna_buffer_view(buffer_of(object), offset, size, pointer_out.buffer)
    if status < 0 then return fail(status) end
    return own "buffer"
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
    return tonumber(C.luna_buffer_size(buffer_of(object)))
  end

  -- object.memory, a luna_memory, is what access needs; looked up when a buffer is first used.
  local function bind(object, level)
    local handle = object[1]
    if not handle then error("attempt to use a closed buffer", level) end
    object.memory = C.luna_buffer_memory(handle)
    return object.memory
  end

  local function outside(memory, offset, size, level)
    if type(offset) ~= "number" or floor(offset) ~= offset then
      error(("bad offset (a whole number expected, got %s)"):format(tostring(offset)), level + 1)
    end
    error(("offset %s0x%x and size %d are outside the buffer, which has 0x%x bytes")
      :format(offset < 0 and "-" or "", math.abs(offset), size, tonumber(memory.size)), level + 1)
  end

  -- The memory at `offset`, of `size` bytes that the buffer has. `level` blames the caller.
  local function bytes(object, offset, size, level)
    local memory = object.memory or bind(object, (level or 3) + 2)
    if type(offset) ~= "number" or offset < 0 or offset > tonumber(memory.size) - size
      or floor(offset) ~= offset then
      outside(memory, offset, size, (level or 3) + 1)
    end
    return memory.data + offset, memory
  end

  local function writable(memory, level)
    if memory.writable == 0 then error("the buffer is read-only", (level or 3) + 1) end
  end

  local function mark(object, memory, offset, size)
    if memory.logged[0] ~= 0 then C.luna_buffer_mark(object[1], offset, size) end
  end

  function M.buffer_writable(object)
    return C.luna_buffer_memory(buffer_of(object)).writable ~= 0
  end

  function M.buffer_mark(object, offset, size)
    C.luna_buffer_mark(buffer_of(object), offset, size)
  end

  -- The status of copying between `data` and a buffer whose memory may go away.
  local function copy_safely(object, offset, data, size, access)
    return C.luna_buffer_copy(object[1], offset, data, size, access)
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

  local function accessor(bits, class, complain)
    local pointer = ffi.typeof("uint" .. bits .. "_t *")
    local size, limit = bits / 8, 2 ^ bits
    return function(object, offset, value)
      if getmetatable(object) ~= class then complain(object) end
      local memory = object.memory or bind(object, 3)
      if type(offset) ~= "number" or not (offset >= 0 and offset <= tonumber(memory.size) - size)
        or floor(offset) ~= offset then
        outside(memory, offset, size, 2)
      end
      local place = ffi.cast(pointer, memory.data + offset)
      if value == nil then
        if memory.vanishes[0] == 0 then return place[0] end
        return get_integer(object, offset, size)
      end
      if type(value) ~= "number" then value = tonumber(value) end
      if not value or value < 0 or value >= limit or floor(value) ~= value then
        error(("value %s does not fit in %d bits"):format(tostring(value), bits), 2)
      end
      writable(memory, 2)
      if memory.vanishes[0] ~= 0 then return set_integer(object, offset, size, value) end
      place[0] = value
      mark(object, memory, offset, size)
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
      local from, memory = bytes(object, offset, 8, 2)
      local place = ffi.cast("uint64_t *", from)
      if value == nil then
        if memory.vanishes[0] == 0 then return place[0] end
        return get_integer(object, offset, 8)
      end
      local exact = to_u64(value)
      if not exact then
        error(("value %s is not an exact 64-bit integer"):format(tostring(value)), 2)
      end
      writable(memory, 2)
      if memory.vanishes[0] ~= 0 then return set_integer(object, offset, 8, exact) end
      place[0] = exact
      mark(object, memory, offset, 8)
    end

    return methods
  end

  local SPARE = 2 ^ 20
  local spare -- room of that size, unless somebody has it: a finalizer may read in between

  -- As a string, or appended to a string.buffer. LuaJIT looks at the bytes of a string several
  -- times: a guest must not change them meanwhile.
  function M.buffer_read(object, offset, size, into)
    local place, memory = bytes(object, offset, size)
    local safely = memory.vanishes[0] ~= 0
    if into and not safely then return into:putcdata(place, size) end
    local small = size <= SPARE
    local data = small and spare or room(small and SPARE or size)
    spare = nil
    local status = 0
    if safely then
      status = copy_safely(object, offset, data, size, READ)
    else
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
    local place, memory = bytes(object, offset, size)
    writable(memory)
    if memory.vanishes[0] ~= 0 then
      return nothing(copy_safely(object, offset, ffi.cast("uint8_t *", source), size, WRITE))
    end
    ffi.copy(place, source, size)
    mark(object, memory, offset, size)
  end

  function M.buffer_fill(object, offset, size, byte)
    if type(byte) ~= "number" or byte < 0 or byte > 255 or floor(byte) ~= byte then
      error(("value %s does not fit in 8 bits"):format(tostring(byte)), 2)
    end
    local _, memory = bytes(object, offset, size)
    writable(memory)
    return nothing(C.luna_buffer_fill(object[1], offset, size, byte))
  end

  -- A distance that the core has found (1), or that it has not (0), or a failure.
  local function found_at(status, from)
    if status < 0 then return fail(status) end
    if status == 0 then return nil end
    return from + tonumber(u64_out[0])
  end

  function M.buffer_find(object, offset, size, pattern)
    bytes(object, offset, size)
    return found_at(C.luna_buffer_find(object[1], offset, size, pattern, #pattern, u64_out), offset)
  end

  function M.buffer_copy(object, offset, source, from, size)
    bytes(source, from, size)
    local _, memory = bytes(object, offset, size)
    writable(memory)
    return nothing(C.luna_buffer_transfer(object[1], offset, source[1], from, size))
  end

  -- The distance of the first difference between two ranges, nil if they are equal.
  function M.buffer_compare(object, offset, other, from, size)
    bytes(other, from, size)
    bytes(object, offset, size)
    return found_at(C.luna_buffer_compare(object[1], offset, other[1], from, size, u64_out), 0)
  end

  -- The memory as a uint8_t pointer that keeps the buffer alive: LuaJIT only.
  function M.buffer_pointer(object)
    local handle = buffer_of(object)
    C.luna_buffer_retain(handle)
    return ffi.gc(C.luna_buffer_memory(handle).data, function() C.luna_buffer_release(handle) end)
  end

  --- The luna_buffer, for other libraries; good while the buffer is open.
  function M.buffer_object(object)
    return buffer_of(object)
  end
end
