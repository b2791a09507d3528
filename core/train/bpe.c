/* bpe.c - byte-level BPE by counting pairs of neighbours in the distinct pieces of a text.
 *
 * Pieces are kept once with their number of occurrences. Each pair of symbols knows its count and the
 * pieces that (may) contain it; a heap gives the most frequent pair, ties to the smaller ids. A heap
 * entry whose count is out of date is pushed back with the new one.
 * Source: Sennrich, Haddow and Birch 2016.
 */
#include "core/train/bpe.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/record.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTE = RD_BPE_RESERVED, FIRST_MERGE = RD_BPE_RESERVED + 256, PIECE_MOST = 256 };

typedef struct piece {
    uint32_t text; /* offset in the bytes of all pieces */
    uint16_t n;    /* bytes */
    uint16_t ids_n;
    uint32_t ids; /* offset in the symbols */
    int64_t count;
} piece;

typedef struct pair {
    int32_t a, b;
    int64_t count;
    uint32_t *at; /* pieces */
    int at_n, at_cap;
    int32_t made; /* the merge's id, or -1 */
} pair;

typedef struct heap_entry {
    int64_t count;
    int32_t a, b;
    uint32_t pair;
} heap_entry;

struct rd_bpe {
    rd_buf text;
    piece *pieces;
    uint32_t n, cap;
    uint32_t *slots; /* hash of pieces: number + 1 */
    uint32_t slots_n;
    uint16_t *symbols;
    size_t symbols_n, symbols_cap;

    pair *pairs;
    uint32_t pairs_n, pairs_cap;
    uint32_t *pair_slots;
    uint32_t pair_slots_n;
    heap_entry *heap;
    size_t heap_n, heap_cap;

    int32_t (*merges)[2];
    int merges_n;
    rd_buf spelled; /* bytes of each merge */
    uint32_t *spelled_at;
    char single[256];
    bool encoding; /* pieces are a cache of encodings now */
};

void rd_bpe_reserved(int i, char out[32])
{
    static const char *const names[] = { "<|endoftext|>",  "<|pad|>",         "<|mask|>",
                                         "<|delete|>",     "<|split|>",       "<|fill|>",
                                         "<|suffix|>",     "<|prefix|>",      "<|file|>",
                                         "<|lang:other|>", "<|lang:python|>", "<|lang:c|>" };

    if (i < (int)(sizeof names / sizeof *names))
        snprintf(out, 32, "%s", names[i]);
    else
        snprintf(out, 32, "<|reserved:%d|>", i);
}

rd_bpe *rd_bpe_new(void)
{
    rd_bpe *b = rd_alloc0(sizeof *b);

    for (int i = 0; i < 256; i++) b->single[i] = (char)i;
    return b;
}

static void forget_pieces(rd_bpe *b)
{
    free(b->pieces);
    free(b->slots);
    free(b->symbols);
    b->pieces = NULL;
    b->slots = NULL;
    b->symbols = NULL;
    b->n = b->cap = b->slots_n = 0;
    b->symbols_n = b->symbols_cap = 0;
    rd_buf_clear(&b->text);
}

static void forget_pairs(rd_bpe *b)
{
    for (uint32_t i = 0; i < b->pairs_n; i++) free(b->pairs[i].at);
    free(b->pairs);
    free(b->pair_slots);
    free(b->heap);
    b->pairs = NULL;
    b->pair_slots = NULL;
    b->heap = NULL;
    b->pairs_n = b->pairs_cap = b->pair_slots_n = 0;
    b->heap_n = b->heap_cap = 0;
}

void rd_bpe_free(rd_bpe *b)
{
    if (!b) return;
    forget_pieces(b);
    forget_pairs(b);
    free(b->merges);
    free(b->spelled_at);
    rd_buf_clear(&b->spelled);
    free(b);
}

/* ---- pieces ---- */

