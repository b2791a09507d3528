#!/bin/sh
# core/train/fetch-corpus with an archive of its own: versions, licences and digests are listed, what fails is named,
# and a run that was cut off is finished by the next.
set -u
fetch=$1
. "$(dirname "$0")/checks.sh"
command -v dpkg-deb >/dev/null || { echo 'dpkg-deb is needed'; exit 77; }

# An archive of one file a package. A package named in `gone` is not there in its newest version, one in `lost` in none.
mkdir bin
cat >bin/apt-cache <<'END'
#!/bin/sh
for name; do :; done
echo "apt-cache $name" >>"$ARCHIVE/log"
printf '%s | 1:2.0-1 | archive main amd64 Packages\n%s | 2.0-1 | archive main Sources\n%s | 1.9-1 | archive main Sources\n' "$name" "$name" "$name"
END
cat >bin/apt-get <<'END'
#!/bin/sh
for last; do :; done
[ "$last" != update ] || exit 0
name=${last%%=*} version=${last#*=}
if grep -qx "$name" "$ARCHIVE/lost" || { grep -qx "$name" "$ARCHIVE/gone" && [ "$version" = 2.0-1 ]; }; then
    echo "E: 404 $last" >&2
    exit 100
fi
echo "$name" >>"$ARCHIVE/log"
case " $* " in
*' source '*)
    mkdir -p "$name-x/deps" "$name-x/kernel"
    echo "int from_$version;" >"$name-x/a.c"
    echo 'int b;' >"$name-x/deps/b.c"
    tar -czf "${name}_${version%-*}.orig.tar.gz" "$name-x"
    touch "${name}_${version%-*}.orig.tar.gz.asc"
    rm -r "$name-x" ;;
*)
    mkdir -p t/DEBIAN t/usr
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' "$name" "$version" >t/DEBIAN/control
    echo 'x = 1' >t/usr/a.py
    dpkg-deb --build t "${name}_$(echo "$version" | sed 's/:/%3a/')_all.deb" >/dev/null
    rm -r t ;;
esac
END
chmod +x bin/*
export PATH="$PWD/bin:$PATH" ARCHIVE="$PWD"
echo nginx >gone
echo curl >lost

expect 1 'not fetched: curl; run it again' "$fetch" c
[ -e c/src/redis/redis-x/a.c ] && [ ! -e c/src/redis/redis-x/deps ]; check 'bundled copies are left out' $?
[ -e c/held/tmux/tmux-x/a.c ] && [ ! -e c/src/tmux ]; check 'the test set is apart' $?
grep -q '^left out: redis deps, 1 source files' out; check 'what is left out is counted' $?
awk -F'\t' 'NF != 5 || $2 == "" || $3 == "" || length($5) != 64 { exit 1 }' c/list.tsv; check 'five fields a line' $?
grep -q '^nginx	1.9	BSD-2-Clause	train	' c/list.tsv; check 'the version before one that has gone' $?
grep -q '^python3-django	1:2.0-1	BSD-3-Clause	train	' c/list.tsv; check 'a binary package has its whole version' $?
[ "$(grep -c '	held	' c/list.tsv)" = 10 ]; check 'ten packages are held out' $?
! grep -q '^curl' c/list.tsv; check 'what was not fetched is not listed' $?

# Cut off: half a download, half an unpacking; and a package of the test set among those to train on.
mkdir -p c/get/curl.new c/src/redis.new c/src/tmux
rm -r c/src/redis
: >lost
: >log
expect 0 '' "$fetch" c
[ "$(grep -vc apt-cache log)" = 1 ] && grep -qx curl log; check 'only what was missing is fetched' $?
[ -e c/src/redis/redis-x/a.c ] && [ -e c/src/curl/curl-x/a.c ]; check 'both are there' $?
[ ! -e c/src/tmux ]; check 'a held package is not among those to train on' $?
[ -z "$(find c -name '*.new')" ]; check 'nothing is left half done' $?
cp c/list.tsv before
expect 0 '' "$fetch" c
cmp -s before c/list.tsv; check 'the same list again' $?

expect 1 'cannot create\|ermission\|cannot make\|File exists\|Not a directory' "$fetch" before/x
expect 2 'usage: fetch-corpus DIR' "$fetch"
[ $bad = 0 ] && echo 'fetch-corpus does what it says'
exit $bad
