/* draft.c - lines of the file as signatures of their trigrams, compared with the hole's neighbours. */
#include "core/decode/draft.h"

#include "core/base/memory.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE_BYTES = 64 << 10,
    LINES_MOST = 4096, /* of each side, and of all other texts */
    NEIGHBOURS = 3,    /* lines above and below that are compared */
    SPAN_MOST = 6,     /* lines of a draft */
    LEFT_MOST = 24,    /* bytes of the cursor's line that count */
    MATCH_MOST =
        1024, /* and that are compared at all: long lines would take their lengths' product */
    WORTH_BYTES = 3, /* of a line offered as a whole: a bare bracket is not worth reading */
    WORDS = 4,       /* of a signature */
    NAMES_MOST = 16
};

typedef struct line {
    const char *text; /* without indent and trailing space */
    int n, indent;
    uint64_t bits[WORDS];
    int count;
} line;

typedef struct side {
    line *lines; /* those with text, in the file's order */
    int n;
    int before; /* of another text: lines that count as nearer than its first */
} side;

/* What speaks for a candidate. */
enum {
    LEFT_WHOLE, /* the cursor's line so far is how the found line begins */
    LEFT_PART,  /* or how much of its end stands there */
    ABOVE,      /* how alike the lines above are, the nearest first */
    BELOW = ABOVE + NEIGHBOURS,
    ABOVE_ENDS = BELOW + NEIGHBOURS, /* the same by what the lines share at both ends */
    BELOW_ENDS = ABOVE_ENDS + NEIGHBOURS,
    ABOVE_SAME = BELOW_ENDS + NEIGHBOURS,
    BELOW_SAME,
    RIGHT_PART, /* how much of what stands right of the cursor follows */
    MORE_LINES,
    RENAMED,  /* words were put into it that its surroundings have in place of its own */
    NOT_SO,   /* they have others, and it was left as it is */
    DISTANCE, /* logarithm of the lines between */
    LENGTH,   /* logarithm of its bytes */
    OFTEN,    /* logarithm of how often it is found */
    FEATURES
};

/* From 4000 holes in the training packages, as a choice of the right text among all of its file's. */
static const float weight[FEATURES] = {
    [LEFT_WHOLE] = 1.50f,     [LEFT_PART] = 0.53f,      [ABOVE] = 1.57f,
    [ABOVE + 1] = 0.75f,      [ABOVE + 2] = 0.40f,      [BELOW] = 1.46f,
    [BELOW + 1] = 0.63f,      [BELOW + 2] = 0.33f,      [ABOVE_ENDS] = 1.95f,
    [ABOVE_ENDS + 1] = 0.70f, [ABOVE_ENDS + 2] = 0.55f, [BELOW_ENDS] = 1.28f,
    [BELOW_ENDS + 1] = 0.50f, [BELOW_ENDS + 2] = 0.57f, [ABOVE_SAME] = 0.33f,
    [BELOW_SAME] = 0.53f,     [RIGHT_PART] = 0.83f,     [MORE_LINES] = -0.98f,
    [RENAMED] = 1.01f,        [NOT_SO] = -0.69f,        [DISTANCE] = -0.36f,
    [LENGTH] = -0.57f,        [OFTEN] = 0.46f
};

typedef struct candidate {
    const side *s;
    int line, last; /* lines of s */
    const char *from, *end;
    uint64_t hash;
    int count;
    float feature[FEATURES];
    float score;
} candidate;

/* Words of the found lines and what stands for them around the cursor. */
typedef struct names {
    struct {
        const char *old, *fresh;
        int old_n, fresh_n;
    } pair[NAMES_MOST];
    int n;
    long step; /* by which all numbers differ; 0: not all by the same, or there are none */
    bool steps;
} names;

