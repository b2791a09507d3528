/* bench_model.c - the model that a benchmark is of, and whether there is room for it. */
#include "core/tools/bench_plan.h"

#include "core/base/memory.h"

#include <string.h>

bool rd_bench_on_host(const rd_bench_plan *p)
{
    return !strcmp(p->backend->name, "cpu");
}

/* Lengths of prefill: 512 and, where contexts reach them, 1024 and 4096; shorter where the shape allows less. */
int rd_bench_prefill_lengths(const rd_bench_plan *p, int most, int block, int *out)
{
    int longest = p->config.max_position_embeddings, n = 0;

    out[n++] = longest < 512 ? longest / block * block : 512 / block * block;
    if (most >= 1024 && longest >= 1024 && block <= 1024) out[n++] = 1024 / block * block;
    if (most >= 4096 && longest >= 4096 && block <= 4096 && !rd_bench_on_host(p))
        out[n++] = 4096 / block * block;
    if (out[0] < block) out[0] = block;
    return n;
}

int rd_bench_kv_blocks(const rd_bench_plan *p)
{
    int block = p->config.block_size, lengths[RD_BENCH_PREFILLS], most = 0, n;

    for (int i = 0; i < p->n_contexts; i++) most = p->contexts[i] > most ? p->contexts[i] : most;
    n = rd_bench_prefill_lengths(p, most, block, lengths);
    for (int i = 0; i < n; i++) most = lengths[i] > most ? lengths[i] : most;
    return (most + RD_BENCH_CHUNK) / block + 2;
}

/* Is there room for random weights held by the CPU (packed ones as they are; else 2 bytes a number, 4 on the plain
 * path), for keys and values and for a pass? A rough sum, on the safe side; the machine is not driven into its last
 * memory. */
static rd_status check_room(const rd_bench_plan *p, bool wide, rd_error *err)
{
    const rd_model_config *c = &p->config;
    rd_shape_size size;

    if (rd_shape_measure(c, p->scheme, &size, err)) return err->status;
    double held = (double)size.weights * (wide ? 4.0 : 2.0) + (double)size.exact * 4.0;
    double kv = 2.0 * 4.0 * c->num_hidden_layers * c->num_key_value_heads * c->head_dim *
                c->block_size * rd_bench_kv_blocks(p);
    double source = (double)size.largest * 2.0;
    double rows = 4.0 * RD_BENCH_CHUNK *
                  (c->hidden_size * (8.0 + c->num_experts_per_tok) + 3.0 * c->intermediate_size +
                   3.0 * c->moe_intermediate_size * c->num_experts_per_tok);

    if (p->scheme) {
        held = (double)size.packed + (double)size.exact * 4.0;
        source = 0.0;
    }
    double need = 1.03 * (held + kv + rows + source) + 64e6, free_bytes = (double)rd_memory_free();

    if (need <= free_bytes) return RD_OK;
    return rd_fail(err, RD_NO_MEMORY,
                   "%s, %d layers of %s weights, needs %.1f GB of memory; %.1f GB are free "
                   "(--layers N takes fewer)",
                   p->shape, c->num_hidden_layers, wide && !p->scheme ? "float32" : p->weights,
                   need * 1e-9, free_bytes * 1e-9);
}

rd_status rd_bench_open_model(const rd_bench_plan *p, const rd_model_options *o,
                              rd_random_weights *weights, rd_model **out, rd_error *err)
{
    if (p->folder) return rd_model_open(p->folder, o, out, err);
    bool wide =
        o->device.precision == RD_EXACT || (o->device.isa && !strcmp(o->device.isa, "plain"));

    if (rd_bench_on_host(p) && check_room(p, wide, err)) return err->status;
    rd_weight_source from = rd_random_weights_init(weights, &p->config, p->scheme, 1);

    weights->e4m3 = !p->there && !strcmp(p->weights, "fp8");
    weights->there =
        p->there && p->backend->size > offsetof(rd_backend, fills) && p->backend->fills;

    return rd_model_open_from(&p->config, &from, o, out, err);
}
