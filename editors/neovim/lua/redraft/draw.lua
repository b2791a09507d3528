-- Ghost text on the screen: what is to be inserted at the cursor, drawn by one extmark. Knows no protocol.
--
-- The middle of a line is the difficult place. Where Neovim has inline virtual text (0.10), a suggestion of one line that replaces
-- nothing pushes the rest of the line aside. Otherwise the line is drawn over from the cursor on: the suggestion, then the rest of
-- the line in the colour of normal text. So one reads exactly the text that accepting makes; the rest's own colours are
-- what it costs while the suggestion is shown.
local M = {}

local text = require('redraft.text')

local namespace = vim.api.nvim_create_namespace('redraft_ghost')
local inline -- whether virtual text can be inline; nil: not tried

function M.highlights()
  local links = {
    RedraftGhost = 'Comment',
    RedraftDraft = 'NonText',
    RedraftRest = 'Normal',
    RedraftHint = 'NonText',
    RedraftOld = 'DiffDelete',
    RedraftNew = 'DiffAdd',
  }
  for name, link in pairs(links) do vim.api.nvim_set_hl(0, name, { default = true, link = link }) end
end

local function has_inline()
  if inline == nil then
    local buf = vim.api.nvim_create_buf(false, true)
    inline = pcall(vim.api.nvim_buf_set_extmark, buf, namespace, 0, 0, {
      virt_text = { { 'x' } },
      virt_text_pos = 'inline',
    })
    vim.api.nvim_buf_delete(buf, { force = true })
  end
  return inline
end

function M.clear(buf)
  if vim.api.nvim_buf_is_valid(buf) then vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1) end
end

-- What stands on the screen row from column `at` on: chunks, and spaces over what would look out behind them.
local function over(chunks, at, hidden)
  local out, column = {}, at
  for _, chunk in ipairs(chunks) do
    local drawn = text.expand(chunk[1], column)
    if drawn ~= '' then table.insert(out, { drawn, chunk[2] }) end
    column = column + vim.fn.strdisplaywidth(drawn, column)
  end
  local covered = at + vim.fn.strdisplaywidth(hidden, at)
  if column < covered then table.insert(out, { (' '):rep(covered - column), 'RedraftRest' }) end
  return out
end

-- Chunks of text and colour as rows of chunks.
local function rows_of(chunks)
  local rows = { {} }
  for _, chunk in ipairs(chunks) do
    for i, line in ipairs(text.split(chunk[1])) do
      if i > 1 then table.insert(rows, {}) end
      table.insert(rows[#rows], { line, chunk[2] })
    end
  end
  return rows
end

-- Draw at a cursor: `what` has buf, row, col; chunks, the suggestion as pairs of text and colour; after, the line behind the cursor;
-- replaced, how many of its bytes the suggestion takes the place of; and hint, a word to stand at the end.
function M.show(what)
  local rows = rows_of(what.chunks)
  local rest = what.after:sub(what.replaced + 1)
  local before = text.line(what.buf, what.row):sub(1, what.col)
  local at = vim.fn.strdisplaywidth(before)
  local pushes = #rows == 1 and what.replaced == 0 and rest ~= '' and not what.hint and has_inline()
  if not pushes and rest ~= '' then table.insert(rows[#rows], { rest, 'RedraftRest' }) end
  if what.hint then table.insert(rows[#rows], { what.hint, 'RedraftHint' }) end

  local below = {}
  for i = 2, #rows do
    local chunks = over(rows[i], 0, '')
    table.insert(below, #chunks > 0 and chunks or { { ' ', 'RedraftGhost' } })
  end
  local first = over(rows[1], at, pushes and '' or what.after)
  vim.api.nvim_buf_set_extmark(what.buf, namespace, what.row, what.col, {
    id = 1,
    virt_text = #first > 0 and first or nil,
    virt_text_pos = pushes and 'inline' or 'overlay',
    virt_lines = #below > 0 and below or nil,
    hl_mode = 'combine',
    priority = 200,
  })
end

return M
