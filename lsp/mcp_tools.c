/* mcp_tools.c - one table of tools, the schemas made of it, and calls checked against it. */
#include "lsp/mcp_tools.h"

#include "core/base/diff.h"
#include "core/base/memory.h"
#include "lsp/limits.h"
#include "lsp/repair.h"
#include "lsp/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MS = 20000, SCORE_BEFORE = 2 << 10, SCORE_BEHIND = 1 << 10 };
#define DEFAULT_QUALITY 0.5

/* ---- the table ---- */

typedef enum value_kind { STRING, WHOLE, NUMBER } value_kind;

/* A call gives its text in one of two ways, and arguments of one way do not go with those of the other. */
typedef enum way { ANY_WAY, BY_TEXT, BY_PATH } way;

typedef struct argument {
    const char *name, *about;
    value_kind kind;
    way way;
    bool needed; /* where the call goes that way */
    double least, most;
} argument;

/* Of a result; all are always there. */
typedef struct field {
    const char *name, *type, *about;
    const struct field *items; /* of an array of objects */
} field;

typedef struct tool_row {
    const char *name, *about, *usage;
    rd_job_kind job;
    const argument *arguments;
    const field *fields;
} tool_row;

#define PLACE_MOST 1e9

static const char path_about[] =
    "a file below a folder given by --root, relative to it or absolute; instead of the text";
static const char language_about[] =
    "python, c, ... or a file name; a path's own name where it is missing";
static const char quality_about[] = "0 is fastest, 1 is most careful; 0.5 where it is missing";
static const char max_ms_about[] =
    "milliseconds after which the best text so far is returned; 20000 where it is missing";

static const argument infill_arguments[] = {
    { "prefix", "the text before the hole; may be empty", STRING, BY_TEXT, true, 0, 0 },
    { "suffix", "the text after the hole; may be empty", STRING, BY_TEXT, true, 0, 0 },
    { "path", path_about, STRING, BY_PATH, true, 0, 0 },
    { "line", "the hole's line in the file, from 1", WHOLE, BY_PATH, true, 1, PLACE_MOST },
    { "column", "its column in code points, from 1", WHOLE, BY_PATH, true, 1, PLACE_MOST },
    { "language", language_about, STRING, ANY_WAY, false, 0, 0 },
    { "max_tokens", "of the completion, at most; 256 where it is missing", WHOLE, ANY_WAY, false, 1,
      RD_MOST_TOOL_TOKENS },
    { "quality", quality_about, NUMBER, ANY_WAY, false, 0, 1 },
    { "max_ms", max_ms_about, WHOLE, ANY_WAY, false, 1, RD_MOST_TOOL_MS },
    { 0 },
};
static const field infill_fields[] = {
    { "completion", "string", "the text to insert: the best attempt, never withheld", NULL },
    { "confidence", "number", "0 to 1: that it is right as a whole", NULL },
    { "tokens", "integer", "of the completion", NULL },
    { "forwards", "integer", "passes of the model", NULL },
    { "ms", "number", "time taken", NULL },
    { "reason", "string", "why it ended: done, limit, time or empty", NULL },
    { 0 },
};
static const argument rewrite_arguments[] = {
    { "text", "the text; all of it is rewritten, or what start and end cut out", STRING, BY_TEXT,
      true, 0, 0 },
    { "start", "first UTF-8 byte of the text to be rewritten; 0 where it is missing", WHOLE,
      BY_TEXT, false, 0, PLACE_MOST },
    { "end", "the UTF-8 byte behind the last; the text's end where it is missing", WHOLE, BY_TEXT,
      false, 0, PLACE_MOST },
    { "path", path_about, STRING, BY_PATH, true, 0, 0 },
    { "first_line", "first line of the file to be rewritten, from 1", WHOLE, BY_PATH, true, 1,
      PLACE_MOST },
    { "last_line", "the last", WHOLE, BY_PATH, true, 1, PLACE_MOST },
    { "instruction", "what to change; ignored by models that follow no instructions", STRING,
      ANY_WAY, false, 0, 0 },
    { "quality", quality_about, NUMBER, ANY_WAY, false, 0, 1 },
    { "max_ms", max_ms_about, WHOLE, ANY_WAY, false, 1, RD_MOST_TOOL_MS },
    { 0 },
};
static const field edit_fields[] = {
    { "start", "integer", "first UTF-8 byte, in the text or file as it was", NULL },
    { "end", "integer", "the byte behind the last", NULL },
    { "text", "string", "what comes in its place", NULL },
    { 0 },
};
static const field rewrite_fields[] = {
    { "text", "string", "the given text with its part rewritten; of a file, the named lines",
      NULL },
    { "edits", "array",
      "the same as edits of the text or file: ascending, none where nothing changed", edit_fields },
    { "diff", "string", "the same as a unified diff; empty where nothing changed", NULL },
    { "confidence", "number", "0 to 1: that it is right as a whole", NULL },
    { "ms", "number", "time taken", NULL },
    { 0 },
};
static const argument score_arguments[] = {
    { "text", "the text to be scored", STRING, BY_TEXT, true, 0, 0 },
    { "path", path_about, STRING, BY_PATH, true, 0, 0 },
    { "first_line", "first line to be scored, from 1; 1 where it is missing", WHOLE, BY_PATH, false,
      1, PLACE_MOST },
    { "last_line", "the last; the file's last where it is missing", WHOLE, BY_PATH, false, 1,
      PLACE_MOST },
    { 0 },
};
static const field token_fields[] = {
    { "start", "integer", "first UTF-8 byte, in the text or file", NULL },
    { "end", "integer", "the byte behind the last", NULL },
    { "p", "number", "the probability of this token, given both sides", NULL },
    { "best", "string", "the likeliest token there", NULL },
    { "p_best", "number", "its probability", NULL },
    { 0 },
};
static const field score_fields[] = {
    { "tokens", "array", "in the order of the text", token_fields },
    { 0 },
};
static const argument no_arguments[] = { { 0 } };
static const field no_fields[] = { { 0 } };

