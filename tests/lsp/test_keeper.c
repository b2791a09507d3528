/* test_keeper.c - what is kept beyond memory, with a cache file that is made up and does what the test says. */
#include "lsp/keeper.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "tests/fake/cache.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 20000,
    PIECES = 2,
    PIECE = 8,
    TOKENS = 4,
    NUMBERS = PIECES * PIECE,
    BLOCKS = 200
};
#define BLOCK_BYTES (NUMBERS * sizeof(float))

static const rd_kv_geometry geometry = {
    .model = { { 9 } }, .pieces = PIECES, .piece = PIECE, .bytes_each = 4, .block_tokens = TOKENS
};
static const rd_key identity = { { 5 } };

/* ---- blocks ---- */

typedef struct block {
    rd_kv_offer offer;
    int32_t tokens[TOKENS];
    float numbers[NUMBERS];
} block;

static block blocks[BLOCKS];

static void make_block(int i, const char *source)
{
    block *b = &blocks[i];

    for (int k = 0; k < TOKENS; k++) b->tokens[k] = i + k;
    for (int k = 0; k < NUMBERS; k++) b->numbers[k] = (float)(i * NUMBERS + k);
    b->offer = (rd_kv_offer){ .key = { { (uint8_t)(i + 1), (uint8_t)(i >> 8) } },
                              .source = rd_kv_source(source),
                              .tokens = b->tokens,
                              .bytes = b->numbers };
    atomic_init(&b->offer.held, true);
}

static bool is_held(int i)
{
    return atomic_load_explicit(&blocks[i].offer.held, memory_order_acquire);
}

static int offer(rd_keeper *k, int from, int to, const char *source)
{
    const rd_kv_store *s = rd_keeper_store(k);
    int taken = 0;

    for (int i = from; i < to; i++) {
        make_block(i, source);
        if (s->offer(s->user, &blocks[i].offer))
            taken++;
        else
            atomic_store(&blocks[i].offer.held, false);
    }
    return taken;
}

static bool loads(rd_keeper *k, int i)
{
    const rd_kv_store *s = rd_keeper_store(k);
    float to[NUMBERS] = { 0 };
    bool loaded = s->load(s->user, &(rd_kv_want){ blocks[i].offer.key, blocks[i].tokens, to }, 1);

    if (loaded) cr_assert_eq(memcmp(to, blocks[i].numbers, sizeof to), 0, "block %d differs", i);
    return loaded;
}

/* ---- a keeper ---- */

static rd_keeper *open_keeper(rd_keeper_options o)
{
    if (!o.format) o.format = RD_KV_RAW;
    if (!o.quiet_ms) o.quiet_ms = 1;
    if (!o.retry_ms) o.retry_ms = 100000;
    o.dir = "/made/up";
    rd_keeper *k = rd_keeper_new(&o);
    const rd_kv_store *s = rd_keeper_store(k);

    s->begin(s->user, &geometry);
    return k;
}

static void close_keeper(rd_keeper *k)
{
    const rd_kv_store *s = rd_keeper_store(k);

    s->end(s->user);
    rd_keeper_close(k);
    cr_expect_eq(fake_cache.open, 0, "%d connections are left", fake_cache.open);
}

static rd_keeper_stats stat_of(rd_keeper *k)
{
    rd_keeper_stats s;

    rd_keeper_stat(k, &s);
    return s;
}

#define wait_for(what)                                                      \
    do {                                                                    \
        double start_ms = rd_now_ms();                                      \
        while (!(what)) {                                                   \
            cr_assert_lt(rd_now_ms() - start_ms, PATIENCE_MS, "%s", #what); \
            usleep(200);                                                    \
        }                                                                   \
    } while (0)

static atomic_int lines;

static void count_line(void *user, rd_log_level level, const char *line)
{
    (void)user;
    (void)line;
    lines += level <= RD_LOG_WARN;
}

/* ---- blocks ---- */

Test(keeper, writes_what_is_offered_while_the_model_rests, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    cr_assert_eq(offer(k, 0, 40, "/a.c"), 40);
    rd_keeper_idle(k, true);
    wait_for(fake_cache.blocks == 40);
    for (int i = 0; i < 40; i++) {
        cr_assert_not(is_held(i));
        cr_assert(loads(k, i));
    }
    cr_assert_geq(fake_cache.most_in_put, 16);
    cr_assert_eq(stat_of(k).written, 40);
    close_keeper(k);
}

Test(keeper, leaves_a_job_that_runs_alone, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    offer(k, 0, 40, NULL);
    usleep(50000);
    cr_assert_eq(fake_cache.opens, 0);
    for (int i = 0; i < 40; i++) cr_assert(is_held(i));
    close_keeper(k);
}

Test(keeper, takes_no_more_than_its_bound_and_works_at_half_of_it, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ .most_waiting = 32 * BLOCK_BYTES });

    cr_assert_eq(offer(k, 0, 16, NULL), 16);
    usleep(20000);
    cr_assert_eq(fake_cache.blocks, 0);
    fake_cache.put_waits = 1;
    int taken = offer(k, 16, BLOCKS, NULL);

    cr_assert_lt(taken, BLOCKS - 16, "all were taken");
    cr_assert_eq(stat_of(k).refused, BLOCKS - 16 - taken);
    cr_assert_leq(stat_of(k).waiting_bytes, 32 * BLOCK_BYTES);
    fake_cache.put_waits = 0;
    wait_for(fake_cache.blocks >= 16);
    close_keeper(k);
}

