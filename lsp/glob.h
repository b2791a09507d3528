/* glob.h - one pattern of an ignore file, read once and matched against paths piece by piece.
 *
 * The syntax is gitignore's: `*`, `?`, `[a-z]`, `[!a]`, `[[:digit:]]`, `**` as a whole piece, a backslash before any
 * character; a slash anywhere but at the end ties the pattern to its folder, one at the end matches folders only, `!`
 * in front takes back. A match takes at most the product of both lengths in steps, and no more than
 * the caller allows. Pure; any thread.
 */
#ifndef RD_LSP_GLOB_H
#define RD_LSP_GLOB_H

#include <stdbool.h>
#include <stddef.h>

typedef struct rd_glob rd_glob;

/* A path cut at its slashes. */
typedef struct rd_glob_piece {
    const char *s;
    size_t n;
} rd_glob_piece;

/* A line of an ignore file; NULL when it is blank, a comment, or longer than RD_MOST_PATTERN_BYTES. */
rd_glob *rd_glob_new(const char *line, size_t n);
void rd_glob_free(rd_glob *g);
bool rd_glob_takes_back(const rd_glob *g);
const char *rd_glob_text(const rd_glob *g); /* as it was written, without blanks at the end */

/* Whether the pattern matches the path of the first 1, 2, ... pieces: hits[i] for i + 1 of them. All but the last piece are
 * folders. `fold`: letters A to Z match in either case. Takes its steps from *steps; false, with hits to be left alone, when
 * they do not suffice. */
bool rd_glob_match(const rd_glob *g, const rd_glob_piece *pieces, size_t n, bool fold,
                   size_t *steps, bool *hits);

#endif
