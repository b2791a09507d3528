#!/bin/sh
# Run tests of the Neovim plugin in Neovim: run.sh PLUGIN PROGRAM FILE...; 77 where Neovim is missing.
set -eu
command -v nvim >/dev/null || { echo "skipped: no nvim on PATH"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
REDRAFT_PLUGIN=$(cd "$1" && pwd)
REDRAFT_PROGRAM=$2
shift 2
REDRAFT_TESTS=$* REDRAFT_SCRATCH=$scratch
export REDRAFT_PLUGIN REDRAFT_PROGRAM REDRAFT_TESTS REDRAFT_SCRATCH
export HOME="$scratch" XDG_CONFIG_HOME="$scratch/config" XDG_DATA_HOME="$scratch/data" XDG_CACHE_HOME="$scratch/cache" \
    XDG_STATE_HOME="$scratch/state"
nvim --headless --clean -u NONE -i NONE -c "luafile $here/run.lua"
