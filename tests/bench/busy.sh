#!/bin/sh
# A pass of two threads while something else has one of the two cores, and what idle threads take.
# Not a test: run it on a machine with two idle cores, or more where taskset leaves two.   sh tests/bench/busy.sh PROGRAM [OPTION...]
#
# What a pass would take that waits for the slower of two threads is printed too: each does half, one at half its speed, so as
# long as one thread alone. Options go to redraft bench; RUN is put before it (chrt -r 10), and before the spinning process.
set -eu
redraft=$1
shift
[ $# -gt 0 ] || set -- --shape dense-59m --weights int4 --context 0 --repeat 61
RUN=${RUN:-}
work=$(mktemp -d)
spinner=
trap '[ -z "$spinner" ] || kill "$spinner"; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

bench() { # threads, the rest: options
    n=$1
    shift
    # shellcheck disable=SC2086
    $RUN taskset -c 0,1 "$redraft" bench --threads "$n" "$@" | awk '$1 ~ /^[0-9]+$/ { print $4, $5; exit }'
}
row() { printf '%-44s %10s %10s ms\n' "$@"; }

row 'pass, median and minimum' median minimum
# shellcheck disable=SC2046
row '1 thread' $(bench 1 "$@")
# shellcheck disable=SC2046
row '2 threads' $(bench 2 "$@")
# shellcheck disable=SC2086
$RUN taskset -c 1 sh -c 'while :; do :; done' &
spinner=$!
# shellcheck disable=SC2046
row '1 thread, core 1 busy elsewhere' $(bench 1 "$@")
# shellcheck disable=SC2046
row '2 threads, core 1 busy elsewhere' $(bench 2 "$@")
kill "$spinner"
wait "$spinner" 2>/dev/null || true
spinner=

# Processor time of a process that has answered once and waits, with all its threads.
mkfifo "$work/in"
"$redraft" infill --jsonl --threads 2 <"$work/in" >"$work/out" &
idle=$!
exec 3>"$work/in"
printf '%s\n' '{"task_id":"1","prefix":"int a = ","suffix":";\n"}' >&3
while [ ! -s "$work/out" ]; do sleep 0.1; done
ticks() { awk '{ print $14 + $15 }' "/proc/$idle/stat"; }
before=$(ticks)
sleep 5
echo "idle for 5 s with 2 threads: $(($(ticks) - before)) ticks of processor time (1/$(getconf CLK_TCK) s each)"
exec 3>&-
wait "$idle"
