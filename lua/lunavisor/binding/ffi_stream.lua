-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: descriptors for the characters of devices.

return function(M, shared)
  local ffi, C = shared.ffi, shared.C
  local fail, text, u32_out, made_out = shared.fail, shared.text, shared.u32_out, shared.made_out
  local fd_out = ffi.cast("int32_t *", made_out) -- raw.made looks there
  local BUSY = -6 -- LUNA_ERROR_BUSY

  local function made(status)
    if status < 0 then return fail(status) end
    return fd_out[0]
  end

  function M.stream_tcp(address, port)
    return made(C.luna_stream_tcp(address, port, fd_out))
  end

  function M.stream_port(fd)
    local status = C.luna_stream_port(fd, u32_out)
    if status < 0 then return fail(status) end
    return tonumber(u32_out[0])
  end

  function M.stream_unix(path)
    return made(C.luna_stream_unix(path, fd_out))
  end

  function M.stream_pty()
    return made(C.luna_stream_pty(fd_out))
  end

  function M.stream_terminal(fd)
    local name = ffi.new "char[128]"
    local status = C.luna_stream_terminal(fd, name, 128)
    if status < 0 then return fail(status) end
    return text(name)
  end

  -- listener: the descriptor of a client, -1 for none
  function M.stream_accept(fd)
    local status = C.luna_stream_accept(fd, fd_out)
    if status < 0 then return fail(status) end
    local found = fd_out[0]
    if found < 0 then made_out[0] = 0 end
    return found
  end

  function M.stream_share(fd)
    return made(C.luna_stream_share(fd, fd_out))
  end

  -- path, luna_stream_way: the descriptor
  function M.stream_open(path, way)
    return made(C.luna_stream_open(path, way, fd_out))
  end

  -- descriptor, most: a string, "" at the end; false where nothing is there now
  function M.stream_read(fd, size)
    local data = shared.room(size)
    local status = C.luna_stream_read(fd, data, size)
    if status == BUSY then return false end
    if status < 0 then return fail(status) end
    return ffi.string(data, status)
  end

  -- descriptor, string: how many bytes of it
  function M.stream_write(fd, data)
    local status = C.luna_stream_write(fd, data, #data)
    if status == BUSY then return 0 end
    if status < 0 then return fail(status) end
    return status
  end

  function M.stream_close(fd)
    C.luna_stream_close(fd)
  end

  -- descriptor, nanoseconds: whether there is something to read
  function M.stream_wait(fd, nanoseconds)
    local status = C.luna_stream_wait(fd, nanoseconds)
    if status < 0 then return fail(status) end
    return status == 1
  end

  function M.stream_is_terminal(fd)
    return C.luna_stream_is_terminal(fd) == 1
  end

  -- descriptor, and what it is to be: true
  function M.stream_replace(fd, by)
    local status = C.luna_stream_replace(fd, by)
    if status < 0 then return fail(status) end
    return true
  end

  ffi.cdef "int ferror(void *);"

  -- open file of io: whether something that was written to it is lost
  function M.stream_failed(file)
    return ffi.C.ferror(file) ~= 0
  end

  function M.interrupt_renew()
    C.luna_interrupt_renew()
  end

  function M.interrupt_guard()
    C.luna_interrupt_guard()
  end
end
