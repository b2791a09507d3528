#!/bin/sh
# redraft bench on a tiny shape: the JSON that it prints, the check, and calls that it refuses by name.
set -u
redraft=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
cd "$work"
expect() { # status, text on stderr, arguments...
    want=$1 text=$2
    shift 2
    "$redraft" bench "$@" >out 2>err </dev/null
    got=$?
    [ "$got" = "$want" ] || { echo "FAILED: bench $*: exit $got, expected $want"; cat out err; bad=1; }
    [ "$want" = 0 ] || { [ ! -s out ] && [ "$(wc -l <err)" = 1 ]; } || { echo "FAILED: bench $*: not one line on stderr alone:"; cat out err; bad=1; }
    [ -z "$text" ] || grep -q -- "$text" err || { echo "FAILED: bench $*: no \"$text\" in:"; cat err; bad=1; }
}
shape() { # hidden size, layers, experts
    printf '{"architectures":["LLaDA2MoeModelLM"],"model_type":"llada2_moe","hidden_size":%s,
"num_hidden_layers":%s,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"intermediate_size":96,
"moe_intermediate_size":32,"num_experts":%s,"num_experts_per_tok":2,"num_shared_experts":1,
"first_k_dense_replace":1,"n_group":4,"topk_group":2,"routed_scaling_factor":2.5,"rope_theta":600000,
"partial_rotary_factor":0.5,"rms_norm_eps":1e-6,"vocab_size":512,"tie_word_embeddings":false,
"max_position_embeddings":256}' "$1" "$2" "$3"
}
shape 64 3 16 >tiny.json

# Two contexts by three numbers of experts; each number is met exactly.
expect 0 '' --shape tiny.json --context 0,64 --experts 2,7,16 --rows 32 --repeat 2 --threads 2 --json
number='[0-9][0-9.e+-]*'
pass="{\"context\":$number,\"rows\":32,\"experts_per_layer\":$number,\"pass_ms\":{\"median\":$number,\"min\":$number},\"bytes_read\":$number,\"share_of_ceiling\":$number}"
grep -Eq "^\{\"shape\":\"tiny.json\",\"backend\":\"cpu\",\"weights\":\"bf16\",\"threads\":2,\"passes\":\[" out &&
    grep -q "\"passes\":\[$pass,$pass,$pass,$pass,$pass,$pass\],\"prefill\":\[{\"tokens\":256,\"tokens_per_s\":$number}\],\"head_ms\":$number,\"decode\":{\"tokens\":32,\"forwards\":9,\"ms\":$number},\"ceilings\":{\"read_gb_s\":$number,\"int8_gop_s\":$number,\"bf16_gflop_s\":$number},\"load_ms\":$number,\"peak_rss_mb\":$number}\$" out ||
    { echo 'FAILED: the object is not what the manual says:'; cat out; bad=1; }
for met in 2 7 16; do
    [ "$(grep -o "\"experts_per_layer\":$met," out | wc -l)" = 2 ] || { echo "FAILED: $met experts are not met twice"; bad=1; }
done
grep -Eq '"(median|min|tokens_per_s|head_ms|ms|read_gb_s|int8_gop_s|bf16_gflop_s|bytes_read)":0(\.0*)?[,}]' out &&
    { echo 'FAILED: a figure is 0:'; cat out; bad=1; }

# Packed weights, made straight in their format; columns of 64 have padding, those of 128 none.
shape 128 2 16 >even.json
for weights in int8 int4; do
    for file in tiny.json even.json; do
        expect 0 '' --shape $file --context 32 --experts 7 --repeat 2 --threads 2 --weights $weights --json
        grep -q "\"weights\":\"$weights\".*\"experts_per_layer\":7," out || { echo "FAILED: $weights of $file"; cat out; bad=1; }
        expect 0 '' --shape $file --check --weights $weights
        grep -q '32 of 32 picks agree' out || { echo "FAILED: --check of $weights, $file"; cat out; bad=1; }
    done
done
for name in e8 e46 dense-59m; do
    expect 0 '' --shape $name --layers 1 --context 0 --repeat 1 --weights int4
    grep -q "^$name, 1 layer, int4 weights" out || { echo "FAILED: --shape $name"; cat out; bad=1; }
done

# Picks agree with the plain path, in each format.
expect 0 '' --shape tiny.json --layers 2 --check
grep -q '32 of 32 picks agree' out || { echo 'FAILED: --check'; cat out; bad=1; }
expect 0 '' --shape tiny.json --check --weights int8 --rows 5 --isa plain --json
grep -q '"rows":5,"agreed":5' out || { echo 'FAILED: --check --json'; cat out; bad=1; }

# Nonsense.
expect 2 'llada2.1-mini' --shape nonsense
expect 2 'fp8' --shape tiny.json --weights fp8
expect 2 '--weights is bf17' --shape tiny.json --weights bf17
expect 2 '--layers is 4' --shape tiny.json --layers 4
expect 2 '--layers is 0' --shape tiny.json --layers 0
expect 2 '--experts is 1;' --shape tiny.json --experts 1
expect 2 '--experts is 17' --shape tiny.json --experts 17
expect 2 '--context is 0,' --shape tiny.json --context 0,
expect 2 '--rows' --shape tiny.json --rows 0
expect 2 'one is enough' --shape tiny.json --file tiny.json
expect 2 'want a --shape' --file . --experts 2
expect 2 'not an option' tiny.json
expect 1 'nowhere' --file nowhere
echo '{' >broken.json
expect 1 'broken.json' --shape broken.json
shape 16384 512 512 >huge.json
expect 1 'GB of memory' --shape huge.json
[ $bad = 0 ] && echo 'bench does what it says'
exit $bad
