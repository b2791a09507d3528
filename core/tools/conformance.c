/* conformance.c - walks folders of recorded cases and compares: models (golden_forward, golden_traces) and
 * tokenizers.
 *
 * A folder is one of ours when it has golden.json or a file of traces. A case prints one line; a file that
 * cannot be read is a failed case. Links are followed, each folder is visited once for each PATH.
 */
#include "core/tools/calls.h"
#include "core/tools/golden.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/tokenizer.h"
#include "core/plugin.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MOST = 64 };

/* ---- the report ---- */

void rd_golden_pass(rd_golden_folder *f, const char *name)
{
    f->report->passed++;
    printf("pass %s/%.100s\n", f->name, name);
}

static void say(const rd_golden_folder *f, const char *verdict, const char *name,
                const char *format, va_list args)
{
    printf("%s %s/%.100s: ", verdict, f->name, name);
    vprintf(format, args);
    printf("\n");
}

void rd_golden_fail(rd_golden_folder *f, const char *name, const char *format, ...)
{
    va_list args;

    f->report->failed++;
    va_start(args, format);
    say(f, "FAIL", name, format, args);
    va_end(args);
}

void rd_golden_skip(rd_golden_folder *f, const char *name, const char *format, ...)
{
    va_list args;

    f->report->skipped++;
    va_start(args, format);
    say(f, "skip", name, format, args);
    va_end(args);
}

rd_status rd_golden_model(const rd_golden_folder *f, int block, int rows, rd_model **out,
                          rd_error *err)
{
    rd_model_options o = { .backend = f->report->backend,
                           .device = f->report->device,
                           .block_size = block,
                           .max_rows = rows,
                           .kv_blocks = rows / block + 2 };

    return rd_model_open(f->dir, &o, out, err);
}

const char *rd_golden_text(rd_value v)
{
    size_t n;

    return rd_value_text(v, &n);
}

/* ---- the dump ---- */

void rd_golden_keep(const rd_golden_folder *f, rd_golden_tensors *t, const char *name,
                    rd_dtype dtype, int heads, int rows, int cols, const void *data)
{
    size_t cells = (size_t)(heads > 0 ? heads : 1) * (size_t)rows * (size_t)cols;
    rd_tensor kept = { .dtype = dtype, .rank = 2, .shape = { rows, cols } };

    if (!f->dump) return;
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->list[i].name, name)) return;
    if (heads > 0) kept = (rd_tensor){ .dtype = dtype, .rank = 3, .shape = { heads, rows, cols } };
    void *copy = rd_alloc_array(cells, 4);

    memcpy(copy, data, cells * 4);
    kept.name = rd_copy_text(name, strlen(name));
    kept.data = copy;
    kept.bytes = cells * 4;
    t->list = rd_resize(t->list, (size_t)t->n + 1, sizeof *t->list);
    t->list[t->n++] = kept;
}

void rd_golden_write_tensors(rd_golden_folder *f, rd_golden_tensors *t, const char *file)
{
    rd_error err = { 0 };

    if (t->n > 0) {
        char *path = rd_path_join(f->dump, file);

        if (rd_safetensors_write(path, t->list, t->n, NULL, &err))
            rd_golden_fail(f, "dump", "%s", err.text);
        free(path);
    }
    for (int i = 0; i < t->n; i++) {
        free((void *)t->list[i].name);
        free((void *)t->list[i].data);
    }
    free(t->list);
    *t = (rd_golden_tensors){ 0 };
}

void rd_golden_write_text(rd_golden_folder *f, const rd_buf *text, const char *file)
{
    rd_error err = { 0 };

    if (!f->dump) return;
    char *path = rd_path_join(f->dump, file);

    if (rd_file_write(path, text->data, text->len, &err)) rd_golden_fail(f, "dump", "%s", err.text);
    free(path);
}

void rd_golden_field(rd_buf *out, const char *key)
{
    if (out->len > 0 && out->data[out->len - 1] != '{') rd_buf_text(out, ",");
    rd_json_quote(out, key, strlen(key));
    rd_buf_text(out, ":");
}

void rd_golden_copy_fields(rd_value object, const char *const *but, rd_buf *out)
{
    const char *key;

    for (int i = 0; (key = rd_value_key(object, i)); i++) {
        bool left_out = false;

        for (int k = 0; but[k]; k++) left_out |= !strcmp(but[k], key);
        if (left_out) continue;
        rd_golden_field(out, key);
        rd_value_write(rd_value_get(object, key), out);
    }
}

void rd_golden_ids(rd_buf *out, const char *key, const int32_t *ids, int n)
{
    rd_golden_field(out, key);
    rd_buf_text(out, "[");
    for (int i = 0; i < n; i++) rd_buf_format(out, "%s%d", i ? "," : "", ids[i]);
    rd_buf_text(out, "]");
}

