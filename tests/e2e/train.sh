#!/bin/sh
# redraft train from source files to a model that answers: stopped and resumed to the same bytes, continued from a
# model, packed as int8; and what it says about files, terms and time.
set -u
redraft=$1
. "$(dirname "$0")/checks.sh"

# Two packages of Python and C with names of their own in every line, so that none counts as a copy.
source_file() { # seed, language
    awk -v seed="$1" -v c="$2" 'BEGIN {
        srand(seed); n = split("read key node line count open path next size token block row state index", part, " ")
        for (f = 0; f < 12; f++) {
            a = part[1 + int(rand() * n)] "_" int(rand() * 9999); b = part[1 + int(rand() * n)] "_of_" part[1 + int(rand() * n)]
            if (c == "c") printf "static int %s(int %s)\n{\n    int total_of_%s = %s + %d;\n\n", a, b, a, b, rand() * 99
            else printf "def %s(%s):\n    total_of_%s = %s + %d\n", a, b, a, b, rand() * 99
            for (k = 0; k < 1 + rand() * 4; k++) {
                d = part[1 + int(rand() * n)] int(rand() * 99)
                if (c == "c") printf "    if (%s < total_of_%s)\n        total_of_%s += %d;\n", b, a, a, rand() * 999
                else printf "    if %s < total_of_%s:\n        total_of_%s += %s(%d)\n", b, a, a, d, rand() * 999
            }
            if (c == "c") printf "    return total_of_%s;\n}\n\n", a
            else printf "    return total_of_%s\n\n\n", a
        }
    }'
}
mkdir -p c/src/one c/src/two c/held/three
for i in 1 2 3 4; do
    source_file "$i" py >"c/src/one/$i.py"
    source_file "1$i" c >"c/src/two/$i.c"
done
source_file 99 py >c/held/three/h.py
head -c 3000 /dev/urandom >c/src/one/noise.py

# A fixed number of steps: whole, and stopped on the way.
tiny='--shape tiny --rows 512 --steps 300 --seed 3 --average 0.1'
expect 0 'kept: 9 files' "$redraft" train c --out whole $tiny
grep -q '^encoding: 1 files' err; check 'a binary file is counted' $?
grep -q 'from nothing, in the shape tiny; the result is whole/model' err; check 'the plan is told' $?
expect 0 'packed: 9 documents, digest ' "$redraft" train c --out packed_only --minutes 0
cmp -s whole/corpus.rdc packed_only/corpus.rdc; check 'packing twice gives the same file' $?
[ ! -e packed_only/model ] && [ ! -e packed_only/checkpoint.safetensors ]; check 'no minutes: no training' $?
grep -q '^encoding	c/src/one/noise.py' packed_only/dropped.tsv; check 'what was dropped is named' $?
mkdir part && cp whole/corpus.rdc whole/tokenizer*.json part/
"$redraft" train c --out part $tiny 2>err &
run=$!
for i in $(seq 600); do [ -e part/log.csv ] && break; sleep 0.05; done
sleep 0.3
kill -INT $run
wait $run
[ $? = 1 ]; check 'a stopped run is exit status 1' $?
grep -q 'training stopped after [1-9][0-9]* steps' err; check 'a stop says after how many steps' $?
[ ! -e part/model ]; check 'a stopped run wrote a model' $?
expect 0 '' "$redraft" train c --out part $tiny --resume
for f in model.safetensors tokenizer.json config.json; do
    cmp -s whole/model/$f part/model/$f; check "resumed and whole differ in $f" $?
done

# The same in legs: one of a step or two, and the rest.
mkdir legs && cp whole/corpus.rdc whole/tokenizer*.json legs/
expect 0 'the leg is over after [1-9][0-9]* steps' "$redraft" train c --out legs $tiny --leg 0.00001
[ ! -e legs/model ] && [ -e legs/checkpoint.safetensors ]; check 'a leg leaves a checkpoint and no model' $?
expect 0 '' "$redraft" train c --out legs $tiny --resume
cmp -s whole/model/model.safetensors legs/model/model.safetensors; check 'legs and whole differ' $?
expect 1 'no backend is called gpu' "$redraft" train c --out x $tiny --backend gpu
expect 0 'trained on cpu, .*; 512 positions a step, in packs of 128' "$redraft" train c --out packs --shape tiny \
    --rows 512 --pack-rows 128 --steps 2 --backend cpu
grep -q '^rows: 512 a step, 128 a pack' packs/run.txt && grep -q '^backend: cpu' packs/run.txt; check 'run.txt tells rows and backend' $?

# The model opens, as it is and packed; a run can start from it.
printf 'import os\n\ndef names(path):\n    out = \n    return out\n' >a.py
expect 0 '' "$redraft" infill a.py:4:11 --model whole/model --max-tokens 8
expect 0 '' "$redraft" quantize whole/model packed --weights int8
expect 0 '' "$redraft" infill a.py:4:11 --model packed --max-tokens 8
expect 0 'from whole/model' "$redraft" train c --out again --from whole/model --rows 512 --steps 2
cmp -s whole/model/tokenizer.json again/model/tokenizer.json; check '--from keeps the tokenizer' $?
expect 0 '' "$redraft" train c --out again8 --from packed --rows 512 --steps 2

