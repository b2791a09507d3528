-- All but ghost text: rewriting with a preview, commands, setup, status, health, help, and a server that dies.
local scene = require('scene')
local child = require('child')
local with, equal = scene.with, scene.equal

local T = {}

local function at(line, character) return { line = line, character = character } end

-- A plan that offers to rewrite or fill and answers with edits of the test's file.
local function rewriting(folder, edits)
  local actions = {}
  for _, kind in ipairs({ 'mend', 'rewrite', 'fill' }) do
    table.insert(actions, { title = kind, kind = 'refactor.rewrite', data = { kind = kind } })
  end
  return {
    actions = actions,
    resolved = { documentChanges = { {
      textDocument = { uri = vim.uri_from_fname(folder .. '/a.txt'), version = vim.NIL }, edits = edits,
    } } },
  }
end

-- What the preview shows: the old text that is marked, and the new lines.
local function preview(s)
  return s:lua([[
    local ns = vim.api.nvim_get_namespaces().redraft_rewrite
    local old, new = {}, {}
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })) do
      local d = mark[4]
      if d.hl_group == 'RedraftOld' and not d.virt_text then
        vim.list_extend(old, vim.api.nvim_buf_get_text(0, mark[2], mark[3], d.end_row, d.end_col, {}))
      end
      for _, line in ipairs(d.virt_lines or {}) do table.insert(new, line[1][1]) end
    end
    return { old, new }
  ]])
end

local function shows(s, old, new)
  child.wait('the preview', 5000, function() return s:lua("return require('redraft.rewrite').shown()") end)
  equal(preview(s), { old, new })
end

T['a rewrite is shown first and then accepted as one step'] = with({ lines = { 'one', '\ttwo😀 = 2', 'three' } }, function(s)
  s:plan(rewriting(s.folder, {
    { range = { start = at(1, 1), ['end'] = at(1, 4) }, newText = 'zwei' },
    { range = { start = at(1, 9), ['end'] = at(2, 5) }, newText = '3\nmore\nthree' },
  }))
  s:command('2Redraft rewrite make it faster')
  shows(s, { 'two', '2', 'three' }, { '        zwei😀 = 3', 'more' })
  equal(s:screen(5), { 'one', '        two😀 = 2', '        zwei😀 = 3', 'more', 'three' })
  s:has({ 'one', '\ttwo😀 = 2', 'three' })
  local asked, resolve = s:heard('textDocument/codeAction')[1].params, s:heard('codeAction/resolve')[1].params
  equal(asked.range, { start = at(1, 0), ['end'] = at(1, 10) })
  equal(asked.context.triggerKind, 1)
  equal(resolve.data, { kind = 'rewrite', instruction = 'make it faster' })
  s:type('<CR>')
  s:has({ 'one', '\tzwei😀 = 3', 'more', 'three' })
  equal(preview(s), { {}, {} })
  s:type('u')
  s:has({ 'one', '\ttwo😀 = 2', 'three' })
end)

T['a rewrite that is discarded leaves no trace and gives the keys back'] = with({ lines = { 'one', 'two' } }, function(s)
  s:plan(rewriting(s.folder, { { range = { start = at(0, 0), ['end'] = at(0, 3) }, newText = 'eins' } }))
  s:command('nnoremap <buffer> <CR> ix<Esc>')
  s:command('1Redraft rewrite')
  shows(s, { 'one' }, { 'eins' })
  equal(s:heard('codeAction/resolve')[1].params.data, { kind = 'rewrite' })
  s:type('<Esc>')
  child.wait('the end of the preview', 5000, function() return vim.deep_equal(preview(s), { {}, {} }) end)
  s:has({ 'one', 'two' })
  s:type('<CR>')
  s:has({ 'xone', 'two' })
end)

T['a selection of characters is what is asked about'] = with({ lines = { 'a😀bcd', 'efg' } }, function(s)
  s:plan(rewriting(s.folder, { { range = { start = at(0, 1), ['end'] = at(0, 3) }, newText = 'X' } }))
  s:type('lvl:Redraft rewrite<CR>')
  shows(s, { '😀' }, { 'aXbcd' })
  equal(s:heard('textDocument/codeAction')[1].params.range, { start = at(0, 1), ['end'] = at(0, 4) })
  s:command('Redraft accept')
  s:has({ 'aXbcd', 'efg' })
end)

