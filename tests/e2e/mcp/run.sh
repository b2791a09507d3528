#!/bin/sh
# The MCP server under real clients: run.sh NPM-FOLDER COMMAND... The clients are pinned in package.json beside this file and installed
# into NPM-FOLDER once; without node 20, npm or a registry the test is skipped. The command gets --root and must speak
# MCP on its stdin and stdout.
set -u
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && npm=$(cd "$1" && pwd) || exit 1
shift
. "$here/../checks.sh"

skip() {
    echo "skipped: $1"
    exit 77
}
major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) || skip 'node is needed'
[ "$major" -ge 20 ] || skip "node 20 is needed, this is $major"
command -v npm >/dev/null || skip 'npm is needed'
if ! cmp -s "$here/package.json" "$npm/installed.json"; then
    cp "$here/package.json" "$npm/package.json"
    (cd "$npm" && timeout 300 npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error) ||
        skip 'the clients could not be installed'
    cp "$here/package.json" "$npm/installed.json"
fi

mkdir root
printf 'def add(a, b):\n    return a + b\n' >root/a.py
printf 'KEY=1\n' >root/.env
printf 'x = 1\n' >b.py
root=$PWD/root
# A home of its own: no daemon of the user's is met, and none is left behind.
mkdir home run
chmod 700 run
export HOME="$PWD/home" XDG_RUNTIME_DIR="$PWD/run" REDRAFT_CACHE_DIR="$PWD/home/cache"
unset XDG_CONFIG_HOME XDG_CACHE_HOME XDG_STATE_HOME

for kind in sdk legacy modern; do
    timeout 120 node "$here/clients.mjs" "$npm" "$root" "$kind" "$@" --root "$root"
    check "$kind" $?
done

inspect() { # what it must print, its arguments after the command...
    want=$1
    shift
    timeout 60 node "$npm/node_modules/@modelcontextprotocol/inspector/cli/build/cli.js" --cli "$@" >out 2>err </dev/null
    [ $? = 0 ] && grep -q -- "$want" out || {
        echo "FAILED: inspector: no $want in:"
        head -c 2000 out err
        bad=1
    }
}
inspect '"name": "infill"' "$@" --root "$root" --method tools/list
inspect '"completion"' "$@" --root "$root" --method tools/call --tool-name infill \
    --tool-arg prefix=a --tool-arg suffix=b --tool-arg max_tokens=8
inspect '"isError": true' "$@" --root "$root" --method tools/call --tool-name infill --tool-arg prefix=a
"$1" stop >/dev/null 2>&1 </dev/null # the daemon, where there was one
exit $bad
