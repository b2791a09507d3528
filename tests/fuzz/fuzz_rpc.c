/* fuzz_rpc.c - libFuzzer: each line of the input is a frame to one peer with a few methods and open documents.
 *
 * What comes out must be messages; a request is answered at most once; the documents hold their own sums.
 */
#include "lsp/rpc.h"
#include "lsp/sync.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

struct rd_conn {
    rd_rpc *rpc;
    rd_documents *documents;
    rd_encoding encoding;
    uint64_t kept[64];
    size_t kept_count, requests;
};

static rd_status now(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)err;
    c->requests++;
    if (!rd_rpc_answer(c->rpc, m->ticket, m->params ? json_deep_copy(m->params) : NULL))
        __builtin_trap();
    if (rd_rpc_answer(c->rpc, m->ticket, NULL)) __builtin_trap();
    return RD_OK;
}

static rd_status later(rd_conn *c, const rd_message *m, rd_error *err)
{
    c->requests++;
    if (c->kept_count == 64) return rd_fail(err, RD_STALE, "full");
    c->kept[c->kept_count++] = m->ticket;
    rd_rpc_ask(c->rpc, "ask", NULL);
    return RD_OK;
}

static rd_status oldest(rd_conn *c, const rd_message *m, rd_error *err)
{
    (void)m;
    (void)err;
    if (c->kept_count > 0) rd_rpc_answer(c->rpc, c->kept[--c->kept_count], json_true());
    return RD_OK;
}

static rd_status did_open(rd_conn *c, const rd_message *m, rd_error *err)
{
    return rd_sync_open(c->documents, m->params, err) == RD_SYNC_LOST ? RD_INVALID : RD_OK;
}

static rd_status did_change(rd_conn *c, const rd_message *m, rd_error *err)
{
    return rd_sync_change(c->documents, m->params, c->encoding, err) == RD_SYNC_LOST ? RD_INVALID
                                                                                     : RD_OK;
}

static rd_status did_close(rd_conn *c, const rd_message *m, rd_error *err)
{
    rd_sync_close(c->documents, m->params, err);
    return RD_OK;
}

static void cancelled(rd_conn *c, uint64_t ticket)
{
    if (rd_rpc_is_open(c->rpc, ticket)) __builtin_trap();
}

static void lost(rd_conn *c, const char *why)
{
    (void)why;
    rd_documents_forget(c->documents);
}

static const rd_method methods[] = {
    { "initialize", RD_MESSAGE_REQUEST, now },
    { "now", RD_MESSAGE_REQUEST, now },
    { "later", RD_MESSAGE_REQUEST, later },
    { "oldest", RD_MESSAGE_NOTIFICATION, oldest },
    { "textDocument/didOpen", RD_MESSAGE_NOTIFICATION, did_open },
    { "textDocument/didChange", RD_MESSAGE_NOTIFICATION, did_change },
    { "textDocument/didClose", RD_MESSAGE_NOTIFICATION, did_close },
};

/* Every line is a message of JSON-RPC. */
static void check_output(const rd_buf *out)
{
    for (const char *s = out->data; s && *s;) {
        const char *end = strchr(s, '\n');
        json_t *m =
            end ? json_loadb(s, (size_t)(end - s), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL)
                : NULL;

        if (!m || !json_object_get(m, "jsonrpc")) __builtin_trap();
        if (!json_object_get(m, "method") && !json_object_get(m, "id")) __builtin_trap();
        json_decref(m);
        s = end + 1;
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static const rd_rpc_hooks hooks = { cancelled, lost, NULL };
    rd_conn c = { 0 };
    rd_buf out = { 0 };
    int code;

    if (n < 1) return 0;
    c.encoding = (rd_encoding)(data[0] % 3);
    c.documents = rd_documents_new();
    c.rpc = rd_rpc_new(data[0] & 4 ? RD_MCP : RD_LSP, methods, sizeof methods / sizeof *methods,
                       &hooks, &c, RD_FRAMING_LINE, &out);
    rd_rpc_set_encoding(c.rpc, c.encoding);
    if (data[0] & 8) { /* skip the beginning */
        static const char hello[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\"}";
        static const char then[] = "{\"jsonrpc\":\"2.0\",\"method\":\"initialized\"}";

        rd_rpc_frame(c.rpc, hello, sizeof hello - 1);
        rd_rpc_frame(c.rpc, then, sizeof then - 1);
    }
    for (size_t at = 1; at <= n && !rd_rpc_is_over(c.rpc, &code);) {
        const unsigned char *end = at < n ? memchr(data + at, '\n', n - at) : NULL;
        size_t len = end ? (size_t)(end - data) - at : n - at;
        char *frame = malloc(len + 1);

        memcpy(frame, data + at, len);
        frame[len] = 0; /* as the wire's */
        rd_rpc_frame(c.rpc, frame, len);
        free(frame);
        at += len + 1;
    }
    rd_rpc_hang_up(c.rpc);
    if (rd_rpc_open_requests(c.rpc) != 0) __builtin_trap();
    check_output(&out);
    rd_rpc_free(c.rpc);
    rd_documents_free(c.documents);
    rd_buf_clear(&out);
    return 0;
}
