-- A server with a script: `nvim --headless --clean -u NONE -c 'luafile fake-server.lua'`, LSP on its stdin and stdout. What it
-- answers is in the file that $FAKE_PLAN names, a JSON object that is read for each request; what it hears is appended to
-- $FAKE_HEARD, one JSON message a line.
--
-- The plan: `inline`, the result of inline completion (with "null": null), or `by_text`, an object from the line up to the cursor to
-- the text to insert; `drafts`, params sent before it; `late_ms`; `actions`; `resolved`; `explain`; `error`, for every request but initialize.
local uv = vim.loop
local input, buffer = uv.new_pipe(false), ''
local documents = {}

local function plan()
  local file = io.open(vim.env.FAKE_PLAN)
  local all = file and file:read('*a') or ''
  if file then file:close() end
  return all ~= '' and vim.json.decode(all) or {}
end

local function heard(message)
  local file = assert(io.open(vim.env.FAKE_HEARD, 'a'))
  file:write(vim.json.encode(message), '\n')
  file:close()
end

local function send(message)
  message.jsonrpc = '2.0'
  local body = vim.json.encode(message)
  io.stdout:write(('Content-Length: %d\r\n\r\n%s'):format(#body, body))
  io.stdout:flush()
end

local function offset(line, units)
  local at = 0
  while units > 0 and at < #line do
    local b = line:byte(at + 1)
    local n = b < 0xc0 and 1 or b < 0xe0 and 2 or b < 0xf0 and 3 or 4
    at, units = at + n, units - (n == 4 and 2 or 1)
  end
  return at
end

local function place(text, position)
  local at = 1
  for _ = 1, position.line do at = (text:find('\n', at, true) or #text) + 1 end
  local line = text:sub(at):match('^[^\n]*')
  return at + offset(line, position.character)
end

local function change(uri, edits)
  for _, edit in ipairs(edits) do
    local text = documents[uri]
    if edit.range then
      local from, to = place(text, edit.range.start), place(text, edit.range['end'])
      documents[uri] = text:sub(1, from - 1) .. edit.text .. text:sub(to)
    else
      documents[uri] = edit.text
    end
  end
end

local function inline(p, params)
  if not p.by_text then return p.inline == nil and { items = {} } or p.inline end
  local text = documents[params.textDocument.uri]
  local before = text:sub(1, place(text, params.position) - 1):match('[^\n]*$')
  local answer = p.by_text[before]
  if not answer then return { items = {} } end
  local items = {}
  for _, insert in ipairs(type(answer) == 'table' and answer or { answer }) do
    table.insert(items, {
      insertText = insert,
      range = { start = params.position, ['end'] = params.position },
      command = { title = 'accepted', command = 'redraft.accepted', arguments = { 'it' } },
    })
    if params.context.triggerKind ~= 1 then break end
  end
  return { items = items }
end

local answers = {
  initialize = function()
    return { capabilities = {
      textDocumentSync = { openClose = true, change = 2 },
      inlineCompletionProvider = vim.empty_dict(),
      codeActionProvider = { resolveProvider = true },
      executeCommandProvider = { commands = { 'redraft.accepted', 'redraft.explainLast' } },
    } }
  end,
  shutdown = function() return vim.NIL end,
  ['textDocument/inlineCompletion'] = inline,
  ['textDocument/codeAction'] = function(p) return p.actions or {} end,
  ['codeAction/resolve'] = function(p, action)
    action.edit = p.resolved
    return action
  end,
  ['workspace/executeCommand'] = function(p, params)
    return params.command == 'redraft.explainLast' and p.explain or vim.NIL
  end,
}

local function answer(m)
  local p = plan()
  if p.error and m.method ~= 'initialize' then return send({ id = m.id, error = p.error }) end
  local run = answers[m.method]
  if not run then return send({ id = m.id, error = { code = -32601, message = 'no method ' .. m.method } }) end
  for _, draft in ipairs(m.method == 'textDocument/inlineCompletion' and p.drafts or {}) do
    draft.id = m.id
    send({ method = '$/redraft/draft', params = draft })
  end
  local result = run(p, m.params)
  local timer = uv.new_timer()
  timer:start(m.method == 'textDocument/inlineCompletion' and p.late_ms or 0, 0, function()
    timer:close()
    send({ id = m.id, result = result })
  end)
end

local function take(m)
  heard(m)
  if m.method == 'exit' then os.exit(0) end
  if m.method == 'textDocument/didOpen' then documents[m.params.textDocument.uri] = m.params.textDocument.text end
  if m.method == 'textDocument/didChange' then change(m.params.textDocument.uri, m.params.contentChanges) end
  if m.method == 'initialized' then
    send({ method = '$/redraft/status', params = { kind = 'Normal', busy = false, message = 'ready' } })
  end
  if m.method and m.id ~= nil then answer(m) end
end

input:open(0)
input:read_start(vim.schedule_wrap(function(_, data)
  if not data then os.exit(1) end
  buffer = buffer .. data
  while true do
    local head, body = buffer:find('\r\n\r\n', 1, true)
    local n = head and tonumber(buffer:sub(1, head):match('[Cc]ontent%-[Ll]ength:%s*(%d+)'))
    if not n or #buffer < body + n then return end
    local frame = buffer:sub(body + 1, body + n)
    buffer = buffer:sub(body + n + 1)
    take(vim.json.decode(frame))
  end
end))
