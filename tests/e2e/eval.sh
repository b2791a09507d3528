#!/bin/sh
# redraft eval and compare on this repository's own sources: few cases, all forms of the result.
set -u
redraft=$1 source=$2
one="--threads 1" # beside other tests two would wait for each other
. "$(dirname "$0")/checks.sh"
expect 0 '' "$redraft" eval "$source/core/base" --cases 2 --seed 3 --write-set a.jsonl
expect 0 '' "$redraft" eval "$source/core/base" --cases 2 --seed 3 --write-set b.jsonl
cmp -s a.jsonl b.jsonl; check 'the same seed cuts other cases' $?
[ "$(wc -l <a.jsonl)" = 8 ]; check 'two cases of four kinds' $?

# A written set is what infill reads, and gives the figures of the cases it was cut from.
"$redraft" infill --jsonl $one <a.jsonl | grep -c '"completion"' >count
[ "$(cat count)" = 8 ]; check 'infill answers the set' $?
expect 0 '' "$redraft" eval --set a.jsonl --quick --no-draft $one --json
sed 's/"ms[_a-z0-9]*":[0-9.e+-]*//g' out >of_set
expect 0 '' "$redraft" eval "$source/core/base" --cases 2 --seed 3 --quick --no-draft $one --json --page page.html
sed 's/"ms[_a-z0-9]*":[0-9.e+-]*//g' out >of_folder
grep -q '^{"sets":\[{"name":"line","cases":2,"files":2,"em":[0-9.]*,"edit_similarity":[0-9.]*,"ci":\[' out
check 'the shape of --json' $?
grep -q '"floors":{"copied line":\[{"name":"line"' out; check 'floors' $?
sed 's/.*"floors"//; s/"seed".*//' of_set >x
sed 's/.*"floors"//; s/"seed".*//' of_folder >y
cmp -s x y; check 'a set and its folder disagree' $?
grep -q '<svg' page.html && grep -q '</html>' page.html; check 'the page' $?

expect 0 '' "$redraft" eval "$source/core/base" --cases 1 --kinds end $one
grep -q '^faults mended' out && grep -q '^bits a byte: model [0-9]' out; check 'the rest of the table' $?
expect 0 '' "$redraft" compare builtin builtin --cases 1 $one --json
grep -q '"same_tokens":true,"agreement":1,"agreement_ci":\[1,1\],"log_loss_difference":0,"log_loss_difference_ci":\[0,0\],' out; check 'a model agrees with itself' $?

expect 0 '' "$redraft" compare builtin "$source/core/format" --kv raw --cases 4 $one --json
grep -q '"restored":{"agreement":1,.*"log_loss_difference":0,.*"chained":{"agreement":1,.*"log_loss_difference":0,' out
check 'raw blocks are exact' $?
expect 0 '' "$redraft" compare builtin "$source/core/format" --kv int8 --cases 4 $one
grep -q '^int8: 49248 bytes a block, 196608' out && grep -q '^chained  *[0-9]' out; check 'int8 blocks' $?

mkdir m && cp "$source"/core/builtin/* m
sed -i '/redraft_confidence/,/\]/d; s/"redraft_layout": "infill-1",/"redraft_layout": "infill-1"/' m/config.json
expect 0 '' "$redraft" eval "$source/core/base" --cases 8 --calibrate --model m --write m $one
grep -q '^own    base' out && grep -q '^mixed .*both' out; check 'what was fitted' $?
grep -q '^gate ' out; check 'the gate' $?
grep -q redraft_confidence m/config.json && "$redraft" infill "$source/core/base/buf.c:9:1" --model m $one >/dev/null
check 'a model that was fitted answers' $?
expect 2 'goes with --calibrate' "$redraft" eval "$source/core/base" --write m
expect 2 'folder' "$redraft" eval
expect 2 'kinds' "$redraft" eval "$source/core" --kinds half
expect 2 'quality' "$redraft" eval "$source/core" --quality 0,7
expect 1 'no such folder' "$redraft" eval nowhere
expect 1 'nowhere.jsonl' "$redraft" eval --set nowhere.jsonl
expect 2 'two models' "$redraft" compare builtin
expect 1 'nomodel' "$redraft" compare builtin nomodel
expect 2 'raw, bf16 or int8' "$redraft" compare builtin "$source/core" --kv fp8
expect 2 'one model and a folder' "$redraft" compare builtin --kv int8
for call in eval compare; do
    "$redraft" "$call" --help >out || check "$call --help" 1
    [ "$(wc -l <out)" -le 24 ]; check "$call --help fits a screen" $?
done
[ $bad = 0 ] && echo 'eval and compare do what they say'
exit $bad
