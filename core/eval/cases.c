/* cases.c - cutting, reading and writing. */
#include "core/eval/cases.h"

#include "core/base/memory.h"
#include "core/decode/prompt.h"
#include "core/format/file.h"
#include "core/format/record.h"
#include "core/train/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HOLE_MOST = 800, /* bytes */
    SIGNS_LEAST = 3, /* that are not white space */
    DRAWS = 16,      /* in one file, before it gives up its turn */
    LINES_MOST = 5,
    SET_MOST = 1 << 30
};

static const char *const kind_names[RD_CASE_KINDS] = { "line", "end", "middle", "multi", "set" };

const char *rd_case_kind_name(rd_case_kind kind)
{
    return kind_names[kind];
}

unsigned rd_case_kinds_of(const char *list)
{
    unsigned mask = 0;

    while (*list) {
        size_t n = strcspn(list, ",");
        int kind = 0;

        while (kind < RD_CASE_GIVEN &&
               (strlen(kind_names[kind]) != n || strncmp(kind_names[kind], list, n) != 0))
            kind++;
        if (kind == RD_CASE_GIVEN) return 0;
        mask |= 1u << kind;
        list += n + (list[n] == ',');
    }
    return mask;
}

/* ---- files ---- */

static bool is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c >= 0x80;
}

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

static int add_file(rd_cases *c, rd_case_file f)
{
    if (c->files == c->files_cap) {
        c->files_cap = c->files_cap ? 2 * c->files_cap : 64;
        c->file = rd_resize(c->file, (size_t)c->files_cap, sizeof *c->file);
    }
    c->file[c->files] = f;
    return c->files++;
}

static void add_case(rd_cases *c, rd_case one)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 256;
        c->at = rd_resize(c->at, (size_t)c->cap, sizeof *c->at);
    }
    c->at[c->n++] = one;
}

static bool starts_with(const char *text, size_t n, const char *what)
{
    return n >= strlen(what) && !memcmp(text, what, strlen(what));
}

/* The end of the comment at `at`, or `at` where there is none. */
static size_t comment_end(const char *text, size_t n, size_t at)
{
    const char *stop = NULL;

    if (starts_with(text + at, n - at, "/*")) {
        stop = memmem(text + at, n - at, "*/", 2);
        return stop ? (size_t)(stop - text) + 2 : n;
    }
    if (!starts_with(text + at, n - at, "//") && !starts_with(text + at, n - at, "# ") &&
        !starts_with(text + at, n - at, "#!") && !starts_with(text + at, n - at, "#\n"))
        return at;
    stop = memchr(text + at, '\n', n - at);
    return stop ? (size_t)(stop - text) + 1 : n;
}

/* The comments at a file's head, where they speak of copyright or a licence: nobody writes those. */
static size_t licence_bytes(const char *text, size_t n)
{
    size_t at = 0, end = 0;

    for (;;) {
        while (at < n && is_white(text[at])) at++;
        size_t next = comment_end(text, n, at);

        if (next == at) break;
        at = end = next;
    }
    return memmem(text, end, "opyright", 8) || memmem(text, end, "icense", 6) ? end : 0;
}

typedef struct walking {
    rd_cases *cases;
    size_t skip; /* of each path */
} walking;

static void take_source(void *user, const rd_source *s)
{
    static const char *const names[] = { "", "python", "c" };
    walking *w = user;
    const char *name = s->path + w->skip, *language = names[s->language];

    while (*name == '/') name++;
    add_file(w->cases, (rd_case_file){ .name = rd_copy_text(name, strlen(name)),
                                       .language = rd_copy_text(language, strlen(language)),
                                       .text = rd_copy_text(s->text, s->bytes),
                                       .bytes = s->bytes,
                                       .licence = licence_bytes(s->text, s->bytes) });
}

