/* compare.c - redraft compare A B: do two models say the same, at what loss, and how fast?
 *
 * Both score the same pieces of text (every fourth token masked, four passes): the share of the masked tokens
 * whose first choice is the same, the log loss and the probability of what stands there. Both fill the same
 * holes: how many answers are the same to the byte, passes and time. Models with different tokens have no
 * picks to compare; bits a byte they have in common. `builtin` names the built-in model. Intervals are 95 % by a bootstrap over
 * the pieces: tokens of one piece are not independent.
 */
#include "core/tools/calls.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/eval/measures.h"
#include "core/tools/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1500, CASES = 20, DRAWS = 1000 };

typedef struct side {
    const char *name;
    rd_engine *engine;
    double loss, probability, score_ms, forwards, ms; /* sums */
    int tokens, exact;
    rd_buf *text; /* [cases] */
} side;

/* What both said of one piece of text. */
typedef struct piece {
    double tokens, agree, loss[2];
} piece;

typedef struct job {
    const rd_args *a;
    piece *piece; /* [pieces] */
    rd_cases cases;
    side side[2];
    size_t bytes;
    int pieces, n, seed;
    bool same_tokens;
    int agree, same_fills;
} job;

/* ---- texts ---- */

static const char sample_python[] =
    "import os\n\n\ndef read_lines(path, limit=100):\n    lines = []\n    with open(path) as f:\n"
    "        for line in f:\n            if len(lines) >= limit:\n                break\n"
    "            lines.append(line.rstrip('\\n'))\n    return lines\n\n\n"
    "class Counter:\n    def __init__(self):\n        self.counts = {}\n\n"
    "    def add(self, name, n=1):\n        self.counts[name] = self.counts.get(name, 0) + n\n"
    "        return self.counts[name]\n\n\n"
    "def sizes(folder):\n    return {name: os.path.getsize(os.path.join(folder, name))\n"
    "            for name in sorted(os.listdir(folder))}\n";

static const char sample_c[] =
    "#include <stdlib.h>\n#include <string.h>\n\nstruct list {\n    int *items;\n    size_t n, "
    "cap;\n};\n\nint list_push(struct list *l, int x)\n{\n    if (l->n == l->cap) {\n"
    "        size_t cap = l->cap ? 2 * l->cap : 16;\n"
    "        int *items = grow(l->items, cap);\n\n"
    "        if (!items) return -1;\n        l->items = items;\n        l->cap = cap;\n    }\n"
    "    l->items[l->n++] = x;\n    return 0;\n}\n\nvoid list_clear(struct list *l)\n{\n"
    "    free(l->items);\n    memset(l, 0, sizeof *l);\n}\n";

static void add_sample(rd_cases *c, const char *name, const char *language, const char *text)
{
    c->file = rd_resize(c->file, (size_t)c->files + 1, sizeof *c->file);
    c->file[c->files++] = (rd_case_file){ .name = rd_copy_text(name, strlen(name)),
                                          .language = rd_copy_text(language, strlen(language)),
                                          .text = rd_copy_text(text, strlen(text)),
                                          .bytes = strlen(text) };
}

static rd_status find_texts(job *j, rd_error *err)
{
    const char *dir = rd_args_at(j->a, 2);

    if (dir) {
        if (rd_cases_files(&j->cases, dir, err)) return err->status;
    } else {
        add_sample(&j->cases, "sample.py", "python", sample_python);
        add_sample(&j->cases, "sample.c", "c", sample_c);
    }
    rd_cases_cut(&j->cases, 1u << RD_CASE_LINE | 1u << RD_CASE_END, (j->n + 1) / 2,
                 (uint64_t)j->seed);
    return RD_OK;
}

/* ---- both models ---- */

/* Gives back the log loss of the list. */
static double add_scores(side *s, const rd_score *list, int n)
{
    double loss = 0.0;

    for (int i = 0; i < n; i++) {
        loss -= log(fmax((double)list[i].p, 1e-9));
        s->probability += (double)list[i].p;
    }
    s->tokens += n;
    s->loss += loss;
    return loss;
}

static void compare_scores(job *j, rd_score *list[2], const int n[2], piece *p)
{
    bool same = n[0] == n[1];
    int agree = 0;

    for (int i = 0; same && i < n[0]; i++) same = list[0][i].end == list[1][i].end;
    j->same_tokens = j->same_tokens && same;
    for (int i = 0; same && i < n[0]; i++) agree += !strcmp(list[0][i].best, list[1][i].best);
    j->agree += agree;
    p->agree = agree;
    p->tokens = n[0];
}

