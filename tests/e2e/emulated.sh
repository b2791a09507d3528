#!/bin/sh
# The real program with the CUDA plugin on an emulated GPU: it is found, computes the recorded answers, fills a hole as the
# CPU does, agrees in every form of weights, and trains.
set -u
redraft=$1 plugins=$2 golden=$3 source=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export REDRAFT_PLUGINS="$plugins" XDG_CACHE_HOME="$work/cache"
bad=0
fail() { echo "FAILED: $*"; tail -3 "$work/out"; bad=1; }
cd "$work"

"$redraft" plugins >out 2>&1
grep -q '^cuda *yes: Emulated GPU' out || fail "the plugin is not listed as usable"

# Recorded forward passes of both routings; traces of decoders are too many for an emulated GPU and are run on a real one.
for name in m1_base m5_v22; do
    mkdir "$name"
    cp "$golden/models/$name"/config.json "$golden/models/$name"/model* "$golden/models/$name"/golden.* "$name/"
    "$redraft" conformance --backend cuda "$name" >out 2>&1 || fail "conformance of $name"
    grep -q ' 0 failed' out || fail "conformance of $name"
done

hole=$source/core/base/buf.c:20:5
"$redraft" infill "$hole" --backend cpu --no-draft >cpu 2>out || fail "a hole on the CPU"
"$redraft" infill "$hole" --backend cuda --no-draft >cuda 2>out || fail "a hole on the GPU"
[ -s cuda ] && cmp -s cpu cuda || fail "the hole is filled otherwise: $(cat cpu) and $(cat cuda)"

for weights in bf16 fp8 int8 int4; do
    "$redraft" bench --backend cuda --shape e46 --layers 2 --weights $weights --check >out 2>&1 || fail "check of $weights"
    grep -q '32 of 32 picks agree' out || fail "check of $weights"
done

mkdir src
cp "$source"/core/base/*.c src/
for backend in cpu cuda; do
    "$redraft" train src --out $backend-run --shape e8 --vocab 400 --steps 1 --rows 64 --pack-rows 64 --backend $backend >out 2>&1 ||
        fail "a step of training on $backend"
    sed -n 's/.* loss \([0-9.]*\)[0-9] .*/\1/p' out >$backend-loss
    grep -q "^backend: $backend" $backend-run/run.txt || fail "run.txt does not name $backend"
    [ -s $backend-run/model/model.safetensors ] || fail "training left no model"
done
[ -s cpu-loss ] && cmp -s cpu-loss cuda-loss || fail "the first loss is $(cat cuda-loss), on the CPU $(cat cpu-loss)"
[ $bad = 0 ] && echo "an emulated GPU does what a CPU does"
exit $bad
