-- Text written anew: asked for as a code action, shown before anything is changed, then accepted or discarded.
local M = {}

local client = require('redraft.client')
local keys = require('redraft.keys')
local status = require('redraft.status')
local text = require('redraft.text')

local namespace = vim.api.nvim_create_namespace('redraft_rewrite')

local state -- { buf, client, id, tick, edit, held }

local function say(words) vim.api.nvim_echo({ { 'redraft: ' .. words } }, false, {}) end

local function finish()
  local s = state
  state = nil
  if not s then return end
  s.held:drop()
  if vim.api.nvim_buf_is_valid(s.buf) then vim.api.nvim_buf_clear_namespace(s.buf, namespace, 0, -1) end
  return s
end

function M.discard()
  local s = finish()
  if not s then return false end
  if s.id then client.cancel(s.client, s.id) end
  say('discarded')
  return true
end

function M.accept()
  if not (state and state.edit) then return false end
  local s = finish()
  if vim.api.nvim_buf_get_changedtick(s.buf) ~= s.tick then
    say('the text has changed; nothing was done')
    return true
  end
  vim.lsp.util.apply_workspace_edit(s.edit, client.encoding(s.client))
  say('done')
  return true
end

function M.shown() return state ~= nil and state.edit ~= nil end

-- The edits of one file in a WorkspaceEdit, in the order of the text.
local function edits_of(edit, uri)
  local out = {}
  for _, change in ipairs(edit.documentChanges or {}) do
    if change.textDocument and change.textDocument.uri == uri then vim.list_extend(out, change.edits) end
  end
  if not edit.documentChanges then vim.list_extend(out, (edit.changes or {})[uri] or {}) end
  table.sort(out, function(a, b)
    local x, y = a.range.start, b.range.start
    if x.line ~= y.line then return x.line < y.line end
    return x.character < y.character
  end)
  return out
end

