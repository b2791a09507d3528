/* hostile.c - runs a group of cases: hostile GROUP PROGRAM TESTS-DATA BUILTIN-MODEL. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS_MOST = 20, SECONDS_MOST = 120, MEMORY_MOST = 3 }; /* GiB */

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
    exit(2);
}

const char *named(const char *format, ...)
{
    static struct kept {
        struct kept *next;
        char *text;
    } * all; /* a leak detector finds them here */
    struct kept *one = calloc(1, sizeof *one);
    va_list args;

    va_start(args, format);
    if (!one || vasprintf(&one->text, format, args) < 0) give_up("name");
    va_end(args);
    one->next = all;
    all = one;
    return one->text;
}

/* ---- files ---- */

void put_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    if (!f || (n && fwrite(bytes, 1, n, f) != n) || fclose(f)) give_up(path);
}

void put_text(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

void put_many(const char *path, const char *piece, size_t times)
{
    FILE *f = fopen(path, "wb");

    if (!f) give_up(path);
    for (size_t i = 0; i < times; i++) fputs(piece, f);
    if (fclose(f)) give_up(path);
}

char *get_file(const char *path, size_t *n)
{
    struct stat st;
    FILE *f = fopen(path, "rb");

    if (!f || fstat(fileno(f), &st)) give_up(path);
    char *text = calloc(1, (size_t)st.st_size + 1);

    if (!text) give_up(path);
    *n = fread(text, 1, (size_t)st.st_size, f);
    fclose(f);
    return text;
}

void copy(const char *from, const char *to)
{
    size_t n;
    char *bytes = get_file(from, &n);

    unlink(to);
    put_bytes(to, bytes, n);
    free(bytes);
}

void put_folder(const char *path)
{
    if (mkdir(path, 0777) && errno != EEXIST) give_up(path);
}

void replace_folder(const char *path)
{
    pid_t child = fork();

    if (child == 0) execlp("rm", "rm", "-rf", path, (char *)NULL);
    waitpid(child, NULL, 0);
    put_folder(path);
}

void put_tensors(const char *path, const char *header, size_t data)
{
    uint64_t n = strlen(header);
    unsigned char length[8];
    FILE *f = fopen(path, "wb");

    if (!f) give_up(path);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n >> (8 * i));
    fwrite(length, 1, 8, f);
    fwrite(header, 1, n, f);
    for (; data > 0; data--) fputc(0, f);
    if (fclose(f)) give_up(path);
}

const char good_pre[] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                        "{\"Regex\":\"\\\\s+|\\\\S+\"},\"behavior\":\"Isolated\",\"invert\":false},"
                        "{\"type\":\"ByteLevel\",\"use_regex\":false}]}";

void put_tokenizer(const char *path, const char *pre, const char *more_vocab, const char *merges,
                   const char *added, const char *more_model)
{
    FILE *f = fopen(path, "wb");

    if (!f) give_up(path);
    fprintf(f,
            "{\"pre_tokenizer\":%s,\"added_tokens\":[%s],\"model\":{\"type\":\"BPE\",%s\"vocab\":{",
            pre, added, more_model);
    for (int i = 0, next = 256; i < 256; i++) {
        bool itself = (i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
        int c = itself ? i : next++;

        fprintf(f, "%s\"\\u%04x\":%d", i ? "," : "", (unsigned)c, i);
    }
    fprintf(f, "%s},\"merges\":[%s]}}", more_vocab, merges);
    if (fclose(f)) give_up(path);
}

void put_model(const hostile *h, const char *dir)
{
    replace_folder(dir);
    copy(named("%s/golden/models/m1_base/config.json", h->data), named("%s/config.json", dir));
    copy(named("%s/golden/models/m1_base/model.safetensors", h->data),
         named("%s/model.safetensors", dir));
    put_tokenizer(named("%s/tokenizer.json", dir), good_pre, "", "", MASK, "");
}

/* ---- cases ---- */

static void child(const hostile *h, const char *const *args)
{
    const char *argv[24] = { h->redraft };
    struct rlimit no_core = { 0, 0 }, cpu = { CPU_SECONDS_MOST, CPU_SECONDS_MOST + 1 },
                  file = { h->file_most, h->file_most };
    int in = open(h->in ? h->in : "/dev/null", O_RDONLY);
    int out = open(h->out ? h->out : "stdout", O_WRONLY | (h->out ? 0 : O_CREAT | O_TRUNC), 0666);
    int err = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0666);

    if (in < 0 || out < 0 || err < 0) give_up("redirection");
    for (int i = 0; args[i] && i < 22; i++) argv[i + 1] = args[i];
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    for (int fd = 3; fd < 16; fd++) close(fd);
    if (h->closed >= 0) close(h->closed);
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_CPU, &cpu); /* on a busy machine only this says that it hangs */
    if (h->file_most) setrlimit(RLIMIT_FSIZE, &file);
