/* growth.c - what a process holds after the first thousand completions, and after the last.
 *
 *   bench_growth [MODEL|builtin|tiny] [COUNT]      builtin and 10000 without them; tiny: random weights in a small shape
 *
 * Each completion has a text of its own, so that finished blocks push each other out: with drafts and neighbours, several
 * texts, rewrites, some cancelled on the way. Prints the resident set and the heap's bytes in use; ends with 1 where
 * the heap grew by more than HEAP_KB, or the resident set by more than RSS_KB, behind the first tenth.
 */
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/runner.h"
#include "core/train/params.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { COUNT = 10000, HEAP_KB = 64, RSS_KB = 2048, LINES = 8 };

/* ---- the tiny model ---- */

static rd_status write_tiny(const char *builtin, const char *dir, rd_error *err)
{
    char *from = rd_path_join(builtin, "tokenizer.json"), *to = rd_path_join(dir, "tokenizer.json");
    rd_buf text = { 0 };
    rd_model_config c;
    rd_params p = { 0 };
    float *w = NULL;

    if (!rd_config_read(builtin, &c, err) && !rd_file_read(from, 64 << 20, &text, err) &&
        !rd_file_write(to, text.data, text.len, err)) {
        c.hidden_size = c.moe_intermediate_size = c.intermediate_size = 32;
        c.num_hidden_layers = 2;
        c.num_attention_heads = c.num_key_value_heads = 1;
        c.head_dim = 16;
        c.rotary_dim = 8;
        if (!rd_params_init(&p, &c, err)) {
            w = rd_alloc_array(p.size, sizeof *w);
            rd_params_seed(&p, w, 1);
            rd_params_write(&p, w, RD_F32, dir, err);
        }
    }
    rd_params_clear(&p);
    free(w);
    rd_buf_clear(&text);
    free(from);
    free(to);
    return err->status;
}

static void remove_tiny(const char *dir)
{
    static const char *const names[] = { "tokenizer.json", "config.json", "model.safetensors" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = rd_path_join(dir, names[i]);

        unlink(path);
        free(path);
    }
    rmdir(dir);
}

/* ---- what is held ---- */

typedef struct held {
    long rss_kb, heap_kb;
} held;

static held look(void)
{
    held h = { 0 };
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f && fscanf(f, "%ld %ld", &pages, &resident) == 2)
        h.rss_kb = resident * (sysconf(_SC_PAGESIZE) / 1024);
    if (f) fclose(f);
    struct mallinfo2 m =
        mallinfo2(); /* zeros under a sanitizer, whose own look at the end serves there */

    h.heap_kb = (long)((m.uordblks + m.hblkhd) / 1024);
    return h;
}

static held tell(int n, double began_ms)
{
    held h = look();

    printf("%6d completions  %7.1f MB resident  %8.3f MB of heap in use  %6.1f s\n", n,
           (double)h.rss_kb / 1024, (double)h.heap_kb / 1024, (rd_now_ms() - began_ms) * 1e-3);
    fflush(stdout);
    return h;
}

/* ---- completions ---- */

static void source_text(rd_buf *out, int n)
{
    rd_buf_reset(out);
    for (int i = 0; i < LINES; i++)
        rd_buf_format(out, "int number_%d_%d = %d * other_%d;\n", n, i, i * 7 + n, i);
}

/* A run that was cancelled, as some are, is no failure. */
static rd_status complete(void *self, int n, rd_buf *texts, rd_error *out)
{
    const rd_runner *r = &rd_local_runner;
    rd_buf *prefix = &texts[0], *other = &texts[1], *answer = &texts[2];
    char source[32];
    rd_cancel cancel = { false };
    rd_step step = { 0 };
    rd_error own = { 0 }, *err = &own;
    void *run = NULL;

    source_text(prefix, n);
    source_text(other, n + 1);
    rd_buf_text(prefix, "int last = ");
    snprintf(source, sizeof source, "file:///%d.c", n % 97);
    rd_neighbour neighbour = { "other.c", other->data, other->len };
    rd_request rq = { .task = n % 5 == 4 ? RD_REWRITE : RD_INFILL,
                      .language = "c",
                      .prefix = prefix->data,
                      .prefix_bytes = prefix->len,
                      .suffix = ";\n",
                      .suffix_bytes = 2,
                      .draft = n % 5 == 4 ? "number_1 * 3" : NULL,
                      .draft_bytes = n % 5 == 4 ? 12 : 0,
                      .neighbours = &neighbour,
                      .n_neighbours = n % 2,
                      .answers = 1 + n % 3,
                      .max_tokens = 8,
                      .realm = (uint64_t)(n % 3),
                      .source = source,
                      .cancel = &cancel };
    rd_status s = r->start(self, &rq, &run, err);

    for (int k = 0; !s && !step.done; k++) {
        if (n % 11 == 10 && k == 1) rd_cancel_set(&cancel);
        s = r->step(run, &step, err);
    }
    for (int i = 0; !s && r->text_at(run, i, answer, &step.confidence); i++) rd_buf_reset(answer);
    if (run) r->finish(run);
    if (n % 500 == 499) r->forget(self, source);
    if (s == RD_CANCELLED) return RD_OK;
    if (s) *out = own;
    return s;
}

static rd_status complete_all(const char *model, int count, bool *grew, rd_error *err)
{
    rd_engine_options o = { .model = model, .threads = 1, .pool_bytes = 1 }; /* the smallest pool */
    rd_buf texts[3] = { { 0 } };
    void *self = NULL;
    held early = { 0 }, last;
    struct rusage used;
    double began = rd_now_ms();
    int tenth = count / 10 > 0 ? count / 10 : 1;

    if (rd_local_runner.open(&o, &self, err)) return err->status;
    tell(0, began);
    for (int n = 0; n < count; n++) {
        if (complete(self, n, texts, err)) break;
        if (n + 1 == tenth) early = tell(n + 1, began);
    }
    last = tell(count, began);
    rd_local_runner.close(self);
    for (int i = 0; i < 3; i++) rd_buf_clear(&texts[i]);
    getrusage(RUSAGE_SELF, &used);
    printf("grown behind the first %d: %ld KB resident, %ld KB of heap; peak %.1f MB resident\n",
           tenth, last.rss_kb - early.rss_kb, last.heap_kb - early.heap_kb,
           (double)used.ru_maxrss / 1024);
    *grew = last.heap_kb - early.heap_kb > HEAP_KB;
#if !defined(RD_SANITIZED)
    *grew = *grew || last.rss_kb - early.rss_kb > RSS_KB;
#endif
    return err->status;
}

int main(int argc, char **argv)
{
    const char *which = argc > 1 ? argv[1] : "builtin", *model = which;
    int count = argc > 2 ? atoi(argv[2]) : COUNT;
    char builtin[4096], tiny[] = "/tmp/rd_growthXXXXXX";
    bool made = false, grew = false;
    rd_error err = { 0 };

    if (count < 1) return 2;
    if (!strcmp(which, "builtin")) model = NULL;
    if (!strcmp(which, "tiny")) {
        made = mkdtemp(tiny) != NULL;
        model = tiny;
        if (!rd_engine_builtin(builtin, sizeof builtin, &err)) write_tiny(builtin, tiny, &err);
    }
    if (!err.status) complete_all(model, count, &grew, &err);
    if (made) remove_tiny(tiny);
    if (err.status) fprintf(stderr, "bench_growth: %s\n", err.text);
    if (grew) fprintf(stderr, "bench_growth: more is held at the end than a tenth of the way in\n");
    return err.status || grew;
}
