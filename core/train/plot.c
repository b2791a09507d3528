/* plot.c - the loss curves of a run's log.csv as an SVG picture. */
#include "core/train/trainer.h"

#include "core/base/memory.h"
#include "core/format/file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE = 800, HIGH = 400, MARGIN = 50, CURVES = 5, COLUMNS = 7 };

typedef struct curve_point {
    double minute, value[CURVES];
} curve_point;

static int read_points(FILE *in, curve_point **out)
{
    char line[512];
    int n = 0;

    while (fgets(line, sizeof line, in)) {
        double cell[COLUMNS];
        char *at = line, *end;
        int c = 0;

        for (; c < COLUMNS; c++) {
            cell[c] = strtod(at, &end);
            if (end == at || *end != ',') break;
            at = end + 1;
        }
        if (c < COLUMNS) continue;
        *out = rd_resize(*out, (size_t)n + 1, sizeof **out);
        (*out)[n].minute = cell[1] / 60.0;
        memcpy((*out)[n++].value, cell + 2, sizeof(*out)->value);
    }
    return n;
}

static void draw_curve(rd_buf *f, const curve_point *p, int n, int c, double minutes, double top,
                       const char *name, const char *colour)
{
    rd_buf_format(f, "<polyline fill='none' stroke='%s' points='", colour);
    for (int i = 0; i < n; i++) {
        if (!isfinite(p[i].value[c])) continue;
        rd_buf_format(f, "%.1f,%.1f ", MARGIN + p[i].minute / minutes * (WIDE - 2 * MARGIN),
                      HIGH - MARGIN - p[i].value[c] / top * (HIGH - 2 * MARGIN));
    }
    rd_buf_format(f, "'/>\n<text x='%d' y='%d' fill='%s'>%s</text>\n", WIDE - 2 * MARGIN,
                  MARGIN + 18 * c, colour, name);
}

rd_status rd_train_plot(const char *csv, const char *svg, rd_error *err)
{
    static const char *const names[] = { "total", "next", "hole", "block", "edit" };
    static const char *const colours[] = { "black", "steelblue", "crimson", "seagreen", "orange" };
    curve_point *p = NULL;
    FILE *in = fopen(csv, "r");
    rd_buf f = { 0 };
    double minutes = 0.0, top = 0.0;

    if (!in) return rd_fail(err, RD_IO, "%s: %s", csv, strerror(errno));
    int n = read_points(in, &p);

    fclose(in);
    for (int i = 0; i < n; i++) {
        if (p[i].minute > minutes) minutes = p[i].minute;
        for (int c = 0; c < CURVES; c++)
            if (p[i].value[c] > top) top = p[i].value[c];
    }
    if (minutes <= 0.0 || top <= 0.0) {
        free(p);
        return rd_fail(err, RD_INVALID, "%s: no losses to draw", csv);
    }
    rd_buf_format(
        &f,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif' "
        "font-size='13'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
        WIDE, HIGH);
    rd_buf_format(&f, "<path d='M%d %d V%d H%d' fill='none' stroke='gray'/>\n", MARGIN, MARGIN,
                  HIGH - MARGIN, WIDE - MARGIN);
    rd_buf_format(&f, "<text x='%d' y='%d'>%.2f nats</text>\n<text x='%d' y='%d'>%.1f min</text>\n",
                  5, MARGIN - 5, top, WIDE - 2 * MARGIN, HIGH - MARGIN + 20, minutes);
    for (int c = 0; c < CURVES; c++) draw_curve(&f, p, n, c, minutes, top, names[c], colours[c]);
    rd_buf_text(&f, "</svg>\n");
    rd_status s = rd_file_write(svg, f.data, f.len, err);

    rd_buf_clear(&f);
    free(p);
    return s;
}
