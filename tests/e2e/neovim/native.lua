-- What the plugin does with Neovim's own inline completion. No Neovim that has it is among Debian's packages, so its functions are stood in
-- for by ones that do what its help says: enabled by buffer, `get` hands what is shown to a callback a moment later.
local scene = require('scene')
local child = require('child')
local equal = scene.equal

local T = {}

local STAND_IN = [[
  local config
  STOOD = { enabled = {}, item = nil }
  vim.lsp.config = function(_, given) config = given end
  vim.lsp.enable = function()
    local function start(buf)
      config.root_dir(buf, function()
        local own = vim.tbl_extend('force', config, {})
        own.root_dir = nil
        vim.lsp.buf_attach_client(buf, vim.lsp.start_client(own))
      end)
    end
    vim.api.nvim_create_autocmd('BufReadPost', { callback = function(event) start(event.buf) end })
  end
  vim.lsp.inline_completion = {
    enable = function(on, filter) STOOD.enabled[tostring(filter.bufnr)] = on end,
    get = function(options)
      local item = STOOD.item
      STOOD.item = nil
      if item then vim.schedule(function() options.on_accept(item) end) end
      return item ~= nil
    end,
  }
  function SHOW(text, row, col, end_col)
    STOOD.item = {
      insert_text = text, client_id = require('redraft.client').get().id,
      range = { start_row = row, start_col = col, end_row = row, end_col = end_col or col },
      command = { title = '', command = 'redraft.accepted', arguments = { 'it' } },
    }
  end
]]

local function with(lines, plan, run)
  return scene.with({ before = STAND_IN, lines = lines, plan = plan }, function(s)
    child.wait('the buffer to be enabled', 5000, function() return s:lua('return STOOD.enabled["1"]') == true end)
    run(s)
  end)
end

T['the keys accept what Neovim shows, and are themselves without it'] = with({ '' }, {}, function(s)
  s:type('iab')
  s:has({ 'ab' })
  s:lua("SHOW('cd ef', 0, 2)")
  s:type('<C-Right>')
  s:has({ 'abcd' })
  equal(#s:heard('workspace/executeCommand'), 0)
  s:lua("SHOW(' ef', 0, 4)")
  s:type('<Tab>')
  s:has({ 'abcd ef' })
  s:hears('workspace/executeCommand')
  s:type('<Tab>x<Tab>y')
  s:has({ 'abcd ef\tx\ty' })
end)

T['what was typed since it was shown is not inserted again'] = with({ '' }, {}, function(s)
  s:type('iabc')
  s:has({ 'abc' })
  s:lua("SHOW('cde', 0, 2)")
  s:type('<Tab>')
  s:has({ 'abcde' })
  s:lua("SHOW('other', 0, 2)")
  s:type('<Tab>')
  vim.wait(100)
  s:has({ 'abcde' })
end)

T['alternatives are drawn by the plugin while Neovim pauses'] = with({ '' }, { by_text = { ['ab'] = { 'one', 'two' } } }, function(s)
  s:type('iab')
  s:sees(nil)
  s:type('<M-]>')
  s:sees('one (1/2)')
  equal(s:lua('return STOOD.enabled["1"]'), false)
  s:type('<M-]><Tab>')
  s:has({ 'abtwo' })
  child.wait('Neovim to go on', 5000, function() return s:lua('return STOOD.enabled["1"]') == true end)
end)

T['dismissing pauses until something is typed'] = with({ '' }, {}, function(s)
  s:type('ia')
  s:has({ 'a' })
  vim.wait(50)
  s:type('<C-]>')
  child.wait('the pause', 5000, function() return s:lua('return STOOD.enabled["1"]') == false end)
  s:type('b')
  child.wait('Neovim to go on', 5000, function() return s:lua('return STOOD.enabled["1"]') == true end)
end)

T['nothing is asked for by the plugin itself'] = with({ '' }, { by_text = { ['ab'] = 'cd' } }, function(s)
  s:type('iab')
  vim.wait(200)
  s:sees(nil)
  equal(#s:heard('textDocument/inlineCompletion'), 0)
end)

return T
