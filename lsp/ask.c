/* ask.c - params to a request for ghost text. */
#include "lsp/ask.h"

#include "core/base/memory.h"
#include "lsp/sync.h"

#include <stdlib.h>

/* What the menu has chosen stands in the way; the ghost text goes on behind it. */
static rd_status read_menu(rd_ask *a, const rd_document *doc, const json_t *chosen, rd_encoding e,
                           rd_error *err)
{
    const json_t *text = json_object_get(chosen, "text");
    rd_position start, end;

    if (!json_is_object(chosen)) return RD_OK;
    if (!json_is_string(text))
        return rd_fail(err, RD_INVALID, "context.selectedCompletionInfo.text is not a string");
    if (rd_sync_range(json_object_get(chosen, "range"), "context.selectedCompletionInfo.range",
                      &start, &end, err))
        return RD_INVALID;
    a->chosen = rd_copy_text(json_string_value(text), json_string_length(text));
    a->at = rd_text_offset(rd_document_text(doc), start, e);
    a->end = rd_text_offset(rd_document_text(doc), end, e);
    return RD_OK;
}

static void read_style(rd_ask *a, const json_t *options)
{
    const json_t *size = json_object_get(options, "tabSize"),
                 *spaces = json_object_get(options, "insertSpaces");

    if (json_is_integer(size) && json_integer_value(size) >= 1 && json_integer_value(size) <= 16)
        a->style.tab_size = (int)json_integer_value(size);
    if (json_is_boolean(spaces))
        a->style.indent = json_is_true(spaces) ? RD_INDENT_SPACES : RD_INDENT_TABS;
}

rd_status rd_ask_read(rd_ask *a, const rd_document *doc, rd_position at, const json_t *params,
                      rd_encoding e, rd_error *err)
{
    const json_t *context = json_object_get(params, "context");

    a->at = a->end = rd_text_offset(rd_document_text(doc), at, e);
    read_style(a, json_object_get(params, "formattingOptions"));
    if (a->list) return RD_OK;
    a->invoked = json_number_value(json_object_get(context, "triggerKind")) == 1.0;
    return read_menu(a, doc, json_object_get(context, "selectedCompletionInfo"), e, err);
}

void rd_ask_clear(rd_ask *a)
{
    free(a->chosen);
    *a = (rd_ask){ 0 };
}

bool rd_ask_is_inside_word(const rd_ask *a, const rd_document *doc)
{
    const rd_text *t = rd_document_text(doc);
    rd_buf two = { 0 };
    bool inside = false;

    if (a->at > 0 && a->at < rd_text_bytes(t)) {
        rd_text_copy(t, a->at - 1, a->at + 1, &two);
        inside = rd_is_word(two.data[0]) && rd_is_word(two.data[1]);
    }
    rd_buf_clear(&two);
    return inside;
}
