/* key.h - names of things by what they are made of: 128 bits of BLAKE2b.
 *
 * A key stands for a list of byte strings: each goes in with its length, so that ("ab", "c") and ("a", "bc") differ.
 * Nobody finds two lists with one key, on purpose neither. Source: RFC 7693.
 */
#ifndef RD_BASE_KEY_H
#define RD_BASE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_key {
    uint8_t byte[16];
} rd_key;

/* By value; nothing to free. */
typedef struct rd_key_maker {
    uint64_t h[8], count;
    uint8_t block[128];
    size_t used;
} rd_key_maker;

void rd_key_begin(rd_key_maker *k, const char *what); /* what: the kind of thing, "kv block" */
void rd_key_add(rd_key_maker *k, const void *bytes, size_t n);
void rd_key_add_text(rd_key_maker *k, const char *text); /* NULL is not "" */
void rd_key_add_number(rd_key_maker *k, int64_t number);
rd_key rd_key_end(rd_key_maker *k);

bool rd_key_equal(const rd_key *a, const rd_key *b);
bool rd_key_is_none(const rd_key *k);            /* all zero: no key that rd_key_end gives */
void rd_key_text(const rd_key *k, char out[33]); /* hexadecimal, for messages */

/* 8 bytes of BLAKE2b without lengths or kinds, big end first: the hash of the decontamination list. */
uint64_t rd_blake2b_64(const void *bytes, size_t n);

#endif