static bool is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static bool is_sign(unsigned char c)
{
    return c > ' ' && c < 0x7f && !is_letter(c) && !(c >= '0' && c <= '9');
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || c == '\t';
}

size_t rd_bpe_piece(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = s[0] == '\r' && n > 1 && s[1] == '\n';

    if (s[i] == '\n') {
        for (i++; i < n && is_blank(s[i]); i++) {
        }
        return i;
    }
    i = s[0] == ' ' || s[0] == '_';
    if (i < n && is_letter(s[i])) {
        for (; i < n && is_letter(s[i]); i++) {
        }
        return i;
    }
    i = s[0] == ' ';
    if (i < n && is_sign(s[i])) {
        for (; i < n && is_sign(s[i]); i++) {
        }
        return i;
    }
    for (i = 0; i < n && is_blank(s[i]); i++) {
    }
    return i > 0 ? i : 1;
}

static const char pattern_json[] =
    "\\\\r?\\\\n[ \\\\t]*|[ _]?[A-Za-z\\\\x{80}-\\\\x{10FFFF}]+|[0-9]| ?[!-/:-@\\\\[-`{-~]+"
    "|[ \\\\t]+|[\\\\x{0}-\\\\x{7F}]";

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static void grow_slots(rd_bpe *b)
{
    uint32_t n = b->slots_n ? 2 * b->slots_n : 1u << 16;
    uint32_t *slots = rd_alloc_array(n, sizeof *slots);

    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t h = hash_bytes(b->text.data + b->pieces[i].text, b->pieces[i].n);

        while (slots[h & (n - 1)]) h++;
        slots[h & (n - 1)] = i + 1;
    }
    free(b->slots);
    b->slots = slots;
    b->slots_n = n;
}

/* The number of the piece; a new one has no symbols yet. */
static uint32_t find_piece(rd_bpe *b, const char *s, size_t n)
{
    if (2 * b->n >= b->slots_n) grow_slots(b);
    uint64_t h = hash_bytes(s, n);

    for (;; h++) {
        uint32_t at = b->slots[h & (b->slots_n - 1)];

        if (!at) break;
        const piece *p = &b->pieces[at - 1];

        if (p->n == n && !memcmp(b->text.data + p->text, s, n)) return at - 1;
    }
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 4096;
        b->pieces = rd_resize(b->pieces, b->cap, sizeof *b->pieces);
    }
    b->slots[h & (b->slots_n - 1)] = b->n + 1;
    b->pieces[b->n] = (piece){ .text = (uint32_t)b->text.len, .n = (uint16_t)n };
    rd_buf_append(&b->text, s, n);
    return b->n++;
}

static uint16_t *add_symbols(rd_bpe *b, piece *p, size_t n)
{
    while (b->symbols_n + n > b->symbols_cap) {
        b->symbols_cap = b->symbols_cap ? 2 * b->symbols_cap : 1u << 16;
        b->symbols = rd_resize(b->symbols, b->symbols_cap, sizeof *b->symbols);
    }
    p->ids = (uint32_t)b->symbols_n;
    p->ids_n = (uint16_t)n;
    b->symbols_n += n;
    return b->symbols + p->ids;
}

void rd_bpe_count(rd_bpe *b, const char *text, size_t n, int times)
{
    for (size_t at = 0; at < n;) {
        size_t len = rd_bpe_piece(text + at, n - at);

        for (size_t cut; len > 0; at += cut, len -= cut) {
            cut = len < PIECE_MOST ? len : PIECE_MOST;
            uint32_t found = find_piece(b, text + at, cut); /* may move the pieces */

            b->pieces[found].count += times;
        }
    }
}

/* ---- pairs and merges ---- */

static uint64_t hash_pair(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9e3779b97f4a7c15u;

    return h ^ (h >> 31);
}

