/* checkpoint.c - arrays, state and terms to a file, and back with every part checked. */
#include "core/train/checkpoint.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "checkpoint.safetensors"
#define FORMAT    "2"

enum { STATE = 256 };

static uint64_t stir(uint64_t h, const void *bytes, size_t n)
{
    const char *at = bytes;
    uint64_t word;

    for (; n >= sizeof word; n -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; n > 0; n--, at++) h = (h ^ (unsigned char)*at) * 0x100000001b3u;
    return h ^ (h >> 31);
}

static uint64_t digest_of(const char *state, const void *const *data, const size_t *bytes, int n)
{
    uint64_t h = stir(1, state, strlen(state));

    for (int i = 0; i < n; i++) h = stir(h, data[i], bytes[i]);
    return h;
}

static void print_state(char out[STATE], const rd_checkpoint *c)
{
    const uint64_t *s = c->random.s;

    snprintf(out, STATE,
             "steps %" PRId64 " averaged %" PRId64 " elapsed %a random %" PRIx64 " %" PRIx64
             " %" PRIx64 " %" PRIx64,
             c->steps, c->averaged, c->elapsed_s, s[0], s[1], s[2], s[3]);
}

/* The number behind `word` and a space at *at, as text; NULL: it does not stand there. */
static const char *number_behind(const char *at, const char *word)
{
    size_t n = strlen(word);

    if (!at || strncmp(at, word, n) != 0 || at[n] != ' ' || at[n + 1] == ' ' || !at[n + 1])
        return NULL;
    return at + n + 1;
}

static const char *past_space(const char *end, const char *number)
{
    return end == number || errno ? NULL : *end == ' ' ? end + 1 : end;
}

static const char *scan_whole(const char *at, const char *word, int64_t *out)
{
    const char *number = number_behind(at, word);
    char *end;

    if (!number) return NULL;
    errno = 0;
    *out = strtoll(number, &end, 10);
    return past_space(end, number);
}

static bool scan_state(const char *text, rd_checkpoint *c)
{
    const char *at = scan_whole(text, "steps", &c->steps), *number;
    char *end;

    at = scan_whole(at, "averaged", &c->averaged);
    if (!(number = number_behind(at, "elapsed"))) return false;
    errno = 0;
    c->elapsed_s = strtod(number, &end);
    at = number_behind(past_space(end, number), "random");
    for (int i = 0; at && i < 4; i++) {
        errno = 0;
        c->random.s[i] = strtoull(at, &end, 16);
        at = past_space(end, at);
    }
    return at && !*at;
}

rd_status rd_checkpoint_write(const char *dir, const rd_checkpoint *c, rd_error *err)
{
    int n = c->arrays, m = 0;
    rd_tensor *tensor = rd_alloc_array((size_t)n + 1, sizeof *tensor);
    const void **data = rd_alloc_array((size_t)n + 1, sizeof *data);
    size_t *bytes = rd_alloc_array((size_t)n + 1, sizeof *bytes);
    const char **meta = rd_alloc_array(2 * ((size_t)c->terms + 4), sizeof *meta);
    char state[STATE], digest[32], *path = rd_path_join(dir, FILE_NAME);

    for (int i = 0; i < n; i++) {
        data[i] = c->array[i].data;
        bytes[i] = c->array[i].n * sizeof(float);
        tensor[i] = (rd_tensor){ .name = c->array[i].name,
                                 .dtype = RD_F32,
                                 .rank = 1,
                                 .shape = { (int64_t)c->array[i].n },
                                 .data = data[i],
                                 .bytes = bytes[i] };
    }
    print_state(state, c);
    snprintf(digest, sizeof digest, "%016" PRIx64, digest_of(state, data, bytes, n));
    meta[m++] = "redraft_checkpoint", meta[m++] = FORMAT;
    meta[m++] = "state", meta[m++] = state;
    meta[m++] = "digest", meta[m++] = digest;
    for (int i = 0; i < c->terms; i++) meta[m++] = c->term[i].name, meta[m++] = c->term[i].value;

    rd_status s = rd_safetensors_write(path, tensor, n, meta, err);

    free(path);
    free(meta);
    free(bytes);
    free(data);
    free(tensor);
    return s;
}

