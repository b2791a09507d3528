/* bench_print.c - a benchmark as a table for people and as one JSON object. */
#include "core/tools/bench.h"

#include "core/base/buf.h"
#include "core/format/record.h"

#include <stdio.h>
#include <string.h>

static double bytes_of(const rd_bench_pass *p)
{
    return p->dense.bytes + p->experts_work.bytes + p->attention.bytes;
}

static double ops_of(const rd_bench_pass *p)
{
    return p->dense.ops + p->experts_work.ops + p->attention.ops;
}

static double product_peak(const rd_bench *b)
{
    return b->int8 ? b->ceilings.int8_op_s : b->ceilings.bf16_flop_s;
}

/* Times at the ceilings, ms; 0 where a ceiling is not known. */
static double reading_ms(const rd_bench *b, const rd_bench_pass *p, double bytes)
{
    bool cached = bytes_of(p) < b->ceilings.cache_bytes;

    return b->ceilings.read_bytes_s > 0.0 && !cached ? bytes / b->ceilings.read_bytes_s * 1e3 : 0.0;
}

static double product_ms(double ops, double peak)
{
    return peak > 0.0 ? ops / peak * 1e3 : 0.0;
}

static double phase_ms(const rd_bench *b, const rd_bench_pass *p, rd_bench_work w, double peak)
{
    double read = reading_ms(b, p, w.bytes), products = product_ms(w.ops, peak);

    return read > products ? read : products;
}

double rd_bench_floor_ms(const rd_bench *b, const rd_bench_pass *p)
{
    double peak = product_peak(b);

    return phase_ms(b, p, p->dense, peak) + phase_ms(b, p, p->experts_work, peak) +
           phase_ms(b, p, p->attention, b->ceilings.bf16_flop_s);
}

static double of_reading(const rd_bench *b, const rd_bench_pass *p)
{
    return reading_ms(b, p, bytes_of(p)) / p->time.median_ms;
}

static double of_products(const rd_bench *b, const rd_bench_pass *p)
{
    return (product_ms(p->dense.ops + p->experts_work.ops, product_peak(b)) +
            product_ms(p->attention.ops, b->ceilings.bf16_flop_s)) /
           p->time.median_ms;
}

static double of_floor(const rd_bench *b, const rd_bench_pass *p)
{
    return rd_bench_floor_ms(b, p) / p->time.median_ms;
}

void rd_bench_print_json(const rd_bench *b)
{
    rd_buf out = { 0 };

    rd_buf_text(&out, "{\"shape\":");
    rd_json_quote(&out, b->shape, strlen(b->shape));
    rd_buf_format(&out, ",\"backend\":\"%s\",\"weights\":\"%s\",\"threads\":%d,\"passes\":[",
                  b->backend, b->weights, b->threads);
    for (int i = 0; i < b->n_passes; i++) {
        const rd_bench_pass *p = &b->passes[i];

        rd_buf_format(
            &out,
            "%s{\"context\":%d,\"rows\":%d,\"experts_per_layer\":%.4g,\"pass_ms\":{"
            "\"median\":%.3f,\"min\":%.3f},\"bytes_read\":%.0f,\"share_of_ceiling\":%.3f}",
            i ? "," : "", p->context, p->rows, p->experts, p->time.median_ms, p->time.min_ms,
            bytes_of(p), of_floor(b, p));
    }
    rd_buf_text(&out, "],\"prefill\":[");
    for (int i = 0; i < b->n_prefills; i++)
        rd_buf_format(&out, "%s{\"tokens\":%d,\"tokens_per_s\":%.1f}", i ? "," : "",
                      b->prefills[i].tokens,
                      b->prefills[i].tokens / b->prefills[i].time.median_ms * 1e3);
    rd_buf_format(&out,
                  "],\"head_ms\":%.3f,\"decode\":{\"tokens\":%d,\"forwards\":%d,\"ms\":%.3f},"
                  "\"ceilings\":{\"read_gb_s\":%.2f,\"int8_gop_s\":%.1f,\"bf16_gflop_s\":%.1f},"
                  "\"load_ms\":%.1f,\"peak_rss_mb\":%.1f}\n",
                  b->head.median_ms, b->decode.tokens, b->decode.forwards, b->decode.time.median_ms,
                  b->ceilings.read_bytes_s * 1e-9, b->ceilings.int8_op_s * 1e-9,
                  b->ceilings.bf16_flop_s * 1e-9, b->load_ms, b->peak_rss_mb);
    fwrite(out.data, 1, out.len, stdout);
    rd_buf_clear(&out);
}