typedef struct search {
    line left, right;
    side above, below, others[RD_DRAFT_TEXTS_MOST];
    int n_others;
    candidate *list;
    int n;
    int *slots; /* of hashes: candidate + 1 */
    int slots_n;
    rd_arena texts; /* of candidates that are not as they stand in the file */
} search;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f';
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static line make_line(const char *text, const char *end)
{
    line l = { .text = text };
    const char *stop = end;

    while (l.text < stop && is_space(*l.text)) l.text++;
    while (stop > l.text && is_space(stop[-1])) stop--;
    l.indent = (int)(l.text - text);
    l.n = (int)(stop - l.text);
    uint32_t window = 0;

    for (int i = 0; i < l.n; i++) {
        window = (window << 8 | (unsigned char)l.text[i]) & 0xffffff;
        uint32_t h = window * 2654435761u >> 24;

        l.bits[h >> 6] |= 1ull << (h & 63);
    }
    for (int i = 0; i < WORDS; i++) l.count += __builtin_popcountll(l.bits[i]);
    return l;
}

/* How alike two lines are: 1 the same, 0 nothing in common (Dice's coefficient of their trigrams). */
static float alike(const line *a, const line *b)
{
    int both = 0;

    for (int i = 0; i < WORDS; i++) both += __builtin_popcountll(a->bits[i] & b->bits[i]);
    return a->count + b->count ? 2.0f * (float)both / (float)(a->count + b->count) : 0.0f;
}

/* The share of the longer line that both have in common at their ends. */
static float alike_at_ends(const line *a, const line *b)
{
    int n = a->n < b->n ? a->n : b->n, longest = a->n < b->n ? b->n : a->n, head = 0, tail = 0;

    n = n < MATCH_MOST ? n : MATCH_MOST;
    while (head < n && a->text[head] == b->text[head]) head++;
    while (tail < n - head && a->text[a->n - 1 - tail] == b->text[b->n - 1 - tail]) tail++;
    return longest ? (float)(head + tail) / (float)longest : 0.0f;
}

static bool same(const line *a, const line *b)
{
    return a->n == b->n && !memcmp(a->text, b->text, (size_t)a->n);
}

static side split_lines(const char *text, const char *end, int most)
{
    side s = { .lines = rd_alloc_array((size_t)most + 1, sizeof *s.lines) };

    while (text < end && s.n < most) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));

        if (!stop) stop = end;
        line l = make_line(text, stop);

        if (l.n > 0) s.lines[s.n++] = l;
        text = stop + 1;
    }
    return s;
}

/* ---- the rest of a line ---- */

/* The longest end of the cursor's line that occurs in `l`, not cut inside a word: where it ends there. */
static const char *match_left(const line *l, const line *left, int *length)
{
    const char *best = NULL;

    *length = 0;
    for (int at = 0; at < l->n; at++) {
        int k = 0;

        while (k < left->n && k < MATCH_MOST && k <= at &&
               left->text[left->n - 1 - k] == l->text[at - k])
            k++;
        bool whole = k == left->n && k == at + 1;
        /* A match that begins inside a word is as long as its whole words. */
        while (!whole && k > 0 && k < left->n && is_word(left->text[left->n - k]) &&
               is_word(left->text[left->n - k - 1]))
            k--;
        if (whole) k += LEFT_MOST;
        if (k <= *length) continue;
        *length = k;
        best = l->text + at + 1;
    }
    return best;
}

/* Where what stands right of the cursor begins in [from, end): its longest start that occurs there. */
static const char *match_right(const char *from, const char *end, const char *right, int n,
                               int *length)
{
    const char *best = NULL;
    int most = 0;

    for (const char *at = from; at < end; at++) {
        int k = 0;

        while (k < n && k < MATCH_MOST && at + k < end && at[k] == right[k]) k++;
        if (k < most || k == 0) continue;
        most = k;
        best = at;
    }
    *length = most < 16 ? most : 16;
    return best;
}

/* ---- candidates ---- */

static uint64_t hash_bytes(const char *s, const char *end)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; s < end; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h ^ h >> 29;
}

static float log_of(int n)
{
    return logf(1.0f + (float)n);
}

