/* packed.c - float32 into panels and back, in plain C: what the layout in packed.h means, exactly.
 *
 * The int4 steps g are searched: for each group a few steps around the one that holds its largest number, each judged
 * by the squared error of the numbers rounded with it, then once more the step that fits the best rounding. A largest
 * number that is cut a little buys finer steps for the other 31.
 */
#include "core/format/packed.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { Q4_LEAST = -8, Q4_MOST = 7, G_MOST = 255, TRIES = 12 };
enum { GROUPS = RD_PACK_COLS / RD_PACK_GROUP };

static const char *const names[] = { NULL, "int8-panel", "int4-panel" };

rd_pack rd_pack_named(const char *name)
{
    for (int p = RD_PACK_INT8; name && p <= RD_PACK_INT4; p++)
        if (!strcmp(names[p], name)) return (rd_pack)p;
    return RD_PACK_NONE;
}

const char *rd_pack_name(rd_pack p)
{
    return p >= RD_PACK_NONE && p <= RD_PACK_INT4 ? names[p] : NULL;
}

rd_pack rd_pack_of(rd_pack scheme, bool has_experts, const char *name)
{
    static const char *const int8[] = { "word_embeddings.", "lm_head.", ".attention.",
                                        ".shared_experts." };

    if (strstr(name, ".mlp.gate.")) return RD_PACK_NONE;
    for (size_t i = 0; i < sizeof int8 / sizeof *int8; i++)
        if (strstr(name, int8[i])) return RD_PACK_INT8;
    return has_experts && !strstr(name, ".experts.") ? RD_PACK_INT8 : scheme;
}

static float largest(const float *w, int n)
{
    float top = 0.0f;

    for (int i = 0; i < n; i++) {
        float x = fabsf(w[i]);

        top = x > top ? x : top;
    }
    return top;
}