-- Edits that touch the same or neighbouring lines, as one: rows first to last, both included, and the parts in bytes.
local function group(buf, edits, encoding)
  local groups = {}
  for _, edit in ipairs(edits) do
    local row, col = text.place(buf, edit.range.start, encoding)
    local end_row, end_col = text.place(buf, edit.range['end'], encoding)
    local last = groups[#groups]
    if not last or row > last.last + 1 then
      last = { first = row, last = end_row, parts = {} }
      table.insert(groups, last)
    end
    last.last = math.max(last.last, end_row)
    table.insert(last.parts, { row = row, col = col, end_row = end_row, end_col = end_col, text = edit.newText })
  end
  return groups
end

-- The lines of a group as they will be.
local function new_lines(buf, g)
  local lines, out = vim.api.nvim_buf_get_lines(buf, g.first, g.last + 1, false), {}
  local row, col = g.first, 0
  local function copy(to_row, to_col)
    for r = row, to_row do
      local line = lines[r - g.first + 1] or ''
      table.insert(out, line:sub(r == row and col + 1 or 1, r == to_row and to_col or #line))
      if r < to_row then table.insert(out, '\n') end
    end
  end
  for _, part in ipairs(g.parts) do
    copy(part.row, part.col)
    table.insert(out, (part.text:gsub('\r\n', '\n')))
    row, col = part.end_row, part.end_col
  end
  copy(g.last, #(lines[#lines] or ''))
  return lines, text.split(table.concat(out))
end

-- Without the lines that both begin and end with: how many were equal at the beginning, and what is left of each.
local function differing(old, new)
  local head = 0
  while head < #old and head < #new and old[head + 1] == new[head + 1] do head = head + 1 end
  local tail = 0
  while tail < #old - head and tail < #new - head and old[#old - tail] == new[#new - tail] do tail = tail + 1 end
  return head, #old - head - tail, vim.list_slice(new, head + 1, #new - tail)
end

local function draw_group(buf, g)
  for _, part in ipairs(g.parts) do
    if part.row ~= part.end_row or part.col ~= part.end_col then
      vim.api.nvim_buf_set_extmark(buf, namespace, part.row, part.col, {
        end_row = part.end_row, end_col = part.end_col, hl_group = 'RedraftOld', priority = 200,
      })
    end
  end
  local old, new = new_lines(buf, g)
  local head, gone, added = differing(old, new)
  local below = {}
  for _, line in ipairs(added) do
    local drawn = text.expand(line, 0)
    table.insert(below, { { drawn ~= '' and drawn or ' ', 'RedraftNew' } })
  end
  if #below == 0 then return end
  local row = g.first + head + gone - 1
  vim.api.nvim_buf_set_extmark(buf, namespace, math.max(row, 0), 0, {
    virt_lines = below, virt_lines_above = row < 0,
  })
end

local function preview(edit)
  local edits = edits_of(edit, vim.uri_from_bufnr(state.buf))
  if not edits[1] then
    finish()
    return say('there is nothing to change here')
  end
  vim.api.nvim_buf_clear_namespace(state.buf, namespace, 0, -1)
  for _, g in ipairs(group(state.buf, edits, client.encoding(state.client))) do draw_group(state.buf, g) end
  state.edit, state.id = edit, nil
  say('<CR> accepts, <Esc> discards')
end

-- Guard the answer to a step: told and over where it failed, dropped where it comes too late.
local function answer(s, run)
  return function(err, result)
    if state ~= s then return end
    s.id = nil
    if not err then return run(result) end
    finish()
    status.log('rewrite: ' .. tostring(err.message))
    vim.notify('redraft: ' .. tostring(err.message), vim.log.levels.WARN)
  end
end

local function step(s, method, params, run)
  s.id = client.request(s.client, method, params, answer(s, run), s.buf)
  if not s.id then finish() end
end

local function choose(actions, want)
  for _, action in ipairs(type(actions) == 'table' and actions or {}) do
    if type(action.data) == 'table' and action.data.kind == want and not action.disabled then return action end
  end
end

local function resolve(s, actions, want, instruction)
  local action = choose(actions, want)
  if not action then
    finish()
    return say('nothing can be done here')
  end
  action.data.instruction = instruction
  step(s, 'codeAction/resolve', action, function(resolved)
    if type(resolved) == 'table' and type(resolved.edit) == 'table' then return preview(resolved.edit) end
    finish()
    say('there is nothing to change')
  end)
end

-- Ask for what is between two places (row and byte column from 0, the end not included). `want`: 'rewrite' or 'fill'.
function M.ask(want, from, to, instruction)
  M.discard()
  local buf = vim.api.nvim_get_current_buf()
  local c = client.enabled() and client.get(buf)
  if not c then return vim.notify('redraft: not running for this buffer', vim.log.levels.WARN) end
  local s = { buf = buf, client = c, tick = vim.api.nvim_buf_get_changedtick(buf) }
  s.held = keys.hold(buf, 'n', { ['<CR>'] = M.accept, ['<Esc>'] = M.discard })
  state = s
  local encoding = client.encoding(c)
  vim.api.nvim_buf_set_extmark(buf, namespace, from[1], from[2], {
    end_row = to[1], end_col = to[2], hl_group = 'RedraftOld',
    virt_text = { { ' rewriting ...', 'RedraftHint' } }, virt_text_pos = 'eol',
  })
  step(s, 'textDocument/codeAction', {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    range = { start = text.position(buf, from[1], from[2], encoding), ['end'] = text.position(buf, to[1], to[2], encoding) },
    context = { diagnostics = {}, only = { 'refactor.rewrite', 'quickfix' }, triggerKind = 1 },
  }, function(actions) resolve(s, actions, want, instruction) end)
end

function M.begin()
  vim.api.nvim_create_autocmd({ 'TextChanged', 'TextChangedI', 'BufUnload' }, {
    group = vim.api.nvim_create_augroup('redraft_rewrite', { clear = true }),
    callback = function(event)
      if not state or event.buf ~= state.buf then return end
      if event.event == 'BufUnload' or vim.api.nvim_buf_get_changedtick(state.buf) ~= state.tick then M.discard() end
    end,
  })
end

return M