static const tool_row tools[RD_MCP_TOOLS] = {
    [RD_MCP_INFILL] = { "infill",
                        "Fill a hole in code with the local model, given the text on both sides. "
                        "Returns the "
                        "text to insert and how sure the model is; writes nothing.",
                        "infill takes {prefix, suffix} or {path, line, column}", RD_JOB_INFILL,
                        infill_arguments, infill_fields },
    [RD_MCP_REWRITE] = { "rewrite",
                         "Rewrite a piece of code in place with the local model, given the text "
                         "around it. Returns "
                         "the new text, edits and a diff; writes nothing.",
                         "rewrite takes {text, start?, end?} or {path, first_line, last_line}",
                         RD_JOB_REWRITE, rewrite_arguments, rewrite_fields },
    [RD_MCP_SCORE] = { "score",
                       "Say for each token of a piece of code how likely the local model finds it, "
                       "given both "
                       "sides. Unlikely tokens may be mistakes.",
                       "score takes {text} or {path, first_line?, last_line?}", RD_JOB_SCORE,
                       score_arguments, score_fields },
    [RD_MCP_STATUS] = { "status", "What runs: the model, the device it is on, the memory it takes.",
                        "status takes nothing", RD_JOB_WARM, no_arguments, no_fields },
};

rd_mcp_tool rd_mcp_tool_of(const char *name)
{
    int i = 0;

    while (i < RD_MCP_TOOLS && strcmp(tools[i].name, name) != 0) i++;
    return (rd_mcp_tool)i;
}

rd_job_kind rd_mcp_tool_job(rd_mcp_tool t)
{
    return tools[t].job;
}

/* ---- schemas ---- */

static json_t *input_schema(const tool_row *t)
{
    json_t *properties = json_object();

    for (const argument *a = t->arguments; a->name; a++) {
        static const char *const types[] = { "string", "integer", "number" };
        json_t *p = json_pack("{s:s, s:s}", "type", types[a->kind], "description", a->about);

        if (a->kind != STRING) {
            json_object_set_new(p, "minimum", json_integer((json_int_t)a->least));
            json_object_set_new(p, "maximum", json_integer((json_int_t)a->most));
        }
        json_object_set_new(properties, a->name, p);
    }
    return json_pack("{s:s, s:o}", "type", "object", "properties", properties);
}

static json_t *output_schema(const field *f)
{
    json_t *properties = json_object(), *required = json_array();

    for (; f->name; f++) {
        json_t *p = json_pack("{s:s, s:s}", "type", f->type, "description", f->about);

        if (f->items) json_object_set_new(p, "items", output_schema(f->items));
        json_object_set_new(properties, f->name, p);
        json_array_append_new(required, json_string(f->name));
    }
    return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required",
                     required);
}

/* Which arguments go together is said in words: clients hand inputSchema to model APIs, some of which refuse `oneOf`. */
json_t *rd_mcp_tool_list(void)
{
    json_t *list = json_array();

    for (const tool_row *t = tools; t < tools + RD_MCP_TOOLS; t++) {
        char about[512];

        snprintf(about, sizeof about, "%s %c%s.", t->about, t->usage[0] - 'a' + 'A', t->usage + 1);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:{s:b, s:b, s:b, s:b}}", "name", t->name,
                            "description", about, "inputSchema", input_schema(t), "outputSchema",
                            output_schema(t->fields), "annotations", "readOnlyHint", 1,
                            "destructiveHint", 0, "idempotentHint", 1, "openWorldHint", 0));
    }
    return list;
}

