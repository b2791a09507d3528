/* client.h - an editor or agent for tests: starts a program, writes framed JSON to it and reads what it says.
 *
 * Whatever comes on the program's stdout must be a framed JSON message: all else fails the read. Requests of the program are
 * answered with null, or with what is set, and counted.
 */
#ifndef RD_E2E_CLIENT_H
#define RD_E2E_CLIENT_H

#include "lsp/wire.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct client {
    pid_t pid;
    int to, from; /* -1: closed */
    rd_framing framing;
    rd_wire *wire;
    rd_buf unread; /* bytes that came and were not looked at */
    size_t unread_at;
    const char *reply;  /* JSON, the result of the program's requests; NULL: null */
    int asked, garbage; /* requests of the program's; what was no message */
} client;

/* `argv` ends with NULL. The framing is lines for MCP. */
void client_start(client *c, const char *const *argv, rd_framing framing);
/* JSON in which each ' stands for ". Blocks. */
void client_send(client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void client_send_bytes(client *c, const char *message, size_t n);
void client_send_raw(client *c, const char *bytes, size_t n); /* without framing */
void client_send_json(client *c, json_t *message);            /* takes it */
/* The next message that is no request of the program's, the caller's; NULL at the end or after `wait_ms`. */
json_t *client_read(client *c, int wait_ms);
/* The next message with this id; others are dropped. */
json_t *client_answer(client *c, int id, int wait_ms);
void client_close_input(client *c);
/* Wait for the program to end, for `wait_ms`, and kill it after that. Its exit status; -1: it had to be killed or died
 * of a signal. */
int client_wait(client *c, int wait_ms);
/* Close, wait 2 s, free. Returns the exit status. */
int client_end(client *c);

/* initialize, its answer, initialized. */
bool client_initialize(client *c);
void client_open(client *c, const char *uri, const char *text);
/* Insert at a place of line 0. */
void client_insert(client *c, const char *uri, int version, int character, const char *text);
void client_ask(client *c, int id, const char *uri, int character);
/* Text of the first item of an answer to it, borrowed; NULL where there is none. */
const char *client_item(const json_t *answer);

/* Run a program to its end; its stdout is the caller's. Returns the exit status, -1: a signal. */
int client_run(const char *const *argv, rd_buf *out);
/* What `PROGRAM status --json` prints, the caller's; NULL: it fails, or prints no object. */
json_t *client_status(const char *program);
/* A new folder that is XDG_RUNTIME_DIR, XDG_STATE_HOME, XDG_CONFIG_HOME and HOME from now on. */
void client_own_world(char folder[64]);
void client_remove_world(const char *folder);
void client_sleep_ms(int ms);

#endif
