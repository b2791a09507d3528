-- The plugin with the daemon and a model whose answers are foretold: an infill is what stands between the last guillemets before the
-- cursor, a rewrite makes each word `bad` a `good`.
local scene = require('scene')
local child = require('child')
local equal = scene.equal

local T = {}

local function open(lines, run, settings)
  return function()
    scene.with({
      before = ('require("redraft").setup { cmd = { %q, "stdio", "--alone" }, %s }'):format(vim.env.REDRAFT_PROGRAM, settings or ''),
      name = 'a.c', lines = lines,
    }, run)()
  end
end

T['a suggestion is drawn, typed along and accepted in parts'] = open({ '// «one(two)»', '😀 ' }, function(s)
  s:type('GA')
  s:sees('one(two)')
  s:type('on')
  s:sees('e(two)')
  s:type('<C-Right>')
  s:has({ '// «one(two)»', '😀 one' })
  s:sees('(two)')
  s:type('<Tab>')
  s:has({ '// «one(two)»', '😀 one(two)' })
  equal(s:messages(), '')
end)

T['a suggestion in the middle of a line keeps its rest'] = open({ '// «one, »', 'f(😀);' }, function(s)
  s:type('j0f(a')
  s:sees('one, 😀);')
  s:type('<Tab>')
  s:has({ '// «one, »', 'f(one, 😀);' })
end)

T['alternatives come when they are asked for'] = open({ '// «far» «near» «best»', '' }, function(s)
  s:type('Gi')
  s:sees('best')
  s:type('<M-]>')
  s:sees('best (1/3)')
  s:type('<M-]>')
  s:sees('near (2/3)')
  s:type('<Tab>')
  s:has({ '// «far» «near» «best»', 'near' })
end)

T['what is being made is drawn while it is watched and cannot be accepted yet'] = open({ '// «abcdefgh» @steps=8 @us=60000', '' }, function(s)
  s:type('Gi')
  s:sees('abcdefgh')
  equal(s:lua("return require('redraft').accept()"), false)
  child.wait('the whole', 10000, function() return s:lua("return require('redraft.ghost').visible()") end)
  s:type('<Tab>')
  s:has({ '// «abcdefgh» @steps=8 @us=60000', 'abcdefgh' })
end, 'draft = true')

T['a rewrite is previewed with an instruction, accepted and undone'] = open({ 'a bad x', '\tbad y' }, function(s)
  s:command('%Redraft rewrite no bad words')
  child.wait('the preview', 10000, function() return s:lua("return require('redraft.rewrite').shown()") end)
  equal(s:screen(4), { 'a bad x', '        bad y', 'a good x', '        good y' })
  s:has({ 'a bad x', '\tbad y' })
  s:type('<CR>')
  s:has({ 'a good x', '\tgood y' })
  s:type('u')
  s:has({ 'a bad x', '\tbad y' })
end)

T['switching off reaches the server, which says so'] = open({ '// «one»', '' }, function(s)
  s:command('Redraft disable')
  child.wait('the status', 5000, function() return s:lua("return require('redraft').status()") == 'redraft off' end)
  s:type('Gi')
  vim.wait(200)
  s:sees(nil)
  s:command('Redraft enable')
  child.wait('the status', 5000, function() return s:lua("return require('redraft').status()") == 'redraft' end)
  s:type('x<BS>')
  s:sees('one')
end)

T['why names what became of the last request'] = open({ '// «one»', '' }, function(s)
  s:type('Gi')
  s:sees('one')
  s:type('<Esc>')
  s:command('Redraft why')
  child.wait('an explanation', 5000, function() return s:messages():find('redraft: %S') end)
end)

return T