#ifndef RD_SANITIZED
    struct rlimit memory = { (rlim_t)MEMORY_MOST << 30, (rlim_t)MEMORY_MOST << 30 };

    setrlimit(RLIMIT_AS, &memory);
#endif
    alarm(SECONDS_MOST);
    execv(h->redraft, (char *const *)argv);
    _exit(127);
}

/* One line that says why, the last; where `many`, lines about the work may precede it. */
static const char *fault_of_lines(const char *err, bool many, const char *needle)
{
    static const char start[] = "redraft";
    size_t n = strlen(err);
    const char *last = err;

    if (n == 0 || err[n - 1] != '\n') return "no whole line on stderr";
    for (const char *end; (end = strchr(last, '\n')) && end[1]; last = end + 1)
        if (!many || !strncmp(last, start, sizeof start - 1)) return "not one line on stderr";
    if (strncmp(last, start, sizeof start - 1) != 0) return "the last line says nothing";
    return needle && !strstr(last, needle) ? named("no \"%s\" in the last line", needle) : NULL;
}

/* What is wrong with the outcome, or NULL. */
static const char *fault(const hostile *h, const char *call, int wait_status, int status,
                         const char *needle, const char *out, const char *err)
{
    static const char *const never[] = { "Sanitizer", "runtime error:", "out of memory",
                                         "Assertion" };

    if (WIFSIGNALED(wait_status))
        return WTERMSIG(wait_status) == SIGALRM || WTERMSIG(wait_status) == SIGXCPU
                   ? "it hangs"
                   : named("signal %d", WTERMSIG(wait_status));
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(err, never[i])) return named("\"%s\" on stderr", never[i]);
    if (WEXITSTATUS(wait_status) != status)
        return named("exit %d, expected %d", WEXITSTATUS(wait_status), status);
    if (needle && !strstr(err, needle)) return named("no \"%s\" on stderr", needle);
    if (h->stdout_holds && !strstr(out, h->stdout_holds))
        return named("no \"%s\" on stdout", h->stdout_holds);
    for (const char *c = err; *c; c++)
        if (((unsigned char)*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f)
            return "a control character on stderr";
    if (status == 0 || h->chatty) return NULL;
    if (*out && !h->stdout_holds) return "output on stdout";
    if (h->closed == 2) return NULL;
    return fault_of_lines(err, status == 1 && !strcmp(call, "train"), needle);
}

void hostile_case(hostile *h, const char *name, int status, const char *needle,
                  const char *const *args)
{
    size_t n;
    int wait_status = 0;

    h->cases++;
    put_text("stdout", "");
    put_text("stderr", "");
    pid_t id = fork();

    if (id == 0) child(h, args);
    while (waitpid(id, &wait_status, 0) < 0 && errno == EINTR) {
    }
    char *out = get_file("stdout", &n), *err = get_file("stderr", &n);
    const char *wrong = fault(h, args[0], wait_status, status, needle, out, err);

    if (wrong) {
        h->failed++;
        printf("FAILED %s: %s\n  redraft", name, wrong);
        for (int i = 0; args[i]; i++) printf(" %.200s", args[i]);
        printf("\n  stderr: %.600s\n", err);
        if (*out) printf("  stdout: %.200s\n", out);
    }
    free(out);
    free(err);
    h->in = h->out = h->stdout_holds = NULL;
    h->closed = -1;
    h->chatty = false;
    h->file_most = 0;
}

void hostile_holds(hostile *h, const char *name, bool holds)
{
    h->cases++;
    if (holds) return;
    h->failed++;
    printf("FAILED %s\n", name);
}

void hostile_skip(hostile *h, const char *name, const char *why)
{
    h->skipped++;
    printf("skipped %s: %s\n", name, why);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(hostile *h);
    } groups[] = {
        { "safetensors", safetensors_cases },
        { "config", config_cases },
        { "tokenizer", tokenizer_cases },
        { "place", place_cases },
        { "jsonl", jsonl_cases },
        { "call", call_cases },
        { "disk", disk_cases },
        { "editor", editor_cases },
        { "agent", agent_cases },
    };
    char dir[] = "/tmp/redraft-hostile-XXXXXX";

    if (argc != 5) return 2;
    hostile h = { .redraft = argv[2], .data = argv[3], .builtin = argv[4], .closed = -1 };

    if (!mkdtemp(dir) || chdir(dir)) give_up(dir);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (!strcmp(groups[i].name, argv[1])) groups[i].run(&h);
    if (chdir("/")) give_up("/");
    replace_folder(dir);
    rmdir(dir);
    printf("%d cases, %d failed, %d skipped\n", h.cases, h.failed, h.skipped);
    return h.failed > 0 || h.cases == 0;
}
