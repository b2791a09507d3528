/* page.c - the report as one HTML file: the dial's curve, the confidence's calibration, the figures, examples.
 *
 * Pictures are SVG inside the page; nothing is fetched and nothing runs. All text of files and of the model
 * is escaped. The examples are chosen by a rule and not by hand: the ten right answers and the ten wrong
 * ones that the model was surest of.
 */
#include "core/eval/report.h"

#include "core/base/memory.h"
#include "core/format/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 640,
    HEIGHT = 360,
    LEFT = 60,
    RIGHT = 24,
    TOP = 20,
    BOTTOM = 48,
    EXAMPLES = 10,
    LINES_BEFORE = 4,
    LINES_AFTER = 2
};

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width\"><title>redraft eval</title>\n<style>\n"
    ":root{color-scheme:light dark;--model:#2563eb;--floor:#b45309;--good:#16803d;--bad:#c02626}\n"
    "@media(prefers-color-scheme:dark){:root{--model:#7aa5ff;--floor:#f0a040;--good:#5fd08a;"
    "--bad:#ff8585}}\n"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\n"
    "svg{max-width:100%;height:auto;font-size:13px}\nsvg text{fill:currentColor}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;"
    "overflow-x:auto}\n"
    "td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #8884}\n"
    "td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}\n"
    "pre{padding:.6rem;border:1px solid #8886;border-radius:4px;overflow-x:auto;font-size:13px}\n"
    "ins{color:var(--good);background:#16803d22;text-decoration:none;font-weight:600}\n"
    "del{color:var(--bad);background:#c0262622;text-decoration:none;font-weight:600}\n"
    "figure{margin:1rem 0}\nsvg{border:1px solid #8884;border-radius:4px}\n"
    "figcaption,.note{opacity:.8;font-size:.9rem}\n"
    "</style></head><body>\n";

/* ---- text ---- */

