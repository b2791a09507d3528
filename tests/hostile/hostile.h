/* hostile.h - named bad files and bad calls, each with the outcome that is required.
 *
 * A group makes its files in an empty folder of its own and then calls the program. Of every case is asked:
 * the exit status; a text that stderr must hold; when the call fails, nothing on stdout and one line on stderr,
 * before which `train` may have told its plan and what it counted: there the text must be in the last line;
 * no signal, no report of a sanitizer, no control character on stderr, an end within a time limit.
 */
#ifndef RD_HOSTILE_H
#define RD_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hostile {
    const char *redraft, *data, *builtin; /* the program, tests/data, the built-in model's folder */
    int cases, failed, skipped;
    /* Of the next case; they go back to these values after it. */
    const char *in;  /* what stands on stdin; /dev/null without it */
    const char *out; /* where stdout goes instead of the captured file */
    const char *stdout_holds;
    int closed;       /* a descriptor that is closed; -1: none */
    bool chatty;      /* stderr may hold more than one line, stdout something */
    size_t file_most; /* bytes that a file may have; 0: no limit */
} hostile;

/* Run the program with `args` (ends with NULL). `needle` may be NULL. */
void hostile_case(hostile *h, const char *name, int status, const char *needle,
                  const char *const *args);
#define CASE(h, name, status, needle, ...) \
    hostile_case(h, name, status, needle, (const char *const[]){ __VA_ARGS__, NULL })
/* One more condition that counts as a case. */
void hostile_holds(hostile *h, const char *name, bool holds);
void hostile_skip(hostile *h, const char *name, const char *why);
/* "a_b": kept until the program ends, for names of cases made in loops. */
const char *named(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Files; what fails here ends the test. */
void put_bytes(const char *path, const void *bytes, size_t n);
void put_text(const char *path, const char *text);
void put_many(const char *path, const char *piece, size_t times); /* pieces after each other */
char *get_file(const char *path, size_t *n); /* with a NUL behind; to be freed */
void copy(const char *from, const char *to);
void put_folder(const char *path);
void replace_folder(const char *path); /* empty, whatever was there */
/* A safetensors file: a header of the length `header_n` says, then zeros. */
void put_tensors(const char *path, const char *header, size_t data);
/* DIR becomes a working model: recorded weights and config, a tokenizer of the 256 bytes and a mask. */
void put_model(const hostile *h, const char *dir);
/* tokenizer.json of the 256 bytes; each part may be "" */
void put_tokenizer(const char *path, const char *pre, const char *more_vocab, const char *merges,
                   const char *added, const char *more_model);
extern const char good_pre[];
#define MASK "{\"id\":256,\"content\":\"<|mask|>\",\"special\":true}"

/* The groups. */
void safetensors_cases(hostile *h);
void config_cases(hostile *h);
void tokenizer_cases(hostile *h);
void place_cases(hostile *h);
void jsonl_cases(hostile *h);
void call_cases(hostile *h);
void disk_cases(hostile *h);
void editor_cases(hostile *h); /* with a program that has a script for a model */
void agent_cases(hostile *h);

#endif
