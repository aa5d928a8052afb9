-- SPDX-License-Identifier: MIT
-- Raw calls for LuaJIT: source lines.

return function(M, shared)
  local ffi, C, to_u64, text = shared.ffi, shared.C, shared.to_u64, shared.text
  local fail, new_box, filled = shared.fail, shared.new_box, shared.filled
  local lines_of = shared.lines_of

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

  local function line(object, status, one)
    if status < 0 then return fail(status) end
    local path = one.path
    lines_of(object) -- which has the path
    path = text(path)
    return one.address, path, one.directory, one.line, one.column
  end

  -- address: address, path, length of the directory, line, column
  function M.lines_at(object, address)
    local one, exact = ffi.new "luna_line", to_u64(address)
    return line(object, C.luna_lines_at(lines_of(object), exact, one), one)
  end

  -- file, line: the same
  function M.lines_find(object, file, number)
    local one = ffi.new "luna_line"
    return line(object, C.luna_lines_find(lines_of(object), file, number, one), one)
  end
end
