/* tool.c - finds the command, parses its options against the table, prints help from it. */
#include "core/tools/tool.h"

#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGS_MOST = 4096 };

static const rd_option model_options[] = {
    { "--model", "DIR", "model folder; the built-in model without it" },
    { "--backend", "NAME", "cpu, cuda or auto, the best there is; auto without it" },
    { "--isa", "NAME", "the CPU's: plain, avx2 or avx512; the best without it" },
    { "--threads", "N", "threads; as many as cores without it" },
    { NULL, NULL, NULL },
};

struct rd_args {
    const rd_command *command;
    const char *rest[ARGS_MOST];
    int rest_n;
    const char *option[64], *value[64];
    int options_n;
};

static const rd_option *find_in(const rd_option *list, const char *name, size_t n)
{
    for (; list && list->name; list++)
        if (strlen(list->name) == n && !strncmp(list->name, name, n)) return list;
    return NULL;
}

static const rd_option *find_option(const rd_command *c, const char *name, size_t n)
{
    const rd_option *o = find_in(c->options, name, n);

    return o || !c->model ? o : find_in(model_options, name, n);
}

int rd_tool_usage(const rd_args *a, const char *format, ...)
{
    char text[1024];
    rd_error clean;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rd_fail(&clean, RD_INVALID, "%s", text);
    fprintf(stderr, "redraft %s: %s; see redraft %s --help\n", a->command->name, clean.text,
            a->command->name);
    return 2;
}

int rd_tool_fail(const rd_args *a, const rd_error *err)
{
    fprintf(stderr, "redraft %s: %s\n", a->command->name, err->text);
    return 1;
}

const char *rd_args_text(const rd_args *a, const char *option)
{
    for (int i = a->options_n - 1; i >= 0; i--)
        if (!strcmp(a->option[i], option)) return a->value[i];
    return NULL;
}

const char *rd_args_text_at(const rd_args *a, const char *option, int i)
{
    for (int k = 0; k < a->options_n; k++)
        if (!strcmp(a->option[k], option) && i-- == 0) return a->value[k];
    return NULL;
}

bool rd_args_flag(const rd_args *a, const char *option)
{
    return rd_args_text(a, option) != NULL;
}

bool rd_args_number(const rd_args *a, const char *option, double least, double most, double *out)
{
    const char *text = rd_args_text(a, option);
    char *end;

    if (!text) return true;
    double x = strtod(text, &end);

    if (end == text || *end || !(x >= least && x <= most)) {
        rd_tool_usage(a, "%s is %s; a number from %g to %g", option, text, least, most);
        return false;
    }
    *out = x;
    return true;
}

bool rd_args_int(const rd_args *a, const char *option, int least, int most, int *out)
{
    double x = *out;

    if (!rd_args_number(a, option, least, most, &x)) return false;
    if (x != (double)(int)x) {
        rd_tool_usage(a, "%s is not a whole number", option);
        return false;
    }
    *out = (int)x;
    return true;
}

int rd_args_count(const rd_args *a)
{
    return a->rest_n;
}

const char *rd_args_at(const rd_args *a, int i)
{
    return i < a->rest_n ? a->rest[i] : NULL;
}

static bool parse(rd_args *a, int argc, char **argv)
{
    bool only_rest = false;

    for (int i = 0; i < argc; i++) {
        const char *s = argv[i], *equals = strchr(s, '=');
        size_t n = equals ? (size_t)(equals - s) : strlen(s);

        if (only_rest || s[0] != '-' || !s[1]) {
            if (a->rest_n == ARGS_MOST) return rd_tool_usage(a, "too many arguments"), false;
            a->rest[a->rest_n++] = s;
            continue;
        }
        if (!strcmp(s, "--")) {
            only_rest = true;
            continue;
        }
        const rd_option *o = find_option(a->command, s, n);

        if (!o) return rd_tool_usage(a, "unknown option %s", s), false;
        if (a->options_n == 64) return rd_tool_usage(a, "too many options"), false;
        a->option[a->options_n] = o->name;
        if (!o->value) {
            if (equals) return rd_tool_usage(a, "%s takes no value", o->name), false;
            a->value[a->options_n++] = "";
        } else if (equals) {
            a->value[a->options_n++] = equals + 1;
        } else if (i + 1 < argc) {
            a->value[a->options_n++] = argv[++i];
        } else {
            return rd_tool_usage(a, "%s needs %s", o->name, o->value), false;
        }
    }
    return true;
}

