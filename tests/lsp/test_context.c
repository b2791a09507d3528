/* test_context.c - what a job is told: enough, within its bounds, and never an excluded text. */
#include "lsp/context.h"

#include "core/base/clock.h"
#include "core/decode/prompt.h"
#include "files.h"

static rd_documents *all;
static rd_config *config;
static rd_scope *scope;

static void begin(void)
{
    const char *folder = home;
    rd_buf complaints = { 0 };

    make_home();
    all = rd_documents_new();
    config = rd_config_new("/nowhere", &complaints);
    scope = rd_scope_new(&config->client, &folder, 1);
    rd_buf_clear(&complaints);
}

static void end(void)
{
    rd_scope_free(scope);
    rd_config_free(config);
    rd_documents_free(all);
    remove_home();
}

TestSuite(context, .init = begin, .fini = end, .timeout = 30);

static rd_document *open_text(const char *name, const char *language, const char *text, size_t n)
{
    rd_buf uri = { 0 };

    rd_uri_of_path(in_home(name), &uri);
    cr_assert(!rd_documents_open(all, uri.data, language, 1, text, n, NULL));
    rd_document *doc = rd_documents_find(all, uri.data);

    rd_buf_clear(&uri);
    return doc;
}

static rd_document *open_doc(const char *name, const char *language, const char *text)
{
    return open_text(name, language, text, strlen(text));
}

/* At least `bytes` of numbered lines; every line is `width` long, with a character of two bytes at its end. */
static void write_lines(rd_buf *out, size_t bytes, int width)
{
    for (int i = 0; out->len < bytes; i++) rd_buf_format(out, "%0*d\xc3\xbc\n", width - 3, i);
}

static rd_job *fill(const rd_document *doc, size_t start, size_t end)
{
    rd_job *job = rd_job_new(1, 1, RD_LANE_TYPING, RD_JOB_INFILL);

    rd_context_fill(job, doc, start, end, all, scope);
    return job;
}

static bool is_text(const rd_buf *b, const char *text)
{
    return b->len == strlen(text) && !memcmp(b->data ? b->data : "", text, b->len);
}

Test(context, gives_all_of_a_short_text)
{
    rd_document *doc = open_doc("a.c", "c", "one\ntwo\nthree\n");
    rd_job *job = fill(doc, 4, 7);

    cr_assert_str_eq(job->language, "c");
    cr_assert(is_text(&job->prefix, "one\n"));
    cr_assert(is_text(&job->draft, "two"));
    cr_assert(is_text(&job->suffix, "\nthree\n"));
    cr_assert_eq(job->n_neighbours, 0);
    rd_job_free(job);
}

Test(context, gives_an_empty_text_nothing)
{
    rd_job *job = fill(open_doc("a.c", "c", ""), 0, 0);

    cr_assert(job->prefix.len == 0 && job->draft.len == 0 && job->suffix.len == 0);
    rd_job_free(job);
}

Test(context, goes_by_the_file_name_where_the_language_is_not_known)
{
    rd_job *a = fill(open_doc("x/a.py", "", ""), 0, 0),
           *b = fill(open_doc("b.c", "plaintext", ""), 0, 0);

    cr_assert_str_eq(a->language, "a.py");
    cr_assert_str_eq(b->language, "b.c");
    rd_job_free(a);
    rd_job_free(b);
}

Test(context, cuts_a_long_text_to_its_budget_between_characters_and_lines)
{
    rd_buf text = { 0 };

    write_lines(&text, 400 << 10, 37);
    rd_document *doc = open_text("a.c", "c", text.data, text.len);

    for (size_t at = 0; at < text.len; at += 12345) {
        rd_job *job = fill(doc, at, at);
        size_t n = job->suffix.len, least = at < (48 << 10) ? at : 48 << 10;

        cr_assert_leq(job->prefix.len, (64 << 10) + 3);
        cr_assert_geq(job->prefix.len, least);
        cr_assert(!memcmp(job->prefix.data ? job->prefix.data : "",
                          text.data + at - job->prefix.len, job->prefix.len));
        cr_assert(at == 0 || ((unsigned char)job->prefix.data[0] & 0xc0) != 0x80);
        cr_assert_leq(n, 64 << 10);
        cr_assert(n == text.len - at || (n > (63 << 10) && job->suffix.data[n - 1] == '\n'));
        cr_assert(!memcmp(job->suffix.data, text.data + at, n));
        rd_job_free(job);
    }
    rd_buf_clear(&text);
}

