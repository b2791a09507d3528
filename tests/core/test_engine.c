/* test_engine.c - whole requests: chat checkpoints made here, and the promise that no byte outside a hole changes. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/decode/chat_prompt.h"
#include "core/format/file.h"
#include "core/texts.h"
#include "core/tools/run.h"
#include "core/train/params.h"
#include "tests/core/shape.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 32, VOCAB = 1024 };

static const char template_21[] =
    "<role>SYSTEM</role> <role>HUMAN</role> <role>ASSISTANT</role> <|role_end|>";
static const char template_22[] = "<|tool_calls_section_begin|> <|role_end|>";

/* ---- a small chat checkpoint in a folder of its own ---- */

typedef struct checkpoint {
    char dir[32];
    rd_tokenizer *t;
} checkpoint;

static void put_file(const checkpoint *c, const char *name, const char *text, size_t n)
{
    char *path = rd_path_join(c->dir, name);
    rd_error err;

    cr_assert(!rd_file_write(path, text, n, &err), "%s", err.text);
    free(path);
}

static void put_tokenizer(checkpoint *c, const char *template_text)
{
    rd_buf b = { 0 };
    rd_error err;

    cr_assert(!rd_file_read(RD_TEST_DATA "/golden/tokenizers/tok_small/tokenizer.json", 1 << 20, &b,
                            &err),
              "%s", err.text);
    put_file(c, "tokenizer.json", b.data, b.len);
    put_file(c, "chat_template.jinja", template_text, strlen(template_text));
    rd_buf_clear(&b);
    cr_assert(!rd_tokenizer_open(c->dir, &c->t, &err), "%s", err.text);
}

/* Random weights; with an `answer`, a model that says nothing else. */
static void put_model(const checkpoint *c, bool edits, int32_t answer)
{
    rd_model_config shape = small_shape(VOCAB, BLOCK);
    rd_params p;
    rd_error err;

    shape.num_attention_heads = 2;
    shape.num_key_value_heads = 1;
    shape.intermediate_size = 32;
    shape.max_position_embeddings = 8192;
    shape.tie_word_embeddings = false;
    shape.delete_token_id = edits ? rd_tokenizer_id(c->t, "[CLS]") : -1;
    shape.split_token_id = edits ? rd_tokenizer_id(c->t, "[gMASK]") : -1;

    cr_assert(!rd_params_init(&p, &shape, &err), "%s", err.text);
    float *w = rd_alloc_array(p.size, sizeof *w);

    rd_params_seed(&p, w, 7);
    for (int i = 0; answer >= 0 && i < p.count; i++)
        for (size_t k = 0; k < (size_t)p.param[i].rows * (size_t)p.param[i].cols; k++)
            w[p.param[i].offset + k] =
                p.param[i].kind == RD_PARAM_NORM || p.param[i].offset == p.table ? 1.0f : 0.0f;
    for (int k = 0; answer >= 0 && k < shape.hidden_size; k++)
        w[p.head + (size_t)answer * (size_t)shape.hidden_size + (size_t)k] = 1.0f;
    cr_assert(!rd_params_write(&p, w, RD_F32, c->dir, &err), "%s", err.text);
    free(w);
    rd_params_clear(&p);
}

static checkpoint make_checkpoint(rd_chat_kind kind)
{
    checkpoint c = { .dir = "/tmp/rd_chatXXXXXX" };

    cr_assert(mkdtemp(c.dir));
    put_tokenizer(&c, kind == RD_CHAT_20 ? template_21 : template_22);
    put_model(&c, kind == RD_CHAT_22, -1);
    return c;
}

static void remove_checkpoint(checkpoint *c)
{
    static const char *const names[] = { "tokenizer.json", "chat_template.jinja", "config.json",
                                         "model.safetensors" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = rd_path_join(c->dir, names[i]);

        unlink(path);
        free(path);
    }
    rd_tokenizer_close(c->t);
    rmdir(c->dir);
}

static rd_engine *open_engine(const char *dir)
{
    rd_engine_options o = { .model = dir, .threads = 1 };
    rd_engine *e = NULL;
    rd_error err;

    cr_assert(!rd_engine_open(&o, &e, &err), "%s", err.text);
    return e;
}

