-- Ghost text: what is drawn, how long it stands, and what accepting makes of the buffer.
local scene = require('scene')
local with, equal = scene.with, scene.equal

local T = {}

T['typing shows ghost text'] = with({ lines = { '' }, plan = { by_text = { ['int '] = 'main(void)' } } }, function(s)
  s:type('iint ')
  s:sees('main(void)')
  s:has({ 'int ' })
  equal(s:screen(1), { 'int main(void)' })
end)

T['typing along shortens it and asks nothing new'] = with({ lines = { '' }, plan = { by_text = { ['int '] = 'main(void)' } } }, function(s)
  s:type('iint ')
  s:sees('main(void)')
  local asked = #s:heard('textDocument/inlineCompletion')
  s:type('ma')
  s:sees('in(void)')
  s:type('i')
  s:sees('n(void)')
  vim.wait(200)
  equal(#s:heard('textDocument/inlineCompletion'), asked)
end)

T['typing something else ends it'] = with({ lines = { '' }, plan = { by_text = { ['int '] = 'main(void)' } } }, function(s)
  s:type('iint ')
  s:sees('main(void)')
  s:type('x')
  s:sees(nil)
end)

T['taking back what was typed along shows more again'] = with({ lines = { '' }, plan = { by_text = { ['int '] = 'main(void)' } } }, function(s)
  s:type('iint ')
  s:sees('main(void)')
  s:type('ma')
  s:sees('in(void)')
  s:type('<BS>')
  s:sees('ain(void)')
end)

T['accepting the whole inserts it, moves the cursor to its end and runs its command'] = with({
  lines = { '', 'end' }, plan = { by_text = { ['if '] = 'x then\n\treturn\nfi' } },
}, function(s)
  s:type('iif ')
  s:sees('x then\n        return\nfi')
  s:type('<Tab>')
  s:has({ 'if x then', '\treturn', 'fi', 'end' })
  equal(s:call('nvim_win_get_cursor', 0), { 3, 2 })
  equal(s:hears('workspace/executeCommand')[1].params, { command = 'redraft.accepted', arguments = { 'it' } })
  s:sees(nil)
end)

T['accepting words and lines takes them one by one and runs the command at the end alone'] = with({
  lines = { '' }, plan = { by_text = { ['a '] = '= one + two\nb = 3' } },
}, function(s)
  s:type('ia ')
  s:sees('= one + two\nb = 3')
  s:type('<C-Right>')
  s:has({ 'a =' })
  s:sees(' one + two\nb = 3')
  s:type('<C-Right>')
  s:has({ 'a = one' })
  s:type('<C-Down>')
  s:has({ 'a = one + two' })
  s:sees('\nb = 3')
  vim.wait(100)
  equal(#s:heard('workspace/executeCommand'), 0)
  s:type('<C-Down>')
  s:has({ 'a = one + two', 'b = 3' })
  s:hears('workspace/executeCommand')
end)

T['each accept is one step of undo'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd\nef' } } }, function(s)
  s:type('iab')
  s:sees('cd\nef')
  s:type('<Tab>')
  s:has({ 'abcd', 'ef' })
  s:type('xy<Esc>')
  s:has({ 'abcd', 'efxy' })
  s:type('u')
  s:has({ 'abcd', 'ef' })
  s:type('u')
  s:has({ 'ab' })
  s:type('u')
  s:has({ '' })
  s:type('3<C-r>')
  s:has({ 'abcd', 'efxy' })
end)

T['the key does what it did before when nothing is shown'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd' } } }, function(s)
  s:type('ix<Tab>y')
  s:has({ 'x\ty' })
  s:command('inoremap <buffer> <Tab> MAPPED')
  s:type('<Tab>')
  s:has({ 'x\tyMAPPED' })
  s:type('<Esc>oab')
  s:sees('cd')
  s:type('<Tab>')
  s:has({ 'x\tyMAPPED', 'abcd' })
  s:type('<Tab>')
  s:has({ 'x\tyMAPPED', 'abcdMAPPED' })
end)

T['a mapping with a function comes back too'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd' } } }, function(s)
  s:lua([[vim.keymap.set('i', '<Tab>', function() return 'F' end, { buffer = true, expr = true })]])
  s:type('iab')
  s:sees('cd')
  s:type('<Tab>')
  s:has({ 'abcd' })
  s:type('<Tab>')
  s:has({ 'abcdF' })
end)

T['characters outside the BMP before the cursor do not move it'] = with({
  lines = { '' }, plan = { by_text = { ['😀é '] = 'größe😀x' } },
}, function(s)
  s:type('i😀é ')
  s:sees('größe😀x')
  equal(s:heard('textDocument/inlineCompletion')[1].params.position, { line = 0, character = 4 })
  s:type('grö')
  s:sees('ße😀x')
  s:type('<Tab>')
  s:has({ '😀é größe😀x' })
  s:type('!')
  s:has({ '😀é größe😀x!' })
end)

T['the middle of a line reads as it will be'] = with({
  lines = { 'f(a);\tg();' }, plan = { by_text = { ['f('] = 'one, ' } },
}, function(s)
  s:type('f(a')
  s:sees(nil, 100)
  s:type('<Esc>0f(a')
  s:sees('one, a);      g();')
  equal(s:screen(1), { 'f(one, a);      g();' })
  equal(s:call('nvim_win_get_cursor', 0), { 1, 2 })
  s:type('<Tab>')
  s:has({ 'f(one, a);\tg();' })
end)

T['several lines in the middle of a line carry its rest behind the last'] = with({
  lines = { 'f(a long rest);' }, plan = { by_text = { ['f('] = '\n\tx,\n' } },
}, function(s)
  s:type('0f(a')
  s:sees('             \n        x,\na long rest);')
  equal(s:screen(3), { 'f(', '        x,', 'a long rest);' })
  s:type('<Tab>')
  s:has({ 'f(', '\tx,', 'a long rest);' })
end)

T['what a range covers is replaced'] = with({
  lines = { 'call()' },
  plan = { inline = { items = { {
    insertText = 'call(a, b)',
    range = { start = { line = 0, character = 0 }, ['end'] = { line = 0, character = 6 } },
  } } } },
}, function(s)
  s:type('0f(a')
  s:sees('a, b)')
  s:type('<C-Right>')
  s:has({ 'call(a)' })
  s:sees(', b)')
  s:type('<Tab>')
  s:has({ 'call(a, b)' })
end)

T['tabs are drawn as wide as they are'] = with({ lines = { '' }, plan = { by_text = { ['abc'] = '\tx\n\t\ty' } } }, function(s)
  s:command('setlocal tabstop=4')
  s:type('iabc')
  s:sees(' x\n        y')
  equal(s:screen(2), { 'abc x', '        y' })
end)

T['the end of insert mode, another place and another buffer clear it'] = with({
  lines = { '', 'x' }, plan = { by_text = { ['ab'] = 'cd' } },
}, function(s)
  s:type('iab')
  s:sees('cd')
  s:type('<Esc>')
  s:sees(nil)
  s:type('a')
  s:sees('cd')
  s:type('<Down>')
  s:sees(nil)
  s:type('<Up>')
  s:sees('cd')
  s:command('new')
  s:command('wincmd p')
  s:sees(nil)
end)

T['dismissing keeps it away until something is typed'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd', ['abc'] = 'de' } } }, function(s)
  s:type('iab')
  s:sees('cd')
  s:type('<C-]>')
  s:sees(nil)
  vim.wait(150)
  s:sees(nil)
  s:type('c')
  s:sees('de')
end)

T['alternatives are asked for and gone through'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = { 'one', 'two' } } } }, function(s)
  s:type('iab')
  s:sees('one')
  s:type('<M-]>')
  s:sees('one (1/2)')
  local asked = s:heard('textDocument/inlineCompletion')
  equal(asked[#asked].params.context.triggerKind, 1)
  s:type('<M-]>')
  s:sees('two (2/2)')
  s:type('<M-[>')
  s:sees('one (1/2)')
  s:type('<M-[><Tab>')
  s:has({ 'abtwo' })
end)

T['null keeps what is drawn for a moment and an empty list draws nothing'] = with({ lines = { '' }, plan = { inline = vim.NIL } }, function(s)
  s:type('iab')
  s:hears('textDocument/inlineCompletion')
  vim.wait(100)
  s:sees(nil)
  s:plan({ inline = { items = {} } })
  s:type('c')
  s:hears('textDocument/inlineCompletion', 2)
  vim.wait(100)
  s:sees(nil)
  equal(s:messages(), '')
end)

T['an answer that comes late is cancelled and not drawn'] = with({
  lines = { '' }, plan = { by_text = { ['ab'] = 'late', ['abx'] = 'new' }, late_ms = 300 },
}, function(s)
  s:type('iab')
  s:hears('textDocument/inlineCompletion')
  s:type('x')
  s:hears('$/cancelRequest')
  s:sees('new')
end)

T['errors are not shown to somebody who types'] = with({ lines = { '' }, plan = { error = { code = -32803, message = 'broken' } } }, function(s)
  s:type('iab')
  s:hears('textDocument/inlineCompletion')
  vim.wait(150)
  equal(s:messages(), '')
  s:type('<M-]>')
  s:hears('textDocument/inlineCompletion', 2)
  vim.wait(150)
  equal(s:messages(), '')
end)

T['subtle mode shows nothing while a menu is open'] = with({
  lines = { '' }, plan = { by_text = { ['ab'] = 'cd', ['abba'] = 'x' } }, before = [[require('redraft').setup { mode = 'subtle' }]],
}, function(s)
  s:command('set completeopt=menuone,noinsert')
  s:type('iab')
  s:sees('cd')
  s:command([[inoremap <F2> <Cmd>call complete(1, ['abba', 'abbb'])<CR>]])
  s:type('<F2>')
  s:sees(nil)
  s:type('<C-e>')
  s:sees('cd')
end)

T['with a menu open the key to accept is the menu\'s'] = with({ lines = { '' }, plan = { by_text = { ['ab'] = 'cd' } } }, function(s)
  s:command('set completeopt=menuone,noinsert')
  s:command([[inoremap <F2> <Cmd>call complete(1, ['abba', 'abbb'])<CR>]])
  s:command([[inoremap <expr> <Tab> pumvisible() ? '<C-y>' : '<Tab>']])
  s:type('iab')
  s:sees('cd')
  s:type('<F2>')
  vim.wait(100)
  s:sees('cd')
  s:type('<Tab>')
  s:has({ 'abba' })
end)

T['a draft is drawn while it is watched'] = with({
  lines = { '' }, before = [[require('redraft').setup { draft = true }]],
  plan = {
    by_text = { ['ab'] = 'final' }, late_ms = 600,
    drafts = { { seq = 1, items = { { insertText = 'f', pieces = {
      { text = 'f', state = 'settled', prob = 1 }, { text = '', state = 'mask', prob = 0 } } } } } },
  },
}, function(s)
  equal(s:hears('initialize')[1].params.initializationOptions.draft, true)
  s:type('iab')
  s:sees('f░')
  s:type('')
  s:sees('final')
  s:type('<Tab>')
  s:has({ 'abfinal' })
end)

T['a draft cannot be accepted and does not outlive an answer of null'] = with({
  lines = { '' }, before = [[require('redraft').setup { draft = true }]],
  plan = { inline = vim.NIL, late_ms = 400, drafts = { { seq = 1, items = { { insertText = 'half' } } } } },
}, function(s)
  s:type('iab')
  s:sees('half')
  equal(s:lua([[return require('redraft').accept()]]), false)
  s:sees(nil)
  s:has({ 'ab' })
end)

return T
