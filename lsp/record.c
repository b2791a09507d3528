/* record.c - the state folder, the log's sink and the crash handler. */
#include "lsp/record.h"

#include "core/base/buf.h"
#include "lsp/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEATHS_MOST_BYTES = 64 << 10, LINE_BYTES = 256 };

static struct {
    int dir, deaths;
    pthread_mutex_t log_lock;
    int log;
    long log_bytes;
    const char *(*now)(const void *of);
    const void *of;
    char stack[64 << 10]; /* the handler's, for a stack that overflowed */
} record = { .dir = -1, .deaths = -1, .log = -1, .log_lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the folder ---- */

/* Make each folder on the way that is missing. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0700) && errno != EEXIST && errno != EROFS) {
            *slash = '/';
            return;
        }
        *slash = '/';
    }
    if (mkdir(path, 0700)) return; /* opening it says whether it is there */
}

static int open_own(const char *name)
{
    return openat(record.dir, name, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static long bytes_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) ? 0 : (long)st.st_size;
}

void rd_record_open(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char path[4096];
    struct stat st;
    int n = state && state[0] == '/' ? snprintf(path, sizeof path, "%s/redraft", state)
            : home && home[0] == '/' ? snprintf(path, sizeof path, "%s/.local/state/redraft", home)
                                     : -1;

    if (n < 0 || n >= (int)sizeof path) return;
    make_folders(path);
    record.dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (record.dir >= 0 && (fstat(record.dir, &st) || st.st_uid != geteuid())) rd_record_close();
    if (record.dir < 0) return;
    record.deaths = open_own("deaths");
    if (record.deaths >= 0 && bytes_of(record.deaths) > DEATHS_MOST_BYTES &&
        ftruncate(record.deaths, 0))
        rd_log(RD_LOG_WARN, "%s/deaths: %s", path, strerror(errno));
}

void rd_record_close(void)
{
    if (record.log >= 0) rd_log_to(RD_LOG_WARN, NULL, NULL);
    if (record.log >= 0) close(record.log);
    if (record.deaths >= 0) close(record.deaths);
    if (record.dir >= 0) close(record.dir);
    record.log = record.deaths = record.dir = -1;
}

/* ---- the log ---- */

static void turn_over(void)
{
    close(record.log);
    renameat(record.dir, "daemon.log", record.dir, "daemon.log.1");
    record.log = open_own("daemon.log");
    record.log_bytes = 0;
}

static void write_log(void *user, rd_log_level level, const char *line)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    char text[640], when[32];
    time_t now = time(NULL);
    struct tm tm;

    (void)user;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", localtime_r(&now, &tm));
    int n =
        snprintf(text, sizeof text, "%s %ld %s: %s\n", when, (long)getpid(), names[level], line);

    if (n >= (int)sizeof text) n = (int)sizeof text - 1;
    pthread_mutex_lock(&record.log_lock);
    if (record.log_bytes + n > RD_MOST_LOG_BYTES) turn_over();
    if (record.log >= 0 && write(record.log, text, (size_t)n) == n) record.log_bytes += n;
    pthread_mutex_unlock(&record.log_lock);
}

bool rd_record_log(rd_log_level level)
{
    if (record.dir < 0) return false;
    record.log = open_own("daemon.log");
    if (record.log < 0) return false;
    record.log_bytes = bytes_of(record.log);
    rd_log_to(level, write_log, NULL);
    return true;
}

/* ---- deaths ---- */

/* Decimal digits behind what stands in `out`; for the handler, which may not print. */
static size_t put_number(char *out, size_t at, long long value)
{
    char digits[24];
    int n = 0;

    do digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (n > 0) out[at++] = digits[--n];
    return at;
}

static size_t put_text(char *out, size_t at, const char *text)
{
    while (*text && at < 200) out[at++] = *text++;
    return at;
}

/* " process 7 signal 11 during infill step 3", behind what stands in `line`, and the line's end. */
static size_t put_death(char line[LINE_BYTES], size_t n, long pid, const char *how, int number,
                        const char *what)
{
    n = put_text(line, n, " process ");
    n = put_number(line, n, pid);
    n = put_text(line, n, how);
    if (number) n = put_number(line, n, number);
    if (*what) n = put_text(line, n, " during ");
    n = put_text(line, n, what);
    line[n++] = '\n';
    return n;
}

static void write_death(long pid, const char *how, int number, const char *what)
{
    char line[LINE_BYTES];
    size_t n = put_number(line, 0, (long long)time(NULL));

    n = put_death(line, n, pid, how, number, what);
    if (write(record.deaths, line, n) < 0) return;
}

/* For whoever started us in a terminal or keeps what we say there. */
static void say_death(int number, const char *what)
{
    char line[LINE_BYTES];
    size_t n = put_text(line, 0, "redraft: died:");

    n = put_death(line, n, (long)getpid(), " signal ", number, what);
    if (write(STDERR_FILENO, line, n) < 0) return;
}

static void on_crash(int number)
{
    int before = errno;
    const char *what = record.now ? record.now(record.of) : "";

    if (record.deaths >= 0) write_death((long)getpid(), " signal ", number, what);
    say_death(number, what);
    errno = before;
    raise(number); /* the default action is back, and takes effect when this returns */
}

void rd_record_crashes(const char *(*now)(const void *of), const void *of)
{
    static const int numbers[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
    struct sigaction act = { .sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_ONSTACK };
    stack_t stack = { .ss_sp = record.stack, .ss_size = sizeof record.stack };

    record.now = now;
    record.of = of;
    sigaltstack(&stack, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &act, NULL);
}

static void read_deaths(rd_buf *out)
{
    char piece[4096];
    ssize_t got;

    for (off_t at = 0; record.deaths >= 0 && at < 2 * DEATHS_MOST_BYTES; at += got) {
        got = pread(record.deaths, piece, sizeof piece, at);
        if (got <= 0) break;
        rd_buf_append(out, piece, (size_t)got);
    }
}

void rd_record_lost(long pid)
{
    rd_buf all = { 0 };
    char mark[48];

    if (record.deaths < 0) return;
    snprintf(mark, sizeof mark, " process %ld signal ", pid);
    read_deaths(&all);
    if (!all.data || !strstr(all.data, mark)) write_death(pid, " killed", 0, "");
    rd_buf_clear(&all);
}

int rd_record_deaths(char *last, size_t n)
{
    rd_buf all = { 0 };
    int count = 0;

    read_deaths(&all);
    last[0] = 0;
    for (char *line = all.data, *end; line && (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        snprintf(last, n, "%s", line);
        count++;
    }
    rd_buf_clear(&all);
    return count;
}
