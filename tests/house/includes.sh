#!/bin/sh
# Holds the #include lines against the allowed arrows between folders (docs/architecture in short: core knows
# nothing of lsp, cache, plugins, libuv, CUDA; jansson and PCRE2 stay in core/format; a plugin knows
# core/backend.h and core/base only; cache knows core/base and SQLite, which nobody else does; what the front and the fuzzers link of lsp knows core/base and jansson only).
set -u
cd "$1"
bad=0
refuse() { # what, files, pattern
    found=$(grep -nE "$3" $2 2>/dev/null)
    [ -z "$found" ] || { echo "$1:"; echo "$found"; bad=1; }
}
core=$(find core -name '*.[ch]')
refuse 'core knows lsp, cache or plugins' "$core" '#include "(lsp|cache|plugins)/'
refuse 'core knows libuv, SQLite or CUDA' "$core" '#include <(uv|sqlite3|cuda)'
outside=$(find core -name '*.[ch]' ! -path 'core/format/*')
refuse 'jansson or PCRE2 outside core/format' "$outside" '#include <(jansson|pcre2)'
refuse 'the JSON library passes through format/json.h' "$outside" '#include "core/format/json.h"'
refuse 'base knows a higher room' "$(find core/base -name '*.[ch]')" '#include "core/(format|model|decode|train|eval|tools|engine|plugin)'
refuse 'format knows a higher room' "$(find core/format -name '*.[ch]')" '#include "core/(model|decode|train|eval|tools|engine|plugin)'
refuse 'model knows a higher room' "$(find core/model -name '*.[ch]')" '#include "core/(decode|train|eval|tools|engine|plugin)'
refuse 'decode knows a higher room' "$(find core/decode -name '*.[ch]')" '#include "core/(train|eval|tools|engine|plugin)'
refuse 'train knows a higher room or the engine' "$(find core/train -name '*.[ch]')" '#include "core/(eval|tools|engine|plugin)'
refuse 'eval knows tools or engine' "$(find core/eval -name '*.[ch]')" '#include "core/(tools|engine|plugin)'
own=$(for m in limits utf8 wire repair message rpc text document sync glob exclude place hello link suspects follow front pipe; do ls lsp/$m.[ch] 2>/dev/null; done)
refuse 'a module of lsp that the front and the fuzzers link knows more than core/base' "$own" '#include ("core/([^b]|b[^a])|"(cache|plugins)/|<(uv|sqlite3))'
plugins=$(find plugins -name '*.[ch]')
found=$(grep -nE '#include "(core|lsp|cache)/' $plugins | grep -vE '"core/(backend|runner|train/learner)\.h"|"core/base/')
[ -z "$found" ] || { echo "a plugin knows more than the backend's and the learner's table:"; echo "$found"; bad=1; }
cache=$(find cache -name '*.[ch]')
refuse 'the cache knows more than core/base' "$cache" '#include ("(core/([^b]|b[^a])|lsp/|plugins/)|<(uv|jansson|pcre2))'
refuse 'SQLite outside cache' "$(find core lsp plugins -name '*.[ch]') cache/cache.h" '#include <sqlite3'
[ $bad = 0 ] && echo "the #include lines follow the arrows"
exit $bad
