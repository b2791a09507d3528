#!/bin/sh
# run.sh PACKAGES TEST.js... -- PROGRAM ARGUMENT... - run tests of this folder against a server that speaks LSP on its stdin and
# stdout. PACKAGES is the folder that npm's packages are installed in, once. Exits with 77 where Node 20, npm or the registry
# cannot be had.
set -u
here=$(cd "$(dirname "$0")" && pwd)
packages=$1
shift

skip() { echo "skipped: $1"; exit 77; }
command -v npm >/dev/null || skip 'npm is needed'
node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null || skip 'Node 20 or newer is needed'

# Tests that run side by side share the folder: one installs, the others wait.
mkdir -p "$packages"
(
    flock 9
    cmp -s "$here/package.json" "$packages/installed.json" && exit 0
    cp "$here/package.json" "$packages/package.json"
    cd "$packages" && npm install --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error \
        && cp package.json installed.json
) 9>"$packages/lock" || skip 'the npm packages cannot be had'

tests=
while [ "$1" != -- ]; do
    tests="$tests $1"
    shift
done
shift
bad=0
for test in $tests; do
    NODE_PATH=$packages/node_modules node "$here/$test" "$@" || bad=1
done
exit $bad
