/* tokenizer.c - byte-level BPE from tokenizer.json.
 *
 * Text is cut into pieces by the file's own patterns, each piece starts as its bytes, and the earliest
 * merge that applies is done until none does. Loading checks every id, entry and merge; encoding
 * keeps its scratch to itself, so that any thread may encode.
 */
#include "core/format/tokenizer.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/json.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FILE_BYTES    ((size_t)256 << 20)
#define FILE_VALUES   2000000
#define MATCH_LIMIT   100000
#define HEAP_LIMIT    (20 * 1024) /* KB */
#define PATIENCE_MS   2000.0      /* of all matches of a text, and more for each of its bytes: */
#define PATIENCE_BYTE 5e-3        /* ten times what known patterns take */
#define GPT2_PATTERN \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

enum {
    ID_MOST = 1 << 21,
    TOKEN_BYTES = 1 << 16,
    CONTENT_BYTES = 1024,
    PATTERN_BYTES = 4096,
    PATTERNS_MOST = 8,
    MATCHES_AT_ONCE = 64, /* between two looks at the clock */
    SHORT_PIECE = 48      /* symbols that are merged by looking at all of them */
};

typedef struct entry {
    const char *bytes;
    uint32_t n;
    bool known, added, special;
} entry;

typedef struct merge {
    int32_t a, b, made, rank;
} merge;

typedef struct added {
    const char *content;
    uint32_t n;
    int32_t id;
} added;

struct rd_tokenizer {
    char *name;
    rd_arena arena;
    entry *entries;
    int size;
    int32_t *words; /* hash of entries by bytes: id + 1; vocabulary only */
    size_t words_n;
    merge *merges; /* hash by pair; rank -1: free */
    size_t merges_n;
    added *added; /* longest first */
    int added_n;
    bool starts_added[256];
    int32_t byte_id[256];
    pcre2_code *patterns[PATTERNS_MOST]; /* each isolates what it matches */
    int patterns_n;
    pcre2_match_context *limits;
    bool prefix_space, whole_first;
};

/* ---- the byte alphabet ---- */

static uint32_t letter_of(int byte)
{
    uint32_t next = 256;

    for (int i = 0; i < 256; i++) {
        bool itself = (i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;

        if (i == byte) return itself ? (uint32_t)i : next;
        next += !itself;
    }
    return 0;
}

static void make_alphabet(int16_t byte_of[512])
{
    for (int i = 0; i < 512; i++) byte_of[i] = -1;
    for (int i = 0; i < 256; i++) byte_of[letter_of(i)] = (int16_t)i;
}

/* Length of the well-formed character at s, or 0. */
static size_t char_bytes(const unsigned char *s, size_t n)
{
    size_t more = s[0] < 0x80   ? 0
                  : s[0] < 0xc2 ? 9
                  : s[0] < 0xe0 ? 1
                  : s[0] < 0xf0 ? 2
                  : s[0] < 0xf5 ? 3
                                : 9;

    if (more >= n) return 0;
    if (more > 0 && (s[1] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    for (size_t i = 2; i <= more; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return more + 1;
}

/* The bytes that a vocabulary key spells; a key with letters outside the alphabet stands for its own
 * text. */
static void spell(const int16_t byte_of[512], const char *key, size_t n, rd_buf *out)
{
    const unsigned char *s = (const unsigned char *)key;

    rd_buf_reset(out);
    for (size_t i = 0; i < n;) {
        uint32_t c = s[i] < 0x80 ? s[i]
                     : s[i] >= 0xc2 && s[i] < 0xc8 && i + 1 < n
                         ? (uint32_t)(s[i] & 0x1f) << 6 | (s[i + 1] & 0x3f)
                         : 511;

        if (byte_of[c] < 0) {
            rd_buf_reset(out);
            rd_buf_append(out, key, n);
            return;
        }
        rd_buf_append(out, &(char){ (char)byte_of[c] }, 1);
        i += s[i] < 0x80 ? 1 : 2;
    }
}

/* ---- tables ---- */

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 32);
}

static int32_t find_word(const rd_tokenizer *t, const char *s, size_t n)
{
    for (uint64_t h = hash_bytes(s, n);; h++) {
        int32_t at = t->words[h & (t->words_n - 1)];

        if (!at) return -1;
        const entry *e = &t->entries[at - 1];

        if (e->n == n && !memcmp(e->bytes, s, n)) return at - 1;
    }
}

static bool put_word(rd_tokenizer *t, int32_t id)
{
    const entry *e = &t->entries[id];

    if (find_word(t, e->bytes, e->n) >= 0) return false;
    uint64_t h = hash_bytes(e->bytes, e->n);

    while (t->words[h & (t->words_n - 1)]) h++;
    t->words[h & (t->words_n - 1)] = id + 1;
    return true;
}

static uint64_t hash_pair(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9e3779b97f4a7c15u;

    return h ^ (h >> 29);
}

static const merge *find_merge(const rd_tokenizer *t, int32_t a, int32_t b)
{
    for (uint64_t h = hash_pair(a, b);; h++) {
        const merge *m = &t->merges[h & (t->merges_n - 1)];

        if (m->rank < 0) return NULL;
        if (m->a == a && m->b == b) return m->made < 0 ? NULL : m;
    }
}

static size_t table_size(size_t n)
{
    size_t size = 16;

    while (size < 2 * n + 2) size *= 2;
    return size;
}

/* ---- loading ---- */

static rd_status refuse(const rd_tokenizer *t, rd_error *err, const char *format, const char *what)
{
    char text[200];

    snprintf(text, sizeof text, format, what);
    return rd_fail(err, RD_INVALID, "%s: %s", t->name, text);
}

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));

    return type ? type : "?";
}