static void print_options(const rd_option *o)
{
    char left[64];

    for (; o && o->name; o++) {
        snprintf(left, sizeof left, "%s %s", o->name, o->value ? o->value : "");
        printf("  %-22s %s\n", left, o->help);
    }
}

static void help_command(const rd_command *c)
{
    printf("redraft %s %s\n%s\n\n", c->name, c->synopsis, c->summary);
    print_options(c->options);
    if (c->model) print_options(model_options);
    printf("\nExample: %s\n", c->example);
}

static void help_all(const rd_command *commands)
{
    printf("redraft - an editor's model that can change its mind\n\n");
    for (const rd_command *c = commands; c->name; c++) printf("  %-12s %s\n", c->name, c->summary);
    printf("\nredraft CALL --help shows a call's options and one example.\n"
           "Example: redraft infill README.md:3:1 --diff\n");
}

static void complete_bash(const rd_command *commands)
{
    printf("_redraft() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n  if [ $COMP_CWORD = 1 ]; then\n"
           "    COMPREPLY=($(compgen -W '");
    for (const rd_command *c = commands; c->name; c++) printf("%s ", c->name);
    printf("' -- \"$cur\")); return; fi\n  case ${COMP_WORDS[1]} in\n");
    for (const rd_command *c = commands; c->name; c++) {
        printf("    %s) COMPREPLY=($(compgen -W '", c->name);
        for (const rd_option *o = c->options; o && o->name; o++) printf("%s ", o->name);
        for (const rd_option *o = c->model ? model_options : NULL; o && o->name; o++)
            printf("%s ", o->name);
        printf("' -- \"$cur\") $(compgen -f -- \"$cur\"));;\n");
    }
    printf("  esac\n}\ncomplete -o filenames -F _redraft redraft\n");
}

static void complete_zsh(const rd_command *commands)
{
    printf("#compdef redraft\n_redraft() {\n  if (( CURRENT == 2 )); then\n    local -a calls=(");
    for (const rd_command *c = commands; c->name; c++) printf(" '%s:%s'", c->name, c->summary);
    printf(" )\n    _describe call calls; return\n  fi\n  case $words[2] in\n");
    for (const rd_command *c = commands; c->name; c++) {
        printf("    %s) compadd --", c->name);
        for (const rd_option *o = c->options; o && o->name; o++) printf(" %s", o->name);
        for (const rd_option *o = c->model ? model_options : NULL; o && o->name; o++)
            printf(" %s", o->name);
        printf("; _files;;\n");
    }
    printf("  esac\n}\n_redraft \"$@\"\n");
}

static void complete_fish(const rd_command *commands)
{
    for (const rd_command *c = commands; c->name; c++) {
        printf("complete -c redraft -n __fish_use_subcommand -a %s -d '%s'\n", c->name, c->summary);
        for (const rd_option *o = c->options; o && o->name; o++)
            printf("complete -c redraft -n '__fish_seen_subcommand_from %s' -l %s -d '%s'%s\n",
                   c->name, o->name + 2, o->help, o->value ? " -r" : "");
    }
}