/* The folder below the dump for f: by its name, and a number where another of this run has that name. */
static void open_dump(rd_golden_folder *f)
{
    rd_golden_report *r = f->report;
    rd_buf name = { 0 };

    if (!r->dump) return;
    for (int n = 1; !f->dump; n++) {
        rd_buf_reset(&name);
        rd_buf_text(&name, f->name);
        if (n > 1) rd_buf_format(&name, ".%d", n);
        f->dump = rd_path_join(r->dump, name.data);
        for (int i = 0; f->dump && i < r->dumped_n; i++) {
            if (strcmp(r->dumped[i], f->dump) != 0) continue;
            free(f->dump);
            f->dump = NULL;
        }
    }
    rd_buf_clear(&name);
    r->dumped = rd_resize(r->dumped, (size_t)r->dumped_n + 1, sizeof *r->dumped);
    r->dumped[r->dumped_n++] = rd_copy_text(f->dump, strlen(f->dump));
    if ((mkdir(r->dump, 0777) && errno != EEXIST) || (mkdir(f->dump, 0777) && errno != EEXIST)) {
        rd_golden_fail(f, "dump", "%s: %s", f->dump, strerror(errno));
        free(f->dump);
        f->dump = NULL;
    }
}

/* ---- tokenizers ---- */

static bool same_text(rd_value want, const rd_buf *got)
{
    size_t m;
    const char *s = rd_value_text(want, &m);

    return s && m == got->len && (m == 0 || !memcmp(s, got->data, m));
}

/* One case: text to ids where there is a text, ids to text with and without special tokens. What was made is
 * appended to `out` as fields. The first that differs, or NULL. */
static const char *run_text(const rd_tokenizer *t, rd_value c, bool encode, rd_buf *out,
                            rd_error *err)
{
    static const char *const keys[] = { "decoded", "decoded_skip_special" };
    rd_ids want = { 0 }, got = { 0 };
    size_t len;
    const char *text = rd_value_text(rd_value_get(c, "text"), &len), *differs = NULL;

    if (!rd_value_ids(rd_value_get(c, "ids"), &want) || (encode && !text))
        differs = "the case is malformed";
    else if (encode && rd_tokenizer_encode(t, text, len, RD_TEXT_ADDED, &got, err))
        differs = err->text;
    else if (encode && (got.n != want.n ||
                        (got.n && memcmp(got.id, want.id, (size_t)got.n * sizeof(int32_t)))))
        differs = "ids differ";
    if (encode) rd_golden_ids(out, "ids", got.id, got.n);
    for (int skip = 0; skip < 2; skip++) {
        rd_buf raw = { 0 }, decoded = { 0 };

        if (!rd_value_get(c, keys[skip])) continue;
        rd_tokenizer_decode(t, want.id, want.n, skip, &raw);
        rd_utf8_repair(raw.data ? raw.data : "", raw.len, &decoded);
        if (!differs && !same_text(rd_value_get(c, keys[skip]), &decoded))
            differs = skip ? "decoded_skip_special differs" : "decoded differs";
        rd_golden_field(out, keys[skip]);
        rd_json_quote(out, decoded.data ? decoded.data : "", decoded.len);
        rd_buf_clear(&raw);
        rd_buf_clear(&decoded);
    }
    rd_ids_clear(&want);
    rd_ids_clear(&got);
    return differs;
}

static void run_tokenizer(rd_golden_folder *f)
{
    static const char *const parts[] = { "encode", "decode", NULL };
    static const char *const computed[][4] = { { "ids", "decoded", "decoded_skip_special", NULL },
                                               { "decoded", "decoded_skip_special", NULL, NULL } };
    rd_value top = rd_record_top(f->top);
    rd_tokenizer *t = NULL;
    rd_buf text = { 0 };
    rd_error err = { 0 };

    if (rd_tokenizer_open(f->dir, &t, &err)) {
        rd_golden_fail(f, "tokenizer", "%s", err.text);
        return;
    }
    rd_buf_text(&text, "{");
    rd_golden_copy_fields(top, parts, &text);
    for (int part = 0; part < 2; part++) {
        rd_value cases = rd_value_get(top, parts[part]);

        rd_golden_field(&text, parts[part]);
        rd_buf_text(&text, "[");
        for (int i = 0; i < rd_value_count(cases); i++) {
            rd_value c = rd_value_at(cases, i);
            char name[64];

            rd_buf_text(&text, i ? ",\n{" : "\n{");
            rd_golden_copy_fields(c, computed[part], &text);
            snprintf(name, sizeof name, "%s_%d", parts[part], i);
            const char *differs = run_text(t, c, part == 0, &text, &err);

            rd_buf_text(&text, "}");
            if (differs)
                rd_golden_fail(f, name, "%s", differs);
            else
                rd_golden_pass(f, name);
        }
        rd_buf_text(&text, "]");
    }
    rd_buf_text(&text, "}\n");
    rd_golden_write_text(f, &text, "golden.json");
    rd_buf_clear(&text);
    rd_tokenizer_close(t);
}

