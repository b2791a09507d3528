#!/bin/sh
# The command line as a user or an agent calls it: results, exit statuses, and messages that name what is wrong.
set -u
redraft=$1 source=$2
. "$(dirname "$0")/checks.sh"

printf 'import os\n\n\ndef names(path):\n    out = []\n    \n    return out\n' >a.py
cp a.py before.py
expect 0 '' "$redraft" infill a.py:6:5
cp out first
expect 0 '' "$redraft" infill a.py:6:5 --threads 1
cmp -s out first; check 'the answer depends on the number of threads' $?
cmp -s a.py before.py; check 'infill changed the file' $?
expect 0 '' "$redraft" infill a.py:6:5 --diff
[ ! -s out ] || { cp a.py p.py; sed 's|a.py|p.py|' out | patch -s p.py; check 'the diff does not apply' $?; }
expect 0 '' "$redraft" infill a.py:6:5 --watch
[ -s err ]; check '--watch draws nothing' $?
cmp -s out first; check '--watch changes the answer' $?
expect 0 '' "$redraft" rewrite a.py:4-5
expect 0 'follows no instructions' "$redraft" rewrite a.py:4-5 --instruction 'rename out'
printf '{"task_id":"i","prefix":"","draft":"x","suffix":"","instruction":"y"}\n%.0s' 1 2 |
    "$redraft" rewrite --jsonl 2>err >out
[ "$(grep -c 'follows no instructions' err)" = 1 ] && [ "$(wc -l <out)" = 2 ]
check 'an instruction that is ignored is said once' $?
expect 0 '' "$redraft" score a.py --json
grep -q '^{"tokens":\[{"start":0,' out; check 'score --json' $?
expect 0 '' "$redraft" generate --prompt 'def add(a, b):' --max-tokens 16
expect 0 '' "$redraft" plugins
grep -q '^cpu  *yes' out; check 'plugins' $?

# Text with control tokens in it is text; bytes come back.
printf 'x = "<|mask|>" # <role> \377\376\n\n\n\ttab\r\n' >t.txt
"$redraft" tokenize <t.txt >ids && "$redraft" tokenize --decode <ids | cmp -s - t.txt
check 'tokenize and back' $?
"$redraft" tokenize --json <t.txt | grep -q '^\[[0-9,]*\]$'
check 'tokenize --json' $?

# Lines of JSON: order, bad lines answered, the rest goes on.
{
    printf '{"task_id":"a","prefix":"def f(x):\\n    return ","suffix":"\\n","language":"python","more":1}\n'
    printf 'not json\n'
    printf '{"task_id":"b","prefix":7,"suffix":""}\n'
    printf '{"task_id":"c","prefix":"int x = ","suffix":";\\n<|mask|>","language":"c","hole_tokens":1}\n'
    printf '{"task_id":"d","prefix":"","suffix":"","max_tokens":4}\n'
} >in.jsonl
"$redraft" infill --jsonl <in.jsonl >out.jsonl
check 'a bad line gives exit status 1' $((1 - $?))
[ "$(wc -l <out.jsonl)" = 5 ]; check 'five answers' $?
sed -n 1p out.jsonl | grep -q '^{"task_id":"a","completion":".*","confidence":[0-9.e-]*,"tokens":[0-9]*,"prefill_tokens":[0-9]*,"forwards":[0-9]*,"ms":[0-9.]*,"reason":"'
check 'the fields of an answer' $?
sed -n 2p out.jsonl | grep -q '^{"task_id":null,"error":".*line 2'; check 'not json' $?
sed -n 3p out.jsonl | grep -q '^{"task_id":"b","error":"prefix is not a string"}'; check 'a wrong field' $?
sed -n 4p out.jsonl | grep -q '"tokens":1,'; check 'a known length is kept' $?
printf '{"task_id":"r","prefix":"","draft":"return x\\n","suffix":""}\n' | "$redraft" rewrite --jsonl >out
grep -q '"completion":".*","edits":\[' out; check 'rewrite --jsonl' $?

# Wrong calls are 2, failed work is 1, and the message names file and place.
expect 2 'which call' "$redraft"
expect 2 'unknown call' "$redraft" fly
expect 2 'unknown option --fast' "$redraft" infill --fast a.py:1:1
expect 2 'FILE:LINE:COL' "$redraft" infill a.py
expect 2 'no line 99' "$redraft" infill a.py:99:1
expect 2 'columns' "$redraft" infill a.py:1:99
expect 1 'nowhere.py' "$redraft" infill nowhere.py:1:1
expect 2 'no lines 5-99' "$redraft" rewrite a.py:5-99
expect 1 'nomodel' "$redraft" infill a.py:1:1 --model nomodel
expect 1 'cuda' "$redraft" infill a.py:1:1 --backend cuda
expect 2 'quality' "$redraft" infill a.py:1:1 --quality 7
expect 2 'which folders' "$redraft" conformance
mkdir empty
expect 1 '' "$redraft" conformance empty
expect 2 'not a regular file' sh -c "mkfifo fifo; '$redraft' infill fifo:1:1"

# Odd files: empty, binary, CRLF, invalid UTF-8, a very long line, no newline at the end.
: >empty.c
expect 0 '' "$redraft" infill empty.c:1:1
head -c 4096 /dev/urandom | tr '\n' ' ' >binary
expect 0 '' "$redraft" infill binary:1:1
printf 'int a;\r\nint \r\nint c;\r\n' >crlf.c
expect 0 '' "$redraft" infill crlf.c:2:5
printf 'caf\351 = 1\nx = ' >latin.py
expect 0 '' "$redraft" infill latin.py:2:5
head -c 10000000 /dev/zero | tr '\0' 'a' >long.txt
expect 0 '' "$redraft" infill long.txt:1:9999999

# Hostile models.
mkdir m && cp "$source/core/builtin/"*.json m/ && head -c 100000 "$source/core/builtin/model.safetensors" >m/model.safetensors
expect 1 'model.safetensors' "$redraft" infill a.py:1:1 --model m
echo '{"model_type":"llada2_moe"' >m/config.json
expect 1 'config.json' "$redraft" infill a.py:1:1 --model m
"$redraft" plugins >/dev/full 2>err
check 'a full disk is not noticed' $((1 - $?))

for call in infill rewrite score generate tokenize quantize train average bench plugins conformance \
    serve stdio mcp status stop; do
    "$redraft" "$call" --help >out || check "$call --help" 1
    [ "$(wc -l <out)" -le 24 ]; check "$call --help fits a screen" $?
done
"$redraft" --help >out
[ "$(wc -l <out)" -le 24 ] && grep -q ' stdio ' out; check 'the list of calls fits a screen' $?
for shell in bash zsh fish; do "$redraft" --completions=$shell | grep -q infill; check "completions for $shell" $?; done
"$redraft" --man | grep -q '^.TH REDRAFT'; check 'the man page' $?
[ $bad = 0 ] && echo 'the command line does what it says'
exit $bad
