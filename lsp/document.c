/* document.c - the open documents, and the last edits of each as a ring. */
#include "lsp/document.h"

#include "core/base/memory.h"
#include "lsp/limits.h"

#include <stdlib.h>
#include <string.h>

typedef struct edit {
    uint32_t start, end, n; /* [start, end) became n bytes */
} edit;

struct rd_document {
    rd_documents *home;
    char *uri, *language;
    rd_text *text; /* NULL: unknown */
    int64_t version;
    uint64_t revision;
    uint64_t touched; /* by the clock of its home */
    uint64_t since;   /* the revision that the first remembered edit was made on */
    edit *edits;      /* a ring of `room`: the edit that was made on revision r is at r % room */
    size_t room;
};

struct rd_documents {
    rd_document **all;
    size_t count, cap;
    size_t bytes;   /* of all texts */
    uint64_t clock; /* counts openings and edits */
};

enum { TRIM_MOST = 4096 };

static bool is_inside(char c) /* a character, not at its beginning */
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

rd_documents *rd_documents_new(void)
{
    return rd_alloc0(sizeof(rd_documents));
}

/* Without its text. */
static void forget(rd_document *doc)
{
    if (doc->text) doc->home->bytes -= rd_text_bytes(doc->text);
    rd_text_free(doc->text);
    free(doc->edits);
    doc->text = NULL;
    doc->edits = NULL;
    doc->room = 0;
    doc->since = ++doc->revision;
}

static void free_document(rd_document *doc)
{
    forget(doc);
    free(doc->uri);
    free(doc->language);
    free(doc);
}

void rd_documents_free(rd_documents *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->count; i++) free_document(d->all[i]);
    free(d->all);
    free(d);
}

void rd_documents_forget(rd_documents *d)
{
    for (size_t i = 0; i < d->count; i++) forget(d->all[i]);
}

size_t rd_documents_count(const rd_documents *d)
{
    return d->count;
}

rd_document *rd_documents_at(rd_documents *d, size_t i)
{
    return d->all[i];
}

static size_t find(const rd_documents *d, const char *uri)
{
    size_t i = 0;

    while (i < d->count && strcmp(d->all[i]->uri, uri) != 0) i++;
    return i;
}

rd_document *rd_documents_find(rd_documents *d, const char *uri)
{
    size_t i = find(d, uri);

    return i < d->count ? d->all[i] : NULL;
}

static rd_document *add(rd_documents *d, const char *uri, rd_error *err)
{
    if (strlen(uri) > RD_MOST_URI_BYTES) {
        rd_fail(err, RD_INVALID, "a uri of more than %zu bytes", RD_MOST_URI_BYTES);
        return NULL;
    }
    if (d->count == RD_MOST_DOCUMENTS) {
        rd_fail(err, RD_INVALID, "more than %d open documents", RD_MOST_DOCUMENTS);
        return NULL;
    }
    if (d->count == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 8;
        d->all = rd_resize(d->all, d->cap, sizeof(rd_document *));
    }
    rd_document *doc = rd_alloc0(sizeof *doc);

    doc->home = d;
    doc->uri = rd_copy_text(uri, strlen(uri));
    d->all[d->count++] = doc;
    return doc;
}

/* Whether a text of `now` bytes may become one of `then`. */
static rd_status fits(const rd_documents *d, size_t now, size_t then, rd_error *err)
{
    if (then > RD_MOST_DOCUMENT_BYTES)
        return rd_fail(err, RD_INVALID, "a document of more than %zu bytes",
                       RD_MOST_DOCUMENT_BYTES);
    if (d->bytes - now + then > RD_MOST_DOCUMENTS_BYTES)
        return rd_fail(err, RD_INVALID, "open documents of more than %zu bytes",
                       RD_MOST_DOCUMENTS_BYTES);
    return RD_OK;
}

rd_status rd_documents_open(rd_documents *d, const char *uri, const char *language, int64_t version,
                            const char *text, size_t n, rd_error *err)
{
    rd_document *doc = rd_documents_find(d, uri);

    if (!doc) doc = add(d, uri, err);
    if (!doc) return RD_INVALID;
    forget(doc);
    free(doc->language);
    doc->language = rd_copy_text(language, strnlen(language, RD_MOST_ID_BYTES));
    doc->version = version;
    doc->touched = ++d->clock;
    rd_status s = fits(d, 0, n, err);

    if (s) return s;
    doc->text = rd_text_new(text, n);
    d->bytes += n;
    return RD_OK;
}

bool rd_documents_close(rd_documents *d, const char *uri)
{
    size_t i = find(d, uri);

    if (i == d->count) return false;
    free_document(d->all[i]);
    d->all[i] = d->all[--d->count];
    return true;
}

