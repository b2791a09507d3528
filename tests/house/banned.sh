#!/bin/sh
# Functions that write without a bound, hide an error or start a shell do not occur, and no product reaches an
# allocator but through the checked helpers of core/base/memory.h.
set -u
cd "$1"
bad=0
files=$(find core lsp plugins cache -name '*.c' -o -name '*.h' -o -name '*.cu')
refuse() { # what, pattern, file to leave out
    found=$(grep -nE "$2" $files /dev/null | grep -vF -e "$3:")
    [ -z "$found" ] || { echo "$1:"; echo "$found"; bad=1; }
}
words='sprintf|vsprintf|strcpy|stpcpy|strcat|strncat|strtok|atoi|atol|atoll|atof|gets|alloca|system|popen|mktemp|tmpnam|tempnam|scanf|sscanf|fscanf'
refuse 'a banned function' "(^|[^A-Za-z0-9_])($words) *\\(" -
refuse 'a product inside an allocation' '(alloc0|try_alloc|malloc|realloc)\([^;]* \* ' core/base/memory.c
refuse 'the allocators of C (core/base/memory.h has ours)' '(^|[^A-Za-z0-9_])(malloc|calloc|realloc|valloc|aligned_alloc) *\(' core/base/memory.c
[ -n "$files" ] && [ $bad = 0 ] && echo 'no banned function, no unchecked product in an allocation'
exit $bad