/* Keep the better of two candidates with the same text, and count them. */
static void offer(search *f, candidate c)
{
    if (c.end <= c.from) return;
    c.hash = hash_bytes(c.from, c.end);
    c.count = 1;
    c.feature[LENGTH] = log_of((int)(c.end - c.from));
    for (int i = 0; i < FEATURES; i++) c.score += weight[i] * c.feature[i];
    size_t at = c.hash & (uint64_t)(f->slots_n - 1);

    for (; f->slots[at]; at = (at + 1) & (size_t)(f->slots_n - 1)) {
        candidate *known = &f->list[f->slots[at] - 1];

        if (known->hash != c.hash) continue;
        c.count = known->count + 1;
        if (c.score > known->score)
            *known = c;
        else
            known->count = c.count;
        return;
    }
    f->list[f->n++] = c;
    f->slots[at] = f->n;
}

/* The surroundings of line i of `s`, and of the cursor; `last` is the last line of the candidate. */
static void look_around(const search *f, const side *s, int i, int last, float *feature)
{
    for (int k = 0; k < NEIGHBOURS; k++) {
        const line *up = f->above.n > k ? &f->above.lines[f->above.n - 1 - k] : NULL;
        const line *down = f->below.n > k ? &f->below.lines[k] : NULL;

        if (up && i - 1 - k >= 0) {
            feature[ABOVE + k] = alike(up, &s->lines[i - 1 - k]);
            feature[ABOVE_ENDS + k] = alike_at_ends(up, &s->lines[i - 1 - k]);
        }
        if (down && last + 1 + k < s->n) {
            feature[BELOW + k] = alike(down, &s->lines[last + 1 + k]);
            feature[BELOW_ENDS + k] = alike_at_ends(down, &s->lines[last + 1 + k]);
        }
        if (k > 0) continue;
        feature[ABOVE_SAME] = up && i > 0 && same(up, &s->lines[i - 1]);
        feature[BELOW_SAME] = down && last + 1 < s->n && same(down, &s->lines[last + 1]);
    }
}

/* ---- other names ---- */

static int piece_at(const line *l, int at)
{
    int n = 1;

    if (is_word(l->text[at]))
        while (at + n < l->n && is_word(l->text[at + n])) n++;
    return n;
}

static bool number_of(const char *s, int n, long *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || n > 9) return false;
        *out = 10 * *out + s[i] - '0';
    }
    return true;
}

static void learn(names *m, const char *old, int old_n, const char *fresh, int fresh_n)
{
    long from, to;

    if (number_of(old, old_n, &from) && number_of(fresh, fresh_n, &to)) {
        m->step = !m->steps || m->step == to - from ? to - from : 0;
        m->steps = true;
    }

    for (int i = 0; i < m->n; i++)
        if (m->pair[i].old_n == old_n && !memcmp(m->pair[i].old, old, (size_t)old_n)) return;
    if (m->n == NAMES_MOST) return;
    m->pair[m->n].old = old;
    m->pair[m->n].old_n = old_n;
    m->pair[m->n].fresh = fresh;
    m->pair[m->n++].fresh_n = fresh_n;
}

/* The words in which two lines differ, where nothing but words differs. A word that stays the same is learnt
 * too: another pair of lines must not rename it. */
static void learn_from(names *m, const line *old, const line *fresh)
{
    names found = *m;
    int a = 0, b = 0;

    while (a < old->n && b < fresh->n) {
        int n = piece_at(old, a), k = piece_at(fresh, b);
        bool equal = n == k && !memcmp(old->text + a, fresh->text + b, (size_t)n);

        if (is_word(old->text[a]) != is_word(fresh->text[b])) return;
        if (!equal && !is_word(old->text[a])) return;
        if (is_word(old->text[a])) learn(&found, old->text + a, n, fresh->text + b, k);
        a += n;
        b += k;
    }
    if (a == old->n && b == fresh->n) *m = found;
}

/* What stands for a word around the cursor: itself where nothing is known. */
static void put_word(rd_buf *out, const names *m, const char *word, int n)
{
    long number;

    for (int i = 0; i < m->n; i++) {
        if (m->pair[i].old_n != n || memcmp(m->pair[i].old, word, (size_t)n) != 0) continue;
        rd_buf_append(out, m->pair[i].fresh, (size_t)m->pair[i].fresh_n);
        return;
    }
    if (m->step && number_of(word, n, &number) && number + m->step >= 0)
        rd_buf_format(out, "%ld", number + m->step);
    else
        rd_buf_append(out, word, (size_t)n);
}

