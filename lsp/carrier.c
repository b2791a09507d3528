/* carrier.c - one socket: reading, writing, pausing, closing.
 *
 * A carrier is freed when its three handles are closed; until then it is dead and touches nothing. rd_conn never calls back
 * into a place that ends its carrier: what an act of the connection leads to is looked at after it, in `settle`.
 */
#include "lsp/carrier.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 64 << 10, HELLO_MS = 5000, FLUSH_MS = 700, HANDLES = 3 };

typedef struct carrier {
    rd_carriers *all;
    struct carrier *next;
    uint64_t number;
    uv_pipe_t pipe;
    uv_timer_t wake, limit; /* limit: for the hello, and for the last flush */
    int closed;             /* handles */
    rd_conn *conn;          /* NULL before the hello */
    rd_hello hello;
    rd_buf line; /* the hello as far as it came; then our answer */
    size_t unsent;
    uint64_t forgets; /* waits for this number; 0: for none */
    bool paused, finishing, dead;
} carrier;

struct rd_carriers {
    rd_carriers_options o;
    carrier *first;
    uint64_t last_number;
    int count, code;
    char piece[PIECE];
};

typedef struct sending {
    uv_write_t request;
    carrier *c;
    rd_buf bytes;
} sending;

rd_carriers *rd_carriers_new(const rd_carriers_options *o)
{
    rd_carriers *all = rd_alloc0(sizeof *all);

    all->o = *o;
    all->code = 1;
    return all;
}

void rd_carriers_free(rd_carriers *all)
{
    free(all);
}

int rd_carriers_count(const rd_carriers *all)
{
    return all->count;
}

int rd_carriers_clients(const rd_carriers *all)
{
    int n = 0;

    for (const carrier *c = all->first; c; c = c->next) n += c->conn != NULL;
    return n;
}

int rd_carriers_code(const rd_carriers *all)
{
    return all->code;
}

static carrier *find(rd_carriers *all, uint64_t number)
{
    carrier *c = all->first;

    while (c && c->number != number) c = c->next;
    return c;
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
    carrier *c = handle->data, **at = &c->all->first;
    rd_carriers *all = c->all;

    if (++c->closed < HANDLES) return;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    rd_buf_clear(&c->line);
    rd_hello_clear(&c->hello);
    free(c);
    all->count--;
    all->o.counted(all->o.user);
}

static void drop(carrier *c)
{
    if (c->dead) return;
    c->dead = true;
    if (c->conn) rd_conn_free(c->conn);
    c->conn = NULL;
    uv_close((uv_handle_t *)&c->pipe, on_closed);
    uv_close((uv_handle_t *)&c->wake, on_closed);
    uv_close((uv_handle_t *)&c->limit, on_closed);
}

static void on_limit(uv_timer_t *t)
{
    drop(t->data);
}

/* Nothing more is read; what is unsent goes out for a while, then it is closed. */
static void finish(carrier *c)
{
    if (c->dead || c->finishing) return;
    c->finishing = true;
    uv_read_stop((uv_stream_t *)&c->pipe);
    if (c->unsent == 0)
        drop(c);
    else
        uv_timer_start(&c->limit, on_limit, FLUSH_MS, 0);
}

/* ---- writing ---- */

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *piece);

static void on_piece(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    carrier *c = handle->data;

    (void)wanted;
    *out = uv_buf_init(c->all->piece, PIECE);
}

static void pause_or_go_on(carrier *c)
{
    bool full = c->unsent > RD_PAUSE_UNSENT_BYTES;

    if (c->dead || c->finishing || full == c->paused) return;
    c->paused = full;
    if (full)
        uv_read_stop((uv_stream_t *)&c->pipe);
    else
        uv_read_start((uv_stream_t *)&c->pipe, on_piece, on_read);
}

static void on_sent(uv_write_t *request, int failed)
{
    sending *s = (sending *)request;
    carrier *c = s->c;

    c->unsent -= s->bytes.len;
    rd_buf_clear(&s->bytes);
    free(s);
    if (failed || (c->finishing && c->unsent == 0))
        drop(c);
    else
        pause_or_go_on(c);
}