/* ---- folders ---- */

static bool exists_in(const char *dir, const char *name)
{
    char *path = rd_path_join(dir, name);
    struct stat st;
    bool yes = stat(path, &st) == 0;

    free(path);
    return yes;
}

static bool has_traces(const char *dir)
{
    return exists_in(dir, "decode.json") || exists_in(dir, "decode_diffusers.json") ||
           exists_in(dir, "decode_v22.json");
}

static void run_model(rd_golden_folder *f)
{
    char *path = rd_path_join(f->dir, "golden.safetensors");
    rd_error err = { 0 };

    if (rd_config_read(f->dir, &f->config, &err)) {
        rd_golden_fail(f, "model", "%s", err.text);
    } else {
        if (exists_in(f->dir, "golden.safetensors") && rd_safetensors_open(path, &f->tensors, &err))
            rd_golden_fail(f, "golden.safetensors", "%s", err.text);
        if (f->top) rd_golden_forward(f);
        rd_golden_traces(f);
    }
    rd_safetensors_close(f->tensors);
    free(path);
}

static void run_cases(rd_golden_report *r, const char *dir)
{
    rd_golden_folder f = { .report = r, .dir = dir };
    char *path = rd_path_join(dir, "golden.json");
    bool traces = has_traces(dir);
    rd_error err = { 0 };
    const char *slash = strrchr(dir, '/');

    snprintf(f.name, sizeof f.name, "%s", slash && slash[1] ? slash + 1 : dir);
    rd_status status = rd_record_read(path, &f.top, &err);

    if (!status || status != RD_NOT_FOUND || traces) {
        rd_value top = f.top ? rd_record_top(f.top) : NULL;
        bool texts = rd_value_get(top, "encode") || rd_value_get(top, "decode");
        bool passes = rd_value_get(top, "forward_cases") != NULL;

        open_dump(&f);
        if (status && status != RD_NOT_FOUND) rd_golden_fail(&f, "golden.json", "%s", err.text);
        if (f.top && !texts && !passes && !traces) rd_golden_fail(&f, "golden.json", "no cases");
        if (texts) run_tokenizer(&f);
        if (passes || traces) run_model(&f);
    }
    free(f.dump);
    rd_record_free(f.top);
    free(path);
}

typedef struct visited {
    dev_t device;
    ino_t inode;
} visited;

typedef struct walk {
    rd_golden_report *report;
    visited *seen;
    int n;
} walk;

static bool is_new(walk *w, const char *dir)
{
    struct stat st;

    if (stat(dir, &st) || !S_ISDIR(st.st_mode)) return false;
    for (int i = 0; i < w->n; i++)
        if (w->seen[i].device == st.st_dev && w->seen[i].inode == st.st_ino) return false;
    w->seen = rd_resize(w->seen, (size_t)w->n + 1, sizeof *w->seen);
    w->seen[w->n++] = (visited){ st.st_dev, st.st_ino };
    return true;
}

static void fail_folder(walk *w, const char *dir, const char *why)
{
    printf("FAIL %s: %s\n", dir, why);
    w->report->failed++;
}

static void run_folder(walk *w, const char *dir, int depth)
{
    struct dirent **list;

    if (!is_new(w, dir)) return;
    run_cases(w->report, dir);
    if (depth == DEPTH_MOST) {
        fail_folder(w, dir, "too deep");
        return;
    }
    int n = scandir(dir, &list, NULL, alphasort);

    if (n < 0) fail_folder(w, dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = rd_path_join(dir, list[i]->d_name);

        if (list[i]->d_name[0] != '.' && rd_is_folder(path)) run_folder(w, path, depth + 1);
        free(path);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

int rd_tool_conformance(const rd_args *a)
{
    rd_golden_report r = { .device = { .isa = rd_args_text(a, "--isa"), .precision = RD_EXACT },
                           .dump = rd_args_text(a, "--dump") };
    rd_error err = { 0 };

    if (rd_args_count(a) == 0) return rd_tool_usage(a, "which folders?");
    if (!rd_args_int(a, "--threads", 1, 256, &r.device.threads)) return 2;
    if (rd_backend_find(rd_backend_for_isa(rd_args_text(a, "--backend"), r.device.isa), &r.backend,
                        &err))
        return rd_tool_fail(a, &err);
    for (int i = 0; i < rd_args_count(a); i++) {
        char *dir = rd_copy_text(rd_args_at(a, i), strlen(rd_args_at(a, i)));
        walk w = { .report = &r };

        for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = 0;
        if (rd_is_folder(dir))
            run_folder(&w, dir, 0);
        else
            fail_folder(&w, dir, "not a folder");
        free(w.seen);
        free(dir);
    }
    for (int i = 0; i < r.dumped_n; i++) free(r.dumped[i]);
    free(r.dumped);
    printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped);
    return r.failed > 0 || r.passed == 0;
}
