-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: source lines.

return function(M, shared)
  local ffi, C, to_u64, text = shared.ffi, shared.C, shared.to_u64, shared.text
  local fail, new_box, filled = shared.fail, shared.new_box, shared.filled
  local lines_of = shared.lines_of
  local line_out = ffi.new "luna_line[1]"

  local function made(status, box)
    if status < 0 then return fail(status) end
    return filled("lines", box)
  end

  -- path: a handle
  function M.lines_create(path)
    local box, place = new_box "lines"
    return made(C.luna_lines_create(path, place), box)
  end

  -- string: a handle
  function M.lines_copy(bytes)
    local box, place = new_box "lines"
    return made(C.luna_lines_copy(bytes, #bytes, place), box)
  end

  local function line(status)
    if status < 0 then return fail(status) end
    local one = line_out[0]
    return one.address, text(one.path), one.directory, one.line, one.column
  end

  -- address: address, path, length of the directory, line, column
  function M.lines_at(object, address)
    return line(C.luna_lines_at(lines_of(object), to_u64(address), line_out))
  end

  -- file, line: the same
  function M.lines_find(object, file, number)
    return line(C.luna_lines_find(lines_of(object), file, number, line_out))
  end
end
