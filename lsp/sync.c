/* sync.c - the notifications that keep our texts like the client's. */
#include "lsp/sync.h"

#include "lsp/limits.h"

#include <stdio.h>
#include <string.h>

static bool read_number(const json_t *value, uint32_t *out)
{
    double x = json_number_value(value); /* 0 when it is none */

    if (!json_is_number(value) || !(x >= 0)) return false;
    *out = x > INT32_MAX ? INT32_MAX : (uint32_t)x;
    return true;
}

rd_status rd_sync_position(const json_t *value, const char *name, rd_position *out, rd_error *err)
{
    if (!read_number(json_object_get(value, "line"), &out->line))
        return rd_fail(err, RD_INVALID, "%s.line is not a number from 0", name);
    if (!read_number(json_object_get(value, "character"), &out->character))
        return rd_fail(err, RD_INVALID, "%s.character is not a number from 0", name);
    return RD_OK;
}

rd_status rd_sync_range(const json_t *value, const char *name, rd_position *start, rd_position *end,
                        rd_error *err)
{
    char field[64];

    snprintf(field, sizeof field, "%s.start", name);
    if (rd_sync_position(json_object_get(value, "start"), field, start, err)) return RD_INVALID;
    snprintf(field, sizeof field, "%s.end", name);
    if (rd_sync_position(json_object_get(value, "end"), field, end, err)) return RD_INVALID;
    if (end->line < start->line ||
        (end->line == start->line && end->character < start->character)) {
        rd_position swap = *start;

        *start = *end;
        *end = swap;
    }
    return RD_OK;
}

rd_status rd_sync_uri(const json_t *params, const char **out, rd_error *err)
{
    const json_t *uri = json_object_get(json_object_get(params, "textDocument"), "uri");

    if (!json_is_string(uri) || strlen(json_string_value(uri)) != json_string_length(uri))
        return rd_fail(err, RD_INVALID, "textDocument.uri is not a string");
    *out = json_string_value(uri);
    return RD_OK;
}

static rd_sync all_lost(rd_documents *d)
{
    rd_documents_forget(d);
    return RD_SYNC_LOST;
}

static rd_sync lost(rd_document *doc)
{
    if (doc) rd_document_forget(doc);
    return RD_SYNC_LOST;
}

rd_sync rd_sync_open(rd_documents *d, const json_t *params, rd_error *err)
{
    const json_t *item = json_object_get(params, "textDocument");
    const json_t *text = json_object_get(item, "text"), *version = json_object_get(item, "version");
    const json_t *language = json_object_get(item, "languageId");
    const char *uri = NULL;

    if (rd_sync_uri(params, &uri, err)) return all_lost(d);
    if (!json_is_string(text)) {
        rd_fail(err, RD_INVALID, "textDocument.text is not a string");
        return lost(rd_documents_find(d, uri));
    }
    rd_status s =
        rd_documents_open(d, uri, json_is_string(language) ? json_string_value(language) : "",
                          json_is_integer(version) ? json_integer_value(version) : 0,
                          json_string_value(text), json_string_length(text), err);

    return s ? RD_SYNC_LOST : RD_SYNC_DONE;
}

static rd_status change(rd_document *doc, const json_t *value, rd_encoding e, rd_error *err)
{
    const json_t *range = json_object_get(value, "range"), *text = json_object_get(value, "text");
    rd_position start, end;

    if (!json_is_string(text))
        return rd_fail(err, RD_INVALID, "contentChanges[].text is not a string");
    const char *bytes = json_string_value(text);
    size_t n = json_string_length(text);

    if (!range || json_is_null(range)) return rd_document_set_text(doc, bytes, n, err);
    if (rd_sync_range(range, "contentChanges[].range", &start, &end, err)) return RD_INVALID;
    const rd_text *t = rd_document_text(doc);
    size_t from = rd_text_offset(t, start, e);
    bool is_insert = end.line == start.line && end.character == start.character;

    return rd_document_edit(doc, from, is_insert ? from : rd_text_offset(t, end, e), bytes, n, err);
}

rd_sync rd_sync_change(rd_documents *d, const json_t *params, rd_encoding e, rd_error *err)
{
    const json_t *changes = json_object_get(params, "contentChanges"), *value;
    const json_t *version = json_object_get(json_object_get(params, "textDocument"), "version");
    const char *uri = NULL;
    size_t i;

    if (rd_sync_uri(params, &uri, err)) return all_lost(d);
    rd_document *doc = rd_documents_find(d, uri);

    if (!doc) return RD_SYNC_NOT_OPEN;
    if (!rd_document_is_known(doc)) return RD_SYNC_UNKNOWN;
    if (!json_is_array(changes)) {
        rd_fail(err, RD_INVALID, "contentChanges is not a list");
        return lost(doc);
    }
    json_array_foreach(changes, i, value)
    {
        if (change(doc, value, e, err)) return lost(doc);
    }
    if (!json_is_integer(version)) return RD_SYNC_DONE;
    bool grew = json_integer_value(version) > rd_document_version(doc);

    rd_document_set_version(doc, json_integer_value(version));
    return grew ? RD_SYNC_DONE : RD_SYNC_VERSION_BACK;
}

rd_sync rd_sync_close(rd_documents *d, const json_t *params, rd_error *err)
{
    const char *uri = NULL;

    if (rd_sync_uri(params, &uri, err)) return RD_SYNC_NOT_OPEN;
    return rd_documents_close(d, uri) ? RD_SYNC_DONE : RD_SYNC_NOT_OPEN;
}
