/* corpus.c - which files are learnt from, and the packed file that they become.
 *
 * A file is judged by itself first (size, encoding, signs of a generator, tables), then against the
 * decontamination list, then against the files kept before it: when more than half of its longer
 * lines are known already, it is a copy. Held-out packages go through the same sieve, and their lines
 * are known before any training file is looked at, so that no copy of a test file is trained on.
 *
 * The packed file: a header, package names, a table of documents, 16-bit ids.
 */
#include "core/train/corpus.h"

#include "core/base/key.h"
#include "core/base/memory.h"
#include "core/decode/prompt.h"
#include "core/format/file.h"
#include "core/train/bpe.h"
#include "core/train/sieve.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FILE_LEAST = 100,
    FILE_MOST = 1 << 20,
    LINE_LONG = 24, /* signs without white space: what the decontamination list counts */
    NAME_BYTES = 64,
    KINDS_MOST = 256, /* endings that are counted apart */
    KINDS_SHOWN = 4,
    DOCS_MOST = 1 << 24,
    TIMES_MOST = 4 /* that the rarer language is counted for the tokenizer */
};

static const char magic[8] = "RDCORP1";

typedef struct head {
    char magic[8];
    uint32_t vocab, packages, docs, reserved;
    uint64_t tokens;
} head;

typedef struct entry { /* of the table of documents */
    uint64_t offset;
    uint32_t n, bytes;
    uint16_t language, package;
    uint32_t held_out;
} entry;

/* ---- reading ---- */

struct rd_corpus {
    rd_map map;
    const head *head;
    const char *names;
    const entry *entries;
    const uint16_t *ids;
};

rd_status rd_corpus_open(const char *path, rd_corpus **out, rd_error *err)
{
    rd_corpus *c = rd_alloc0(sizeof *c);
    size_t need;

    if (rd_map_open(path, &c->map, err)) goto fail;
    c->head = c->map.data;
    if (c->map.bytes < sizeof(head) || memcmp(c->head->magic, magic, sizeof magic) != 0) {
        rd_fail(err, RD_INVALID, "%s: not a packed corpus", path);
        goto fail;
    }
    if (c->head->packages > UINT16_MAX || c->head->docs > DOCS_MOST ||
        c->head->tokens > c->map.bytes || c->head->vocab > UINT16_MAX)
        goto torn;
    need = sizeof(head) + (size_t)c->head->packages * NAME_BYTES +
           (size_t)c->head->docs * sizeof(entry) + (size_t)c->head->tokens * 2;
    if (need != c->map.bytes) goto torn;
    c->names = (const char *)(c->head + 1);
    c->entries = (const entry *)(c->names + (size_t)c->head->packages * NAME_BYTES);
    c->ids = (const uint16_t *)(c->entries + c->head->docs);
    for (uint32_t i = 0; i < c->head->packages; i++)
        if (!memchr(c->names + (size_t)i * NAME_BYTES, 0, NAME_BYTES)) goto torn;
    for (uint32_t i = 0; i < c->head->docs; i++) {
        const entry *e = &c->entries[i];

        if (e->offset > c->head->tokens || e->n > c->head->tokens - e->offset || e->n > INT32_MAX ||
            e->package >= c->head->packages || e->language > RD_LANGUAGE_C)
            goto torn;
    }
    for (uint64_t i = 0; i < c->head->tokens; i++)
        if (c->ids[i] >= c->head->vocab) goto torn;
    *out = c;
    return RD_OK;
torn:
    rd_fail(err, RD_INVALID, "%s: the packed corpus is torn", path);
fail:
    rd_corpus_close(c);
    return err ? err->status : RD_INVALID;
}

void rd_corpus_close(rd_corpus *c)
{
    if (!c) return;
    rd_map_close(&c->map);
    free(c);
}

int rd_corpus_count(const rd_corpus *c)
{
    return (int)c->head->docs;
}

int rd_corpus_vocab(const rd_corpus *c)
{
    return (int)c->head->vocab;
}

