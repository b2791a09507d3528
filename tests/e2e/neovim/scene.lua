-- A test's scene: a scratch folder, the server with a script, and a Neovim with a file open in insert mode or not.
local M = {}

local child = require('child')
local here = debug.getinfo(1, 'S').source:sub(2):match('^(.*)/')
local number = 0

M.plugin = vim.env.REDRAFT_PLUGIN

function M.scratch()
  number = number + 1
  local folder = ('%s/%d'):format(vim.env.REDRAFT_SCRATCH, number)
  vim.fn.mkdir(folder, 'p')
  return folder
end

local Scene = {}
Scene.__index = function(scene, name)
  return Scene[name] or scene.child[name] and function(_, ...) return scene.child[name](scene.child, ...) end
end

function Scene:plan(plan)
  local temporary = self.folder .. '/plan.new'
  vim.fn.writefile({ vim.json.encode(plan) }, temporary)
  assert(vim.loop.fs_rename(temporary, self.folder .. '/plan'))
end

-- The messages with this method that the server heard so far.
function Scene:heard(method)
  local out = {}
  local file = io.open(self.folder .. '/heard')
  for line in file and file:lines() or function() end do
    local message = vim.json.decode(line)
    if message.method == method then table.insert(out, message) end
  end
  if file then file:close() end
  return out
end

function Scene:hears(method, count)
  child.wait(method, 5000, function() return #self:heard(method) >= (count or 1) end)
  return self:heard(method)
end

function Scene:edit(name, lines)
  vim.fn.writefile(lines, self.folder .. '/' .. name)
  self.child:command('edit ' .. name)
  self.child:attached()
end

-- `options`: plan, lines, name, before (Lua ahead of the plugin), cmd (instead of the server with a script).
function M.open(options)
  local folder = M.scratch()
  local server = ('%s --headless --clean -u NONE -i NONE -c "luafile %s/fake-server.lua"'):format(vim.v.progpath, here)
  local program = folder .. '/server'
  vim.fn.writefile({ '#!/bin/sh', 'exec ' .. server }, program)
  vim.fn.setfperm(program, 'rwx------')
  local scene = setmetatable({ folder = folder, program = program }, Scene)
  scene:plan(options.plan or {})
  scene.child = child.start({
    scratch = folder, plugin = M.plugin, before = options.before,
    env = {
      REDRAFT = options.cmd or program, FAKE_PLAN = folder .. '/plan', FAKE_HEARD = folder .. '/heard',
      VIMRUNTIME = vim.env.VIMRUNTIME,
    },
  })
  if options.lines then scene:edit(options.name or 'a.txt', options.lines) end
  return scene
end

-- Run a test in a scene that ends with it.
function M.with(options, run)
  return function()
    local scene = M.open(options)
    local ok, why = xpcall(function() run(scene) end, debug.traceback)
    if not ok then
      local told, messages = pcall(scene.child.messages, scene.child)
      why = why .. (told and messages ~= '' and '\nmessages: ' .. messages or '')
    end
    scene.child:stop()
    if not ok then error(why, 0) end
  end
end

function M.equal(got, expected)
  if not vim.deep_equal(got, expected) then
    error(('got %s, expected %s'):format(vim.inspect(got), vim.inspect(expected)), 2)
  end
end

return M
