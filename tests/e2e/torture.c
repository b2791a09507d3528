/* torture.c - a session again and again, with another call failing each time: torture SHIM PROGRAM [--every N] [--seed N].
 *
 * With N it is a sample, the first calls and one of N behind them, for a test that is short; without it each call. Wanted of each: an end in time; no
 * signal, but for an abort with its one line where memory for something small was gone; nothing but messages on
 * stdout; and where the program lives on after a single fault, the right answer to a request behind it. A fault that ends a
 * session (a read or write that fails) is an end in order.
 */
#include "core/base/clock.h"
#include "tests/e2e/client.h"
#include "tests/fake/forms.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 5000, LOOK_MS = 400, BEGINNING = 40 /* the calls that are never left out */ };

typedef struct run {
    client c;
    int id;
    bool gone; /* an answer did not come: at the program's end, or */
    bool deaf; /* though it lives */
} run;

static json_t *hear(run *r, int id)
{
    double until = rd_now_ms() + WAIT_MS;
    json_t *answer = client_answer(&r->c, id, WAIT_MS);

    r->gone = !answer;
    r->deaf |= !answer && rd_now_ms() >= until;
    return answer;
}

static json_t *say(run *r, const form *f)
{
    rd_buf json = { 0 };
    int id = f->is_request ? ++r->id : 0;

    if (r->gone) return NULL;
    form_write(f, id, NULL, 0, &json);
    client_send_bytes(&r->c, json.data, json.len);
    rd_buf_clear(&json);
    return id ? hear(r, id) : NULL;
}

/* The question whose answer is known; true where it does not come either. */
static bool is_known(run *r)
{
    client_ask(&r->c, ++r->id, "file:///w/known.c", 10);
    json_t *answer = hear(r, r->id);
    const char *item = client_item(answer);
    bool right = !answer || (item && !strcmp(item, "known"));

    json_decref(answer);
    return right;
}

/* The forms in their order, then that question. Rules that could not be read exclude, until they are looked at again. */
static bool talk(run *r)
{
    for (size_t i = 0; i < forms_lsp_count && strcmp(forms_lsp[i].method, "$/setTrace") != 0; i++)
        if (strcmp(forms_lsp[i].method, "workspace/didChangeConfiguration") != 0)
            json_decref(say(r, &forms_lsp[i]));
    if (r->gone) return true;
    client_open(&r->c, "file:///w/known.c",
                "a \xc2\xab"
                "known\xc2\xbb ");
    if (is_known(r)) return true;
    client_sleep_ms(LOOK_MS);
    return is_known(r);
}

static char *slurp(const char *path)
{
    rd_buf text = { 0 };
    char piece[4096];
    FILE *f = fopen(path, "r");
    size_t n;

    rd_buf_text(&text, "");
    while (f && (n = fread(piece, 1, sizeof piece, f)) > 0) rd_buf_append(&text, piece, n);
    if (f) fclose(f);
    return text.data;
}

/* What is wrong with how it ended; NULL: nothing. */
static const char *fault_of(int status, const char *said, bool hangs)
{
    if (hangs) return "it hangs";
    if (strstr(said, "Assertion")) return "an assertion";
    if (!WIFSIGNALED(status)) return NULL;
    if (WTERMSIG(status) == SIGABRT)
        return strstr(said, "redraft: ") ? NULL : "it aborts in silence";
    return strsignal(WTERMSIG(status));
}

static void set(const char *how, long n)
{
    char text[32];

    unsetenv("FAULT_ONCE");
    unsetenv("FAULT_FROM");
    snprintf(text, sizeof text, "%ld", n);
    if (how) setenv(how, text, 1);
}

/* One session; NULL: as it should be. */
static const char *try(const char *shim, const char *program, const char *how, long n)
{
    static const form shutdown = { "shutdown", true, "{}" }, leave = { "exit", false, "{}" };
    const char *const argv[] = { program, "stdio", "--alone", NULL };
    int err = open("stderr", O_RDWR | O_CREAT | O_TRUNC, 0600), old = dup(STDERR_FILENO), status;
    run r = { 0 };

    dup2(err, STDERR_FILENO);
    close(err);
    set(how, n);
    setenv("LD_PRELOAD", shim, 1);
    client_start(&r.c, argv, RD_FRAMING_HEADER);
    unsetenv("LD_PRELOAD");
    dup2(old, STDERR_FILENO);
    close(old);
    bool right = talk(&r);
    json_decref(say(&r, &shutdown));
    json_decref(say(&r, &leave));
    client_close_input(&r.c);
    double until = rd_now_ms() + WAIT_MS;
    pid_t ended;

    while ((ended = waitpid(r.c.pid, &status, WNOHANG)) == 0 && rd_now_ms() < until)
        client_sleep_ms(1);
    if (ended == 0) {
        kill(r.c.pid, SIGKILL);
        waitpid(r.c.pid, &status, 0);
    }
    char *said = slurp("stderr");
    const char *fault = fault_of(status, said, ended == 0);

    if (!fault && !right && !strcmp(how ? how : "", "FAULT_ONCE")) fault = "a wrong answer";
    if (!fault && r.deaf) fault = "a request is not answered";
    if (!fault && r.c.garbage) fault = "no messages on stdout";
    if (!fault && !how && (r.gone || status != 0)) fault = "it fails without a fault";
    if (fault) printf("%s=%ld: %s\n  %.300s\n", how ? how : "none", n, fault, said);
    free(said);
    close(r.c.from);
    rd_wire_free(r.c.wire);
    rd_buf_clear(&r.c.unread);
    return fault;
}

int main(int argc, char **argv)
{
    static const char *const ways[] = { "FAULT_ONCE", "FAULT_FROM" };
    char world[64];
    long every = 1, seed = 0, calls, tried = 0, wrong = 0;

    if (argc < 3) return 2;
    const char *with = getenv("FAULT_ERRNO");
    int n_ways =
        with && strtol(with, NULL, 10) == EINTR ? 1 : 2; /* nobody is interrupted for ever */

    for (int i = 3; i + 1 < argc; i += 2)
        *(strcmp(argv[i], "--seed") ? &every : &seed) = strtol(argv[i + 1], NULL, 10);
    client_own_world(world);
    if (chdir(world)) return 2;
    setenv("FAULT_TELL", "calls", 1);
    if (try(argv[1], argv[2], NULL, 0)) return 1;
    char *told = slurp("calls");

    calls = strtol(told, NULL, 10);
    unsetenv("FAULT_TELL");
    for (long n = 1; n <= calls; n++)
        for (int k = 0; k < n_ways && (n <= BEGINNING || n % every == seed % every); k++, tried++)
            wrong += try(argv[1], argv[2], ways[k], n) != NULL;
    printf("%ld calls, %ld faults, %ld wrong\n", calls, tried, wrong);
    free(told);
    if (chdir("/")) return 2;
    client_remove_world(world);
    return wrong > 0 || tried == 0;
}
