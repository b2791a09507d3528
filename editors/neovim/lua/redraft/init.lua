-- The plugin's face: setup, the command :Redraft, and a function for everything that a key may be mapped to.
local M = {}

local client = require('redraft.client')
local config = require('redraft.config')
local ghost = require('redraft.ghost')
local rewrite = require('redraft.rewrite')
local status = require('redraft.status')
local text = require('redraft.text')
local watch = require('redraft.watch')

local begun = false
local permanent = {} -- keys that ask for alternatives

local function native() return client.native() and require('redraft.native') end

function M.accept(part)
  if rewrite.shown() then return rewrite.accept() end
  part = part or 'all'
  if ghost.accept(part) then return true end
  return native() and native().accept(part) or false
end

function M.accept_word() return M.accept('word') end
function M.accept_line() return M.accept('line') end

function M.cycle(step)
  if native() then return native().cycle(step) end
  return ghost.cycle(step)
end

function M.next() return M.cycle(1) end
function M.previous() return M.cycle(-1) end

function M.dismiss()
  if rewrite.discard() or ghost.dismiss() then return true end
  return native() and native().dismiss()
end

function M.enable()
  client.enable(true)
end

function M.disable()
  ghost.clear()
  client.enable(false)
  status.set('Inactive', false, 'switched off')
end

function M.toggle()
  if client.enabled() then M.disable() else M.enable() end
end

function M.is_enabled() return client.enabled() end

-- For a statusline.
function M.status() return client.enabled() and status.line() or 'redraft off' end

-- The last visual selection when the lines are its own, else whole lines.
local function span(line1, line2)
  local from, to = vim.fn.getpos("'<"), vim.fn.getpos("'>")
  local last = text.line(0, line2 - 1)
  if vim.fn.visualmode() ~= 'v' or from[2] ~= line1 or to[2] ~= line2 then
    return { line1 - 1, 0 }, { line2 - 1, #last }
  end
  local col = math.min(to[3], #last)
  if col > 0 then col = col - 1 + #vim.fn.matchstr(last:sub(col), '.') end
  return { line1 - 1, math.min(from[3] - 1, #text.line(0, line1 - 1)) }, { line2 - 1, col }
end

-- Write lines anew (from 1, both included; the cursor's without them), maybe as a sentence says.
function M.rewrite(instruction, line1, line2)
  line1 = line1 or vim.fn.line('.')
  local from, to = span(line1, line2 or line1)
  rewrite.ask('rewrite', from, to, instruction ~= '' and instruction or nil)
end

-- Fill the hole on the cursor's line: a TODO, an empty body, a `...`.
function M.fill(line1, line2)
  line1 = line1 or vim.fn.line('.')
  rewrite.ask('fill', { line1 - 1, 0 }, { (line2 or line1) - 1, #text.line(0, (line2 or line1) - 1) })
end

function M.watch(on)
  if on == nil then on = not watch.on() end
  watch.set(on)
  vim.api.nvim_echo({ { 'redraft: watching is ' .. (on and 'on' or 'off') } }, false, {})
end

local function tell(words) vim.notify('redraft: ' .. words, vim.log.levels.INFO) end

-- Say why the last request showed nothing, or what it showed.
function M.why()
  local buf = vim.api.nvim_get_current_buf()
  if not client.enabled() then return tell('switched off; ":Redraft enable" switches it on') end
  local wanted, reason = client.wants(buf)
  if not wanted then return tell(reason) end
  local c = client.get(buf)
  if not c then return tell(status.get().message) end
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  client.execute(c, {
    command = 'redraft.explainLast',
    arguments = { client.at(c, buf, row - 1, col) },
  }, function(err, result)
    local words = err and err.message or (type(result) == 'table' and result.message) or result
    if type(words) == 'string' then tell(words) end
  end)
end

function M.log()
  vim.cmd('botright new')
  local buf = vim.api.nvim_get_current_buf()
  vim.bo[buf].buftype, vim.bo[buf].bufhidden, vim.bo[buf].swapfile = 'nofile', 'wipe', false
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, status.lines())
  vim.bo[buf].modifiable = false
end

local function show_status()
  local said = status.get()
  tell(M.status() .. (said.message ~= '' and ': ' .. said.message or ''))
end

local function lines_of(o)
  if o.range > 0 then return o.line1, o.line2 end
end

local commands = {
  accept = function(o) M.accept(o.rest ~= '' and o.rest or 'all') end,
  disable = M.disable,
  dismiss = M.dismiss,
  enable = M.enable,
  fill = function(o) M.fill(lines_of(o)) end,
  log = M.log,
  rewrite = function(o) M.rewrite(o.rest, lines_of(o)) end,
  status = show_status,
  toggle = M.toggle,
  watch = function(o)
    if o.rest == 'on' or o.rest == 'off' then return M.watch(o.rest == 'on') end
    M.watch()
  end,
  why = M.why,
}

local arguments = { accept = { 'all', 'line', 'word' }, watch = { 'off', 'on' } }

local function run_command(o)
  local name, rest = o.args:match('^(%S*)%s*(.-)%s*$')
  local run = commands[name == '' and 'status' or name]
  if not run then return vim.notify(('redraft: no command "%s"'):format(name), vim.log.levels.ERROR) end
  run({ rest = rest, range = o.range, line1 = o.line1, line2 = o.line2 })
end

local function complete(lead, line)
  local name = line:match('Redraft%s+(%S+)%s')
  local words = name and (arguments[name] or {}) or vim.tbl_keys(commands)
  words = vim.tbl_filter(function(word) return vim.startswith(word, lead) end, words)
  table.sort(words)
  return words
end

-- These keys are useful where nothing is shown, too: they are mapped for good, where nothing else is.
local function map_permanent()
  for _, lhs in ipairs(permanent) do pcall(vim.keymap.del, 'i', lhs) end
  permanent = {}
  for name, run in pairs({ next = M.next, previous = M.previous }) do
    local lhs = config.get('keys')[name]
    if lhs and vim.fn.maparg(lhs, 'i') == '' then
      vim.keymap.set('i', lhs, function() run() end, { silent = true, desc = 'redraft: ' .. name })
      table.insert(permanent, lhs)
    end
  end
end

local function start()
  begun = true
  map_permanent()
  ghost.begin()
  rewrite.begin()
  watch.begin()
  client.on('attached', function(buf)
    if native() then return native().attached(buf) end
    ghost.again()
  end)
  client.begin()
end

-- What plugin/redraft.lua calls. The start waits for the user's own files, which may call setup.
function M.begin()
  vim.api.nvim_create_user_command('Redraft', run_command, { nargs = '*', range = true, complete = complete })
  if vim.v.vim_did_enter == 1 then return vim.schedule(start) end
  vim.api.nvim_create_autocmd('VimEnter', { once = true, callback = start })
end

-- Optional. May be called at any time; a running server is told.
function M.setup(options)
  config.set(options)
  if not begun then return end
  map_permanent()
  client.reconfigure()
end

return M