static rd_result run(rd_engine *e, rd_request rq)
{
    rd_run_options o = { .quality = 0.5f };
    rd_result r;
    rd_error err;

    cr_assert(!rd_run_to_end(e, &rq, &o, &r, &err), "%s", err.text);
    return r;
}

static int prefilled(rd_engine *e, rd_request rq)
{
    rd_result r = run(e, rq);
    int n = r.prefill_tokens;

    rd_result_clear(&r);
    return n;
}

static rd_request request(const char *prefix, const char *suffix)
{
    return (rd_request){ .task = RD_INFILL,
                         .language = "a.py",
                         .prefix = prefix,
                         .prefix_bytes = strlen(prefix),
                         .suffix = suffix,
                         .suffix_bytes = strlen(suffix),
                         .hole_tokens = 2 };
}

static void make_text(rd_buf *out, int lines)
{
    for (int i = 0; i < lines; i++) rd_buf_format(out, "if v%d > limit[%d]:\n", i, i * 7 % 13);
}

/* ---- the prompt that the engine makes ---- */

static void prefills_what_the_layout_says(rd_chat_kind kind)
{
    checkpoint c = make_checkpoint(kind);
    rd_engine *e = open_engine(c.dir);
    rd_layout l = rd_chat_layout(BLOCK);
    rd_buf prefix = { 0 };
    rd_prompt p = { 0 };
    rd_error err;

    make_text(&prefix, 30);
    rd_request rq = request(prefix.data, ":\n    pass\n");
    rd_chat_parts parts = { .name = rq.language,
                            .prefix = rq.prefix,
                            .prefix_bytes = rq.prefix_bytes,
                            .suffix = rq.suffix,
                            .suffix_bytes = rq.suffix_bytes };

    cr_assert(!rd_chat_prompt_make(c.t, kind, &l, &parts, &p, &err), "%s", err.text);
    cr_assert(rd_engine_follows_instructions(e));
    cr_assert_eq(prefilled(e, rq), p.context.n);
    cr_assert_eq(prefilled(e, rq), 0, "all of it is found again");
    rd_prompt_clear(&p);
    rd_buf_clear(&prefix);
    rd_engine_close(e);
    remove_checkpoint(&c);
}

Test(engine, gives_a_2_1_checkpoint_the_chat_layout)
{
    prefills_what_the_layout_says(RD_CHAT_20);
}

Test(engine, gives_a_2_2_checkpoint_the_chat_layout)
{
    prefills_what_the_layout_says(RD_CHAT_22);
}

Test(engine, passes_the_instruction_to_a_chat_model)
{
    checkpoint c = make_checkpoint(RD_CHAT_20);
    rd_engine *e = open_engine(c.dir);
    rd_request rq = request("x = ", "\n");

    rq.task = RD_REWRITE;
    rq.draft = "y";
    rq.draft_bytes = 1;
    cr_assert_gt(prefilled(e, rq), 0);
    cr_assert_eq(prefilled(e, rq), 0);
    rq.instruction = "use z";
    rq.instruction_bytes = 5;
    cr_assert_gt(prefilled(e, rq), 0, "another prompt");
    cr_assert_eq(prefilled(e, rq), 0);
    rd_engine_close(e);
    remove_checkpoint(&c);
}

Test(engine, ignores_the_instruction_where_the_layout_has_no_place_for_it)
{
    rd_engine *e = open_engine(NULL);
    rd_request rq = request("x = ", "\n");

    cr_assert_not(rd_engine_follows_instructions(e));
    cr_assert_gt(prefilled(e, rq), 0);
    rq.instruction = "use z";
    rq.instruction_bytes = 5;
    cr_assert_eq(prefilled(e, rq), 0, "the same prompt");
    rd_engine_close(e);
}

/* ---- counted in prefilled tokens ---- */

typedef struct keys {
    const char *before, *after; /* what an edit inserts on both sides of the cursor */
    int most;                   /* tokens */
} keys;

