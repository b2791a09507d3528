-- Keys that a buffer has for a while: what a key did before comes back afterwards, whoever mapped it. So a key of ours can never be in
-- the way of another plugin's but while there is something of ours to act on.
local M = {}

local function term(key) return vim.api.nvim_replace_termcodes(key, true, false, true) end

local function own_mapping(buf, mode, lhs)
  for _, map in ipairs(vim.api.nvim_buf_get_keymap(buf, mode)) do
    if term(map.lhs) == term(lhs) then return map end
  end
end

local function restore(buf, mode, map)
  vim.api.nvim_buf_set_keymap(buf, mode, map.lhs, map.rhs or '', {
    callback = map.callback,
    expr = map.expr == 1,
    noremap = map.noremap == 1,
    nowait = map.nowait == 1,
    script = map.script == 1,
    silent = map.silent == 1,
  })
end

local passing -- the held keys that one was passed on from

-- What the key does without us, then ours again. Typed as one piece, so that nothing comes in between.
local function pass_on(held, lhs)
  held:release()
  passing = held
  vim.api.nvim_feedkeys(term(lhs .. '<Cmd>lua require("redraft.keys").again()<CR>'), 'im', false)
end

function M.again()
  local held = passing
  passing = nil
  if held and not held.over then held:take() end
end

local Held = {}
Held.__index = Held

function Held:take()
  if self.saved or not vim.api.nvim_buf_is_valid(self.buf) then return end
  self.saved = {}
  for lhs, action in pairs(self.actions) do
    self.saved[lhs] = own_mapping(self.buf, self.mode, lhs) or false
    vim.keymap.set(self.mode, lhs, function()
      if action() == false then pass_on(self, lhs) end
    end, { buffer = self.buf, silent = true, nowait = true, desc = 'redraft' })
  end
end

function Held:release()
  local saved = self.saved
  self.saved = nil
  if not saved or not vim.api.nvim_buf_is_valid(self.buf) then return end
  for lhs, map in pairs(saved) do
    pcall(vim.api.nvim_buf_del_keymap, self.buf, self.mode, lhs)
    if map then restore(self.buf, self.mode, map) end
  end
end

function Held:drop()
  self:release()
  self.over = true
end

-- Map keys of a buffer until `drop` is called. `actions`: from a key to a function; one that returns false had nothing to do, and the key
-- does what it did before.
function M.hold(buf, mode, actions)
  local held = setmetatable({ buf = buf, mode = mode, actions = actions }, Held)
  held:take()
  return held
end

return M