T['changing the text ends the preview'] = with({ lines = { 'one' } }, function(s)
  s:plan(rewriting(s.folder, { { range = { start = at(0, 0), ['end'] = at(0, 3) }, newText = 'eins' } }))
  s:command('Redraft rewrite')
  shows(s, { 'one' }, { 'eins' })
  s:type('x')
  s:has({ 'ne' })
  child.wait('the end of the preview', 5000, function() return vim.deep_equal(preview(s), { {}, {} }) end)
end)

T['whole lines that go and come are shown where they are'] = with({ lines = { 'one', 'two', 'three' } }, function(s)
  s:plan(rewriting(s.folder, {
    { range = { start = at(0, 0), ['end'] = at(0, 0) }, newText = 'zero\n' },
    { range = { start = at(1, 0), ['end'] = at(2, 0) }, newText = '' },
  }))
  s:command('%Redraft rewrite')
  shows(s, { 'two', '' }, { 'zero', 'one' })
  s:type('<CR>')
  s:has({ 'zero', 'one', 'three' })
end)

T['a hole is filled the same way'] = with({ lines = { '// TODO: add' } }, function(s)
  s:plan(rewriting(s.folder, { { range = { start = at(0, 0), ['end'] = at(0, 12) }, newText = 'a + b' } }))
  s:command('Redraft fill')
  shows(s, { '// TODO: add' }, { 'a + b' })
  equal(s:heard('codeAction/resolve')[1].params.data, { kind = 'fill' })
  s:type('<CR>')
  s:has({ 'a + b' })
end)

T['a rewrite that fails says why and changes nothing'] = with({
  lines = { 'one' }, plan = { error = { code = -32803, message = 'the model is away' } },
}, function(s)
  s:command('Redraft rewrite')
  child.wait('the message', 5000, function() return s:messages():find('the model is away', 1, true) end)
  s:has({ 'one' })
end)

