/* answer.c - see answer.h. Numbers stand with their low byte first; nothing follows the last text. */
#include "lsp/answer.h"

#include "core/decode/decoder.h"

#include <string.h>

enum {
    VERSION = 1,
    HEAD_BYTES = 12,   /* version, reason, answers, a zero, tokens, ms */
    EACH_BYTES = 8,    /* confidence, bytes */
    TELLING_BYTES = 8, /* of a line; a shorter one says nothing about where it is from */
    MOST_TOKENS = 1 << 20
};
#define MOST_MS 1e9f

bool rd_answer_is_kept(const rd_job *job)
{
    return !job->unstored && (job->kind == RD_JOB_INFILL || job->kind == RD_JOB_REWRITE);
}

static void add(rd_key_maker *k, const rd_buf *b)
{
    rd_key_add(k, b->data ? b->data : "", b->len);
}

rd_key rd_answer_key(const rd_job *job)
{
    return rd_answer_key_of(job, RD_DECODING);
}

rd_key rd_answer_key_of(const rd_job *job, int decoding)
{
    rd_key_maker k;
    uint32_t quality;

    memcpy(&quality, &job->quality, sizeof quality);
    rd_key_begin(&k, "answer");
    rd_key_add_number(&k, decoding);
    rd_key_add_number(&k, job->kind);
    rd_key_add_number(&k, (int64_t)job->realm);
    rd_key_add_number(&k, job->answers > 1 ? job->answers : 1);
    rd_key_add_number(&k, job->max_tokens);
    rd_key_add_number(&k, quality);
    rd_key_add_text(&k, job->language);
    add(&k, &job->prefix);
    add(&k, &job->suffix);
    add(&k, &job->draft);
    add(&k, &job->instruction);
    rd_key_add_number(&k, job->n_neighbours);
    for (int i = 0; i < job->n_neighbours; i++) {
        rd_key_add_text(&k, job->neighbours[i].name);
        add(&k, &job->neighbours[i].text);
    }
    return rd_key_end(&k);
}

/* ---- lines of other files ---- */

static bool holds(const rd_buf *in, const char *line, size_t n)
{
    return in->len >= n && memmem(in->data, in->len, line, n) != NULL;
}

static bool is_a_neighbours(const rd_job *job, const char *line, size_t n)
{
    if (holds(&job->prefix, line, n) || holds(&job->suffix, line, n) || holds(&job->draft, line, n))
        return false;
    for (int i = 0; i < job->n_neighbours; i++)
        if (holds(&job->neighbours[i].text, line, n)) return true;
    return false;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool quotes_a_neighbour(const rd_job *job, const rd_buf *text)
{
    for (size_t at = 0, end; at < text->len; at = end + 1) {
        const char *stop = memchr(text->data + at, '\n', text->len - at);
        size_t last = end = stop ? (size_t)(stop - text->data) : text->len;

        while (at < last && is_space(text->data[at])) at++;
        while (last > at && is_space(text->data[last - 1])) last--;
        if (last - at >= TELLING_BYTES && is_a_neighbours(job, text->data + at, last - at))
            return true;
    }
    return false;
}

/* ---- bytes ---- */

static void put32(rd_buf *out, uint32_t v)
{
    uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    rd_buf_append(out, b, sizeof b);
}

static void put_float(rd_buf *out, float f)
{
    uint32_t v;

    memcpy(&v, &f, sizeof v);
    put32(out, v);
}

static uint32_t get32(const uint8_t *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static float get_float(const uint8_t *b)
{
    uint32_t v = get32(b);
    float f;

    memcpy(&f, &v, sizeof f);
    return f;
}

static bool is_share(float f)
{
    return f >= 0 && f <= 1; /* a number that is none is neither */
}

bool rd_answer_write(const rd_event *ev, rd_buf *out)
{
    size_t bytes = HEAD_BYTES;
    float ms = (float)ev->ms;

    if (!ev->done || ev->status || ev->reason == RD_REASON_TIME) return false;
    if (ev->tokens < 0 || ev->tokens > MOST_TOKENS || !(ms >= 0 && ms <= MOST_MS)) return false;
    for (int i = 0; i < ev->n_answers; i++) {
        const rd_answer *a = &ev->answers[i];

        if (!is_share(a->confidence) || a->text.len > RD_MOST_ANSWER_BYTES) return false;
        if (quotes_a_neighbour(ev->job, &a->text)) return false;
        bytes += EACH_BYTES + a->text.len;
    }
    if (bytes > RD_MOST_ANSWER_BYTES) return false;
    rd_buf_append(out, (uint8_t[]){ VERSION, (uint8_t)ev->reason, (uint8_t)ev->n_answers, 0 }, 4);
    put32(out, (uint32_t)ev->tokens);
    put_float(out, ms);
    for (int i = 0; i < ev->n_answers; i++) {
        put_float(out, ev->answers[i].confidence);
        put32(out, (uint32_t)ev->answers[i].text.len);
        rd_buf_append(out, ev->answers[i].text.data, ev->answers[i].text.len);
    }
    return true;
}

static bool is_head(const uint8_t *b, size_t n)
{
    if (n < HEAD_BYTES || n > RD_MOST_ANSWER_BYTES || b[0] != VERSION || b[3]) return false;
    if (b[1] != RD_REASON_DONE && b[1] != RD_REASON_LIMIT && b[1] != RD_REASON_EMPTY) return false;
    return b[2] <= RD_ANSWERS_MOST && get32(b + 4) <= MOST_TOKENS && get_float(b + 8) >= 0 &&
           get_float(b + 8) <= MOST_MS;
}

/* Every text in its place, and none behind. */
static bool is_body(const uint8_t *b, size_t n)
{
    size_t at = HEAD_BYTES;

    for (int i = 0; i < b[2]; i++) {
        if (n - at < EACH_BYTES || !is_share(get_float(b + at))) return false;
        size_t len = get32(b + at + 4);

        at += EACH_BYTES;
        if (len > n - at) return false;
        at += len;
    }
    return at == n;
}

bool rd_answer_read(const void *bytes, size_t n, rd_event *ev, double *ms)
{
    const uint8_t *b = bytes, *at = b + HEAD_BYTES;

    if (!is_head(b, n) || !is_body(b, n)) return false;
    ev->reason = (rd_reason)b[1];
    ev->n_answers = b[2];
    ev->tokens = (int)get32(b + 4);
    if (ms) *ms = (double)get_float(b + 8);
    for (int i = 0; i < ev->n_answers; i++) {
        rd_answer *a = &ev->answers[i];
        size_t len = get32(at + 4);

        a->confidence = get_float(at);
        rd_buf_append(&a->text, at + EACH_BYTES, len);
        at += EACH_BYTES + len;
    }
    return true;
}