static void costs(const char *dir)
{
    static const keys edits[] = { { "x", "", 64 }, { "(", ")", 64 }, { "\n    ", "", 64 } };
    rd_engine *e = open_engine(dir);
    rd_buf prefix = { 0 }, suffix = { 0 };

    make_text(&prefix, 120);
    rd_buf_text(&prefix, "total = f");
    rd_buf_text(&suffix, "\n");
    make_text(&suffix, 40);
    int first = prefilled(e, request(prefix.data, suffix.data));

    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        rd_buf a = { 0 }, b = { 0 };

        rd_buf_format(&a, "%s%s", prefix.data, edits[i].before);
        rd_buf_format(&b, "%s%s", edits[i].after, suffix.data);
        int cost = prefilled(e, request(a.data, b.data));

        cr_assert(cost > 0 && cost <= edits[i].most, "edit %zu: %d tokens", i, cost);
        cr_assert_eq(prefilled(e, request(prefix.data, suffix.data)), 0, "undone");
        cr_assert_eq(prefilled(e, request(a.data, b.data)), 0, "and done again");
        rd_buf_clear(&a);
        rd_buf_clear(&b);
    }
    cr_assert_gt(first, dir ? 1024 : 256);
    rd_buf_clear(&prefix);
    rd_buf_clear(&suffix);
    rd_engine_close(e);
}

Test(engine, an_edit_prefills_two_blocks_at_most_and_its_undo_none)
{
    checkpoint c = make_checkpoint(RD_CHAT_20);

    costs(c.dir);
    costs(NULL);
    remove_checkpoint(&c);
}

/* ---- where an answer ends ---- */

/* A token of the vocabulary with `least` bytes that are letters. */
static int32_t long_word(const rd_tokenizer *t, size_t least)
{
    for (int32_t i = 0; i < rd_tokenizer_size(t); i++) {
        size_t n, letters = 0;
        const char *s = rd_tokenizer_bytes(t, i, &n);

        if (!s || rd_tokenizer_is_added(t, i)) continue;
        while (letters < n && s[letters] >= 'a' && s[letters] <= 'z') letters++;
        if (letters == n && n >= least) return i;
    }
    cr_skip("the tokenizer has no such word");
    return -1;
}

Test(engine, a_completion_that_runs_into_the_suffix_is_cut)
{
    checkpoint c = { .dir = "/tmp/rd_chatXXXXXX" };
    rd_buf suffix = { 0 };
    size_t n;

    cr_assert(mkdtemp(c.dir));
    put_tokenizer(&c, template_21);
    int32_t word = long_word(c.t, 8);
    const char *text = rd_tokenizer_bytes(c.t, word, &n);

    put_model(&c, false, word);
    rd_engine *e = open_engine(c.dir);
    rd_request rq = request("x = ", "\n");

    rq.hole_tokens = 1;
    rd_result whole = run(e, rq);

    cr_assert_eq(whole.text.len, n);
    cr_assert_eq(whole.tokens, 1);
    rd_buf_format(&suffix, "%.*s(y)\n", (int)n, text);
    rq.suffix = suffix.data;
    rq.suffix_bytes = suffix.len;
    rd_result cut = run(e, rq);

    cr_assert_eq(cut.text.len, 0);
    cr_assert_eq(cut.tokens, 0);
    cr_assert_str_eq(cut.reason, "empty");
    rd_result_clear(&whole);
    rd_result_clear(&cut);
    rd_buf_clear(&suffix);
    rd_engine_close(e);
    remove_checkpoint(&c);
}

Test(engine, a_generated_answer_ends_at_the_turns_end)
{
    checkpoint c = { .dir = "/tmp/rd_chatXXXXXX" };

    cr_assert(mkdtemp(c.dir));
    put_tokenizer(&c, template_21);
    put_model(&c, false, rd_tokenizer_id(c.t, "<|role_end|>"));
    rd_engine *e = open_engine(c.dir);
    rd_result r =
        run(e, (rd_request){
                   .task = RD_GENERATE, .prefix = "hello", .prefix_bytes = 5, .max_tokens = 96 });

    cr_assert_eq(r.text.len, 0, "%s", r.text.data);
    cr_assert_str_eq(r.reason, "empty");
    cr_assert_lt(r.forwards, 33, "one block, not three");
    rd_result_clear(&r);
    rd_engine_close(e);
    remove_checkpoint(&c);
}

Test(engine, an_unknown_template_is_refused_by_name)
{
    checkpoint c = { .dir = "/tmp/rd_chatXXXXXX" };
    rd_engine *e = NULL;
    rd_error err = { 0 };

    cr_assert(mkdtemp(c.dir));
    put_tokenizer(&c, "{{ '<|im_start|>' }}");
    put_model(&c, false, -1);
    cr_assert_eq(rd_engine_open(&(rd_engine_options){ .model = c.dir, .threads = 1 }, &e, &err),
                 RD_INVALID);
    cr_assert(strstr(err.text, "chat_template.jinja") && strstr(err.text, "im_start"), "%s",
              err.text);
    remove_checkpoint(&c);
}

