/* restart.c - the first text after a restart, out of the cache file, against the same from memory and against computing it.
 *
 *   bench_restart PROGRAM [ARGUMENT...]      the program speaks LSP on stdin and stdout: redraft stdio --alone
 *
 * A document is opened and asked about at once; what is measured is the time from the opening to the answer, with the model
 * loaded before. Requests are invoked, so that no finished answer stands in for the blocks. Prints, judges nothing.
 */
#include "core/base/clock.h"
#include "tests/e2e/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 15, LINES = 60, PATIENCE_MS = 20000 };

static int number; /* of the next request */

static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double median(double *ms)
{
    qsort(ms, ROUNDS, sizeof *ms, by_size);
    return ms[ROUNDS / 2];
}

/* Some hundred tokens, other ones for each seed; the hole is at the end. */
static double ask(client *c, int seed)
{
    rd_buf text = { 0 };
    int id = ++number;

    for (int i = 0; i < LINES; i++)
        rd_buf_format(&text, "int number_%d_%d = %d * other_%d;\\n", seed, i, i * 7 + seed, i);
    rd_buf_text(&text, "int last = ");
    double start = rd_now_ms();

    client_send(c,
                "{'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{'uri':"
                "'file:///bench/%d.c','languageId':'c','version':1,'text':'%s'}}}",
                seed, text.data);
    client_send(c,
                "{'jsonrpc':'2.0','id':%d,'method':'textDocument/inlineCompletion','params':{"
                "'textDocument':{'uri':'file:///bench/%d.c'},'position':{'line':%d,'character':11},"
                "'context':{'triggerKind':1}}}",
                id, seed, LINES);
    json_t *answer = client_answer(c, id, PATIENCE_MS);
    double ms = rd_now_ms() - start;

    if (!json_object_get(answer, "result")) {
        fprintf(stderr, "bench_restart: no answer\n");
        exit(1);
    }
    json_decref(answer);
    client_send(c,
                "{'jsonrpc':'2.0','method':'textDocument/didClose','params':{'textDocument':{'uri':"
                "'file:///bench/%d.c'}}}",
                seed);
    rd_buf_clear(&text);
    client_sleep_ms(200); /* as nobody opens a file each hundredth of a second */
    return ms;
}

static void begin(client *c, const char *const *argv)
{
    client_start(c, argv, RD_FRAMING_HEADER);
    if (!client_initialize(c)) exit(1);
    ask(c, 100000); /* the model is loaded */
}

static void end(client *c)
{
    client_sleep_ms(2500); /* what is finished is written in a rest */
    client_send(c, "{'jsonrpc':'2.0','id':999999,'method':'shutdown'}");
    json_decref(client_answer(c, 999999, PATIENCE_MS));
    client_send(c, "{'jsonrpc':'2.0','method':'exit'}");
    client_wait(c, PATIENCE_MS);
    client_end(c);
}

int main(int argc, char **argv)
{
    double computed[ROUNDS], memory[ROUNDS], file[ROUNDS];
    char world[64];
    client c;

    if (argc < 2) {
        fprintf(stderr, "usage: bench_restart PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    client_own_world(world);
    begin(&c, (const char *const *)argv + 1);
    for (int i = 0; i < ROUNDS; i++) computed[i] = ask(&c, i);
    client_sleep_ms(2500);
    for (int i = 0; i < ROUNDS; i++) {
        ask(&c, i);
        memory[i] = ask(&c, i);
    }
    end(&c);
    begin(&c, (const char *const *)argv + 1);
    for (int i = 0; i < ROUNDS; i++) file[i] = ask(&c, i);
    end(&c);
    client_remove_world(world);
    double m = median(memory), f = median(file);

    printf("from opening a file to its first text, medians of %d: computed %.1f ms, from memory "
           "%.1f ms, "
           "after a restart %.1f ms: %.2f x (wanted: at most 1.3)\n",
           ROUNDS, median(computed), m, f, f / m);
    return 0;
}
