#!/bin/sh
# What tests/gpu does to a corpus and around a training, dry: pieces that travel one at a time, resumable legs, a stop, and a
# model that comes back in pieces; on the CPU, in the smallest shape, over sources of the project's own.
set -u
redraft=$1 source=$2
. "$(dirname "$0")/checks.sh"
gpu=$source/tests/gpu
export REDRAFT="$redraft"
# A training outlives the call that started it; it must not outlive a test that failed.
end_all() {
    for pid in "$work"/*/pid; do
        [ ! -e "$pid" ] || kill -TERM "$(cat "$pid")" 2>/dev/null
    done
    rm -rf "$work"
}
trap end_all EXIT

mkdir -p src/src/own src/held/own
cp "$source"/core/base/*.[ch] "$source"/core/train/[a-m]*.[ch] src/src/own/
cp "$source"/core/eval/*.c src/held/own/
expect 0 'packed: ' sh "$gpu/corpus" pack src packed --vocab 600

# The corpus in pieces, one a call.
expect 1 'nowhere' sh "$gpu/corpus" split nowhere pieces
export SIZE=30KB
expect 0 '' sh "$gpu/corpus" split packed pieces
n=$(ls pieces/corpus.0* | wc -l)
[ "$n" -ge 3 ]; check "the corpus made $n pieces" $?
[ -z "$(find pieces -name 'corpus.0*' -size +30000c)" ]; check 'a piece is too large' $?
for i in $(seq 0 $((n - 2))); do
    expect 0 '' sh "$gpu/corpus" pick pieces "$i" carry
    expect 3 '' sh "$gpu/corpus" keep carry store
    grep -q "missing: .*corpus.$(printf %03d $((n - 1)))" out; check 'what is missing is named' $?
done
expect 1 "missing: corpus.$(printf %03d $((n - 1)))" sh "$gpu/corpus" join store there
expect 0 '' sh "$gpu/corpus" pick pieces $((n - 1)) carry
echo x >>"carry/corpus.$(printf %03d $((n - 1)))"
expect 1 'not what was sent' sh "$gpu/corpus" keep carry store
expect 0 '' sh "$gpu/corpus" pick pieces $((n - 1)) carry
expect 0 '' sh "$gpu/corpus" keep carry store
expect 0 '' sh "$gpu/corpus" join store there
for f in corpus.rdc tokenizer.json; do cmp -s packed/$f there/$f; check "$f came whole" $?; done
expect 1 'is there already' sh "$gpu/corpus" join store there
printf 'x' | dd of=store/corpus.001 bs=1 seek=9 conv=notrunc 2>/dev/null
expect 1 'store/corpus.001: not what was sent' sh "$gpu/corpus" join store other
[ ! -e other ]; check 'nothing is made of a torn piece' $?

# Legs of one training, and what they leave.
tiny='--shape tiny --rows 256 --threads 1 --backend cpu'
export LEG=0.01
expect 1 'no packed corpus' sh "$gpu/train" start work nowhere 1
expect 0 '' sh "$gpu/train" start work there 0.05 $tiny
expect 0 '' sh "$gpu/train" wait work 300
grep -q '^over$' out; check 'the end is told' $?
[ "$(grep -c '^the leg is over' work/train.txt)" -ge 1 ]; check 'there were legs' $?
[ "$(grep -c '^step,' work/log.csv)" = 1 ]; check 'the legs have one log' $?
expect 1 'is over' sh "$gpu/train" start work there 0.05 $tiny
expect 0 '' sh "$gpu/train" leave work left
[ -z "$(find left -size +15000000c)" ]; check 'a piece is too large to come back' $?
expect 0 '' sh "$gpu/collect" left home
cmp -s work/int8/model.safetensors home/model/model.safetensors; check 'the model came whole' $?
cmp -s work/log.csv home/log/log.csv; check 'the log came whole' $?
printf 'int main(void)\n{\n    return ;\n}\n' >a.c
expect 0 '' "$redraft" infill a.c:3:12 --model home/model --max-tokens 4

# A stop in the middle: the checkpoint's weights are the model; and the same run can go on before that.
export LEG=9
expect 0 '' sh "$gpu/train" start half there 60 $tiny
for i in $(seq 300); do grep -q '^[0-9]' half/log.csv 2>/dev/null && break; sleep 0.1; done
expect 3 '' sh "$gpu/train" wait half 0
expect 1 'under way' sh "$gpu/train" start half there 60 $tiny
expect 1 'under way' sh "$gpu/train" leave half left2
expect 0 '' sh "$gpu/train" stop half
grep -q '^stopped with exit status 1' out; check 'a stop is told' $?
[ -e half/checkpoint.safetensors ]; check 'a stop leaves a checkpoint' $?
expect 0 '' sh "$gpu/train" leave half left2
expect 0 '' sh "$gpu/collect" left2 home2
expect 0 '' "$redraft" infill a.c:3:12 --model home2/model --max-tokens 4

# From the built-in model, in one call; nothing is held out, so that nothing is measured.
mkdir -p all/src && cp -r src/src/own all/src/ && touch all/list.tsv
expect 0 'packed: ' sh "$gpu/corpus" pack all packed8 --from builtin
expect 0 '' sh "$gpu/train" run more packed8 0.001 left3 --from builtin --rows 128 --threads 1 --backend cpu
expect 0 '' sh "$gpu/collect" left3 home3
expect 0 '' "$redraft" infill a.c:3:12 --model home3/model --max-tokens 4
# Pictures of figures: made-up ones whose places are known, and what the program prints today.
cat >made.txt <<'END'
llada2.1-mini, 20 layers, fp8 weights; cuda Made-up <GPU>, sm_90-fp8
ceilings: 4000.0 GB/s read, 800000 GFLOP/s bf16, 0 Gop/s int8
load 1.0 ms, 1.0 MB held, peak memory 1.0 MB

pass: context  rows  experts  median ms     min ms   MB read     GFLOP   of read   of bf16  floor ms  of floor
            0    32       70      1.000      1.000    4000.0   800.000     100 %     100 %     1.000     100 %
            0    32       48     10.000     10.000    4000.0   800.000      10 %      10 %     1.000      10 %
         1536    32       70     10.000     10.000    4000.0    80.000         -       1 %     1.000      10 %
prefill   512 tokens:                 1.000      1.000   1.0 tokens/s
END
expect 0 '' sh "$gpu/chart" roof made.txt
[ "$(grep -c '<circle' out)" = 3 ]; check 'a point for each pass' $?
ridge=$(sed -n 's/.*points="[^ ]* \([^ ]*\) .*/\1/p' out)
grep -q "cx=\"${ridge%,*}\" cy=\"${ridge#*,}\".*context 0, 70 experts: 1.000 ms" out; check 'a pass at both ceilings is where they meet' $?
grep -q "cx=\"${ridge%,*}\".*context 0, 48 experts: 10.000 ms" out; check 'a slower pass is below it' $?
grep -q 'Made-up &lt;GPU&gt;' out; check 'the device is named, and escaped' $?
expect 0 '' sh "$gpu/chart" steps made.txt
[ "$(grep -c '<polyline' out)" = 2 ]; check 'times and floors of 70 experts' $?
line=$(sed -n 's/.*stroke="#0a58ca" stroke-width="2" points="\([^"]*\)".*/\1/p' out)
floor=$(sed -n 's/.*stroke-dasharray="4 4" points="\([^"]*\)".*/\1/p' out)
[ "${line%% *}" = "${floor%% *}" ] && [ "${line##* }" != "${floor##* }" ]; check 'the pass at its floor is there, the other is not' $?
expect 1 'no figures' sh "$gpu/chart" roof "$gpu/chart"
expect 2 'chart roof' sh "$gpu/chart" pie made.txt
for layers in 2 3; do
    expect 0 '' "$redraft" bench --shape e8 --layers $layers --context 0,64 --repeat 1 --threads 1 --backend cpu
    cat out >>real.txt
done
expect 0 '' sh "$gpu/chart" roof real.txt
[ "$(grep -c '<circle' out)" = 4 ] && tail -1 out | grep -q '^</svg>$'; check 'what bench prints is drawn' $?
expect 0 '' sh "$gpu/chart" steps real.txt
[ "$(grep -c '<polyline' out)" = 4 ]; check 'two lines for each shape' $?
# The one command, over a program that says it all at once: every step is in the summary, one that fails is counted, and the charts
# are there.
mkdir -p tree/tests tree/build/gpu/bin tree/build/gpu/plugins
cp -r "$gpu" tree/tests/
echo abc >tree/build/gpu/commit
cat >tree/build/gpu/bin/redraft <<END
#!/bin/sh
case "\$*" in
plugins) echo 'cuda   yes: Made-up' ;;
*"--check"*) case "\$*" in *"e46 --weights int4"*) echo 'no pick agrees'; exit 1 ;; esac ;;
bench*) cat "$work/made.txt" ;;
esac
END
printf '#!/bin/sh\nexit 0\n' >tree/build/gpu/bin/test_gpu_some
chmod +x tree/build/gpu/bin/*
unset REDRAFT
expect 1 '' sh tree/tests/gpu/run --out "$work/run-out"
grep -q '^pass  test_gpu_some ' run-out/gpu-summary.txt; check 'a test of kernels is run' $?
[ "$(grep -c '^pass  check of ' run-out/gpu-summary.txt)" = 15 ]; check 'checks that pass' $?
grep -q '^FAIL  check of e46 int4: exit 1' run-out/gpu-summary.txt && grep -q '^1 failed$' run-out/gpu-summary.txt
check 'the check that fails is named and counted' $?
[ "$(grep -c '^pass  .* \(fp8\|bf16\|int4\) (' run-out/gpu-summary.txt)" -ge 6 ]; check 'the benchmarks are run' $?
grep -q '<circle' run-out/gpu-roof.svg && grep -q '<polyline' run-out/gpu-steps.svg; check 'the charts are drawn' $?
sed -i "s/^bench/nothing/" tree/build/gpu/bin/redraft
expect 1 '' sh tree/tests/gpu/run --out "$work/run-out2" bench
grep -q '^FAIL  the chart gpu-roof.svg: chart: no figures' run-out2/gpu-summary.txt && [ ! -e run-out2/gpu-roof.svg ]
check 'a chart of nothing is told' $?
[ $bad = 0 ] && echo 'what travels comes whole'
exit $bad
