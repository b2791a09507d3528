-- The suggestion at the cursor: when one is asked for, how long it stands, what is drawn, what is accepted.
--
-- A suggestion begins at a place in the text. It stands as long as what is between that place and the cursor is how it begins and
-- the line behind the cursor is as it was; what was typed of it is not drawn any more. Anything else ends it. There is one at a time,
-- since there is one cursor in insert mode.
local M = {}

local client = require('redraft.client')
local config = require('redraft.config')
local draw = require('redraft.draw')
local keys = require('redraft.keys')
local menu = require('redraft.menu')
local status = require('redraft.status')
local text = require('redraft.text')

local INVOKED, AUTOMATIC = 1, 2
local SHADE = '\226\150\145'
local PAUSE_MS = 30 -- the server waits for a pause in typing itself; this only gathers what comes at once

local shown  -- { buf, row, col, items, index, after, replaced, client, all }
local asked  -- { client, id, buf, row, col, tick, kind }
local timer
local seen   -- where the last update was, as text
local held   -- the keys that act on what is shown
local cleared -- called once, when the suggestion is gone

local function inserting() return vim.api.nvim_get_mode().mode:match('^i') ~= nil end

local function cursor()
  local at = vim.api.nvim_win_get_cursor(0)
  return vim.api.nvim_get_current_buf(), at[1] - 1, at[2]
end

local function cancel()
  if timer then timer:stop() end
  if not asked then return end
  client.cancel(asked.client, asked.id)
  asked = nil
end

local function undraw()
  if held then held:drop() end
  held = nil
  if shown then draw.clear(shown.buf) end
end

