/* chat.c - tags by id, contents as plain text, nothing between them. */
#include "core/format/chat.h"

#include "core/format/file.h"
#include "core/format/record.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TEMPLATE_BYTES = 1 << 20 };

rd_status rd_chat_detect_text(const char *text, const char *name, rd_chat_kind *out, rd_error *err)
{
    if (strstr(text, "tool_calls_section_begin")) {
        *out = RD_CHAT_22;
        return RD_OK;
    }
    if (strstr(text, "<role>SYSTEM</role>") && strstr(text, "<role>HUMAN</role>") &&
        strstr(text, "<|role_end|>")) {
        *out = RD_CHAT_20;
        return RD_OK;
    }
    return rd_fail(err, RD_INVALID, "%s: the chat template is none of the known ones: \"%.60s\"",
                   name, text);
}

rd_status rd_chat_detect(const char *dir, rd_chat_kind *out, rd_error *err)
{
    char *path = rd_path_join(dir, "chat_template.jinja");
    rd_record *r = NULL;
    rd_buf text = { 0 };
    struct stat st;
    rd_status s = RD_OK;
    size_t n;

    *out = RD_CHAT_NONE;
    if (!stat(path, &st)) {
        s = rd_file_read(path, TEMPLATE_BYTES, &text, err);
        if (!s) s = rd_chat_detect_text(text.data ? text.data : "", path, out, err);
    } else {
        free(path);
        path = rd_path_join(dir, "tokenizer_config.json");
        if (!stat(path, &st)) {
            s = rd_record_read(path, &r, err);
            const char *t =
                s ? NULL : rd_value_text(rd_value_get(rd_record_top(r), "chat_template"), &n);

            if (t) s = rd_chat_detect_text(t, path, out, err);
        }
    }
    rd_record_free(r);
    rd_buf_clear(&text);
    free(path);
    return s;
}

typedef struct writer {
    const rd_tokenizer *t;
    rd_ids *out;
    rd_error *err;
    rd_status status;
} writer;

/* A tag that the tokenizer must have. */
static void put_tag(writer *w, const char *content)
{
    int32_t id = rd_tokenizer_id(w->t, content);

    if (w->status) return;
    if (id < 0 || !rd_tokenizer_is_added(w->t, id))
        w->status = rd_fail(w->err, RD_INVALID, "the tokenizer has no %s; its chat layout needs it",
                            content);
    else
        rd_ids_push(w->out, id);
}

static void put_text(writer *w, const char *text, size_t n)
{
    if (!w->status) w->status = rd_tokenizer_encode(w->t, text, n, RD_TEXT_PLAIN, w->out, w->err);
}

static void put_role(writer *w, const char *role)
{
    put_tag(w, "<role>");
    put_text(w, role, strlen(role));
    put_tag(w, "</role>");
}

static const char *const roles_20[] = { "SYSTEM", "HUMAN", "ASSISTANT", "OBSERVATION" };
static const char *const roles_22[] = { "system", "user", "assistant", "tool" };
static const char thinking_off[] = "detailed thinking off";

/* <role>SYSTEM</role>{text, newline}detailed thinking off<|role_end|><role>HUMAN</role>... */
static void write_20(writer *w, const rd_chat_message *m, int n)
{
    bool system_first = n > 0 && m[0].role == RD_CHAT_SYSTEM;
    rd_buf text = { 0 };

    put_role(w, "SYSTEM");
    if (system_first) {
        rd_buf_append(&text, m[0].text, m[0].bytes);
        rd_buf_text(&text, "\n");
    }
    rd_buf_text(&text, thinking_off);
    put_text(w, text.data, text.len);
    put_tag(w, "<|role_end|>");
    for (int i = system_first; i < n; i++) {
        put_role(w, roles_20[m[i].role]);
        rd_buf_reset(&text);
        if (m[i].role == RD_CHAT_TOOL) rd_buf_text(&text, "\n<tool_response>\n");
        rd_buf_append(&text, m[i].text, m[i].bytes);
        if (m[i].role == RD_CHAT_TOOL) rd_buf_text(&text, "\n</tool_response>");
        put_text(w, text.data, text.len);
        put_tag(w, "<|role_end|>");
    }
    put_role(w, roles_20[RD_CHAT_ASSISTANT]);
    rd_buf_clear(&text);
}

/* <role>user</role>...<|role_end|><|endoftext|>; unverified. */
static void write_22(writer *w, const rd_chat_message *m, int n)
{
    for (int i = 0; i < n; i++) {
        put_role(w, roles_22[m[i].role]);
        put_text(w, m[i].text, m[i].bytes);
        put_tag(w, "<|role_end|>");
        put_tag(w, "<|endoftext|>");
    }
    put_role(w, roles_22[RD_CHAT_ASSISTANT]);
}

rd_status rd_chat_encode(const rd_tokenizer *t, rd_chat_kind kind, const rd_chat_message *messages,
                         int n, rd_ids *out, rd_error *err)
{
    writer w = { .t = t, .out = out, .err = err };
    int before = out->n;

    if (kind == RD_CHAT_20)
        write_20(&w, messages, n);
    else if (kind == RD_CHAT_22)
        write_22(&w, messages, n);
    else
        w.status = rd_fail(err, RD_INVALID, "the checkpoint has no chat layout");
    if (w.status) out->n = before;
    return w.status;
}

rd_status rd_chat_open_user(const rd_tokenizer *t, rd_chat_kind kind, rd_ids *out, rd_error *err)
{
    writer w = { .t = t, .out = out, .err = err };
    int before = out->n;

    if (kind == RD_CHAT_NONE) return rd_fail(err, RD_INVALID, "the checkpoint has no chat layout");
    if (kind == RD_CHAT_20) {
        put_role(&w, roles_20[RD_CHAT_SYSTEM]);
        put_text(&w, thinking_off, sizeof thinking_off - 1);
        put_tag(&w, "<|role_end|>");
    }
    put_role(&w, kind == RD_CHAT_20 ? roles_20[RD_CHAT_USER] : roles_22[RD_CHAT_USER]);
    if (w.status) out->n = before;
    return w.status;
}

rd_status rd_chat_close_user(const rd_tokenizer *t, rd_chat_kind kind, rd_ids *out, rd_error *err)
{
    writer w = { .t = t, .out = out, .err = err };
    int before = out->n;

    if (kind == RD_CHAT_NONE) return rd_fail(err, RD_INVALID, "the checkpoint has no chat layout");
    put_tag(&w, "<|role_end|>");
    if (kind == RD_CHAT_22) put_tag(&w, "<|endoftext|>");
    put_role(&w, kind == RD_CHAT_20 ? roles_20[RD_CHAT_ASSISTANT] : roles_22[RD_CHAT_ASSISTANT]);
    if (w.status) out->n = before;
    return w.status;
}
