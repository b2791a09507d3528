/* doubt.c - one walk over the tokens: doubtful ones begin a doubt, or go on with the one before. */
#include "lsp/doubt.h"

#include "lsp/utf8.h"

#include <stdbool.h>
#include <string.h>

enum { QUOTED_MOST = 60 };

static const struct {
    float p, p_best; /* at most, at least */
    size_t gap;      /* bytes between tokens of one doubt */
} limits[] = { [RD_DOUBT_SHOW] = { 0.01f, 0.9f, 0 }, [RD_DOUBT_MEND] = { 0.05f, 0.5f, 12 } };

static bool is_white(const char *s, size_t n)
{
    return strspn(s, " \t\r\n") >= n;
}

static size_t word_start(const char *text, size_t at)
{
    if (rd_is_word(text[at]))
        while (at > 0 && rd_is_word(text[at - 1])) at--;
    return at;
}

static size_t word_end(const char *text, size_t n, size_t at)
{
    if (at > 0 && rd_is_word(text[at - 1]))
        while (at < n && rd_is_word(text[at])) at++;
    return at;
}

static bool is_doubtful(rd_doubt_use use, const char *text, const rd_score *s)
{
    size_t len = s->end - s->start, best = strlen(s->best);

    return s->p <= limits[use].p && s->p_best >= limits[use].p_best && len > 0 &&
           !is_white(text + s->start, len) && !is_white(s->best, best) &&
           !(len == best && !memcmp(text + s->start, s->best, len));
}

/* Put `best` behind what the doubt has already, with the text between. */
static void take(rd_doubt *d, const char *text, size_t start, size_t end, const char *best,
                 const rd_score *s)
{
    if (start > d->end) rd_buf_append(&d->best, text + d->end, start - d->end);
    rd_buf_text(&d->best, best);
    d->end = end;
    if (s->p < d->p) d->p = s->p;
    if (s->p_best < d->p_best) d->p_best = s->p_best;
}

static void close_doubt(rd_doubt *d, const char *text, size_t n)
{
    size_t end = word_end(text, n, d->end);

    rd_buf_append(&d->best, text + d->end, end - d->end);
    d->end = end;
}

/* Whether a token at `start` still belongs to `d`. */
static bool goes_on(const rd_doubt *d, const char *text, size_t n, size_t start, size_t gap)
{
    size_t end = word_end(text, n, d->end);

    return start <= end + gap && (start <= d->end || !memchr(text + d->end, '\n', start - d->end));
}

int rd_doubts_find(rd_doubt_use use, const char *text, size_t n, const rd_score *s, int n_scores,
                   rd_doubt *out, int most)
{
    int count = 0;

    for (int i = 0; i < n_scores; i++) {
        if (s[i].end > n || s[i].start > s[i].end || !is_doubtful(use, text, &s[i])) continue;
        size_t start = s[i].start;
        const char *best = s[i].best;

        for (; text[start] == ' ' && *best == ' '; start++) best++;
        bool on = count > 0 && goes_on(&out[count - 1], text, n, s[i].start, limits[use].gap);

        if (!on) {
            if (count > 0) close_doubt(&out[count - 1], text, n);
            if (count == most) return count;
            size_t from = word_start(text, start);

            out[count++] = (rd_doubt){ .start = from, .end = from, .p = 1.0f, .p_best = 1.0f };
        }
        take(&out[count - 1], text, start, s[i].end, best, &s[i]);
    }
    if (count > 0) close_doubt(&out[count - 1], text, n);
    return count;
}

void rd_doubts_clear(rd_doubt *doubts, int n)
{
    for (int i = 0; i < n; i++) rd_buf_clear(&doubts[i].best);
}

static void percent(rd_buf *out, float p)
{
    if (p < 0.005f)
        rd_buf_text(out, "(under 1 %)");
    else
        rd_buf_format(out, "(%.0f %%)", (double)p * 100.0);
}

/* In backquotes, on one line, not for ever. */
static void quote(rd_buf *out, const char *text, size_t n)
{
    size_t shown = n < QUOTED_MOST ? n : QUOTED_MOST;

    while (shown < n && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80) shown--;
    rd_buf_text(out, "`");
    for (size_t i = 0; i < shown; i++)
        rd_buf_append(out, (unsigned char)text[i] < ' ' ? " " : text + i, 1);
    rd_buf_text(out, shown < n ? "...`" : "`");
}

void rd_doubt_message(const rd_doubt *d, const char *text, rd_buf *out)
{
    quote(out, text + d->start, d->end - d->start);
    rd_buf_text(out, " is unlikely here ");
    percent(out, d->p);
    rd_buf_text(out, "; the model would write ");
    quote(out, d->best.data, d->best.len);
    rd_buf_text(out, " ");
    percent(out, d->p_best);
}