uint64_t rd_corpus_digest(const rd_corpus *c)
{
    const unsigned char *bytes = c->map.data;
    uint64_t h = 1, word;
    size_t i = 0;

    for (; i + sizeof word <= c->map.bytes; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; i < c->map.bytes; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    return h ^ (h >> 31);
}

rd_corpus_doc rd_corpus_at(const rd_corpus *c, int i)
{
    const entry *e = &c->entries[i];

    return (rd_corpus_doc){ .ids = c->ids + e->offset,
                            .n = (int)e->n,
                            .language = e->language,
                            .package = e->package,
                            .bytes = e->bytes,
                            .held_out = e->held_out };
}

const char *rd_corpus_package(const rd_corpus *c, int package)
{
    return c->names + (size_t)package * NAME_BYTES;
}

/* ---- sets of line hashes ---- */

typedef struct set {
    uint64_t *slot;
    size_t n, cap;
} set;

static bool set_has(const set *s, uint64_t h)
{
    if (!s->cap) return false;
    for (size_t i = h & (s->cap - 1); s->slot[i]; i = (i + 1) & (s->cap - 1))
        if (s->slot[i] == h) return true;
    return false;
}

static void set_add(set *s, uint64_t h)
{
    if (h == 0 || set_has(s, h)) return;
    if (2 * s->n >= s->cap) {
        set old = *s;

        *s = (set){ .cap = old.cap ? 2 * old.cap : 1u << 16 };
        s->slot = rd_alloc_array(s->cap, sizeof *s->slot);
        for (size_t i = 0; i < old.cap; i++)
            if (old.slot[i]) set_add(s, old.slot[i]);
        free(old.slot);
    }
    size_t i = h & (s->cap - 1);

    while (s->slot[i]) i = (i + 1) & (s->cap - 1);
    s->slot[i] = h;
    s->n++;
}

static rd_status read_decontam(set *out, const char *path, rd_error *err)
{
    rd_buf text = { 0 };

    if (rd_file_read(path, 64u << 20, &text, err)) return err->status;
    for (char *at = text.data, *end; at && at < text.data + text.len; at = end) {
        uint64_t h = strtoull(at, &end, 16);

        end += strspn(end, " \t\r\n");
        if (end > at && (end == text.data + text.len || end[-1] <= ' ')) {
            set_add(out, h);
            continue;
        }
        rd_fail(err, RD_INVALID, "%s: no digest at byte %zu", path, (size_t)(at - text.data));
        rd_buf_clear(&text);
        return RD_INVALID;
    }
    rd_buf_clear(&text);
    if (out->n == 0) return rd_fail(err, RD_INVALID, "%s: no digests", path);
    return RD_OK;
}

/* ---- the sieve ---- */

enum reason { KEPT, UNREADABLE, SIZE, ENCODING, LICENCE, GENERATED, TABLE, LISTED, COPY, REASONS };

static const char *const reason_names[REASONS] = { "kept",     "unreadable", "size",
                                                   "encoding", "licence",    "generated",
                                                   "table",    "listed",     "copy" };

typedef struct document {
    char *text;
    size_t n;
    int language, package;
    bool held_out;
} document;

typedef struct kind { /* files of a language that we do not know, by their ending */
    char ending[12];
    int64_t files;
} kind;

typedef struct tally {
    int64_t files[REASONS], bytes[REASONS];
} tally;

typedef struct making {
    const rd_corpus_options *o;
    document *docs;
    size_t n, cap;
    char (*names)[NAME_BYTES];
    tally *of; /* each package */
    int packages;
    set listed, known;
    tally all;
    rd_buf dropped; /* reason and path of each file that was not kept */
    void (*take)(void *user, const rd_source *s); /* what is kept goes here, not to `docs` */
    void *user;
    int64_t kept[3]; /* of each language */
    kind kinds[KINDS_MOST];
    int kinds_n;
    int64_t others, folders; /* not looked at */
} making;

/* Hashes of the longer lines without their white space. */
static void line_hashes(const char *text, size_t n, uint64_t **out, size_t *count)
{
    char *line = rd_alloc0(n + 1);
    size_t m = 0, cap = 0;

    *out = NULL;
    *count = 0;
    for (size_t i = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)text[i] : '\n';

        if (c != '\n') {
            if (c > ' ') line[m++] = (char)c;
            continue;
        }
        size_t signs = 0;

        for (size_t k = 0; k < m; k++) signs += ((unsigned char)line[k] & 0xc0) != 0x80;
        if (signs >= LINE_LONG) {
            if (*count == cap) *out = rd_resize(*out, cap = cap ? 2 * cap : 256, sizeof **out);
            (*out)[(*count)++] = rd_blake2b_64(line, m);
        }
        m = 0;
    }
    free(line);
}