rd_status rd_cases_files(rd_cases *c, const char *dir, rd_error *err)
{
    char *held = rd_path_join(dir, "held");
    const char *from = rd_is_folder(held) ? held : dir;
    walking w = { c, strlen(from) };
    rd_status status = rd_corpus_walk(from, take_source, &w, err);

    if (!status && c->files == 0)
        status = rd_fail(err, RD_INVALID, "%s: no source files to cut cases from", from);
    free(held);
    return status;
}

void rd_cases_clear(rd_cases *c)
{
    for (int i = 0; i < c->files; i++) {
        free(c->file[i].name);
        free(c->file[i].language);
        free(c->file[i].text);
    }
    for (int i = 0; i < c->n; i++) free(c->at[i].id);
    free(c->file);
    free(c->at);
    *c = (rd_cases){ 0 };
}

const char *rd_case_text(const rd_cases *c, int i, size_t *n)
{
    *n = c->at[i].end - c->at[i].start;
    return c->file[c->at[i].file].text + c->at[i].start;
}

/* ---- cutting ---- */

bool rd_case_is_worth(const char *text, size_t n)
{
    int signs = 0;
    bool word = false;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        signs += !is_white(text[i]) && (c & 0xc0) != 0x80;
        word = word || is_word(c);
    }
    return signs >= SIGNS_LEAST && word && n <= HOLE_MOST;
}

typedef struct line {
    size_t start, text, end; /* of the line; behind its indent; before "\n" or "\r\n" */
} line;

static line line_at(const rd_case_file *f, size_t at)
{
    line l = { .start = at };
    const char *stop;

    while (l.start > 0 && f->text[l.start - 1] != '\n') l.start--;
    stop = memchr(f->text + l.start, '\n', f->bytes - l.start);
    l.end = stop ? (size_t)(stop - f->text) : f->bytes;
    if (l.end > l.start && f->text[l.end - 1] == '\r') l.end--;
    l.text = l.start;
    while (l.text < l.end && is_white(f->text[l.text])) l.text++;
    return l;
}

static bool next_line(const rd_case_file *f, const line *l, line *out)
{
    size_t at = l->end;

    while (at < f->bytes && f->text[at] != '\n') at++;
    if (at + 1 >= f->bytes) return false;
    *out = line_at(f, at + 1);
    return true;
}

/* A line by its number, so that long lines are not drawn more often than short ones. */
static line draw_line(const rd_case_file *f, rd_random *random)
{
    uint32_t lines = 1, want;
    size_t at = f->licence;

    for (size_t i = at; i + 1 < f->bytes; i++) lines += f->text[i] == '\n';
    for (want = rd_random_below(random, lines); want > 0; at++) want -= f->text[at] == '\n';
    return line_at(f, at);
}

static size_t whole_character(const rd_case_file *f, size_t at)
{
    while (at < f->bytes && ((unsigned char)f->text[at] & 0xc0) == 0x80) at++;
    return at;
}

/* Uniform in [from, to). */
static size_t between(const rd_case_file *f, size_t from, size_t to, rd_random *random)
{
    return whole_character(f, from + rd_random_below(random, (uint32_t)(to - from)));
}

static bool draw_hole(const rd_case_file *f, rd_case_kind kind, rd_random *random, rd_case *out)
{
    line l = draw_line(f, random), more = l;
    int lines = kind == RD_CASE_MULTI ? 2 + (int)rd_random_below(random, LINES_MOST - 1) : 1;

    out->start = l.text;
    out->end = l.end;
    if (l.end < l.text + 4 || l.end - l.text > HOLE_MOST) return false;
    if (kind == RD_CASE_END || kind == RD_CASE_MIDDLE)
        out->start = between(f, l.text + 1, l.end - 1, random);
    if (kind == RD_CASE_MIDDLE && out->start + 2 < l.end)
        out->end = between(f, out->start + 1, l.end - 1, random);
    for (; lines > 1; lines--)
        if (!next_line(f, &more, &more)) return false;
    if (kind == RD_CASE_MULTI) out->end = more.end;
    if (out->end <= out->start || more.text == more.end) return false;
    if (kind == RD_CASE_MIDDLE &&
        (out->end >= l.end || is_white(f->text[out->end - 1]) || is_white(f->text[l.end - 1])))
        return false;
    return rd_case_is_worth(f->text + out->start, out->end - out->start);
}

