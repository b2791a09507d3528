/* message.c - the shape of a JSON-RPC message, checked in the order in which the answers to a wrong one differ. */
#include "lsp/message.h"

#include "lsp/repair.h"

#include <math.h>
#include <string.h>

bool rd_id_read(const json_t *value, rd_id *out)
{
    out->kind = RD_ID_NULL;
    out->number = 0;
    out->n = 0;
    if (!value || json_is_null(value)) return true;
    if (json_is_integer(value)) {
        out->number = json_integer_value(value);
        out->kind = RD_ID_NUMBER;
        return true;
    }
    if (json_is_real(value)) { /* 1.0 is what some clients write for 1 */
        double x = json_real_value(value);

        if (x != floor(x) || fabs(x) > 9007199254740992.0) return false;
        out->number = (int64_t)x;
        out->kind = RD_ID_NUMBER;
        return true;
    }
    if (!json_is_string(value) || json_string_length(value) > RD_MOST_ID_BYTES) return false;
    out->n = json_string_length(value);
    memcpy(out->text, json_string_value(value), out->n);
    out->kind = RD_ID_TEXT;
    return true;
}

json_t *rd_id_write(const rd_id *id)
{
    if (id->kind == RD_ID_NUMBER) return json_integer(id->number);
    return id->kind == RD_ID_TEXT ? json_stringn(id->text, id->n) : json_null();
}

bool rd_id_equal(const rd_id *a, const rd_id *b)
{
    return a->kind == b->kind && a->number == b->number && a->n == b->n &&
           !memcmp(a->text, b->text, a->n);
}

static rd_status refuse(rd_refusal *r, int code, const char *why)
{
    r->code = code;
    return rd_fail(&r->why, RD_INVALID, "%s", why);
}

/* `params` as an object or NULL. */
static bool read_params(const json_t *params, rd_message *out)
{
    if (!params || json_is_null(params)) return true;
    if (json_is_array(params)) return json_array_size(params) == 0;
    if (!json_is_object(params)) return false;
    out->params = json_object_size(params) > 0 ? params : NULL;
    return true;
}

static rd_status read_object(const json_t *top, rd_message *out, rd_refusal *r)
{
    const json_t *version = json_object_get(top, "jsonrpc"), *id = json_object_get(top, "id");
    const json_t *method = json_object_get(top, "method");
    bool has_id = rd_id_read(id, &out->id);

    if (has_id) r->id = out->id;
    r->lost = !id;
    if (!json_is_string(version) || strcmp(json_string_value(version), "2.0") != 0)
        return refuse(r, RD_INVALID_REQUEST, "jsonrpc is not \"2.0\"");
    if (!has_id)
        return refuse(r, RD_INVALID_REQUEST, "id is neither an integer nor a short string");
    if (method && !json_is_string(method))
        return refuse(r, RD_INVALID_REQUEST, "method is not a string");
    if (!method) {
        out->result = json_object_get(top, "result");
        out->error = json_object_get(top, "error");
        out->kind = id && (out->result || out->error) ? RD_MESSAGE_RESPONSE : RD_MESSAGE_NOTHING;
        return RD_OK;
    }
    if (strlen(json_string_value(method)) != json_string_length(method))
        return refuse(r, RD_INVALID_REQUEST, "method holds a NUL");
    if (id && out->id.kind == RD_ID_NULL)
        return refuse(r, RD_INVALID_REQUEST, "the id of a request is null");
    if (!read_params(json_object_get(top, "params"), out))
        return refuse(r, RD_INVALID_PARAMS, "params is not an object");
    out->kind = id ? RD_MESSAGE_REQUEST : RD_MESSAGE_NOTIFICATION;
    out->method = json_string_value(method);
    return RD_OK;
}

rd_status rd_message_read(const char *frame, size_t n, rd_encoding encoding, rd_message *out,
                          rd_refusal *refusal)
{
    rd_message m = { .kind = RD_MESSAGE_NOTHING };

    *refusal = (rd_refusal){ .code = RD_PARSE_ERROR, .lost = true };
    rd_status s = rd_repair_parse(frame, n, encoding, &m.top, &refusal->why);

    if (s) return s;
    if (json_is_object(m.top))
        s = read_object(m.top, &m, refusal);
    else
        s = refuse(refusal, RD_INVALID_REQUEST,
                   json_is_array(m.top) ? "batches are not taken" : "not a JSON object");
    if (s)
        rd_message_clear(&m);
    else
        *out = m;
    return s;
}

void rd_message_clear(rd_message *m)
{
    json_decref(m->top);
    *m = (rd_message){ .kind = RD_MESSAGE_NOTHING };
}

static int append(const char *bytes, size_t n, void *out)
{
    rd_buf_append(out, bytes, n);
    return 0;
}

void rd_message_write(rd_buf *out, const json_t *message)
{
    json_dump_callback(message, append, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
}

/* Writes and gives back the message. Fifteen digits of a number are all that one reads; more are noise. */
static void write_message(rd_buf *out, json_t *message)
{
    json_object_set_new(message, "jsonrpc", json_string("2.0"));
    rd_message_write(out, message);
    json_decref(message);
}

void rd_message_result(rd_buf *out, const rd_id *id, json_t *result)
{
    json_t *m = json_object();

    json_object_set_new(m, "id", rd_id_write(id));
    json_object_set_new(m, "result", result ? result : json_null());
    write_message(out, m);
}

void rd_message_error(rd_buf *out, const rd_id *id, int code, const char *text, json_t *data)
{
    json_t *m = json_object(), *error = json_object();

    json_object_set_new(error, "code", json_integer(code));
    json_object_set_new(error, "message", rd_repair_string(text, strlen(text)));
    if (data) json_object_set_new(error, "data", data);
    json_object_set_new(m, "id", rd_id_write(id));
    json_object_set_new(m, "error", error);
    write_message(out, m);
}

void rd_message_notification(rd_buf *out, const char *method, json_t *params)
{
    json_t *m = json_object();

    json_object_set_new(m, "method", json_string(method));
    if (params) json_object_set_new(m, "params", params);
    write_message(out, m);
}

void rd_message_request(rd_buf *out, int64_t id, const char *method, json_t *params)
{
    json_t *m = json_object();

    json_object_set_new(m, "id", json_integer(id));
    json_object_set_new(m, "method", json_string(method));
    if (params) json_object_set_new(m, "params", params);
    write_message(out, m);
}