Test(context, cuts_one_endless_line)
{
    rd_buf text = { 0 };

    for (int i = 0; i < 100000; i++) rd_buf_text(&text, "\xe2\x82\xac");
    rd_job *job = fill(open_text("a.c", "c", text.data, text.len), 150000, 150000);

    cr_assert_eq(job->prefix.len % 3, 0);
    cr_assert_eq(job->suffix.len % 3, 0);
    cr_assert_gt(job->prefix.len, 48 << 10);
    cr_assert_gt(job->suffix.len, 63 << 10);
    rd_job_free(job);
    rd_buf_clear(&text);
}

Test(context, keeps_the_prefixs_beginning_while_one_types)
{
    rd_buf text = { 0 };
    size_t at = 200000, from = 0;

    write_lines(&text, 400 << 10, 37);
    rd_document *doc = open_text("a.c", "c", text.data, text.len);

    for (int i = 0; i < 100; i++, at++) {
        cr_assert(!rd_document_edit(doc, at, at, "x", 1, NULL));
        rd_job *job = fill(doc, at + 1, at + 1);
        size_t begins = at + 1 - job->prefix.len;

        cr_assert(i == 0 || begins == from);
        from = begins;
        rd_job_free(job);
    }
    rd_buf_clear(&text);
}

/* Where the tokens of the prefix begin, by their number and the first one, as the engine sees it. */
static rd_ids tokens_of(const rd_tokenizer *t, const char *prefix, size_t n)
{
    rd_prompt_parts parts = { 0 };
    rd_error err;

    cr_assert(!rd_prompt_parts_make(t, prefix, n, "", 0, &parts, &err), "%s", err.text);
    rd_ids_clear(&parts.quote);
    rd_ids_clear(&parts.anchor);
    return parts.prefix;
}

Test(context, leaves_the_token_cut_where_the_whole_text_has_it)
{
    rd_buf text = { 0 };
    rd_tokenizer *t;
    rd_error err;
    int moves = 0, last = 0;

    cr_assert(!rd_tokenizer_open(RD_SOURCE_DIR "/core/builtin", &t, &err), "%s", err.text);
    write_lines(&text, 160 << 10, 37);
    rd_document *doc = open_text("a.c", "c", text.data, text.len);

    for (size_t at = 40001; at < 150000; at += 1500) {
        rd_job *job = fill(doc, at, at);
        rd_ids whole = tokens_of(t, text.data, at);
        rd_ids cut = tokens_of(t, job->prefix.data, job->prefix.len);

        cr_assert_eq(cut.n, whole.n, "at %zu", at);
        cr_assert(!memcmp(cut.id, whole.id, (size_t)cut.n * sizeof *cut.id));
        moves += cut.n < last;
        last = cut.n;
        rd_ids_clear(&whole);
        rd_ids_clear(&cut);
        rd_job_free(job);
    }
    cr_assert_eq(moves, (150000 - 49152) / 16384 + 1, "once in 16 KiB");
    rd_tokenizer_close(t);
    rd_buf_clear(&text);
}

static bool has_neighbour(const rd_job *job, const char *name)
{
    for (int i = 0; i < job->n_neighbours; i++)
        if (!strcmp(job->neighbours[i].name, name)) return true;
    return false;
}

Test(context, takes_neighbours_of_its_language_and_then_those_edited_last)
{
    rd_document *doc = open_doc("a.c", "c", "x");

    for (int i = 0; i < 3; i++) {
        static const char *const c[] = { "1.c", "2.c", "3.c" };
        static const char *const py[] = { "1.py", "2.py", "3.py" };

        open_doc(c[i], "c", c[i]);
        open_doc(py[i], "python", py[i]);
    }
    rd_document *edited = open_doc("2.c", "c", "2.c");

    open_doc("empty.c", "c", "");
    cr_assert(!rd_document_edit(edited, 0, 0, "new ", 4, NULL));
    rd_document_forget(open_doc("lost.c", "c", "lost"));
    rd_job *job = fill(doc, 0, 0);

    cr_assert_eq(job->n_neighbours, 4);
    cr_assert_str_eq(job->neighbours[0].name, "2.c");
    cr_assert(is_text(&job->neighbours[0].text, "new 2.c"));
    cr_assert_str_eq(job->neighbours[1].name, "3.c");
    cr_assert_str_eq(job->neighbours[2].name, "1.c");
    cr_assert_str_eq(job->neighbours[3].name, "3.py");
    rd_job_free(job);
}