/* ---- arguments ---- */

/* NULL for what is absent or null. */
static const json_t *given(const json_t *arguments, const char *name)
{
    const json_t *v = json_object_get(arguments, name);

    return json_is_null(v) ? NULL : v;
}

static double number_of(const json_t *arguments, const char *name, double otherwise)
{
    const json_t *v = given(arguments, name);

    return v ? json_number_value(v) : otherwise;
}

static void append_text(const json_t *arguments, const char *name, rd_buf *out)
{
    const json_t *v = given(arguments, name);

    if (v) rd_buf_append(out, json_string_value(v), json_string_length(v));
}

static rd_status check_value(const argument *a, const json_t *v, rd_error *err)
{
    double x = json_number_value(v);

    if (a->kind == STRING)
        return json_is_string(v) ? RD_OK : rd_fail(err, RD_INVALID, "%s is not a string", a->name);
    if (!json_is_number(v) || (a->kind == WHOLE && x != floor(x)))
        return rd_fail(err, RD_INVALID, "%s is not %s number", a->name,
                       a->kind == WHOLE ? "a whole" : "a");
    if (x < a->least || x > a->most)
        return rd_fail(err, RD_INVALID, "%s is not from %.0f to %.0f", a->name, a->least, a->most);
    return RD_OK;
}

static rd_status check(const tool_row *t, const json_t *arguments, way by, rd_error *err)
{
    for (const argument *a = t->arguments; a->name; a++) {
        const json_t *v = given(arguments, a->name);
        bool fits = a->way == ANY_WAY || a->way == by;

        if (v && !fits)
            return rd_fail(err, RD_INVALID, "%s does not go with %s: %s", a->name,
                           by == BY_PATH ? "path" : "the text itself", t->usage);
        if (!v && fits && a->needed)
            return rd_fail(err, RD_INVALID, "%s is missing: %s", a->name, t->usage);
        if (v && check_value(a, v, err)) return err->status;
    }
    return RD_OK;
}

/* ---- places ---- */

typedef struct span {
    size_t start, end;
} span;

static bool begins_character(const rd_buf *text, size_t at)
{
    return at == text->len || ((unsigned char)text->data[at] & 0xc0) != 0x80;
}

static rd_status bytes_named(const json_t *arguments, const rd_buf *text, span *out, rd_error *err)
{
    span s = { (size_t)number_of(arguments, "start", 0),
               (size_t)number_of(arguments, "end", (double)text->len) };

    if (s.start > s.end || s.end > text->len)
        return rd_fail(err, RD_INVALID, "start %zu and end %zu are no span of the text's %zu bytes",
                       s.start, s.end, text->len);
    if (!begins_character(text, s.start) || !begins_character(text, s.end))
        return rd_fail(err, RD_INVALID, "byte %zu is inside a character: offsets count UTF-8 bytes",
                       begins_character(text, s.start) ? s.end : s.start);
    *out = s;
    return RD_OK;
}

/* Lines as people count them: an end of line at the end of the file begins none. */
static size_t count_lines(const rd_text *t)
{
    size_t n = rd_text_lines(t);

    return n > 1 && rd_text_line_start(t, n - 1) == rd_text_bytes(t) ? n - 1 : n;
}

static rd_status cursor_named(const json_t *arguments, const rd_text *t, const char *path,
                              span *out, rd_error *err)
{
    size_t line = (size_t)number_of(arguments, "line", 1);
    size_t column = (size_t)number_of(arguments, "column", 1);

    if (line > rd_text_lines(t))
        return rd_fail(err, RD_INVALID, "%s has %zu lines, not %zu", path, count_lines(t), line);
    size_t end = rd_text_line_end(t, line - 1);
    size_t columns = rd_text_position(t, end, RD_UTF32).character + 1;

    if (column > columns)
        return rd_fail(err, RD_INVALID, "line %zu of %s has %zu columns, not %zu", line, path,
                       columns, column);
    out->start = out->end =
        rd_text_offset(t, (rd_position){ (uint32_t)(line - 1), (uint32_t)(column - 1) }, RD_UTF32);
    return RD_OK;
}