/* The candidate's text with the names that stand around the cursor; false when none of its words changes. */
static bool rename_words(search *f, candidate *c, const names *m)
{
    line l = { .text = c->from, .n = (int)(c->end - c->from) };
    rd_buf b = { 0 };

    for (int at = 0, n; at < l.n; at += n) {
        n = piece_at(&l, at);
        if (is_word(l.text[at]))
            put_word(&b, m, l.text + at, n);
        else
            rd_buf_append(&b, l.text + at, (size_t)n);
    }
    bool changed = b.len != (size_t)l.n || memcmp(b.data, l.text, b.len) != 0;

    if (changed) {
        c->from = rd_arena_copy_text(&f->texts, b.data, b.len);
        c->end = c->from + b.len;
    }
    rd_buf_clear(&b);
    return changed;
}

static void learn_names(const search *f, const candidate *c, names *m)
{
    const side *s = c->s;

    *m = (names){ 0 };
    for (int k = 0; k < NEIGHBOURS; k++) {
        if (f->above.n > k && c->line - 1 - k >= 0)
            learn_from(m, &s->lines[c->line - 1 - k], &f->above.lines[f->above.n - 1 - k]);
        if (f->below.n > k && c->last + 1 + k < s->n)
            learn_from(m, &s->lines[c->last + 1 + k], &f->below.lines[k]);
    }
}

/* The text as it stands, and with other names. */
static void offer_both(search *f, candidate c)
{
    candidate other = c;
    names m;

    if (c.end <= c.from) return;
    learn_names(f, &c, &m);
    if (m.n > 0 && rename_words(f, &other, &m)) {
        other.feature[RENAMED] = 1.0f;
        c.feature[NOT_SO] = 1.0f;
        offer(f, other);
    }
    offer(f, c);
}

/* ---- lines ---- */

static void look_at(search *f, const side *s, int i)
{
    const line *l = &s->lines[i];
    candidate c = { .s = s, .line = i, .last = i, .from = l->text, .end = l->text + l->n };
    int shared = 0, distance = s == &f->above ? f->above.n - i : s->before + i + 1;

    if (f->left.n == 0 && f->right.n == 0 && l->n < WORTH_BYTES) return;
    c.feature[DISTANCE] = log_of(distance);
    if (f->left.n > 0) {
        c.from = match_left(l, &f->left, &shared);
        if (!c.from || shared < 2) return;
        c.feature[LEFT_WHOLE] = shared > LEFT_MOST;
        if (shared > LEFT_MOST) shared -= LEFT_MOST;
        c.feature[LEFT_PART] = (float)(shared < LEFT_MOST ? shared : LEFT_MOST) / LEFT_MOST;
    }
    look_around(f, s, i, i, c.feature);
    if (f->right.n > 0) {
        int follows = 0;

        c.end = match_right(c.from, c.end, f->right.text, f->right.n, &follows);
        if (!c.end) return;
        c.feature[RIGHT_PART] = (float)follows / (float)(f->right.n < 16 ? f->right.n : 16);
        offer_both(f, c);
        return;
    }
    offer_both(f, c);
    if (f->left.n > 0 && !(c.feature[LEFT_WHOLE] > 0.0f)) return;
    for (int last = i + 1; last < s->n - 1 && last < i + SPAN_MOST && f->below.n > 0; last++) {
        if (!same(&s->lines[last + 1], &f->below.lines[0])) continue;
        c.last = last;
        c.end = s->lines[last].text + s->lines[last].n;
        c.feature[MORE_LINES] = 1.0f;
        look_around(f, s, i, last, c.feature);
        offer_both(f, c);
        break;
    }
}

/* Its text: lines behind the first with their indent moved as much as the first's is moved. */
static void write_text(const search *f, const candidate *c, rd_buf *out)
{
    int move = f->left.indent - c->s->lines[c->line].indent;

    for (const char *at = c->from; at < c->end;) {
        const char *stop = memchr(at, '\n', (size_t)(c->end - at)), *text = at;

        if (!stop) stop = c->end;
        while (at > c->from && text < stop && is_space(*text)) text++;
        int indent = (int)(text - at), have = indent + move > 0 ? indent + move : 0;
        int kept = at == c->from || have > indent ? indent : have;

        for (int i = indent; at > c->from && text < stop && i < have; i++)
            rd_buf_append(out, indent > 0 ? at : " ", 1);
        rd_buf_append(out, text - kept, (size_t)kept + (size_t)(stop - text));
        if (stop < c->end) rd_buf_text(out, "\n");
        at = stop + 1;
    }
}

