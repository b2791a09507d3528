/* embed.c - fill a hole with libredraft: the whole of what an editor needs.
 *
 *     cc embed.c $(pkg-config --cflags --libs redraft) -o embed
 *     ./embed [MODEL-FOLDER]
 */
#include <redraft.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const char prefix[] = "def read_lines(path):\n    with open(path) as f:\n        ";
    static const char suffix[] = "\n    return lines\n";
    rd_engine_options options = { .model = argc > 1 ? argv[1] : NULL };
    rd_request request = { .task = RD_INFILL,
                           .language = "python",
                           .prefix = prefix,
                           .prefix_bytes = strlen(prefix),
                           .suffix = suffix,
                           .suffix_bytes = strlen(suffix),
                           .quality = 0.5f };
    rd_engine *engine = NULL;
    rd_run *run = NULL;
    rd_step step = { 0 };
    rd_error error = { 0 };

    if (rd_engine_open(&options, &engine, &error)) goto fail;
    if (rd_run_open(engine, &request, &run, &error)) goto fail;
    while (!step.done)
        if (rd_run_step(run, &step, &error)) goto fail;
    printf("%s%.*s%s", prefix, (int)step.bytes, step.text, suffix);
    rd_run_close(run);
    rd_engine_close(engine);
    return 0;
fail:
    fprintf(stderr, "%s\n", error.text);
    rd_run_close(run);
    rd_engine_close(engine);
    return 1;
}