static rd_status lines_named(const json_t *arguments, const rd_text *t, const char *path, span *out,
                             rd_error *err)
{
    size_t lines = count_lines(t);
    size_t first = (size_t)number_of(arguments, "first_line", 1);
    size_t last = (size_t)number_of(arguments, "last_line", (double)lines);

    if (first > lines || last > lines)
        return rd_fail(err, RD_INVALID, "%s has %zu lines, not %zu", path, lines,
                       first > lines ? first : last);
    if (first > last)
        return rd_fail(err, RD_INVALID, "last_line %zu comes before first_line %zu", last, first);
    out->start = rd_text_line_start(t, first - 1);
    out->end = rd_text_line_end(t, last - 1);
    return RD_OK;
}

static rd_status place_named(rd_mcp_tool tool, const json_t *arguments, const char *path,
                             const rd_buf *text, span *out, rd_error *err)
{
    rd_text *t = rd_text_new(text->data, text->len);
    rd_status s = tool == RD_MCP_INFILL ? cursor_named(arguments, t, path, out, err)
                                        : lines_named(arguments, t, path, out, err);

    rd_text_free(t);
    return s;
}

/* What the model need not see of a text of which one piece is scored. */
static span scored_window(const rd_buf *text, span at)
{
    span w = { at.start > SCORE_BEFORE ? at.start - SCORE_BEFORE : 0,
               text->len - at.end > SCORE_BEHIND ? at.end + SCORE_BEHIND : text->len };

    while (w.start > 0 && w.start < at.start && text->data[w.start - 1] != '\n') w.start++;
    while (w.end > at.end && !begins_character(text, w.end)) w.end--;
    return w;
}

static rd_status cut(rd_mcp_call *call, const rd_buf *text, span at, rd_job *job, rd_error *err)
{
    span w = { 0, text->len };

    if (call->tool == RD_MCP_SCORE) {
        if (at.end - at.start > RD_MOST_SCORED_BYTES)
            return rd_fail(err, RD_INVALID,
                           "%zu bytes are more than the %zu that are scored at once",
                           at.end - at.start, RD_MOST_SCORED_BYTES);
        w = scored_window(text, at);
    }
    call->left = w.start;
    rd_buf_append(&job->prefix, text->data + w.start, at.start - w.start);
    rd_buf_append(&job->draft, text->data + at.start, at.end - at.start);
    rd_buf_append(&job->suffix, text->data + at.end, w.end - at.end);
    return RD_OK;
}

/* ---- a call ---- */

static rd_status take_text(rd_mcp_call *call, const json_t *arguments, rd_job *job, rd_error *err)
{
    rd_buf text = { 0 };
    rd_status s;
    span at;

    if (call->tool == RD_MCP_INFILL) {
        append_text(arguments, "prefix", &job->prefix);
        append_text(arguments, "suffix", &job->suffix);
        return RD_OK;
    }
    append_text(arguments, "text", &text);
    s = bytes_named(arguments, &text, &at, err);
    if (!s) s = cut(call, &text, at, job, err);
    rd_buf_clear(&text);
    return s;
}

static rd_status take_file(rd_mcp_call *call, const json_t *arguments, const rd_roots *roots,
                           rd_job *job, rd_error *err)
{
    const json_t *path = given(arguments, "path");
    rd_buf text = { 0 };
    rd_status s;
    span at;

    if (strlen(json_string_value(path)) != json_string_length(path))
        return rd_fail(err, RD_INVALID, "path holds a NUL");
    call->path = rd_copy_text(json_string_value(path), json_string_length(path));
    s = rd_roots_read(roots, call->path, &text, &call->file, err);
    if (!s) s = place_named(call->tool, arguments, call->path, &text, &at, err);
    if (!s) s = cut(call, &text, at, job, err);
    if (!s) job->source = rd_copy_text(call->file.real, strlen(call->file.real));
    rd_buf_clear(&text);
    return s;
}

rd_status rd_mcp_call_read(rd_mcp_call *call, const json_t *arguments, const rd_roots *roots,
                           rd_job *job, rd_error *err)
{
    way by = given(arguments, "path") ? BY_PATH : BY_TEXT;
    const json_t *language = given(arguments, "language");

    if (check(&tools[call->tool], arguments, by, err)) return err->status;
    if (by == BY_PATH ? take_file(call, arguments, roots, job, err)
                      : take_text(call, arguments, job, err))
        return err->status;
    if (language)
        job->language = rd_copy_text(json_string_value(language), json_string_length(language));
    else if (call->path)
        job->language = rd_copy_text(call->path, strlen(call->path));
    append_text(arguments, "instruction", &job->instruction);
    job->max_tokens = (int)number_of(arguments, "max_tokens", 0);
    job->quality = (float)number_of(arguments, "quality", DEFAULT_QUALITY);
    job->max_ms = (int)number_of(arguments, "max_ms", DEFAULT_MS);
    job->unstored =
        rd_scope_settings(roots->scope,
                          job->source ? job->source : "text:", job->language ? job->language : "")
            .uncached;
    return RD_OK;
}

