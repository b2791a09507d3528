/* companions.c - read, written beside, renamed. */
#include "core/format/companions.h"

#include <stdlib.h>
#include <sys/stat.h>

enum { COPY_MOST = 256 << 20 };

static rd_status copy_file(rd_companions *c, const char *in, const char *out, const char *name,
                           rd_error *err)
{
    char *from = rd_path_join(in, name), *to = rd_path_join(out, name);
    rd_buf text = { 0 };
    struct stat st;
    rd_status s = RD_OK;

    if (!stat(from, &st)) {
        s = rd_file_read(from, COPY_MOST, &text, err);
        if (!s) s = rd_draft_open(to, &c->draft[c->n], err);
        if (!s) s = rd_draft_write(&c->draft[c->n++], 0, text.data, text.len, err);
    }
    rd_buf_clear(&text);
    free(from);
    free(to);
    return s;
}

rd_status rd_companions_copy(rd_companions *c, const char *in, const char *out, rd_error *err)
{
    static const char *const names[] = { "config.json",         "generation_config.json",
                                         "tokenizer.json",      "tokenizer_config.json",
                                         "chat_template.jinja", "README.md" };
    rd_status s = RD_OK;

    for (size_t i = 0; i < sizeof names / sizeof *names && !s; i++)
        s = copy_file(c, in, out, names[i], err);
    return s;
}

rd_status rd_companions_finish(rd_companions *c, rd_error *err)
{
    rd_status s = RD_OK;

    for (int i = 0; i < c->n && !s; i++) s = rd_draft_finish(&c->draft[i], err);
    return s;
}

void rd_companions_clear(rd_companions *c)
{
    for (int i = 0; i < c->n; i++) rd_draft_close(&c->draft[i]);
    c->n = 0;
}
