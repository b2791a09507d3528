/* quantize.c - redraft quantize IN OUT: pack a model's weights, and say how far it is.
 *
 * A first interrupt stops at a good place; the same call then goes on from there.
 */
#include "core/tools/calls.h"

#include "core/base/clock.h"
#include "core/format/pack_model.h"
#include "core/format/quant.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double line_ms = 200.0, plain_ms = 10000.0; /* between two words of progress */

static volatile sig_atomic_t stopped; /* signals have no argument to carry it */

static void stop(int number)
{
    stopped = number;
}

typedef struct watch {
    double start, last; /* ms */
    size_t first;       /* bytes done when it began */
    bool begun, terminal;
} watch;

static void say(watch *w, size_t done, size_t all, double now)
{
    double rate = now > w->start ? (double)(done - w->first) / (now - w->start) * 1e3 : 0.0;
    double left = rate > 0.0 ? (double)(all - done) / rate : 0.0;

    fprintf(stderr, "%s%.2f of %.2f GB, %.0f MB/s, %.0f s left%s", w->terminal ? "\r\033[K" : "",
            (double)done * 1e-9, (double)all * 1e-9, rate * 1e-6, left,
            w->terminal && done < all ? "" : "\n");
}

static bool progress(void *user, size_t done, size_t all)
{
    watch *w = user;
    double now = rd_now_ms();

    if (!w->begun) {
        w->begun = true;
        w->first = done;
    } else if (now - w->last >= (w->terminal ? line_ms : plain_ms)) {
        say(w, done, all, now);
        w->last = now;
    }
    return !stopped;
}

static int pack(const rd_args *a, rd_pack p)
{
    double start = rd_now_ms();
    watch w = { .start = start, .last = start, .terminal = isatty(STDERR_FILENO) };
    rd_pack_job job = {
        .in = rd_args_at(a, 0), .out = rd_args_at(a, 1), .pack = p, .progress = progress, .user = &w
    };
    struct sigaction on = { .sa_handler = stop, .sa_flags = SA_RESETHAND };
    rd_pack_result r;
    rd_error err = { 0 };

    sigaction(SIGINT, &on, NULL);
    sigaction(SIGTERM, &on, NULL);
    rd_status s = rd_pack_model(&job, &r, &err);

    if (w.terminal && w.last > start) fputc('\n', stderr);
    if (s) return rd_tool_fail(a, &err);
    double seconds = (rd_now_ms() - start) * 1e-3;

    if (rd_args_flag(a, "--json"))
        printf("{\"scheme\":\"%s\",\"weights\":%d,\"bytes\":%zu,\"kept\":%zu,\"seconds\":%.3f}\n",
               rd_pack_name(p), r.weights, r.bytes, r.kept, seconds);
    else
        fprintf(stderr, "%s: %d weights, %.1f MB in %.1f s%s\n", rd_pack_name(p), r.weights,
                (double)r.bytes * 1e-6, seconds,
                r.kept ? ", going on from a run that was cut off" : "");
    return 0;
}

/* The scheme of the trainer's rounding and of older files: one scale a row, rows as they stood. */
static int quantise_rows(const rd_args *a)
{
    rd_error err = { 0 };

    if (rd_quantize_model(rd_args_at(a, 0), rd_args_at(a, 1), RD_QUANT_INT8_ROW, &err))
        return rd_tool_fail(a, &err);
    if (rd_args_flag(a, "--json")) printf("{\"scheme\":\"%s\"}\n", RD_QUANT_INT8_ROW);
    return 0;
}

int rd_tool_quantize(const rd_args *a)
{
    const char *weights = rd_args_text(a, "--weights");

    if (rd_args_count(a) != 2) return rd_tool_usage(a, "name the model and the folder to write");
    if (!weights || !strcmp(weights, "int8")) return pack(a, RD_PACK_INT8);
    if (!strcmp(weights, "int4")) return pack(a, RD_PACK_INT4);
    if (!strcmp(weights, RD_QUANT_INT8_ROW)) return quantise_rows(a);
    return rd_tool_usage(a, "--weights is int8, int4 or int8-row; not %s", weights);
}