/* The start of a file, scored by both. */
static rd_status score_piece(job *j, const rd_case_file *f, rd_error *err)
{
    size_t bytes = f->bytes - f->licence < PIECE ? f->bytes - f->licence : PIECE;
    rd_score *list[2] = { NULL, NULL };
    int n[2] = { 0, 0 };
    piece p = { 0 };
    rd_status status = RD_OK;

    while (bytes > 0 && f->licence + bytes < f->bytes &&
           ((unsigned char)f->text[f->licence + bytes] & 0xc0) == 0x80)
        bytes--;
    for (int k = 0; k < 2 && !status; k++) {
        double start = rd_now_ms();
        rd_score_request rq = {
            .language = f->language, .text = f->text + f->licence, .bytes = bytes, .to = bytes
        };

        status = rd_engine_score(j->side[k].engine, &rq, &list[k], &n[k], err);
        if (status) break;
        j->side[k].score_ms += rd_now_ms() - start;
        p.loss[k] = add_scores(&j->side[k], list[k], n[k]);
    }
    if (!status) compare_scores(j, list, n, &p);
    j->bytes += bytes;
    j->piece[j->pieces++] = p;
    free(list[0]);
    free(list[1]);
    return status;
}

static rd_status fill(job *j, side *s, int i, rd_error *err)
{
    const rd_case *one = &j->cases.at[i];
    const rd_case_file *f = &j->cases.file[one->file];
    rd_request rq = { .task = RD_INFILL,
                      .language = f->language,
                      .prefix = f->text,
                      .prefix_bytes = one->start,
                      .suffix = f->text + one->end,
                      .suffix_bytes = f->bytes - one->end };
    rd_run_options o = { .quality = 0.5f };
    rd_result r;
    size_t n;

    if (rd_run_to_end(s->engine, &rq, &o, &r, err)) return err->status;
    const char *reference = rd_case_text(&j->cases, i, &n);

    s->text[i] = r.text;
    s->exact += rd_outcome_of(r.text.data ? r.text.data : "", r.text.len, reference, n).exact;
    s->forwards += r.forwards;
    s->ms += r.ms;
    return RD_OK;
}

static rd_status run_both(job *j, rd_error *err)
{
    rd_random random = rd_random_seed((uint64_t)j->seed);
    int *order = rd_cases_order(&j->cases, &random);

    for (int i = 0; i < j->cases.files && j->pieces < j->n && !err->status; i++)
        score_piece(j, &j->cases.file[order[i]], err);
    free(order);
    for (int i = 0; i < j->cases.n && !err->status; i++) {
        for (int k = 0; k < 2 && !err->status; k++) fill(j, &j->side[k], i, err);
        const rd_buf *a = &j->side[0].text[i], *b = &j->side[1].text[i];

        j->same_fills += a->len == b->len && (a->len == 0 || !memcmp(a->data, b->data, a->len));
    }
    return err->status;
}

/* ---- results ---- */

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double agreement(const piece *sum)
{
    return sum->agree / sum->tokens;
}

static double loss_difference(const piece *sum)
{
    return (sum->loss[1] - sum->loss[0]) / sum->tokens;
}

/* The 95 % in the middle of what other draws of the pieces would have said. */
static void interval(const job *j, double (*measure)(const piece *sum), double out[2])
{
    rd_random random = rd_random_seed((uint64_t)j->seed + 1);
    double draws[DRAWS];

    for (int d = 0; d < DRAWS; d++) {
        piece sum = { .tokens = 1e-9 };

        for (int i = 0; i < j->pieces; i++) {
            const piece *p = &j->piece[rd_random_below(&random, (uint32_t)j->pieces)];

            sum.tokens += p->tokens;
            sum.agree += p->agree;
            sum.loss[0] += p->loss[0];
            sum.loss[1] += p->loss[1];
        }
        draws[d] = measure(&sum);
    }
    qsort(draws, DRAWS, sizeof *draws, ascending);
    out[0] = draws[DRAWS / 40];
    out[1] = draws[DRAWS - 1 - DRAWS / 40];
}

static double per(double sum, int n)
{
    return n ? sum / n : 0.0;
}

static double bits(const job *j, const side *s)
{
    return j->bytes ? s->loss / log(2.0) / (double)j->bytes : 0.0;
}

static void json_side(const job *j, const side *s, const char *key, rd_buf *out)
{
    int n = j->cases.n;

    rd_buf_format(out, "\"%s\":{\"model\":", key);
    rd_json_quote(out, s->name, strlen(s->name));
    rd_buf_text(out, ",\"engine\":");
    rd_json_quote(out, rd_engine_describe(s->engine), strlen(rd_engine_describe(s->engine)));
    rd_buf_format(out,
                  ",\"tokens\":%d,\"log_loss\":%.6g,\"probability\":%.6g,\"bits_per_byte\":%.6g,"
                  "\"score_ms\":%.6g,\"em\":%.6g,\"forwards\":%.6g,\"ms\":%.6g},",
                  s->tokens, per(s->loss, s->tokens), per(s->probability, s->tokens), bits(j, s),
                  per(s->score_ms, j->pieces), per(s->exact, n), per(s->forwards, n),
                  per(s->ms, n));
}