static void grow_pairs(rd_bpe *b)
{
    uint32_t n = b->pair_slots_n ? 2 * b->pair_slots_n : 1u << 14;
    uint32_t *slots = rd_alloc_array(n, sizeof *slots);

    for (uint32_t i = 0; i < b->pairs_n; i++) {
        uint64_t h = hash_pair(b->pairs[i].a, b->pairs[i].b);

        while (slots[h & (n - 1)]) h++;
        slots[h & (n - 1)] = i + 1;
    }
    free(b->pair_slots);
    b->pair_slots = slots;
    b->pair_slots_n = n;
}

/* The pair's number, or -1 when it is new and `make` is not set. */
static int64_t find_pair(rd_bpe *b, int32_t left, int32_t right, bool make)
{
    if (2 * b->pairs_n >= b->pair_slots_n) grow_pairs(b);
    uint64_t h = hash_pair(left, right);

    for (;; h++) {
        uint32_t at = b->pair_slots[h & (b->pair_slots_n - 1)];

        if (!at) break;
        if (b->pairs[at - 1].a == left && b->pairs[at - 1].b == right) return at - 1;
    }
    if (!make) return -1;
    if (b->pairs_n == b->pairs_cap) {
        b->pairs_cap = b->pairs_cap ? 2 * b->pairs_cap : 4096;
        b->pairs = rd_resize(b->pairs, b->pairs_cap, sizeof *b->pairs);
    }
    b->pair_slots[h & (b->pair_slots_n - 1)] = b->pairs_n + 1;
    b->pairs[b->pairs_n] = (pair){ .a = left, .b = right, .made = -1 };
    return b->pairs_n++;
}

static bool before(const heap_entry *x, const heap_entry *y)
{
    if (x->count != y->count) return x->count > y->count;
    if (x->a != y->a) return x->a < y->a;
    return x->b < y->b;
}

