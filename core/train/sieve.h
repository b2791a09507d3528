/* sieve.h - what the text of one source file says about itself: was it written by hand, under which kind
 * of licence, where does its code begin.
 *
 * Pure functions of bytes; no files, no memory of other texts. Any thread.
 */
#ifndef RD_TRAIN_SIEVE_H
#define RD_TRAIN_SIEVE_H

#include <stdbool.h>
#include <stddef.h>

/* UTF-8 without zero bytes. */
bool rd_sieve_is_text(const char *text, size_t n);
/* Do the comments at the head say that a program wrote the file? `language`: enum rd_language. */
bool rd_sieve_is_generated(const char *text, size_t n, int language);
/* Does the head name a licence that asks for its own kind, and none other that may be chosen? */
bool rd_sieve_is_copyleft(const char *text, size_t n);
/* Many digits and commas, or lines too long to be written by hand. */
bool rd_sieve_is_table(const char *text, size_t n);
/* Bytes before the code: a byte order mark, and the comments at the head up to the last that speaks of a
 * licence. */
size_t rd_sieve_licence(const char *text, size_t n, int language);

#endif