static void write_json(const job *j, rd_buf *out)
{
    const side *a = &j->side[0], *b = &j->side[1];

    rd_buf_text(out, "{");
    json_side(j, a, "a", out);
    json_side(j, b, "b", out);
    rd_buf_format(out, "\"bytes\":%zu,\"pieces\":%d,\"same_tokens\":%s,", j->bytes, j->pieces,
                  j->same_tokens ? "true" : "false");
    if (j->same_tokens) {
        double same[2], more[2];

        interval(j, agreement, same);
        interval(j, loss_difference, more);
        rd_buf_format(out,
                      "\"agreement\":%.6g,\"agreement_ci\":[%.6g,%.6g],"
                      "\"log_loss_difference\":%.6g,\"log_loss_difference_ci\":[%.6g,%.6g],",
                      per(j->agree, a->tokens), same[0], same[1], per(b->loss - a->loss, a->tokens),
                      more[0], more[1]);
    } else {
        rd_buf_text(out, "\"agreement\":null,\"log_loss_difference\":null,");
    }
    rd_buf_format(out, "\"bits_per_byte_difference\":%.6g,\"holes\":%d,\"same_fills\":%d}\n",
                  bits(j, b) - bits(j, a), j->cases.n, j->same_fills);
}

static void write_table(const job *j, rd_buf *out)
{
    rd_buf_format(out, "%zu bytes in %d pieces, %d holes\n%-24s %8s %9s %10s %9s %7s %7s %7s\n",
                  j->bytes, j->pieces, j->cases.n, "model", "tokens", "loss", "bits/byte",
                  "score ms", "exact", "passes", "ms");
    for (int k = 0; k < 2; k++) {
        const side *s = &j->side[k];

        rd_buf_format(out, "%-24.24s %8d %9.4f %10.4f %9.1f %7d %7.1f %7.1f\n", s->name, s->tokens,
                      per(s->loss, s->tokens), bits(j, s), per(s->score_ms, j->pieces), s->exact,
                      per(s->forwards, j->cases.n), per(s->ms, j->cases.n));
    }
    if (j->same_tokens) {
        const side *a = &j->side[0], *b = &j->side[1];
        double same[2], more[2];

        interval(j, agreement, same);
        interval(j, loss_difference, more);
        rd_buf_format(out, "first choices that agree: %.2f %% of %d (95 %%: %.2f to %.2f)\n",
                      100.0 * per(j->agree, a->tokens), a->tokens, 100.0 * same[0],
                      100.0 * same[1]);
        rd_buf_format(out, "difference of loss: %+.4f (95 %%: %+.4f to %+.4f)\n",
                      per(b->loss - a->loss, a->tokens), more[0], more[1]);
    } else {
        rd_buf_text(out, "their tokens differ: first choices cannot be compared\n");
    }
    rd_buf_format(out, "fills that are the same: %d of %d\n", j->same_fills, j->cases.n);
}

static int open_side(job *j, int k)
{
    side *s = &j->side[k];
    rd_engine_options o = { .backend = rd_args_text(j->a, "--backend"),
                            .isa = rd_args_text(j->a, "--isa") };
    rd_error err = { 0 };

    s->name = rd_args_at(j->a, k);
    o.model = strcmp(s->name, "builtin") != 0 ? s->name : NULL;
    if (!rd_args_int(j->a, "--threads", 1, 256, &o.threads)) return 2;
    if (rd_engine_open(&o, &s->engine, &err)) return rd_tool_fail(j->a, &err);
    s->text = rd_alloc_array((size_t)j->cases.n + 1, sizeof *s->text);
    return 0;
}

int rd_tool_compare(const rd_args *a)
{
    job j = { .a = a, .n = CASES, .seed = 1, .same_tokens = true };
    rd_error err = { 0 };
    rd_buf out = { 0 };
    int status = 0;

    if (rd_args_text(a, "--kv")) return rd_tool_compare_kv(a);
    if (rd_args_count(a) < 2 || rd_args_count(a) > 3)
        return rd_tool_usage(a, "name two models, and a folder of source files if you like");
    if (!rd_args_int(a, "--cases", 1, 100000, &j.n) ||
        !rd_args_int(a, "--seed", 0, 2147483647, &j.seed))
        return 2;
    j.piece = rd_alloc_array((size_t)j.n, sizeof *j.piece);
    if (find_texts(&j, &err)) status = rd_tool_fail(a, &err);
    for (int k = 0; k < 2 && !status; k++) status = open_side(&j, k);
    if (!status && run_both(&j, &err)) status = rd_tool_fail(a, &err);
    if (!status) {
        if (rd_args_flag(a, "--json"))
            write_json(&j, &out);
        else
            write_table(&j, &out);
        fwrite(out.data, 1, out.len, stdout);
    }
    rd_buf_clear(&out);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; j.side[k].text && i < j.cases.n; i++) rd_buf_clear(&j.side[k].text[i]);
        free(j.side[k].text);
        rd_engine_close(j.side[k].engine);
    }
    free(j.piece);
    rd_cases_clear(&j.cases);
    return status;
}
