/* json.c - count, parse, insist on an object. */
#include "core/format/json.h"

#include "core/format/file.h"

/* An upper bound: each value but the first is the first of its bracket or stands behind a comma. */
static size_t count_values(const char *text, size_t n)
{
    size_t values = 1;

    for (size_t i = 0; i < n; i++) {
        switch (text[i]) {
        case '"':
            for (i++; i < n && text[i] != '"'; i++)
                if (text[i] == '\\') i++;
            break;
        case '[':
        case '{':
        case ',': values++; break;
        default: break;
        }
    }
    return values;
}

rd_status rd_json_parse(const char *text, size_t n, size_t max_values, const char *name,
                        json_t **out, rd_error *err)
{
    json_error_t where;

    if (n == 0) return rd_fail(err, RD_INVALID, "%s: empty", name);
    if (count_values(text, n) > max_values)
        return rd_fail(err, RD_INVALID, "%s: more than %zu JSON values", name, max_values);
    json_t *json = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!json)
        return rd_fail(err, RD_INVALID, "%s: line %d, column %d: %s", name, where.line,
                       where.column, where.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return rd_fail(err, RD_INVALID, "%s: not a JSON object", name);
    }
    *out = json;
    return RD_OK;
}

rd_status rd_json_read(const char *path, size_t max_bytes, size_t max_values, json_t **out,
                       rd_error *err)
{
    rd_buf text = { 0 };
    rd_status s = rd_file_read(path, max_bytes, &text, err);

    if (!s) s = rd_json_parse(text.data, text.len, max_values, path, out, err);
    rd_buf_clear(&text);
    return s;
}
