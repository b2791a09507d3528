-- The connection: one `redraft stdio` for this Neovim, started at the first file, restarted when it ends unexpectedly.
local M = {}

local config = require('redraft.config')
local status = require('redraft.status')
local text = require('redraft.text')

local NAME = 'redraft'
local MOST_BYTES = 4 * 1024 * 1024
local MOST_RESTARTS, IN_MS = 3, 60000

local client_id
local enabled = true
local leaving = false
local held = false -- nothing is started: a restart is due, or there were too many
local restarts = {} -- times, in ms
local listeners = {} -- method to function(params)

-- Neovim 0.12 brings ghost text of its own; the same versions start servers by configuration.
function M.native()
  return config.get('native') ~= false and vim.lsp.inline_completion ~= nil
    and vim.lsp.config ~= nil and vim.lsp.enable ~= nil
end

function M.enabled() return enabled end

-- Whether a buffer is a text that suggestions are for; nil and why not otherwise.
function M.wants(buf)
  if not vim.api.nvim_buf_is_loaded(buf) then return nil, 'the buffer is not loaded' end
  if vim.bo[buf].buftype ~= '' then return nil, 'the buffer is not a file' end
  if not vim.bo[buf].modifiable then return nil, 'the buffer cannot be modified' end
  local name = vim.api.nvim_buf_get_name(buf)
  if name == '' then return nil, 'the buffer has no name yet' end
  if name:match('^%a[%w+.-]+://') then return nil, 'the buffer is not a file' end
  if vim.b[buf].redraft == false then return nil, 'b:redraft is false' end
  local size = vim.api.nvim_buf_get_offset(buf, vim.api.nvim_buf_line_count(buf))
  if size > MOST_BYTES then return nil, 'the file is too large' end
  return true
end

-- From 0.11 on a client's functions are methods of a class; before, closures in its table.
local function call(client, name, ...)
  local meta = getmetatable(client)
  local class = type(meta) == 'table' and meta.__index
  if type(class) == 'table' and class[name] then return class[name](client, ...) end
  return client[name](...)
end

-- The running client, if it has answered and is attached to the buffer (without one: at all).
function M.get(buf)
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  if not client or not client.initialized or call(client, 'is_stopped') then return nil end
  if buf and not vim.lsp.buf_is_attached(buf, client_id) then return nil end
  return client
end

function M.encoding(client) return client.offset_encoding or 'utf-16' end

function M.request(client, method, params, handler, buf)
  local ok, id = call(client, 'request', method, params, handler, buf)
  return ok and id or nil
end

function M.cancel(client, id)
  if not call(client, 'is_stopped') then call(client, 'cancel_request', id) end
end

function M.execute(client, command, done)
  M.request(client, 'workspace/executeCommand', {
    command = command.command,
    arguments = command.arguments,
  }, function(err, result) if done then done(err, result) end end)
end

-- Hear a notification of the server, or 'attached' with a buffer; one listener each.
function M.on(method, listener) listeners[method] = listener end

local function hear(method)
  return function(_, params, ctx)
    -- 0.7 and later; earlier argument orders are not met here.
    if ctx and ctx.client_id and client_id and ctx.client_id ~= client_id then return end
    if listeners[method] and type(params) == 'table' then listeners[method](params) end
  end
end

local function settings()
  local out = config.server()
  if not enabled then out.enable = false end
  return out
end

local function capabilities()
  local out = vim.lsp.protocol.make_client_capabilities()
  out.textDocument.inlineCompletion = { dynamicRegistration = false }
  out.workspace.configuration = true
  out.workspace.workspaceEdit = vim.tbl_extend('force', out.workspace.workspaceEdit or {}, { documentChanges = true })
  return out
end

local function prune(now)
  while restarts[1] and now - restarts[1] > IN_MS do table.remove(restarts, 1) end
end

