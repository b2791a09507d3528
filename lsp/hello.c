/* hello.c - the hello line as JSON and back. */
#include "lsp/hello.h"

#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

static const char *const words[] = { "front", "status", "stop", "forget" };

void rd_hello_write(const rd_hello *h, rd_buf *out)
{
    json_t *roots = json_array();

    for (int i = 0; i < h->n_roots; i++) json_array_append_new(roots, json_string(h->roots[i]));
    json_t *line = json_pack("{s:s, s:s, s:s, s:o}", "hello", words[h->kind], "build", h->build,
                             "protocol", h->protocol == RD_MCP ? "mcp" : "lsp", "roots", roots);
    char *text = json_dumps(line, JSON_COMPACT);

    rd_buf_text(out, text ? text : "{}");
    rd_buf_text(out, "\n");
    free(text);
    json_decref(line);
}

static rd_status read_roots(const json_t *roots, rd_hello *out, rd_error *err)
{
    const char **list = rd_alloc_array(json_array_size(roots) + 1, sizeof *list);
    const json_t *value;
    size_t i;

    out->roots = list;
    json_array_foreach(roots, i, value)
    {
        const char *path = json_string_value(value);

        if (!path || path[0] != '/')
            return rd_fail(err, RD_INVALID, "hello: a root is not an absolute path");
        list[out->n_roots++] = path;
    }
    return RD_OK;
}

rd_status rd_hello_read(const char *line, size_t n, rd_hello *out, rd_error *err)
{
    rd_hello h = { .top = json_loadb(line, n, 0, NULL) };
    const char *kind = json_string_value(json_object_get(h.top, "hello"));
    const char *protocol = json_string_value(json_object_get(h.top, "protocol"));
    rd_status s = RD_OK;
    size_t i = 0;

    while (kind && i < sizeof words / sizeof *words && strcmp(kind, words[i]) != 0) i++;
    h.kind = (rd_hello_kind)i;
    h.build = json_string_value(json_object_get(h.top, "build"));
    h.protocol = protocol && !strcmp(protocol, "mcp") ? RD_MCP : RD_LSP;
    if (!kind || i == sizeof words / sizeof *words || !h.build)
        s = rd_fail(err, RD_INVALID, "hello: not a line of this protocol");
    else
        s = read_roots(json_object_get(h.top, "roots"), &h, err);
    if (s)
        rd_hello_clear(&h);
    else
        *out = h;
    return s;
}

void rd_hello_clear(rd_hello *h)
{
    free((void *)h->roots);
    json_decref(h->top);
    *h = (rd_hello){ 0 };
}