void rd_mcp_call_clear(rd_mcp_call *call)
{
    free(call->path);
    free(call->file.real);
    call->path = call->file.real = NULL;
}

/* ---- results ---- */

/* Six digits are enough: a float's noise is not worth an agent's tokens. */
static json_t *number(double x)
{
    char text[32];

    snprintf(text, sizeof text, "%.6g", x);
    return json_real(strtod(text, NULL));
}

static json_t *infill_result(const rd_event *ev, const rd_answer *answer)
{
    static const char *const reasons[] = { "done", "limit", "time", "empty" };

    return json_pack("{s:o, s:o, s:i, s:i, s:o, s:s}", "completion",
                     rd_repair_string(answer->text.data, answer->text.len), "confidence",
                     number((double)answer->confidence), "tokens", ev->tokens, "forwards",
                     ev->forwards, "ms", number(ev->ms), "reason", reasons[ev->reason]);
}

static json_t *edit_list(const rd_buf *old, const rd_buf *fresh, size_t at)
{
    json_t *list = json_array();
    rd_text_edit *e;
    int n = rd_diff_texts(old->data, old->len, fresh->data, fresh->len, &e);

    for (int i = 0; i < n; i++)
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:o}", "start", (json_int_t)(at + e[i].start), "end",
                            (json_int_t)(at + e[i].end), "text",
                            rd_repair_string(fresh->data + e[i].from, e[i].to - e[i].from)));
    free(e);
    return list;
}

/* The old text as it was given, and the way to the new. */
static json_t *rewrite_result(const rd_mcp_call *call, const rd_event *ev, const rd_answer *answer)
{
    const rd_job *job = ev->job;
    const char *name = call->path ? call->path : "text";
    rd_buf old = { 0 }, fresh = { 0 }, diff = { 0 }, whole = { 0 };

    rd_repair_text(answer->text.data, answer->text.len, RD_UTF16, &fresh);
    rd_buf_append(&fresh, "", 0);
    rd_buf_append(&old, job->prefix.data, job->prefix.len);
    rd_buf_append(&old, job->draft.data, job->draft.len);
    rd_buf_append(&old, job->suffix.data, job->suffix.len);
    rd_buf_append(&diff, "", 0);
    while (*name == '/') name++;
    rd_text_change change = { .text = old.data,
                              .bytes = old.len,
                              .start = job->prefix.len,
                              .end = job->prefix.len + job->draft.len,
                              .fresh = fresh.data,
                              .fresh_bytes = fresh.len };

    rd_diff_unified(&change, name, &diff);
    if (!call->path) rd_buf_append(&whole, job->prefix.data, job->prefix.len);
    rd_buf_append(&whole, fresh.data, fresh.len);
    if (!call->path) rd_buf_append(&whole, job->suffix.data, job->suffix.len);
    json_t *result =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "text", rd_repair_string(whole.data, whole.len),
                  "edits", edit_list(&job->draft, &fresh, job->prefix.len), "diff",
                  rd_repair_string(diff.data, diff.len), "confidence",
                  number((double)answer->confidence), "ms", number(ev->ms));

    rd_buf_clear(&old);
    rd_buf_clear(&fresh);
    rd_buf_clear(&diff);
    rd_buf_clear(&whole);
    return result;
}

static json_t *score_result(const rd_mcp_call *call, const rd_event *ev)
{
    json_t *list = json_array();
    size_t at = call->left + ev->job->prefix.len;

    for (int i = 0; i < ev->n_scores; i++) {
        const rd_score *s = &ev->scores[i];

        json_array_append_new(list, json_pack("{s:I, s:I, s:o, s:o, s:o}", "start",
                                              (json_int_t)(at + s->start), "end",
                                              (json_int_t)(at + s->end), "p", number((double)s->p),
                                              "best", rd_repair_string(s->best, strlen(s->best)),
                                              "p_best", number((double)s->p_best)));
    }
    return json_pack("{s:o}", "tokens", list);
}

json_t *rd_mcp_call_result(const rd_mcp_call *call, const rd_event *ev)
{
    static const rd_answer none = { 0 };
    const rd_answer *answer = ev->n_answers > 0 ? &ev->answers[0] : &none;

    if (call->tool == RD_MCP_SCORE) return score_result(call, ev);
    return call->tool == RD_MCP_REWRITE ? rewrite_result(call, ev, answer)
                                        : infill_result(ev, answer);
}
