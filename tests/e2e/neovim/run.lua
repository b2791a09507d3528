-- Runs the files of tests that $REDRAFT_TESTS names, in the order of their names: each returns an object from a sentence to a function.
-- Prints a line a test and ends with 1 when one failed.
local here = debug.getinfo(1, 'S').source:sub(2):match('^(.*)/')
package.path = here .. '/?.lua;' .. package.path

local failed, passed = 0, 0

local function run(name, test)
  local ok, why = xpcall(test, debug.traceback)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
  end
  io.stdout:write((ok and 'ok      ' or 'FAILED  ') .. name .. '\n')
  if not ok then io.stdout:write(tostring(why):gsub('\n', '\n        ') .. '\n') end
  io.stdout:flush()
end

for file in vim.env.REDRAFT_TESTS:gmatch('%S+') do
  local tests = dofile(here .. '/' .. file)
  local names = vim.tbl_keys(tests)
  table.sort(names)
  for _, name in ipairs(names) do
    if name:find(vim.env.REDRAFT_ONLY or '', 1, true) then run(name, tests[name]) end
  end
end
io.stdout:write(('%d passed, %d failed\n'):format(passed, failed))
vim.cmd(failed == 0 and passed > 0 and 'qall!' or 'cquit 1')