Test(keeper, lets_go_of_everything_at_the_end_also_while_the_disk_hangs, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    const rd_kv_store *s = rd_keeper_store(k);

    fake_cache.put_waits = 1;
    rd_keeper_idle(k, true);
    offer(k, 0, 20, NULL);
    wait_for(!is_held(19));
    usleep(20000);
    offer(k, 20, 60, NULL);
    s->end(s->user);
    for (int i = 0; i < 60; i++) cr_assert_not(is_held(i), "block %d", i);
    cr_assert_eq(offer(k, 60, 61, NULL), 0, "an offer was taken behind the end");
    fake_cache.put_waits = 0;
    close_keeper(k);
}

Test(keeper, writes_at_the_end_what_is_left, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    offer(k, 0, 30, NULL);
    close_keeper(k);
    cr_assert_eq(fake_cache.blocks, 30);
}

Test(keeper, tries_again_while_another_process_has_the_lock, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    fake_cache.stale_puts = 3;
    offer(k, 0, 20, NULL);
    rd_keeper_idle(k, true);
    wait_for(fake_cache.blocks == 20);
    cr_assert_str_eq(stat_of(k).why, "");
    close_keeper(k);
}

Test(keeper, does_not_try_for_ever, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    fake_cache.stale_puts = 1000;
    offer(k, 0, 20, NULL);
    rd_keeper_idle(k, true);
    wait_for(stat_of(k).dropped == 20);
    close_keeper(k);
}

Test(keeper, says_once_what_is_wrong_and_goes_on_without, .timeout = 60)
{
    rd_log_to(RD_LOG_WARN, count_line, NULL);
    rd_keeper *k = open_keeper((rd_keeper_options){ .retry_ms = 30 });

    fake_cache.put_fails = RD_IO;
    rd_keeper_idle(k, true);
    offer(k, 0, 20, NULL);
    wait_for(*stat_of(k).why);
    cr_assert_eq(offer(k, 20, 21, NULL), 0, "offers are taken while it does not work");
    usleep(50000);
    offer(k, 21, 40, NULL); /* it is tried again, and fails again */
    wait_for(stat_of(k).dropped >= 39);
    for (int i = 0; i < 40; i++) cr_assert_not(is_held(i));
    cr_assert_eq(lines, 1, "%d lines", lines);
    fake_cache.put_fails = 0;
    usleep(50000);
    wait_for(offer(k, 40, 60, NULL) == 20);
    wait_for(fake_cache.blocks == 20);
    cr_assert_str_eq(stat_of(k).why, "");
    close_keeper(k);
}

Test(keeper, whose_file_cannot_be_opened_is_a_miss, .timeout = 60)
{
    rd_log_to(RD_LOG_WARN, count_line, NULL);
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    const rd_kv_store *s = rd_keeper_store(k);

    fake_cache.open_fails = RD_INVALID;
    make_block(0, NULL);
    cr_assert_eq(s->count(s->user, &blocks[0].offer.key, 1), 0);
    cr_assert_not(loads(k, 0));
    cr_assert_eq(offer(k, 0, 1, NULL), 0);
    cr_assert_eq(lines, 1);
    close_keeper(k);
}

Test(keeper, makes_no_file_before_there_is_something_to_keep, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    const rd_kv_store *s = rd_keeper_store(k);

    rd_keeper_idle(k, true);
    make_block(0, NULL);
    cr_assert_eq(s->count(s->user, &blocks[0].offer.key, 1), 0);
    cr_assert_not(loads(k, 0));
    s->tell(s->user, 1, 2, 3, 4.0);
    rd_keeper_forget(k, "/a.c");
    wait_for(rd_keeper_forgotten(k) == 1);
    close_keeper(k);
    cr_assert_not(fake_cache.exists);
}