static int best_left(const search *f)
{
    int best = -1;

    for (int i = 0; i < f->n; i++)
        if (f->list[i].count > 0 && (best < 0 || f->list[i].score > f->list[best].score)) best = i;
    return best;
}

/* Other texts stand behind the file's last line, the most telling first. */
static void split_others(search *f, const rd_draft_place *p)
{
    int left = LINES_MOST, before = f->above.n > f->below.n ? f->above.n : f->below.n;

    for (int i = 0; i < p->n_others; i++) {
        const rd_draft_text *t = &p->others[i];
        size_t n = t->bytes < SIDE_BYTES ? t->bytes : SIDE_BYTES;
        side *s = &f->others[f->n_others++];

        *s = split_lines(t->text, t->text + n, left);
        s->before = before;
        before += s->n;
        left -= s->n;
    }
}

/* Everything around the cursor as lines, and room for their candidates. */
static void begin_search(search *f, const rd_draft_place *p)
{
    const char *end = p->prefix + p->prefix_bytes, *from = p->prefix;
    const char *stop = p->suffix + (p->suffix_bytes < SIDE_BYTES ? p->suffix_bytes : SIDE_BYTES);
    const char *start = end, *line_end = memchr(p->suffix, '\n', (size_t)(stop - p->suffix));

    if (p->prefix_bytes > SIDE_BYTES) from = end - SIDE_BYTES;
    while (start > from && start[-1] != '\n') start--;
    if (!line_end) line_end = stop;
    f->left = make_line(start, end);
    f->right = make_line(p->suffix, line_end);
    /* Space right before the cursor counts: it is part of what stands there. */
    f->left.n = (int)(end - f->left.text);
    f->above = split_lines(from, start, LINES_MOST);
    f->below = split_lines(line_end < stop ? line_end + 1 : stop, stop, LINES_MOST);
    split_others(f, p);
    int lines = f->above.n + f->below.n;

    for (int i = 0; i < f->n_others; i++) lines += f->others[i].n;
    f->list = rd_alloc_array(4 * (size_t)lines + 1, sizeof *f->list);
    for (f->slots_n = 64; f->slots_n < 8 * lines; f->slots_n *= 2) {
    }
    f->slots = rd_alloc_array((size_t)f->slots_n, sizeof *f->slots);
}

static void end_search(search *f)
{
    free(f->above.lines);
    free(f->below.lines);
    for (int i = 0; i < f->n_others; i++) free(f->others[i].lines);
    free(f->list);
    free(f->slots);
    rd_arena_clear(&f->texts);
}

static void look_through(search *f, const side *s)
{
    for (int i = 0; i < s->n; i++) look_at(f, s, i);
}

int rd_drafts_find(const rd_draft_place *at, rd_draft *out, int most)
{
    search f = { 0 };
    int n = 0;

    begin_search(&f, at);
    look_through(&f, &f.above);
    look_through(&f, &f.below);
    for (int i = 0; i < f.n_others; i++) look_through(&f, &f.others[i]);
    for (int i = 0; i < f.n; i++) {
        f.list[i].feature[OFTEN] = log_of(f.list[i].count - 1);
        f.list[i].score += weight[OFTEN] * f.list[i].feature[OFTEN];
    }
    for (; n < most; n++) {
        int best = best_left(&f);

        if (best < 0) break;
        out[n] = (rd_draft){ .alike = f.list[best].score };
        write_text(&f, &f.list[best], &out[n].text);
        f.list[best].count = 0;
    }
    end_search(&f);
    return n;
}

void rd_drafts_clear(rd_draft *drafts, int n)
{
    for (int i = 0; i < n; i++) rd_buf_clear(&drafts[i].text);
}