static void make_entries(rd_tokenizer *t, int size)
{
    if (size <= t->size) return;
    t->entries = rd_resize(t->entries, (size_t)size, sizeof *t->entries);
    memset(t->entries + t->size, 0, (size_t)(size - t->size) * sizeof *t->entries);
    t->size = size;
}

static rd_status load_vocab(rd_tokenizer *t, json_t *vocab, rd_error *err)
{
    int16_t byte_of[512];
    rd_buf bytes = { 0 };
    const char *key;
    json_t *value;
    int64_t most = -1;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return refuse(t, err, "model.vocab is missing or empty%s", "");
    make_alphabet(byte_of);
    json_object_foreach(vocab, key, value)
    {
        int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;

        if (id < 0 || id >= ID_MOST) return refuse(t, err, "the id of entry \"%.60s\"", key);
        if (id > most) most = id;
    }
    make_entries(t, (int)most + 1);
    t->words_n = table_size(json_object_size(vocab));
    t->words = rd_alloc_array(t->words_n, sizeof *t->words);
    json_object_foreach(vocab, key, value)
    {
        int32_t id = (int32_t)json_integer_value(value);
        entry *e = &t->entries[id];

        spell(byte_of, key, strlen(key), &bytes);
        if (e->known || bytes.len > TOKEN_BYTES || bytes.len == 0) {
            rd_buf_clear(&bytes);
            return refuse(t, err, "entry \"%.60s\": its id is taken, or it is empty or too long",
                          key);
        }
        *e = (entry){ .bytes = rd_arena_copy_text(&t->arena, bytes.data, bytes.len),
                      .n = (uint32_t)bytes.len,
                      .known = true };
        if (!put_word(t, id)) {
            rd_buf_clear(&bytes);
            return refuse(t, err, "entry \"%.60s\" spells the same bytes as another", key);
        }
    }
    rd_buf_clear(&bytes);
    for (int i = 0; i < 256; i++) {
        char c = (char)i;

        t->byte_id[i] = find_word(t, &c, 1);
        if (t->byte_id[i] < 0)
            return rd_fail(err, RD_INVALID, "%s: the vocabulary has no token for byte 0x%02x",
                           t->name, i);
    }
    return RD_OK;
}

/* The two sides of one merge, in either notation. */
static bool merge_sides(json_t *value, const char **a, size_t *a_n, const char **b, size_t *b_n)
{
    if (json_is_array(value) && json_array_size(value) == 2) {
        *a = json_string_value(json_array_get(value, 0));
        *b = json_string_value(json_array_get(value, 1));
        if (!*a || !*b) return false;
        *a_n = strlen(*a);
        *b_n = strlen(*b);
        return *a_n && *b_n;
    }
    const char *s = json_string_value(value), *space = s ? strchr(s, ' ') : NULL;

    if (!space || space == s || !space[1] || strchr(space + 1, ' ')) return false;
    *a = s;
    *a_n = (size_t)(space - s);
    *b = space + 1;
    *b_n = strlen(*b);
    return true;
}