-- What was typed of the suggestion so far; nil when something else was done.
local function typed(s)
  local buf, row, col = cursor()
  if buf ~= s.buf or row < s.row or (row == s.row and col < s.col) then return nil end
  if text.line(buf, row):sub(col + 1) ~= s.after then return nil end
  local ok, between = pcall(vim.api.nvim_buf_get_text, buf, s.row, s.col, row, col, {})
  local so_far = ok and table.concat(between, '\n')
  if not so_far or s.items[s.index].text:sub(1, #so_far) ~= so_far then return nil end
  return so_far
end

-- What is still to be inserted; nil when the suggestion does not stand or nothing is left.
local function remaining()
  local so_far = shown and typed(shown)
  local rest = so_far and shown.items[shown.index].text:sub(#so_far + 1)
  if not rest or (rest == '' and shown.replaced == 0 and not shown.draft) then return nil end
  return rest
end

local function subtle() return config.get('mode') == 'subtle' end

-- Keys that act on what is shown. With a menu open the keys that accept are the menu's.
local function hold(buf)
  if held and held.buf == buf then return end
  local function accept(part)
    return function() return not menu.visible() and M.accept(part) end
  end
  local actions = {
    accept = accept('all'), accept_word = accept('word'), accept_line = accept('line'), dismiss = M.dismiss,
  }
  local map = {}
  for name, action in pairs(actions) do
    local lhs = config.get('keys')[name]
    if lhs then map[lhs] = action end
  end
  held = keys.hold(buf, 'i', map)
end

-- A draft with its parts: what has settled looks like a suggestion already, what is not there yet is shaded.
local function chunks_of(pieces)
  local out = {}
  for _, piece in ipairs(pieces) do
    local settled = piece.state == 'settled'
    table.insert(out, { piece.state == 'mask' and SHADE or tostring(piece.text), settled and 'RedraftGhost' or 'RedraftDraft' })
  end
  return out
end

local function redraw()
  local rest = remaining()
  if not rest then return end
  if subtle() and menu.visible() then return undraw() end
  local buf, row, col = cursor()
  local item = shown.items[shown.index]
  local chunks = { { rest, shown.draft and 'RedraftDraft' or 'RedraftGhost' } }
  if shown.draft and item.pieces and rest == item.text then chunks = chunks_of(item.pieces) end
  draw.show({
    buf = buf, row = row, col = col, chunks = chunks, after = shown.after, replaced = shown.replaced,
    hint = shown.all and #shown.items > 1 and (' (%d/%d)'):format(shown.index, #shown.items) or nil,
  })
  if not shown.draft then hold(buf) end
end

function M.visible()
  if not shown or shown.draft or not inserting() or (subtle() and menu.visible()) then return false end
  return remaining() ~= nil
end

-- Forget the suggestion and whatever was asked.
function M.clear()
  cancel()
  undraw()
  shown, seen = nil, nil
  local done = cleared
  cleared = nil
  if done then done() end
end

-- One item of the protocol as a suggestion that begins at (row, col); nil when it cannot be drawn here.
local function take_item(raw, buf, row, col, encoding)
  local insert = type(raw.insertText) == 'table' and raw.insertText.value or raw.insertText
  if type(insert) ~= 'string' then return nil end
  local item = { text = insert:gsub('\r\n', '\n'), row = row, col = col, last = col, command = raw.command, pieces = raw.pieces }
  if type(raw.range) == 'table' then
    item.row, item.col = text.place(buf, raw.range.start, encoding)
    local last_row, last = text.place(buf, raw.range['end'], encoding)
    if item.row ~= row or last_row ~= row or item.col > col or last < col then return nil end
    item.last = last
  end
  return item
end

-- Items as a suggestion; those that begin where the first does are its alternatives.
local function take_items(raw_items, question)
  local buf, row, col = question.buf, question.row, question.col
  local items = {}
  for _, raw in ipairs(raw_items) do
    local item = take_item(raw, buf, row, col, client.encoding(question.client))
    if item and (not items[1] or (item.col == items[1].col and item.last == items[1].last)) then
      table.insert(items, item)
    end
  end
  if not items[1] then return nil end
  return {
    buf = buf, row = row, col = items[1].col, items = items, index = 1, client = question.client,
    after = text.line(buf, row):sub(col + 1), replaced = items[1].last - col, all = question.kind == INVOKED,
  }
end

-- The text and the cursor are as when it was asked.
local function still(question)
  local buf, row, col = cursor()
  return inserting() and buf == question.buf and row == question.row and col == question.col
    and vim.api.nvim_buf_get_changedtick(buf) == question.tick
end

local function answered(question, err, result)
  if asked ~= question then return end
  asked = nil
  local said = err and tostring(err.message or vim.inspect(err))
  if said then status.log('inline completion: ' .. said) end
  local keeps = result == nil or result == vim.NIL or not still(question)
  if not keeps or (shown and shown.draft) then
    undraw()
    shown = not keeps and take_items(result.items or result, question) or nil
    if not remaining() then shown = nil end
    redraw()
  end
  if question.kind ~= INVOKED or shown then return end
  M.clear()
  vim.api.nvim_echo({ { 'redraft: ' .. (said or 'no suggestion here') } }, false, {})
end

-- Ask for a suggestion at the cursor now.
function M.ask(kind)
  cancel()
  local buf, row, col = cursor()
  local c = client.enabled() and inserting() and client.get(buf)
  if not c then return false end
  local question = {
    client = c, buf = buf, row = row, col = col, kind = kind, seq = 0,
    tick = vim.api.nvim_buf_get_changedtick(buf),
  }
  local params = client.at(c, buf, row, col)
  params.context = { triggerKind = kind }
  asked = question
  question.id = client.request(c, 'textDocument/inlineCompletion', params, function(err, result)
    answered(question, err, result)
  end, buf)
  if not question.id then asked = nil end
  return asked ~= nil
end

function M.invoke(when_cleared)
  cleared = when_cleared
  if not M.ask(INVOKED) then M.clear() end
end

local function later()
  timer = timer or vim.loop.new_timer()
  timer:stop()
  timer:start(PAUSE_MS, 0, vim.schedule_wrap(function()
    if inserting() and not (shown and not shown.draft) then M.ask(AUTOMATIC) end
  end))
end

-- Something may have changed: the text, the cursor, the menu.
function M.update()
  if not inserting() then return M.clear() end
  local buf, row, col = cursor()
  if not client.get(buf) then return client.attach(buf) end
  local here = ('%d %d %d %d'):format(buf, row, col, vim.api.nvim_buf_get_changedtick(buf))
  if here == seen then return redraw() end
  seen = here
  if remaining() then
    cancel()
    redraw()
    if not shown.draft then return end
  elseif shown or asked then
    M.clear()
    seen = here
  end
  if not client.native() then later() end
end

-- As update, though nothing changed here.
function M.again()
  seen = nil
  if inserting() then M.update() end
end

-- A snapshot of what is being made for the question under way.
function M.draft(params)
  local question = asked
  if not question or params.id ~= question.id or not still(question) then return end
  if type(params.seq) == 'number' then
    if params.seq <= question.seq then return end
    question.seq = params.seq
  end
  undraw()
  shown = take_items(params.items or {}, question)
  if shown then shown.draft = true end
  redraw()
end

-- The first part of a text: a word with the blanks or the sign before it, or the rest of a line.
local function first_part(rest, part)
  if part == 'line' then return rest:match('^\n?[^\n]*') end
  if part == 'word' then
    return rest:match('^%s*[%w_\128-\255]+') or rest:match('^%s*[^%w_%s\128-\255]+') or rest
  end
  return rest
end

-- An undo step begins here. With the key, since Neovim saves the line again only when insert mode itself breaks off.
local function break_undo()
  vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes('<C-g>u', true, false, true), 'in', false)
end

local function insert(piece, replaced)
  local buf, row, col = cursor()
  local lines = text.split(piece)
  vim.cmd('let &l:undolevels = &l:undolevels')
  vim.api.nvim_buf_set_text(buf, row, col, row, col + replaced, lines)
  vim.api.nvim_win_set_cursor(0, { row + #lines, (#lines == 1 and col or 0) + #lines[#lines] })
  break_undo()
end

-- Insert a part of what is left; the command, which tells the server, follows when nothing is left. Returns whether that is so.
function M.insert_part(rest, part, replaced, command, c)
  local piece = first_part(rest, part)
  local whole = #piece == #rest
  insert(piece, whole and replaced or 0)
  if whole and type(command) == 'table' then client.execute(c, command) end
  return whole
end

-- Insert the suggestion or its first 'word' or 'line'. False when none is shown.
function M.accept(part)
  if not M.visible() then return false end
  local s, rest = shown, remaining()
  if M.insert_part(rest, part, s.replaced, s.items[s.index].command, s.client) then
    M.clear()
  else
    M.update()
  end
  return true
end

function M.dismiss()
  if not shown then return false end
  local here = seen
  M.clear()
  seen = here
  return true
end

-- Another of the alternatives; they are asked for first when there is but the one that came by itself.
function M.cycle(step, when_cleared)
  if not (shown and shown.all and remaining()) then return M.invoke(when_cleared) end
  shown.index = (shown.index - 1 + step) % #shown.items + 1
  redraw()
end

function M.begin()
  draw.highlights()
  local group = vim.api.nvim_create_augroup('redraft_ghost', { clear = true })
  local function on(events, run) vim.api.nvim_create_autocmd(events, { group = group, callback = run }) end
  local function soon() vim.schedule(function() if inserting() then M.update() end end) end
  on({ 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, M.update)
  on({ 'CompleteChanged', 'CompleteDone' }, soon)
  on('InsertEnter', function() vim.schedule(M.again) end)
  on({ 'InsertLeave', 'BufLeave', 'WinLeave' }, M.clear)
  on('ColorScheme', draw.highlights)
end

return M