Test(keeper, does_not_give_out_what_is_no_block, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    rd_keeper_idle(k, true);
    offer(k, 0, 16, NULL);
    wait_for(fake_cache.blocks == 16);
    cr_assert(loads(k, 3));
    blocks[3].tokens[0]++;
    cr_assert_not(loads(k, 3), "with other tokens");
    blocks[3].tokens[0]--;
    fake_cache_damage();
    cr_assert_not(loads(k, 3), "with numbers that are none");
    close_keeper(k);
}

Test(keeper, finds_what_an_earlier_one_left, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ .format = RD_KV_BF16 });
    const rd_kv_store *s;
    rd_key keys[20];

    offer(k, 0, 20, NULL);
    close_keeper(k);
    k = open_keeper((rd_keeper_options){ 0 });
    s = rd_keeper_store(k);
    for (int i = 0; i < 20; i++) keys[i] = blocks[i].offer.key;
    cr_assert_eq(s->count(s->user, keys, 20), 20);
    float to[NUMBERS];

    cr_assert(s->load(s->user, &(rd_kv_want){ keys[1], blocks[1].tokens, to }, 1),
              "another format is none the less read");
    cr_assert_eq(to[0], blocks[1].numbers[0]);
    rd_keeper_idle(k, true);
    wait_for(fake_cache.used == 1);
    close_keeper(k);
}

Test(keeper, adds_counters_to_what_it_writes, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    const rd_kv_store *s = rd_keeper_store(k);
    rd_cache_stats stats;

    offer(k, 0, 1, NULL);
    s->tell(s->user, 1, 2, 3, 4.5);
    s->tell(s->user, 10, 20, 30, 0.5);
    close_keeper(k);
    rd_cache_stat(NULL, &stats, NULL);
    cr_assert_eq(stats.counts.found, 11);
    cr_assert_eq(stats.counts.loaded, 22);
    cr_assert_eq(stats.counts.computed, 33);
    cr_assert_float_eq(stats.counts.saved_ms, 5, 1e-9);
}

/* ---- forgetting ---- */

static int rows_of(const char *source)
{
    rd_key key = rd_kv_source(source);

    return fake_cache_rows_of(&key);
}

Test(keeper, forgets_a_file_wherever_its_blocks_are, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    rd_keeper_idle(k, true);
    offer(k, 0, 16, "/a.c");
    offer(k, 16, 32, "/b.c");
    wait_for(fake_cache.blocks == 32);
    rd_keeper_idle(k, false);
    offer(k, 32, 40, "/a.c");
    offer(k, 40, 48, "/b.c");
    rd_keeper_forget(k, "/a.c");
    for (int i = 32; i < 40; i++) cr_assert_not(is_held(i), "what waits goes at once");
    wait_for(rd_keeper_forgotten(k) == 1);
    cr_assert_eq(rows_of("/a.c"), 0);
    close_keeper(k);
    cr_assert_eq(rows_of("/a.c"), 0);
    cr_assert_eq(rows_of("/b.c"), 24);
}

Test(keeper, forgets_what_is_being_written, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });

    fake_cache.put_waits = 1;
    rd_keeper_idle(k, true);
    offer(k, 0, 20, "/a.c");
    wait_for(!is_held(19));
    usleep(20000);
    rd_keeper_forget(k, NULL);
    fake_cache.put_waits = 0;
    wait_for(rd_keeper_forgotten(k) == 1);
    close_keeper(k);
    cr_assert_eq(rows_of("/a.c"), 0);
}

Test(keeper, forgets_what_is_packed_and_not_yet_written, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ .quiet_ms = 100000 });

    rd_keeper_idle(k, true);
    offer(k, 0, 5, "/a.c");
    offer(k, 5, 10, "/b.c");
    wait_for(!is_held(9));
    rd_keeper_forget(k, "/a.c");
    wait_for(rd_keeper_forgotten(k) == 1);
    close_keeper(k);
    cr_assert_eq(rows_of("/a.c"), 0);
    cr_assert_eq(rows_of("/b.c"), 5);
}

