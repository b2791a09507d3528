-- What the server says about itself, for the statusline; and the last messages, for `:Redraft log`.
local M = {}

local MOST_LINES = 500
local current = { kind = 'Inactive', busy = false, message = 'not started' }
local lines = {}
local told = {}

function M.log(text)
  for _, line in ipairs(vim.split(text, '\n', { plain = true })) do
    table.insert(lines, os.date('%H:%M:%S ') .. line)
  end
  while #lines > MOST_LINES do table.remove(lines, 1) end
end

function M.lines() return lines end

-- Say something once in a session.
function M.tell(text, level)
  M.log(text)
  if told[text] then return end
  told[text] = true
  vim.schedule(function() vim.notify('redraft: ' .. text, level or vim.log.levels.WARN) end)
end

function M.set(kind, busy, message)
  current = { kind = kind, busy = busy == true, message = message or '' }
  if current.message ~= '' then M.log(('%s: %s'):format(kind, current.message)) end
  vim.schedule(function()
    vim.cmd('silent! doautocmd <nomodeline> User RedraftStatus')
    vim.cmd('redrawstatus')
  end)
end

function M.get() return vim.deepcopy(current) end

-- A few characters for a statusline; empty before anything was started.
function M.line()
  if current.message == 'not started' then return '' end
  if current.kind == 'Inactive' then return 'redraft off' end
  if current.busy then return 'redraft ...' end
  if current.kind == 'Normal' then return 'redraft' end
  return 'redraft: ' .. (current.message ~= '' and current.message or current.kind)
end

return M
