/* mixture.c - the table of the mixture's fields, and what reads it. */
#include "core/train/mixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUMBER, COUNT, SWITCH };

typedef struct field {
    const char *term; /* "mixture." and the key */
    enum kind kind;
    size_t offset;
    double least, most;
    const char *help;
} field;

enum { PREFIX = sizeof "mixture." - 1 };

#define AT(name) offsetof(rd_mixture_options, name)
#define SHARE(key, name, h)                           \
    {                                                 \
        "mixture." key, NUMBER, AT(name), 0.0, 1.0, h \
    }
#define UP_TO(key, name, most, h)                      \
    {                                                  \
        "mixture." key, NUMBER, AT(name), 0.0, most, h \
    }
#define FEW(key, name, least, most, h)                  \
    {                                                   \
        "mixture." key, COUNT, AT(name), least, most, h \
    }
#define ON_OFF(key, name, h)                          \
    {                                                 \
        "mixture." key, SWITCH, AT(name), 0.0, 1.0, h \
    }

static const field fields[] = {
    SHARE("early", early, "the first share of the run"),
    SHARE("next-early", next_early, "next-token samples in it"),
    SHARE("next-late", next_late, "next-token samples behind it"),
    SHARE("suffix-first", suffix_first, "of the next-token samples: suffix, prefix, middle"),
    SHARE("masked", masked, "masked windows, of what is not next tokens"),
    SHARE("edited", edited, "edited windows, of what is not next tokens"),
    SHARE("rewrites", rewrites, "spans to be rewritten, of what is not next tokens"),
    ON_OFF("pairs", pairs, "masked windows come twice: what one shows the other masks"),
    UP_TO("block-8", block_8, 100.0, "weight of windows in blocks of 8"),
    UP_TO("block-16", block_16, 100.0, "of 16"),
    UP_TO("block-32", block_32, 100.0, "of 32"),
    SHARE("rate-least", ask.rate_least, "a block's share of masks is at least"),
    SHARE("rate-most", ask.rate_most, "and at most"),
    SHARE("rate-middle", ask.rate_middle, "blocks whose share of masks lies in 0.3 to 0.8"),
    { "mixture.rate-weight", NUMBER, AT(ask.rate_weight), 1.0, 100.0,
      "a mask weighs one over its block's share of masks, at most" },
    SHARE("wrong-least", wrong_least, "edited windows: share of wrong tokens, at least"),
    SHARE("wrong-most", wrong_most, "and at most"),
    UP_TO("noise-any", noise_any, 100.0, "weight of windows in which any token is wrong"),
    UP_TO("noise-name", noise_name, 100.0, "of those with other names of the file"),
    UP_TO("noise-own", noise_own, 100.0, "of those with the model's own words (a pass more)"),
    UP_TO("noise-fault", noise_fault, 100.0, "of those with a fault a block"),
    UP_TO("hole-empty", hole_empty, 100.0, "weight of holes in which nothing is missing"),
    UP_TO("hole-line", hole_line, 100.0, "of one line"),
    UP_TO("hole-part", hole_part, 100.0, "of a part of a line"),
    UP_TO("hole-lines", hole_lines, 100.0, "of two to five lines"),
    UP_TO("hole-block", hole_block, 100.0, "of a block by its indent"),
    SHARE("hole-inside", hole_inside, "holes that are cut inside tokens"),
    FEW("copies", copies, 1, 16, "noisy copies of a hole's block"),
    SHARE("canvas-full", ask.canvas_full, "canvases that are all masks"),
    SHARE("canvas-short", ask.canvas_short, "canvases with too few masks"),
    SHARE("canvas-long", ask.canvas_long, "canvases with too many"),
    ON_OFF("lengths", ask.lengths, "delete and split are labels; off: canvases are of true length"),
    FEW("drafts", drafts, 0, 3, "copies of a hole with a draft in it"),
    SHARE("draft-line", draft_line, "drafts behind the first that are a similar line"),
    FEW("rewrite-copies", rewrite_copies, 1, 8, "copies of a rewritten span"),
    SHARE("rewrite-clean", rewrite_clean, "copies that are right as they stand"),
    SHARE("rewrite-line", rewrite_line, "of the others: a similar line; else with a fault or two"),
    SHARE("rewrite-own", rewrite_own, "of the others: the model's own words (a pass more)"),
    FEW("context-copies", context_copies, 0, 16, "blocks of the context that are asked for too"),
    UP_TO("keep-weight", ask.keep_weight, 100.0, "weight of a token that is to be kept"),
    UP_TO("length-weight", ask.length_weight, 100.0, "of delete and split in a canvas"),
    UP_TO("draft-length-weight", ask.draft_length_weight, 100.0, "of delete and split in a draft"),
    UP_TO("confidence", confidence, 100.0, "CAP: weight of the entropy of masks that are right"),
};