static void push(rd_bpe *b, uint32_t number)
{
    const pair *p = &b->pairs[number];
    heap_entry e = { p->count, p->a, p->b, number };
    size_t i = b->heap_n++;

    if (b->heap_n > b->heap_cap) {
        b->heap_cap = b->heap_cap ? 2 * b->heap_cap : 4096;
        b->heap = rd_resize(b->heap, b->heap_cap, sizeof *b->heap);
    }
    for (; i > 0 && before(&e, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = e;
}

static heap_entry pop(rd_bpe *b)
{
    heap_entry top = b->heap[0], e = b->heap[--b->heap_n];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < b->heap_n; i = child) {
        if (child + 1 < b->heap_n && before(&b->heap[child + 1], &b->heap[child])) child++;
        if (!before(&b->heap[child], &e)) break;
        b->heap[i] = b->heap[child];
    }
    if (b->heap_n > 0) b->heap[i] = e;
    return top;
}

static void count_pair(rd_bpe *b, uint32_t at, int32_t left, int32_t right, int64_t by)
{
    int64_t found = find_pair(b, left, right, true); /* may move the pairs */
    pair *p = &b->pairs[found];

    p->count += by;
    if (by < 0 || (p->at_n > 0 && p->at[p->at_n - 1] == at)) return;
    if (p->at_n == p->at_cap) {
        p->at_cap = p->at_cap ? 2 * p->at_cap : 4;
        p->at = rd_resize(p->at, (size_t)p->at_cap, sizeof *p->at);
    }
    p->at[p->at_n++] = at;
}

static void add_merge(rd_bpe *b, int32_t left, int32_t right)
{
    int32_t id = FIRST_MERGE + b->merges_n;
    size_t n;

    b->merges = rd_resize(b->merges, (size_t)b->merges_n + 1, sizeof *b->merges);
    b->spelled_at = rd_resize(b->spelled_at, (size_t)b->merges_n + 2, sizeof *b->spelled_at);
    b->spelled_at[b->merges_n] = (uint32_t)b->spelled.len;
    for (int side = 0; side < 2; side++) {
        const char *s = rd_bpe_bytes(b, side ? right : left, &n);
        char copy[4 * PIECE_MOST];

        memcpy(copy, s, n);
        rd_buf_append(&b->spelled, copy, n);
    }
    b->merges[b->merges_n][0] = left;
    b->merges[b->merges_n][1] = right;
    b->merges_n++;
    b->spelled_at[b->merges_n] = (uint32_t)b->spelled.len;
    int64_t found = find_pair(b, left, right, true);

    b->pairs[found].made = id;
}

/* Put the new symbol into one piece, and move the counts of the neighbours. */
static void merge_in(rd_bpe *b, uint32_t at, int32_t left, int32_t right, int32_t made,
                     rd_ids *touched)
{
    piece *p = &b->pieces[at];
    uint16_t *s = b->symbols + p->ids;
    int n = p->ids_n, m = 0;

    for (int i = 0; i < n; m++) {
        if (i + 1 == n || s[i] != left || s[i + 1] != right) {
            s[m] = s[i++];
            continue;
        }
        if (m > 0) {
            count_pair(b, at, s[m - 1], left, -p->count);
            count_pair(b, at, s[m - 1], made, p->count);
            rd_ids_push(touched, (int32_t)find_pair(b, s[m - 1], made, true));
        }
        if (i + 2 < n) {
            count_pair(b, at, right, s[i + 2], -p->count);
            count_pair(b, at, made, s[i + 2], p->count);
            rd_ids_push(touched, (int32_t)find_pair(b, made, s[i + 2], true));
        }
        s[m] = (uint16_t)made;
        i += 2;
    }
    p->ids_n = (uint16_t)m;
}

/* Merge one piece: the earliest merge first, from the left. */
static int merge_piece(rd_bpe *b, const char *s, size_t n, uint16_t *ids)
{
    int m = (int)n;

    for (int i = 0; i < m; i++) ids[i] = (uint16_t)(FIRST_BYTE + (unsigned char)s[i]);
    for (;;) {
        int32_t best = INT_MAX;

        for (int i = 0; i + 1 < m; i++) {
            int64_t p = find_pair(b, ids[i], ids[i + 1], false);

            if (p >= 0 && b->pairs[p].made >= 0 && b->pairs[p].made < best) best = b->pairs[p].made;
        }
        if (best == INT_MAX) return m;
        int left = b->merges[best - FIRST_MERGE][0], right = b->merges[best - FIRST_MERGE][1];
        int out = 0;

        for (int i = 0; i < m; out++) {
            bool here = i + 1 < m && ids[i] == left && ids[i + 1] == right;

            ids[out] = here ? (uint16_t)best : ids[i];
            i += here ? 2 : 1;
        }
        m = out;
    }
}

int rd_bpe_train(rd_bpe *b, int vocab)
{
    rd_ids touched = { 0 };

    if (vocab > UINT16_MAX) vocab = UINT16_MAX;
    for (uint32_t i = 0; i < b->n; i++) {
        piece *p = &b->pieces[i];
        uint16_t ids[PIECE_MOST], *s;
        int n = merge_piece(b, b->text.data + p->text, p->n, ids);

        s = add_symbols(b, p, (size_t)n);
        memcpy(s, ids, (size_t)n * sizeof *ids);
        for (int j = 0; j + 1 < n; j++) count_pair(b, i, s[j], s[j + 1], p->count);
    }
    for (uint32_t i = 0; i < b->pairs_n; i++) push(b, i);
    while (FIRST_MERGE + b->merges_n < vocab && b->heap_n > 0) {
        heap_entry e = pop(b);
        pair *p = &b->pairs[e.pair];
        int32_t made = FIRST_MERGE + b->merges_n;

        if (p->made >= 0) continue;
        if (p->count != e.count) {
            if (p->count > 1) push(b, e.pair);
            continue;
        }
        if (p->count < 2) break;
        add_merge(b, e.a, e.b);
        rd_ids_reset(&touched);
        uint32_t *at = b->pairs[e.pair].at;
        int at_n = b->pairs[e.pair].at_n;

        b->pairs[e.pair].at = NULL;
        b->pairs[e.pair].at_n = b->pairs[e.pair].at_cap = 0;
        for (int i = 0; i < at_n; i++) merge_in(b, at[i], e.a, e.b, made, &touched);
        free(at);
        for (int i = 0; i < touched.n; i++)
            if (i == 0 || touched.id[i] != touched.id[i - 1]) push(b, (uint32_t)touched.id[i]);
    }
    rd_ids_clear(&touched);
    return rd_bpe_size(b);
}

rd_status rd_bpe_set(rd_bpe *b, const int32_t (*pairs)[2], int n, rd_error *err)
{
    forget_pieces(b);
    forget_pairs(b);
    b->merges_n = 0;
    rd_buf_reset(&b->spelled);
    for (int i = 0; i < n; i++) {
        int32_t most = FIRST_MERGE + i;

        if (pairs[i][0] < FIRST_BYTE || pairs[i][1] < FIRST_BYTE || pairs[i][0] >= most ||
            pairs[i][1] >= most)
            return rd_fail(err, RD_INVALID, "merge %d names a token that does not exist yet", i);
        size_t x, y;

        rd_bpe_bytes(b, pairs[i][0], &x);
        rd_bpe_bytes(b, pairs[i][1], &y);
        if (x + y > PIECE_MOST) return rd_fail(err, RD_INVALID, "merge %d is too long", i);
        add_merge(b, pairs[i][0], pairs[i][1]);
    }
    return RD_OK;
}

int rd_bpe_merges(const rd_bpe *b, const int32_t (**pairs)[2])
{
    *pairs = (const int32_t(*)[2])b->merges;
    return b->merges_n;
}

/* ---- use ---- */

int rd_bpe_size(const rd_bpe *b)
{
    return FIRST_MERGE + b->merges_n;
}

const char *rd_bpe_bytes(const rd_bpe *b, int32_t id, size_t *n)
{
    *n = 0;
    if (id < FIRST_BYTE || id >= rd_bpe_size(b)) return "";
    *n = 1;
    if (id < FIRST_MERGE) return b->single + (id - FIRST_BYTE);
    uint32_t at = b->spelled_at[id - FIRST_MERGE];

    *n = b->spelled_at[id - FIRST_MERGE + 1] - at;
    return b->spelled.data + at;
}

/* What was counted gives way to a cache of encodings and the pairs that are merges. */
static void begin_encoding(rd_bpe *b)
{
    if (b->encoding) return;
    forget_pieces(b);
    forget_pairs(b);
    for (int i = 0; i < b->merges_n; i++) {
        int64_t found = find_pair(b, b->merges[i][0], b->merges[i][1], true);

        b->pairs[found].made = FIRST_MERGE + i;
    }
    b->encoding = true;
}

void rd_bpe_encode(rd_bpe *b, const char *text, size_t n, rd_ids *out)
{
    begin_encoding(b);
    for (size_t at = 0; at < n;) {
        size_t len = rd_bpe_piece(text + at, n - at);

        for (size_t cut; len > 0; at += cut, len -= cut) {
            uint16_t ids[PIECE_MOST];

            cut = len < PIECE_MOST ? len : PIECE_MOST;
            if (b->n > 1u << 20) forget_pieces(b);
            uint32_t found = find_piece(b, text + at, cut);
            piece *p = &b->pieces[found];

            if (p->ids_n == 0) {
                int m = merge_piece(b, text + at, cut, ids);

                memcpy(add_symbols(b, p, (size_t)m), ids, (size_t)m * sizeof *ids);
            }
            for (int i = 0; i < p->ids_n; i++) rd_ids_push(out, b->symbols[p->ids + (uint32_t)i]);
        }
    }
}

/* ---- the file ---- */

/* The byte alphabet of byte-level BPE: printable Latin-1 stands for itself, the rest from U+0100. */
static uint32_t letter_of(unsigned char c)
{
    uint32_t next = 256;

    for (uint32_t i = 0; i < 256; i++) {
        bool itself = (i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;

        if (i == c) return itself ? i : next;
        next += !itself;
    }
    return 0;
}

static void spell(rd_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t c = letter_of((unsigned char)s[i]);

        if (c == '"' || c == '\\')
            rd_buf_format(out, "\\%c", (int)c);
        else if (c < 0x80)
            rd_buf_format(out, "%c", (int)c);
        else
            rd_buf_format(out, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 0x3f)));
    }
}