/* ---- no byte outside the hole changes ---- */

static const char *const odd_texts[] = {
    "caf\xc3\xa9 = \"na\xc3\xafve\"\n# \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\nx\xf0\x9f\x98\x80y = "
    "1\n",
    "a = 1\r\nb = \"\xc3\xa9\r\n\"\r\n\r\nc\r\n",
    "int a;\r\nint b;\nint c;\r\n\r\n",
    "no newline",
    "\n\n\n",
    "",
    "\xff\xfe\x80"
    "abc\n\xc3(\xe6\x97\n",
    "x\r",
    "\xef\xbb\xbf"
    "import os\n\n",
};

enum { ODD = sizeof odd_texts / sizeof *odd_texts, WINDOW = 900 };

/* A window of one of this repository's own files, or an odd text; now and then with other line ends. */
static rd_place some_text(rd_random *r, const glob_t *files, const char *path)
{
    rd_place p = { .path = rd_copy_text(path, strlen(path)) };
    rd_buf file = { 0 };
    rd_error err;

    rd_buf_append(&p.text, "", 0);
    if (rd_random_below(r, 3) == 0) {
        rd_buf_text(&p.text, odd_texts[rd_random_below(r, ODD)]);
        return p;
    }
    const char *name = files->gl_pathv[rd_random_below(r, (uint32_t)files->gl_pathc)];

    cr_assert(!rd_file_read(name, 1 << 20, &file, &err), "%s", err.text);
    size_t from = rd_random_below(r, (uint32_t)file.len),
           n = rd_random_below(r, WINDOW) % (file.len - from + 1);
    bool crlf = rd_random_below(r, 6) == 0;

    for (size_t i = from; i < from + n; i++) {
        if (crlf && file.data[i] == '\n') rd_buf_text(&p.text, "\r");
        rd_buf_append(&p.text, file.data + i, 1);
    }
    rd_buf_clear(&file);
    return p;
}

static void write_text(const char *path, const rd_buf *b)
{
    FILE *f = fopen(path, "wb");

    cr_assert(f);
    cr_assert_eq(fwrite(b->data ? b->data : "", 1, b->len, f), b->len);
    cr_assert_eq(fclose(f), 0);
}

/* The file after the diff was applied, by the program that everybody has. */
static rd_buf patched(const rd_place *p, const rd_buf *diff)
{
    char command[256], diff_path[64];
    rd_buf out = { 0 };
    rd_error err;

    write_text(p->path, &p->text);
    snprintf(diff_path, sizeof diff_path, "%s.diff", p->path);
    write_text(diff_path, diff);
    snprintf(command, sizeof command, "patch --binary -s -f --no-backup-if-mismatch %s %s >&2",
             p->path, diff_path);
    if (diff->len > 0) cr_assert_eq(system(command), 0, "patch refuses:\n%s", diff->data);
    cr_assert(!rd_file_read(p->path, 1 << 20, &out, &err), "%s", err.text);
    unlink(p->path);
    unlink(diff_path);
    return out;
}

/* One cut: the completion goes between prefix and suffix, through a diff. */
static void cut_and_fill(rd_engine *e, rd_random *r, rd_place *p)
{
    size_t n = p->text.len;
    rd_buf want = { 0 }, diff = { 0 };

    p->start = rd_random_below(r, (uint32_t)n + 1);
    p->end = p->start;
    if (rd_random_below(r, 2)) p->end += rd_random_below(r, 60) % (n - p->start + 1);
    rd_request rq = { .task = rd_random_below(r, 4) ? RD_INFILL : RD_REWRITE,
                      .language = "x.c",
                      .prefix = p->text.data,
                      .prefix_bytes = p->start,
                      .draft = p->text.data + p->start,
                      .draft_bytes = p->end - p->start,
                      .suffix = p->text.data + p->end,
                      .suffix_bytes = n - p->end };

    if (rq.task == RD_INFILL) rq.hole_tokens = 1 + (int)rd_random_below(r, 4);
    rd_result done = run(e, rq);

    rd_buf_append(&want, p->text.data, p->start);
    rd_buf_append(&want, done.text.data, done.text.len);
    rd_buf_append(&want, p->text.data + p->end, n - p->end);
    rd_place_diff(p, done.text.data ? done.text.data : "", done.text.len, &diff);
    rd_buf got = patched(p, &diff);

    cr_assert_eq(got.len, want.len, "%zu bytes, not %zu", got.len, want.len);
    cr_assert(want.len == 0 || !memcmp(got.data, want.data, want.len), "cut at %zu to %zu of\n%s",
              p->start, p->end, p->text.data);
    rd_result_clear(&done);
    rd_buf_clear(&want);
    rd_buf_clear(&diff);
    rd_buf_clear(&got);
}