static void man_page(const rd_command *commands)
{
    printf(".TH REDRAFT 1\n.SH NAME\nredraft \\- an editor's model that can change its mind\n"
           ".SH SYNOPSIS\n.B redraft\n.I CALL\n[options]\n.SH CALLS\n");
    for (const rd_command *c = commands; c->name; c++) {
        printf(".TP\n.B %s %s\n%s\n", c->name, c->synopsis, c->summary);
        for (const rd_option *o = c->options; o && o->name; o++)
            printf(".br\n.B \\%s\n.I %s\n%s\n", o->name, o->value ? o->value : "", o->help);
    }
    printf(".SH EXIT STATUS\n0 done, 1 the work failed, 2 the call was wrong.\n");
}

static int print_extra(const char *what, const rd_command *commands)
{
    if (!strcmp(what, "--man"))
        man_page(commands);
    else if (!strcmp(what, "--completions=bash"))
        complete_bash(commands);
    else if (!strcmp(what, "--completions=zsh"))
        complete_zsh(commands);
    else if (!strcmp(what, "--completions=fish"))
        complete_fish(commands);
    else
        return 2;
    return 0;
}

/* A descriptor that is missing would be given to the next file opened, and output would go into it. What
 * stands in its place refuses reading and writing instead. */
static void keep_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            return;
}

/* A mapped file that somebody else shortens ends the process at the next look at it. */
static void on_lost_page(int number)
{
    static const char text[] =
        "redraft: a file was shortened, or its disk failed, while it was read\n";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(1);
    _exit(1);
}

static int finish_output(const char *call, int status)
{
    if (!fflush(stdout) && !ferror(stdout)) return status;
    if (status == 0) fprintf(stderr, "redraft %s: stdout: %s\n", call, strerror(errno));
    return status ? status : 1;
}

static int run_call(const rd_command *c, int argc, char **argv)
{
    rd_args *a;
    int status = 2;

    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        help_command(c);
        return 0;
    }
    a = rd_alloc0(sizeof *a);
    a->command = c;
    if (parse(a, argc, argv)) status = c->run(a);
    free(a);
    return status;
}

static const rd_command *join_tables(const rd_command *more)
{
    size_t n = 0, n_more = 0;

    while (rd_commands[n].name) n++;
    while (more && more[n_more].name) n_more++;
    rd_command *all = rd_alloc_array(n + n_more + 1, sizeof *all);

    memcpy(all, rd_commands, n * sizeof *all);
    if (more) memcpy(all + n, more, n_more * sizeof *all);
    return all;
}

static int run_table(int argc, char **argv, const rd_command *commands)
{
    rd_error unknown;

    if (argc < 2) {
        fprintf(stderr, "redraft: which call? redraft --help lists them\n");
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help_all(commands);
        return finish_output("--help", 0);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("redraft %s\n", RD_VERSION);
        return finish_output("--version", 0);
    }
    if (!strncmp(argv[1], "--", 2) && print_extra(argv[1], commands) == 0)
        return finish_output(argv[1], 0);
    for (const rd_command *c = commands; c->name; c++)
        if (!strcmp(c->name, argv[1]))
            return finish_output(c->name, run_call(c, argc - 2, argv + 2));
    rd_fail(&unknown, RD_INVALID, "unknown call %s", argv[1]);
    fprintf(stderr, "redraft: %s; redraft --help lists them\n", unknown.text);
    return 2;
}

/* Where plugins may lie too, if the user says so. A call that needs none of them must not fail for it. */
static void look_for_plugins(void)
{
    const char *folder = getenv("REDRAFT_PLUGINS");
    rd_error err = { 0 };

    if (folder && *folder && rd_plugins_look(folder, &err))
        rd_log(RD_LOG_WARN, "REDRAFT_PLUGINS: %s", err.text);
}

int rd_tools_main(int argc, char **argv, const rd_command *more)
{
    const rd_command *commands = join_tables(more);

    keep_standard_files();
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an error of writing, */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that may not grow */
    signal(SIGBUS, on_lost_page);
    look_for_plugins();
    int status = run_table(argc, argv, commands);

    free((void *)commands);
    return status;
}