static bool is_taken(const rd_cases *c, int from, const rd_case *one)
{
    for (int i = from; i < c->n; i++)
        if (c->at[i].file == one->file && c->at[i].start < one->end && one->start < c->at[i].end)
            return true;
    return false;
}

static void name_case(const rd_cases *c, rd_case *one)
{
    const rd_case_file *f = &c->file[one->file];
    rd_buf id = { 0 };
    int row = 1, column = 1;

    for (size_t i = 0; i < one->start; i++) {
        row += f->text[i] == '\n';
        column = f->text[i] == '\n' ? 1 : column + (((unsigned char)f->text[i] & 0xc0) != 0x80);
    }
    rd_buf_format(&id, "%s/%s:%d:%d", kind_names[one->kind], f->name, row, column);
    one->id = id.data;
}

int *rd_cases_order(const rd_cases *c, rd_random *random)
{
    int *order = rd_alloc_array((size_t)c->files + 1, sizeof *order);

    for (int i = 0; i < c->files; i++) {
        int j = (int)rd_random_below(random, (uint32_t)i + 1);

        order[i] = order[j];
        order[j] = i;
    }
    return order;
}

static void cut_kind(rd_cases *c, rd_case_kind kind, int n, uint64_t seed)
{
    rd_random random = rd_random_seed(seed * RD_CASE_KINDS + kind);
    int *order = rd_cases_order(c, &random), first = c->n, before;

    do {
        before = c->n;
        for (int i = 0; i < c->files && c->n - first < n; i++) {
            rd_case one = { .kind = kind, .file = order[i] };

            for (int draw = 0; draw < DRAWS; draw++) {
                if (!draw_hole(&c->file[one.file], kind, &random, &one)) continue;
                if (is_taken(c, first, &one)) continue;
                name_case(c, &one);
                add_case(c, one);
                break;
            }
        }
    } while (c->n - first < n && c->n > before);
    free(order);
}

void rd_cases_cut(rd_cases *c, unsigned kinds, int n, uint64_t seed)
{
    for (int kind = 0; kind < RD_CASE_GIVEN; kind++)
        if (kinds >> kind & 1) cut_kind(c, (rd_case_kind)kind, n, seed);
}

bool rd_cases_window(const rd_case_file *f, int most, rd_random *random, size_t *start, size_t *end)
{
    for (int draw = 0; draw < DRAWS; draw++) {
        line first = draw_line(f, random), last = first;
        bool whole = true;

        for (int more = (int)rd_random_below(random, (uint32_t)most); more > 0 && whole; more--)
            whole = next_line(f, &last, &last);
        if (!whole || !rd_case_is_worth(f->text + first.start, last.end - first.start) ||
            !rd_case_is_worth(f->text + first.text, first.end - first.text) ||
            !rd_case_is_worth(f->text + last.text, last.end - last.text))
            continue;
        *start = first.start;
        *end = last.end;
        return true;
    }
    return false;
}

/* ---- sets ---- */

static rd_case_kind kind_of(rd_value name)
{
    size_t n;
    const char *text = rd_value_text(name, &n);
    int kind = 0;

    while (kind < RD_CASE_GIVEN && (!text || strcmp(text, kind_names[kind]) != 0)) kind++;
    return (rd_case_kind)kind;
}

/* The file of that name and text, found or added; takes `text`. */
static int file_of(rd_cases *c, const char *name, const char *language, rd_buf *text)
{
    for (int i = c->files - 1; i >= 0; i--)
        if (c->file[i].bytes == text->len && !strcmp(c->file[i].name, name) &&
            !memcmp(c->file[i].text, text->data, text->len)) {
            rd_buf_clear(text);
            return i;
        }
    return add_file(c, (rd_case_file){ .name = rd_copy_text(name, strlen(name)),
                                       .language = rd_copy_text(language, strlen(language)),
                                       .text = text->data,
                                       .bytes = text->len });
}

