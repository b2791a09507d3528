/* corpus.h - source trees to one packed file of tokens, and the reader of that file.
 *
 * Making: walk the package folders, drop what should not be learnt (generated files, tables, vendored
 * copies, near-duplicates, text on the decontamination list), train a BPE on what is kept, encode. Whole
 * packages are held out. The order is that of sorted paths, so the same folders give the same file.
 * Reading: the file is mapped and every length checked. Read-only once open: any thread.
 */
#ifndef RD_TRAIN_CORPUS_H
#define RD_TRAIN_CORPUS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct rd_corpus rd_corpus;

typedef struct rd_corpus_doc {
    const uint16_t *ids; /* borrowed */
    int n;
    int language; /* enum rd_language */
    int package;
    uint32_t bytes;
    bool held_out;
} rd_corpus_doc;

rd_status rd_corpus_open(const char *path, rd_corpus **out, rd_error *err);
void rd_corpus_close(rd_corpus *c);
int rd_corpus_count(const rd_corpus *c);
int rd_corpus_vocab(const rd_corpus *c);
/* Of everything in it: two corpora with the same digest hold the same text. */
uint64_t rd_corpus_digest(const rd_corpus *c);
rd_corpus_doc rd_corpus_at(const rd_corpus *c, int i);
const char *rd_corpus_package(const rd_corpus *c, int package);

typedef struct rd_corpus_options {
    const char *train_dir; /* one folder a package below it */
    bool
        one_package; /* train_dir is one's own repository: its licence and line ends are not looked at */
    const char *held_dir;             /* likewise, never trained on */
    const char *out;                  /* corpus.rdc, tokenizer.json go here */
    const char *decontam;             /* list of BLAKE2b-64 of lines, or NULL */
    const char *tokenizer;            /* folder whose merges come first; NULL: there are none */
    int vocab;                        /* merges are learnt from the text up to this many ids */
    void (*report)(const char *line); /* what was kept and dropped; may be NULL */
} rd_corpus_options;

/* Python and C (.py, .c, .h). What cannot be read, is not UTF-8, too large, not written by hand, or in
 * other people's packages under copyleft, is skipped, counted, and named in OUT/dropped.tsv. RD_INVALID
 * when nothing is left. */
rd_status rd_corpus_make(const rd_corpus_options *o, rd_error *err);

/* A file that the sieve keeps; borrowed. */
typedef struct rd_source {
    const char *path, *text;
    size_t bytes;
    int language; /* enum rd_language */
} rd_source;

/* The source files below DIR in the order of sorted paths, through the same sieve. */
rd_status rd_corpus_walk(const char *dir, void (*take)(void *user, const rd_source *s), void *user,
                         rd_error *err);

#endif
