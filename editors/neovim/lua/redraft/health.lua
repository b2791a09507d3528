-- :checkhealth redraft
local M = {}

local client = require('redraft.client')
local config = require('redraft.config')
local status = require('redraft.status')

-- 0.7 has functions of Vim script, later versions a module, whose functions were renamed once.
local function report(kind, text, advice)
  local health = rawget(vim, 'health') or require('health')
  local run = health[kind] or health['report_' .. kind]
  if advice then run(text, advice) else run(text) end
end

local function check_program()
  local cmd, source = config.command()
  if not cmd then
    return report('error', source, { 'Build redraft, or name the program: require("redraft").setup { cmd = "/path/to/redraft" }' })
  end
  report('ok', ('%s (%s)'):format(table.concat(cmd, ' '), source))
  local out = vim.fn.systemlist({ cmd[1], '--version' })
  if vim.v.shell_error == 0 and out[1] then
    report('ok', out[1])
  else
    report('warn', cmd[1] .. ' --version does not answer')
  end
end

local function check_server()
  local c = client.get()
  local said = status.get()
  if not client.enabled() then return report('info', 'switched off; ":Redraft enable" switches it on') end
  if not c then
    if said.kind == 'Error' then return report('error', said.message) end
    return report('info', 'not running; it starts with the first file')
  end
  report('ok', ('running, %s, %s'):format(client.encoding(c), said.kind))
  if said.message ~= '' then report(said.kind == 'Error' and 'error' or 'info', said.message) end
end

function M.check()
  report('start', 'redraft')
  report('info', client.native() and 'ghost text is drawn by Neovim' or 'ghost text is drawn by the plugin')
  check_program()
  check_server()
end

return M