static rd_status load_merges(rd_tokenizer *t, json_t *merges, rd_error *err)
{
    int16_t byte_of[512];
    rd_buf left = { 0 }, right = { 0 };
    size_t n = json_array_size(merges);
    rd_status status = RD_OK;

    if (!json_is_array(merges)) return refuse(t, err, "model.merges is missing%s", "");
    make_alphabet(byte_of);
    t->merges_n = table_size(n);
    t->merges = rd_alloc_array(t->merges_n, sizeof *t->merges);
    for (size_t i = 0; i < t->merges_n; i++) t->merges[i].rank = -1;
    for (size_t i = 0; i < n && !status; i++) {
        const char *a, *b;
        size_t a_n, b_n;

        if (!merge_sides(json_array_get(merges, i), &a, &a_n, &b, &b_n)) {
            status = rd_fail(err, RD_INVALID, "%s: merge %zu is not a pair", t->name, i);
            break;
        }
        spell(byte_of, a, a_n, &left);
        spell(byte_of, b, b_n, &right);
        merge m = { find_word(t, left.data, left.len), find_word(t, right.data, right.len), -1,
                    (int32_t)i };

        rd_buf_append(&left, right.data, right.len);
        m.made = find_word(t, left.data, left.len);
        if (m.a < 0 || m.b < 0 || m.made < 0) {
            status =
                rd_fail(err, RD_INVALID,
                        "%s: merge %zu names a token that is not in the vocabulary", t->name, i);
            break;
        }
        if (find_merge(t, m.a, m.b)) continue; /* the earlier one counts */
        uint64_t h = hash_pair(m.a, m.b);

        while (t->merges[h & (t->merges_n - 1)].rank >= 0) h++;
        t->merges[h & (t->merges_n - 1)] = m;
    }
    rd_buf_clear(&left);
    rd_buf_clear(&right);
    return status;
}

