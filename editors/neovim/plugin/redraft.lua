if vim.g.loaded_redraft or vim.fn.has('nvim-0.7') == 0 then return end
vim.g.loaded_redraft = true
require('redraft').begin()