Test(context, cuts_neighbours_around_their_last_edit_and_all_to_a_budget)
{
    rd_buf text = { 0 };
    char name[16];
    size_t sum = 0;

    write_lines(&text, 300 << 10, 37);
    rd_document *doc = open_doc("a.c", "c", "x");

    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "%d.c", i);
        rd_document *one = open_text(name, "c", text.data, text.len);

        if (i == 6) cr_assert(!rd_document_edit(one, 150000, 150010, "EDIT\n", 5, NULL));
        if (i == 7) cr_assert(!rd_document_edit(one, text.len, text.len, "END", 3, NULL));
    }
    rd_job *job = fill(doc, 0, 0);

    for (int i = 0; i < job->n_neighbours; i++) {
        const rd_buf *b = &job->neighbours[i].text;

        cr_assert_leq(b->len, 32 << 10);
        sum += b->len;
    }
    cr_assert_leq(sum, 96 << 10);
    cr_assert_gt(sum, 94 << 10);
    const rd_buf *end_of = &job->neighbours[0].text, *middle = &job->neighbours[1].text;
    const char *edit = memmem(middle->data, middle->len, "EDIT", 4);

    cr_assert(!memcmp(end_of->data + end_of->len - 3, "END", 3));
    cr_assert(edit && edit > middle->data + (14 << 10) && edit < middle->data + (18 << 10));
    cr_assert(middle->data[0] == '0' && middle->data[middle->len - 1] == '\n', "whole lines");
    rd_job_free(job);
    rd_buf_clear(&text);
}

static bool job_holds(const rd_job *job, const char *text)
{
    size_t n = strlen(text);
    const rd_buf *parts[3 + RD_NEIGHBOURS_MOST] = { &job->prefix, &job->draft, &job->suffix };

    for (int i = 0; i < job->n_neighbours; i++) parts[3 + i] = &job->neighbours[i].text;
    for (int i = 0; i < 3 + job->n_neighbours; i++)
        if (parts[i]->len && memmem(parts[i]->data, parts[i]->len, text, n)) return true;
    return false;
}

Test(context, never_holds_an_excluded_text)
{
    put(".gitignore", "private/\n");
    put(".env", "");
    cr_assert(!symlink(".env", in_home("link.c")));
    rd_document *doc = open_doc("a.c", "c", "x");

    open_doc("b.c", "c", "fine");
    open_doc(".env", "c", "TOKEN=secret");
    open_doc("link.c", "c", "TOKEN=secret");
    open_doc("private/p.c", "c", "secret");
    open_doc("key.c", "c", "-----BEGIN PRIVATE KEY-----\nsecret");
    open_text("data.c", "c", "secret\0secret", 13);
    cr_assert(!rd_documents_open(all, "git:/w/.env?x", "c", 1, "secret", 6, NULL));
    rd_job *job = fill(doc, 0, 0);

    cr_assert_eq(job->n_neighbours, 1);
    cr_assert(has_neighbour(job, "b.c"));
    cr_assert(job_holds(job, "fine"));
    cr_assert_not(job_holds(job, "secret"));
    rd_job_free(job);
}

Test(context, is_filled_fast_enough_for_every_keystroke)
{
    rd_buf text = { 0 };
    char name[16];
    enum { TIMES = 2000 };

    write_lines(&text, 1 << 20, 37);
    rd_document *doc = open_text("a.c", "c", text.data, text.len);

    put(".gitignore", "build/\n*.o\n*.log\n");
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "s%d/%d.c", i, i);
        open_text(name, "c", text.data, text.len);
    }
    rd_job_free(fill(doc, 500000, 500000));
    double before = rd_now_ms();

    for (int i = 0; i < TIMES; i++) {
        cr_assert(!rd_document_edit(doc, 500000, 500000, "x", 1, NULL));
        rd_job_free(fill(doc, 500001, 500001));
    }
    double each = (rd_now_ms() - before) / TIMES;

    cr_log_info("%.3f ms a keystroke\n", each);
    cr_assert_lt(each, 10, "%.3f ms", each);
    rd_buf_clear(&text);
}
