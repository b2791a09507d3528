-- The plugin with the program itself and its built-in model. What the model says is not known beforehand: what is drawn, what is in
-- the buffer and what the server says of it have to agree.
local scene = require('scene')
local child = require('child')
local equal = scene.equal

local T = {}

local SOURCE = {
  'struct point { int x, y; };',
  '',
  'static int add(int a, int b)',
  '{',
  '    return a + b;',
  '}',
  '',
  'static int sub(int a, int b)',
  '{',
  '    return a ',
  '}',
}

local function open(run)
  return function()
    local command = ('cmd = { %q, "stdio", "--alone" }'):format(vim.env.REDRAFT_PROGRAM)
    scene.with({
      before = ('require("redraft").setup { %s, minConfidence = 0, draft = true, maxMs = 20000 }'):format(command),
      name = 'a.c', lines = SOURCE,
    }, function(s)
      s:command('set filetype=c')
      run(s)
    end)()
  end
end

-- The ghost text when it has come and is whole.
local function suggestion(s)
  return child.wait('a suggestion', 60000, function()
    local ghost = s:ghost()
    return ghost ~= vim.NIL and s:lua("return require('redraft.ghost').visible()") and ghost or nil
  end)
end

local function with_line(text)
  local lines = vim.deepcopy(SOURCE)
  local new = vim.split(text, '\n', { plain = true })
  table.remove(lines, 10)
  for i = #new, 1, -1 do table.insert(lines, 10, new[i]) end
  return lines
end

T['a suggestion comes, shortens while it is typed and is accepted as it was drawn'] = open(function(s)
  s:type('10GA')
  local ghost = suggestion(s)
  local first = vim.fn.strcharpart(ghost, 0, 1)
  s:type(first == '<' and '<lt>' or first)
  s:sees(vim.fn.strcharpart(ghost, 1))
  s:type('<Tab>')
  s:has(with_line('    return a ' .. ghost))
  equal(s:messages(), '')
end)

T['asking for alternatives answers, too'] = open(function(s)
  s:type('10GA')
  suggestion(s)
  s:type('<M-]>')
  child.wait('an answer', 60000, function()
    return s:lua("return require('redraft.ghost').visible()")
  end)
  equal(s:messages(), '')
end)

T['the server says why'] = open(function(s)
  s:type('10GA')
  suggestion(s)
  s:type('<Esc>')
  s:command('Redraft why')
  child.wait('an explanation', 10000, function() return s:messages():find('redraft: %S') end)
end)

T['a fault is mended after a preview, or the server says that it would leave it'] = open(function(s)
  local faulty = vim.deepcopy(SOURCE)
  faulty[5] = '    return a + ;'
  s:call('nvim_buf_set_lines', 0, 4, 5, false, { faulty[5] })
  s:command('5Redraft rewrite')
  local function shown() return s:lua("return require('redraft.rewrite').shown()") end
  child.wait('a preview', 60000, function() return shown() or s:messages():find('would leave this', 1, true) end)
  s:has(faulty)
  if not shown() then return end
  local new = s:screen(6)[6]
  s:type('<CR>')
  faulty[5] = new
  s:has(faulty)
  equal(s:messages(), '')
end)

T['the health report has no error'] = open(function(s)
  s:command('checkhealth redraft')
  local report = table.concat(s:lines(), '\n')
  assert(report:find('running, utf-16', 1, true) and not report:find('ERROR', 1, true), report)
end)

T['the process ends with the editor'] = open(function(s)
  local pid = s:lua("return require('redraft.client').get().rpc.pid")
  s:stop()
  child.wait('the end of the server', 10000, function() return vim.loop.kill(pid, 0) ~= 0 end)
end)

return T
