/* prompt.c - parts of a request to tokens; see prompt.h for the layout and why it stands so. */
#include "core/decode/prompt.h"

#include <string.h>

enum {
    PREFIX_BYTES = 48 << 10, /* of a long prefix at most so much is encoded */
    PREFIX_JUMP = 16 << 10,  /* and its start moves so far at a time */
    QUOTE_BYTES = 4 << 10,
    ANCHOR_BYTES = 1 << 10
};

int rd_layout_find(const rd_tokenizer *t, rd_layout_ids *out)
{
    *out = (rd_layout_ids){
        .mask = rd_tokenizer_id(t, "<|mask|>"),
        .del = rd_tokenizer_id(t, "<|delete|>"),
        .split = rd_tokenizer_id(t, "<|split|>"),
        .eos = rd_tokenizer_id(t, "<|endoftext|>"),
        .pad = rd_tokenizer_id(t, "<|pad|>"),
        .suffix = rd_tokenizer_id(t, "<|suffix|>"),
        .prefix = rd_tokenizer_id(t, "<|prefix|>"),
        .fill = rd_tokenizer_id(t, "<|fill|>"),
        .language = { rd_tokenizer_id(t, "<|lang:other|>"), rd_tokenizer_id(t, "<|lang:python|>"),
                      rd_tokenizer_id(t, "<|lang:c|>") },
    };
    return out->mask >= 0 && out->suffix >= 0 && out->prefix >= 0 && out->fill >= 0 &&
           out->language[0] >= 0 && out->language[1] >= 0 && out->language[2] >= 0;
}

enum rd_language rd_language_of(const char *name)
{
    static const char *const c[] = {
        "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "c++", "cuda", "cu"
    };
    const char *dot = name ? strrchr(name, '.') : NULL, *s = dot ? dot + 1 : name;

    if (!s) return RD_LANGUAGE_OTHER;
    if (!strcmp(s, "python") || !strcmp(s, "py") || !strcmp(s, "pyi")) return RD_LANGUAGE_PYTHON;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        if (!strcmp(s, c[i])) return RD_LANGUAGE_C;
    return RD_LANGUAGE_OTHER;
}

rd_layout rd_layout_default(void)
{
    return (rd_layout){
        .block = 32, .far_most = 256, .far_step = 128, .near_least = 32, .quote_most = 128
    };
}

void rd_layout_context(rd_ids *out, const rd_layout *l, const rd_layout_ids *ids,
                       enum rd_language language, const int32_t *prefix, int prefix_n,
                       const int32_t *quote, int quote_n)
{
    int first = out->n;
    int far_end =
        prefix_n > l->near_least ? (prefix_n - l->near_least) / l->far_step * l->far_step : 0;
    int far_start = far_end > l->far_most ? far_end - l->far_most : 0;

    rd_ids_push(out, ids->language[language]);
    rd_ids_append(out, prefix + far_start, far_end - far_start);
    rd_ids_push(out, ids->suffix);
    rd_ids_append(out, quote, quote_n < l->quote_most ? quote_n : l->quote_most);
    rd_ids_push(out, ids->prefix);
    rd_ids_append(out, prefix + far_end, prefix_n - far_end);
    rd_ids_push(out, ids->fill);
    int echo = l->block - (out->n - first) % l->block;

    /* A text that begins inside the echo repeats the tag instead. */
    for (int i = prefix_n - echo; i < prefix_n; i++)
        rd_ids_push(out, i < 0 ? ids->fill : prefix[i]);
}

/* A long prefix is cut at the first line start behind a multiple of the jump. */
static size_t prefix_cut(const char *text, size_t n)
{
    if (n <= PREFIX_BYTES) return 0;
    size_t at = (n - PREFIX_BYTES + PREFIX_JUMP - 1) / PREFIX_JUMP * PREFIX_JUMP;
    const char *line = memchr(text + at, '\n', n - at);

    if (line && (size_t)(line - text) < n - 1) return (size_t)(line - text);
    /* One endless line: cut it anywhere but inside a character. */
    while (at < n && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
    return at;
}

static size_t at_most(const char *text, size_t n, size_t most)
{
    if (n <= most) return n;
    while (most > 0 && ((unsigned char)text[most] & 0xc0) == 0x80) most--;
    return most;
}

rd_status rd_prompt_parts_make(const rd_tokenizer *t, const char *prefix, size_t prefix_bytes,
                               const char *suffix, size_t suffix_bytes, rd_prompt_parts *out,
                               rd_error *err)
{
    size_t cut = prefix_cut(prefix, prefix_bytes);
    const char *line = suffix_bytes ? memchr(suffix, '\n', suffix_bytes) : NULL;
    size_t quote_at = line ? (size_t)(line - suffix) : suffix_bytes;
    rd_prompt_parts p = { 0 };

    if (quote_at > 0 && line && suffix[quote_at - 1] == '\r') quote_at--;
    if (rd_tokenizer_encode(t, prefix + cut, prefix_bytes - cut, RD_TEXT_PLAIN, &p.prefix, err) ||
        rd_tokenizer_encode(t, suffix + quote_at,
                            at_most(suffix + quote_at, suffix_bytes - quote_at, QUOTE_BYTES),
                            RD_TEXT_PLAIN, &p.quote, err) ||
        rd_tokenizer_encode(t, suffix, at_most(suffix, suffix_bytes, ANCHOR_BYTES), RD_TEXT_PLAIN,
                            &p.anchor, err)) {
        rd_prompt_parts_clear(&p);
        return err->status;
    }
    *out = p;
    return RD_OK;
}

void rd_prompt_parts_clear(rd_prompt_parts *p)
{
    rd_ids_clear(&p->prefix);
    rd_ids_clear(&p->quote);
    rd_ids_clear(&p->anchor);
}

rd_status rd_prompt_make(const rd_tokenizer *t, const rd_layout *l, const rd_layout_ids *ids,
                         enum rd_language language, const char *prefix, size_t prefix_bytes,
                         const char *suffix, size_t suffix_bytes, int anchor_most, rd_prompt *out,
                         rd_error *err)
{
    rd_prompt_parts p = { 0 };

    if (rd_prompt_parts_make(t, prefix, prefix_bytes, suffix, suffix_bytes, &p, err))
        return err->status;
    rd_layout_context(&out->context, l, ids, language, p.prefix.id, p.prefix.n, p.quote.id,
                      p.quote.n);
    rd_ids_append(&out->anchor, p.anchor.id, p.anchor.n < anchor_most ? p.anchor.n : anchor_most);
    rd_prompt_parts_clear(&p);
    return RD_OK;
}

void rd_prompt_clear(rd_prompt *p)
{
    rd_ids_clear(&p->context);
    rd_ids_clear(&p->anchor);
}
