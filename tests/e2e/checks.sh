# checks.sh - what the scripts here share: a folder of their own, and calls held against what is expected. Sourced
# before anything else; `bad` is the exit status.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
check() { # what, condition's status
    [ "$2" = 0 ] || { echo "FAILED: $1"; bad=1; }
}
expect() { # status, text on stderr, command...
    want=$1 text=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    [ "$got" = "$want" ] || { echo "FAILED: $*: exit $got, expected $want"; cat "$work/err"; bad=1; }
    [ -z "$text" ] || grep -q -- "$text" "$work/err" || { echo "FAILED: $*: no \"$text\" in:"; cat "$work/err"; bad=1; }
}
cd "$work" || exit 1