enum { FIELDS = sizeof fields / sizeof *fields };

_Static_assert((int)FIELDS <= (int)RD_MIXTURE_TERMS, "a term for each field");

rd_mixture_options rd_mixture_defaults(bool trained)
{
    return (rd_mixture_options){ .early = trained ? 0.5f : 0.35f,
                                 .next_early = trained ? 0.3f : 0.8f,
                                 .next_late = trained ? 0.1f : 0.15f,
                                 .suffix_first = 0.5f,
                                 .masked = trained ? 0.05f : 0.12f,
                                 .edited = trained ? 0.0f : 0.12f,
                                 .rewrites = trained ? 0.3f : 0.12f,
                                 .pairs = true,
                                 .block_8 = 1.0f,
                                 .block_16 = 1.0f,
                                 .block_32 = 2.0f,
                                 .wrong_least = 0.05f,
                                 .wrong_most = 0.15f,
                                 .noise_any = 1.0f,
                                 .hole_empty = 0.03f,
                                 .hole_line = 0.42f,
                                 .hole_part = 0.21f,
                                 .hole_lines = 0.22f,
                                 .hole_block = 0.12f,
                                 .hole_inside = 0.1f,
                                 .copies = 5,
                                 .drafts = 3,
                                 .draft_line = 1.0f / 3.0f,
                                 .rewrite_copies = 5,
                                 .rewrite_clean = 0.25f,
                                 .rewrite_line = 0.1f,
                                 .context_copies = 3,
                                 .ask = rd_objective_defaults() };
}

static const char *key_of(const field *f)
{
    return f->term + PREFIX;
}

static double get(const rd_mixture_options *o, const field *f)
{
    const char *at = (const char *)o + f->offset;

    if (f->kind == COUNT) return *(const int *)(const void *)at;
    if (f->kind == SWITCH) return *(const bool *)(const void *)at;
    return (double)*(const float *)(const void *)at;
}

static void set(rd_mixture_options *o, const field *f, double value)
{
    char *at = (char *)o + f->offset;

    if (f->kind == COUNT)
        *(int *)(void *)at = (int)value;
    else if (f->kind == SWITCH)
        *(bool *)(void *)at = value > 0.0;
    else
        *(float *)(void *)at = (float)value;
}

static const field *find(const char *key, size_t n)
{
    for (int i = 0; i < FIELDS; i++)
        if (strlen(key_of(&fields[i])) == n && !memcmp(key_of(&fields[i]), key, n))
            return &fields[i];
    return NULL;
}

static bool is_word(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && !memcmp(text, word, n);
}

/* The value of a field; false: it is none, or out of range. */
static bool read_value(const field *f, const char *text, size_t n, double *out)
{
    char number[32], *end;

    if (f->kind == SWITCH) {
        *out = is_word(text, n, "on") ? 1.0 : 0.0;
        return *out > 0.0 || is_word(text, n, "off");
    }
    if (n == 0 || n >= sizeof number) return false;
    memcpy(number, text, n);
    number[n] = '\0';
    *out = strtod(number, &end);
    return !*end && *out >= f->least && *out <= f->most &&
           !(f->kind == COUNT && *out != floor(*out));
}