static void print_share(double share)
{
    if (share > 0.0)
        printf(" %7.0f %%", 100.0 * share);
    else
        printf(" %9s", "-");
}

/* Tokens a second if each pass gave so many, as the reports of these models do. */
static void print_rates(const rd_bench *b)
{
    static const double per_pass[] = { 5.25, 12.0 };

    for (int i = 0; i < b->n_passes; i++) {
        const rd_bench_pass *p = &b->passes[i];

        if (p->rows != 32) continue;
        printf("rate behind %6d, %4.4g experts:", p->context, p->experts);
        for (size_t k = 0; k < sizeof per_pass / sizeof *per_pass; k++)
            printf(" %8.0f tokens/s at %.4g a pass%s", per_pass[k] / p->time.median_ms * 1e3,
                   per_pass[k], k ? "\n" : ",");
    }
}

void rd_bench_print(const rd_bench *b)
{
    printf("%s, %d layer%s, %s weights; %s %s", b->shape, b->layers, b->layers > 1 ? "s" : "",
           b->weights, b->backend, b->isa);
    if (b->threads > 0) printf(", %d thread%s", b->threads, b->threads > 1 ? "s" : "");
    printf("\n");
    printf("ceilings: %.1f GB/s read, %.0f GFLOP/s bf16, %.0f Gop/s int8\n",
           b->ceilings.read_bytes_s * 1e-9, b->ceilings.bf16_flop_s * 1e-9,
           b->ceilings.int8_op_s * 1e-9);
    printf("load %.1f ms, %.1f MB held, peak memory %.1f MB\n\n", b->load_ms, b->held_mb,
           b->peak_rss_mb);
    printf("pass: context  rows  experts  median ms     min ms   MB read     GFLOP   of read   of "
           "%s  floor "
           "ms  of "
           "floor\n",
           b->int8 ? "int8" : "bf16");
    for (int i = 0; i < b->n_passes; i++) {
        const rd_bench_pass *p = &b->passes[i];

        printf("      %7d %5d %8.4g %10.3f %10.3f %9.1f %9.3f", p->context, p->rows, p->experts,
               p->time.median_ms, p->time.min_ms, bytes_of(p) * 1e-6, ops_of(p) * 1e-9);
        print_share(of_reading(b, p));
        print_share(of_products(b, p));
        printf(" %9.3f", rd_bench_floor_ms(b, p));
        print_share(of_floor(b, p));
        printf("\n");
    }
    for (int i = 0; i < b->n_prefills; i++) {
        const rd_bench_prefill *p = &b->prefills[i];

        printf("prefill %5d tokens:            %10.3f %10.3f   %.1f tokens/s\n", p->tokens,
               p->time.median_ms, p->time.min_ms, p->tokens / p->time.median_ms * 1e3);
    }
    printf("head    %5d rows:              %10.3f %10.3f\n", b->head_rows, b->head.median_ms,
           b->head.min_ms);
    printf("decode  %5d tokens, %2d passes: %10.3f %10.3f   %.1f tokens/s behind %d\n",
           b->decode.tokens, b->decode.forwards, b->decode.time.median_ms, b->decode.time.min_ms,
           b->decode.tokens / b->decode.time.median_ms * 1e3, b->decode.context);
    if (strcmp(b->backend, "cpu") != 0) print_rates(b);
}