Test(keeper, tries_to_forget_again, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ .retry_ms = 20 });

    rd_keeper_idle(k, true);
    offer(k, 0, 16, "/a.c");
    wait_for(fake_cache.blocks == 16);
    fake_cache.purge_fails = RD_STALE;
    rd_keeper_forget(k, "/a.c");
    wait_for(rd_keeper_forgotten(k) == 1);
    cr_assert_eq(rows_of("/a.c"), 16);
    fake_cache.purge_fails = 0;
    wait_for(rows_of("/a.c") == 0);
    close_keeper(k);
}

/* ---- answers ---- */

static rd_event *an_event(const char *text, const char *source)
{
    rd_event *ev = rd_alloc0(sizeof *ev);

    ev->job = rd_job_new(1, 1, RD_LANE_TYPING, RD_JOB_INFILL);
    if (source) ev->job->source = rd_copy_text(source, strlen(source));
    ev->done = true;
    if (!text) return ev;
    rd_buf_text(&ev->answers[0].text, text);
    ev->answers[0].confidence = 0.5f;
    ev->n_answers = 1;
    ev->ms = 100;
    return ev;
}

static void drop(rd_event *ev)
{
    rd_job_free(ev->job);
    rd_event_free(ev);
}

static bool recalls(rd_keeper *k, rd_key who, rd_key name, bool fresh, const char *text)
{
    rd_event *ev = an_event(NULL, NULL);

    ev->job->fresh = fresh;
    bool found = rd_keeper_recall(k, &who, ev->job, &name, ev);

    if (found) cr_assert_str_eq(ev->answers[0].text.data, text);
    drop(ev);
    return found;
}

Test(keeper, gives_an_answer_again_before_and_after_it_is_written, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    rd_key name = { { 1 } }, other = { { 2 } };
    rd_event *ev = an_event("text", "/a.c");

    cr_assert_not(recalls(k, identity, name, false, ""), "there is no file yet");
    cr_assert_str_eq(stat_of(k).why, "");
    rd_keeper_remember(k, &identity, &name, ev);
    cr_assert(recalls(k, identity, name, false, "text"));
    rd_keeper_idle(k, true);
    wait_for(fake_cache.answers == 1);
    wait_for(stat_of(k).written == 1);
    cr_assert(recalls(k, identity, name, false, "text"));
    cr_assert_not(recalls(k, identity, name, true, ""), "whoever wants a fresh one gets none");
    cr_assert_not(recalls(k, other, name, false, ""), "another model's");
    cr_assert_not(recalls(k, (rd_key){ { 0 } }, name, false, ""), "a model without a name");
    cr_assert_not(recalls(k, identity, other, false, ""), "another question's");
    cr_assert_eq(stat_of(k).answers, 2);
    cr_assert_float_eq(stat_of(k).saved_ms, 200, 1e-3);
    rd_keeper_forget(k, "/a.c");
    wait_for(rd_keeper_forgotten(k) == 1);
    cr_assert_not(recalls(k, identity, name, false, ""));
    drop(ev);
    close_keeper(k);
}

Test(keeper, keeps_no_answer_of_a_model_without_a_name, .timeout = 60)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ 0 });
    rd_key name = { { 1 } };
    rd_event *ev = an_event("text", "/a.c");

    rd_keeper_remember(k, &(rd_key){ { 0 } }, &name, ev);
    ev->reason = RD_REASON_TIME;
    rd_keeper_remember(k, &identity, &name, ev);
    drop(ev);
    close_keeper(k);
    cr_assert_not(fake_cache.exists);
}

/* ---- all at once ---- */

static atomic_bool over;

static void *meddle(void *arg)
{
    rd_keeper *k = arg;

    for (int i = 0; !over; i++) {
        stat_of(k);
        rd_keeper_forget(k, i % 2 ? "/a.c" : NULL);
        usleep(500);
    }
    return NULL;
}

Test(keeper, is_used_by_three_threads, .timeout = 120)
{
    rd_keeper *k = open_keeper((rd_keeper_options){ .most_waiting = 64 * BLOCK_BYTES });
    pthread_t other;

    pthread_create(&other, NULL, meddle, k);
    for (int round = 0; round < 50; round++) {
        fake_cache.stale_puts = round % 3;
        rd_keeper_idle(k, round % 2);
        for (int i = 0; i < BLOCKS; i++)
            if (!is_held(i)) offer(k, i, i + 1, i % 3 ? "/a.c" : "/b.c");
        for (int i = 0; i < BLOCKS; i += 7)
            if (!is_held(i)) loads(k, i);
        usleep(1000);
    }
    over = true;
    pthread_join(other, NULL);
    close_keeper(k);
    for (int i = 0; i < BLOCKS; i++) cr_assert_not(is_held(i));
}
