/* pack_model.c - list the weights, put them in order, stream them through panels. */
#include "core/format/pack_model.h"

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/format/companions.h"
#include "core/format/config.h"
#include "core/format/quant.h"
#include "core/format/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_MOST = 150, BATCH_BYTES = 4 << 20, FIRST = -1, LAST = INT_MAX };

/* ---- the order ---- */

/* Where a weight stands: compared from the left. Weights alike in the first three are one expert's. */
typedef struct place {
    int layer, part, expert, projection;
} place;

static int part_of(const char *rest)
{
    static const char *const parts[] = {
        "input_layernorm", "attention.query_key_value", "attention.query_layernorm",
        "attention.key",   "attention.dense",           "post_attention_layernorm",
        "mlp.gate.",       "mlp.shared_experts.",       "mlp.experts.",
    };
    int n = sizeof parts / sizeof *parts;

    for (int i = 0; i < n; i++)
        if (!strncmp(rest, parts[i], strlen(parts[i]))) return i;
    return n; /* the MLP of a dense layer, and what we do not know */
}

/* The number between `before` and a dot, and what follows the dot; NULL where `text` does not begin so. */
static const char *number_behind(const char *text, const char *before, int *out)
{
    size_t n = strlen(before);
    char *end;

    if (strncmp(text, before, n) != 0) return NULL;
    long number = strtol(text + n, &end, 10);

    if (end == text + n || *end != '.' || number < 0 || number > 1000000) return NULL;
    *out = (int)number;
    return end + 1;
}

static place place_of(const char *name)
{
    place p = { .layer = LAST };

    if (strstr(name, "word_embeddings")) p.layer = FIRST;
    const char *rest = number_behind(name, "model.layers.", &p.layer);

    if (!rest) return p;
    p.part = part_of(rest);
    (void)number_behind(rest, "mlp.experts.", &p.expert);
    p.projection = strstr(name, "gate_proj") ? 0 : strstr(name, "up_proj") ? 1 : 2;
    return p;
}

/* ---- the list ---- */

typedef struct weight {
    const rd_tensor *t, *scale; /* scale: of int8-row */
    char name[NAME_MOST + 1];
    place place;
    rd_pack pack; /* RD_PACK_NONE: float32 as it is */
    int q, s;     /* its tensors in the new file; `q` alone where it is not packed */
} weight;

typedef struct packer {
    const rd_pack_job *job;
    bool has_experts;
    rd_safetensors *file;
    weight *list;
    int n;
    rd_tensor *tensors; /* of the new file */
    char (*names)[NAME_MOST + 3];
    int n_tensors;
    rd_safetensors_writer *w;
    size_t done, all, marked; /* bytes */
} packer;