static int count_of(rd_value v)
{
    int64_t n = rd_value_int(v, 0);

    return n > 0 && n <= 65536 ? (int)n : 0;
}

static rd_status read_case(rd_cases *c, rd_value v, const char *name, rd_error *err)
{
    static const char *const parts[] = { "prefix", "reference", "suffix" };
    size_t n, ends[3] = { 0 };
    const char *id = rd_value_text(rd_value_get(v, "task_id"), &n);
    const char *language = rd_value_text(rd_value_get(v, "language"), &n);
    const char *file = rd_value_text(rd_value_get(v, "file"), &n);
    rd_buf text = { 0 };

    rd_buf_text(&text, "");
    for (int i = 0; i < 3; i++) {
        const char *part = rd_value_text(rd_value_get(v, parts[i]), &n);

        if (!part) {
            rd_buf_clear(&text);
            return rd_fail(err, RD_INVALID, "%s: %s is missing or not a string", name, parts[i]);
        }
        rd_buf_append(&text, part, n);
        ends[i] = text.len;
    }
    if (!id) id = name;
    add_case(c, (rd_case){ .kind = kind_of(rd_value_get(v, "set")),
                           .file = file_of(c, file ? file : id, language ? language : "", &text),
                           .start = ends[0],
                           .end = ends[1],
                           .max_tokens = count_of(rd_value_get(v, "max_tokens")),
                           .hole_tokens = count_of(rd_value_get(v, "hole_tokens")),
                           .id = rd_copy_text(id, strlen(id)) });
    return RD_OK;
}

rd_status rd_cases_read(rd_cases *c, const char *path, rd_error *err)
{
    rd_buf all = { 0 };
    rd_status status = rd_file_read(path, SET_MOST, &all, err);
    int number = 1;

    for (size_t at = 0; !status && at < all.len; number++) {
        const char *stop = memchr(all.data + at, '\n', all.len - at);
        size_t end = stop ? (size_t)(stop - all.data) : all.len;
        rd_record *record = NULL;
        char name[320];

        snprintf(name, sizeof name, "%.255s:%d", path, number);
        if (strspn(all.data + at, " \t\r") < end - at) {
            status = rd_record_parse(all.data + at, end - at, name, &record, err);
            if (!status) status = read_case(c, rd_record_top(record), name, err);
            rd_record_free(record);
        }
        at = end + 1;
    }
    if (!status && c->n == 0) status = rd_fail(err, RD_INVALID, "%s: no cases", path);
    rd_buf_clear(&all);
    return status;
}

static void write_text(rd_buf *out, const char *key, const char *text, size_t n)
{
    rd_buf_format(out, ",\"%s\":", key);
    rd_json_quote(out, text, n);
}

rd_status rd_cases_write(const rd_cases *c, const char *path, rd_error *err)
{
    rd_buf out = { 0 };

    for (int i = 0; i < c->n; i++) {
        const rd_case *one = &c->at[i];
        const rd_case_file *f = &c->file[one->file];

        rd_buf_text(&out, "{\"task_id\":");
        rd_json_quote(&out, one->id, strlen(one->id));
        write_text(&out, "set", kind_names[one->kind], strlen(kind_names[one->kind]));
        write_text(&out, "file", f->name, strlen(f->name));
        write_text(&out, "language", f->language, strlen(f->language));
        write_text(&out, "prefix", f->text, one->start);
        write_text(&out, "suffix", f->text + one->end, f->bytes - one->end);
        write_text(&out, "reference", f->text + one->start, one->end - one->start);
        if (one->max_tokens) rd_buf_format(&out, ",\"max_tokens\":%d", one->max_tokens);
        if (one->hole_tokens) rd_buf_format(&out, ",\"hole_tokens\":%d", one->hole_tokens);
        rd_buf_text(&out, "}\n");
    }
    rd_status status = rd_file_write(path, out.data ? out.data : "", out.len, err);

    rd_buf_clear(&out);
    return status;
}
