-- Watching a suggestion become clear: the server's snapshots, drawn dimmed until the answer is there.
local M = {}

local client = require('redraft.client')
local config = require('redraft.config')
local ghost = require('redraft.ghost')

function M.on() return config.get('draft') == true end

function M.set(on)
  config.set({ draft = on })
  client.reconfigure()
end

function M.begin()
  client.on('$/redraft/draft', function(params)
    if M.on() then ghost.draft(params) end
  end)
end

return M
