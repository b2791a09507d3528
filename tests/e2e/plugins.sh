#!/bin/sh
# Plugins as a user meets them: what `redraft plugins` lists, what a call on one says, and when the CPU takes over.
set -u
redraft=$1 fake=$2
. "$(dirname "$0")/checks.sh"

mkdir p
put() { cp "$fake" "p/libredraft-$1.so" && chmod 755 "p/libredraft-$1.so"; }
for name in good abi full gone cuda; do put $name; done
printf 'junk' >p/libredraft-junk.so
chmod 755 p/libredraft-junk.so
REDRAFT_PLUGINS=$PWD/p RD_FAKE_abi=abi RD_FAKE_full=full RD_FAKE_gone=lost=1 RD_FAKE_cuda=driver
export REDRAFT_PLUGINS RD_FAKE_abi RD_FAKE_full RD_FAKE_gone RD_FAKE_cuda

expect 0 '' "$redraft" plugins
grep -q '^cpu    yes: .*, [0-9]* threads$' out; check 'the CPU, its instructions and threads' $?
grep -q '^cuda   no: no driver: libfake.so.1 is not there$' out; check 'why cuda cannot be used' $?
grep -q '^good   yes: Fake 9000$' out; check 'a plugin and its device' $?
grep -q '^abi    no: .*libredraft-abi.so: it was built for interface 2, this program has 1$' out
check 'another interface' $?
grep -q '^junk   no: .*libredraft-junk.so is not a whole shared object$' out; check 'no library' $?

printf 'int x = ;\n' >a.c
expect 0 '' "$redraft" infill a.c:1:9 --max-tokens 8
cp out first
expect 0 '' "$redraft" infill a.c:1:9 --max-tokens 8 --backend good
cmp -s out first; check 'a plugin that forwards to the CPU answers as the CPU' $?
expect 1 'cuda: no driver' "$redraft" infill a.c:1:9 --backend cuda
expect 1 '95 GB are needed, 12 GB are free' "$redraft" infill a.c:1:9 --backend full
expect 1 'the device is gone' "$redraft" infill a.c:1:9 --backend gone
expect 1 'another' "$redraft" infill a.c:1:9 --backend another

# The best one is there and has no room: one line says so, and the CPU answers.
RD_FAKE_cuda=full
expect 0 'cuda: .*95 GB are needed, 12 GB are free; the CPU is used' "$redraft" infill a.c:1:9 --max-tokens 8
[ "$(wc -l <err)" = 1 ]; check 'one line' $?
cmp -s out first; check 'the answer of the CPU' $?
expect 0 '' "$redraft" infill a.c:1:9 --max-tokens 8 --isa plain
[ ! -s err ]; check 'an instruction set is the CPU'"'"'s' $?
RD_FAKE_cuda=
expect 0 '' "$redraft" infill a.c:1:9 --max-tokens 8 --backend auto
[ ! -s err ] && cmp -s out first; check 'cuda is the best where it is there' $?

# Who else may write what is loaded.
chmod 775 p/libredraft-good.so
expect 1 'libredraft-good.so can be written by others' "$redraft" infill a.c:1:9 --backend good
chmod 755 p/libredraft-good.so
chmod 777 p
expect 0 '' "$redraft" plugins
grep -q '^good   no: .* can be written by others (mode 777)$' out; check 'a folder of everybody' $?
chmod 755 p
(cd p && REDRAFT_PLUGINS=. && expect 0 'absolute path' "$redraft" plugins)
[ $bad = 0 ] && echo 'plugins are found, listed, refused and left as they should be'
exit $bad