static rd_status refuse(const field *f, const char *value, size_t n, rd_error *err)
{
    if (f->kind == SWITCH)
        return rd_fail(err, RD_INVALID, "the mixture: %s is %.*s; it is on or off", key_of(f),
                       n < 40 ? (int)n : 40, value);
    return rd_fail(err, RD_INVALID, "the mixture: %s is %.*s; it is a %snumber from %g to %g",
                   key_of(f), n < 40 ? (int)n : 40, value, f->kind == COUNT ? "whole " : "",
                   f->least, f->most);
}

/* What no field can tell alone. */
static rd_status check(const rd_mixture_options *o, rd_error *err)
{
    if (o->masked + o->edited + o->rewrites > 1.0f)
        return rd_fail(err, RD_INVALID,
                       "the mixture: masked, edited and rewrites are %g together, above 1",
                       (double)(o->masked + o->edited + o->rewrites));
    if (o->noise_any + o->noise_name + o->noise_own + o->noise_fault <= 0.0f)
        return rd_fail(err, RD_INVALID,
                       "the mixture: noise-any, noise-name, noise-own and noise-fault are all 0");
    if (o->rewrite_line + o->rewrite_own > 1.0f)
        return rd_fail(err, RD_INVALID,
                       "the mixture: rewrite-line and rewrite-own are %g together, above 1",
                       (double)(o->rewrite_line + o->rewrite_own));
    if (o->block_8 + o->block_16 + o->block_32 <= 0.0f)
        return rd_fail(err, RD_INVALID, "the mixture: block-8, block-16 and block-32 are all 0");
    if (o->hole_line + o->hole_part + o->hole_lines + o->hole_block <= 0.0f)
        return rd_fail(err, RD_INVALID,
                       "the mixture: hole-line, hole-part, hole-lines and "
                       "hole-block are all 0");
    if (o->wrong_least > o->wrong_most)
        return rd_fail(err, RD_INVALID, "the mixture: wrong-least is above wrong-most");
    if (o->ask.rate_least > o->ask.rate_most)
        return rd_fail(err, RD_INVALID, "the mixture: rate-least is above rate-most");
    if (o->ask.canvas_short + o->ask.canvas_long > 1.0f)
        return rd_fail(err, RD_INVALID,
                       "the mixture: canvas-short and canvas-long are %g together, above 1",
                       (double)(o->ask.canvas_short + o->ask.canvas_long));
    return RD_OK;
}

rd_status rd_mixture_parse(rd_mixture_options *o, const char *text, rd_error *err)
{
    while (*text) {
        size_t n = strcspn(text, ","), k = strcspn(text, "=,");
        const field *f = find(text, k);
        double value;

        if (!f)
            return rd_fail(err, RD_INVALID, "the mixture has no key %.*s (--mix list names them)",
                           k < 60 ? (int)k : 60, text);
        if (k == n)
            return rd_fail(err, RD_INVALID, "the mixture: %s has no value (KEY=VALUE)", key_of(f));
        if (!read_value(f, text + k + 1, n - k - 1, &value))
            return refuse(f, text + k + 1, n - k - 1, err);
        set(o, f, value);
        text += n;
        text += *text == ',';
    }
    return check(o, err);
}

static void print_value(const rd_mixture_options *o, const field *f, char *out, size_t n)
{
    if (f->kind == SWITCH)
        snprintf(out, n, "%s", get(o, f) > 0.0 ? "on" : "off");
    else
        snprintf(out, n, "%g", get(o, f));
}

int rd_mixture_terms(const rd_mixture_options *o, rd_kept_term out[RD_MIXTURE_TERMS])
{
    for (int i = 0; i < FIELDS; i++) {
        out[i] = (rd_kept_term){ .name = fields[i].term };
        print_value(o, &fields[i], out[i].value, sizeof out[i].value);
    }
    return FIELDS;
}

void rd_mixture_describe(const rd_mixture_options *o, rd_buf *out)
{
    for (int i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        char value[32], range[48];

        print_value(o, f, value, sizeof value);
        snprintf(range, sizeof range, "%g to %g", f->least, f->most);
        rd_buf_format(out, "%-20s %-9s %-9s %s\n", key_of(f), value,
                      f->kind == SWITCH ? "on, off" : range, f->help);
    }
}