static void keeps_what_is_outside(const char *dir, int cuts, uint64_t seed)
{
    rd_engine *e = open_engine(dir);
    rd_random r = rd_random_seed(seed);
    char path[64];
    glob_t files;

    snprintf(path, sizeof path, "/tmp/rd_cut_%d", (int)getpid());
    cr_assert_eq(glob(RD_SOURCE_DIR "/core/*/*.[ch]", 0, NULL, &files), 0);
    for (int i = 0; i < cuts; i++) {
        rd_place p = some_text(&r, &files, path);

        cut_and_fill(e, &r, &p);
        rd_place_clear(&p);
    }
    globfree(&files);
    rd_engine_close(e);
}

Test(engine, no_byte_outside_the_hole_changes_with_the_builtin_model, .timeout = 300)
{
    keeps_what_is_outside(NULL, 200, 11);
}

Test(engine, no_byte_outside_the_hole_changes_with_chat_models, .timeout = 300)
{
    static const rd_chat_kind kinds[] = { RD_CHAT_20, RD_CHAT_22 };

    for (int k = 0; k < 2; k++) {
        checkpoint c = make_checkpoint(kinds[k]);

        keeps_what_is_outside(c.dir, 120, 12 + (uint64_t)k);
        remove_checkpoint(&c);
    }
}

Test(engine, a_calibrated_model_has_a_gate_and_others_let_all_pass)
{
    checkpoint c = make_checkpoint(RD_CHAT_22);
    rd_engine *builtin = open_engine(NULL), *other = open_engine(c.dir);

    cr_expect(rd_engine_gate(builtin) > 0.0f && rd_engine_gate(builtin) < 1.0f);
    cr_expect_eq(rd_engine_gate(other), 0.0f);
    rd_engine_close(builtin);
    rd_engine_close(other);
    remove_checkpoint(&c);
}

/* The draft is the line above, and likely enough to end other runs at once. */
Test(engine, a_weighed_run_shows_its_own_text_and_the_draft, .timeout = 60)
{
    static const char before[] = "    self.left = left\n    self.right = right\n    ";
    static const char after[] = "\n    self.left = left\n    self.right = right\n";
    rd_engine *e = open_engine(NULL);
    rd_request rq = { .task = RD_INFILL,
                      .language = "python",
                      .prefix = before,
                      .prefix_bytes = strlen(before),
                      .suffix = after,
                      .suffix_bytes = strlen(after),
                      .quality = 0.5f };
    rd_run *r;
    rd_step s = { 0 };
    rd_hole_text is = { 0 };
    rd_buf text = { 0 };
    rd_error err;
    int own = 0, i = 0;

    cr_assert(!rd_run_open_weighed(e, &rq, &r, &err), "%s", err.text);
    cr_expect_not(rd_run_text_at(r, 0, &is, &text), "nothing before it is done");
    while (!s.done) cr_assert(!rd_run_step(r, &s, &err), "%s", err.text);
    for (; rd_run_text_at(r, i, &is, &text); i++) {
        if (is.draft) break;
        own++;
        rd_buf_reset(&text);
    }

    cr_expect(own > 0 && own <= RD_HOLE_CANVASES_MOST, "%d", own);
    cr_assert(is.draft && is.scored);
    cr_expect(text.len > 0 && strstr("self.left = left self.right = right", text.data), "%s",
              text.data);
    cr_expect_not(rd_run_text_at(r, i + 1, &is, &text));
    rd_buf_clear(&text);
    rd_run_close(r);
    rd_engine_close(e);
}
