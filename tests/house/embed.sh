#!/bin/sh
# Installs into a folder of its own, builds the example against what was installed (shared and static), and runs it.
set -eu
source=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >/dev/null
pc=$(find "$work/usr" -name redraft.pc)
sed -i "s|^prefix=.*|prefix=$work/usr|" "$pc"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
lib=$(dirname "$(dirname "$pc")")
# shellcheck disable=SC2046
cc -Wall -Wextra -Werror "$source/docs/examples/embed.c" $(pkg-config --cflags --libs redraft) -o "$work/shared"
# shellcheck disable=SC2046
cc "$source/docs/examples/embed.c" $(pkg-config --cflags redraft) "$lib/libredraft.a" \
    $(pkg-config --static --libs-only-l redraft | sed 's/-lredraft//') \
    $(sed -n 's/^Libs.private: //p' "$pc") -o "$work/static"
model=$work/usr/share/redraft/builtin
LD_LIBRARY_PATH=$lib "$work/shared" "$model" | tee "$work/out"
"$work/static" "$model" | cmp - "$work/out"
grep -q 'return lines' "$work/out"
[ "$(head -1 "$work/out")" = 'def read_lines(path):' ]
mkdir -p "$work/cmake"
cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(embed C)
find_package(redraft REQUIRED)
add_executable(embed $source/docs/examples/embed.c)
target_link_libraries(embed redraft::redraft)
END
cmake -S "$work/cmake" -B "$work/cmake/b" -DCMAKE_PREFIX_PATH="$work/usr" >/dev/null
cmake --build "$work/cmake/b" >/dev/null
LD_LIBRARY_PATH=$lib "$work/cmake/b/embed" "$model" | cmp - "$work/out"
"$work/usr/bin/redraft" plugins

# Plugins lie beside the library: the installed program and a program that embeds it find one there.
mkdir -p "$lib/redraft"
chmod 755 "$lib/redraft"
cp "$build/tests/fakeplugin.so" "$lib/redraft/libredraft-beside.so"
chmod 755 "$lib/redraft/libredraft-beside.so"
"$work/usr/bin/redraft" plugins | grep '^beside yes: Fake 9000$'
cat >"$work/plugin.c" <<END
#include <redraft.h>
#include <stdio.h>
int main(void)
{
    rd_engine *e = NULL;
    rd_error err = { 0 };
    rd_engine_options o = { .model = "$model", .backend = "beside" };

    puts(rd_engine_open(&o, &e, &err) ? err.text : rd_engine_describe(e));
    rd_engine_close(e);
}
END
# shellcheck disable=SC2046
cc -Wall -Wextra -Werror "$work/plugin.c" $(pkg-config --cflags --libs redraft) -o "$work/plugin"
LD_LIBRARY_PATH=$lib "$work/plugin" | grep '^beside Fake 9000, '
echo "the example runs against the installed library: shared, static, by the CMake package"
