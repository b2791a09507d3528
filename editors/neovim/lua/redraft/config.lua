-- What the user set, checked; and where the program is. A wrong value is told once and ignored.
local M = {}

-- Settings of the server have its names and go to it as they are; the others are this plugin's.
local rules = {
  cmd = { types = { string = true, table = true } },
  keys = { types = { table = true, boolean = true } },
  native = { types = { boolean = true } },
  enable = { types = { boolean = true }, server = true },
  mode = { types = { string = true }, among = { eager = true, subtle = true }, server = true },
  quality = { types = { number = true }, most = 1, server = true },
  minConfidence = { types = { number = true }, most = 1, server = true },
  maxMs = { types = { number = true }, server = true },
  debounceMs = { types = { number = true }, server = true },
  exclude = { types = { table = true }, server = true },
  languages = { types = { table = true }, server = true },
  diagnostics = { types = { boolean = true }, server = true },
  completion = { types = { boolean = true }, server = true },
  draft = { types = { boolean = true }, server = true },
  cache = { types = { boolean = true }, server = true },
}

M.keys = {
  accept = '<Tab>',
  accept_word = '<C-Right>',
  accept_line = '<C-Down>',
  next = '<M-]>',
  previous = '<M-[>',
  dismiss = '<C-]>',
}

local values = {}
local told = {}

local function tell(text)
  if told[text] then return end
  told[text] = true
  vim.notify('redraft: ' .. text, vim.log.levels.WARN)
end

local function fault(rule, value)
  if not rule.types[type(value)] then
    return 'is a ' .. type(value) .. ', expected ' .. table.concat(vim.tbl_keys(rule.types), ' or ')
  end
  if rule.among and not rule.among[value] then
    local names = vim.tbl_keys(rule.among)
    table.sort(names)
    return ('is "%s", expected one of: %s'):format(value, table.concat(names, ', '))
  end
  if type(value) ~= 'number' then return nil end
  if value ~= value or value < 0 or value > (rule.most or math.huge) then
    return ('is %s, expected %s'):format(value, rule.most and '0 to ' .. rule.most or '0 or more')
  end
end

local function take_keys(keys)
  if keys == true then return {} end
  if keys == false then
    local none = {}
    for name in pairs(M.keys) do none[name] = false end
    return none
  end
  local good = {}
  for name, key in pairs(keys) do
    if M.keys[name] == nil then
      tell(('keys.%s is not known'):format(name))
    elseif key ~= false and type(key) ~= 'string' then
      tell(('keys.%s is a %s, expected a string or false'):format(name, type(key)))
    else
      good[name] = key
    end
  end
  return good
end

-- Take what is right in `given`, over what was set before.
function M.set(given)
  if given ~= nil and type(given) ~= 'table' then
    return tell(('setup was given a %s, expected a table'):format(type(given)))
  end
  for name, value in pairs(given or {}) do
    local rule = rules[name]
    local wrong = not rule and 'is not known' or fault(rule, value)
    if wrong then
      tell(('%s %s'):format(name, wrong))
    elseif name == 'keys' then
      values.keys = vim.tbl_extend('force', values.keys or {}, take_keys(value))
    else
      values[name] = value
    end
  end
end

function M.get(name)
  if name == 'keys' then return vim.tbl_extend('force', M.keys, values.keys or {}) end
  return values[name]
end

-- What the server is told of: its own settings, where the user set them.
function M.server()
  local out = vim.empty_dict()
  for name, rule in pairs(rules) do
    if rule.server then out[name] = values[name] end
  end
  return out
end

local function plugin_root()
  return vim.fn.fnamemodify(debug.getinfo(1, 'S').source:sub(2), ':p:h:h:h')
end

-- Places beside the plugin: a built checkout, and the prefix of an installed copy.
local function beside()
  local root = plugin_root()
  local places = { vim.fn.fnamemodify(root, ':h:h') .. '/build/release/lsp/redraft' }
  local prefix = root:match('^(.*)/share/')
  if prefix then table.insert(places, prefix .. '/bin/redraft') end
  return places
end

-- The command that starts the server as a list, and where it was found; or nil and why not.
function M.command()
  local cmd = values.cmd
  if type(cmd) == 'string' then cmd = { cmd, 'stdio' } end
  local source = 'setup'
  if not cmd and (vim.env.REDRAFT or '') ~= '' then
    cmd, source = { vim.env.REDRAFT, 'stdio' }, '$REDRAFT'
  end
  if cmd then
    if vim.fn.executable(cmd[1]) == 1 then return cmd, source end
    return nil, ('%s, named by %s, cannot be run'):format(tostring(cmd[1]), source)
  end
  if vim.fn.executable('redraft') == 1 then return { vim.fn.exepath('redraft'), 'stdio' }, 'PATH' end
  for _, place in ipairs(beside()) do
    if vim.fn.executable(place) == 1 then return { place, 'stdio' }, 'beside the plugin' end
  end
  return nil, 'the program redraft is neither set, nor in $REDRAFT, on PATH or beside the plugin'
end

return M