static int by_place(const void *a, const void *b)
{
    const weight *x = a, *y = b;
    const int px[] = { x->place.layer, x->place.part, x->place.expert, x->place.projection };
    const int py[] = { y->place.layer, y->place.part, y->place.expert, y->place.projection };

    for (int i = 0; i < 4; i++)
        if (px[i] != py[i]) return px[i] < py[i] ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool together(const weight *a, const weight *b)
{
    return a->place.layer == b->place.layer && a->place.part == b->place.part &&
           a->place.expert == b->place.expert;
}

static bool is_float(rd_dtype t)
{
    return t == RD_F32 || t == RD_F16 || t == RD_BF16;
}

/* The scales of int8 rows W.q. */
static rd_status find_scale(const packer *p, weight *w, rd_error *err)
{
    char other[NAME_MOST + 3];

    snprintf(other, sizeof other, "%s.s", w->name);
    w->scale = rd_safetensors_find(p->file, other);
    if (!w->scale || w->scale->dtype != RD_F32 || w->scale->rank != 1 ||
        w->scale->shape[0] != w->t->shape[0])
        return rd_fail(err, RD_INVALID, "%s: missing, or not F32 [%lld]", other,
                       (long long)w->t->shape[0]);
    return RD_OK;
}

static bool is_scale(const packer *p, const rd_tensor *t)
{
    char other[NAME_MOST + 1];

    if (t->rank != 1 || !rd_ends_with(t->name, ".s")) return false;
    snprintf(other, sizeof other, "%.*s.q", (int)strlen(t->name) - 2, t->name);
    return rd_safetensors_find(p->file, other) != NULL;
}

static rd_status add_weight(packer *p, const rd_tensor *t, rd_error *err)
{
    weight *w = &p->list[p->n];
    bool rows8 = t->dtype == RD_I8 && t->rank == 2 && rd_ends_with(t->name, ".q");

    if (strlen(t->name) > NAME_MOST)
        return rd_fail(err, RD_INVALID, "%.60s...: a name is too long", t->name);
    if (is_scale(p, t)) return RD_OK;
    if (!rows8 && !is_float(t->dtype))
        return rd_fail(err, RD_INVALID,
                       "%s is %s; only float models and our int8-row can be packed", t->name,
                       rd_dtype_name(t->dtype));
    snprintf(w->name, sizeof w->name, "%.*s", (int)strlen(t->name) - (rows8 ? 2 : 0), t->name);
    w->t = t;
    w->place = place_of(w->name);
    w->pack = t->rank == 2 ? rd_pack_of(p->job->pack, p->has_experts, w->name) : RD_PACK_NONE;
    if (rows8 && find_scale(p, w, err)) return err->status;
    if (rows8 && !w->pack) return rd_fail(err, RD_INVALID, "%s is int8; it is exact", w->name);
    if (w->pack && (t->shape[0] < 1 || t->shape[1] < 1 || t->shape[0] > INT_MAX - RD_PACK_ROWS ||
                    t->shape[1] > INT_MAX - RD_PACK_COLS))
        return rd_fail(err, RD_INVALID, "%s is [%lld, %lld]; that cannot be packed", w->name,
                       (long long)t->shape[0], (long long)t->shape[1]);
    p->n++;
    return RD_OK;
}

static rd_status list_weights(packer *p, rd_error *err)
{
    const char *scheme = rd_safetensors_meta(p->file, "redraft_quant");
    int count = rd_safetensors_count(p->file);
    rd_status s = RD_OK;

    if (scheme && strcmp(scheme, RD_QUANT_INT8_ROW) != 0)
        return rd_fail(err, RD_INVALID,
                       "is %.40s already; only float models and our int8-row can be packed",
                       scheme);
    if (!count) return rd_fail(err, RD_INVALID, "the weights hold no tensors");
    p->list = rd_alloc_array((size_t)count, sizeof *p->list);
    for (int i = 0; i < count && !s; i++) s = add_weight(p, rd_safetensors_at(p->file, i), err);
    if (!s) qsort(p->list, (size_t)p->n, sizeof *p->list, by_place);
    return s;
}

/* ---- the new file's tensors ---- */

static size_t size_of(const packer *p, int tensor)
{
    const rd_tensor *t = &p->tensors[tensor];
    size_t bytes = rd_dtype_bytes(t->dtype);

    for (int i = 0; i < t->rank; i++) bytes *= (size_t)t->shape[i];
    return bytes;
}

static int add_tensor(packer *p, const weight *w, const char *end, rd_tensor t)
{
    int at = p->n_tensors++;

    snprintf(p->names[at], sizeof p->names[at], "%s%s", w->name, end);
    t.name = p->names[at];
    p->tensors[at] = t;
    p->all += size_of(p, at);
    return at;
}

static void add_exact(packer *p, weight *w)
{
    rd_tensor t = { .dtype = RD_F32, .rank = w->t->rank };

    memcpy(t.shape, w->t->shape, sizeof t.shape);
    w->q = add_tensor(p, w, "", t);
}

static void add_panels(packer *p, weight *w)
{
    int rows = (int)w->t->shape[0], cols = (int)w->t->shape[1];

    w->q = add_tensor(p, w, ".q",
                      (rd_tensor){ .dtype = RD_U8,
                                   .rank = 2,
                                   .shape = { (int64_t)rd_pack_panels(rows),
                                              (int64_t)rd_pack_panel_bytes(w->pack, cols) } });
}

static void add_scales(packer *p, weight *w)
{
    int64_t rows = (int64_t)rd_pack_panels((int)w->t->shape[0]) * RD_PACK_ROWS;

    w->s = add_tensor(p, w, ".s", (rd_tensor){ .dtype = RD_F32, .rank = 1, .shape = { rows } });
}

/* A tensor whose size is no multiple of 64 would push what follows it off its place: such ones stand last. */
static bool breaks_line(const weight *w)
{
    size_t n = w->t->bytes / rd_dtype_bytes(w->t->dtype);

    return !w->pack && n * sizeof(float) % RD_PACK_LINE != 0;
}

/* The panels of what belongs together, then its scales: they are checked when a model is opened, and lie close. */
static void list_tensors(packer *p)
{
    p->tensors = rd_alloc_array(2 * (size_t)p->n, sizeof *p->tensors);
    p->names = rd_alloc_array(2 * (size_t)p->n, sizeof *p->names);
    for (int i = 0, end; i < p->n; i = end) {
        for (end = i; end < p->n && together(&p->list[i], &p->list[end]); end++) {
            if (p->list[end].pack)
                add_panels(p, &p->list[end]);
            else if (!breaks_line(&p->list[end]))
                add_exact(p, &p->list[end]);
        }
        for (int k = i; k < end; k++)
            if (p->list[k].pack) add_scales(p, &p->list[k]);
    }
    for (int i = 0; i < p->n; i++)
        if (breaks_line(&p->list[i])) add_exact(p, &p->list[i]);
}

/* ---- numbers ---- */

static rd_status tell(packer *p, size_t more, rd_error *err)
{
    p->done += more;
    if (p->job->progress && !p->job->progress(p->job->user, p->done, p->all))
        return rd_fail(err, RD_CANCELLED, "stopped; the same call goes on from here");
    return RD_OK;
}

static rd_status put_exact(packer *p, const weight *w, rd_error *err)
{
    size_t n = w->t->bytes / rd_dtype_bytes(w->t->dtype);
    float *wide = rd_alloc_array(n + 1, sizeof *wide);
    rd_status s = RD_OK;

    rd_widen(wide, w->t->data, w->t->dtype, n);
    for (size_t i = 0; i < n && !s; i++)
        if (!isfinite(wide[i]))
            s = rd_fail(err, RD_INVALID, "%s: number %zu is not finite", w->name, i);
    if (!s) s = rd_safetensors_put(p->w, w->q, 0, wide, n * sizeof *wide, err);
    free(wide);
    p->done += s ? 0 : n * sizeof *wide;
    return s;
}

/* Rows from `first` on as floats. */
static void widen_rows(const weight *w, size_t first, size_t rows, float *out)
{
    size_t cols = (size_t)w->t->shape[1], size = rd_dtype_bytes(w->t->dtype);

    rd_widen(out, (const char *)w->t->data + first * cols * size, w->t->dtype, rows * cols);
    for (size_t r = 0; w->scale && r < rows; r++) {
        float scale;

        memcpy(&scale, (const char *)w->scale->data + (first + r) * sizeof scale, sizeof scale);
        for (size_t k = 0; k < cols; k++) out[r * cols + k] *= scale;
    }
}

static rd_status fail_at(const weight *w, size_t first, const float *wide, rd_error *err)
{
    size_t cols = (size_t)w->t->shape[1], i = 0;

    while (isfinite(wide[i])) i++;
    return rd_fail(err, RD_INVALID, "%s: row %zu: column %zu is not finite", w->name,
                   first + i / cols, i % cols);
}

/* Room for one weight: some panels, their rows and all scales. */
typedef struct room {
    float *wide, *scales;
    char *panels;
} room;

/* `n` panels from `first` on, packed and written. */
static rd_status put_batch(packer *p, const weight *w, const room *m, size_t first, size_t n,
                           rd_error *err)
{
    size_t rows = (size_t)w->t->shape[0], bytes = rd_pack_panel_bytes(w->pack, (int)w->t->shape[1]);

    for (size_t i = 0; i < n; i++) {
        size_t at = (first + i) * RD_PACK_ROWS, here = rows - at;

        if (here > RD_PACK_ROWS) here = RD_PACK_ROWS;
        widen_rows(w, at, here, m->wide);
        if (rd_pack_panel(w->pack, m->wide, (int)here, (int)w->t->shape[1], m->panels + i * bytes,
                          m->scales + at, err))
            return fail_at(w, at, m->wide, err);
    }
    return rd_safetensors_put(p->w, w->q, first * bytes, m->panels, n * bytes, err);
}

static rd_status put_panels(packer *p, const weight *w, rd_error *err)
{
    size_t cols = (size_t)w->t->shape[1], panels = rd_pack_panels((int)w->t->shape[0]);
    size_t bytes = rd_pack_panel_bytes(w->pack, (int)cols), batch = BATCH_BYTES / bytes + 1;
    size_t rows = panels * RD_PACK_ROWS, source = RD_PACK_ROWS * cols * rd_dtype_bytes(w->t->dtype);
    room m = { .wide = rd_alloc_array(RD_PACK_ROWS * cols, sizeof *m.wide),
               .scales = rd_alloc_array(rows, sizeof *m.scales),
               .panels = rd_alloc_array(batch < panels ? batch : panels, bytes) };
    rd_status s = RD_OK;

    for (size_t i = 0; i < panels && !s; i += batch) {
        size_t n = panels - i < batch ? panels - i : batch;

        s = put_batch(p, w, &m, i, n, err);
        if (i + n < panels) /* whole panels of the source */
            rd_safetensors_release(p->file, (const char *)w->t->data + i * source, n * source);
        if (!s) s = tell(p, n * bytes, err);
    }
    rd_safetensors_release(p->file, w->t->data, w->t->bytes);
    if (!s) s = rd_safetensors_put(p->w, w->s, 0, m.scales, rows * sizeof *m.scales, err);
    p->done += s ? 0 : rows * sizeof *m.scales;
    free(m.wide);
    free(m.scales);
    free(m.panels);
    return s;
}

/* ---- the work ---- */

/* What a job that was cut off had done. */
static void skip(packer *p, uint64_t mark)
{
    for (int i = 0; i < p->n && (uint64_t)i < mark; i++) {
        const weight *w = &p->list[i];

        rd_safetensors_skip(p->w, w->q);
        p->done += size_of(p, w->q);
        if (!w->pack) continue;
        rd_safetensors_skip(p->w, w->s);
        p->done += size_of(p, w->s);
    }
    p->marked = p->done;
}

/* Whole weights only: the mark counts them. A stop throws away what it had of one. */
static rd_status put_weights(packer *p, uint64_t mark, rd_error *err)
{
    size_t most = p->job->mark_bytes ? p->job->mark_bytes : (size_t)256 << 20;

    for (int i = (int)mark; i < p->n; i++) {
        const weight *w = &p->list[i];
        rd_status s = w->pack ? put_panels(p, w, err) : put_exact(p, w, err);
        rd_error late;

        if (s == RD_CANCELLED && i > 0 && rd_safetensors_mark(p->w, (uint64_t)i, &late)) {
            *err = late;
            return late.status;
        }
        if (s) return s;
        if (p->done - p->marked < most) continue;
        if (rd_safetensors_mark(p->w, (uint64_t)i + 1, err)) return err->status;
        p->marked = p->done;
    }
    return RD_OK;
}

static rd_key key_of(const packer *p)
{
    rd_key_maker k;

    rd_key_begin(&k, "packed model");
    rd_key_add_text(&k, rd_pack_name(p->job->pack));
    rd_key_add_text(&k, RD_PACKED_VERSION);
    rd_safetensors_name(p->file, &k);
    return rd_key_end(&k);
}

static rd_status finish(packer *p, rd_error *err)
{
    rd_companions c = { 0 };
    rd_status s = rd_companions_copy(&c, p->job->in, p->job->out, err);

    if (!s) s = rd_safetensors_unchanged(p->file, err);
    if (!s) s = rd_companions_finish(&c, err);
    if (!s) s = rd_safetensors_finish(p->w, err);
    rd_companions_clear(&c);
    return s;
}

static rd_status write_file(packer *p, rd_pack_result *out, rd_error *err)
{
    const char *const meta[] = { "redraft_quant", rd_pack_name(p->job->pack),
                                 "redraft_quant_version", RD_PACKED_VERSION, NULL };
    char *path = rd_path_join(p->job->out, "model.safetensors");
    rd_safetensors_plan plan = {
        .path = path, .tensors = p->tensors, .n = p->n_tensors, .meta = meta, .work = key_of(p)
    };
    rd_error why = { 0 };
    uint64_t mark = 0;
    rd_status s = rd_safetensors_begin(&plan, &p->w, &mark, err);

    if (!s) skip(p, mark);
    out->kept = p->done;
    if (!s && (s = put_weights(p, mark, &why))) {
        if (why.status == RD_INVALID)
            rd_fail(err, s, "%s: %s", p->job->in, why.text);
        else
            *err = why;
    }
    if (!s) s = finish(p, err);
    if (s == RD_CANCELLED)
        rd_safetensors_leave(p->w);
    else
        rd_safetensors_writer_close(p->w);
    free(path);
    return s;
}

static rd_status pack_into(packer *p, rd_pack_result *out, rd_error *err)
{
    const char *dir = p->job->out;
    bool made = !mkdir(dir, 0777);

    if (!made && errno != EEXIST) return rd_fail(err, RD_IO, "%s: %s", dir, strerror(errno));
    rd_status s = write_file(p, out, err);

    if (s && s != RD_CANCELLED && (made || out->kept)) rmdir(dir);
    return s;
}

static rd_status check_job(packer *p, rd_error *err)
{
    const rd_pack_job *job = p->job;
    rd_model_config c;
    struct stat a, b;

    if (!rd_pack_name(job->pack)) return rd_fail(err, RD_INVALID, "no scheme is named");
    if (!stat(job->in, &a) && !stat(job->out, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return rd_fail(err, RD_INVALID, "%s: a model cannot be packed onto itself", job->out);
    if (rd_config_read(job->in, &c, err)) return err->status;
    p->has_experts = c.first_k_dense_replace < c.num_hidden_layers;
    return RD_OK;
}

rd_status rd_pack_model(const rd_pack_job *job, rd_pack_result *out, rd_error *err)
{
    packer p = { .job = job };
    rd_pack_result result = { 0 };
    rd_error local = { 0 }, why = { 0 };

    if (!err) err = &local;
    rd_status s = check_job(&p, err);

    if (!s) s = rd_safetensors_open(job->in, &p.file, err);
    if (!s && (s = list_weights(&p, &why))) rd_fail(err, s, "%s: %s", job->in, why.text);
    if (!s) {
        list_tensors(&p);
        s = pack_into(&p, &result, err);
    }
    result.bytes = p.all;
    for (int i = 0; i < p.n; i++) result.weights += p.list[i].pack != RD_PACK_NONE;
    if (out) *out = result;
    rd_safetensors_close(p.file);
    free(p.list);
    free(p.tensors);
    free(p.names);
    return s;
}
