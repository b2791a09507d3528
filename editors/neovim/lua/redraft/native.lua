-- Neovim's own ghost text (0.12 and later, vim.lsp.inline_completion). Neovim asks and draws; here is what it leaves to plugins: keys,
-- accepting a part, putting a suggestion away. For alternatives the plugin's own ghost text takes the buffer over until it is gone.
local M = {}

local config = require('redraft.config')
local ghost = require('redraft.ghost')
local keys = require('redraft.keys')
local menu = require('redraft.menu')

local held
local paused = {} -- by buffer

local function enable(buf, on)
  if vim.api.nvim_buf_is_valid(buf) then vim.lsp.inline_completion.enable(on, { bufnr = buf }) end
end

local function pause(buf)
  paused[buf] = true
  enable(buf, false)
end

local function resume(buf)
  if not paused[buf] then return end
  paused[buf] = nil
  enable(buf, true)
end

-- Rows and byte columns of a vim.Range, whose shape differs between versions.
local function places(range)
  if range.start_row then return range.start_row, range.start_col, range.end_row, range.end_col end
  return range.start.row, range.start.col, range.end_.row, range.end_.col
end

-- Neovim shows a suggestion a little longer than it holds; only one that goes on from the cursor is accepted.
local function accept_item(item, part)
  local insert = type(item.insert_text) == 'table' and item.insert_text.value or item.insert_text
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local start_row, start_col, end_row, end_col = row - 1, col, row - 1, col
  if item.range then start_row, start_col, end_row, end_col = places(item.range) end
  if start_row ~= row - 1 or end_row ~= start_row or start_col > col then return end
  local line = vim.api.nvim_get_current_line()
  local typed = line:sub(start_col + 1, col)
  if insert:sub(1, #typed) ~= typed then return end
  ghost.insert_part(insert:sub(#typed + 1), part, math.max(0, end_col - col), item.command,
    vim.lsp.get_client_by_id(item.client_id))
end

function M.accept(part)
  return vim.lsp.inline_completion.get({ on_accept = function(item) accept_item(item, part) end })
end

function M.cycle(step)
  local buf = vim.api.nvim_get_current_buf()
  pause(buf)
  ghost.cycle(step, function() resume(buf) end)
end

-- Put away what is shown until the text or the cursor changes.
function M.dismiss()
  local buf = vim.api.nvim_get_current_buf()
  pause(buf)
  vim.api.nvim_create_autocmd({ 'TextChangedI', 'CursorMovedI', 'InsertLeave' }, {
    buffer = buf, once = true, callback = function() resume(buf) end,
  })
end

local function hold(buf)
  local function accept(part)
    return function()
      if menu.visible() then return false end
      return ghost.accept(part) or M.accept(part)
    end
  end
  local map = {}
  local names = {
    accept = accept('all'), accept_word = accept('word'), accept_line = accept('line'),
    dismiss = function() return ghost.dismiss() or M.dismiss() end,
  }
  for name, action in pairs(names) do
    local lhs = config.get('keys')[name]
    if lhs then map[lhs] = action end
  end
  held = keys.hold(buf, 'i', map)
end

local function drop()
  if held then held:drop() end
  held = nil
end

-- A client came to a buffer.
function M.attached(buf)
  enable(buf, true)
  local group = vim.api.nvim_create_augroup('redraft_native_' .. buf, { clear = true })
  local function on(events, run) vim.api.nvim_create_autocmd(events, { group = group, buffer = buf, callback = run }) end
  on('InsertEnter', function() drop() hold(buf) end)
  on({ 'InsertLeave', 'BufLeave' }, drop)
  if config.get('mode') == 'subtle' then
    on('CompleteChanged', function() vim.schedule(function() pause(buf) end) end)
    on('CompleteDone', function() vim.schedule(function() resume(buf) end) end)
  end
end

return M