/* Send what stands in `out` and empty it. What the socket does not take at once is kept. */
static void send_all(carrier *c, rd_buf *out)
{
    uv_stream_t *stream = (uv_stream_t *)&c->pipe;
    uv_buf_t piece = uv_buf_init(out->data, (unsigned)out->len);
    int sent = c->unsent ? 0 : uv_try_write(stream, &piece, 1);

    if (sent < 0 && sent != UV_EAGAIN) {
        drop(c);
        return;
    }
    if (sent == (int)out->len) {
        rd_buf_reset(out);
        return;
    }
    sending *s = rd_alloc0(sizeof *s);

    s->c = c;
    rd_buf_append(&s->bytes, out->data + (sent > 0 ? sent : 0),
                  out->len - (size_t)(sent > 0 ? sent : 0));
    rd_buf_clear(out);
    c->unsent += s->bytes.len;
    piece = uv_buf_init(s->bytes.data, (unsigned)s->bytes.len);
    if (uv_write(&s->request, stream, &piece, 1, on_sent)) {
        c->unsent -= s->bytes.len;
        rd_buf_clear(&s->bytes);
        free(s);
        drop(c);
    }
}

/* After the connection did something: send, and look whether that was all. */
static void settle(carrier *c)
{
    int code;

    if (c->dead || !c->conn) return;
    rd_buf *out = rd_conn_output(c->conn);

    if (out->len > 0) send_all(c, out);
    if (c->dead) return;
    if (c->unsent > RD_MOST_UNSENT_BYTES) {
        rd_log(RD_LOG_WARN, "connection %llu does not read: closed", (unsigned long long)c->number);
        drop(c);
        return;
    }
    pause_or_go_on(c);
    if (!rd_conn_is_over(c->conn, &code)) return;
    c->all->code = code;
    finish(c);
}

/* ---- hello ---- */

static void answer(carrier *c, json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT);

    rd_buf_reset(&c->line);
    rd_buf_text(&c->line, text ? text : "{}");
    rd_buf_text(&c->line, "\n");
    free(text);
    json_decref(line);
    send_all(c, &c->line);
}

static void open_conn(carrier *c)
{
    const rd_hello *h = &c->hello;

    c->conn = rd_conn_new(&(rd_conn_options){
        .host = c->all->o.host,
        .number = c->number,
        .protocol = h->protocol,
        .config = c->all->o.config,
        .roots = h->roots,
        .n_roots = h->n_roots,
    });
    c->all->o.counted(c->all->o.user);
    settle(c);
}

static void greeted(carrier *c)
{
    rd_carriers *all = c->all;

    uv_timer_stop(&c->limit);
    if (c->hello.kind == RD_HELLO_STATUS) {
        answer(c, all->o.host->status(all->o.host->self));
        finish(c);
    } else if (c->hello.kind == RD_HELLO_STOP) {
        answer(c, json_pack("{s:b}", "stopping", 1));
        finish(c);
        all->o.stop(all->o.user);
    } else if (c->hello.kind == RD_HELLO_FORGET) {
        c->forgets = all->o.forget(all->o.user);
    } else if (!all->o.build || strcmp(c->hello.build, all->o.build) != 0) {
        answer(c, json_pack("{s:s}", "error", "another build"));
        finish(c);
    } else if (all->count > RD_MOST_CONNECTIONS) {
        answer(c, json_pack("{s:s}", "error", "too many connections"));
        finish(c);
    } else {
        answer(c, json_pack("{s:b}", "welcome", 1));
        if (!c->dead) open_conn(c);
    }
}

/* Takes the hello from the front of the piece; false while it is not whole. */
static bool take_hello(carrier *c, const char **bytes, size_t *n)
{
    const char *end = memchr(*bytes, '\n', *n);
    size_t taken = end ? (size_t)(end - *bytes) : *n;
    rd_error err;

    rd_buf_append(&c->line, *bytes, taken);
    if (c->line.len > RD_MOST_HELLO_BYTES ||
        (end && rd_hello_read(c->line.data, c->line.len, &c->hello, &err))) {
        drop(c);
        return false;
    }
    if (!end) return false;
    *bytes += taken + 1;
    *n -= taken + 1;
    greeted(c);
    return true;
}