T['switching off and on again'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd', ['abx'] = 'y' } } }, function(s)
  s:type('iab')
  s:sees('cd')
  s:lua("require('redraft').toggle()")
  s:sees(nil)
  equal(s:lua("return require('redraft').status()"), 'redraft off')
  local changes = s:hears('workspace/didChangeConfiguration')
  equal(changes[#changes].params.settings.redraft.enable, false)
  local asked = #s:heard('textDocument/inlineCompletion')
  s:type('z<BS>')
  vim.wait(150)
  equal(#s:heard('textDocument/inlineCompletion'), asked)
  s:command('Redraft enable')
  s:type('x')
  s:sees('y')
end)

T['the status is there for a statusline'] = with({ lines = { '' } }, function(s)
  child.wait('the status', 5000, function() return s:lua("return require('redraft').status()") == 'redraft' end)
  s:command('Redraft status')
  child.wait('the message', 5000, function() return s:messages():find('redraft: redraft: ready', 1, true) end)
end)

T['why nothing shows is answered by the server, or by the plugin where it knows'] = with({
  lines = { '' }, plan = { explain = { message = 'nothing was sure enough' } },
}, function(s)
  s:command('Redraft why')
  child.wait('the message', 5000, function() return s:messages():find('nothing was sure enough', 1, true) end)
  s:command('enew')
  s:command('Redraft why')
  child.wait('the message', 5000, function() return s:messages():find('the buffer has no name yet', 1, true) end)
end)

T['commands complete'] = with({}, function(s)
  equal(s:call('nvim_eval', 'getcompletion("Redraft ", "cmdline")'), {
    'accept', 'disable', 'dismiss', 'enable', 'fill', 'log', 'rewrite', 'status', 'toggle', 'watch', 'why',
  })
  equal(s:call('nvim_eval', 'getcompletion("Redraft wa", "cmdline")'), { 'watch' })
  equal(s:call('nvim_eval', 'getcompletion("Redraft accept w", "cmdline")'), { 'word' })
end)

T['a wrong setting is told once and ignored'] = with({
  lines = { '' },
  before = [[
    local wrong = { mode = 'loud', quality = 2, keys = { accept = 5, jump = 'x' }, colour = 'red', maxMs = 300 }
    require('redraft').setup(wrong)
    require('redraft').setup(wrong)
  ]],
}, function(s)
  local said = s:messages()
  for _, words in ipairs({
    'mode is "loud", expected one of: eager, subtle', 'quality is 2, expected 0 to 1', 'keys.accept is a number',
    'keys.jump is not known', 'colour is not known',
  }) do
    local _, count = said:gsub(vim.pesc(words), '')
    equal({ words, count }, { words, 1 })
  end
  equal(s:heard('initialize')[1].params.initializationOptions, { maxMs = 300 })
end)

T['keys can be chosen or left alone'] = with({
  lines = { '' }, plan = { by_text = { ['ab'] = 'cd' } },
  before = [[require('redraft').setup { keys = { accept = '<C-y>', next = false } }]],
}, function(s)
  equal(s:call('nvim_eval', 'maparg("<M-]>", "i")'), '')
  s:type('iab')
  s:sees('cd')
  s:type('<C-y>')
  s:has({ 'abcd' })
end)

T['a key that somebody mapped is not taken'] = with({ before = [[vim.keymap.set('i', '<M-]>', 'mine')]] }, function(s)
  equal(s:call('nvim_eval', 'maparg("<M-]>", "i")'), 'mine')
end)

T['watching is switched while it runs'] = with({ lines = { '' } }, function(s)
  s:command('Redraft watch on')
  local changes = s:hears('workspace/didChangeConfiguration')
  equal(changes[#changes].params.settings.redraft.draft, true)
end)

T['what is no file is left alone'] = with({ lines = { '' } }, function(s)
  s:command('help')
  s:command('edit fugitive://x')
  vim.wait(100)
  equal(#s:heard('textDocument/didOpen'), 1)
end)

T['a server that was killed is there again at the next keys'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd' } } }, function(s)
  local pid = s:lua("return require('redraft.client').get().rpc.pid")
  vim.loop.kill(pid, 9)
  child.wait('a second start', 10000, function() return #s:heard('initialize') == 2 end)
  s:attached()
  s:type('iab')
  s:sees('cd')
end)

T['a server that keeps dying is started four times and told of once'] = with({ cmd = '/bin/false' }, function(s)
  s:command('edit a.txt')
  child.wait('giving up', 15000, function() return s:messages():find('the server keeps ending', 1, true) end)
  vim.wait(300)
  local _, ends = s:messages():gsub('quit with exit code', '')
  local _, told = s:messages():gsub('the server keeps ending', '')
  equal({ ends, told }, { 4, 1 })
  equal(s:lua("return require('redraft').status()"):match('^redraft: the server keeps ending') ~= nil, true)
end)

T['without the program it says so once'] = with({ cmd = '/nonexistent/redraft' }, function(s)
  s:command('edit a.txt')
  s:command('edit b.txt')
  vim.wait(100)
  local _, told = s:messages():gsub('/nonexistent/redraft, named by $REDRAFT, cannot be run', '')
  equal(told, 1)
end)

T['the health report has no error'] = with({ lines = { '' } }, function(s)
  vim.fn.writefile({ '#!/bin/sh', '[ "$1" = --version ] && { echo redraft 9; exit; }', 'exec ' .. s.program .. ' "$@"' }, s.folder .. '/redraft')
  vim.fn.setfperm(s.folder .. '/redraft', 'rwx------')
  s:lua("vim.env.REDRAFT = ...", s.folder .. '/redraft')
  s:command('checkhealth redraft')
  local report = table.concat(s:lines(), '\n')
  assert(report:find('redraft 9', 1, true) and report:find('running, utf-16, Normal', 1, true), report)
  assert(not report:find('ERROR', 1, true) and not report:find('WARNING', 1, true), report)
end)

T['the health report names what is missing'] = with({ cmd = '/nonexistent/redraft' }, function(s)
  s:command('checkhealth redraft')
  assert(table.concat(s:lines(), '\n'):find('ERROR: /nonexistent/redraft', 1, true))
end)

T['the help has its tags'] = with({}, function(s)
  vim.fn.mkdir(s.folder .. '/help/doc', 'p')
  vim.fn.writefile(vim.fn.readfile(scene.plugin .. '/doc/redraft.txt'), s.folder .. '/help/doc/redraft.txt')
  s:command('helptags ' .. s.folder .. '/help/doc')
  s:command('set runtimepath^=' .. s.folder .. '/help')
  for _, tag in ipairs({ 'redraft', ':Redraft', 'redraft-keys', 'redraft-setup', 'redraft-status', 'redraft-rewrite' }) do
    s:command('help ' .. tag)
  end
  local known = table.concat(vim.fn.readfile(s.folder .. '/help/doc/tags'), '\n')
  for link in table.concat(vim.fn.readfile(scene.plugin .. '/doc/redraft.txt'), '\n'):gmatch('|(redraft[%w_.-]*)|') do
    assert(known:find(link, 1, true), link .. ' is no tag')
  end
end)

return T