local function ended(code, signal, id)
  if client_id and id and id ~= client_id then return end
  client_id = nil
  if leaving or not enabled then return end
  local now = vim.loop.now()
  prune(now)
  held = true
  status.log(('the server ended with code %s, signal %s'):format(code, signal))
  if #restarts >= MOST_RESTARTS then
    status.set('Error', false, 'the server keeps ending; ":Redraft enable" starts it again')
    return status.tell('the server keeps ending; ":Redraft log" tells more, ":Redraft enable" starts it again')
  end
  table.insert(restarts, now)
  status.set('Warning', true, 'the server ended; starting it again')
  vim.defer_fn(function() if held and enabled and not leaving then M.start() end end, 100 * 4 ^ (#restarts - 1))
end

local function make_config(cmd)
  local own = settings()
  return {
    name = NAME,
    cmd = cmd,
    init_options = own,
    settings = { redraft = own },
    capabilities = capabilities(),
    handlers = {
      ['$/redraft/status'] = hear('$/redraft/status'),
      ['$/redraft/draft'] = hear('$/redraft/draft'),
      ['window/logMessage'] = hear('window/logMessage'),
    },
    on_init = function(client) client_id = client.id end,
    on_attach = function(client, buf)
      client_id = client.id
      vim.schedule(function() listeners.attached(buf) end)
    end,
    on_exit = function(code, signal, id) vim.schedule(function() ended(code, signal, id) end) end,
  }
end

local function start_by_configuration(cmd)
  local own = make_config(cmd)
  own.root_dir = function(buf, on_dir) if enabled and M.wants(buf) then on_dir(nil) end end
  vim.lsp.config(NAME, own)
  vim.lsp.enable(NAME)
end

-- The client that a buffer is to be attached to, started when there is none.
local function ensure(buf)
  if client_id then return vim.lsp.buf_attach_client(buf, client_id) end
  local cmd, why = config.command()
  if not cmd then
    status.set('Error', false, why)
    return status.tell(why)
  end
  if vim.lsp.start then
    client_id = vim.lsp.start(make_config(cmd), { bufnr = buf, reuse_client = function() return false end })
  else
    client_id = vim.lsp.start_client(make_config(cmd))
    if client_id then vim.lsp.buf_attach_client(buf, client_id) end
  end
end

-- Attach a buffer when it is one to attach.
function M.attach(buf)
  if not enabled or held or M.native() or not M.wants(buf) then return end
  if client_id and vim.lsp.buf_is_attached(buf, client_id) then return end
  ensure(buf)
end

-- Start the server for the buffers that are there; at the first one when there is none.
function M.start()
  held = false
  if M.native() then
    local cmd, why = config.command()
    if cmd then return start_by_configuration(cmd) end
    status.set('Error', false, why)
    return status.tell(why)
  end
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    if M.wants(buf) and not (client_id and vim.lsp.buf_is_attached(buf, client_id)) then ensure(buf) end
  end
end

-- Tell the server of changed settings.
function M.reconfigure()
  local client = M.get()
  if not client then return end
  local value = { redraft = settings() }
  client.config.settings = value
  if client.settings then client.settings = value end
  call(client, 'notify', 'workspace/didChangeConfiguration', { settings = value })
end

function M.enable(on)
  enabled = on
  if on then restarts, held = {}, false end
  if on and not M.get() then return M.start() end
  M.reconfigure()
end

function M.begin()
  M.on('$/redraft/status', function(p) status.set(p.kind or 'Normal', p.busy, p.message) end)
  M.on('window/logMessage', function(p) status.log(tostring(p.message)) end)
  enabled = config.get('enable') ~= false
  local group = vim.api.nvim_create_augroup('redraft_client', { clear = true })
  vim.api.nvim_create_autocmd({ 'FileType', 'BufEnter', 'BufFilePost', 'BufWritePost' }, {
    group = group,
    callback = function(event) M.attach(event.buf) end,
  })
  vim.api.nvim_create_autocmd('VimLeavePre', { group = group, callback = function() leaving = true end })
  if enabled then M.start() end
end

-- The params that name a buffer and a place in it.
function M.at(client, buf, row, col)
  return {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    position = text.position(buf, row, col, M.encoding(client)),
  }
end

return M
