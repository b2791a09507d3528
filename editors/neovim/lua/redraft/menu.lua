-- Whether a completion menu is open: Neovim's own, nvim-cmp's or blink.cmp's.
local M = {}

local function asks(module, name)
  local loaded = package.loaded[module]
  if type(loaded) ~= 'table' then return false end
  local ok, visible = pcall(function() return loaded[name]() end)
  return ok and visible == true
end

function M.visible()
  return vim.fn.pumvisible() == 1 or asks('cmp', 'visible') or asks('blink.cmp', 'is_visible')
end

return M