/* ---- reading ---- */

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *piece)
{
    carrier *c = stream->data;
    const char *bytes = piece->base;
    size_t n = got > 0 ? (size_t)got : 0;

    if (got == 0 || c->dead || c->finishing) return;
    if (got < 0) {
        if (c->conn) rd_conn_end(c->conn);
        settle(c);
        finish(c);
        return;
    }
    if (!c->conn && (c->forgets || !take_hello(c, &bytes, &n))) return;
    if (c->dead || c->finishing || !c->conn || n == 0) return;
    rd_conn_read(c->conn, bytes, n);
    settle(c);
}

static void on_tick(uv_timer_t *t)
{
    carrier *c = t->data;

    if (c->dead || !c->conn) return;
    rd_conn_tick(c->conn);
    settle(c);
}

void rd_carriers_add(rd_carriers *all, int fd, const rd_hello *hello)
{
    carrier *c = rd_alloc0(sizeof *c);

    c->all = all;
    c->number = ++all->last_number;
    c->next = all->first;
    all->first = c;
    all->count++;
    uv_pipe_init(all->o.loop, &c->pipe, 0);
    uv_timer_init(all->o.loop, &c->wake);
    uv_timer_init(all->o.loop, &c->limit);
    c->pipe.data = c->wake.data = c->limit.data = c;
    if (uv_pipe_open(&c->pipe, fd)) {
        close(fd);
        drop(c);
        return;
    }
    uv_read_start((uv_stream_t *)&c->pipe, on_piece, on_read);
    if (hello) {
        c->hello = *hello;
        json_incref(c->hello.top);
        c->hello.roots = rd_alloc_array((size_t)hello->n_roots + 1, sizeof *c->hello.roots);
        for (int i = 0; i < hello->n_roots; i++)
            ((const char **)c->hello.roots)[i] = hello->roots[i];
        open_conn(c);
    } else {
        uv_timer_start(&c->limit, on_limit, HELLO_MS, 0);
    }
}

/* ---- what comes from the daemon ---- */

void rd_carriers_event(rd_carriers *all, const rd_event *ev)
{
    carrier *c = find(all, ev->job->conn);

    if (!c || c->dead || !c->conn) return;
    rd_conn_event(c->conn, ev);
    settle(c);
}

void rd_carriers_model_changed(rd_carriers *all)
{
    for (carrier *c = all->first; c; c = c->next) {
        if (c->dead || !c->conn) continue;
        rd_conn_model_changed(c->conn);
        settle(c);
    }
}

void rd_carriers_forgot(rd_carriers *all)
{
    for (carrier *c = all->first; c; c = c->next) {
        if (c->dead || c->finishing || !c->forgets) continue;
        if (!all->o.has_forgotten(all->o.user, c->forgets)) continue;
        c->forgets = 0;
        answer(c, json_pack("{s:b}", "forgotten", 1));
        finish(c);
    }
}

void rd_carriers_wake_at(rd_carriers *all, uint64_t number, double at_ms)
{
    carrier *c = find(all, number);
    double left = at_ms - rd_now_ms();

    if (!c || c->dead) return;
    if (at_ms <= 0) {
        uv_timer_stop(&c->wake);
        return;
    }
    uv_update_time(all->o.loop); /* or the time that this turn of the loop took would be missing */
    uv_timer_start(&c->wake, on_tick, left > 0 ? (uint64_t)(left + 0.999) : 0, 0);
}

void rd_carriers_stop(rd_carriers *all)
{
    for (carrier *c = all->first; c; c = c->next) {
        if (c->dead || c->finishing) continue;
        if (c->conn && all->o.build) {
            rd_buf message = { 0 };

            rd_message_notification(&message, RD_HELLO_LEAVING, NULL);
            rd_wire_write(rd_conn_output(c->conn),
                          c->hello.protocol == RD_MCP ? RD_FRAMING_LINE : RD_FRAMING_HEADER,
                          message.data, message.len);
            rd_buf_clear(&message);
        }
        if (c->conn) rd_conn_end(c->conn);
        settle(c);
        finish(c);
    }
}

long rd_carriers_client_pid(const rd_carriers *all)
{
    return all->first && all->first->conn ? rd_conn_client_pid(all->first->conn) : 0;
}
