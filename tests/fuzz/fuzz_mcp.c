/* fuzz_mcp.c - libFuzzer: an agent's whole connection, with a folder that it may name files in (session.h). */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char root[] = "/tmp/redraft-fuzz-XXXXXX";
static const char *const files[] = { "a.c", ".env", "empty", "odd" };

static const char *path_of(const char *name)
{
    static char path[64];

    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void remove_root(void)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(path_of(files[i]));
    unlink(path_of("link"));
    rmdir(root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const bytes[] = { "int bad;\nint b;\n", "KEY=1\n", "",
                                         "\xef\xbb\xbf\r\n\r" };

    (void)argc;
    (void)argv;
    if (!mkdtemp(root) || symlink("/etc/hostname", path_of("link"))) abort();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        FILE *f = fopen(path_of(files[i]), "wb");

        if (!f || fputs(bytes[i], f) < 0 || fclose(f)) abort();
    }
    atexit(remove_root);
    return 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static const char *const roots[] = { root };
    const session_kind kind = { .protocol = RD_MCP,
                                .forms = forms_mcp,
                                .n_forms = forms_mcp_count,
                                .beginning = forms_mcp,
                                .n_beginning = 2,
                                .roots = roots,
                                .n_roots = 1 };

    session_run(&kind, data, n);
    return 0;
}
