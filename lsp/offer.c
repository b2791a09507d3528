/* offer.c - answers of the model to items of a result. */
#include "lsp/offer.h"

#include "lsp/repair.h"
#include "lsp/worth.h"

#include <stdio.h>
#include <string.h>

/* ---- which are worth showing ---- */

/* What stands around the place, what the menu has chosen included. Points into the buffers. */
static rd_around look_around(const rd_ask *ask, const rd_document *doc, rd_buf *before,
                             rd_buf *behind)
{
    enum { BEFORE = 16 << 10, BEHIND = 8 << 10 };
    const rd_text *t = rd_document_text(doc);
    size_t from = ask->at > BEFORE ? ask->at - BEFORE : 0, bytes = rd_text_bytes(t),
           to = bytes - ask->end > BEHIND ? ask->end + BEHIND : bytes;
    rd_around a = ask->style;

    rd_text_copy(t, from, ask->at, before);
    if (ask->chosen) rd_buf_text(before, ask->chosen);
    rd_text_copy(t, ask->end, to, behind);
    a.before = before->data ? before->data : "";
    a.before_n = before->len;
    a.behind = behind->data ? behind->data : "";
    a.behind_n = behind->len;
    return a;
}

static bool is_blank(const rd_buf *text)
{
    for (size_t i = 0; i < text->len; i++)
        if (!strchr(" \t\n", text->data[i])) return false;
    return true;
}

static bool is_repeated(const rd_offer *o, const rd_buf *text)
{
    for (int i = 0; i < o->n; i++)
        if (o->text[i].len == text->len && !memcmp(o->text[i].data, text->data, text->len))
            return true;
    return false;
}

/* Whether a text that nobody asked for is worth a look. */
static bool is_worthy(rd_offer *o, const rd_around *around, const rd_buf *text, double confidence,
                      double gate)
{
    if (confidence < gate)
        o->unsure = confidence;
    else
        o->unworthy = rd_unworthy(around, text->data, text->len);
    return confidence >= gate && !o->unworthy;
}

void rd_offer_fill(rd_offer *o, const rd_ask *a, const rd_document *doc, double gate,
                   const rd_event *ev)
{
    int most = a->invoked ? RD_ANSWERS_MOST : 1;
    rd_buf before = { 0 }, behind = { 0 };
    rd_around around = look_around(a, doc, &before, &behind);

    for (int i = 0; i < ev->n_answers && o->n < most; i++) {
        const rd_answer *answer = &ev->answers[i];
        rd_buf *text = &o->text[o->n];

        rd_buf_reset(text);
        rd_buf_append(text, answer->text.data, answer->text.len);
        rd_tidy(&around, text);
        if (is_blank(text) || is_repeated(o, text)) continue;
        if (a->invoked || is_worthy(o, &around, text, (double)answer->confidence, gate))
            o->confidence[o->n++] = answer->confidence;
    }
    rd_buf_clear(&before);
    rd_buf_clear(&behind);
}

void rd_offer_clear(rd_offer *o)
{
    for (int i = 0; i < RD_ANSWERS_MOST; i++) rd_buf_clear(&o->text[i]);
    *o = (rd_offer){ 0 };
}

/* ---- how they are written ---- */

/* For a menu: the first line as its label, the whole as the edit. */
static json_t *list_item(json_t *range, const char *text, size_t n, int rank)
{
    size_t line = strcspn(text, "\n"), shown = line < 60 ? line : 60;
    char order[16];

    while (shown > 0 && shown < n && rd_utf8_is_inside(text[shown])) shown--;
    snprintf(order, sizeof order, "%04d", rank);
    json_t *item = json_pack("{s:i, s:s, s:s, s:{s:o}}", "kind", 1, "detail", "redraft", "sortText",
                             order, "textEdit", "range", range);

    json_object_set_new(item, "label", rd_repair_string(text, shown));
    json_object_set_new(json_object_get(item, "textEdit"), "newText", rd_repair_string(text, n));
    return item;
}

static json_t *inline_item(json_t *range, const char *text, size_t n, const char *uri,
                           uint64_t serial)
{
    json_t *item =
        json_pack("{s:o, s:{s:s, s:s, s:[s, I]}}", "range", range, "command", "title", "accepted",
                  "command", "redraft.accepted", "arguments", uri, (json_int_t)serial);

    json_object_set_new(item, "insertText", rd_repair_string(text, n));
    return item;
}

json_t *rd_offer_item(const rd_lsp *l, const rd_ask *a, const rd_document *doc, const rd_buf *text,
                      size_t at, size_t end, uint64_t serial, int rank)
{
    json_t *range = rd_lsp_range(l, doc, at, end), *item;
    rd_buf whole = { 0 };

    rd_buf_text(&whole, a->chosen ? a->chosen : "");
    rd_buf_append(&whole, text->data, text->len);
    item = a->list ? list_item(range, whole.data, whole.len, rank)
                   : inline_item(range, whole.data, whole.len, rd_document_uri(doc), serial);
    rd_buf_clear(&whole);
    return item;
}

json_t *rd_offer_result(const rd_ask *a, json_t *items)
{
    if (!items) items = json_array();
    return a->list ? json_pack("{s:b, s:o}", "isIncomplete", 1, "items", items)
                   : json_pack("{s:o}", "items", items);
}

/* The draft's pieces: how sure each is, in the order of its text. */
static json_t *pieces_of(const rd_event *ev, const char *text)
{
    static const char *const states[] = { [RD_MARK_MASK] = "mask",
                                          [RD_MARK_DRAFT] = "draft",
                                          [RD_MARK_EDITED] = "edited",
                                          [RD_MARK_SETTLED] = "settled" };
    json_t *pieces = json_array();

    for (int i = 0; i < ev->n_pieces; text += ev->pieces[i].bytes, i++) {
        json_t *piece = json_pack("{s:s, s:f}", "state", states[ev->pieces[i].state], "prob",
                                  (double)ev->pieces[i].prob);

        json_object_set_new(piece, "text", rd_repair_string(text, ev->pieces[i].bytes));
        json_array_append_new(pieces, piece);
    }
    return pieces;
}

json_t *rd_offer_draft(const rd_lsp *l, const rd_ask *a, const rd_document *doc, const rd_event *ev)
{
    const rd_buf *draft = &ev->answers[0].text;
    const char *text = draft->data ? draft->data : "";
    json_t *item = json_pack("{s:o, s:o}", "range", rd_lsp_range(l, doc, a->at, a->end), "pieces",
                             pieces_of(ev, text));

    json_object_set_new(item, "insertText", rd_repair_string(text, draft->len));
    return json_pack("{s:o, s:i, s:[o]}", "id", rd_id_write(&a->id), "seq", a->seq, "items", item);
}