rd_status rd_bpe_write(const rd_bpe *b, const char *dir, rd_error *err)
{
    rd_buf o = { 0 };
    char name[32], *path = rd_path_join(dir, "tokenizer.json");
    size_t n;

    rd_buf_text(&o, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < RD_BPE_RESERVED; i++) {
        rd_bpe_reserved(i, name);
        rd_buf_format(&o,
                      "%s\n{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                      "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                      i ? "," : "", i, name);
    }
    rd_buf_format(&o,
                  "],\n\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\","
                  "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                  "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
                  "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]},\n"
                  "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
                  "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\n"
                  "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                  "\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{",
                  pattern_json);
    for (int i = FIRST_BYTE; i < rd_bpe_size(b); i++) {
        const char *s = rd_bpe_bytes(b, i, &n);

        rd_buf_text(&o, i == FIRST_BYTE ? "\n\"" : ",\n\"");
        spell(&o, s, n);
        rd_buf_format(&o, "\":%d", i);
    }
    rd_buf_text(&o, "},\n\"merges\":[");
    for (int i = 0; i < b->merges_n; i++) {
        rd_buf_text(&o, i ? ",\n[\"" : "\n[\"");
        for (int side = 0; side < 2; side++) {
            const char *s = rd_bpe_bytes(b, b->merges[i][side], &n);

            spell(&o, s, n);
            rd_buf_text(&o, side ? "\"]" : "\",\"");
        }
    }
    rd_buf_text(&o, "]}}\n");
    rd_status status = rd_file_write(path, o.data, o.len, err);

    free(path);
    rd_buf_reset(&o);
    if (!status) {
        path = rd_path_join(dir, "tokenizer_config.json");
        rd_buf_text(&o, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\","
                        "\"eos_token\":\"<|endoftext|>\",\"pad_token\":\"<|pad|>\","
                        "\"mask_token\":\"<|mask|>\",\"clean_up_tokenization_spaces\":false}\n");
        status = rd_file_write(path, o.data, o.len, err);
        free(path);
    }
    rd_buf_clear(&o);
    return status;
}

rd_status rd_bpe_read(rd_bpe *b, const char *dir, rd_error *err)
{
    char *path = rd_path_join(dir, "tokenizer.json");
    rd_record *r = NULL;
    rd_error wrong = { 0 };
    rd_status status = rd_record_read(path, &r, err);

    if (!status) {
        rd_value model = rd_value_get(rd_record_top(r), "model");
        rd_value vocab = rd_value_get(model, "vocab"), merges = rd_value_get(model, "merges");
        int n = rd_value_count(merges);
        int32_t(*pairs)[2] = rd_alloc_array((size_t)n + 1, sizeof *pairs);

        for (int i = 0; i < 2 * n; i++) {
            size_t len;
            const char *s = rd_value_text(rd_value_at(rd_value_at(merges, i / 2), i % 2), &len);

            pairs[i / 2][i % 2] = s ? (int32_t)rd_value_int(rd_value_get(vocab, s), -1) : -1;
        }
        if (n == 0 || n >= UINT16_MAX)
            status = rd_fail(err, RD_INVALID, "%s: %d merges", path, n);
        else if (rd_bpe_set(b, (const int32_t(*)[2])pairs, n, &wrong))
            status = rd_fail(err, wrong.status, "%s: %s", path, wrong.text);
        free(pairs);
    }
    rd_record_free(r);
    free(path);
    return status;
}