/* What is learnt from a file: no byte order mark, no licence; in other people's packages lines end as most
 * do. A walk hands on whole files and judges them whole. */
static document document_of(const making *mk, const rd_buf *b, int language)
{
    bool own = !mk->o || mk->o->one_package;
    const char *text = b->data ? b->data : "";
    size_t skip = mk->take ? 0 : rd_sieve_licence(text, b->len, language), m = 0;
    document d = { .text = rd_copy_text(text + skip, b->len - skip), .language = language };

    for (size_t i = 0; i < b->len - skip; i++)
        if (own || d.text[i] != '\r' || d.text[i + 1] != '\n') d.text[m++] = d.text[i];
    d.text[m] = 0;
    d.n = m;
    return d;
}

/* `d` is what would be learnt from the file in `b`. */
static enum reason judge(making *mk, const rd_buf *b, const document *d)
{
    uint64_t *hash;
    size_t count, listed = 0, known = 0;
    set different = { 0 };
    enum reason why = KEPT;

    if (b->len > FILE_MOST) return SIZE;
    if (!rd_sieve_is_text(b->data, b->len)) return b->len < FILE_LEAST ? SIZE : ENCODING;
    if (mk->o && !mk->o->one_package && rd_sieve_is_copyleft(b->data, b->len)) return LICENCE;
    if (d->n < FILE_LEAST) return SIZE;
    if (rd_sieve_is_generated(b->data, b->len, d->language)) return GENERATED;
    if (rd_sieve_is_table(d->text, d->n)) return TABLE;
    line_hashes(d->text, d->n, &hash, &count);
    for (size_t i = 0; i < count; i++) {
        if (set_has(&mk->listed, hash[i])) {
            set_add(&different, hash[i]);
            listed++;
        }
        known += set_has(&mk->known, hash[i]);
    }
    if (different.n >= 6 || listed * 10 > count)
        why = LISTED;
    else if (known * 2 > count || (count == 0 && d->n < 400))
        why = COPY;
    else
        for (size_t i = 0; i < count; i++) set_add(&mk->known, hash[i]);
    free(different.slot);
    free(hash);
    return why;
}

static void count(making *mk, const char *path, int package, enum reason why, size_t bytes)
{
    mk->all.files[why]++;
    mk->all.bytes[why] += (int64_t)bytes;
    if (!mk->o) return;
    mk->of[package].files[why]++;
    mk->of[package].bytes[why] += (int64_t)bytes;
    if (why != KEPT) rd_buf_format(&mk->dropped, "%s\t%s\n", reason_names[why], path);
}

static void take_file(making *mk, const char *path, int language, int package, bool held_out)
{
    rd_buf b = { 0 };
    rd_error err;

    rd_status read = rd_file_read(path, FILE_MOST, &b, &err);
    document d = { 0 };
    enum reason why = read == RD_INVALID ? SIZE : UNREADABLE;

    if (!read) {
        d = document_of(mk, &b, language);
        why = judge(mk, &b, &d);
    }
    count(mk, path, package, why, b.len);
    if (why == KEPT && mk->take) {
        mk->take(mk->user, &(rd_source){ path, b.data, b.len, language });
    } else if (why == KEPT) {
        mk->kept[language]++;
        if (mk->n == mk->cap) {
            mk->cap = mk->cap ? 2 * mk->cap : 1024;
            mk->docs = rd_resize(mk->docs, mk->cap, sizeof *mk->docs);
        }
        d.package = package;
        d.held_out = held_out;
        mk->docs[mk->n++] = d;
        d.text = NULL;
    }
    free(d.text);
    rd_buf_clear(&b);
}

