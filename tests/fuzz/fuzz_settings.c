/* fuzz_settings.c - libFuzzer: a client's settings, a project's settings file and its ignore file, with 0xff between them.
 *
 * Values stay in their ranges, and whatever the project's files hold, they only narrow: what is excluded without them
 * is excluded with them, and no setting allows more.
 */
#include "lsp/repair.h"
#include "lsp/settings.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(holds)                     \
    do {                                \
        if (!(holds)) __builtin_trap(); \
    } while (0)

static char plain[] = "/tmp/redraft-fuzz-XXXXXX", project[] = "/tmp/redraft-fuzz-XXXXXX";
static const char *const names[] = { "a.c", ".env", "sub/b.key", "README.md" };
enum { NAMES = sizeof names / sizeof *names };

static void remove_folders(void)
{
    if (!chdir(project)) {
        unlink(".redraft.json");
        unlink(".gitignore");
    }
    rmdir(project);
    rmdir(plain);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (!mkdtemp(plain) || !mkdtemp(project)) abort();
    atexit(remove_folders);
    return 0;
}

/* The next part of the input. */
static const char *part(const unsigned char **data, size_t *left, size_t *n)
{
    const unsigned char *start = *data, *end = *left ? memchr(start, 0xff, *left) : NULL;

    *n = end ? (size_t)(end - start) : *left;
    *data += end ? *n + 1 : *n;
    *left -= end ? *n + 1 : *n;
    return (const char *)start;
}

static void put(const char *name, const char *bytes, size_t n)
{
    char path[sizeof project + 32];
    int fd;

    snprintf(path, sizeof path, "%s/%s", project, name);
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || close(fd)) abort();
}

static bool in_range(const rd_settings *s)
{
    return s->quality >= 0 && s->quality <= 1 && s->min_confidence <= 1 && s->max_ms >= 10 &&
           s->max_ms <= 60000 && s->debounce_ms >= 0 && s->debounce_ms <= 5000 &&
           json_is_array(s->exclude) && json_is_object(s->languages);
}

static bool is_narrower(const rd_settings *now, const rd_settings *before)
{
    return now->enable <= before->enable && now->min_confidence >= before->min_confidence &&
           now->max_ms <= before->max_ms && now->debounce_ms >= before->debounce_ms &&
           now->quality == before->quality && now->subtle == before->subtle &&
           now->draft == before->draft && now->completion == before->completion &&
           json_equal(now->languages, before->languages) &&
           json_array_size(now->exclude) >= json_array_size(before->exclude);
}

static void merge(rd_settings *s, rd_source source, const json_t *value)
{
    rd_buf complaints = { 0 };
    json_t *told = json_object();

    rd_settings_merge(s, source, value, told, &complaints);
    MUST(in_range(s));
    size_t said = complaints.len;

    rd_settings_merge(s, source, value, told, &complaints);
    MUST(complaints.len == said || json_object_size(told) >= 100); /* once is enough */
    json_decref(told);
    rd_buf_clear(&complaints);
}

static void compare(const rd_settings *s)
{
    const char *const folders[] = { plain, project };
    rd_scope *scopes[2] = { rd_scope_new(s, folders, 1), rd_scope_new(s, folders + 1, 1) };
    rd_buf complaints = { 0 };

    for (int i = 0; i < NAMES; i++) {
        rd_verdict v[2];
        rd_file_settings f[2];

        for (int k = 0; k < 2; k++) {
            char path[sizeof project + 32];
            const char *why;

            snprintf(path, sizeof path, "%s/%s", folders[k], names[i]);
            v[k] = rd_scope_excluded(scopes[k], path, 3, "abc", 3, &why);
            f[k] = rd_scope_settings(scopes[k], path, i % 2 ? "c" : "python");
        }
        MUST(v[0] == RD_ALLOWED || v[1] != RD_ALLOWED);
        MUST(f[1].enabled <= f[0].enabled && f[1].max_ms <= f[0].max_ms &&
             f[1].debounce_ms >= f[0].debounce_ms);
        MUST(rd_file_confidence(&f[1], 0.35) >= rd_file_confidence(&f[0], 0.35));
    }
    rd_scope_complaints(scopes[1], &complaints);
    rd_buf_clear(&complaints);
    rd_scope_free(scopes[0]);
    rd_scope_free(scopes[1]);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static rd_config *config;
    rd_buf complaints = { 0 };
    rd_settings s, before;
    json_t *value = NULL;
    size_t length;
    rd_error err;

    if (!config) config = rd_config_new("/no/such/settings", &complaints);
    rd_buf_clear(&complaints);
    rd_settings_init(&s, &config->client);
    const char *text = part(&data, &n, &length);

    if (!rd_repair_parse(text, length, RD_UTF8, &value, &err)) merge(&s, RD_FROM_CLIENT, value);
    json_decref(value);
    value = NULL;
    text = part(&data, &n, &length);
    put(".redraft.json", text, length);
    rd_settings_init(&before, &s);
    if (!rd_repair_parse(text, length, RD_UTF8, &value, &err)) merge(&s, RD_FROM_PROJECT, value);
    json_decref(value);
    MUST(is_narrower(&s, &before));
    put(".gitignore", (const char *)data, n);
    compare(&before);
    rd_settings_clear(&s);
    rd_settings_clear(&before);
    return 0;
}
