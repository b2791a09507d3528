#!/bin/sh
# What each part of the training is worth: short runs from nothing that differ in one thing, the same seed, text and number of
# steps on one thread, judged by the fixed held-out questions (core/train/measure.h). Not a test.
#   sh tests/bench/ablate.sh PROGRAM CORPUS OUT [NAME...]
# CORPUS is packed (corpus.rdc, tokenizer.json). STEPS=600, SHAPE=tiny, ROWS=8192, SEED=1 and WIDE, a folder with the same
# text packed for the run `vocabulary`, come from the environment. A run that is done in OUT is not done again.
set -eu
redraft=$1 corpus=$2 out=$3
shift 3
steps=${STEPS:-600} shape=${SHAPE:-tiny} rows=${ROWS:-8192} seed=${SEED:-1} wide=${WIDE:-}
mkdir -p "$out"

# name | other options | --mix
table='
base||
no-next||next-early=0,next-late=0
no-early||early=0
no-suffix-first||suffix-first=0
no-pairs||pairs=off
blocks-32||block-8=0,block-16=0
no-drafts||drafts=0
no-lengths||lengths=off
no-edits||edited=0
no-rewrites||rewrites=0
edits-and-drafts-are-rewrites||edited=0,drafts=1,rewrites=0.3
names||noise-name=1
faults||noise-any=0,noise-fault=1
own||noise-any=0,noise-own=1
all-noise||noise-name=1,noise-own=1,noise-fault=1,rewrites=0.06,rewrite-own=0.2
cap||confidence=0.5
adamw|--adamw|
adamw-slower|--adamw --lr 0.0015|
no-context||context-copies=0
holes-80||next-late=0.1,masked=0.055,edited=0.055
vocabulary||
'
names=${*:-$(echo "$table" | cut -d'|' -f1)}

row='%-30s %6s %8s %8s %8s %7s %8s %7s %7s\n'
printf "$row" name steps minutes text holes right lengths mended kept
printf "$row" '' '' '' 'bits/B' 'bits/B' '%' '%' '%' '%'
for name in $names; do
    line=$(echo "$table" | grep "^$name|") || { echo "$name: no such run" >&2; exit 2; }
    options=$(echo "$line" | cut -d'|' -f2) mix=$(echo "$line" | cut -d'|' -f3) from=$corpus
    if [ "$name" = vocabulary ]; then
        [ -n "$wide" ] || { echo "$name: WIDE names no corpus; left out" >&2; continue; }
        from=$wide
    fi
    if [ "$(tail -n 1 "$out/$name/log.csv" 2>/dev/null | cut -d, -f1)" != "$steps" ]; then
        "$redraft" train "$from" --out "$out/$name" --shape "$shape" --steps "$steps" --rows "$rows" --seed "$seed" \
            --threads 1 $options ${mix:+--mix "$mix"} 2>"$out/$name.txt" ||
            { tail -n 1 "$out/$name.txt" >&2; exit 1; }
        rm -f "$out/$name/checkpoint.safetensors"
    fi
    tail -n 1 "$out/$name/log.csv" | awk -F, -v name="$name" -v row="$row" '{
        printf row, name, $1, sprintf("%.1f", $2 / 60), $12, $13, sprintf("%.1f", 100 * $14), sprintf("%.1f", 100 * $15),
            sprintf("%.1f", 100 * $16), sprintf("%.1f", 100 * $17) }'
done
