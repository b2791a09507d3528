-- A Neovim to be typed into: an embedded one with the plugin on its path, and what a test looks at in it.
local M = {}

local function wait(what, ms, ready)
  local value
  local ok = vim.wait(ms or 5000, function()
    value = ready()
    return value and true or false
  end, 20)
  if not ok then error('waited in vain: ' .. what, 3) end
  return value
end

M.wait = wait

local Child = {}
Child.__index = Child

function Child:call(name, ...) return vim.rpcrequest(self.channel, name, ...) end
function Child:lua(code, ...) return self:call('nvim_exec_lua', code, { ... }) end
function Child:command(command) return self:call('nvim_command', command) end
function Child:type(keys) self:call('nvim_input', keys) end
function Child:lines() return self:call('nvim_buf_get_lines', 0, 0, -1, false) end
function Child:mode() return self:call('nvim_get_mode').mode end

-- Rows of the screen as text, without the blanks at their ends.
function Child:screen(rows)
  return self:lua([[
    vim.cmd('redraw')
    local out = {}
    for row = 1, ... do
      local cells = {}
      for column = 1, vim.o.columns do cells[column] = vim.fn.screenstring(row, column) end
      out[row] = (table.concat(cells):gsub('%s+$', ''))
    end
    return out
  ]], rows)
end

-- The text of the marks that the plugin drew, first row and the rows below it.
function Child:ghost()
  return self:lua([[
    local ns = vim.api.nvim_get_namespaces().redraft_ghost
    local marks = ns and vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true }) or {}
    if not marks[1] then return vim.NIL end
    local function words(chunks)
      local out = ''
      for _, chunk in ipairs(chunks or {}) do out = out .. chunk[1] end
      return out
    end
    local details, out = marks[1][4], {}
    table.insert(out, words(details.virt_text))
    for _, line in ipairs(details.virt_lines or {}) do table.insert(out, words(line)) end
    return table.concat(out, '\n')
  ]])
end

function Child:sees(expected, ms)
  local last
  local ok = vim.wait(ms or 5000, function()
    last = self:ghost()
    if last == vim.NIL then last = nil end
    return last == expected
  end, 20)
  if not ok then error(('sees %s, expected %s'):format(vim.inspect(last), vim.inspect(expected)), 2) end
end

function Child:has(expected)
  local last
  local ok = vim.wait(5000, function()
    last = self:lines()
    return vim.deep_equal(last, expected)
  end, 20)
  if not ok then error(('has %s, expected %s'):format(vim.inspect(last), vim.inspect(expected)), 2) end
end

function Child:attached()
  wait('the server of this buffer', 10000, function()
    return self:lua("return require('redraft.client').get(vim.api.nvim_get_current_buf()) ~= nil")
  end)
end

function Child:messages() return self:call('nvim_exec', 'messages', true) end

function Child:stop()
  pcall(vim.fn.jobstop, self.channel)
  vim.fn.jobwait({ self.channel }, 5000)
end

-- `before`: Lua run ahead of the plugin, where a user's own file would be.
function M.start(options)
  local env = vim.tbl_extend('force', {
    HOME = options.scratch, XDG_CONFIG_HOME = options.scratch .. '/config', XDG_DATA_HOME = options.scratch .. '/data',
    XDG_CACHE_HOME = options.scratch .. '/cache', XDG_STATE_HOME = options.scratch .. '/state',
  }, options.env or {})
  local channel = vim.fn.jobstart({ vim.v.progpath, '--embed', '--headless', '--clean', '-u', 'NONE', '-i', 'NONE' },
    { rpc = true, env = env, cwd = options.scratch })
  assert(channel > 0, 'Neovim does not start')
  local child = setmetatable({ channel = channel }, Child)
  child:lua([[
    local root, before = ...
    vim.o.swapfile = false
    vim.opt.runtimepath:prepend(root)
    if before ~= '' then assert(loadstring(before))() end
    vim.cmd('runtime plugin/redraft.lua')
  ]], options.plugin, options.before or '')
  return child
end

return M
