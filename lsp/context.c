/* context.c - what a job is told about the text around a place, and about other open documents.
 *
 * It runs on the loop thread with every keystroke, so it copies a bounded number of bytes and asks the scope, which remembers,
 * about a bounded number of documents.
 */
#include "lsp/context.h"

#include "core/base/memory.h"
#include "lsp/limits.h"
#include "lsp/rewrite.h"

#include <string.h>

enum {
    SIDE_BYTES =
        64 << 10, /* core looks at no more on each side, and 48 KiB of a prefix become tokens */
    PREFIX_JUMP = 16 << 10, /* the step of core/decode/prompt.c */
    NEIGHBOURS = 4,
    NEIGHBOUR_BYTES = 32 << 10,
    NEIGHBOURS_BYTES = 96 << 10, /* of all together */
    ASKED = 16,                  /* documents that are looked at for them */
    HEAD_BYTES = 4 << 10         /* by which a document is judged */
};

/* The first byte of the character that `at` stands in. */
static size_t character_at(const rd_text *t, size_t at)
{
    rd_position p = rd_text_position(t, at, RD_UTF8);

    return rd_text_line_start(t, p.line) + p.character;
}

/* The last line start in (from, at], else a character's. */
static size_t line_before(const rd_text *t, size_t from, size_t at)
{
    size_t start = rd_text_line_start(t, rd_text_position(t, at, RD_UTF8).line);

    return start > from ? start : character_at(t, at);
}

/* The first line start in [at, to), else a character's. */
static size_t line_behind(const rd_text *t, size_t at, size_t to)
{
    size_t line = rd_text_position(t, at, RD_UTF8).line;

    if (rd_text_line_start(t, line) == at) return at;
    size_t next = rd_text_line_start(t, line + 1);

    return next < to ? next : character_at(t, at);
}

/* A long prefix begins at a multiple of the jump, counted from the text's beginning. Core drops a multiple of the same jump from
 * it and goes on to the next line, so its tokens begin where they would with the whole text, and that place moves
 * once in 16 KiB of typing. A line start here would shift core's count and move it twice. */
static size_t prefix_start(const rd_text *t, size_t end)
{
    if (end <= SIDE_BYTES) return 0;
    return character_at(t, (end - SIDE_BYTES + PREFIX_JUMP - 1) / PREFIX_JUMP * PREFIX_JUMP);
}

static size_t suffix_end(const rd_text *t, size_t start)
{
    size_t n = rd_text_bytes(t);

    return n - start <= SIDE_BYTES ? n : line_before(t, start, start + SIDE_BYTES);
}

/* ---- other documents ---- */

static bool comes_before(const rd_document *a, const rd_document *b, const char *language)
{
    bool a_same = !strcmp(rd_document_language(a), language);
    bool b_same = !strcmp(rd_document_language(b), language);

    if (a_same != b_same) return a_same;
    return rd_document_touched(a) > rd_document_touched(b);
}

/* The documents that say most about `doc`, the most telling first: its language, then what was edited last. */
static int find_candidates(rd_documents *all, const rd_document *doc, const rd_document **out)
{
    const char *language = rd_document_language(doc);
    int n = 0;

    for (size_t i = 0; i < rd_documents_count(all); i++) {
        const rd_document *one = rd_documents_at(all, i);
        int at = n;

        if (one == doc || !rd_document_is_known(one)) continue;
        while (at > 0 && comes_before(one, out[at - 1], language)) at--;
        if (at == ASKED) continue;
        if (n < ASKED) n++;
        memmove(&out[at + 1], &out[at], (size_t)(n - 1 - at) * sizeof *out);
        out[at] = one;
    }
    return n;
}

static bool may_be_read(const rd_document *doc, rd_scope *scope)
{
    const rd_text *t = rd_document_text(doc);
    size_t n = rd_text_bytes(t);
    rd_buf head = { 0 };

    rd_text_copy(t, 0, n < HEAD_BYTES ? n : HEAD_BYTES, &head);
    rd_verdict verdict =
        rd_scope_excluded(scope, rd_document_uri(doc), n, head.data, head.len, NULL);

    rd_buf_clear(&head);
    return verdict == RD_ALLOWED;
}

/* The file's name without its folders, which say who works where. */
static char *name_of(const char *uri)
{
    char path[RD_MOST_PATH_BYTES + 1];
    const char *whole = rd_path_of_uri(uri, path, sizeof path) ? path : uri;
    const char *slash = strrchr(whole, '/'), *name = slash ? slash + 1 : whole;

    return rd_copy_text(name, strlen(name));
}

/* At most `most` bytes around the last edit, whole lines. */
static void copy_around(const rd_document *doc, size_t most, rd_buf *out)
{
    const rd_text *t = rd_document_text(doc);
    size_t n = rd_text_bytes(t), at = rd_document_last_edit(doc), start = 0, end = n;

    if (n > most) {
        start = at > most / 2 ? at - most / 2 : 0;
        if (start > n - most) start = n - most;
        if (start + most < n) end = line_before(t, start, start + most);
        start = line_behind(t, start, end);
    }
    rd_text_copy(t, start, end, out);
}

static void add_neighbours(rd_job *job, const rd_document *doc, rd_documents *all, rd_scope *scope)
{
    const rd_document *found[ASKED];
    int n = find_candidates(all, doc, found);
    size_t left = NEIGHBOURS_BYTES;

    for (int i = 0; i < n && job->n_neighbours < NEIGHBOURS && left > 0; i++) {
        if (rd_text_bytes(rd_document_text(found[i])) == 0 || !may_be_read(found[i], scope))
            continue;
        rd_buf *text = &job->neighbours[job->n_neighbours].text;

        copy_around(found[i], left < NEIGHBOUR_BYTES ? left : NEIGHBOUR_BYTES, text);
        left -= text->len;
        job->neighbours[job->n_neighbours++].name = name_of(rd_document_uri(found[i]));
    }
}

/* Where the client does not say or does not know, core goes by the file's name. */
static char *language_of(const rd_document *doc)
{
    const char *language = rd_document_language(doc);

    if (*language && strcmp(language, "plaintext") != 0)
        return rd_copy_text(language, strlen(language));
    return name_of(rd_document_uri(doc));
}

void rd_context_fill(rd_job *job, const rd_document *doc, size_t start, size_t end,
                     rd_documents *all, rd_scope *scope)
{
    const rd_text *t = rd_document_text(doc);

    const char *source = rd_scope_source(scope, rd_document_uri(doc));

    job->language = language_of(doc);
    job->source = rd_copy_text(source, strlen(source));
    job->unstored =
        rd_scope_settings(scope, rd_document_uri(doc), rd_document_language(doc)).uncached;
    rd_text_copy(t, prefix_start(t, start), start, &job->prefix);
    rd_text_copy(t, start, end, &job->draft);
    rd_text_copy(t, end, suffix_end(t, end), &job->suffix);
    add_neighbours(job, doc, all, scope);
    /* A model has learnt from texts with `\n` alone. */
    rd_rewrite_plain(&job->prefix);
    rd_rewrite_plain(&job->suffix);
    for (int i = 0; i < job->n_neighbours; i++) rd_rewrite_plain(&job->neighbours[i].text);
}