# The mean of two: of one shape and tokenizer, as bfloat16.
expect 0 '' "$redraft" average whole/model again/model --out mean
expect 0 '' "$redraft" infill a.py:4:11 --model mean --max-tokens 8
cmp -s whole/model/tokenizer.json mean/tokenizer.json; check 'the mean keeps the tokenizer' $?
expect 0 '' "$redraft" average whole/model whole/model whole/model --out same
cmp -s whole/model/model.safetensors same/model.safetensors; check 'the mean of equals is the same' $?
expect 1 'cannot be written onto' "$redraft" average whole/model again/model --out again/model
expect 2 'two models or more' "$redraft" average whole/model --out mean
expect 1 'nowhere' "$redraft" average whole/model nowhere --out mean

# What a run was, and one objective less.
grep -q '^mixture.pairs: on' whole/run.txt; check 'run.txt tells the mixture' $?
grep -q '^seed: 3' whole/run.txt; check 'run.txt tells the seed' $?
[ "$(tail -n 1 whole/log.csv | tr , '\n' | wc -l)" = 17 ]; check 'the log has the held-out questions' $?
tail -n 1 whole/log.csv | grep -q nan; [ $? = 1 ]; check 'a held-out question was not asked' $?
expect 0 '' "$redraft" train c --out again --shape tiny --rows 512 --steps 2 --mix early=1,next-early=1 --no-fake-quant
tail -n 1 again/log.csv | cut -d, -f5 | grep -q nan; check 'holes are switched off' $?
expect 1 'mixture.pairs was on; of this run it is off' "$redraft" train c --out part $tiny --mix pairs=off --resume
expect 2 'no key nothing' "$redraft" train c --out x --mix nothing=1
expect 2 'masked is 2; it is a number from 0 to 1' "$redraft" train c --out x --mix masked=2
expect 0 '' "$redraft" train --mix list
grep -q '^pairs  *on ' out; check 'the keys are listed' $?
expect 0 '' "$redraft" train c --out small --shape tiny --rows 512 --steps 2 --vocab 400
grep -q 'vocabulary 400' small/run.txt; check '--vocab sets the size' $?
expect 1 'another shape' "$redraft" average whole/model small/model --out mean
expect 2 'packed already' "$redraft" train whole --out x --shape tiny --vocab 400
expect 2 'brings its own tokenizer' "$redraft" train c --out x --from whole/model --vocab 400

# Other terms, other data, torn files: refused by name.
expect 1 'seed was 3; of this run it is 4' "$redraft" train c --out part $tiny --seed 4 --resume
expect 1 'length in steps was 300' "$redraft" train c --out part --shape tiny --rows 512 --minutes 1 --seed 3 --average 0.1 --resume
expect 1 'shape was' "$redraft" train c --out part --rows 512 --steps 300 --seed 3 --average 0.1 --resume
mkdir torn && cp whole/corpus.rdc whole/tokenizer*.json torn/
head -c 100000 whole/checkpoint.safetensors >torn/checkpoint.safetensors
expect 1 'torn/checkpoint.safetensors' "$redraft" train c --out torn $tiny --resume
expect 1 'no checkpoint' "$redraft" train c --out again3 $tiny --resume
expect 1 'packed with another tokenizer' "$redraft" train whole --out other --from builtin --rows 512 --steps 2

# A disk that fills up in the middle: the last checkpoint stays, and the message names the file.
cp whole/checkpoint.safetensors before
expect 1 'whole/checkpoint.safetensors' sh -c "ulimit -f 200; trap '' XFSZ; exec '$redraft' train c --out whole $tiny"
cmp -s before whole/checkpoint.safetensors; check 'a full disk left the last checkpoint' $?
[ -z "$(ls whole | grep new)" ]; check 'a full disk left an unfinished file' $?

# One's own repository, with files of all kinds: on from the built-in model, and for how long.
mkdir -p repo/src repo/node_modules
source_file 5 py >repo/app.py
source_file 6 c >repo/src/main.c
source_file 7 py >repo/node_modules/no.py
echo '# what this is' >repo/README.md
expect 0 'from the built-in model' "$redraft" train repo --out mine --rows 256 --steps 2
grep -q '^taken: 1 Python files, 1 C files' err; check 'what was taken' $?
grep -q '^not looked at: 1 files of other kinds (1 .md), 1 folders' err; check 'what was left' $?
grep -q '^this takes 2 steps on ' err; check 'how long it takes' $?
expect 0 '' "$redraft" infill a.py:4:11 --model mine/model
expect 0 '' "$redraft" quantize mine/model mine8 --weights int8
expect 0 '' "$redraft" infill a.py:4:11 --model mine8
expect 0 'this takes 0.02 minutes' "$redraft" train repo --out none --from none --shape tiny --rows 256 --minutes 0.02 --no-fake-quant
echo 'x = 1' >repo/more.py
expect 0 '^size: 1 files' "$redraft" train repo --out mine --rows 256 --steps 1

expect 1 'nowhere: no such folder' "$redraft" train nowhere --out x
expect 2 '--minutes is -1' "$redraft" train nowhere --out x --minutes -1
expect 2 'tiny, e8' "$redraft" train repo --out x --shape huge
expect 2 'brings its own shape' "$redraft" train repo --out x --shape e8 --from builtin
mkdir nothing && echo text >nothing/a.txt
expect 1 'no text is left' "$redraft" train nothing --out x
[ $bad = 0 ] && echo 'training does what it says'
exit $bad
