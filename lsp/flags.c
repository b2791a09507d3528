/* flags.c - one list for each document, published whole. */
#include "lsp/flags.h"

#include "core/base/memory.h"
#include "lsp/repair.h"
#include "lsp/rewrite.h"

#include <stdlib.h>
#include <string.h>

enum { SEVERITY_HINT = 4, FLAGS_MOST = 4 * RD_DOUBTS_MOST };

typedef struct flag {
    size_t start, end;
    rd_buf message;
} flag;

typedef struct flagged {
    struct flagged *next;
    char *uri;
    uint64_t revision; /* that the flags count in */
    flag *flags;
    int n;
} flagged;

struct rd_flags {
    rd_lsp *l;
    flagged *first;
};

rd_flags *rd_flags_new(rd_lsp *l)
{
    rd_flags *f = rd_alloc0(sizeof *f);

    f->l = l;
    return f;
}

static void free_flagged(flagged *d)
{
    for (int i = 0; i < d->n; i++) rd_buf_clear(&d->flags[i].message);
    free(d->flags);
    free(d->uri);
    free(d);
}

void rd_flags_free(rd_flags *f)
{
    if (!f) return;
    for (flagged *d = f->first, *next; d; d = next) {
        next = d->next;
        free_flagged(d);
    }
    free(f);
}

/* Where the pointer to the document's list stands; it points to NULL when there is none. */
static flagged **find(rd_flags *f, const char *uri)
{
    flagged **at = &f->first;

    while (*at && strcmp((*at)->uri, uri) != 0) at = &(*at)->next;
    return at;
}

static void publish(rd_flags *f, const rd_document *doc, const flagged *d)
{
    json_t *list = json_array();

    for (int i = 0; i < d->n; i++) {
        const flag *one = &d->flags[i];

        json_array_append_new(list,
                              json_pack("{s:o, s:i, s:s, s:o}", "range",
                                        rd_lsp_range(f->l, doc, one->start, one->end), "severity",
                                        SEVERITY_HINT, "source", "redraft", "message",
                                        rd_repair_string(one->message.data, one->message.len)));
    }
    rd_rpc_notify(f->l->conn->rpc, "textDocument/publishDiagnostics",
                  json_pack("{s:s, s:I, s:o}", "uri", d->uri, "version",
                            (json_int_t)rd_document_version(doc), "diagnostics", list));
}

/* Bring the flags to the document's revision. Returns how many were lost. */
static int shift(flagged *d, const rd_document *doc)
{
    int kept = 0, n = d->n;

    for (int i = 0; i < n; i++) {
        flag *one = &d->flags[i];

        if (rd_document_shift(doc, d->revision, &one->start, &one->end))
            rd_buf_clear(&one->message);
        else
            d->flags[kept++] = *one;
    }
    d->n = kept;
    d->revision = rd_document_revision(doc);
    return n - kept;
}

static void leave_out(flagged *d, size_t start, size_t end)
{
    int kept = 0;

    for (int i = 0; i < d->n; i++) {
        flag *one = &d->flags[i];

        if (one->start < end && one->end > start)
            rd_buf_clear(&one->message);
        else
            d->flags[kept++] = *one;
    }
    d->n = kept;
}

static void add(flagged *d, const rd_buf *text, const rd_buf *plain, size_t start,
                const rd_doubt *doubt)
{
    flag *one;

    if (d->n == FLAGS_MOST) return;
    d->flags = rd_resize(d->flags, (size_t)d->n + 1, sizeof *d->flags);
    one = &d->flags[d->n++];
    *one = (flag){ .start = start + rd_rewrite_unplain(text->data, text->len, doubt->start),
                   .end = start + rd_rewrite_unplain(text->data, text->len, doubt->end) };
    rd_doubt_message(doubt, plain->data, &one->message);
}

void rd_flags_set(rd_flags *f, const rd_document *doc, size_t start, size_t end,
                  const rd_doubt *doubts, int n)
{
    flagged **at = find(f, rd_document_uri(doc)), *d = *at;
    rd_buf text = { 0 }, plain = { 0 };

    if (!d) {
        d = *at = rd_alloc0(sizeof *d);
        d->uri = rd_copy_text(rd_document_uri(doc), strlen(rd_document_uri(doc)));
    }
    shift(d, doc);
    leave_out(d, start, end);
    rd_text_copy(rd_document_text(doc), start, end, &text);
    rd_buf_append(&plain, text.data, text.len);
    rd_rewrite_plain(&plain);
    for (int i = 0; i < n; i++) add(d, &text, &plain, start, &doubts[i]);
    rd_buf_clear(&text);
    rd_buf_clear(&plain);
    publish(f, doc, d);
}

void rd_flags_changed(rd_flags *f, const rd_document *doc)
{
    flagged *d = *find(f, rd_document_uri(doc));

    if (!d || d->n == 0 || shift(d, doc) == 0) return;
    if (rd_document_is_known(doc))
        publish(f, doc, d);
    else
        rd_flags_drop(f, rd_document_uri(doc));
}

void rd_flags_drop(rd_flags *f, const char *uri)
{
    flagged **at = find(f, uri), *d = *at;

    if (!d) return;
    *at = d->next;
    rd_rpc_notify(f->l->conn->rpc, "textDocument/publishDiagnostics",
                  json_pack("{s:s, s:[]}", "uri", d->uri, "diagnostics"));
    free_flagged(d);
}

bool rd_flags_at(const rd_flags *f, const rd_document *doc, size_t *start, size_t *end)
{
    const flagged *d = *find((rd_flags *)f, rd_document_uri(doc));
    size_t from = SIZE_MAX, to = 0;

    for (int i = 0; d && d->revision == rd_document_revision(doc) && i < d->n; i++) {
        const flag *one = &d->flags[i];

        if (one->start > *end || one->end < *start) continue;
        if (one->start < from) from = one->start;
        if (one->end > to) to = one->end;
    }
    if (to == 0) return false;
    *start = from;
    *end = to;
    return true;
}