static void escape(rd_buf *out, const char *text, size_t n)
{
    rd_buf clean = { 0 };

    rd_utf8_repair(text, n, &clean);
    for (size_t i = 0; i < clean.len; i++) {
        char c = clean.data[i];

        if (c == '<')
            rd_buf_text(out, "&lt;");
        else if (c == '>')
            rd_buf_text(out, "&gt;");
        else if (c == '&')
            rd_buf_text(out, "&amp;");
        else if (c == '"')
            rd_buf_text(out, "&quot;");
        else if (((unsigned char)c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
            rd_buf_text(out, "\xef\xbf\xbd");
        else
            rd_buf_append(out, &c, 1);
    }
    rd_buf_clear(&clean);
}

/* ---- pictures ---- */

typedef struct plot {
    rd_buf *out;
    double x_most, y_most;
} plot;

static double at_x(const plot *p, double x)
{
    return LEFT + x / p->x_most * (WIDTH - LEFT - RIGHT);
}

static double at_y(const plot *p, double y)
{
    return HEIGHT - BOTTOM - y / p->y_most * (HEIGHT - TOP - BOTTOM);
}

/* One, two or five times a power of ten, so that `most` has about five of them. */
static double tick_of(double most)
{
    double power = pow(10.0, floor(log10(most / 5.0))), step = most / 5.0 / power;

    return power * (step > 5.0 ? 10.0 : step > 2.0 ? 5.0 : step > 1.0 ? 2.0 : 1.0);
}

static void line(const plot *p, double x1, double y1, double x2, double y2, const char *style)
{
    rd_buf_format(p->out, "<path d=\"M%.1f %.1fL%.1f %.1f\" %s/>\n", at_x(p, x1), at_y(p, y1),
                  at_x(p, x2), at_y(p, y2), style);
}

static void label(const plot *p, double x, double y, const char *anchor, double shift,
                  const char *text)
{
    rd_buf_format(p->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", at_x(p, x),
                  at_y(p, y) + shift, anchor);
    escape(p->out, text, strlen(text));
    rd_buf_text(p->out, "</text>\n");
}

static void axes(const plot *p, const char *x_name, const char *y_name)
{
    static const char grid[] = "stroke=\"currentColor\" stroke-opacity=\".15\"";
    double x_tick = tick_of(p->x_most), y_tick = tick_of(p->y_most);

    rd_buf_format(p->out, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, HEIGHT);
    for (double y = 0.0; y <= p->y_most * 1.0001; y += y_tick) {
        line(p, 0.0, y, p->x_most, y, grid);
        rd_buf_format(p->out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 8,
                      at_y(p, y) + 4.0, y);
    }
    for (double x = 0.0; x <= p->x_most * 1.0001; x += x_tick)
        rd_buf_format(p->out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
                      at_x(p, x), HEIGHT - BOTTOM + 18, x);
    rd_buf_format(p->out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                  (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name);
    rd_buf_format(p->out,
                  "<text x=\"14\" y=\"%d\" text-anchor=\"middle\" "
                  "transform=\"rotate(-90 14 %d)\">%s</text>\n",
                  HEIGHT / 2, HEIGHT / 2, y_name);
}

static double floor_em(const rd_report *r, const rd_row *row, const rd_set *s)
{
    rd_measure m;

    rd_measure_of(&r->cases, s, row->outcome, &m);
    return 100.0 * m.em;
}

static void draw_floors(const rd_report *r, const plot *p, const rd_set *s)
{
    for (int i = 0; i < r->rows; i++) {
        const rd_row *row = &r->row[i];

        if (row->kind < RD_ROW_COPY || !strcmp(row->name, "empty")) continue;
        double y = floor_em(r, row, s);

        line(p, 0.0, y, p->x_most, y, "stroke=\"var(--floor)\" stroke-dasharray=\"6 4\"");
        label(p, 0.01 * p->x_most, y, "start", -5.0, row->name);
    }
}

static void dot(const plot *p, double x, double y, bool filled)
{
    rd_buf_format(p->out,
                  "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" stroke=\"var(--model)\" fill=\"%s\"/>\n",
                  at_x(p, x), at_y(p, y), filled ? "var(--model)" : "none");
}

/* An answer's time and quality, its interval through it. */
static void draw_point(const plot *p, const rd_measure *m, bool filled, const char *name)
{
    double y = 100.0 * m->em;

    line(p, m->ms, 100.0 * m->em_ci[0], m->ms, 100.0 * m->em_ci[1],
         "stroke=\"var(--model)\" stroke-opacity=\".5\"");
    dot(p, m->ms, y, filled);
    rd_buf_format(p->out, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", at_x(p, m->ms) + 7.0,
                  at_y(p, y) - 8.0, name);
}

static void draw_dial(const rd_report *r, rd_buf *out)
{
    const rd_set *s = rd_report_set(r);
    const rd_row *top = rd_report_main(r),
                 *alone = r->drafts ? rd_report_find(r, RD_ROW_MODEL, top->quality) : NULL;
    rd_measure m[RD_DIAL_MOST + 1];
    plot p = { out, 1.0, 1.0 };
    int n = r->qualities;

    for (int i = 0; i < n; i++)
        rd_measure_of(&r->cases, s, rd_report_find(r, top->kind, r->quality[i])->outcome, &m[i]);
    if (alone) rd_measure_of(&r->cases, s, alone->outcome, &m[n]);
    for (int i = 0; i < n + (alone != NULL); i++) {
        p.x_most = fmax(p.x_most, 1.1 * m[i].ms);
        p.y_most = fmax(p.y_most, 110.0 * m[i].em_ci[1]);
    }
    for (int i = 0; i < r->rows; i++)
        if (r->row[i].kind >= RD_ROW_COPY)
            p.y_most = fmax(p.y_most, 1.1 * floor_em(r, &r->row[i], s));
    rd_buf_text(out, "<figure>");
    axes(&p, "milliseconds a hole (mean)", "exact match, %");
    draw_floors(r, &p, s);
    for (int i = 1; i < n; i++)
        line(&p, m[i - 1].ms, 100.0 * m[i - 1].em, m[i].ms, 100.0 * m[i].em,
             "stroke=\"var(--model)\" stroke-width=\"2\"");
    for (int i = 0; i < n; i++) {
        char name[32];

        snprintf(name, sizeof name, "%g", (double)r->quality[i]);
        draw_point(&p, &m[i], true, name);
    }
    if (alone) draw_point(&p, &m[n], false, "alone");
    rd_buf_format(out,
                  "</svg><figcaption>Exact match against time, %s. Each point is a place of the "
                  "dial from 0 (speed) to 1 (quality), with its 95 %% interval by file; %sbroken "
                  "lines answer without a model.</figcaption></figure>\n",
                  s->name, alone ? "the empty one is the model without drafts; " : "");
}

static void draw_shares(const rd_report *r, rd_buf *out)
{
    const rd_set *s = rd_report_set(r);
    const rd_outcome *o = rd_report_main(r)->outcome;
    plot p = { out, 100.0, 100.0 };
    rd_measure m;
    rd_gate g;

    rd_measure_of(&r->cases, s, o, &m);
    rd_buf_text(out, "<figure>");
    axes(&p, "shown, % of the answers, the surest first", "right, %");
    for (int i = 0; i < RD_SHARES; i++) {
        double x = 100.0 * rd_shares[i], before = i ? 100.0 * rd_shares[i - 1] : 0.0;
        double last = 100.0 * m.shown[i].last;

        if (i)
            line(&p, before, 100.0 * m.shown[i - 1].precision, x, 100.0 * m.shown[i].precision,
                 "stroke=\"var(--model)\" stroke-width=\"2\"");
        dot(&p, x, 100.0 * m.shown[i].precision, true);
        line(&p, before, last, x, last, "stroke=\"var(--floor)\" stroke-width=\"2\"");
    }
    rd_buf_format(out,
                  "</svg><figcaption>What is right of the surest answers, %s: of all that are "
                  "shown (line), and of each slice alone (steps).",
                  s->name);
    if (r->gate >= 0.0) {
        rd_gate_try(&r->cases, s, o, r->gate, &g);
        rd_buf_format(out, " The model's gate, %.3f, shows %.1f %%.", g.confidence,
                      100.0 * g.share);
    }
    rd_buf_text(out, "</figcaption></figure>\n");
}

static void draw_calibration(const rd_report *r, rd_buf *out)
{
    const rd_set *s = rd_report_set(r);
    plot p = { out, 1.0, 1.0 };
    rd_measure m;

    rd_measure_of(&r->cases, s, rd_report_main(r)->outcome, &m);
    rd_buf_text(out, "<figure>");
    axes(&p, "confidence (mean of the bin)", "share that is right");
    line(&p, 0.0, 0.0, 1.0, 1.0,
         "stroke=\"currentColor\" stroke-opacity=\".5\" stroke-dasharray=\"6 4\"");
    for (int b = 0; b < m.bins; b++) {
        if (b)
            line(&p, m.bin[b - 1].confidence, m.bin[b - 1].em, m.bin[b].confidence, m.bin[b].em,
                 "stroke=\"var(--model)\"");
        dot(&p, m.bin[b].confidence, m.bin[b].em, true);
    }
    rd_buf_format(out,
                  "</svg><figcaption>Confidence against what is right, %s, in %d bins of equal "
                  "mass; expected error %.3f. On the broken line it would say what it "
                  "knows.</figcaption></figure>\n",
                  s->name, m.bins, m.calibration);
}

/* ---- figures ---- */

static void cell(rd_buf *out, double x, double times)
{
    if (isnan(x))
        rd_buf_text(out, "<td>-");
    else
        rd_buf_format(out, "<td>%.1f", times * x);
}

static void write_figures(const rd_report *r, rd_buf *out)
{
    rd_buf_text(out, "<table><tr><th>set<th>row<th>dial<th>cases<th>exact %<th>95 %<th>similar "
                     "%<th>95 %<th>whole %<th>right of 10 %<th>of 30 %<th>passes<th>ms\n");
    for (int s = 0; s < r->sets; s++)
        for (int i = 0; i < r->rows; i++) {
            const rd_row *row = &r->row[i];
            rd_measure m;

            rd_measure_of(&r->cases, &r->set[s], row->outcome, &m);
            rd_buf_format(out, "<tr><td>%s<td>%s<td>", r->set[s].name, row->name);
            if (row->kind < RD_ROW_COPY) rd_buf_format(out, "%g", (double)row->quality);
            rd_buf_format(out, "<td>%d", m.cases);
            cell(out, m.em, 100.0);
            rd_buf_format(out, "<td>%.1f to %.1f", 100.0 * m.em_ci[0], 100.0 * m.em_ci[1]);
            cell(out, m.similarity, 100.0);
            rd_buf_format(out, "<td>%.1f to %.1f", 100.0 * m.similarity_ci[0],
                          100.0 * m.similarity_ci[1]);
            cell(out, m.whole, 100.0);
            cell(out, m.precision[0], 100.0);
            cell(out, m.precision[1], 100.0);
            cell(out, m.forwards, 1.0);
            cell(out, m.ms, 1.0);
            rd_buf_text(out, "\n");
        }
    rd_buf_text(out, "</table>\n");
}

static void write_rest(const rd_report *r, rd_buf *out)
{
    rd_buf rest = { 0 };

    rd_report_rest(r, &rest);
    if (!rest.len) return;
    rd_buf_text(out, "<pre>");
    escape(out, rest.data, rest.len);
    rd_buf_text(out, "</pre>\n");
    rd_buf_clear(&rest);
}

/* ---- examples ---- */

typedef struct example {
    int index;
    double confidence;
} example;

static int surest_first(const void *x, const void *y)
{
    const example *a = x, *b = y;

    if (a->confidence != b->confidence) return a->confidence < b->confidence ? 1 : -1;
    return a->index - b->index;
}

static size_t lines_before(const char *text, size_t at, int lines)
{
    while (at > 0 && (text[at - 1] != '\n' || lines-- > 0)) at--;
    return at;
}

static size_t lines_after(const char *text, size_t n, size_t at, int lines)
{
    while (at < n && (text[at] != '\n' || lines-- > 0)) at++;
    return at;
}

static void write_example(const rd_report *r, const rd_row *row, int i, rd_buf *out)
{
    const rd_case *one = &r->cases.at[i];
    const rd_case_file *f = &r->cases.file[one->file];
    size_t from = lines_before(f->text, one->start, LINES_BEFORE), n;
    size_t to = lines_after(f->text, f->bytes, one->end, LINES_AFTER);
    const char *reference = rd_case_text(&r->cases, i, &n);
    const char *tag = row->outcome[i].exact ? "ins" : "del";

    rd_buf_text(out, "<p class=\"note\">");
    escape(out, one->id, strlen(one->id));
    rd_buf_format(out, ", confidence %.3f</p><pre>", row->outcome[i].confidence);
    escape(out, f->text + from, one->start - from);
    rd_buf_format(out, "<%s>", tag);
    escape(out, row->text[i].data ? row->text[i].data : "", row->text[i].len);
    rd_buf_format(out, "</%s>", tag);
    if (!row->outcome[i].exact) {
        rd_buf_text(out, "<ins> \xe2\x9f\xb5 ");
        escape(out, reference, n);
        rd_buf_text(out, "</ins>");
    }
    escape(out, f->text + one->end, to - one->end);
    rd_buf_text(out, "</pre>\n");
}

static void write_examples(const rd_report *r, bool right, rd_buf *out)
{
    const rd_row *row = rd_report_main(r);
    example *list = rd_alloc_array((size_t)r->cases.n + 1, sizeof *list);
    int n = 0;

    for (int i = 0; i < r->cases.n; i++)
        if (row->outcome[i].exact == right) list[n++] = (example){ i, row->outcome[i].confidence };
    qsort(list, (size_t)n, sizeof *list, surest_first);
    for (int i = 0; i < n && i < EXAMPLES; i++) write_example(r, row, list[i].index, out);
    if (n == 0) rd_buf_text(out, "<p>None.</p>\n");
    free(list);
}

void rd_report_page(const rd_report *r, rd_buf *out)
{
    const rd_row *top = rd_report_main(r);

    rd_buf_text(out, head);
    rd_buf_format(out, "<h1>redraft eval</h1>\n<p>%d holes of %d files, seed %d; ", r->cases.n,
                  r->cases.files, r->seed);
    escape(out, r->engine, strlen(r->engine));
    rd_buf_format(out, "; %s, dial at %g where nothing else is said.</p>\n",
                  r->drafts ? "drafts copied from the file allowed" : "the model alone",
                  (double)top->quality);
    rd_buf_text(out, "<h2>Quality and time</h2>\n");
    draw_dial(r, out);
    rd_buf_text(out, "<h2>Does it know when it is right?</h2>\n");
    draw_calibration(r, out);
    draw_shares(r, out);
    rd_buf_text(out, "<h2>Figures</h2>\n");
    write_figures(r, out);
    write_rest(r, out);
    rd_buf_text(out, "<h2>The ten surest answers that are right</h2>\n");
    write_examples(r, true, out);
    rd_buf_text(out, "<h2>The ten surest answers that are wrong</h2>\n"
                     "<p class=\"note\">First what was answered, then what stood there.</p>\n");
    write_examples(r, false, out);
    rd_buf_text(out, "</body></html>\n");
}
