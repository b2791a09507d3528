#!/bin/sh
# The built-in model's figures on this machine: median and minimum beside the measured ceilings, and what is wanted.
# Not a test: run it on an idle machine.   sh tests/bench/builtin.sh PROGRAM [THREADS] [RUNS]
set -eu
redraft=$1 threads=${2:-2} runs=${3:-31}
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
load=$(cut -d' ' -f1 /proc/loadavg)
echo "load average before: $load"

"$redraft" bench --threads "$threads" --repeat "$runs" --context 0,512,1024 | tee "$work/table"
echo

# From the program's start to its answer, in milliseconds.
i=0
while [ $i -lt "$runs" ]; do
    start=$(date +%s%N)
    "$redraft" infill "$here/core/base/buf.c:20:1" --threads "$threads" >/dev/null
    end=$(date +%s%N)
    echo $(((end - start) / 1000)) >>"$work/start"
    i=$((i + 1))
done
sort -n "$work/start" >"$work/sorted"

# The peak of one whole infill, where GNU time is there to tell.
peak=-
if [ -x /usr/bin/time ]; then
    /usr/bin/time -f %M -o "$work/peak" "$redraft" infill "$here/core/base/buf.c:20:1" --threads "$threads" >/dev/null
    peak=$(awk '{ printf "%.1f", $1 * 1024 / 1e6 }' "$work/peak")
fi

row() { # what, median, minimum, unit, wanted
    printf '%-34s %10s %10s %-3s %s\n' "$1" "$2" "$3" "$4" "$5"
}
field() { # pattern, number of the field
    awk -v f="$2" "/$1/ { print \$f; exit }" "$work/table"
}
row figure median min '' wanted
row 'cold prefill of 512 tokens' "$(field '^prefill +512' 4)" "$(field '^prefill +512' 5)" ms 'below 100'
row 'warm step, 32 rows behind 512' "$(field '^ +512 ' 4)" "$(field '^ +512 ' 5)" ms 'below 3'
row 'program start to first answer' "$(awk -v n="$runs" 'NR == int(n / 2) + 1 { printf "%.1f", $1 / 1e3 }' "$work/sorted")" \
    "$(awk 'NR == 1 { printf "%.1f", $1 / 1e3 }' "$work/sorted")" ms 'below 300'
row 'peak memory of an infill' "$peak" "$peak" MB 'below 120'
