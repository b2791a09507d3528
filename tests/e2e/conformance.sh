#!/bin/sh
# conformance on folders nobody has seen: what is dumped passes again, and what is wrong is counted and named.
set -u
redraft=$1 golden=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
check() { # what, condition's status
    [ "$2" = 0 ] || { echo "FAILED: $1"; cat "$work/out"; bad=1; }
}
says() { # status, line of the output (a pattern), folder...
    want=$1 line=$2
    shift 2
    "$redraft" conformance "$@" >"$work/out" 2>&1
    got=$?
    [ "$got" = "$want" ]; check "exit $got, expected $want: $*" $?
    grep -q "$line" "$work/out"; check "no \"$line\": $*" $?
}
cd "$work"
m1=$golden/models/m1_base

# The dump and the model's files are a golden folder again, the recorded one's equal.
for name in models/m1_base models/m5_v22 tokenizers/tok_small; do
    "$redraft" conformance "$golden/$name" --dump dump >first || check "$name" 1
    folder=dump/$(basename "$name")
    for file in "$golden/$name"/config.json "$golden/$name"/model* "$golden/$name"/tokenizer*; do
        [ ! -e "$file" ] || cp "$file" "$folder/"
    done
    "$redraft" conformance "$folder" >out
    check "the dump of $name does not pass" $?
    cmp -s first out; check "the dump of $name has other cases" $?
done
for file in golden.json golden.safetensors decode.json decode_diffusers.json diffusers_steps.safetensors; do
    [ -s "dump/m1_base/$file" ]; check "$file is not dumped" $?
done
for field in '"window_end":' '"before":' '"x0":' '"conf":' '"m2t":' '"t2t":' '"fallback":' '"remask":' '"after":' \
    '"output":' '"counts":'; do
    grep -q "$field" dump/m1_base/decode.json; check "the dump has no $field" $?
done

# A dump that was changed is noticed.
sed 's/"fallback":true/"fallback":false/' dump/m1_base/decode.json >d.json && mv d.json dump/m1_base/decode.json
says 1 'FAIL m1_base/dec20_00: pass 0: fallback differs' dump/m1_base

# Folders with less than everything.
folder() { # name, files of m1_base...
    name=$1
    shift
    mkdir -p "$name"
    cp "$m1/config.json" "$m1/model.safetensors" "$name/"
    for file in "$@"; do cp "$m1/$file" "$name/"; done
}
folder a/b/c/passes golden.json golden.safetensors
folder decodes decode.json
says 0 '^38 passed, 0 failed, 0 skipped' a decodes
folder bare
says 1 '^0 passed, 0 failed, 0 skipped' bare
folder cut golden.safetensors
head -c 3000 "$m1/golden.json" >cut/golden.json
says 1 'FAIL cut/golden.json: .*line' cut
folder lost golden.json
says 1 'FAIL lost/full_t24: the tensor full_t24.logits is missing' lost
ln -s .. a/b/loop
says 0 '^16 passed' a

# Cases that are skipped or refused say why.
one() { # version, robust, block length
    printf '{"cases":[{"name":"c","version":"%s","robust":%s,"prompt":[1,2],"output":[],"steps":[],
        "params":{"block_length":%s,"gen_length":4,"mask_id":319,"eos_id":316}}]}' "$@" >decodes/decode.json
}
one 2.0 false 8
says 1 'skip decodes/c: not marked robust' decodes
one 9.9 true 8
says 1 'FAIL decodes/c: version 9.9 is not known' decodes
one 2.1 true 5000
says 1 'FAIL decodes/c: blocks of 5000; 1 to 1024' decodes
one 2.1 true 512
says 1 'FAIL decodes/c: pass 0: number of passes differs' decodes
[ $bad = 0 ] && echo 'conformance takes what it is given'
exit $bad
