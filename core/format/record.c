/* record.c - a thin view over the JSON library. */
#include "core/format/record.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/json.h"
#include "core/format/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_BYTES  ((size_t)256 << 20)
#define RECORD_VALUES 20000000
#define TEXT_VALUES   200000 /* a value takes a hundred times its bytes in memory */

struct rd_record {
    json_t *top;
};

static rd_status keep(json_t *top, rd_record **out)
{
    *out = rd_alloc0(sizeof **out);
    (*out)->top = top;
    return RD_OK;
}

/* Some writers spell numbers that JSON has not: outside of strings, Infinity becomes a very large number
 * and NaN null. */
static void spell_numbers(const char *text, size_t n, rd_buf *out)
{
    size_t from = 0;
    bool inside = false;

    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\' && inside)
            i++;
        else if (text[i] == '"')
            inside = !inside;
        size_t len = inside || i >= n                                 ? 0
                     : n - i >= 8 && !memcmp(text + i, "Infinity", 8) ? 8
                     : n - i >= 3 && !memcmp(text + i, "NaN", 3)      ? 3
                                                                      : 0;

        if (len == 0) continue;
        rd_buf_append(out, text + from, i - from);
        rd_buf_text(out, len == 8 ? "1e308" : "null");
        i += len - 1;
        from = i + 1;
    }
    rd_buf_append(out, text + from, n - from);
}

static rd_status parse(const char *text, size_t n, size_t max_values, const char *name,
                       rd_record **out, rd_error *err)
{
    rd_buf clean = { 0 };
    json_t *top;

    spell_numbers(text, n, &clean);
    rd_status s = rd_json_parse(clean.data, clean.len, max_values, name, &top, err);

    rd_buf_clear(&clean);
    return s ? s : keep(top, out);
}

rd_status rd_record_parse(const char *text, size_t n, const char *name, rd_record **out,
                          rd_error *err)
{
    return parse(text, n, TEXT_VALUES, name, out, err);
}

rd_status rd_record_read(const char *path, rd_record **out, rd_error *err)
{
    rd_buf text = { 0 };
    rd_status s = rd_file_read(path, RECORD_BYTES, &text, err);

    if (!s) s = parse(text.data ? text.data : "", text.len, RECORD_VALUES, path, out, err);
    rd_buf_clear(&text);
    return s;
}

void rd_record_free(rd_record *r)
{
    if (!r) return;
    json_decref(r->top);
    free(r);
}

rd_value rd_record_top(const rd_record *r)
{
    return r->top;
}

rd_value rd_value_get(rd_value object, const char *key)
{
    return object ? json_object_get(object, key) : NULL;
}

rd_value rd_value_at(rd_value array, int i)
{
    return array && i >= 0 ? json_array_get(array, (size_t)i) : NULL;
}

int rd_value_count(rd_value array)
{
    return array ? (int)json_array_size(array) : 0;
}

const char *rd_value_key(rd_value object, int i)
{
    void *at = object ? json_object_iter((json_t *)object) : NULL;

    for (; at && i > 0; i--) at = json_object_iter_next((json_t *)object, at);
    return at ? json_object_iter_key(at) : NULL;
}

bool rd_value_is_null(rd_value v)
{
    return !v || json_is_null((const json_t *)v);
}

bool rd_value_is_text(rd_value v)
{
    return v && json_is_string((const json_t *)v);
}

int64_t rd_value_int(rd_value v, int64_t fallback)
{
    if (!v) return fallback;
    if (json_is_integer((const json_t *)v)) return json_integer_value(v);
    if (json_is_real((const json_t *)v) && json_real_value(v) > -9e15 && json_real_value(v) < 9e15)
        return (int64_t)json_real_value(v);
    return fallback;
}

double rd_value_number(rd_value v, double fallback)
{
    return v && json_is_number((const json_t *)v) ? json_number_value(v) : fallback;
}

bool rd_value_bool(rd_value v, bool fallback)
{
    return v && json_is_boolean((const json_t *)v) ? json_is_true((const json_t *)v) : fallback;
}

const char *rd_value_text(rd_value v, size_t *n)
{
    if (!rd_value_is_text(v)) return NULL;
    *n = json_string_length(v);
    return json_string_value(v);
}

bool rd_value_ids(rd_value v, rd_ids *out)
{
    if (!v || !json_is_array((const json_t *)v)) return false;
    for (int i = 0; i < rd_value_count(v); i++) {
        rd_value at = rd_value_at(v, i);
        int64_t id = rd_value_int(at, INT64_MIN);

        if (id < INT32_MIN || id > INT32_MAX) return false;
        rd_ids_push(out, (int32_t)id);
    }
    return true;
}

void rd_value_write(rd_value v, rd_buf *out)
{
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    rd_buf_text(out, text ? text : "null");
    free(text);
}

void rd_json_quote(rd_buf *out, const char *text, size_t n)
{
    static const char names[] = "btn?fr"; /* of 8 to 13 */
    rd_buf clean = { 0 };

    rd_utf8_repair(text, n, &clean);
    rd_buf_text(out, "\"");
    for (size_t i = 0; i < clean.len; i++) {
        unsigned char c = (unsigned char)clean.data[i];

        if (c == '"' || c == '\\')
            rd_buf_format(out, "\\%c", c);
        else if (c >= 8 && c <= 13 && c != 11)
            rd_buf_format(out, "\\%c", names[c - 8]);
        else if (c < ' ' || c == 0x7f)
            rd_buf_format(out, "\\u%04x", c);
        else
            rd_buf_append(out, &clean.data[i], 1);
    }
    rd_buf_text(out, "\"");
    rd_buf_clear(&clean);
}
