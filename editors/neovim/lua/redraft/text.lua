-- Offsets and places: columns in bytes, which is what Neovim counts in, to the units of the wire and back.
local M = {}

-- The bytes of the sequence that begins with byte `b`, and its units in UTF-16.
local function sequence(b)
  if b < 0xc0 then return 1, 1 end
  if b < 0xe0 then return 2, 1 end
  if b < 0xf0 then return 3, 1 end
  return 4, 2
end

-- How many units of `encoding` the first `bytes` bytes of `line` are.
function M.units(line, bytes, encoding)
  if encoding == 'utf-8' then return bytes end
  local at, units = 1, 0
  while at <= bytes and at <= #line do
    local n, wide = sequence(line:byte(at))
    at = at + n
    units = units + (encoding == 'utf-32' and 1 or wide)
  end
  return units
end

-- How many bytes of `line` the first `units` units are; past the end: all of them.
function M.bytes(line, units, encoding)
  if encoding == 'utf-8' then return math.min(units, #line) end
  local at = 1
  while at <= #line do
    local n, wide = sequence(line:byte(at))
    units = units - (encoding == 'utf-32' and 1 or wide)
    if units < 0 then break end
    at = at + n
  end
  return math.min(at - 1, #line)
end

function M.line(buf, row)
  return vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ''
end

-- Row and byte column, both from 0, to a position of the protocol, and back.
function M.position(buf, row, col, encoding)
  return { line = row, character = M.units(M.line(buf, row), col, encoding) }
end

function M.place(buf, position, encoding)
  local rows = vim.api.nvim_buf_line_count(buf)
  if position.line >= rows then return rows - 1, #M.line(buf, rows - 1) end
  return position.line, M.bytes(M.line(buf, position.line), position.character, encoding)
end

function M.split(text)
  return vim.split(text, '\n', { plain = true })
end

-- Text as it is drawn from screen column `at` on: tabs become as many spaces as they take there.
function M.expand(text, at)
  local out = {}
  for piece, tab in text:gmatch('([^\t]*)(\t?)') do
    table.insert(out, piece)
    at = at + vim.fn.strdisplaywidth(piece, at)
    if tab ~= '' then
      local width = vim.fn.strdisplaywidth('\t', at)
      table.insert(out, (' '):rep(width))
      at = at + width
    end
  end
  return table.concat(out)
end

return M
