/* overlap.h - the end of a completion that says again how the suffix begins.
 *
 * A model that does not know where its hole ends goes on with the text that follows it. Only what is surely
 * such a repetition is named: eight bytes or more that are not white space, not beginning inside a word or
 * a character, and not a pattern that repeats itself (rows of zeros, rules of dashes, equal lines), of
 * which nobody can tell how many are right. Pure; any thread.
 */
#ifndef RD_DECODE_OVERLAP_H
#define RD_DECODE_OVERLAP_H

#include <stddef.h>

enum { RD_OVERLAP_MOST = 4096 }; /* bytes of the suffix that are looked at */

/* How many bytes at the end of `text` repeat the beginning of `suffix`; 0: none for sure. `before` is the
 * byte that stands before the text, 0 where there is none. */
size_t rd_overlap(char before, const char *text, size_t n, const char *suffix, size_t suffix_n);

#endif
