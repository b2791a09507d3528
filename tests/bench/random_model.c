/* random_model.c - a model folder of random weights in a published shape, for what a benchmark in memory cannot show: the
 * time to load a file, what stays in memory, packing in bounded memory. Not a test.
 *
 *     bench_random_model NAME|CONFIG.json LAYERS bf16|int8|int4 OUT     LAYERS 0: all of them
 */
#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/packed.h"
#include "core/format/safetensors.h"
#include "core/tools/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 200000, NAME = 112 };

typedef struct list {
    const rd_model_config *config;
    rd_pack scheme;
    rd_tensor *tensor;
    char (*name)[NAME];
    int n, at;
    rd_weight_source from;
    rd_safetensors_writer *w;
} list;

static rd_pack pack_of(const list *l, const char *name, int rows)
{
    bool experts = l->config->first_k_dense_replace < l->config->num_hidden_layers;

    return l->scheme && rows > 1 ? rd_pack_of(l->scheme, experts, name) : RD_PACK_NONE;
}

static void add(list *l, const char *name, const char *end, rd_tensor t)
{
    if (l->n == MOST) abort();
    snprintf(l->name[l->n], NAME, "%.100s%s", name, end);
    t.name = l->name[l->n];
    l->tensor[l->n++] = t;
}

/* Expert by expert: three panels, then three lists of scales, as the packer writes them. */
static rd_status name_one(void *user, const char *name, int rows, int cols, rd_matrix *out,
                          rd_error *err)
{
    list *l = user;
    rd_pack p = pack_of(l, name, rows);
    bool exact = rows == 1 || strstr(name, ".mlp.gate.");
    rd_tensor plain = { .dtype = l->scheme || exact ? RD_F32 : RD_BF16,
                        .rank = rows == 1 ? 1 : 2,
                        .shape = { rows == 1 ? cols : rows, cols } };

    (void)out;
    (void)err;
    if (!p)
        add(l, name, "", plain);
    else
        add(l, name, ".q",
            (rd_tensor){ .dtype = RD_U8,
                         .rank = 2,
                         .shape = { (int64_t)rd_pack_panels(rows),
                                    (int64_t)rd_pack_panel_bytes(p, cols) } });
    if (!p) return RD_OK;
    rd_tensor scales = { .dtype = RD_F32,
                         .rank = 1,
                         .shape = { (int64_t)rd_pack_panels(rows) * RD_PACK_ROWS } };
    static struct {
        char name[NAME];
        rd_tensor t;
    } waiting[3];
    static int n;

    snprintf(waiting[n].name, NAME, "%.100s", name);
    waiting[n++].t = scales;
    if (rd_ends_with(name, "gate_proj.weight") || rd_ends_with(name, "up_proj.weight"))
        return RD_OK;
    for (int i = 0; i < n; i++) add(l, waiting[i].name, ".s", waiting[i].t);
    n = 0;
    return RD_OK;
}

static int find(const list *l, const char *name, const char *end)
{
    char full[NAME];

    snprintf(full, sizeof full, "%.100s%s", name, end);
    for (int i = l->at; i < l->n; i++)
        if (!strcmp(l->name[i], full)) return i;
    for (int i = 0; i < l->at; i++)
        if (!strcmp(l->name[i], full)) return i;
    abort();
}

static rd_status write_one(void *user, const char *name, int rows, int cols, rd_matrix *out,
                           rd_error *err)
{
    list *l = user;
    rd_matrix m;

    (void)out;
    if (l->from.find(l->from.user, name, rows, cols, &m, err)) return err->status;
    size_t bytes = m.pack ? rd_pack_panels(rows) * rd_pack_panel_bytes(m.pack, cols)
                          : (size_t)rows * (size_t)cols * rd_dtype_bytes(m.dtype);

    l->at = find(l, name, m.pack ? ".q" : "");
    if (rd_safetensors_put(l->w, l->at, 0, m.data, bytes, err)) return err->status;
    if (!m.pack) return RD_OK;
    return rd_safetensors_put(l->w, find(l, name, ".s"), 0, m.scale,
                              rd_pack_panels(rows) * RD_PACK_ROWS * sizeof(float), err);
}

static rd_status write_model(list *l, const char *out, rd_error *err)
{
    const char *const meta[] = { "redraft_quant", rd_pack_name(l->scheme), "redraft_quant_version",
                                 RD_PACKED_VERSION, NULL };
    rd_weight_source naming = { name_one, l }, writing = { write_one, l };
    rd_random_weights weights = { 0 };
    char *path = rd_path_join(out, "model.safetensors");
    uint64_t mark = 0;

    if (!rd_model_visit(l->config, &naming, err)) {
        rd_safetensors_plan plan = {
            .path = path, .tensors = l->tensor, .n = l->n, .meta = l->scheme ? meta : NULL
        };

        l->from = rd_random_weights_init(&weights, l->config, l->scheme, 1);
        if (!rd_safetensors_begin(&plan, &l->w, &mark, err) &&
            !rd_model_visit(l->config, &writing, err) && !rd_safetensors_finish(l->w, err))
            rd_config_write(out, l->config, RD_BF16, err);
    }
    rd_safetensors_writer_close(l->w);
    rd_random_weights_clear(&weights);
    free(path);
    return err->status;
}

int main(int argc, char **argv)
{
    rd_model_config c;
    rd_error err = { 0 };
    rd_buf text = { 0 };
    list l = { .config = &c };

    if (argc != 5) {
        fprintf(stderr, "usage: %s NAME|CONFIG.json LAYERS bf16|int8|int4 OUT\n", argv[0]);
        return 2;
    }
    if (!rd_shape_named(argv[1], &c) && (rd_file_read(argv[1], 1 << 20, &text, &err) ||
                                         rd_config_parse(text.data, text.len, argv[1], &c, &err))) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (atoi(argv[2]) > 0) c.num_hidden_layers = atoi(argv[2]);
    l.scheme = !strcmp(argv[3], "int4")   ? RD_PACK_INT4
               : !strcmp(argv[3], "int8") ? RD_PACK_INT8
                                          : RD_PACK_NONE;
    l.tensor = rd_alloc_array(MOST, sizeof *l.tensor);
    l.name = rd_alloc_array(MOST, sizeof *l.name);
    (void)mkdir(argv[4], 0777);
    if (write_model(&l, argv[4], &err)) fprintf(stderr, "%s\n", err.text);
    free(l.tensor);
    free(l.name);
    rd_buf_clear(&text);
    return err.status != RD_OK;
}
