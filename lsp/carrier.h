/* carrier.h - the daemon's connections: a socket, its hello, and the rd_conn behind it. Loop thread.
 *
 * Bytes go both ways without being understood, but for the hello line. Above a mark of unsent bytes a peer is not read from;
 * above the limit it is closed.
 */
#ifndef RD_LSP_CARRIER_H
#define RD_LSP_CARRIER_H

#include "lsp/conn.h"
#include "lsp/hello.h"

#include <uv.h>

typedef struct rd_carriers rd_carriers;

typedef struct rd_carriers_options {
    uv_loop_t *loop; /* borrowed, as all in here */
    const rd_host *host;
    const rd_config *config;
    const char *build;
    void (*counted)(void *user);    /* the number of sockets or of clients changed */
    void (*stop)(void *user);       /* `redraft stop` asks for it */
    uint64_t (*forget)(void *user); /* all finished work; the number is for the next */
    bool (*has_forgotten)(void *user, uint64_t number);
    void *user;
} rd_carriers_options;

rd_carriers *rd_carriers_new(const rd_carriers_options *o);
void rd_carriers_free(rd_carriers *all); /* when none is left and the loop ran empty */
/* Takes the socket. With `hello` (borrowed) that one is taken for said; without it is waited for. */
void rd_carriers_add(rd_carriers *all, int fd, const rd_hello *hello);
int rd_carriers_count(const rd_carriers *all);   /* sockets */
int rd_carriers_clients(const rd_carriers *all); /* those of them whose hello made a connection */

void rd_carriers_event(rd_carriers *all, const rd_event *ev);
void rd_carriers_model_changed(rd_carriers *all);
void rd_carriers_forgot(rd_carriers *all); /* has_forgotten may say something new */
void rd_carriers_wake_at(rd_carriers *all, uint64_t number, double at_ms);
/* What is still to be sent is sent, then they are closed; who does not read is closed without. */
void rd_carriers_stop(rd_carriers *all);

long rd_carriers_client_pid(const rd_carriers *all); /* of the first one; 0: none */
int rd_carriers_code(const rd_carriers *all);        /* the status that the last one ended with */

#endif