static bool skipped_folder(const char *name)
{
    static const char *const names[] = { "vendor",    "third_party", "thirdparty",   "third-party",
                                         "external",  "deps",        "_vendor",      "extern",
                                         "externals", "bundled",     "node_modules", "locale",
                                         "data",      "fixtures" };

    if (name[0] == '.') return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

static int language_of_source(const char *name)
{
    const char *dot = strrchr(name, '.');

    if (!dot) return -1;
    if (!strcmp(dot, ".py")) return RD_LANGUAGE_PYTHON;
    if (!strcmp(dot, ".c") || !strcmp(dot, ".h")) return RD_LANGUAGE_C;
    return -1;
}

static void count_other(making *mk, const char *name)
{
    const char *dot = strrchr(name, '.');
    kind k = { .files = 1 };

    mk->others++;
    snprintf(k.ending, sizeof k.ending, "%s", dot && dot != name ? dot : "no ending");
    for (int i = 0; i < mk->kinds_n; i++) {
        if (strcmp(mk->kinds[i].ending, k.ending) != 0) continue;
        mk->kinds[i].files++;
        return;
    }
    if (mk->kinds_n < KINDS_MOST) mk->kinds[mk->kinds_n++] = k;
}

static void walk(making *mk, const char *dir, int package, bool held_out, int depth)
{
    struct dirent **list;
    int n = scandir(dir, &list, NULL, alphasort);

    if (n < 0) count(mk, dir, package, UNREADABLE, 0);
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        char *path = rd_path_join(dir, name);
        struct stat st;
        int language = language_of_source(name);

        if (lstat(path, &st)) {
            count(mk, path, package, UNREADABLE, 0);
        } else if (S_ISDIR(st.st_mode) && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            bool in = depth < 32 && !skipped_folder(name);

            if (in) walk(mk, path, package, held_out, depth + 1);
            mk->folders += !in;
        } else if (S_ISREG(st.st_mode)) {
            if (language >= 0)
                take_file(mk, path, language, package, held_out);
            else
                count_other(mk, name);
        }
        free(path);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

static void walk_package(making *mk, const char *dir, const char *name, bool held_out)
{
    mk->names = rd_resize(mk->names, (size_t)mk->packages + 1, sizeof *mk->names);
    mk->of = rd_resize(mk->of, (size_t)mk->packages + 1, sizeof *mk->of);
    memset(mk->names[mk->packages], 0, NAME_BYTES);
    memset(&mk->of[mk->packages], 0, sizeof *mk->of);
    snprintf(mk->names[mk->packages], NAME_BYTES, "%.*s", NAME_BYTES - 1, name);
    walk(mk, dir, mk->packages, held_out, 0);
    mk->packages++;
}

static rd_status walk_packages(making *mk, const char *dir, bool held_out, rd_error *err)
{
    struct dirent **list;
    int n = scandir(dir, &list, NULL, alphasort);

    if (n < 0) return rd_fail(err, RD_NOT_FOUND, "%s: cannot be read", dir);
    for (int i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.') {
            char *path = rd_path_join(dir, list[i]->d_name);

            if (rd_is_folder(path)) walk_package(mk, path, list[i]->d_name, held_out);
            free(path);
        }
        free(list[i]);
    }
    free(list);
    return RD_OK;
}

rd_status rd_corpus_walk(const char *dir, void (*take)(void *user, const rd_source *s), void *user,
                         rd_error *err)
{
    making mk = { .take = take, .user = user };

    if (!rd_is_folder(dir)) return rd_fail(err, RD_NOT_FOUND, "%s: no such folder", dir);
    walk(&mk, dir, 0, true, 0);
    free(mk.known.slot);
    return RD_OK;
}

static rd_status walk_training(making *mk, rd_error *err)
{
    const char *dir = mk->o->train_dir;

    if (!mk->o->one_package) return walk_packages(mk, dir, false, err);
    if (!rd_is_folder(dir)) return rd_fail(err, RD_NOT_FOUND, "%s: not a folder", dir);
    walk_package(mk, dir, ".", false);
    return RD_OK;
}

static void report(const making *mk, const char *format, ...)
{
    char line[256];
    va_list args;

    if (!mk->o->report) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mk->o->report(line);
}

static int by_files(const void *a, const void *b)
{
    const kind *x = a, *y = b;

    return x->files != y->files ? (x->files < y->files) - (x->files > y->files)
                                : strcmp(x->ending, y->ending);
}

static void report_package(const making *mk, int package)
{
    const tally *t = &mk->of[package];
    rd_buf dropped = { 0 };

    for (int i = 1; i < REASONS; i++)
        if (t->files[i])
            rd_buf_format(&dropped, "%s%lld %s", dropped.len ? ", " : "; ", (long long)t->files[i],
                          reason_names[i]);
    report(mk, "package %s: %lld files, %.1f MB%s", mk->names[package], (long long)t->files[KEPT],
           (double)t->bytes[KEPT] * 1e-6, dropped.len ? dropped.data : "");
    rd_buf_clear(&dropped);
}

static void report_sieve(making *mk)
{
    rd_buf kinds = { 0 };

    for (int p = 0; p < mk->packages; p++) report_package(mk, p);
    for (int i = 0; i < REASONS; i++)
        report(mk, "%s: %lld files, %.1f MB", reason_names[i], (long long)mk->all.files[i],
               (double)mk->all.bytes[i] * 1e-6);
    qsort(mk->kinds, (size_t)mk->kinds_n, sizeof *mk->kinds, by_files);
    for (int i = 0; i < mk->kinds_n && i < KINDS_SHOWN; i++)
        rd_buf_format(&kinds, "%s%lld %s", i ? ", " : "", (long long)mk->kinds[i].files,
                      mk->kinds[i].ending);
    report(mk, "taken: %lld Python files, %lld C files", (long long)mk->kept[RD_LANGUAGE_PYTHON],
           (long long)mk->kept[RD_LANGUAGE_C]);
    report(mk, "not looked at: %lld files of other kinds%s%s%s, %lld folders",
           (long long)mk->others, kinds.len ? " (" : "", kinds.len ? kinds.data : "",
           kinds.len ? ")" : "", (long long)mk->folders);
    rd_buf_clear(&kinds);
}

static rd_status pack(making *mk, rd_bpe *bpe, rd_error *err)
{
    rd_buf out = { 0 }, ids16 = { 0 };
    rd_ids ids = { 0 };
    entry *entries = rd_alloc_array(mk->n + 1, sizeof *entries);
    head h = { .vocab = (uint32_t)rd_bpe_size(bpe),
               .packages = (uint32_t)mk->packages,
               .docs = (uint32_t)mk->n };
    int64_t tokens[2][3] = { { 0 } }, bytes[2][3] = { { 0 } };

    memcpy(h.magic, magic, sizeof magic);
    for (size_t i = 0; i < mk->n; i++) {
        const document *d = &mk->docs[i];

        rd_ids_reset(&ids);
        rd_bpe_encode(bpe, d->text, d->n, &ids);
        entries[i] = (entry){ .offset = h.tokens,
                              .n = (uint32_t)ids.n,
                              .bytes = (uint32_t)d->n,
                              .language = (uint16_t)d->language,
                              .package = (uint16_t)d->package,
                              .held_out = d->held_out };
        for (int k = 0; k < ids.n; k++)
            rd_buf_append(&ids16, &(uint16_t){ (uint16_t)ids.id[k] }, 2);
        h.tokens += (uint64_t)ids.n;
        tokens[d->held_out][d->language] += ids.n;
        bytes[d->held_out][d->language] += (int64_t)d->n;
    }
    for (int held = 0; held < 2; held++)
        for (int l = RD_LANGUAGE_PYTHON; l <= RD_LANGUAGE_C; l++)
            if (tokens[held][l])
                report(mk, "%s %s: %lld tokens, %.2f bytes a token", held ? "held out" : "train",
                       l == RD_LANGUAGE_C ? "C" : "Python", (long long)tokens[held][l],
                       (double)bytes[held][l] / (double)tokens[held][l]);
    rd_buf_append(&out, &h, sizeof h);
    if (mk->packages) rd_buf_append(&out, mk->names, (size_t)mk->packages * NAME_BYTES);
    rd_buf_append(&out, entries, mk->n * sizeof *entries);
    rd_buf_append(&out, ids16.data, ids16.len);
    char *path = rd_path_join(mk->o->out, "corpus.rdc");
    rd_status status = rd_file_write(path, out.data, out.len, err);

    free(path);
    free(entries);
    rd_ids_clear(&ids);
    rd_buf_clear(&ids16);
    rd_buf_clear(&out);
    return status;
}

static rd_status write_dropped(const making *mk, rd_error *err)
{
    char *path = rd_path_join(mk->o->out, "dropped.tsv");
    rd_status status = rd_file_write(path, mk->dropped.data, mk->dropped.len, err);

    free(path);
    return status;
}

/* A tokenizer's own merges, if one is named, and more up to `vocab`. Each language counts about as much as
 * the other, however many packages there are of it. */
static rd_status learn_merges(const making *mk, rd_bpe *bpe, rd_error *err)
{
    const rd_corpus_options *o = mk->o;
    int64_t bytes[3] = { 0 };
    int had, times[3];

    if (o->tokenizer && rd_bpe_read(bpe, o->tokenizer, err)) return err->status;
    had = rd_bpe_size(bpe);
    if (o->vocab > had) {
        for (size_t i = 0; i < mk->n; i++)
            if (!mk->docs[i].held_out) bytes[mk->docs[i].language] += (int64_t)mk->docs[i].n;
        for (int l = RD_LANGUAGE_PYTHON; l <= RD_LANGUAGE_C; l++) {
            int64_t other = bytes[RD_LANGUAGE_PYTHON + RD_LANGUAGE_C - l];
            int64_t ratio = bytes[l] ? (other + bytes[l] / 2) / bytes[l] : 1;

            times[l] = ratio < 1 ? 1 : ratio > TIMES_MOST ? TIMES_MOST : (int)ratio;
        }
        for (size_t i = 0; i < mk->n; i++) {
            const document *d = &mk->docs[i];

            if (!d->held_out) rd_bpe_count(bpe, d->text, d->n, times[d->language]);
        }
        rd_bpe_train(bpe, o->vocab);
    }
    if (o->tokenizer)
        report(mk, "vocabulary: %d, of which %d are those of %s", rd_bpe_size(bpe), had,
               o->tokenizer);
    else
        report(mk, "vocabulary: %d, %d merges learnt", rd_bpe_size(bpe), rd_bpe_size(bpe) - had);
    return RD_OK;
}

rd_status rd_corpus_make(const rd_corpus_options *o, rd_error *err)
{
    making mk = { .o = o };
    rd_bpe *bpe = rd_bpe_new();
    rd_status status = RD_OK;

    if (o->decontam) status = read_decontam(&mk.listed, o->decontam, err);
    if (!status && o->held_dir) status = walk_packages(&mk, o->held_dir, true, err);
    if (!status) status = walk_training(&mk, err);
    if (status) goto out;
    report_sieve(&mk);
    if (mk.n == 0) {
        status =
            rd_fail(err, RD_INVALID,
                    "%s: no text is left; Python and C files (.py, .c, .h) of %d bytes to %d KB "
                    "are learnt from",
                    o->train_dir, FILE_LEAST, FILE_MOST >> 10);
        goto out;
    }
    status = learn_merges(&mk, bpe, err);
    if (!status) status = rd_bpe_write(bpe, o->out, err);
    if (!status) status = pack(&mk, bpe, err);
    if (!status) status = write_dropped(&mk, err);
out:
    for (size_t i = 0; i < mk.n; i++) free(mk.docs[i].text);
    free(mk.docs);
    free(mk.names);
    free(mk.of);
    rd_buf_clear(&mk.dropped);
    free(mk.listed.slot);
    free(mk.known.slot);
    rd_bpe_free(bpe);
    return status;
}