static rd_status load_model(rd_tokenizer *t, json_t *model, rd_error *err)
{
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    json_t *type = json_object_get(model, "type");

    if (!json_is_object(model)) return refuse(t, err, "model is missing%s", "");
    if (type && strcmp(type_of(model), "BPE") != 0)
        return refuse(t, err, "model type %.40s is not supported; BPE is", type_of(model));
    for (int i = 0; i < 2; i++) {
        const char *s = json_string_value(json_object_get(model, affixes[i]));

        if (s && *s) return refuse(t, err, "model.%s is not supported", affixes[i]);
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return refuse(t, err, "model.byte_fallback is not supported%s", "");
    t->whole_first = json_is_true(json_object_get(model, "ignore_merges"));
    if (load_vocab(t, json_object_get(model, "vocab"), err)) return RD_INVALID;
    return load_merges(t, json_object_get(model, "merges"), err);
}

static int longer_first(const void *x, const void *y)
{
    const added *a = x, *b = y;

    return a->n != b->n ? (a->n < b->n) - (a->n > b->n) : (a->id > b->id) - (a->id < b->id);
}

static rd_status load_added(rd_tokenizer *t, json_t *list, rd_error *err)
{
    static const char *const strips[] = { "lstrip", "rstrip", "single_word" };
    size_t n = json_array_size(list);

    t->added = rd_alloc_array(n + 1, sizeof *t->added);
    for (size_t i = 0; i < n; i++) {
        json_t *a = json_array_get(list, i), *id_value = json_object_get(a, "id");
        const char *content = json_string_value(json_object_get(a, "content"));
        int64_t id = json_is_integer(id_value) ? json_integer_value(id_value) : -1;
        size_t len = content ? json_string_length(json_object_get(a, "content")) : 0;

        if (len == 0 || len > CONTENT_BYTES || strlen(content) != len || id < 0 || id >= ID_MOST)
            return rd_fail(err, RD_INVALID, "%s: added token %zu has no content or no id", t->name,
                           i);
        for (int k = 0; k < 3; k++)
            if (json_is_true(json_object_get(a, strips[k])))
                return refuse(t, err, "an added token uses %s, which is not supported", strips[k]);
        make_entries(t, (int)id + 1);
        entry *e = &t->entries[id];

        if (e->added || (e->known && (e->n != len || memcmp(e->bytes, content, len) != 0)))
            return refuse(t, err, "the id of added token \"%.60s\" is taken", content);
        *e = (entry){ .bytes = rd_arena_copy_text(&t->arena, content, len),
                      .n = (uint32_t)len,
                      .known = true,
                      .added = true,
                      .special = json_is_true(json_object_get(a, "special")) };
        t->added[t->added_n++] = (added){ e->bytes, e->n, (int32_t)id };
        t->starts_added[(unsigned char)content[0]] = true;
    }
    qsort(t->added, (size_t)t->added_n, sizeof *t->added, longer_first);
    for (int i = 1; i < t->added_n; i++)
        if (t->added[i].n == t->added[i - 1].n &&
            !memcmp(t->added[i].content, t->added[i - 1].content, t->added[i].n))
            return refuse(t, err, "added token \"%.60s\" stands twice", t->added[i].content);
    return RD_OK;
}

/* What is added can stand in the vocabulary too. Text must not lead to it: such a merge is never done,
 * and a single byte cannot be an added token. */
static rd_status guard_added(rd_tokenizer *t, rd_error *err)
{
    for (int i = 0; i < 256; i++)
        if (t->entries[t->byte_id[i]].added)
            return rd_fail(err, RD_INVALID, "%s: the token of byte 0x%02x is an added one", t->name,
                           i);
    for (size_t i = 0; i < t->merges_n; i++)
        if (t->merges[i].rank >= 0 && t->entries[t->merges[i].made].added) t->merges[i].made = -1;
    return RD_OK;
}

static rd_status add_pattern(rd_tokenizer *t, const char *text, size_t n, uint32_t literal,
                             rd_error *err)
{
    int code;
    PCRE2_SIZE at;

    if (t->patterns_n == PATTERNS_MOST) return refuse(t, err, "too many patterns%s", "");
    if (n == 0 || n > PATTERN_BYTES) return refuse(t, err, "a pattern is empty or too long%s", "");
    if (!literal && (strstr(text, "(?<=") || strstr(text, "(?<!") || strstr(text, "\\C")))
        return refuse(t, err, "a pattern uses lookbehind or \\C%s", "");
    pcre2_code *c =
        pcre2_compile((PCRE2_SPTR)text, n,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | literal, &code, &at, NULL);

    if (!c)
        return rd_fail(err, RD_INVALID, "%s: the pre-tokenizer's pattern fails at byte %zu",
                       t->name, at);
    pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
    t->patterns[t->patterns_n++] = c;
    return RD_OK;
}

static rd_status load_split(rd_tokenizer *t, json_t *p, rd_error *err)
{
    json_t *source = json_object_get(p, "pattern");
    json_t *regex = json_object_get(source, "Regex"), *literal = json_object_get(source, "String");
    json_t *text = regex ? regex : literal;
    const char *how = json_string_value(json_object_get(p, "behavior"));

    if (!json_is_string(text)) return refuse(t, err, "a Split has no pattern%s", "");
    bool inverted = json_is_true(json_object_get(p, "invert"));

    /* What an inverted Split removes is what does not match: nothing, where the pattern covers all. */
    if (!how || strcmp(how, inverted ? "Removed" : "Isolated") != 0)
        return refuse(t, err, "Split behavior %.40s is not supported", how ? how : "?");
    return add_pattern(t, json_string_value(text), json_string_length(text),
                       regex ? 0 : PCRE2_LITERAL, err);
}

static rd_status load_pre(rd_tokenizer *t, json_t *p, bool *bytes, rd_error *err)
{
    const char *type = type_of(p);

    if (!strcmp(type, "Sequence")) {
        json_t *list = json_object_get(p, "pretokenizers");

        if (json_array_size(list) > PATTERNS_MOST)
            return refuse(t, err, "too many pre-tokenizers%s", "");
        for (size_t i = 0; i < json_array_size(list); i++) {
            json_t *one = json_array_get(list, i);

            if (!strcmp(type_of(one), "Sequence"))
                return refuse(t, err, "a Sequence inside a Sequence%s", "");
            if (load_pre(t, one, bytes, err)) return RD_INVALID;
        }
        return RD_OK;
    }
    if (!strcmp(type, "Split")) return load_split(t, p, err);
    if (!strcmp(type, "ByteLevel")) {
        json_t *regex = json_object_get(p, "use_regex");

        *bytes = true;
        t->prefix_space = json_is_true(json_object_get(p, "add_prefix_space"));
        if (regex && json_is_false(regex)) return RD_OK;
        return add_pattern(t, GPT2_PATTERN, strlen(GPT2_PATTERN), 0, err);
    }
    return refuse(t, err, "pre-tokenizer %.40s is not supported", type);
}

static rd_status load(rd_tokenizer *t, json_t *top, rd_error *err)
{
    json_t *normalizer = json_object_get(top, "normalizer");
    json_t *pre = json_object_get(top, "pre_tokenizer");
    bool bytes = false;

    if (json_is_object(normalizer) &&
        !(!strcmp(type_of(normalizer), "Sequence") &&
          json_array_size(json_object_get(normalizer, "normalizers")) == 0))
        return refuse(t, err, "normalizer %.40s is not supported", type_of(normalizer));
    if (!json_is_object(pre)) return refuse(t, err, "pre_tokenizer is missing%s", "");
    t->limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(t->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(t->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(t->limits, HEAP_LIMIT);
    if (load_pre(t, pre, &bytes, err)) return RD_INVALID;
    if (!bytes) return refuse(t, err, "the pre-tokenizer is not byte-level%s", "");
    if (load_model(t, json_object_get(top, "model"), err)) return RD_INVALID;
    if (load_added(t, json_object_get(top, "added_tokens"), err)) return RD_INVALID;
    return guard_added(t, err);
}

rd_status rd_tokenizer_parse(const char *json, size_t n, const char *name, rd_tokenizer **out,
                             rd_error *err)
{
    rd_tokenizer *t = rd_alloc0(sizeof *t);
    json_t *top = NULL;
    rd_status status;

    t->name = rd_copy_text(name, strlen(name));
    status = rd_json_parse(json, n, FILE_VALUES, name, &top, err);
    if (!status) status = load(t, top, err);
    json_decref(top);
    if (status) {
        rd_tokenizer_close(t);
        return status;
    }
    *out = t;
    return RD_OK;
}

rd_status rd_tokenizer_open(const char *dir, rd_tokenizer **out, rd_error *err)
{
    char *path = rd_path_join(dir, "tokenizer.json");
    rd_buf text = { 0 };
    rd_status status = rd_file_read(path, FILE_BYTES, &text, err);

    if (!status) status = rd_tokenizer_parse(text.data ? text.data : "", text.len, path, out, err);
    rd_buf_clear(&text);
    free(path);
    return status;
}

void rd_tokenizer_close(rd_tokenizer *t)
{
    if (!t) return;
    for (int i = 0; i < t->patterns_n; i++) pcre2_code_free(t->patterns[i]);
    pcre2_match_context_free(t->limits);
    rd_arena_clear(&t->arena);
    free(t->entries);
    free(t->words);
    free(t->merges);
    free(t->added);
    free(t->name);
    free(t);
}

int rd_tokenizer_size(const rd_tokenizer *t)
{
    return t->size;
}

int32_t rd_tokenizer_id(const rd_tokenizer *t, const char *content)
{
    size_t n = strlen(content);
    int16_t byte_of[512];
    rd_buf bytes = { 0 };

    for (int i = 0; i < t->added_n; i++)
        if (t->added[i].n == n && !memcmp(t->added[i].content, content, n)) return t->added[i].id;
    make_alphabet(byte_of);
    spell(byte_of, content, n, &bytes);
    int32_t id = n > 0 ? find_word(t, bytes.data, bytes.len) : -1;

    rd_buf_clear(&bytes);
    return id;
}

bool rd_tokenizer_is_added(const rd_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->entries[id].added;
}

const char *rd_tokenizer_bytes(const rd_tokenizer *t, int32_t id, size_t *n)
{
    *n = 0;
    if (id < 0 || id >= t->size || !t->entries[id].known) return NULL;
    *n = t->entries[id].n;
    return t->entries[id].bytes;
}

/* ---- encoding ---- */

typedef struct symbol {
    int32_t id, before, after; /* neighbours; -1: none */
} symbol;

typedef struct candidate {
    int32_t rank, at, a, b, made;
} candidate;

typedef struct encoding {
    const rd_tokenizer *t;
    rd_ids *out;
    pcre2_match_data *match;
    symbol *symbols; /* for long pieces */
    size_t symbols_cap;
    candidate *heap;
    size_t heap_n, heap_cap;
    double until_ms; /* of this thread's time, at which a pattern has taken too long */
    int matches;
} encoding;

static void merge_short(const rd_tokenizer *t, const char *s, size_t n, rd_ids *out)
{
    int32_t id[SHORT_PIECE];
    int m = (int)n;

    for (int i = 0; i < m; i++) id[i] = t->byte_id[(unsigned char)s[i]];
    for (;;) {
        const merge *best = NULL;
        int at = 0;

        for (int i = 0; i + 1 < m; i++) {
            const merge *x = find_merge(t, id[i], id[i + 1]);

            if (x && (!best || x->rank < best->rank)) {
                best = x;
                at = i;
            }
        }
        if (!best) break;
        id[at] = best->made;
        m--;
        memmove(id + at + 1, id + at + 2, (size_t)(m - at - 1) * sizeof *id);
    }
    rd_ids_append(out, id, m);
}

static bool sooner(const candidate *x, const candidate *y)
{
    return x->rank != y->rank ? x->rank < y->rank : x->at < y->at;
}

static void push(encoding *e, int32_t at)
{
    const symbol *s = &e->symbols[at];
    const merge *m = s->after < 0 ? NULL : find_merge(e->t, s->id, e->symbols[s->after].id);

    if (!m) return;
    candidate c = { m->rank, at, m->a, m->b, m->made };

    if (e->heap_n == e->heap_cap) {
        e->heap_cap = e->heap_cap ? 2 * e->heap_cap : 256;
        e->heap = rd_resize(e->heap, e->heap_cap, sizeof *e->heap);
    }
    size_t i = e->heap_n++;

    for (; i > 0 && sooner(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
}

static candidate pop(encoding *e)
{
    candidate top = e->heap[0], c = e->heap[--e->heap_n];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < e->heap_n; i = child) {
        if (child + 1 < e->heap_n && sooner(&e->heap[child + 1], &e->heap[child])) child++;
        if (!sooner(&e->heap[child], &c)) break;
        e->heap[i] = e->heap[child];
    }
    if (e->heap_n > 0) e->heap[i] = c;
    return top;
}

static void merge_long(encoding *e, const char *s, size_t n)
{
    if (n > e->symbols_cap) {
        e->symbols_cap = n;
        e->symbols = rd_resize(e->symbols, n, sizeof *e->symbols);
    }
    for (size_t i = 0; i < n; i++)
        e->symbols[i] = (symbol){ e->t->byte_id[(unsigned char)s[i]], (int32_t)i - 1,
                                  i + 1 < n ? (int32_t)i + 1 : -1 };
    e->heap_n = 0;
    for (size_t i = 0; i + 1 < n; i++) push(e, (int32_t)i);
    while (e->heap_n > 0) {
        candidate c = pop(e);
        symbol *left = &e->symbols[c.at];

        if (left->id != c.a || left->after < 0 || e->symbols[left->after].id != c.b) continue;
        symbol *right = &e->symbols[left->after];

        left->id = c.made;
        right->id = -1;
        left->after = right->after;
        if (left->after >= 0) e->symbols[left->after].before = c.at;
        push(e, c.at);
        if (left->before >= 0) push(e, left->before);
    }
    for (int32_t i = 0; i >= 0; i = e->symbols[i].after) rd_ids_push(e->out, e->symbols[i].id);
}

static void encode_piece(encoding *e, const char *s, size_t n)
{
    if (n == 0) return;
    if (e->t->whole_first) {
        int32_t id = find_word(e->t, s, n);

        if (id >= 0 && !e->t->entries[id].added) {
            rd_ids_push(e->out, id);
            return;
        }
    }
    if (n <= SHORT_PIECE)
        merge_short(e->t, s, n, e->out);
    else
        merge_long(e, s, n);
}

static double thread_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The limit of one match does not bound their sum: a pattern can look at the rest of the text from each of
 * its bytes. */
static bool out_of_patience(encoding *e)
{
    return ++e->matches % MATCHES_AT_ONCE == 0 && thread_ms() > e->until_ms;
}

/* Cut well-formed text by the patterns from `level` on. */
static rd_status cut(encoding *e, int level, const char *s, size_t n, rd_error *err)
{
    if (level == e->t->patterns_n) {
        encode_piece(e, s, n);
        return RD_OK;
    }
    const pcre2_code *p = e->t->patterns[level];

    for (size_t done = 0, from = 0; done < n;) {
        int found = pcre2_match(p, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                e->match, e->t->limits);
        size_t start = n, end = n;

        if ((found < 0 && found != PCRE2_ERROR_NOMATCH) || out_of_patience(e))
            return rd_fail(err, RD_INVALID,
                           "%s: the pattern hits a limit of matching at byte %zu of the text",
                           e->t->name, from);
        if (found >= 0) {
            start = pcre2_get_ovector_pointer(e->match)[0];
            end = pcre2_get_ovector_pointer(e->match)[1];
            if (start < done || end <= start) /* \K and the like */
                return rd_fail(err, RD_INVALID, "%s: the pattern matches backwards", e->t->name);
        }
        if (cut(e, level + 1, s + done, start - done, err)) return RD_INVALID;
        if (end > start && cut(e, level + 1, s + start, end - start, err)) return RD_INVALID;
        done = from = end;
    }
    return RD_OK;
}

/* Well-formed stretches are cut by the patterns; other bytes stand alone. */
static rd_status encode_plain(encoding *e, const char *text, size_t n, rd_error *err)
{
    const unsigned char *s = (const unsigned char *)text;

    for (size_t at = 0; at < n;) {
        size_t end = at, len;

        while (end < n && (len = char_bytes(s + end, n - end)) > 0) end += len;
        if (end > at && cut(e, 0, text + at, end - at, err)) return RD_INVALID;
        for (at = end; at < n && !char_bytes(s + at, n - at); at++)
            rd_ids_push(e->out, e->t->byte_id[s[at]]);
    }
    return RD_OK;
}

static const added *added_at(const rd_tokenizer *t, const char *s, size_t n)
{
    if (!t->starts_added[(unsigned char)s[0]]) return NULL;
    for (int i = 0; i < t->added_n; i++)
        if (t->added[i].n <= n && !memcmp(t->added[i].content, s, t->added[i].n))
            return &t->added[i];
    return NULL;
}

rd_status rd_tokenizer_encode(const rd_tokenizer *t, const char *text, size_t n, rd_text_kind kind,
                              rd_ids *out, rd_error *err)
{
    encoding e = { .t = t,
                   .out = out,
                   .match = pcre2_match_data_create(1, NULL),
                   .until_ms = thread_ms() + PATIENCE_MS + PATIENCE_BYTE * (double)n };
    rd_status status = RD_OK;
    int before = out->n;

    if (n > INT32_MAX) status = rd_fail(err, RD_INVALID, "a text of %zu bytes is too long", n);
    for (size_t at = 0, from = 0; !status && from < n;) {
        const added *a = NULL;

        for (at = from; kind == RD_TEXT_ADDED && at < n && !(a = added_at(t, text + at, n - at));)
            at++;
        if (!a) at = n;
        if (t->prefix_space && at > from && text[from] != ' ')
            status = encode_plain(&e, " ", 1, err);
        if (!status) status = encode_plain(&e, text + from, at - from, err);
        if (a) rd_ids_push(out, a->id);
        from = at + (a ? a->n : 0);
    }
    if (status) out->n = before;
    pcre2_match_data_free(e.match);
    free(e.symbols);
    free(e.heap);
    return status;
}

void rd_tokenizer_decode(const rd_tokenizer *t, const int32_t *ids, int n, bool skip_special,
                         rd_buf *out)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->size || !t->entries[ids[i]].known) continue;
        const entry *e = &t->entries[ids[i]];

        if (!(skip_special && e->special)) rd_buf_append(out, e->bytes, e->n);
    }
}

void rd_utf8_repair(const char *bytes, size_t n, rd_buf *out)
{
    const unsigned char *s = (const unsigned char *)bytes;
    size_t from = 0;

    for (size_t i = 0; i < n;) {
        size_t len = char_bytes(s + i, n - i);

        if (len > 0) {
            i += len;
            continue;
        }
        rd_buf_append(out, bytes + from, i - from);
        rd_buf_text(out, "\xef\xbf\xbd");
        /* The longest start of a character that could have been. */
        unsigned char c = s[i++];
        int more = c >= 0xc2 && c < 0xe0   ? 1
                   : c >= 0xe0 && c < 0xf0 ? 2
                   : c >= 0xf0 && c < 0xf5 ? 3
                                           : 0;

        for (int k = 0; k < more && i < n && (s[i] & 0xc0) == 0x80; k++, i++) {
            if (k > 0) continue;
            if ((c == 0xe0 && s[i] < 0xa0) || (c == 0xed && s[i] > 0x9f) ||
                (c == 0xf0 && s[i] < 0x90) || (c == 0xf4 && s[i] > 0x8f))
                break;
        }
        from = i;
    }
    rd_buf_append(out, bytes + from, n - from);
}
