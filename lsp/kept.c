/* kept.c - a ring of suggestions, judged by how the document's edits shift what stood around their place. */
#include "lsp/kept.h"

#include <string.h>

void rd_kept_add(rd_kept_ring *k, uint64_t serial, uint64_t revision, size_t bytes, size_t at,
                 const char *text, size_t n, float confidence)
{
    rd_kept *one = &k->list[k->next];

    rd_buf_reset(&one->text);
    rd_buf_append(&one->text, text, n);
    one->serial = serial;
    one->revision = revision;
    one->bytes = bytes;
    one->at = at;
    one->confidence = confidence;
    k->next = (k->next + 1) % RD_KEPT_MOST;
}

void rd_kept_clear(rd_kept_ring *k)
{
    for (int i = 0; i < RD_KEPT_MOST; i++) rd_buf_clear(&k->list[i].text);
    *k = (rd_kept_ring){ 0 };
}

const rd_kept *rd_kept_serial(const rd_kept_ring *k, uint64_t serial)
{
    for (int i = 0; i < RD_KEPT_MOST; i++)
        if (k->list[i].text.len > 0 && k->list[i].serial == serial) return &k->list[i];
    return NULL;
}

/* Nothing changed before its place or behind it: where what was put there ends. */
static bool put_there(const rd_kept *one, const rd_document *doc, size_t *end)
{
    size_t from = 0, to = one->at, tail = one->at, last = one->bytes,
           now = rd_text_bytes(rd_document_text(doc));

    if (to > 0 && (rd_document_shift(doc, one->revision, &from, &to) || from != 0)) return false;
    *end = now;
    if (tail == last) return true; /* nothing stood behind it */
    if (rd_document_shift(doc, one->revision, &tail, &last) || last != now) return false;
    *end = tail;
    return true;
}

/* Is `part` somewhere in `text`, on its first line? */
static bool holds(const rd_buf *text, const rd_buf *part)
{
    const char *stop = memchr(text->data, '\n', text->len);

    return memmem(text->data, stop ? (size_t)(stop - text->data) : text->len, part->data,
                  part->len) != NULL;
}

/* What is left of the suggestion once `typed` stands before the cursor and `extra` behind it. */
static bool left_of(const rd_kept *one, const rd_buf *typed, const rd_buf *extra, rd_buf *rest,
                    bool *covers)
{
    rd_buf left = { 0 };

    *covers = false;
    if (typed->len >= one->text.len ||
        (typed->len > 0 && memcmp(one->text.data, typed->data, typed->len) != 0))
        return false;
    left.data = one->text.data + typed->len;
    left.len = one->text.len - typed->len;
    if (extra->len > 0 && left.len > extra->len &&
        !memcmp(left.data + left.len - extra->len, extra->data, extra->len))
        left.len -= extra->len;
    else if (extra->len > 0 && left.len > extra->len && holds(&left, extra))
        *covers = true;
    else if (extra->len > 0)
        return false;
    rd_buf_append(rest, left.data, left.len);
    return true;
}

static bool holds_at(const rd_kept *one, const rd_document *doc, size_t at, rd_buf *rest,
                     size_t *end)
{
    rd_buf typed = { 0 }, extra = { 0 };
    bool holds = false, covers;

    if (one->text.len == 0 || !put_there(one, doc, end) || at < one->at || at > *end) return false;
    if (*end - one->at > one->text.len) return false;
    rd_text_copy(rd_document_text(doc), one->at, at, &typed);
    rd_text_copy(rd_document_text(doc), at, *end, &extra);
    holds = left_of(one, &typed, &extra, rest, &covers);
    if (!covers) *end = at;
    rd_buf_clear(&typed);
    rd_buf_clear(&extra);
    return holds;
}

const rd_kept *rd_kept_find(const rd_kept_ring *k, const rd_document *doc, size_t at, rd_buf *rest,
                            size_t *end)
{
    if (!rd_document_is_known(doc)) return NULL;
    for (int i = 1; i <= RD_KEPT_MOST; i++) {
        const rd_kept *one = &k->list[(k->next + RD_KEPT_MOST - i) % RD_KEPT_MOST];

        if (holds_at(one, doc, at, rest, end)) return one;
    }
    return NULL;
}

bool rd_kept_is_accepted(const rd_kept *one, const rd_document *doc, size_t *end)
{
    rd_buf now = { 0 };
    bool same;

    if (!rd_document_is_known(doc) || !put_there(one, doc, end)) return false;
    if (*end - one->at < one->text.len) return false;
    *end = one->at + one->text.len;
    rd_text_copy(rd_document_text(doc), one->at, *end, &now);
    same = !memcmp(now.data, one->text.data, one->text.len);
    rd_buf_clear(&now);
    return same;
}
