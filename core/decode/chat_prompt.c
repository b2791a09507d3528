/* chat_prompt.c - what a chat model is told about a hole; see chat_prompt.h for the layout. */
#include "core/decode/chat_prompt.h"

#include <string.h>

enum {
    INSTRUCTION_BYTES = 4 << 10,
    NAME_BYTES = 256,
    DRAFT_MOST = 512, /* tokens of the draft that are quoted; its slots hold all of it */
    LINE_MOST = 64    /* tokens among which a line start is looked for */
};

static const char infill_rules[] =
    "Fill in the missing piece of a file. <before> is the text up to it and ends exactly where it "
    "begins; <after> follows the line it stands in; <earlier> stands above <before>. Repeat the "
    "last words of <before>, write the missing piece, and go on with the text that follows. "
    "Nothing else: no quotes, no remarks.\n";

static const char rewrite_rules[] =
    "Rewrite a piece of a file. <piece> is what it says now. <before> is the text up to it and "
    "ends exactly where it begins; <after> follows it; <earlier> stands above <before>. Repeat the "
    "last words of <before>, write the piece anew, and go on with the text that follows. Leave as "
    "it is what need not change. Nothing else: no quotes, no remarks.\n";

rd_layout rd_chat_layout(int block)
{
    return (rd_layout){
        .block = block, .far_most = 1024, .far_step = 128, .near_least = 128, .quote_most = 256
    };
}

/* The first line start at or behind `at`; `at` itself where there is none among the next LINE_MOST tokens. */
static int line_start(const rd_tokenizer *t, const rd_ids *text, int at)
{
    for (int i = at; i > 0 && i < text->n && i < at + LINE_MOST; i++) {
        size_t n;
        const char *bytes = rd_tokenizer_bytes(t, text->id[i - 1], &n);

        if (n > 0 && bytes[n - 1] == '\n') return i;
    }
    return at;
}

static int round_up(int n, int step)
{
    return (n + step - 1) / step * step;
}

typedef struct writer {
    const rd_tokenizer *t;
    rd_ids *out;
    rd_error *err;
    rd_status status;
} writer;

static void put_bytes(writer *w, const char *text, size_t n)
{
    if (!w->status) w->status = rd_tokenizer_encode(w->t, text, n, RD_TEXT_PLAIN, w->out, w->err);
}

static void put(writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

/* The end of `far` moves in steps, its start in jumps of half its length: while the cursor goes down a file,
 * most of the far prefix is found again. Both stand at line starts. */
static void put_far(writer *w, const rd_layout *l, const rd_ids *prefix, int most, int *end)
{
    int start = 0;

    *end = prefix->n > l->near_least ? (prefix->n - l->near_least) / l->far_step * l->far_step : 0;
    if (*end == 0) return;
    if (*end > most) start = line_start(w->t, prefix, round_up(*end - most, most / 2));
    *end = line_start(w->t, prefix, *end);
    put(w, "<earlier>\n");
    rd_ids_append(w->out, prefix->id + start, *end - start);
    put(w, "</earlier>\n");
}

static void put_head(writer *w, const rd_chat_parts *p)
{
    put(w, p->draft ? rewrite_rules : infill_rules);
    if (p->name && p->name[0]) {
        put(w, "File: ");
        put_bytes(w, p->name, strnlen(p->name, NAME_BYTES));
        put(w, "\n");
    }
    if (p->instruction && p->instruction_bytes > 0) {
        put(w, "Instruction: ");
        put_bytes(w, p->instruction, p->instruction_bytes);
        put(w, "\n");
    }
}

static void put_draft(writer *w, const char *draft, size_t n)
{
    int before;

    put(w, "<piece>");
    before = w->out->n;
    put_bytes(w, draft, n);
    if (w->out->n > before + DRAFT_MOST) w->out->n = before + DRAFT_MOST;
    put(w, "</piece>\n");
}

/* The content of the user's turn; *seam is where newlines may be put in. */
static void put_content(writer *w, const rd_layout *l, const rd_chat_parts *p,
                        const rd_prompt_parts *parts, int *seam)
{
    const rd_ids *prefix = &parts->prefix;
    int far_end;

    put_head(w, p);
    put_far(w, l, prefix, p->draft ? l->far_most / 2 : l->far_most, &far_end);
    put(w, "<after>");
    rd_ids_append(w->out, parts->quote.id,
                  parts->quote.n < l->quote_most ? parts->quote.n : l->quote_most);
    put(w, "</after>\n");
    if (p->draft) put_draft(w, p->draft, p->draft_bytes);
    *seam = w->out->n;
    put(w, "<before>\n");
    rd_ids_append(w->out, prefix->id + far_end, prefix->n - far_end);
}

/* `n` newlines, a token each, before the token `at`. */
static void put_newlines(writer *w, int at, int n)
{
    rd_ids tail = { 0 };

    rd_ids_append(&tail, w->out->id + at, w->out->n - at);
    w->out->n = at;
    for (int i = 0; i < n; i++) put(w, "\n");
    rd_ids_append(w->out, tail.id, tail.n);
    rd_ids_clear(&tail);
}

rd_status rd_chat_prompt_make(const rd_tokenizer *t, rd_chat_kind kind, const rd_layout *l,
                              const rd_chat_parts *p, rd_prompt *out, rd_error *err)
{
    rd_prompt_parts parts = { 0 };
    rd_ids context = { 0 };
    writer w = { .t = t, .out = &context, .err = err };
    int seam = 0;

    if (p->instruction && p->instruction_bytes > INSTRUCTION_BYTES)
        return rd_fail(err, RD_INVALID, "an instruction of %zu bytes; %d are the most",
                       p->instruction_bytes, INSTRUCTION_BYTES);
    if (rd_prompt_parts_make(t, p->prefix, p->prefix_bytes, p->suffix, p->suffix_bytes, &parts,
                             err))
        return err->status;
    const rd_ids *prefix = &parts.prefix;

    w.status = rd_chat_open_user(t, kind, &context, err);
    put_content(&w, l, p, &parts, &seam);
    if (!w.status) w.status = rd_chat_close_user(t, kind, &context, err);
    int echo = l->block - context.n % l->block;

    if (echo > prefix->n) {
        put_newlines(&w, seam, echo - prefix->n);
        echo = prefix->n;
    }
    rd_ids_append(&context, prefix->id + prefix->n - echo, echo);
    if (!w.status) {
        rd_ids_append(&out->context, context.id, context.n);
        rd_ids_append(&out->anchor, parts.anchor.id,
                      parts.anchor.n < l->block ? parts.anchor.n : l->block);
    }
    rd_ids_clear(&context);
    rd_prompt_parts_clear(&parts);
    return w.status;
}