/* The format, then the terms: what is wrong is named in the user's words. */
static rd_status check_terms(const rd_safetensors *file, const char *path, const rd_checkpoint *c,
                             rd_error *err)
{
    const char *format = rd_safetensors_meta(file, "redraft_checkpoint");

    if (!format || strcmp(format, FORMAT) != 0)
        return rd_fail(err, RD_INVALID, "%s: its format is %.20s; this build reads format " FORMAT,
                       path, format ? format : "unnamed");
    for (int i = 0; i < c->terms; i++) {
        const rd_kept_term *t = &c->term[i];
        const char *value = rd_safetensors_meta(file, t->name);

        if (t->may_change) continue;
        if (!value || strcmp(value, t->value) != 0)
            return rd_fail(err, RD_INVALID, "%s: %s was %.80s; of this run it is %.80s", path,
                           t->name, value ? value : "not told", t->value);
    }
    return RD_OK;
}

static rd_status read_open(const rd_safetensors *file, const char *path, rd_checkpoint *c,
                           rd_error *err)
{
    int n = c->arrays;
    const void **data = rd_alloc_array((size_t)n + 1, sizeof *data);
    size_t *bytes = rd_alloc_array((size_t)n + 1, sizeof *bytes);
    rd_checkpoint found = *c;
    rd_status s = check_terms(file, path, c, err);

    for (int i = 0; i < n && !s; i++) {
        const rd_tensor *t = rd_safetensors_find(file, c->array[i].name);

        if (!t || t->dtype != RD_F32 || t->bytes != c->array[i].n * sizeof(float)) {
            s = rd_fail(err, RD_INVALID, "%s: %s is %s; this run needs %zu numbers", path,
                        c->array[i].name, t ? "of another size" : "missing", c->array[i].n);
            break;
        }
        data[i] = t->data;
        bytes[i] = t->bytes;
    }
    if (!s) {
        const char *state = rd_safetensors_meta(file, "state");
        const char *digest = rd_safetensors_meta(file, "digest");

        if (!state || !digest || !scan_state(state, &found) ||
            strtoull(digest, NULL, 16) != digest_of(state, data, bytes, n))
            s = rd_fail(err, RD_INVALID, "%s: torn: its contents are not what was written", path);
    }
    if (!s) {
        for (int i = 0; i < n; i++) memcpy(c->array[i].data, data[i], bytes[i]);
        *c = found;
    }
    free(bytes);
    free(data);
    return s;
}

rd_status rd_checkpoint_read(const char *dir, rd_checkpoint *c, rd_error *err)
{
    char *path = rd_path_join(dir, FILE_NAME);
    rd_safetensors *file = NULL;
    rd_status s;

    if (access(path, F_OK))
        s = rd_fail(err, RD_NOT_FOUND, "%s: no checkpoint", path);
    else
        s = rd_safetensors_open(path, &file, err);
    if (!s) s = read_open(file, path, c, err);
    rd_safetensors_close(file);
    free(path);
    return s;
}

/* The process that was writing a file of this name, FILE_NAME.PID.N.new; 0: it is no such file. */
static int unfinished_by(const char *name)
{
    size_t n = sizeof FILE_NAME - 1;
    char *end;

    if (strncmp(name, FILE_NAME ".", n + 1) != 0) return 0;
    errno = 0;
    long pid = strtol(name + n + 1, &end, 10);

    if (errno || pid <= 0 || pid > INT_MAX || *end != '.') return 0;
    const char *attempt = end + 1;

    strtol(attempt, &end, 10);
    return end != attempt && !strcmp(end, ".new") ? (int)pid : 0;
}

void rd_checkpoint_sweep(const char *dir)
{
    DIR *d = opendir(dir);

    for (struct dirent *e; d && (e = readdir(d));) {
        int pid = unfinished_by(e->d_name);

        if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH) continue;
        char *path = rd_path_join(dir, e->d_name);

        unlink(path);
        free(path);
    }
    if (d) closedir(d);
}