/* Round to nearest even, for numbers below 2^22: two additions that every vector unit has. */
static float nearest(float x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

/* ---- int8 ---- */

/* Row r of the panel. Where the step is too small to divide by, the row stands for zeros. */
static float pack_row8(const float *w, int r, int cols, uint8_t *panel)
{
    float scale = largest(w, cols) / 127.0f;
    bool divides = isfinite(1.0f / scale);

    for (int k = 0; k < cols && divides; k++) {
        float x = nearest(w[k] / scale);

        x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
        panel[k / 4 * RD_PACK_VECTOR + 4 * r + k % 4] = (uint8_t)((int)x + RD_PACK_INT8_ZERO);
    }
    return divides ? scale : 0.0f;
}

/* ---- int4 ---- */

/* Four at once; the order of the sums is the same on every machine. */
typedef float lanes __attribute__((vector_size(16), aligned(4)));
typedef int32_t mask __attribute__((vector_size(16), aligned(4)));
enum { LANES = 4 };

static float sum_of(const lanes *x)
{
    const lanes v = *x;

    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* The 32 numbers rounded with this step; the squared error of that. */
static float round_group(const float *w, float step, float *q)
{
    const lanes most = (lanes){ 0 } + (float)Q4_MOST, least = (lanes){ 0 } + (float)Q4_LEAST;
    const float magic = 12582912.0f; /* as in nearest */
    lanes error = { 0 };

    for (int i = 0; i < RD_PACK_GROUP; i += LANES) {
        lanes x, y;

        memcpy(&x, w + i, sizeof x);
        y = x * (1.0f / step);
        mask over = y > most, under = y < least;

        y = (lanes)(((mask)y & ~over) | ((mask)most & over));
        y = (lanes)(((mask)y & ~under) | ((mask)least & under));
        y = (y + magic) - magic;
        memcpy(q + i, &y, sizeof y);
        x -= y * step;
        error += x * x;
    }
    return sum_of(&error);
}

/* The step that these roundings fit best, by least squares. */
static float fit(const float *w, const float *q)
{
    lanes wq = { 0 }, qq = { 0 };

    for (int i = 0; i < RD_PACK_GROUP; i += LANES) {
        lanes x, y;

        memcpy(&x, w + i, sizeof x);
        memcpy(&y, q + i, sizeof y);
        wq += x * y;
        qq += y * y;
    }
    float square = sum_of(&qq);

    return square > 0.0f ? sum_of(&wq) / square : 0.0f;
}

typedef struct choice {
    int g;
    float error, q[RD_PACK_GROUP];
} choice;

static void try_step(const float *w, float step, float scale, choice *best)
{
    float g = nearest(step / scale), q[RD_PACK_GROUP];

    g = g < 1.0f ? 1.0f : g > (float)G_MOST ? (float)G_MOST : g;
    if ((int)g == best->g) return;
    float error = round_group(w, g * scale, q);

    if (!(error < best->error)) return;
    best->g = (int)g;
    best->error = error;
    memcpy(best->q, q, sizeof q);
}

/* A group whose numbers are all nearer to zero than to any step of this row stays at g = 0. */
static void choose(const float *w, float scale, choice *best)
{
    float top = largest(w, RD_PACK_GROUP);

    *best = (choice){ 0 };
    for (int i = 0; i < RD_PACK_GROUP; i++) best->error += w[i] * w[i];
    if (top == 0.0f) return;
    for (int i = 0; i < TRIES; i++) try_step(w, top / (6.4f + 0.3f * (float)i), scale, best);
    if (best->g) try_step(w, fit(w, best->q), scale, best);
}

static void put_group(const choice *c, int r, int group, uint8_t *cell)
{
    uint8_t *at = cell + group * 4 * RD_PACK_VECTOR + 4 * r;

    cell[RD_PACK_STEPS + group * RD_PACK_ROWS + r] = (uint8_t)c->g;
    for (int k = 0; k < RD_PACK_GROUP / 2; k++) {
        int low = (int)c->q[k] + RD_PACK_INT4_ZERO,
            high = (int)c->q[k + RD_PACK_GROUP / 2] + RD_PACK_INT4_ZERO;

        at[k / 4 * RD_PACK_VECTOR + k % 4] = (uint8_t)(low | high << 4);
    }
}

/* The row is brought to a largest number of 1 first, so that squares neither overflow nor vanish. */
static float pack_row4(const float *w, int r, int cols, uint8_t *panel)
{
    float top = largest(w, cols), scale = top / (float)(Q4_MOST * G_MOST), group[RD_PACK_GROUP];
    const float unit = 1.0f / (float)(Q4_MOST * G_MOST);
    choice c;

    if (!isfinite(1.0f / scale)) return 0.0f;
    for (int k = 0; k < cols; k += RD_PACK_GROUP) {
        int n = cols - k < RD_PACK_GROUP ? cols - k : RD_PACK_GROUP;

        memset(group, 0, sizeof group);
        for (int i = 0; i < n; i++) group[i] = w[k + i] / top;
        choose(group, unit, &c);
        put_group(&c, r, k % RD_PACK_COLS / RD_PACK_GROUP, panel + k / RD_PACK_COLS * RD_PACK_CELL);
    }
    return scale;
}

/* ---- panels ---- */

static void clear_panel(rd_pack p, int cols, uint8_t *panel)
{
    size_t bytes = rd_pack_panel_bytes(p, cols);

    memset(panel,
           p == RD_PACK_INT8 ? RD_PACK_INT8_ZERO : RD_PACK_INT4_ZERO | RD_PACK_INT4_ZERO << 4,
           bytes);
    for (size_t at = 0; p == RD_PACK_INT4 && at < bytes; at += RD_PACK_CELL)
        memset(panel + at + RD_PACK_STEPS, 0, RD_PACK_CELL - RD_PACK_STEPS);
}

rd_status rd_pack_panel(rd_pack p, const float *w, int rows, int cols, void *panel, float *scales,
                        rd_error *err)
{
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < cols; k++)
            if (!isfinite(w[(size_t)r * (size_t)cols + (size_t)k]))
                return rd_fail(err, RD_INVALID, "row %d: column %d is not finite", r, k);
    clear_panel(p, cols, panel);
    for (int r = 0; r < RD_PACK_ROWS; r++) {
        const float *row = w + (size_t)r * (size_t)cols;

        scales[r] = r >= rows           ? 0.0f
                    : p == RD_PACK_INT8 ? pack_row8(row, r, cols, panel)
                                        : pack_row4(row, r, cols, panel);
    }
    return RD_OK;
}