const char *rd_document_uri(const rd_document *doc)
{
    return doc->uri;
}

const char *rd_document_language(const rd_document *doc)
{
    return doc->language;
}

bool rd_document_is_known(const rd_document *doc)
{
    return doc->text != NULL;
}

const rd_text *rd_document_text(const rd_document *doc)
{
    return doc->text;
}

int64_t rd_document_version(const rd_document *doc)
{
    return doc->version;
}

uint64_t rd_document_revision(const rd_document *doc)
{
    return doc->revision;
}

uint64_t rd_document_touched(const rd_document *doc)
{
    return doc->touched;
}

size_t rd_document_last_edit(const rd_document *doc)
{
    if (doc->revision == doc->since) return 0;
    const edit *e = &doc->edits[(doc->revision - 1) % doc->room];

    return (size_t)e->start + e->n;
}

void rd_document_set_version(rd_document *doc, int64_t version)
{
    doc->version = version;
}

void rd_document_forget(rd_document *doc)
{
    forget(doc);
}

/* The ring grows to its limit with the first edits, so that a document that is only read has none. */
static void remember(rd_document *doc, edit e)
{
    uint64_t kept = doc->revision - doc->since;

    if (kept == doc->room && doc->room < RD_MOST_SHIFTS) {
        size_t room = doc->room ? 4 * doc->room : 16;
        edit *ring = rd_alloc_array(room, sizeof *ring);

        for (uint64_t r = doc->since; r < doc->revision; r++)
            ring[r % room] = doc->edits[r % doc->room];
        free(doc->edits);
        doc->edits = ring;
        doc->room = room;
    }
    doc->edits[doc->revision % doc->room] = e;
    doc->revision++;
    if (doc->revision - doc->since > doc->room) doc->since = doc->revision - doc->room;
}

/* An edit that says again what stands there is the edit of the rest: clients send whole words or lines, and what
 * is remembered should be what changed. Not worth it for long ones. */
static void trim_edit(const rd_document *doc, size_t *start, size_t *end, const char **bytes,
                      size_t *n)
{
    rd_buf old = { 0 };
    size_t front = 0, back = 0, most = *end - *start < *n ? *end - *start : *n;

    if (most == 0 || most > TRIM_MOST) return;
    rd_text_copy(doc->text, *start, *end, &old);
    while (front < most && old.data[front] == (*bytes)[front]) front++;
    while (front > 0 && front < *n && is_inside((*bytes)[front])) front--;
    while (front > 0 && front < old.len && is_inside(old.data[front])) front--;
    most -= front;
    while (back < most && old.data[old.len - 1 - back] == (*bytes)[*n - 1 - back]) back++;
    while (back > 0 && is_inside((*bytes)[*n - back])) back--;
    rd_buf_clear(&old);
    *start += front;
    *end -= back;
    *bytes += front;
    *n -= front + back;
}

rd_status rd_document_edit(rd_document *doc, size_t start, size_t end, const char *bytes, size_t n,
                           rd_error *err)
{
    if (!doc->text) return RD_OK;
    trim_edit(doc, &start, &end, &bytes, &n);
    size_t now = rd_text_bytes(doc->text), then = now - (end - start) + n;
    rd_status s = fits(doc->home, now, then, err);

    if (s) {
        forget(doc);
        return s;
    }
    rd_text_replace(doc->text, start, end, bytes, n);
    doc->home->bytes += then - now;
    doc->touched = ++doc->home->clock;
    remember(doc, (edit){ (uint32_t)start, (uint32_t)end, (uint32_t)n });
    return RD_OK;
}

rd_status rd_document_set_text(rd_document *doc, const char *bytes, size_t n, rd_error *err)
{
    size_t front, back;

    if (!doc->text) return RD_OK;
    rd_text_common(doc->text, bytes, n, &front, &back);
    return rd_document_edit(doc, front, rd_text_bytes(doc->text) - back, bytes + front,
                            n - front - back, err);
}

rd_status rd_document_shift(const rd_document *doc, uint64_t revision, size_t *start, size_t *end)
{
    size_t a = *start, b = *end;

    if (!doc->text || revision > doc->revision || revision < doc->since) return RD_STALE;
    for (uint64_t r = revision; r < doc->revision; r++) {
        const edit *e = &doc->edits[r % doc->room];
        bool is_insert = e->start == e->end;

        if (e->start == e->end && e->n == 0) continue;
        if (a == b && is_insert && e->start == a) return RD_STALE;
        if (e->start >= b) continue;
        if (e->end > a) return RD_STALE;
        a += e->n - (size_t)(e->end - e->start);
        b += e->n - (size_t)(e->end - e->start);
    }
    *start = a;
    *end = b;
    return RD_OK;
}
